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
use crate::lanes::{InstructionSet, Kernel, Lanes};
use crate::samples::Samples;
use crate::sums::sum_by;
use crate::threads;
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

/// What the autocorrelation says of one segment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Recoil {
    /// Heart rate, 30 to 220; NaN where the autocorrelation has no peak in that range.
    pub hr_bpm: f64,
    /// Height of the peak, 0 to 1; NaN as the rate.
    pub peak: f64,
}

impl Recoil {
    const NONE: Self = Self { hr_bpm: f64::NAN, peak: f64::NAN };
}

/// Heart rate from the acceleration in a band of one recording, `axes` of which all have the same length.
///
/// NaN for less than 10 s, a sample that is not finite, and what is flat in the band. The result does not depend on the
/// unit.
pub fn recoil(axes: &[Samples<'_>], rate_hz: f64, band_hz: (f64, f64)) -> Result<Recoil, BandError> {
    let band = Band::new(band_hz, rate_hz)?;
    let axes: Vec<Vec<f64>> = axes.iter().map(|axis| (0..axis.len()).map(|index| axis.at(index)).collect()).collect();
    Ok(InstructionSet::detect().run(Estimate { axes: &axes, band: &band }))
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
        *out = set.run(Estimate { axes: &rows, band: &band });
    })?;
    Ok(recoils)
}

/// Why a batch was not estimated.
#[derive(Debug, thiserror::Error)]
pub enum BatchError {
    /// A band that 64 Hz does not hold.
    #[error(transparent)]
    Band(#[from] BandError),
    /// No threads.
    #[error("no thread pool: {0}")]
    Threads(#[from] rayon::ThreadPoolBuildError),
}

/// Kernel of one segment.
struct Estimate<'a> {
    axes: &'a [Vec<f64>],
    band: &'a Band,
}

impl Kernel for Estimate<'_> {
    type Output = Recoil;

    #[inline(always)]
    fn run<L: Lanes>(self, _: L) -> Recoil {
        let Some(power) = self.power() else { return Recoil::NONE };
        let (envelope, rate_hz) = envelope(&power, self.band.rate_hz());
        let pulse = Band::new(PULSE_HZ, rate_hz).expect("envelopes have at least 20 Hz").run(&envelope);
        first_peak(&pulse, rate_hz).unwrap_or(Recoil::NONE)
    }
}

impl Estimate<'_> {
    /// Squared acceleration in the band, summed over the axes.
    #[inline(always)]
    fn power(&self) -> Option<Vec<f64>> {
        let samples = self.axes.iter().map(Vec::len).min().unwrap_or(0);
        if (samples as f64) < MIN_DURATION_S * self.band.rate_hz() {
            return None;
        }
        let mut power = vec![0.0; samples];
        let mut largest = 0.0_f64;
        for axis in self.axes {
            if !axis.iter().all(|sample| sample.is_finite()) {
                return None;
            }
            largest = axis.iter().fold(largest, |largest, sample| largest.max(sample.abs()));
            for (power, y) in power.iter_mut().zip(self.band.run(axis)) {
                *power += y * y;
            }
        }
        let mean = power.iter().sum::<f64>() / samples as f64;
        (mean.is_finite() && mean.sqrt() > FLAT * largest && mean > f64::MIN_POSITIVE).then_some(power)
    }
}

/// Logarithm of the smoothed power, and its rate: that of the signal, or averaged to 48 to 96 Hz.
#[inline(always)]
fn envelope(power: &[f64], rate_hz: f64) -> (Vec<f64>, f64) {
    let block = ((rate_hz / ENVELOPE_HZ) as usize).max(1);
    let rate_hz = rate_hz / block as f64;
    let means: Vec<f64> =
        power.chunks_exact(block).map(|block| block.iter().sum::<f64>() / block.len() as f64).collect();
    let half = (SMOOTH_S * rate_hz / 2.0).round() as usize;
    let weights: Vec<f64> =
        (1..=2 * half + 1).map(|tap| (PI * tap as f64 / (2 * half + 2) as f64).sin().powi(2)).collect();
    let total: f64 = weights.iter().sum();
    let floor = FLOOR * means.iter().sum::<f64>() / means.len() as f64;
    let mut mirrored = Vec::with_capacity(means.len() + 2 * half);
    mirrored.extend(means[1..=half].iter().rev());
    mirrored.extend(&means);
    mirrored.extend(means.iter().rev().skip(1).take(half));
    let envelope =
        mirrored.windows(weights.len()).map(|window| (sum_by(window, &weights, |p, w| p * w) / total + floor).ln());
    (envelope.collect(), rate_hz)
}

/// The shortest lag of the pulse range whose peak is nearly as high as the highest one.
#[inline(always)]
fn first_peak(pulse: &[f64], rate_hz: f64) -> Option<Recoil> {
    let lag = |bpm: f64| 60.0 * rate_hz / bpm;
    let (shortest, longest) = (lag(HR_BPM.1).ceil() as usize, lag(HR_BPM.0).floor() as usize);
    let correlation: Vec<f64> = (shortest - 1..=longest + 1).map(|lag| correlation(pulse, lag)).collect();
    let peaks: Vec<usize> = (1..correlation.len() - 1)
        .filter(|&at| {
            let value = correlation[at];
            value > 0.0 && value >= correlation[at - 1] && value > correlation[at + 1]
        })
        .collect();
    let highest = peaks.iter().fold(0.0_f64, |highest, &at| highest.max(correlation[at]));
    let at = *peaks.iter().find(|&&at| correlation[at] >= MIN_SHARE * highest)?;
    let (before, value, after) = (correlation[at - 1], correlation[at], correlation[at + 1]);
    let curvature = before - 2.0 * value + after; // negative at a peak
    let position = (shortest - 1 + at) as f64 + (0.5 * (before - after) / curvature).clamp(-0.5, 0.5);
    Some(Recoil { hr_bpm: (60.0 * rate_hz / position).clamp(HR_BPM.0, HR_BPM.1), peak: value.min(1.0) })
}

/// Correlation of a signal with itself `lag` samples later, of what overlaps: no bias towards short lags.
#[inline(always)]
fn correlation(signal: &[f64], lag: usize) -> f64 {
    let (early, late) = (&signal[..signal.len() - lag], &signal[lag..]);
    let energy = sum_by(early, early, |a, b| a * b) * sum_by(late, late, |a, b| a * b);
    if energy > 0.0 { sum_by(early, late, |a, b| a * b) / energy.sqrt() } else { 0.0 }
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
            let estimate = |set: InstructionSet| set.run(Estimate { axes: &axes, band: &band });
            let portable = estimate(InstructionSet::Portable);
            for set in InstructionSet::available() {
                prop_assert_eq!(format!("{:?}", estimate(set)), format!("{portable:?}"));
            }
        }
    }
}
