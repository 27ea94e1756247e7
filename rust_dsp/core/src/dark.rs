//! Dark subtraction: the ambient light at the instant of an LED, interpolated in true time between dark samples.

use crate::gaps::{MAX_GAP_S, Patch};
use crate::samples::Samples;
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
    /// One per LED where both have the same rate: the neighbours are then the same in every frame.
    steady: Option<Vec<Steady>>,
    /// Whether dark samples, if all are valid, are nowhere further apart than may be interpolated over.
    dense: bool,
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
        let steady = (led_rate_hz == dark_rate_hz)
            .then(|| led_offsets_s.iter().map(|&led| Steady::new(led, dark_offsets_s, led_rate_hz)).collect());
        Self {
            led_rate_hz,
            dark_rate_hz,
            led_offsets_s: led_offsets_s.to_vec(),
            dark_offsets_s: dark_offsets_s.to_vec(),
            steady,
            dense,
        }
    }

    pub(crate) fn slots(&self) -> usize {
        self.dark_offsets_s.len()
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
    pub(crate) slots: &'a [Samples<'a>],
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
    /// Frames that are there in every slot.
    fn frames(self) -> usize {
        self.slots.iter().map(|slot| slot.len()).min().unwrap_or(0)
    }

    /// Whether the LED samples `start..start + len` of `channel` have valid dark samples on both sides, near enough.
    #[inline(always)]
    pub(crate) fn all_usable(self, channel: usize, start: usize, len: usize, limits: Limits) -> bool {
        let frames = self.frames();
        if !self.schedule.dense || frames == 0 {
            return false;
        }
        let first_s =
            (0..self.schedule.slots()).map(|slot| self.schedule.dark_time_s(slot, 0)).fold(f64::MAX, f64::min);
        let last_s =
            (0..self.schedule.slots()).map(|slot| self.schedule.dark_time_s(slot, frames - 1)).fold(f64::MIN, f64::max);
        // Half of what is allowed: near the limit the exact rule decides (`repair`).
        let slack = MAX_GAP_S / 2.0;
        if first_s - self.schedule.led_time_s(channel, start) > slack
            || self.schedule.led_time_s(channel, start + len - 1) - last_s > slack
        {
            return false;
        }
        let (first, count) = self.around(channel, start, len);
        self.slots.iter().all(|slot| slot.all_valid(first, count, limits))
    }

    /// The dark frames (first, number) that hold the neighbours of the LED samples `start..start + len`.
    #[inline(always)]
    fn around(self, channel: usize, start: usize, len: usize) -> (usize, usize) {
        let (first, last) = match &self.schedule.steady {
            Some(leds) => {
                let led = leds[self.schedule.led(channel)];
                let first = start as isize + led.left_shift.min(led.right_shift);
                (first, (start + len) as isize - 1 + led.left_shift.max(led.right_shift))
            }
            None => {
                let offsets = &self.schedule.dark_offsets_s;
                let earliest = offsets.iter().copied().fold(f64::MAX, f64::min);
                let latest = offsets.iter().copied().fold(f64::MIN, f64::max);
                let frame = |time_s: f64| (time_s * self.schedule.dark_rate_hz).floor() as isize;
                let first = frame(self.schedule.led_time_s(channel, start) - latest);
                let last = frame(self.schedule.led_time_s(channel, start + len - 1) - earliest) + 1;
                (first - 1, last + 1) // one more on each side for the rounding of the two divisions
            }
        };
        let bound = self.frames() as isize - 1;
        let first = first.clamp(0, bound.max(0));
        let last = last.clamp(first, bound.max(first));
        (first as usize, (last - first + 1) as usize)
    }

    /// Find invalid dark samples and what they make unusable. Slow and exact; only where a sample is invalid.
    pub(crate) fn repair(self, limits: Limits) -> DarkRepair {
        let frames = self.frames();
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
    holds: Option<(usize, usize, usize)>, // recording, first frame, number of frames
    values: Vec<f64>,                     // slot after slot
}

impl DarkTile {
    pub(crate) fn clear(&mut self) {
        self.holds = None;
    }

    /// Subtract the ambient light from `tile`, the LED samples from `start` on of `channel`.
    #[inline(always)]
    pub(crate) fn subtract(
        &mut self,
        dark: Dark<'_>,
        repair: Option<&DarkRepair>,
        channel: usize,
        start: usize,
        tile: &mut [f64],
    ) {
        let (first, count) = dark.around(channel, start, tile.len());
        self.fill(dark, repair, first, count);
        if let Some(leds) = &dark.schedule.steady {
            let led = leds[dark.schedule.led(channel)];
            let left = start as isize + led.left_shift - first as isize;
            let right = start as isize + led.right_shift - first as isize;
            let room = (count as isize) - tile.len() as isize;
            if left >= 0 && right >= 0 && left <= room && right <= room {
                let left = &self.values[led.left_slot * count + left as usize..][..tile.len()];
                let right = &self.values[led.right_slot * count + right as usize..][..tile.len()];
                let (left_weight, right_weight) = (1.0 - led.right_weight, led.right_weight);
                for ((sample, l), r) in tile.iter_mut().zip(left).zip(right) {
                    *sample -= left_weight * l + right_weight * r;
                }
                return;
            }
        }
        for (index, sample) in tile.iter_mut().enumerate() {
            *sample -= self.at(dark, dark.schedule.led_time_s(channel, start + index), first, count);
        }
    }

    /// The ambient light at the LED sample `index` of `channel`.
    pub(crate) fn ambient(&mut self, dark: Dark<'_>, repair: Option<&DarkRepair>, channel: usize, index: usize) -> f64 {
        let mut value = [0.0];
        self.subtract(dark, repair, channel, index, &mut value);
        -value[0]
    }

    #[inline(always)]
    fn fill(&mut self, dark: Dark<'_>, repair: Option<&DarkRepair>, first: usize, count: usize) {
        let wanted = Some((dark.recording, first, count));
        if self.holds == wanted {
            return;
        }
        self.values.resize(dark.slots.len() * count, 0.0);
        for (slot, values) in self.values.chunks_exact_mut(count).enumerate() {
            dark.slots[slot].convert(first, values);
            for patch in repair.iter().flat_map(|repair| &repair.patches[slot]) {
                patch.apply(first, values);
            }
        }
        self.holds = wanted;
    }

    /// Linear interpolation at `instant_s`; before the first and after the last dark sample the nearest.
    fn at(&self, dark: Dark<'_>, instant_s: f64, first: usize, count: usize) -> f64 {
        let schedule = dark.schedule;
        let (mut left, mut right): (Option<(f64, f64)>, Option<(f64, f64)>) = (None, None);
        for (slot, values) in self.values.chunks_exact(count).enumerate() {
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
