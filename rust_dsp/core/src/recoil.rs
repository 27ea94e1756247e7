//! Heart rate from acceleration without a model: the autocorrelation of the envelope of the heart's recoil.
//!
//! Each beat shakes the body for a few tenths of a second (Inan et al. 2015, doi 10.1109/JBHI.2014.2361732), in a band
//! above breathing and slow movement. Which axis shows it depends on how the sensor lies, so the power is summed over
//! the axes. Its logarithm makes a beat that is ten times as strong count little more, and the first strong peak of the
//! autocorrelation is the interval of the beats, one of the estimators of Brüser et al. 2013 (doi
//! 10.1088/0967-3334/34/2/123).

use std::f64::consts::PI;

use crate::OUTPUT_RATE_HZ;
use crate::OUTPUT_SAMPLES;
use crate::label::SegmentSamples;
use crate::lanes::{InstructionSet, Kernel, LANES, Lanes};
use crate::samples::Samples;
use crate::sums::sum_by;
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
/// Axes that are filtered side by side: a filter alone waits for its last step.
const TOGETHER: usize = 4;

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
    let items = segments.chunks(axes).enumerate().zip(&mut recoils).collect();
    let set = InstructionSet::detect();
    threads::for_each(items, threads, |((number, rows), out)| {
        let read = |(axis, row): (usize, &SegmentSamples<'_>)| -> Vec<f64> {
            let factor = scale.map_or(1.0, |scale| scale[number * axes + axis]);
            row.read().iter().map(|y| y * factor).collect()
        };
        let rows: Vec<Vec<f64>> = rows.iter().enumerate().map(read).collect();
        *out = estimate(set, &rows, &band);
    })?;
    Ok(recoils)
}

/// The estimate of axes in double precision.
fn estimate(set: InstructionSet, axes: &[Vec<f64>], band: &Band) -> Recoil {
    let samples = axes.iter().map(Vec::len).min().unwrap_or(0);
    let at = |axis: usize, index: usize| axes[axis][index];
    set.run(Estimate { axes: axes.len(), samples, at, band, work: &mut Work::default() })
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
    work: Work,
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
        let at = |axis: usize, index: usize| f64::from(rows[axis * OUTPUT_SAMPLES + index]) * scale(axis);
        let Self { band, work } = self;
        set.run(Estimate { axes: rows.len() / OUTPUT_SAMPLES, samples: OUTPUT_SAMPLES, at, band, work })
    }

    /// Memory, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        let Work { power, filtered, envelope, weights, pulse, correlation, peaks } = &self.work;
        let floats = [power, envelope, weights, correlation].into_iter();
        floats.map(|values| values.capacity() * size_of::<f64>()).sum::<usize>()
            + filtered.capacity() * size_of::<[f64; TOGETHER]>()
            + pulse.capacity() * size_of::<[f64; 1]>()
            + peaks.capacity() * size_of::<usize>()
    }
}

/// Memory of an estimate; what is in it between estimates does not count.
#[derive(Debug, Default)]
struct Work {
    power: Vec<f64>,
    filtered: Vec<[f64; TOGETHER]>,
    envelope: Vec<f64>,
    weights: Vec<f64>,
    pulse: Vec<[f64; 1]>,
    correlation: Vec<f64>,
    peaks: Vec<usize>,
}

/// Kernel of one segment: `at` gives a sample by its axis and index.
struct Estimate<'a, F> {
    axes: usize,
    samples: usize,
    at: F,
    band: &'a Band,
    work: &'a mut Work,
}

impl<F: Fn(usize, usize) -> f64> Kernel for Estimate<'_, F> {
    type Output = Recoil;

    #[inline(always)]
    fn run<L: Lanes>(self, _: L) -> Recoil {
        let Self { axes, samples, at, band, work } = self;
        let Work { power, filtered, envelope: smooth, weights, pulse, correlation, peaks } = work;
        if !band_power(axes, samples, at, band, filtered, power) {
            return Recoil::NONE;
        }
        let rate_hz = envelope(power, band.rate_hz(), weights, filtered.as_flattened_mut(), smooth);
        let pulse = Band::new(PULSE_HZ, rate_hz).expect("envelopes have at least 20 Hz").run(
            smooth.len(),
            |index| [smooth[index]],
            pulse,
        );
        first_peak(pulse.as_flattened(), rate_hz, correlation, peaks).unwrap_or(Recoil::NONE)
    }
}

/// Squared acceleration in the band, summed over the axes, into `power`; false where there is none to speak of.
#[inline(always)]
fn band_power(
    axes: usize,
    samples: usize,
    at: impl Fn(usize, usize) -> f64,
    band: &Band,
    filtered: &mut Vec<[f64; TOGETHER]>,
    power: &mut Vec<f64>,
) -> bool {
    if (samples as f64) < MIN_DURATION_S * band.rate_hz() {
        return false;
    }
    power.clear();
    power.resize(samples, 0.0);
    let mut largest = [0.0_f64; TOGETHER];
    for first in (0..axes).step_by(TOGETHER) {
        let used = TOGETHER.min(axes - first);
        // Lanes beyond the last axis repeat it, and are left out
        let frame = |index: usize| std::array::from_fn(|lane| at(first + lane.min(used - 1), index));
        for index in 0..samples {
            let y: [f64; TOGETHER] = frame(index);
            if !y.iter().fold(true, |finite, y| finite & y.is_finite()) {
                return false;
            }
            largest = std::array::from_fn(|lane| largest[lane].max(y[lane].abs()));
        }
        for (power, y) in power.iter_mut().zip(band.run(samples, frame, filtered)) {
            y[..used].iter().for_each(|y| *power += y * y);
        }
    }
    let largest = largest.into_iter().fold(0.0, f64::max);
    let mean = power.iter().sum::<f64>() / samples as f64;
    mean.is_finite() && mean.sqrt() > FLAT * largest && mean > f64::MIN_POSITIVE
}

/// Logarithm of the smoothed power into `envelope`; returns its rate: that of the signal, or averaged to 48 to 96 Hz.
#[inline(always)]
fn envelope(power: &[f64], rate_hz: f64, weights: &mut Vec<f64>, work: &mut [f64], envelope: &mut Vec<f64>) -> f64 {
    let block = ((rate_hz / ENVELOPE_HZ) as usize).max(1);
    let rate_hz = rate_hz / block as f64;
    let half = (SMOOTH_S * rate_hz / 2.0).round() as usize;
    weights.clear();
    weights.extend((1..=2 * half + 1).map(|tap| (PI * tap as f64 / (2 * half + 2) as f64).sin().powi(2)));
    let total: f64 = weights.iter().sum();
    // The means of the blocks, between their mirrored ends
    let count = power.len() / block;
    let mirrored = &mut work[..half + count + half];
    for (mean, block) in mirrored[half..].iter_mut().zip(power.chunks_exact(block)) {
        *mean = block.iter().sum::<f64>() / block.len() as f64;
    }
    let floor = FLOOR * mirrored[half..half + count].iter().sum::<f64>() / count as f64;
    for distance in 1..=half {
        mirrored[half - distance] = mirrored[half + distance];
        mirrored[half + count - 1 + distance] = mirrored[half + count - 1 - distance];
    }
    envelope.clear();
    let smooth = |window: &[f64]| (sum_by(window, weights, |p, w| p * w) / total + floor).ln();
    envelope.extend(mirrored.windows(weights.len()).map(smooth));
    rate_hz
}

/// The shortest lag of the pulse range whose peak is nearly as high as the highest one.
#[inline(always)]
fn first_peak(pulse: &[f64], rate_hz: f64, correlation: &mut Vec<f64>, peaks: &mut Vec<usize>) -> Option<Recoil> {
    let lag = |bpm: f64| 60.0 * rate_hz / bpm;
    let (shortest, longest) = (lag(HR_BPM.1).ceil() as usize, lag(HR_BPM.0).floor() as usize);
    correlation.clear();
    let lags = longest + 3 - shortest;
    for first in (0..lags).step_by(2) {
        correlation.extend(correlations(pulse, shortest - 1 + first));
    }
    correlation.truncate(lags);
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

/// Correlation of a signal with itself `lag` and `lag + 1` samples later, of what overlaps: no bias towards short lags.
///
/// Two lags at a time, because a sum alone waits for its last addition. Each sum is in `LANES` parts, as by `sum_by`.
#[inline(always)]
fn correlations(signal: &[f64], lag: usize) -> [f64; 2] {
    let shared = (signal.len() - lag - 1) / LANES * LANES;
    let [a, b, c] = [0, lag, lag + 1].map(|from| signal[from..from + shared].as_chunks::<LANES>().0);
    let (mut aa, mut bb, mut ab) = ([0.0; LANES], [0.0; LANES], [0.0; LANES]);
    let (mut cc, mut ac) = ([0.0; LANES], [0.0; LANES]);
    for ((a, b), c) in a.iter().zip(b).zip(c) {
        for lane in 0..LANES {
            aa[lane] += a[lane] * a[lane];
        }
        for lane in 0..LANES {
            bb[lane] += b[lane] * b[lane];
        }
        for lane in 0..LANES {
            ab[lane] += a[lane] * b[lane];
        }
        for lane in 0..LANES {
            cc[lane] += c[lane] * c[lane];
        }
        for lane in 0..LANES {
            ac[lane] += a[lane] * c[lane];
        }
    }
    let finish = |mut early: [f64; LANES], mut late: [f64; LANES], mut both: [f64; LANES], lag: usize| {
        for at in shared..signal.len() - lag {
            let (a, b) = (signal[at], signal[at + lag]);
            early[at % LANES] += a * a;
            late[at % LANES] += b * b;
            both[at % LANES] += a * b;
        }
        let energy = early.iter().sum::<f64>() * late.iter().sum::<f64>();
        if energy > 0.0 { both.iter().sum::<f64>() / energy.sqrt() } else { 0.0 }
    };
    [finish(aa, bb, ab, lag), finish(aa, cc, ac, lag + 1)]
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
