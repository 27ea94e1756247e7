//! Dark subtraction: the ambient light at the instant of an LED, interpolated in true time between dark samples.

use std::ops::Range;

use crate::gaps::{MAX_GAP_S, Patch};
use crate::lanes::{LANES, Lanes, TILE};
use crate::load::{AmbientTerms, load_tile};
use crate::samples::{AHEAD, Samples};
use crate::validity::Limits;

/// Largest distance in time that is interpolated over, in seconds.
const MAX_SPAN_S: f64 = MAX_GAP_S + 1e-9;

/// When the LEDs and the dark slots of a device are sampled. Slot `k` of frame `n` is at `n / rate + offset[k]`.
#[derive(Clone, Debug)]
pub(crate) struct DarkSchedule {
    led_rate_hz: f64,
    dark_rate_hz: f64,
    led_offsets_s: Vec<f64>,
    dark_offsets_s: Vec<f64>,
    /// First and last of them.
    earliest_s: f64,
    latest_s: f64,
    /// One per LED where both have the same rate: the neighbours are then the same in every frame.
    steady: Option<SteadySchedule>,
    /// Whether dark samples, if all are valid, are nowhere further apart than may be interpolated over.
    dense: bool,
}

/// The dark samples around every LED, and how many frames at most they are before and after its own.
#[derive(Clone, Debug)]
struct SteadySchedule {
    leds: Vec<Steady>,
    earliest: isize,
    latest: isize,
}

/// The dark samples around an LED sample: slot, frames after the LED's, and the weight of the right one.
#[derive(Clone, Copy, Debug)]
struct Steady {
    left_slot: usize,
    left_shift: isize,
    right_slot: usize,
    right_shift: isize,
    right_weight: f64,
}

impl DarkSchedule {
    pub(crate) fn new(led_rate_hz: f64, dark_rate_hz: f64, led_offsets_s: &[f64], dark_offsets_s: &[f64]) -> Self {
        // Between the frames of one slot lie samples of the others, so the frame period bounds every distance.
        let dense = 1.0 / dark_rate_hz <= MAX_SPAN_S;
        let led_offsets_s = if led_offsets_s.is_empty() { &[0.0] } else { led_offsets_s };
        let steady = (led_rate_hz == dark_rate_hz).then(|| {
            let leds: Vec<Steady> =
                led_offsets_s.iter().map(|&led| Steady::new(led, dark_offsets_s, led_rate_hz)).collect();
            let shifts = || leds.iter().flat_map(|led| [led.left_shift, led.right_shift]);
            let (earliest, latest) = (shifts().min().unwrap_or(0), shifts().max().unwrap_or(0));
            SteadySchedule { leds, earliest, latest }
        });
        Self {
            led_rate_hz,
            dark_rate_hz,
            led_offsets_s: led_offsets_s.to_vec(),
            dark_offsets_s: dark_offsets_s.to_vec(),
            earliest_s: dark_offsets_s.iter().copied().fold(f64::INFINITY, f64::min),
            latest_s: dark_offsets_s.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            steady,
            dense,
        }
    }

    /// The place of a channel's LED in the schedule: without offsets all LEDs share one.
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

impl Steady {
    fn new(led_offset_s: f64, dark_offsets_s: &[f64], rate_hz: f64) -> Self {
        let place = |slot: usize| {
            let frames = (led_offset_s - dark_offsets_s[slot]) * rate_hz;
            let shift = frames.floor();
            (shift as isize, frames - shift) // frames from the slot's last sample to the LED's
        };
        let (mut left, mut right) = (0, 0);
        for slot in 1..dark_offsets_s.len() {
            if place(slot).1 < place(left).1 {
                left = slot;
            }
            if place(slot).1 > place(right).1 {
                right = slot;
            }
        }
        let (since, until) = (place(left).1, 1.0 - place(right).1);
        Self {
            left_slot: left,
            left_shift: place(left).0,
            right_slot: right,
            right_shift: place(right).0 + 1,
            right_weight: since / (since + until),
        }
    }
}

/// The dark slots of one recording.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dark<'a> {
    slots: &'a [Samples<'a>],
    /// Frames that are there in every slot.
    frames: usize,
    pub(crate) schedule: &'a DarkSchedule,
    /// Tells recordings of a batch apart.
    pub(crate) recording: usize,
}

/// What has to be known of a recording's dark samples when some cannot be used.
#[derive(Clone, Debug)]
pub(crate) struct DarkRepair {
    /// Lines in place of invalid samples, per slot.
    patches: Vec<Vec<Patch>>,
    /// First and last instant of a valid sample; `None` where there is none.
    extent_s: Option<(f64, f64)>,
    /// Instants `from..to` between valid samples that are too far apart.
    unusable_s: Vec<(f64, f64)>,
}

impl DarkRepair {
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

    /// The LED samples of `channel` whose ambient light is surely known if all dark samples are valid.
    ///
    /// Surely: half as far from the ends of the dark recording as is allowed. Near the limit `repair` decides.
    pub(crate) fn surely_usable(self, channel: usize) -> Range<usize> {
        let Some(last_frame) = self.frames.checked_sub(1).filter(|_| self.schedule.dense) else { return 0..0 };
        let schedule = self.schedule;
        let last_s = schedule.latest_s + last_frame as f64 / schedule.dark_rate_hz;
        let led_s = schedule.led_time_s(channel, 0);
        let slack_s = MAX_GAP_S / 2.0;
        let from = (schedule.earliest_s - slack_s - led_s) * schedule.led_rate_hz;
        let to = (last_s + slack_s - led_s) * schedule.led_rate_hz;
        from.max(0.0).ceil() as usize..to.max(0.0).floor() as usize
    }

    /// The dark frames (first, number) that hold the neighbours of the LED samples `start..start + len`.
    #[inline(always)]
    fn around(self, channel: usize, start: usize, len: usize) -> (usize, usize) {
        let (first, last) = match &self.schedule.steady {
            Some(steady) => (start as isize + steady.earliest, (start + len) as isize - 1 + steady.latest),
            None => {
                let frame = |time_s: f64| (time_s * self.schedule.dark_rate_hz).floor() as isize;
                let first = frame(self.schedule.led_time_s(channel, start) - self.schedule.latest_s);
                let last = frame(self.schedule.led_time_s(channel, start + len - 1) - self.schedule.earliest_s) + 1;
                (first - 1, last + 1) // one more on each side for the rounding of the two divisions
            }
        };
        let bound = self.frames as isize - 1;
        let first = first.clamp(0, bound.max(0));
        let last = last.clamp(first, bound.max(first));
        (first as usize, (last - first + 1) as usize)
    }

    /// Find invalid dark samples and what they make unusable. Slow and exact; only where a sample is invalid.
    pub(crate) fn repair(self, limits: &Limits) -> DarkRepair {
        let frames = self.frames;
        let mut repair =
            DarkRepair { patches: vec![Vec::new(); self.slots.len()], extent_s: None, unusable_s: Vec::new() };
        let mut next = vec![0; self.slots.len()]; // frame of each slot that comes next in time
        let mut runs = vec![(0, 0); self.slots.len()]; // start and length of each slot's current invalid run
        let mut before: Option<(f64, f64)> = None; // instant and value of the last valid sample
        loop {
            let earliest = (0..self.slots.len())
                .filter(|&slot| next[slot] < frames)
                .min_by(|&a, &b| self.time_s(a, next[a]).total_cmp(&self.time_s(b, next[b])));
            let Some(slot) = earliest else { break };
            let frame = next[slot];
            next[slot] += 1;
            let value = self.slots[slot].at(frame);
            if !limits.inside(value) {
                if runs[slot].1 == 0 {
                    runs[slot].0 = frame;
                }
                runs[slot].1 += 1;
                continue;
            }
            let here = (self.time_s(slot, frame), value);
            self.close_runs(&mut runs, before, Some(here), &mut repair.patches);
            if let Some((earlier_s, _)) = before
                && here.0 - earlier_s > MAX_SPAN_S
            {
                repair.unusable_s.push((earlier_s, here.0));
            }
            repair.extent_s = Some((repair.extent_s.map_or(here.0, |(first, _)| first), here.0));
            before = Some(here);
        }
        self.close_runs(&mut runs, before, None, &mut repair.patches);
        repair
    }

    fn time_s(self, slot: usize, frame: usize) -> f64 {
        self.schedule.dark_time_s(slot, frame)
    }

    /// Put the line between two valid samples (or the nearest value) in place of every slot's invalid run.
    fn close_runs(
        self,
        runs: &mut [(usize, usize)],
        before: Option<(f64, f64)>,
        after: Option<(f64, f64)>,
        patches: &mut [Vec<Patch>],
    ) {
        let (slope, through) = match (before, after) {
            (Some((t0, v0)), Some((t1, v1))) => ((v1 - v0) / (t1 - t0), (t0, v0)),
            (Some(edge), None) | (None, Some(edge)) => (0.0, edge),
            (None, None) => (0.0, (0.0, 0.0)),
        };
        for (slot, run) in runs.iter_mut().enumerate() {
            let (start, len) = std::mem::take(run);
            if len > 0 {
                let first = through.1 + slope * (self.time_s(slot, start) - through.0);
                patches[slot].push(Patch { start, len, first, step: slope / self.schedule.dark_rate_hz });
            }
        }
    }
}

/// Dark samples around a stretch of LED samples, in double precision; kept while the channels of a recording take turns.
#[derive(Debug, Default)]
pub(crate) struct DarkTile {
    /// Recording, first frame, number of frames; and whether all samples are valid.
    holds: Option<(usize, usize, usize)>,
    valid: bool,
    /// Slot after slot, from `skip` on, where a cache line starts.
    values: Vec<f64>,
    skip: usize,
    /// From the left to the right neighbour of every LED sample of the tile, and whose neighbours these are.
    changes: Changes,
    changes_of: Option<(usize, usize, usize)>,
}

/// One number for every sample of a tile.
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
        self.holds = None;
    }

    /// Bring the LED samples `samples[start..]` of `channel` into `tile`, less the ambient light.
    ///
    /// False if an LED or dark sample is outside of `limits`; without limits always true.
    #[inline(always)]
    #[expect(clippy::too_many_arguments, reason = "where from, what to subtract, what to check, where to")]
    pub(crate) fn bring<L: Lanes>(
        &mut self,
        lanes: L,
        samples: Samples<'_>,
        (dark, channel): (Dark<'_>, usize),
        repair: Option<&DarkRepair>,
        start: usize,
        limits: Option<&Limits>,
        tile: &mut [f64],
    ) -> bool {
        let (first, count) = dark.around(channel, start, tile.len());
        self.fill(lanes, dark, repair, first, count, limits);
        let mut valid = self.valid;
        // Where the neighbours are the same in every frame: all but the samples at the ends of the recording
        let mut steady = 0..0;
        if let Some(schedule) = &dark.schedule.steady {
            let led = schedule.leds[dark.schedule.led(channel)];
            let to_left = start as isize + led.left_shift - first as isize;
            let to_right = start as isize + led.right_shift - first as isize;
            let len = tile.len() as isize;
            let from = (-to_left.min(to_right)).clamp(0, len);
            let to = (count as isize - to_left.max(to_right)).clamp(from, len);
            if from < to {
                steady = from as usize..to as usize;
                let place = |slot: usize, to_first: isize| ((slot * count) as isize + to_first + from) as usize;
                let (left, right) = (place(led.left_slot, to_left), place(led.right_slot, to_right));
                let mix = self.mix(left, right, steady.len(), led.right_weight);
                valid &= load_tile(lanes, samples, start + steady.start, limits, Some(mix), &mut tile[steady.clone()]);
            }
        }
        for span in [0..steady.start, steady.end..tile.len()] {
            if !span.is_empty() {
                valid &= load_tile(lanes, samples, start + span.start, limits, None, &mut tile[span.clone()]);
                for index in span {
                    tile[index] -= self.at(dark, dark.schedule.led_time_s(channel, start + index), first, count);
                }
            }
        }
        valid
    }

    /// LED samples whose neighbours are the same in every frame, and all there.
    pub(crate) fn plain(dark: Dark<'_>, channel: usize) -> Range<usize> {
        let Some(steady) = &dark.schedule.steady else { return 0..0 };
        let usable = dark.surely_usable(channel);
        let from = (-steady.earliest).max(0) as usize;
        let to = (dark.frames as isize - steady.latest).max(0) as usize;
        usable.start.max(from)..usable.end.min(to)
    }

    /// The ambient light at the LED samples of `channel` in a tile inside of `plain`; `hold` the tile first.
    #[inline(always)]
    pub(crate) fn plain_mix(&mut self, schedule: &DarkSchedule, channel: usize) -> Option<AmbientTerms<'_>> {
        let steady = schedule.steady.as_ref()?;
        let led = steady.leds[schedule.led(channel)];
        let (_, _, count) = self.holds?;
        let place = |slot: usize, shift: isize| slot * count + (shift - steady.earliest) as usize;
        let (left, right) = (place(led.left_slot, led.left_shift), place(led.right_slot, led.right_shift));
        Some(self.mix(left, right, TILE, led.right_weight))
    }

    /// Bring the dark samples around the tile at `start`. False if one is outside of `limits`.
    #[inline(always)]
    pub(crate) fn hold<L: Lanes>(
        &mut self,
        lanes: L,
        dark: Dark<'_>,
        repair: Option<&DarkRepair>,
        start: usize,
        limits: Option<&Limits>,
    ) -> bool {
        let (first, count) = dark.around(0, start, TILE);
        self.fill(lanes, dark, repair, first, count, limits);
        self.valid
    }

    /// The light between `len` samples from `left` on and as many from `right` on.
    #[inline(always)]
    fn mix(&mut self, left: usize, right: usize, len: usize, weight: f64) -> AmbientTerms<'_> {
        let values = &self.values[self.skip..];
        let before = &values[left..][..len];
        let changes = &mut self.changes.0[..len];
        if self.changes_of != Some((left, right, len)) {
            let after = &values[right..][..len];
            for ((change, before), after) in changes.iter_mut().zip(before).zip(after) {
                *change = after - before;
            }
            self.changes_of = Some((left, right, len));
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
        let (first, count) = dark.around(channel, index, 1);
        self.fill(lanes, dark, repair, first, count, None);
        samples.at(index) - self.at(dark, dark.schedule.led_time_s(channel, index), first, count)
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
        let wanted = Some((dark.recording, first, count));
        if self.holds == wanted {
            return;
        }
        let needed = dark.slots.len() * count;
        if self.values.len() < needed + LANES {
            self.values.resize(needed + LANES, 0.0);
            self.skip = self.values.as_ptr().align_offset(align_of::<Changes>()).min(LANES);
        }
        self.valid = true;
        self.changes_of = None;
        for (slot, values) in self.values[self.skip..][..needed].chunks_exact_mut(count).enumerate() {
            dark.slots[slot].prefetch(lanes, first + AHEAD);
            self.valid &= load_tile(lanes, dark.slots[slot], first, limits, None, values);
            for patch in repair.iter().flat_map(|repair| &repair.patches[slot]) {
                patch.apply(first, values);
            }
        }
        self.holds = wanted;
    }

    /// Linear interpolation at `instant_s`; before the first and after the last dark sample the nearest.
    fn at(&self, dark: Dark<'_>, instant_s: f64, first: usize, count: usize) -> f64 {
        let schedule = dark.schedule;
        let (mut left, mut right) = (None::<(f64, f64)>, None::<(f64, f64)>); // instant and value
        for (slot, values) in self.values[self.skip..].chunks_exact(count).take(dark.slots.len()).enumerate() {
            let frames = (instant_s - schedule.dark_offsets_s[slot]) * schedule.dark_rate_hz - first as f64;
            let since = frames.floor();
            let before = (since as isize).min(count as isize - 1);
            let after = (since as isize + 1).max(0);
            if before >= 0 {
                let here = (schedule.dark_time_s(slot, first + before as usize), values[before as usize]);
                if left.is_none_or(|(time_s, _)| here.0 > time_s) {
                    left = Some(here);
                }
            }
            if after < count as isize {
                let here = (schedule.dark_time_s(slot, first + after as usize), values[after as usize]);
                if right.is_none_or(|(time_s, _)| here.0 < time_s) {
                    right = Some(here);
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
