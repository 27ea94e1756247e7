//! Heart rate from acceleration without a model: the autocorrelation of the envelope of the heart's recoil.
//!
//! Each beat shakes the body for a few tenths of a second (Inan et al. 2015, doi 10.1109/JBHI.2014.2361732), in a band
//! above breathing and slow movement. Which axis shows it depends on how the sensor lies, so the power is summed over
//! the axes. Its logarithm makes a beat that is ten times as strong count little more, and the first strong peak of the
//! autocorrelation is the interval of the beats, one of the estimators of Brüser et al. 2013 (doi
//! 10.1088/0967-3334/34/2/123).

use std::f64::consts::PI;
use std::sync::{Mutex, PoisonError};

use crate::OUTPUT_RATE_HZ;
use crate::OUTPUT_SAMPLES;
use crate::label::SegmentSamples;
use crate::lanes::{Frame, InstructionSet, Kernel, LANES, Lanes};
use crate::samples::Samples;
use crate::threads::{self, ThreadsError};
use crate::zero_phase::{Band, BandError};

/// Band of the recoil, in Hz: above breathing and sway, below the heart sounds.
pub const RECOIL_BAND_HZ: (f64, f64) = (4.0, 11.0);

// Chosen on half of the people of MSCardio (docs/sensors.md), verified on the other half
/// Rates that are looked for.
const HR_BPM: (f64, f64) = (30.0, 220.0);
/// Pulse frequencies that are kept of the envelope.
const PULSE_HZ: (f64, f64) = (0.6, 8.0);
/// Length of the window that smooths the power: merges the two sounds of a beat.
const SMOOTH_S: f64 = 0.25;
/// The envelope is averaged to at least this rate.
const ENVELOPE_HZ: f64 = 48.0;
/// Share of the mean power that is added before the logarithm, which bounds it where nothing moves.
const FLOOR: f64 = 1e-3;
/// A beat is the shortest lag whose peak is at least this share of the highest one: two beats correlate as well.
const MIN_SHARE: f64 = 0.7;
/// A band is flat if its standard deviation is at most this share of the largest magnitude: rounding alone.
const FLAT: f64 = 1e-6;
const MIN_DURATION_S: f64 = 10.0;
/// Axes of one segment that are filtered side by side: a filter alone waits for its last step.
const AXES: usize = 4;
/// Segments of a batch that are estimated side by side, and their axes that are filtered so.
const SEGMENTS: usize = 4;
const ALL_AXES: usize = SEGMENTS * 3;
/// Lags whose correlations are summed side by side.
const LAGS: usize = 4;

/// What the autocorrelation says of one segment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Recoil {
    /// Heart rate, 30 to 220; NaN where the autocorrelation has no peak in that range.
    pub hr_bpm: f64,
    /// Height of the peak, 0 to 1; NaN as the rate.
    pub peak: f64,
}

impl Recoil {
    pub(crate) const NONE: Self = Self { hr_bpm: f64::NAN, peak: f64::NAN };
}

/// Heart rate from the acceleration in a band of one recording, `axes` of which all have the same length.
///
/// NaN for less than 10 s, a sample that is not finite, and what is flat in the band. The result does not depend on the
/// unit.
pub fn recoil(axes: &[Samples<'_>], rate_hz: f64, band_hz: (f64, f64)) -> Result<Recoil, BandError> {
    let band = Band::new(band_hz, rate_hz)?;
    let axes: Vec<Vec<f64>> = axes.iter().map(|axis| (0..axis.len()).map(|index| axis.at(index)).collect()).collect();
    Ok(estimate(InstructionSet::detect(), &axes, &band))
}

/// `recoil` of many segments of 3840 samples at 64 Hz, on `threads` threads (0: all cores).
///
/// `segments` are the axes of the first segment, of the second, and so on, `axes` of each; `scale` is what each is
/// multiplied by, so that z-scored axes count as much as they moved.
///
/// # Panics
/// If there is no multiple of `axes` segments, another number of scales, or a segment without 3840 samples.
pub fn recoil_batch(
    segments: &[SegmentSamples<'_>],
    scale: Option<&[f64]>,
    axes: usize,
    band_hz: (f64, f64),
    threads: usize,
) -> Result<Vec<Recoil>, BatchError> {
    assert!(axes > 0 && segments.len().is_multiple_of(axes), "every segment has {axes} axes");
    assert!(segments.iter().all(|segment| segment.len() == OUTPUT_SAMPLES), "a segment has 3840 samples");
    assert!(scale.is_none_or(|scale| scale.len() == segments.len()), "every axis has a scale");
    let band = Band::new(band_hz, OUTPUT_RATE_HZ as f64)?;
    let mut recoils = vec![Recoil::NONE; segments.len() / axes];
    let items = segments.chunks(axes * SEGMENTS).zip(recoils.chunks_mut(SEGMENTS)).enumerate().collect();
    let set = InstructionSet::detect();
    let spare = Mutex::new(Vec::new()); // memory of groups that are done
    let spare = || spare.lock().unwrap_or_else(PoisonError::into_inner);
    threads::for_each(items, threads, |(group, (segments, out))| {
        let (mut rows, mut work): (Vec<f64>, Work<ALL_AXES, SEGMENTS>) = spare().pop().unwrap_or_default();
        rows.clear();
        for (row, segment) in segments.iter().enumerate() {
            let factor = scale.map_or(1.0, |scale| scale[group * SEGMENTS * axes + row]);
            rows.extend(segment.read().iter().map(|y| y * factor));
        }
        let rows_of = rows.as_chunks::<OUTPUT_SAMPLES>().0;
        let at = |segment: usize, axis: usize, index: usize| rows_of[segment * axes + axis][index];
        let shape = Shape { segments: out.len(), axes, samples: OUTPUT_SAMPLES };
        let estimated = set.run(Estimate { shape, at, band: &band, work: &mut work });
        out.copy_from_slice(&estimated[..out.len()]);
        spare().push((rows, work));
    })?;
    Ok(recoils)
}

/// The estimate of axes in double precision.
fn estimate(set: InstructionSet, axes: &[Vec<f64>], band: &Band) -> Recoil {
    let samples = axes.iter().map(Vec::len).min().unwrap_or(0);
    let at = |_: usize, axis: usize, index: usize| axes[axis][index];
    let shape = Shape { segments: 1, axes: axes.len(), samples };
    let [recoil] = set.run(Estimate::<AXES, 1, _> { shape, at, band, work: &mut Work::default() });
    recoil
}

/// Why a batch was not estimated.
#[derive(Debug, thiserror::Error)]
pub enum BatchError {
    /// A band that 64 Hz does not hold.
    #[error(transparent)]
    Band(#[from] BandError),
    /// No threads.
    #[error(transparent)]
    Threads(#[from] ThreadsError),
}

/// The estimate of one segment after the other, in memory that is reserved once.
#[derive(Debug)]
pub(crate) struct SegmentRecoil {
    band: Band,
    work: Work<AXES, 1>,
}

impl SegmentRecoil {
    /// For segments of `axes`, in the band of the recoil.
    pub(crate) fn new(axes: usize) -> Self {
        let band = Band::new(RECOIL_BAND_HZ, OUTPUT_RATE_HZ as f64).expect("64 Hz hold the band");
        let mut recoil = Self { band, work: Work::default() };
        // What is reserved does not depend on the samples; random ones run through every step
        let mut random = 1_u32;
        let mut sample = || {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (f64::from(random) - 2.0_f64.powi(31)) as f32
        };
        let rows: Vec<f32> = (0..axes * OUTPUT_SAMPLES).map(|_| sample()).collect();
        recoil.work.peaks.reserve(OUTPUT_SAMPLES);
        recoil.estimate(InstructionSet::Portable, &rows, |_| 1.0);
        recoil
    }

    /// `recoil_batch` of the segment whose `rows`, 3840 samples each, are multiplied by `scale`.
    pub(crate) fn estimate(&mut self, set: InstructionSet, rows: &[f32], scale: impl Fn(usize) -> f64) -> Recoil {
        let at = |_: usize, axis: usize, index: usize| f64::from(rows[axis * OUTPUT_SAMPLES + index]) * scale(axis);
        let Self { band, work } = self;
        let shape = Shape { segments: 1, axes: rows.len() / OUTPUT_SAMPLES, samples: OUTPUT_SAMPLES };
        let [recoil] = set.run(Estimate { shape, at, band, work });
        recoil
    }

    /// Memory, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        let Work { power, filtered, envelope, weights, pulse, correlation, peaks } = &self.work;
        let floats = [weights, correlation].into_iter();
        let frames = [power, envelope, pulse].into_iter();
        floats.map(|values| values.capacity() * size_of::<f64>()).sum::<usize>()
            + frames.map(|values| values.capacity() * size_of::<[f64; 1]>()).sum::<usize>()
            + filtered.capacity() * size_of::<[f64; AXES]>()
            + peaks.capacity() * size_of::<usize>()
    }
}

/// Memory of the estimate of `S` segments at a time, of which `N` axes are filtered at a time; what is in it between
/// estimates does not count.
#[derive(Debug, Default)]
struct Work<const N: usize, const S: usize> {
    power: Vec<[f64; S]>,
    filtered: Vec<[f64; N]>,
    envelope: Vec<[f64; S]>,
    weights: Vec<f64>,
    pulse: Vec<[f64; S]>,
    correlation: Vec<f64>,
    peaks: Vec<usize>,
}

/// What is estimated side by side.
#[derive(Clone, Copy)]
struct Shape {
    segments: usize,
    axes: usize,
    samples: usize,
}

/// Kernel of up to `S` segments: `at` gives a sample by its segment, axis and index.
struct Estimate<'a, const N: usize, const S: usize, F> {
    shape: Shape,
    at: F,
    band: &'a Band,
    work: &'a mut Work<N, S>,
}

impl<const N: usize, const S: usize, F: Fn(usize, usize, usize) -> f64> Kernel for Estimate<'_, N, S, F> {
    type Output = [Recoil; S];

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) -> [Recoil; S] {
        let Self { shape, at, band, work } = self;
        let Work { power, filtered, envelope: smooth, weights, pulse, correlation, peaks } = work;
        let moves = band_power(shape, at, band, filtered, power);
        if moves == [false; S] {
            return [Recoil::NONE; S];
        }
        let work = filtered.as_flattened_mut().as_chunks_mut().0;
        let rate_hz = envelope(power, band.rate_hz(), weights, work, smooth);
        let pulse = Band::new(PULSE_HZ, rate_hz).expect("envelopes have at least 20 Hz").run(
            smooth.len(),
            |index| smooth[index],
            pulse,
        );
        let signal = &mut power.as_flattened_mut()[..pulse.len()];
        std::array::from_fn(|segment| {
            if !moves[segment] {
                return Recoil::NONE;
            }
            signal.iter_mut().zip(pulse).for_each(|(y, frame)| *y = frame[segment]);
            first_peak(lanes, signal, rate_hz, correlation, peaks).unwrap_or(Recoil::NONE)
        })
    }
}

/// Squared acceleration in the band, summed over the axes, into `power`; and of each segment whether there is any to
/// speak of.
#[inline(always)]
fn band_power<const N: usize, const S: usize>(
    Shape { segments, axes, samples }: Shape,
    at: impl Fn(usize, usize, usize) -> f64,
    band: &Band,
    filtered: &mut Vec<[f64; N]>,
    power: &mut Vec<[f64; S]>,
) -> [bool; S] {
    if (samples as f64) < MIN_DURATION_S * band.rate_hz() {
        return [false; S];
    }
    power.clear();
    power.resize(samples, [0.0; S]);
    let (mut largest, mut is_finite) = ([0.0_f64; S], [true; S]);
    for first in (0..segments * axes).step_by(N) {
        let used = N.min(segments * axes - first);
        // Lanes beyond the last axis repeat it, and are left out
        let rows: [(usize, usize); N] =
            std::array::from_fn(|lane| ((first + lane.min(used - 1)) / axes, (first + lane.min(used - 1)) % axes));
        let frame = |index: usize| rows.map(|(segment, axis)| at(segment, axis, index));
        let (mut top, mut finite) = ([0.0_f64; N], [true; N]);
        for index in 0..samples {
            let y = frame(index);
            finite = std::array::from_fn(|lane| finite[lane] & y[lane].is_finite());
            top = std::array::from_fn(|lane| top[lane].max(y[lane].abs()));
        }
        for (lane, &(segment, _)) in rows.iter().enumerate() {
            largest[segment] = largest[segment].max(top[lane]);
            is_finite[segment] &= finite[lane];
        }
        for (power, y) in power.iter_mut().zip(band.run(samples, frame, filtered)) {
            for (y, (segment, _)) in y.iter().zip(rows).take(used) {
                power[segment] += y * y;
            }
        }
    }
    let mean = total(power).map(|total| total / samples as f64);
    std::array::from_fn(|segment| {
        let (mean, largest) = (mean[segment], largest[segment]);
        is_finite[segment] && mean.is_finite() && mean.sqrt() > FLAT * largest && mean > f64::MIN_POSITIVE
    })
}

/// Sum over frames, one after the other.
#[inline(always)]
fn total<const S: usize>(frames: &[[f64; S]]) -> [f64; S] {
    frames.iter().fold([-0.0; S], |total, frame| std::array::from_fn(|lane| total[lane] + frame[lane]))
}

/// Logarithm of the smoothed power into `envelope`; returns its rate: that of the signal, or averaged to 48 to 96 Hz.
#[inline(always)]
fn envelope<const S: usize>(
    power: &[[f64; S]],
    rate_hz: f64,
    weights: &mut Vec<f64>,
    work: &mut [[f64; S]],
    envelope: &mut Vec<[f64; S]>,
) -> f64 {
    let block = ((rate_hz / ENVELOPE_HZ) as usize).max(1);
    let rate_hz = rate_hz / block as f64;
    let half = (SMOOTH_S * rate_hz / 2.0).round() as usize;
    weights.clear();
    weights.extend((1..=2 * half + 1).map(|tap| (PI * tap as f64 / (2 * half + 2) as f64).sin().powi(2)));
    let all: f64 = weights.iter().sum();
    // The means of the blocks, between their mirrored ends
    let count = power.len() / block;
    let work = &mut work[..half + count + half];
    for (mean, block) in work[half..].iter_mut().zip(power.chunks_exact(block)) {
        *mean = total(block).map(|total| total / block.len() as f64);
    }
    let floor = total(&work[half..half + count]).map(|total| FLOOR * total / count as f64);
    for distance in 1..=half {
        work[half - distance] = work[half + distance];
        work[half + count - 1 + distance] = work[half + count - 1 - distance];
    }
    envelope.clear();
    envelope.extend(work.windows(weights.len()).map(|window| {
        let smooth = weighted(window, weights);
        std::array::from_fn(|segment| (smooth[segment] / all + floor[segment]).ln())
    }));
    rate_hz
}

/// Sum of the products of frames and weights, in `LANES` parts, as by `sum_by`.
#[inline(always)]
fn weighted<const S: usize>(frames: &[[f64; S]], weights: &[f64]) -> [f64; S] {
    let mut parts = [[0.0; S]; LANES];
    for (frames, weights) in frames.chunks(LANES).zip(weights.chunks(LANES)) {
        for ((part, frame), weight) in parts.iter_mut().zip(frames).zip(weights) {
            part.iter_mut().zip(frame).for_each(|(part, y)| *part += y * weight);
        }
    }
    total(&parts)
}

/// The shortest lag of the pulse range whose peak is nearly as high as the highest one.
#[inline(always)]
fn first_peak<L: Lanes>(
    lanes: L,
    pulse: &[f64],
    rate_hz: f64,
    correlation: &mut Vec<f64>,
    peaks: &mut Vec<usize>,
) -> Option<Recoil> {
    let lag = |bpm: f64| 60.0 * rate_hz / bpm;
    let (shortest, longest) = (lag(HR_BPM.1).ceil() as usize, lag(HR_BPM.0).floor() as usize);
    let lags = longest + 3 - shortest;
    early_energies(pulse, shortest - 1, lags, correlation);
    for (number, group) in correlation.chunks_mut(LAGS).enumerate() {
        let lag = shortest - 1 + LAGS * number;
        group.iter_mut().zip(correlations(lanes, pulse, lag)).for_each(|(early, (both, late))| {
            let energy = *early * late;
            *early = if energy > 0.0 { both / energy.sqrt() } else { 0.0 };
        });
    }
    peaks.clear();
    peaks.extend((1..correlation.len() - 1).filter(|&at| {
        let value = correlation[at];
        value > 0.0 && value >= correlation[at - 1] && value > correlation[at + 1]
    }));
    let highest = peaks.iter().fold(0.0_f64, |highest, &at| highest.max(correlation[at]));
    let at = *peaks.iter().find(|&&at| correlation[at] >= MIN_SHARE * highest)?;
    let (before, value, after) = (correlation[at - 1], correlation[at], correlation[at + 1]);
    let curvature = before - 2.0 * value + after; // negative at a peak
    let position = (shortest - 1 + at) as f64 + (0.5 * (before - after) / curvature).clamp(-0.5, 0.5);
    Some(Recoil { hr_bpm: (60.0 * rate_hz / position).clamp(HR_BPM.0, HR_BPM.1), peak: value.min(1.0) })
}

/// Energy of a signal without its last samples, as many as each of `count` lags from `shortest` on, into `energies`: of
/// what overlaps with itself so many samples later. In `LANES` parts, as by `sum_by`.
#[inline(always)]
fn early_energies(signal: &[f64], shortest: usize, count: usize, energies: &mut Vec<f64>) {
    energies.clear();
    energies.resize(count, 0.0);
    let (all, mut parts, mut summed) = (signal.len() - shortest, [0.0; LANES], 0);
    for (number, energy) in energies.iter_mut().rev().enumerate() {
        let end = all - (count - 1) + number;
        for at in summed..end {
            parts[at % LANES] += signal[at] * signal[at];
        }
        (*energy, summed) = (parts.iter().sum(), end);
    }
}

/// Product of a signal with itself `lag` samples later, of what overlaps, and energy of the later part; and so for the
/// lags after it.
///
/// Several lags at a time, because a sum alone waits for its last addition. Each sum is in `LANES` parts, as by `sum_by`.
#[inline(always)]
fn correlations<L: Lanes>(lanes: L, signal: &[f64], lag: usize) -> [(f64, f64); LAGS] {
    let shared = (signal.len() - lag - (LAGS - 1)) / LANES * LANES;
    let part = |from: usize| signal[from..from + shared].as_chunks::<LANES>().0.iter();
    let (mut both, mut late) = ([Frame::default(); LAGS], [Frame::default(); LAGS]);
    for column in 0..L::COLUMNS {
        let (mut products, mut energies) = ([lanes.splat(0.0); LAGS], [lanes.splat(0.0); LAGS]);
        let later = part(lag).zip(part(lag + 1)).zip(part(lag + 2)).zip(part(lag + 3));
        for (now, (((b, c), d), e)) in part(0).zip(later) {
            let now = lanes.read(now, column);
            for (number, later) in [b, c, d, e].into_iter().enumerate() {
                let later = lanes.read(later, column);
                products[number] = lanes.add(products[number], lanes.mul(now, later));
                energies[number] = lanes.add(energies[number], lanes.mul(later, later));
            }
        }
        for number in 0..LAGS {
            lanes.store(&mut both[number], column, products[number]);
            lanes.store(&mut late[number], column, energies[number]);
        }
    }
    std::array::from_fn(|number| {
        let (Frame(both), Frame(late)) = (&mut both[number], &mut late[number]);
        for at in shared..signal.len() - lag - number {
            let (a, b) = (signal[at], signal[at + lag + number]);
            both[at % LANES] += a * b;
            late[at % LANES] += b * b;
        }
        (both.iter().sum(), late.iter().sum())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn recoil_is_the_same_with_all_instructions(seed: u64, samples in 640_usize..3840) {
            let mut random = seed | 1;
            let mut unit = || {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (random >> 11) as f64 / (1_u64 << 53) as f64
            };
            let axes: Vec<Vec<f64>> = (0..3).map(|_| (0..samples).map(|_| unit() - 0.5).collect()).collect();
            let band = Band::new(RECOIL_BAND_HZ, 64.0).expect("a band");
            let with = |set: InstructionSet| estimate(set, &axes, &band);
            let portable = with(InstructionSet::Portable);
            for set in InstructionSet::available() {
                prop_assert_eq!(format!("{:?}", with(set)), format!("{portable:?}"));
            }
        }
    }
}
