//! Preprocessing: raw windows of many recordings to z-scored rows at 64 Hz.
//!
//! Rows of one sampling rate are processed in groups of eight, across recordings: they stream in blocks from memory
//! through dark subtraction and resampling, then the filters run over the 64 Hz signal.

#[cfg(feature = "stages")]
pub(crate) mod stages;

use std::cell::RefCell;
use std::ops::Range;

use thiserror::Error;

use crate::bandpass::{BUFFER, LaneFilters, filter};
use crate::dark::{Dark, DarkRepair, DarkTile};
use crate::detrend::LineSums;
use crate::gaps::{Gaps, Patch, find_gaps};
use crate::lanes::{Frame, Kernel, LANES, Lanes, TILE, Tile};
use crate::load::{convert, load_tile};
use crate::plan::{Plan, Stream};
use crate::resample::{self, Resampler};
use crate::samples::{PREFETCH_DISTANCE, Samples, with_slice};
use crate::threads::{self, ThreadsError};
use crate::validity::{Sample, Status};
use crate::windows::window_samples;
use crate::zscore::{OutputSample, Scale};
use crate::{OUTPUT_RATE_HZ, OUTPUT_SAMPLES};

/// The first 60 s of one recording; all rows of a stream have the same length. Absent streams are empty.
#[derive(Clone, Debug, Default)]
pub struct Recording<'a> {
    /// PPG channels.
    pub ppg: Vec<Samples<'a>>,
    /// Dark slots, in the order of the plan's offsets.
    pub dark: Vec<Samples<'a>>,
    /// Accelerometer axes.
    pub accel: Vec<Samples<'a>>,
}

/// Status and levels of one row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Channel {
    /// Good, or the reason why the row is all zeros.
    pub status: Status,
    /// Mean of the window before detrending (DC level), in units of the samples; NaN if gaps reject the row.
    pub level: f64,
    /// Standard deviation of the band-passed signal (AC level), in units of the samples; NaN if gaps reject the row.
    pub ac_level: f64,
    /// Fraction of invalid samples.
    pub missing: f64,
}

impl Channel {
    /// Of a row that has not been processed.
    pub(crate) const UNKNOWN: Self =
        Self { status: Status::GOOD, level: f64::NAN, ac_level: f64::NAN, missing: f64::NAN };
}

/// Output of one stream: rows of 3840 samples, recording after recording.
#[derive(Debug)]
pub struct Destination<'a, T> {
    /// Rows per recording.
    pub rows: usize,
    /// `recordings × rows × 3840`.
    pub samples: &'a mut [T],
}

/// Why a batch cannot be preprocessed.
#[derive(Debug, Error)]
pub enum PreprocessError {
    /// Samples of a stream that the plan has no rate for.
    #[error("the plan has no {0}_rate_hz, but the recording has {0}")]
    NoRate(&'static str),
    /// A recording whose number of rows differs from the batch or the plan.
    #[error("recording {recording}: {stream} has {actual} rows, expected {expected}")]
    Rows {
        /// Index in the batch.
        recording: usize,
        /// "ppg", "dark" or "accel".
        stream: &'static str,
        /// Expected number of rows.
        expected: usize,
        /// Actual number of rows.
        actual: usize,
    },
    /// An output buffer whose size does not fit the batch.
    #[error("the output of {stream} has {actual} samples, expected {expected}")]
    Output {
        /// "ppg" or "accel".
        stream: &'static str,
        /// Expected number of samples.
        expected: usize,
        /// Actual number of samples.
        actual: usize,
    },
    /// The operating system refused to start a thread.
    #[error(transparent)]
    Threads(#[from] ThreadsError),
}

/// One row: source, parameters and destination.
#[derive(Debug)]
struct Row<'a, T> {
    samples: Samples<'a>,
    stream: &'a Stream,
    ambient: Option<Ambient<'a>>,
    out: &'a mut [T],
    channel: &'a mut Channel,
}

/// Raw samples of a row, and where its output, its status and its levels go.
pub(crate) type Place<'a> = (Samples<'a>, (&'a mut [f32], &'a mut Channel));

/// The ambient light to subtract from a PPG row.
#[derive(Debug)]
struct Ambient<'a> {
    dark: Dark<'a>,
    /// Index of the row's LED.
    led: usize,
    /// Samples whose ambient light is known if all dark samples are valid.
    usable: Range<usize>,
}

/// Up to eight rows of one sampling rate.
struct Group<'a, 'r, T> {
    resampler: &'a Resampler,
    rows: &'r mut [Row<'a, T>],
}

impl Plan {
    /// Preprocess a batch: PPG rows into `ppg`, accelerometer rows into `accel`. Returns the channels of both streams.
    ///
    /// `threads` 0 means all cores. The result depends neither on it nor on the order of the recordings.
    pub fn preprocess<T: OutputSample>(
        &self,
        recordings: &[Recording<'_>],
        ppg: Destination<'_, T>,
        accel: Destination<'_, T>,
        threads: usize,
    ) -> Result<(Vec<Channel>, Vec<Channel>), PreprocessError> {
        self.check(recordings, &ppg, &accel)?;
        let mut ppg_channels = vec![Channel::UNKNOWN; recordings.len() * ppg.rows];
        let mut accel_channels = vec![Channel::UNKNOWN; recordings.len() * accel.rows];

        let [mut ppg_rate_rows, mut accel_rate_rows] =
            self.rows(recordings, (ppg, &mut ppg_channels), (accel, &mut accel_channels));
        let mut groups = Vec::new();
        for (resampler, rows) in
            [(&self.ppg_resampler, &mut ppg_rate_rows), (&self.accel_resampler, &mut accel_rate_rows)]
        {
            if let Some(resampler) = resampler {
                groups.extend(rows.chunks_mut(LANES).map(|rows| Group { resampler, rows }));
            }
        }
        threads::for_each(groups, threads, |group| self.process(group))?;
        Ok((ppg_channels, accel_channels))
    }

    /// Rows with their output, in the order of the recordings: those at the rate of the PPG, and those at another rate of
    /// the accelerometer.
    fn rows<'a, T>(
        &'a self,
        recordings: &'a [Recording<'a>],
        ppg: (Destination<'a, T>, &'a mut [Channel]),
        accel: (Destination<'a, T>, &'a mut [Channel]),
    ) -> [Vec<Row<'a, T>>; 2] {
        let (mut ppg_rate_rows, mut accel_rate_rows) = (Vec::new(), Vec::new());
        let mut ppg_outputs = ppg.0.samples.chunks_exact_mut(OUTPUT_SAMPLES).zip(ppg.1);
        let mut accel_outputs = accel.0.samples.chunks_exact_mut(OUTPUT_SAMPLES).zip(accel.1);
        for (number, recording) in recordings.iter().enumerate() {
            let dark = match &self.dark {
                Some(schedule) if !recording.dark.is_empty() => Some(Dark::new(&recording.dark, schedule, number)),
                _ => None,
            };
            if let Some(stream) = &self.ppg {
                for (led, (&samples, (out, channel))) in recording.ppg.iter().zip(&mut ppg_outputs).enumerate() {
                    let ambient = dark.map(|dark| Ambient { dark, led, usable: dark.usable_range(led) });
                    ppg_rate_rows.push(Row { samples, stream, ambient, out, channel });
                }
            }
            if let Some(stream) = &self.accel {
                let rows = if self.accel_resampler.is_some() { &mut accel_rate_rows } else { &mut ppg_rate_rows };
                for (&samples, (out, channel)) in recording.accel.iter().zip(&mut accel_outputs) {
                    rows.push(Row { samples, stream, ambient: None, out, channel });
                }
            }
        }
        [ppg_rate_rows, accel_rate_rows]
    }

    fn check<T>(
        &self,
        recordings: &[Recording<'_>],
        ppg: &Destination<'_, T>,
        accel: &Destination<'_, T>,
    ) -> Result<(), PreprocessError> {
        let leds = self.device().led_offsets_s.len();
        let slots = self.device().dark_offsets_s.len();
        for (number, recording) in recordings.iter().enumerate() {
            let rows = |stream, expected: usize, actual: usize| {
                let error = PreprocessError::Rows { recording: number, stream, expected, actual };
                if expected == actual { Ok(()) } else { Err(error) }
            };
            if self.ppg.is_none() && !(recording.ppg.is_empty() && recording.dark.is_empty()) {
                return Err(PreprocessError::NoRate("ppg"));
            }
            if self.accel.is_none() && !recording.accel.is_empty() {
                return Err(PreprocessError::NoRate("accel"));
            }
            rows("ppg", ppg.rows, recording.ppg.len())?;
            if leds > 0 && !recording.ppg.is_empty() {
                rows("ppg", leds, recording.ppg.len())?;
            }
            if !recording.dark.is_empty() {
                rows("dark", slots, recording.dark.len())?;
            }
            rows("accel", accel.rows, recording.accel.len())?;
        }
        for (stream, destination) in [("ppg", ppg), ("accel", accel)] {
            let expected = recordings.len() * destination.rows * OUTPUT_SAMPLES;
            let actual = destination.samples.len();
            if actual != expected {
                return Err(PreprocessError::Output { stream, expected, actual });
            }
        }
        Ok(())
    }

    /// Preprocess one recording without allocating: rows with their places, as [`Plan::preprocess`] does.
    pub(crate) fn preprocess_one<'a>(
        &'a self,
        ppg: impl Iterator<Item = Place<'a>>,
        dark: &'a [Samples<'a>],
        accel: impl Iterator<Item = Place<'a>>,
        workspace: &mut Workspace,
    ) {
        let dark = self.dark.as_ref().filter(|_| !dark.is_empty()).map(|schedule| Dark::new(dark, schedule, 0));
        let ppg = ppg.enumerate().filter_map(|(led, (samples, (out, channel)))| {
            let ambient = dark.map(|dark| Ambient { dark, led, usable: dark.usable_range(led) });
            Some(Row { samples, stream: self.ppg.as_ref()?, ambient, out, channel })
        });
        let accel = accel.filter_map(|(samples, (out, channel))| {
            Some(Row { samples, stream: self.accel.as_ref()?, ambient: None, out, channel })
        });
        match (&self.ppg_resampler, &self.accel_resampler) {
            (Some(resampler), None) => self.process_rows(resampler, ppg.chain(accel), workspace),
            (ppg_resampler, accel_resampler) => {
                if let Some(resampler) = ppg_resampler {
                    self.process_rows(resampler, ppg, workspace);
                }
                if let Some(resampler) = accel_resampler {
                    self.process_rows(resampler, accel, workspace);
                }
            }
        }
    }

    /// Process rows of one rate, in groups on the stack.
    fn process_rows<'a>(
        &self,
        resampler: &Resampler,
        rows: impl Iterator<Item = Row<'a, f32>>,
        workspace: &mut Workspace,
    ) {
        let mut rows = rows.fuse();
        while let Some(row) = rows.next() {
            let (stream, mut first, mut used) = (row.stream, Some(row), 0);
            let mut spare = [Channel::UNKNOWN; LANES];
            let mut group = spare.each_mut().map(|channel| match first.take().or_else(|| rows.next()) {
                Some(row) => {
                    used += 1;
                    row
                }
                None => Row { samples: Samples::F32(&[]), stream, ambient: None, out: &mut [], channel },
            });
            let group = Group { resampler, rows: &mut group[..used] };
            self.instruction_set.run(Process { group, workspace });
        }
    }

    fn process<T: OutputSample>(&self, group: Group<'_, '_, T>) {
        WORKSPACE.with_borrow_mut(|workspace| self.instruction_set.run(Process { group, workspace }));
    }
}

thread_local! {
    /// Reused by all groups, so that nothing is allocated per recording.
    static WORKSPACE: RefCell<Workspace> = RefCell::default();
}

/// Buffers of a thread: about 300 kB at 256 Hz.
#[derive(Default)]
pub(crate) struct Workspace {
    buffers: Buffers,
    repairs: Repairs,
}

/// Tiles and signals of a group.
struct Buffers {
    stream: resample::Stream,
    signal: Box<[Frame; BUFFER]>,
    rows: Tile<f64>,
    out: Tile<f32>,
    dark: DarkTile,
}

impl Default for Buffers {
    fn default() -> Self {
        let signal = vec![Frame::default(); BUFFER].into_boxed_slice();
        Self {
            stream: resample::Stream::default(),
            signal: signal.try_into().unwrap_or_else(|_| unreachable!("BUFFER frames were allocated")),
            rows: Tile::default(),
            out: Tile::default(),
            dark: DarkTile::default(),
        }
    }
}

impl Workspace {
    /// With memory for any recording of a plan, so that nothing is allocated later.
    pub(crate) fn reserved(plan: &Plan, ppg_channels: usize, dark_slots: usize) -> Self {
        let mut workspace = Self::default();
        let Self { buffers, repairs } = &mut workspace;
        let resamplers = || [&plan.ppg_resampler, &plan.accel_resampler].into_iter().flatten();
        resamplers().for_each(|resampler| buffers.stream.restart(resampler));
        let longest = resamplers().map(|resampler| resampler.samples).max().unwrap_or(0);
        repairs.rows.iter_mut().for_each(|gaps| gaps.reserve(longest));
        if let (Some(schedule), Some(rate_hz), Some(resampler)) = (&plan.dark, plan.dark_rate_hz(), &plan.ppg_resampler)
            && dark_slots > 0
        {
            let frames = window_samples(rate_hz);
            let samples = vec![0.0; frames];
            let slots = vec![Samples::F32(&samples); dark_slots];
            buffers.dark.reserve(Dark::new(&slots, schedule, 0), ppg_channels, resampler.samples);
            let mut repair = DarkRepair::default();
            repair.reserve(dark_slots, frames);
            repairs.darks.push((0, repair));
        }
        workspace
    }

    /// Memory, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        let Self { buffers: Buffers { stream, signal, rows: _, out: _, dark }, repairs } = self;
        let darks = repairs.darks.iter().map(|(_, repair)| size_of::<(usize, DarkRepair)>() + repair.bytes());
        size_of::<Self>()
            + stream.bytes()
            + size_of_val::<[Frame; BUFFER]>(signal)
            + dark.bytes()
            + repairs.rows.iter().map(Gaps::bytes).sum::<usize>()
            + darks.sum::<usize>()
    }
}

struct Process<'a, 'r, 'w, T> {
    group: Group<'a, 'r, T>,
    workspace: &'w mut Workspace,
}

/// Repairs of a group with invalid samples; their memory is reused.
#[derive(Default)]
struct Repairs {
    rows: [Gaps; LANES],
    /// With the index of the recording; only the first `recordings` are of this group.
    darks: Vec<(usize, DarkRepair)>,
    recordings: usize,
}

/// A sample is invalid: the rows must be checked one by one.
struct Invalid;

impl<T: OutputSample> Kernel for Process<'_, '_, '_, T> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        let Process { group: Group { resampler, rows }, workspace } = self;
        // Invalid samples are rare: detect them while loading, then start again with repairs, which skips the checks.
        let Workspace { buffers, repairs } = workspace;
        let mut repaired = false;
        let sums = loop {
            match ingest(lanes, resampler, rows, repaired.then_some(&*repairs), buffers) {
                Ok(sums) => break sums,
                Err(Invalid) => repairs.find(lanes, resampler, rows, &mut buffers.dark),
            }
            repaired = true;
        };
        let repairs = repaired.then_some(&*repairs);

        let band = |lane: usize| &rows.get(lane).unwrap_or(&rows[0]).stream.band;
        let filters = LaneFilters::new(std::array::from_fn(band));
        let line = sums.line(resampler.samples);
        let moments = filter(lanes, &filters, &line, &resampler.line_response, &mut buffers.signal);
        let scale = Scale::new(&moments, &filters.gain);

        let mut good = [false; LANES];
        for (lane, row) in rows.iter_mut().enumerate() {
            let gaps = repairs.map(|repairs| &repairs.rows[lane]);
            let (status, missing) = gaps.map_or((Status::GOOD, 0.0), |gaps| (gaps.status, gaps.missing));
            *row.channel = if status != Status::GOOD {
                Channel { status, level: f64::NAN, ac_level: f64::NAN, missing }
            } else {
                let flat = scale.is_flat(lane, line.peak.0[lane]);
                let status = if flat { Status::FLAT } else { Status::GOOD };
                Channel { status, level: line.mean.0[lane], ac_level: scale.ac_level[lane], missing }
            };
            good[lane] = row.channel.status == Status::GOOD;
        }
        let used = rows.len();
        let mut out: [&mut [T]; LANES] = Default::default();
        for (out, row) in out.iter_mut().zip(rows.iter_mut()) {
            *out = row.out;
        }
        scale.write(lanes, &buffers.signal[..], &mut buffers.out, good, &mut out[..used]);
    }
}

/// Stream the rows through dark subtraction and resampling into `buffers.signal`, and sum up their lines.
///
/// Without repairs it stops at the first tile with an invalid sample.
#[inline(always)]
fn ingest<L: Lanes, T>(
    lanes: L,
    resampler: &Resampler,
    rows: &[Row<'_, T>],
    repairs: Option<&Repairs>,
    buffers: &mut Buffers,
) -> Result<LineSums, Invalid> {
    let mut sums = LineSums::default();
    buffers.stream.restart(resampler);
    buffers.dark.clear();
    buffers.rows = Tile::default();
    let (samples, block) = (resampler.samples, resampler.block());
    let uniform = uniform(rows);
    for start in (0..samples).step_by(block) {
        let end = (start + block).min(samples);
        for from in (start..end).step_by(TILE) {
            let count = TILE.min(end - from);
            let span = from..from + count;
            if !load_tiles(lanes, rows, &uniform, span, repairs, &mut buffers.rows, &mut buffers.dark) {
                return Err(Invalid);
            }
            sums.transpose(lanes, &buffers.rows, buffers.stream.push(count), from, samples);
        }
        buffers.stream.resample(lanes, resampler, &mut buffers.signal[..OUTPUT_SAMPLES], end == samples);
    }
    Ok(sums)
}

/// Samples that are uniform in all rows.
fn uniform<T>(rows: &[Row<'_, T>]) -> Range<usize> {
    rows.iter().map(Row::uniform).reduce(|a, b| a.start.max(b.start)..a.end.min(b.end)).unwrap_or_default()
}

/// Load the samples `span` of the rows, at most a tile; those in `uniform` take the fast path.
///
/// False if a sample is invalid; with repairs always true.
#[inline(always)]
fn load_tiles<L: Lanes, T>(
    lanes: L,
    rows: &[Row<'_, T>],
    uniform: &Range<usize>,
    span: Range<usize>,
    repairs: Option<&Repairs>,
    tiles: &mut Tile<f64>,
    dark_tile: &mut DarkTile,
) -> bool {
    let (from, count) = (span.start, span.len());
    if uniform.start <= from && from + TILE <= uniform.end {
        let mut lane = 0;
        for rows in rows.chunk_by(Row::is_compatible) {
            let tiles = &mut tiles.0[lane..lane + rows.len()];
            let repairs = repairs.map(|repairs| (repairs, lane));
            lane += rows.len();
            let valid = with_slice!(rows[0].samples, slice => {
                load_uniform(lanes, slice, rows, from, repairs, tiles, dark_tile)
            });
            if !valid {
                return false;
            }
        }
    } else {
        for (lane, row) in rows.iter().enumerate() {
            row.prefetch(lanes, from);
            let tile = &mut tiles.0[lane][..count];
            let gaps = repairs.map(|repairs| &repairs.rows[lane]);
            if gaps.is_some_and(|gaps| gaps.status != Status::GOOD) {
                continue; // rejected: the lane stays zero
            }
            if !row.load_tile(lanes, from, repairs, tile, dark_tile) {
                return false;
            }
            for patch in gaps.iter().flat_map(|gaps| &gaps.patches) {
                patch.apply(from, tile);
            }
        }
    }
    if count < TILE {
        tiles.0.iter_mut().for_each(|row| row[count..].fill(0.0));
    }
    true
}

/// Load a tile of compatible rows whose samples are all present and uniform.
#[inline(always)]
fn load_uniform<L: Lanes, S: Sample, T>(
    lanes: L,
    _: &[S],
    rows: &[Row<'_, T>],
    from: usize,
    repairs: Option<(&Repairs, usize)>,
    tiles: &mut [[f64; TILE]],
    dark_tile: &mut DarkTile,
) -> bool {
    let limits = if repairs.is_none() { Some(&rows[0].stream.limits) } else { None };
    let mut valid = true;
    if let Some(Ambient { dark, .. }) = rows[0].ambient {
        let repair = repairs.and_then(|(repairs, _)| repairs.dark(dark.recording));
        valid &= dark_tile.load_dark(lanes, dark, repair, from, limits);
    }
    for (index, (row, tile)) in rows.iter().zip(tiles).enumerate() {
        let gaps = repairs.map(|(repairs, lane)| &repairs.rows[lane + index]);
        if gaps.is_some_and(|gaps| gaps.status != Status::GOOD) {
            continue; // rejected: the lane stays zero
        }
        let Some(samples) = S::slice(row.samples)[from..].first_chunk::<TILE>() else { return false };
        row.prefetch(lanes, from);
        let ambient = match &row.ambient {
            Some(Ambient { dark, led, .. }) => dark_tile.uniform_terms(dark.schedule, *led),
            None => None,
        };
        valid &= convert(lanes, samples, limits, ambient, tile);
        for patch in gaps.iter().flat_map(|gaps| &gaps.patches) {
            patch.apply(from, tile);
        }
    }
    valid
}

impl<T> Row<'_, T> {
    /// Prefetch the samples that are needed soon, and the part of the output that this tile will fill.
    ///
    /// Called between rows: prefetches issued together for a whole group would stall.
    #[inline(always)]
    fn prefetch<L: Lanes>(&self, lanes: L, from: usize) {
        self.samples.prefetch(lanes, from + PREFETCH_DISTANCE);
        let share = |samples: usize| (samples as f64 * OUTPUT_RATE_HZ as f64 / self.stream.rate_hz) as usize;
        lanes.prefetch(self.out.as_ptr().wrapping_add(share(from)), share(TILE) + 1);
    }

    /// Whether one loop can load both rows.
    fn is_compatible(&self, other: &Self) -> bool {
        let recording = |row: &Self| row.ambient.as_ref().map(|ambient| ambient.dark.recording);
        std::mem::discriminant(&self.samples) == std::mem::discriminant(&other.samples)
            && recording(self) == recording(other)
            && std::ptr::eq(self.stream, other.stream)
    }

    /// Samples that are present and have fixed dark neighbours.
    fn uniform(&self) -> Range<usize> {
        let present = 0..self.samples.len();
        match &self.ambient {
            None => present,
            Some(Ambient { dark, led, .. }) => {
                let uniform = DarkTile::uniform(*dark, *led);
                uniform.start..uniform.end.min(present.end)
            }
        }
    }

    /// Load the samples from `from` on, less the ambient light.
    ///
    /// False if a sample is missing or invalid; with repairs always true.
    #[inline(always)]
    fn load_tile<L: Lanes>(
        &self,
        lanes: L,
        from: usize,
        repairs: Option<&Repairs>,
        tile: &mut [f64],
        dark_tile: &mut DarkTile,
    ) -> bool {
        let limits = if repairs.is_none() { Some(&self.stream.limits) } else { None };
        match &self.ambient {
            None => load_tile(lanes, self.samples, from, limits, None, tile),
            Some(Ambient { dark, led, usable }) => {
                let known = from >= usable.start && from + tile.len() <= usable.end;
                let repair = repairs.and_then(|repairs| repairs.dark(dark.recording));
                (known || limits.is_none())
                    && dark_tile.load_tile(lanes, self.samples, (*dark, *led), repair, from, limits, tile)
            }
        }
    }
}

impl Repairs {
    /// Check every sample of the rows.
    #[cold]
    #[inline(never)]
    fn find<L: Lanes, T>(&mut self, lanes: L, resampler: &Resampler, rows: &[Row<'_, T>], dark_tile: &mut DarkTile) {
        dark_tile.clear();
        self.recordings = 0;
        for (lane, row) in rows.iter().enumerate() {
            if let Some(Ambient { dark, .. }) = row.ambient
                && self.dark(dark.recording).is_none()
            {
                if self.recordings == self.darks.len() {
                    self.darks.push(Default::default());
                }
                let (recording, repair) = &mut self.darks[self.recordings];
                *recording = dark.recording;
                dark.repair(&row.stream.limits, repair);
                self.recordings += 1;
            }
            let patches = std::mem::take(&mut self.rows[lane].patches);
            self.rows[lane] = self.gaps(lanes, resampler, row, patches, dark_tile);
        }
    }

    fn dark(&self, recording: usize) -> Option<&DarkRepair> {
        self.darks[..self.recordings].iter().find(|(number, _)| *number == recording).map(|(_, repair)| repair)
    }

    fn gaps<L: Lanes, T>(
        &self,
        lanes: L,
        resampler: &Resampler,
        row: &Row<'_, T>,
        patches: Vec<Patch>,
        dark_tile: &mut DarkTile,
    ) -> Gaps {
        let (len, rate_hz, limits) = (resampler.samples, row.stream.rate_hz, &row.stream.limits);
        let samples = row.samples;
        let valid = |index: usize| index < samples.len() && limits.inside(samples.at(index));
        let Some(Ambient { dark, led, .. }) = row.ambient else {
            return find_gaps(len, rate_hz, patches, valid, |index| samples.at(index));
        };
        let repair = self.dark(dark.recording);
        let usable = |index: usize| repair.is_none_or(|repair| repair.usable(dark.schedule.led_time_s(led, index)));
        let dark_tile = RefCell::new(dark_tile);
        let without_ambient = |index| dark_tile.borrow_mut().sample(lanes, samples, (dark, led), repair, index);
        find_gaps(len, rate_hz, patches, |index| valid(index) && usable(index), without_ambient)
    }
}
