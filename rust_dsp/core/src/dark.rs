//! Dark subtraction: the ambient light at the instant of an LED, interpolated in true time between dark samples.

use std::ops::Range;

use crate::gaps::{MAX_GAP_S, Patch};
use crate::lanes::{LANES, Lanes, TILE};
use crate::load::{AmbientTerms, load_tile};
use crate::samples::{PREFETCH_DISTANCE, Samples};
use crate::validity::Limits;

/// Longest time between dark samples that is interpolated over, in seconds.
const MAX_SPAN_S: f64 = MAX_GAP_S + 1e-9;

/// When the LEDs and the dark slots of a device are sampled. Slot `k` of frame `n` is at `n / rate + offset[k]`.
#[derive(Clone, Debug)]
pub(crate) struct DarkSchedule {
    led_rate_hz: f64,
    dark_rate_hz: f64,
    led_offsets_s: Vec<f64>,
    dark_offsets_s: Vec<f64>,
    /// Smallest and largest dark offset.
    earliest_s: f64,
    latest_s: f64,
    /// Only where LEDs and dark slots have the same rate.
    fixed: Option<FixedSchedule>,
    /// Whether valid dark samples are never further apart than may be interpolated over.
    dense: bool,
}

/// The fixed neighbours of every LED, and the smallest and largest of their shifts.
#[derive(Clone, Debug)]
struct FixedSchedule {
    leds: Vec<FixedNeighbours>,
    earliest: isize,
    latest: isize,
}

/// The dark samples on both sides of an LED sample, the same in every frame: slots, shifts in frames relative to the
/// LED's frame, and the weight of the right sample.
#[derive(Clone, Copy, Debug)]
struct FixedNeighbours {
    left_slot: usize,
    left_shift: isize,
    right_slot: usize,
    right_shift: isize,
    right_weight: f64,
}

impl DarkSchedule {
    pub(crate) fn new(led_rate_hz: f64, dark_rate_hz: f64, led_offsets_s: &[f64], dark_offsets_s: &[f64]) -> Self {
        // Samples of the other slots can only lie between those of one slot: the frame period bounds every distance.
        let dense = 1.0 / dark_rate_hz <= MAX_SPAN_S;
        let led_offsets_s = if led_offsets_s.is_empty() { &[0.0] } else { led_offsets_s };
        let fixed = (led_rate_hz == dark_rate_hz).then(|| {
            let leds: Vec<FixedNeighbours> =
                led_offsets_s.iter().map(|&led| FixedNeighbours::new(led, dark_offsets_s, led_rate_hz)).collect();
            let shifts = || leds.iter().flat_map(|led| [led.left_shift, led.right_shift]);
            let (earliest, latest) = (shifts().min().unwrap_or(0), shifts().max().unwrap_or(0));
            FixedSchedule { leds, earliest, latest }
        });
        Self {
            led_rate_hz,
            dark_rate_hz,
            led_offsets_s: led_offsets_s.to_vec(),
            dark_offsets_s: dark_offsets_s.to_vec(),
            earliest_s: dark_offsets_s.iter().copied().fold(f64::INFINITY, f64::min),
            latest_s: dark_offsets_s.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            fixed,
            dense,
        }
    }

    /// Index of a channel's LED in the schedule; without offsets all channels share one.
    fn led(&self, channel: usize) -> usize {
        channel.min(self.led_offsets_s.len() - 1)
    }

    pub(crate) fn led_time_s(&self, channel: usize, index: usize) -> f64 {
        index as f64 / self.led_rate_hz + self.led_offsets_s[self.led(channel)]
    }

    fn dark_time_s(&self, slot: usize, frame: usize) -> f64 {
        frame as f64 / self.dark_rate_hz + self.dark_offsets_s[slot]
    }
}

impl FixedNeighbours {
    fn new(led_offset_s: f64, dark_offsets_s: &[f64], rate_hz: f64) -> Self {
        // Shift of the slot's last sample before the LED's, and the distance between the two, in frames
        let last_before = |slot: usize| {
            let frames = (led_offset_s - dark_offsets_s[slot]) * rate_hz;
            let shift = frames.floor();
            (shift as isize, frames - shift)
        };
        let (mut left, mut right) = (0, 0);
        for slot in 1..dark_offsets_s.len() {
            if last_before(slot).1 < last_before(left).1 {
                left = slot;
            }
            if last_before(slot).1 > last_before(right).1 {
                right = slot;
            }
        }
        let (since, until) = (last_before(left).1, 1.0 - last_before(right).1);
        Self {
            left_slot: left,
            left_shift: last_before(left).0,
            right_slot: right,
            right_shift: last_before(right).0 + 1,
            right_weight: since / (since + until),
        }
    }
}

/// The dark slots of one recording.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dark<'a> {
    slots: &'a [Samples<'a>],
    /// Frames present in every slot.
    frames: usize,
    pub(crate) schedule: &'a DarkSchedule,
    /// Index of the recording in its batch.
    pub(crate) recording: usize,
}

/// How invalid dark samples of a recording are replaced, and where the ambient light stays unknown.
#[derive(Clone, Debug, Default)]
pub(crate) struct DarkRepair {
    slots: Vec<SlotRepair>,
    /// Instants of the first and the last valid sample; `None` without a valid sample.
    extent_s: Option<(f64, f64)>,
    /// Spans `from..to` between valid samples that are too far apart.
    unusable_s: Vec<(f64, f64)>,
}

/// The repair of one dark slot, and how far it has come.
#[derive(Clone, Debug, Default)]
struct SlotRepair {
    /// Lines that replace invalid samples.
    patches: Vec<Patch>,
    /// Next frame.
    next: usize,
    /// Start and length of the current invalid run.
    run: (usize, usize),
}

impl DarkRepair {
    /// Reserve for any `frames` of `slots`: with several of them every frame of one may be a patch of its own.
    pub(crate) fn reserve(&mut self, slots: usize, frames: usize) {
        let patches = if slots == 1 { frames / 2 + 1 } else { frames };
        self.slots.resize_with(slots, SlotRepair::default);
        self.slots.iter_mut().for_each(|slot| slot.patches.reserve_exact(patches));
        let spans = (crate::WINDOW_S as f64 / MAX_GAP_S) as usize + 1; // of one slot; each is longer than a gap
        self.unusable_s.reserve_exact(slots * frames.min(spans) + 1);
    }

    /// Memory of the repair, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.slots.capacity() * size_of::<SlotRepair>()
            + self.slots.iter().map(|slot| slot.patches.capacity() * size_of::<Patch>()).sum::<usize>()
            + self.unusable_s.capacity() * size_of::<(f64, f64)>()
    }

    /// Whether the ambient light at `instant_s` is known.
    pub(crate) fn usable(&self, instant_s: f64) -> bool {
        let Some((first, last)) = self.extent_s else { return false };
        if instant_s < first {
            first - instant_s <= MAX_SPAN_S
        } else if instant_s >= last {
            instant_s - last <= MAX_SPAN_S
        } else {
            !self.unusable_s.iter().any(|&(from, to)| instant_s >= from && instant_s < to)
        }
    }
}

impl<'a> Dark<'a> {
    pub(crate) fn new(slots: &'a [Samples<'a>], schedule: &'a DarkSchedule, recording: usize) -> Self {
        let frames = slots.iter().map(|slot| slot.len()).min().unwrap_or(0);
        Self { slots, frames, schedule, recording }
    }

    /// The dark samples.
    #[cfg(feature = "stages")]
    pub(crate) fn slots(self) -> &'a [Samples<'a>] {
        self.slots
    }

    /// The LED samples of `channel` whose ambient light is known if all dark samples are valid.
    ///
    /// Conservative by half of the allowed distance from the ends of the dark recording; near the limit `repair` decides.
    pub(crate) fn usable_range(self, channel: usize) -> Range<usize> {
        let Some(last_frame) = self.frames.checked_sub(1).filter(|_| self.schedule.dense) else { return 0..0 };
        let schedule = self.schedule;
        let last_s = schedule.latest_s + last_frame as f64 / schedule.dark_rate_hz;
        let led_s = schedule.led_time_s(channel, 0);
        let margin_s = MAX_GAP_S / 2.0;
        let from = (schedule.earliest_s - margin_s - led_s) * schedule.led_rate_hz;
        let to = (last_s + margin_s - led_s) * schedule.led_rate_hz;
        from.max(0.0).ceil() as usize..to.max(0.0).floor() as usize
    }

    /// The dark frames (first, count) that contain the neighbours of the LED samples `start..start + len`.
    #[inline(always)]
    fn neighbour_frames(self, channel: usize, start: usize, len: usize) -> (usize, usize) {
        let (first, last) = match &self.schedule.fixed {
            Some(fixed) => (start as isize + fixed.earliest, (start + len) as isize - 1 + fixed.latest),
            None => {
                let frame = |time_s: f64| (time_s * self.schedule.dark_rate_hz).floor() as isize;
                let first = frame(self.schedule.led_time_s(channel, start) - self.schedule.latest_s);
                let last = frame(self.schedule.led_time_s(channel, start + len - 1) - self.schedule.earliest_s) + 1;
                (first - 1, last + 1) // a margin of one frame for the rounding of the two divisions
            }
        };
        let bound = self.frames as isize - 1;
        let first = first.clamp(0, bound.max(0));
        let last = last.clamp(first, bound.max(first));
        (first as usize, (last - first + 1) as usize)
    }

    /// Find invalid dark samples and their consequences. Exact but slow: only called where a sample is invalid.
    pub(crate) fn repair(self, limits: &Limits, repair: &mut DarkRepair) {
        let frames = self.frames;
        repair.slots.resize_with(self.slots.len(), SlotRepair::default);
        for slot in &mut repair.slots {
            (slot.next, slot.run) = (0, (0, 0));
            slot.patches.clear();
        }
        repair.extent_s = None;
        repair.unusable_s.clear();
        let mut before: Option<(f64, f64)> = None; // instant and value of the last valid sample
        loop {
            let earliest = (0..self.slots.len())
                .map(|slot| (slot, repair.slots[slot].next))
                .filter(|&(_, frame)| frame < frames)
                .min_by(|a, b| self.time_s(a.0, a.1).total_cmp(&self.time_s(b.0, b.1)));
            let Some((slot, frame)) = earliest else { break };
            repair.slots[slot].next += 1;
            let value = self.slots[slot].at(frame);
            if !limits.inside(value) {
                let run = &mut repair.slots[slot].run;
                if run.1 == 0 {
                    run.0 = frame;
                }
                run.1 += 1;
                continue;
            }
            let time_s = self.time_s(slot, frame);
            self.close_runs(&mut repair.slots, before, Some((time_s, value)));
            if let Some((earlier_s, _)) = before
                && time_s - earlier_s > MAX_SPAN_S
            {
                repair.unusable_s.push((earlier_s, time_s));
            }
            repair.extent_s = Some((repair.extent_s.map_or(time_s, |(first, _)| first), time_s));
            before = Some((time_s, value));
        }
        self.close_runs(&mut repair.slots, before, None);
    }

    fn time_s(self, slot: usize, frame: usize) -> f64 {
        self.schedule.dark_time_s(slot, frame)
    }

    /// Replace every slot's invalid run by the line between two valid samples, or by the nearest value.
    fn close_runs(self, slots: &mut [SlotRepair], before: Option<(f64, f64)>, after: Option<(f64, f64)>) {
        let (slope, through) = match (before, after) {
            (Some((t0, v0)), Some((t1, v1))) => ((v1 - v0) / (t1 - t0), (t0, v0)),
            (Some(edge), None) | (None, Some(edge)) => (0.0, edge),
            (None, None) => (0.0, (0.0, 0.0)),
        };
        for (number, slot) in slots.iter_mut().enumerate() {
            let (start, len) = std::mem::take(&mut slot.run);
            if len > 0 {
                let first = through.1 + slope * (self.time_s(number, start) - through.0);
                slot.patches.push(Patch { start, len, first, step: slope / self.schedule.dark_rate_hz });
            }
        }
    }
}

/// Dark samples around a tile of LED samples, in double precision; reused for all channels of a recording.
#[derive(Debug, Default)]
pub(crate) struct DarkTile {
    /// Recording, first frame and number of frames of what is loaded; `valid` if all its samples are.
    loaded: Option<(usize, usize, usize)>,
    valid: bool,
    /// `[slots][frames]`, from `skip` on, where a cache line starts.
    values: Vec<f64>,
    skip: usize,
    /// Right minus left neighbour of every LED sample, and the key (left, right, length) that they were computed for.
    changes: Changes,
    changes_key: Option<(usize, usize, usize)>,
}

/// One value per sample of a tile.
#[derive(Debug)]
#[repr(C, align(64))]
struct Changes([f64; TILE]);

impl Default for Changes {
    fn default() -> Self {
        Self([0.0; TILE])
    }
}

impl DarkTile {
    pub(crate) fn clear(&mut self) {
        self.loaded = None;
    }

    /// Make room for the neighbours of any tile of `samples` LED samples of `channels`.
    pub(crate) fn reserve(&mut self, dark: Dark<'_>, channels: usize, samples: usize) {
        let frames = (0..channels)
            .flat_map(|channel| (0..samples).step_by(TILE).map(move |start| (channel, start)))
            .map(|(channel, start)| dark.neighbour_frames(channel, start, TILE).1)
            .max();
        self.resize(dark.slots.len() * frames.unwrap_or(0));
    }

    /// Memory of the samples, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.values.capacity() * size_of::<f64>()
    }

    /// Make room for `len` samples.
    fn resize(&mut self, len: usize) {
        if self.values.len() < len + LANES {
            self.values.resize(len + LANES, 0.0);
            self.skip = self.values.as_ptr().align_offset(align_of::<Changes>()).min(LANES);
        }
    }

    /// Load the LED samples `samples[start..]` of `channel` into `tile`, less the ambient light.
    ///
    /// False if an LED or dark sample is outside `limits`; without limits always true.
    #[inline(always)]
    #[expect(clippy::too_many_arguments, reason = "source, ambient light, limits and destination")]
    pub(crate) fn load_tile<L: Lanes>(
        &mut self,
        lanes: L,
        samples: Samples<'_>,
        (dark, channel): (Dark<'_>, usize),
        repair: Option<&DarkRepair>,
        start: usize,
        limits: Option<&Limits>,
        tile: &mut [f64],
    ) -> bool {
        let (first, count) = dark.neighbour_frames(channel, start, tile.len());
        self.fill(lanes, dark, repair, first, count, limits);
        let mut valid = self.valid;
        // Samples with fixed neighbours: all but those at the ends of the recording
        let mut uniform = 0..0;
        if let Some(fixed) = &dark.schedule.fixed {
            let led = fixed.leds[dark.schedule.led(channel)];
            let to_left = start as isize + led.left_shift - first as isize;
            let to_right = start as isize + led.right_shift - first as isize;
            let len = tile.len() as isize;
            let from = (-to_left.min(to_right)).clamp(0, len);
            let to = (count as isize - to_left.max(to_right)).clamp(from, len);
            if from < to {
                uniform = from as usize..to as usize;
                let index = |slot: usize, offset: isize| ((slot * count) as isize + offset + from) as usize;
                let (left, right) = (index(led.left_slot, to_left), index(led.right_slot, to_right));
                let terms = self.terms(left, right, uniform.len(), led.right_weight);
                let out = &mut tile[uniform.clone()];
                valid &= load_tile(lanes, samples, start + uniform.start, limits, Some(terms), out);
            }
        }
        for span in [0..uniform.start, uniform.end..tile.len()] {
            if !span.is_empty() {
                valid &= load_tile(lanes, samples, start + span.start, limits, None, &mut tile[span.clone()]);
                for index in span {
                    tile[index] -=
                        self.interpolate(dark, dark.schedule.led_time_s(channel, start + index), first, count);
                }
            }
        }
        valid
    }

    /// LED samples with fixed neighbours that are all present.
    pub(crate) fn uniform(dark: Dark<'_>, channel: usize) -> Range<usize> {
        let Some(fixed) = &dark.schedule.fixed else { return 0..0 };
        let usable = dark.usable_range(channel);
        let from = (-fixed.earliest).max(0) as usize;
        let to = (dark.frames as isize - fixed.latest).max(0) as usize;
        usable.start.max(from)..usable.end.min(to)
    }

    /// The ambient light at the LED samples of `channel` in a tile inside `uniform`; call `load_dark` first.
    #[inline(always)]
    pub(crate) fn uniform_terms(&mut self, schedule: &DarkSchedule, channel: usize) -> Option<AmbientTerms<'_>> {
        let fixed = schedule.fixed.as_ref()?;
        let led = fixed.leds[schedule.led(channel)];
        let (_, _, count) = self.loaded?;
        let index = |slot: usize, shift: isize| slot * count + (shift - fixed.earliest) as usize;
        let (left, right) = (index(led.left_slot, led.left_shift), index(led.right_slot, led.right_shift));
        Some(self.terms(left, right, TILE, led.right_weight))
    }

    /// Load the dark samples around the tile at `start`. False if a sample is outside `limits`.
    #[inline(always)]
    pub(crate) fn load_dark<L: Lanes>(
        &mut self,
        lanes: L,
        dark: Dark<'_>,
        repair: Option<&DarkRepair>,
        start: usize,
        limits: Option<&Limits>,
    ) -> bool {
        let (first, count) = dark.neighbour_frames(0, start, TILE);
        self.fill(lanes, dark, repair, first, count, limits);
        self.valid
    }

    /// The ambient light between `values[left..][..len]` and `values[right..][..len]`.
    #[inline(always)]
    fn terms(&mut self, left: usize, right: usize, len: usize, weight: f64) -> AmbientTerms<'_> {
        let values = &self.values[self.skip..];
        let before = &values[left..][..len];
        let changes = &mut self.changes.0[..len];
        if self.changes_key != Some((left, right, len)) {
            let after = &values[right..][..len];
            for ((change, before), after) in changes.iter_mut().zip(before).zip(after) {
                *change = after - before;
            }
            self.changes_key = Some((left, right, len));
        }
        AmbientTerms { before, changes, weight }
    }

    /// LED sample `index` of `channel`, less the ambient light.
    pub(crate) fn sample<L: Lanes>(
        &mut self,
        lanes: L,
        samples: Samples<'_>,
        (dark, channel): (Dark<'_>, usize),
        repair: Option<&DarkRepair>,
        index: usize,
    ) -> f64 {
        let (first, count) = dark.neighbour_frames(channel, index, 1);
        self.fill(lanes, dark, repair, first, count, None);
        samples.at(index) - self.interpolate(dark, dark.schedule.led_time_s(channel, index), first, count)
    }

    #[inline(always)]
    fn fill<L: Lanes>(
        &mut self,
        lanes: L,
        dark: Dark<'_>,
        repair: Option<&DarkRepair>,
        first: usize,
        count: usize,
        limits: Option<&Limits>,
    ) {
        let key = Some((dark.recording, first, count));
        if self.loaded == key {
            return;
        }
        let len = dark.slots.len() * count;
        self.resize(len);
        self.valid = true;
        self.changes_key = None;
        for (slot, values) in self.values[self.skip..][..len].chunks_exact_mut(count).enumerate() {
            dark.slots[slot].prefetch(lanes, first + PREFETCH_DISTANCE);
            self.valid &= load_tile(lanes, dark.slots[slot], first, limits, None, values);
            for patch in repair.iter().flat_map(|repair| &repair.slots[slot].patches) {
                patch.apply(first, values);
            }
        }
        self.loaded = key;
    }

    /// Linear interpolation at `instant_s`; before the first and after the last dark sample the nearest value.
    fn interpolate(&self, dark: Dark<'_>, instant_s: f64, first: usize, count: usize) -> f64 {
        let schedule = dark.schedule;
        let (mut left, mut right) = (None::<(f64, f64)>, None::<(f64, f64)>); // instant and value
        for (slot, values) in self.values[self.skip..].chunks_exact(count).take(dark.slots.len()).enumerate() {
            let frames = (instant_s - schedule.dark_offsets_s[slot]) * schedule.dark_rate_hz - first as f64;
            let since = frames.floor();
            let before = (since as isize).min(count as isize - 1);
            let after = (since as isize + 1).max(0);
            if before >= 0 {
                let sample = (schedule.dark_time_s(slot, first + before as usize), values[before as usize]);
                if left.is_none_or(|(time_s, _)| sample.0 > time_s) {
                    left = Some(sample);
                }
            }
            if after < count as isize {
                let sample = (schedule.dark_time_s(slot, first + after as usize), values[after as usize]);
                if right.is_none_or(|(time_s, _)| sample.0 < time_s) {
                    right = Some(sample);
                }
            }
        }
        match (left, right) {
            (Some((t0, v0)), Some((t1, v1))) if t1 > t0 => v0 + (v1 - v0) * ((instant_s - t0) / (t1 - t0)),
            (Some((_, value)), _) | (None, Some((_, value))) => value,
            (None, None) => 0.0,
        }
    }
}
