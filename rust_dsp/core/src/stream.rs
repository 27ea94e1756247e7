//! Streaming: samples as they come, in chunks of any size, to the same segments as in one piece.
//!
//! Raw samples of the next window are kept, and a window is processed by the arithmetic of the batch form as soon as its
//! last sample is there. So segments are equal to those of the batch form, bit for bit. All memory is reserved at set-up.

use thiserror::Error;

use crate::plan::Plan;
use crate::preprocess::{Channel, Workspace};
use crate::recoil::{Recoil, SegmentRecoil};
use crate::samples::Samples;
use crate::validity::Status;
use crate::windows::{Gate, Window, WindowsError, nearest, reaches_end, window_samples};
use crate::{OUTPUT_SAMPLES, WINDOW_S};

/// Axes of an accelerometer.
const AXES: usize = 3;
/// Dark slots, at most: their rows are listed on the stack.
const MAX_DARK_SLOTS: usize = 8;
const SLACK_S: (f64, f64) = (1.0, 3600.0);

/// What is pushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Acceleration in g, three axes.
    Accel,
    /// PPG channels.
    Ppg,
    /// Dark slots, in the order of the plan's offsets.
    Dark,
}

impl Signal {
    const ALL: [Self; 3] = [Self::Accel, Self::Ppg, Self::Dark];

    /// "accel", "ppg" or "dark".
    pub fn name(self) -> &'static str {
        match self {
            Self::Accel => "accel",
            Self::Ppg => "ppg",
            Self::Dark => "dark",
        }
    }
}

/// What a stream does beyond its plan. A stream has acceleration, PPG or both: those that the plan has a rate for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StreamSettings {
    /// Number of PPG channels; `None`: one per LED offset of the plan, or one.
    pub ppg_channels: Option<usize>,
    /// Whether dark slots are pushed beside the PPG.
    pub dark: bool,
    /// From the start of one segment to that of the next, in seconds; at least 0.1.
    pub hop_s: f64,
    /// Instant of the first accelerometer sample, in seconds after the first PPG frame; without PPG it shifts the times.
    pub accel_start_s: f64,
    /// The motion gate.
    pub gate: Gate,
    /// How far one signal may be ahead of another, and what may be pushed between two segments, in seconds; 1 to 3600.
    pub slack_s: f64,
}

impl Default for StreamSettings {
    fn default() -> Self {
        Self {
            ppg_channels: None,
            dark: false,
            hop_s: WINDOW_S as f64,
            accel_start_s: 0.0,
            gate: Gate::Strict,
            slack_s: 5.0,
        }
    }
}

/// Settings that do not fit, or samples that cannot be taken. Nothing is taken then.
#[derive(Clone, Debug, Error, PartialEq)]
pub enum StreamError {
    /// An invalid hop or start.
    #[error(transparent)]
    Windows(#[from] WindowsError),
    /// A slack outside 1 to 3600 s.
    #[error("slack_s must be from 1 to 3600, found {0}")]
    Slack(f64),
    /// Another number of PPG channels than LED offsets, or none.
    #[error("ppg_channels is {actual}, the plan has {expected}")]
    PpgChannels {
        /// Number of LED offsets of the plan; 0 without PPG.
        expected: usize,
        /// Number in the settings.
        actual: usize,
    },
    /// Dark slots without PPG.
    #[error("dark needs ppg_rate_hz in the plan")]
    DarkWithoutPpg,
    /// More dark slots than a stream takes.
    #[error("a stream takes up to {MAX_DARK_SLOTS} dark slots, the plan has {0}")]
    DarkSlots(usize),
    /// Samples of a signal that the stream does not have.
    #[error("the stream has no {0}")]
    NoSignal(&'static str),
    /// Another number of rows than the signal has.
    #[error("{signal} has {actual} rows, expected {expected}")]
    Rows {
        /// Name of the signal.
        signal: &'static str,
        /// Rows of the stream.
        expected: usize,
        /// Rows that were pushed.
        actual: usize,
    },
    /// Rows of different lengths, or interleaved samples that are no whole number of frames.
    #[error("{0} has rows of different lengths, or an incomplete frame")]
    Ragged(&'static str),
    /// More samples than there is room for.
    #[error("{signal} has room for {room} samples, {samples} were pushed: get segments first, or push other signals")]
    Full {
        /// Name of the signal.
        signal: &'static str,
        /// Samples that may be pushed now.
        room: usize,
        /// Samples that were pushed.
        samples: usize,
    },
    /// A signal that would be further ahead of the others than the slack.
    #[error("{signal} would be {ahead_s:.1} s ahead of another signal: more than slack_s allows")]
    Ahead {
        /// Name of the signal.
        signal: &'static str,
        /// How far it would be ahead, in seconds.
        ahead_s: f64,
    },
    /// Samples after the end.
    #[error("the stream has ended")]
    Ended,
}

/// Why a segment should not be given to a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Too much motion for the gate.
    Motion,
    /// No PPG channel is good: the first of gap, missing, flat that any of them has.
    PpgGap,
    /// See [`Self::PpgGap`].
    PpgMissing,
    /// See [`Self::PpgGap`].
    PpgFlat,
    /// An accelerometer axis is incomplete, or all are flat: the first of gap, missing, flat that any of them has.
    AccelGap,
    /// See [`Self::AccelGap`]; also where the motion cannot be measured, because an axis has no sample.
    AccelMissing,
    /// See [`Self::AccelGap`].
    AccelFlat,
}

impl Reason {
    /// The word for it in `accelkd`, such as "ppg_gap".
    pub fn name(self) -> &'static str {
        match self {
            Self::Motion => "motion",
            Self::PpgGap => "ppg_gap",
            Self::PpgMissing => "ppg_missing",
            Self::PpgFlat => "ppg_flat",
            Self::AccelGap => "accel_gap",
            Self::AccelMissing => "accel_missing",
            Self::AccelFlat => "accel_flat",
        }
    }
}

/// One finished segment of 60 s. A signal that the stream does not have has no rows, and its start is 0.
#[derive(Clone, Debug)]
pub struct Segment {
    /// 0 for the first segment of the stream.
    pub number: u64,
    /// Start, in seconds after the first PPG frame, or without PPG after the first accelerometer sample.
    pub offset_s: f64,
    /// Index of the first accelerometer sample, counted from the start of the stream.
    pub accel_start: u64,
    /// Index of the first PPG frame.
    pub ppg_start: u64,
    /// Index of the first dark frame; without dark slots equal to `ppg_start`.
    pub dark_start: u64,
    /// Median of the motion over whole seconds, in g; NaN without an accelerometer.
    pub motion_median_g: f64,
    /// 95th percentile of the motion over whole seconds, in g; NaN without an accelerometer.
    pub motion_p95_g: f64,
    /// Whether the sensor lay still like a thing: it was hardly worn.
    pub lies_still: bool,
    /// Whether the segment passes the motion gate; without an accelerometer every segment does.
    pub kept: bool,
    /// Why the segment should not be given to a model; `None` where it may.
    pub reason: Option<Reason>,
    /// Z-scored acceleration at 64 Hz, `[3][3840]`; zeros where the status is not good.
    pub accel: Box<[f32]>,
    /// Status and levels of each axis.
    pub accel_channels: Box<[Channel]>,
    /// Z-scored PPG at 64 Hz, `[channels][3840]`; zeros where the status is not good.
    pub ppg: Box<[f32]>,
    /// Status and levels of each PPG channel.
    pub ppg_channels: Box<[Channel]>,
}

impl Segment {
    fn new(axes: usize, ppg_channels: usize) -> Self {
        let samples = |rows| vec![0.0; rows * OUTPUT_SAMPLES].into();
        Self {
            number: 0,
            offset_s: 0.0,
            accel_start: 0,
            ppg_start: 0,
            dark_start: 0,
            motion_median_g: f64::NAN,
            motion_p95_g: f64::NAN,
            lies_still: false,
            kept: true,
            reason: None,
            accel: samples(axes),
            accel_channels: vec![Channel::UNKNOWN; axes].into(),
            ppg: samples(ppg_channels),
            ppg_channels: vec![Channel::UNKNOWN; ppg_channels].into(),
        }
    }

    /// The rule of `accelkd/segments/windows.py`: motion, then PPG, then acceleration.
    fn judge(&self) -> Option<Reason> {
        if !self.kept {
            return Some(if self.motion_p95_g.is_finite() { Reason::Motion } else { Reason::AccelMissing });
        }
        let any = |channels: &[Channel]| channels.iter().fold(0, |bits, channel| bits | channel.status.0);
        let all_bad = |channels: &[Channel]| {
            !channels.is_empty() && channels.iter().all(|channel| channel.status != Status::GOOD)
        };
        let first = |bits: u8, [gap, missing, flat]: [Reason; 3]| match bits {
            bits if bits & Status::GAP.0 != 0 => gap,
            bits if bits & Status::MISSING.0 != 0 => missing,
            _ => flat,
        };
        if all_bad(&self.ppg_channels) {
            return Some(first(any(&self.ppg_channels), [Reason::PpgGap, Reason::PpgMissing, Reason::PpgFlat]));
        }
        let bits = any(&self.accel_channels);
        let incomplete = bits & (Status::GAP.0 | Status::MISSING.0) != 0;
        (incomplete || all_bad(&self.accel_channels))
            .then(|| first(bits, [Reason::AccelGap, Reason::AccelMissing, Reason::AccelFlat]))
    }

    fn bytes(&self) -> usize {
        size_of_val::<[f32]>(&self.accel)
            + size_of_val::<[f32]>(&self.ppg)
            + size_of_val::<[Channel]>(&self.accel_channels)
            + size_of_val::<[Channel]>(&self.ppg_channels)
    }
}

/// The latest raw samples of one signal: from the start of the next window on.
#[derive(Debug)]
struct Buffer {
    rate_hz: f64,
    /// Instant of sample 0.
    start_s: f64,
    /// Samples of a window.
    window: usize,
    /// Samples of a row.
    capacity: usize,
    rows: usize,
    /// `[rows][capacity]`, of which samples `first..end` of the signal are stored.
    samples: Box<[f32]>,
    first: u64,
    end: u64,
}

impl Buffer {
    fn new(rows: usize, rate_hz: f64, start_s: f64, slack_s: f64) -> Self {
        let window = window_samples(rate_hz);
        let capacity = window + (slack_s * rate_hz).ceil() as usize;
        let samples = vec![0.0; rows * capacity].into();
        Self { rate_hz, start_s, window, capacity, rows, samples, first: 0, end: 0 }
    }

    /// First sample of the window that starts at `offset_s`.
    fn start(&self, offset_s: f64) -> u64 {
        nearest(offset_s - self.start_s, self.rate_hz)
    }

    /// Whether the window at `offset_s` is complete if the signal has `samples`.
    fn covers(&self, offset_s: f64, samples: u64, ended: bool) -> bool {
        let start = self.start(offset_s);
        samples >= start.saturating_add(self.window as u64) || (ended && reaches_end(start, samples, self.rate_hz))
    }

    /// Samples that fit if those before `keep_from` are dropped.
    fn room(&self, keep_from: u64) -> usize {
        let room = (self.capacity as u64).saturating_add(keep_from).saturating_sub(self.end);
        usize::try_from(room).unwrap_or(usize::MAX)
    }

    /// Append `count` samples, at most `room`: `fill` writes those from an index on into a part of a row.
    fn append(&mut self, keep_from: u64, count: usize, fill: impl Fn(usize, usize, &mut [f32])) {
        let skipped = usize::try_from(keep_from.saturating_sub(self.end)).unwrap_or(usize::MAX).min(count);
        let mut stored = (self.end - self.first) as usize;
        if keep_from >= self.end {
            (self.first, stored) = (self.end + skipped as u64, 0);
        } else if stored + count > self.capacity {
            let dropped = (keep_from - self.first) as usize;
            for row in self.samples.chunks_exact_mut(self.capacity) {
                row.copy_within(dropped..stored, 0);
            }
            (self.first, stored) = (keep_from, stored - dropped);
        }
        for (number, row) in self.samples.chunks_exact_mut(self.capacity).enumerate() {
            fill(number, skipped, &mut row[stored..][..count - skipped]);
        }
        self.end += count as u64;
    }

    /// The rows of the window from `start` on, as far as there are samples.
    fn window(&self, start: u64) -> impl Iterator<Item = Samples<'_>> {
        let from = (start - self.first) as usize;
        let to = (from + self.window).min((self.end - self.first) as usize);
        self.samples.chunks_exact(self.capacity).map(move |row| Samples::F32(&row[from..to]))
    }
}

/// One device's samples to segments, as they come.
///
/// Nothing is allocated after [`Stream::new`]. Push samples, then call [`Stream::next_segment`] until there is none.
pub struct Stream {
    plan: Plan,
    gate: Gate,
    hop_s: f64,
    /// Start of the first segment.
    first_s: f64,
    /// Of the next segment.
    number: u64,
    ended: bool,
    /// In the order of [`Signal::ALL`].
    buffers: [Option<Buffer>; 3],
    /// In memory of its own: the tiles in it are aligned, which not every owner of a stream would respect.
    workspace: Box<Workspace>,
    spreads: Vec<f64>,
    recoil: SegmentRecoil,
    segment: Segment,
}

impl Stream {
    /// Reserve everything for the streams of a plan.
    pub fn new(plan: Plan, settings: StreamSettings) -> Result<Self, StreamError> {
        let StreamSettings { ppg_channels, dark, hop_s, accel_start_s, gate, slack_s } = settings;
        if !(hop_s >= 0.1 && hop_s.is_finite()) {
            return Err(WindowsError::Hop(hop_s).into());
        }
        if !accel_start_s.is_finite() {
            return Err(WindowsError::Start(accel_start_s).into());
        }
        if !(slack_s >= SLACK_S.0 && slack_s <= SLACK_S.1) {
            return Err(StreamError::Slack(slack_s));
        }
        let device = plan.device();
        let (leds, slots) = (device.led_offsets_s.len(), device.dark_offsets_s.len());
        let ppg_channels = match (device.ppg_rate_hz, ppg_channels) {
            (None, None | Some(0)) => 0,
            (Some(_), None) => leds.max(1),
            (Some(_), Some(channels)) if channels > 0 && (leds == 0 || leds == channels) => channels,
            (_, Some(actual)) => return Err(StreamError::PpgChannels { expected: leds, actual }),
        };
        if dark && ppg_channels == 0 {
            return Err(StreamError::DarkWithoutPpg);
        }
        if dark && slots > MAX_DARK_SLOTS {
            return Err(StreamError::DarkSlots(slots));
        }
        let axes = if device.accel_rate_hz.is_some() { AXES } else { 0 };
        let dark_slots = if dark { slots } else { 0 };
        let buffers = [
            device.accel_rate_hz.map(|rate_hz| Buffer::new(AXES, rate_hz, accel_start_s, slack_s)),
            device.ppg_rate_hz.map(|rate_hz| Buffer::new(ppg_channels, rate_hz, 0.0, slack_s)),
            plan.dark_rate_hz().filter(|_| dark).map(|rate_hz| Buffer::new(slots, rate_hz, 0.0, slack_s)),
        ];
        Ok(Self {
            gate,
            hop_s,
            first_s: if axes > 0 { accel_start_s.max(0.0) } else { 0.0 },
            number: 0,
            ended: false,
            buffers,
            workspace: Box::new(Workspace::reserved(&plan, ppg_channels, dark_slots)),
            spreads: Vec::with_capacity(WINDOW_S + 1),
            recoil: SegmentRecoil::new(axes),
            segment: Segment::new(axes, ppg_channels),
            plan,
        })
    }

    /// Memory of the stream and of everything that it has reserved, in bytes; it does not change.
    pub fn memory_bytes(&self) -> usize {
        let samples = |buffer: &Buffer| size_of_val::<[f32]>(&buffer.samples);
        size_of::<Self>()
            + self.buffers.iter().flatten().map(samples).sum::<usize>()
            + self.workspace.bytes()
            + self.plan.bytes()
            + self.recoil.bytes()
            + self.segment.bytes()
            + self.spreads.capacity() * size_of::<f64>()
    }

    /// Rows of a signal: 3 axes, PPG channels or dark slots; 0 if the stream does not have it.
    pub fn rows(&self, signal: Signal) -> usize {
        self.buffers[signal as usize].as_ref().map_or(0, |buffer| buffer.rows)
    }

    /// Samples of each row that may be pushed now: at least those of `slack_s`, once all segments have been got and
    /// unless the signal is ahead of another one.
    pub fn room(&self, signal: Signal) -> usize {
        let offset_s = self.offset_s(self.number);
        self.buffers[signal as usize].as_ref().map_or(0, |buffer| buffer.room(buffer.start(offset_s)))
    }

    /// Whether `samples` more of acceleration, PPG and dark slots can be pushed, part by part with all segments got in
    /// between: not if one signal would be further ahead of another than the slack, and not after the end.
    pub fn check_ahead(&self, samples: [usize; 3]) -> Result<(), StreamError> {
        let ends = || self.buffers.iter().zip(samples).filter_map(|(buffer, count)| Some((buffer.as_ref()?, count)));
        let covers = |number: u64| {
            let offset_s = self.offset_s(number);
            ends().all(|(buffer, count)| buffer.covers(offset_s, buffer.end + count as u64, false))
        };
        if self.ended && samples.iter().any(|&count| count > 0) {
            return Err(StreamError::Ended);
        }
        let offset_s = self.offset_s((self.number..).find(|&number| !covers(number)).unwrap_or(self.number));
        for (signal, (buffer, count)) in Signal::ALL.into_iter().zip(self.buffers.iter().zip(samples)) {
            let Some(buffer) = buffer else { continue };
            let waiting = (buffer.end + count as u64).saturating_sub(buffer.start(offset_s));
            if waiting > buffer.capacity as u64 {
                let ahead_s = (waiting - buffer.window as u64) as f64 / buffer.rate_hz;
                return Err(StreamError::Ahead { signal: signal.name(), ahead_s });
            }
        }
        Ok(())
    }

    /// Push the next samples of a signal, one slice per row, all of the same length. NaN marks a lost sample.
    pub fn push(&mut self, signal: Signal, rows: &[&[f32]]) -> Result<(), StreamError> {
        let (name, expected, actual) = (signal.name(), self.rows(signal), rows.len());
        if expected != actual && expected > 0 {
            return Err(StreamError::Rows { signal: name, expected, actual });
        }
        let count = rows.first().map_or(0, |row| row.len());
        if rows.iter().any(|row| row.len() != count) {
            return Err(StreamError::Ragged(name));
        }
        self.append(signal, count, |row, from, out| out.copy_from_slice(&rows[row][from..]))
    }

    /// Push the next frames of a signal: one value of each row, then the next frame.
    pub fn push_interleaved(&mut self, signal: Signal, frames: &[f32]) -> Result<(), StreamError> {
        self.push_frames(signal, frames, |sample| sample)
    }

    /// Push interleaved counts; a sample is `count * scale` in single precision. Scale acceleration to g.
    pub fn push_counts(&mut self, signal: Signal, frames: &[i32], scale: f32) -> Result<(), StreamError> {
        self.push_frames(signal, frames, |count| count as f32 * scale)
    }

    /// Push `samples` lost samples of every row of a signal.
    pub fn gap(&mut self, signal: Signal, samples: usize) -> Result<(), StreamError> {
        self.append(signal, samples, |_, _, out| out.fill(f32::NAN))
    }

    /// Say that no sample follows: then the last segments may lack up to 0.25 s of their end, as in the batch form.
    pub fn end(&mut self) {
        self.ended = true;
    }

    /// The next finished segment, or `None` until more samples are there.
    pub fn next_segment(&mut self) -> Option<&Segment> {
        let offset_s = self.offset_s(self.number);
        let complete = |buffer: &Buffer| buffer.covers(offset_s, buffer.end, self.ended);
        if !self.buffers.iter().flatten().all(complete) {
            return None;
        }
        let [accel, ppg, dark] = &self.buffers;
        let start = |buffer: &Option<Buffer>| buffer.as_ref().map_or(0, |buffer| buffer.start(offset_s));
        let segment = &mut self.segment;
        (segment.number, segment.offset_s) = (self.number, offset_s);
        (segment.accel_start, segment.ppg_start) = (start(accel), start(ppg));
        segment.dark_start = if dark.is_some() { start(dark) } else { segment.ppg_start };

        if let Some(buffer) = accel {
            let mut axes = [Samples::F32(&[]); AXES];
            axes.iter_mut().zip(buffer.window(segment.accel_start)).for_each(|(axis, samples)| *axis = samples);
            let mut window = Window::at(offset_s);
            window.judge(&axes, buffer.rate_hz, self.gate, &mut self.spreads);
            (segment.motion_median_g, segment.motion_p95_g) = (window.motion_median_g, window.motion_p95_g);
            (segment.lies_still, segment.kept) = (window.lies_still, window.kept);
        }

        let mut slots = [Samples::F32(&[]); MAX_DARK_SLOTS];
        let dark_rows = dark.iter().flat_map(|buffer| buffer.window(segment.dark_start));
        let count = slots.iter_mut().zip(dark_rows).map(|(slot, samples)| *slot = samples).count();
        let ppg_outputs = segment.ppg.chunks_exact_mut(OUTPUT_SAMPLES).zip(&mut segment.ppg_channels);
        let accel_outputs = segment.accel.chunks_exact_mut(OUTPUT_SAMPLES).zip(&mut segment.accel_channels);
        let (ppg_start, accel_start) = (segment.ppg_start, segment.accel_start);
        self.plan.preprocess_one(
            ppg.iter().flat_map(|buffer| buffer.window(ppg_start)).zip(ppg_outputs),
            &slots[..count],
            accel.iter().flat_map(|buffer| buffer.window(accel_start)).zip(accel_outputs),
            &mut self.workspace,
        );
        segment.reason = segment.judge();
        self.number += 1;
        Some(&self.segment)
    }

    /// The segment that [`Stream::next_segment`] returned last; empty before the first one.
    pub fn segment(&self) -> &Segment {
        &self.segment
    }

    /// Heart rate from the acceleration of the last segment, as [`crate::recoil_batch`] of its signals times their AC
    /// levels; NaN without acceleration, with an axis that gaps reject, and before the first segment.
    pub fn heart_rate(&mut self) -> Recoil {
        if self.number == 0 {
            return Recoil::NONE;
        }
        let scale = |axis: usize| self.segment.accel_channels[axis].ac_level;
        self.recoil.estimate(self.plan.instruction_set, &self.segment.accel, scale)
    }

    fn offset_s(&self, number: u64) -> f64 {
        self.first_s + number as f64 * self.hop_s
    }

    fn push_frames<T: Copy>(
        &mut self,
        signal: Signal,
        frames: &[T],
        convert: impl Fn(T) -> f32,
    ) -> Result<(), StreamError> {
        let rows = self.rows(signal).max(1);
        if !frames.len().is_multiple_of(rows) {
            return Err(StreamError::Ragged(signal.name()));
        }
        self.append(signal, frames.len() / rows, |row, from, out| {
            let values = frames[from * rows..].chunks_exact(rows).map(|frame| convert(frame[row]));
            out.iter_mut().zip(values).for_each(|(out, value)| *out = value);
        })
    }

    fn append(
        &mut self,
        signal: Signal,
        samples: usize,
        fill: impl Fn(usize, usize, &mut [f32]),
    ) -> Result<(), StreamError> {
        let (name, offset_s) = (signal.name(), self.offset_s(self.number));
        let Some(buffer) = &mut self.buffers[signal as usize] else { return Err(StreamError::NoSignal(name)) };
        if self.ended {
            return Err(StreamError::Ended);
        }
        let keep_from = buffer.start(offset_s);
        let room = buffer.room(keep_from);
        if samples > room {
            return Err(StreamError::Full { signal: name, room, samples });
        }
        buffer.append(keep_from, samples, fill);
        Ok(())
    }
}
