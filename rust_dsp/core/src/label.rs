//! Labels of a segment: beats, heart rate, variability and quality.

use half::f16;
use half::slice::HalfFloatSliceExt;

use crate::OUTPUT_SAMPLES;
use crate::beats::{Signal, multi_scale_peaks, polarity, slope, two_moving_averages, upslope_times};
use crate::intervals::beat_variability;
use crate::lanes::{InstructionSet, Kernel, Lanes};
use crate::quality::{agreement, template_correlation};
use crate::threads::{self, ThreadsError};

/// Minimum quality of a good segment.
const MIN_AGREEMENT: f64 = 0.9;
const MIN_TEMPLATE_CORRELATION: f64 = 0.8;
const MIN_COVERAGE: f64 = 0.8;

/// Labels of one segment.
#[derive(Clone, Debug, PartialEq)]
pub struct Label {
    /// +1 if pulses rise steeply, −1 if they fall steeply; as given or as estimated.
    pub polarity: i8,
    /// Heart rate; NaN with fewer than 5 intervals.
    pub hr_bpm: f64,
    /// Standard deviation of the intervals; NaN with fewer than 20 intervals, 15 pairs or 70 % coverage.
    pub sdnn_ms: f64,
    /// Root mean square of successive differences; NaN under the same conditions.
    pub rmssd_ms: f64,
    /// Share of the beats on which two detectors agree within 0.1 s.
    pub agreement: f64,
    /// Mean correlation of the beats with their mean.
    pub template_correlation: f64,
    /// Share of the segment inside kept intervals.
    pub coverage: f64,
    /// Kept intervals.
    pub intervals: usize,
    /// Kept intervals whose successor is kept.
    pub pairs: usize,
    /// Whether agreement, template correlation and coverage are at least 0.9, 0.8 and 0.8.
    pub good: bool,
    /// Systolic peaks, as sample indices.
    pub beat_index: Vec<usize>,
    /// Steepest upslope of each beat, in seconds from the start of the segment; NaN if undefined.
    pub beat_s: Vec<f64>,
}

/// One segment: 3840 samples of a band-passed signal at 64 Hz, on any scale.
#[derive(Clone, Copy, Debug)]
pub enum SegmentSamples<'a> {
    /// Half precision.
    F16(&'a [f16]),
    /// Single precision.
    F32(&'a [f32]),
    /// Double precision.
    F64(&'a [f64]),
}

impl SegmentSamples<'_> {
    /// In double precision.
    #[inline(always)]
    pub(crate) fn read(self) -> Signal {
        let mut signal = [0.0; OUTPUT_SAMPLES];
        match self {
            Self::F16(samples) => samples.convert_to_f64_slice(&mut signal),
            Self::F32(samples) => signal.iter_mut().zip(samples).for_each(|(y, &sample)| *y = sample.into()),
            Self::F64(samples) => signal.copy_from_slice(samples),
        }
        signal
    }

    pub(crate) fn len(self) -> usize {
        match self {
            Self::F16(samples) => samples.len(),
            Self::F32(samples) => samples.len(),
            Self::F64(samples) => samples.len(),
        }
    }
}

/// Label one segment. `known` is the polarity of the device's pulses, +1 or −1; pass it if it is known, because the
/// estimate fails on noisy channels. A segment with a sample that is not finite has no beats.
///
/// # Panics
/// If the segment does not have 3840 samples.
pub fn label(segment: SegmentSamples<'_>, known: Option<f64>) -> Label {
    InstructionSet::detect().run(OneLabel { segment, known })
}

/// Kernel that labels one segment.
struct OneLabel<'a> {
    segment: SegmentSamples<'a>,
    known: Option<f64>,
}

impl Kernel for OneLabel<'_> {
    type Output = Label;

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) -> Label {
        label_one(lanes, self.segment, self.known)
    }
}

#[inline(always)]
fn label_one<L: Lanes>(lanes: L, segment: SegmentSamples<'_>, known: Option<f64>) -> Label {
    assert_eq!(segment.len(), OUTPUT_SAMPLES, "a segment has 3840 samples");
    let mut signal = segment.read();
    let finite = signal.iter().fold(true, |finite, y| finite & y.is_finite());
    let polarity = known.unwrap_or_else(|| polarity(&signal));
    signal.iter_mut().for_each(|y| *y *= polarity);
    let (beats, other_beats) = if finite {
        (two_moving_averages(lanes, &signal), multi_scale_peaks(lanes, &signal))
    } else {
        (Vec::new(), Vec::new())
    };
    let slope = slope(&signal);
    let times = upslope_times(&signal, &slope, &beats, (&[], &[]));
    let variability = beat_variability(&times);
    let agreement = agreement(&times, &upslope_times(&signal, &slope, &other_beats, (&beats, &times)));
    let template_correlation = template_correlation(&signal, &beats);
    Label {
        polarity: polarity as i8,
        hr_bpm: variability.hr_bpm,
        sdnn_ms: variability.sdnn_ms,
        rmssd_ms: variability.rmssd_ms,
        agreement,
        template_correlation,
        coverage: variability.coverage,
        intervals: variability.intervals,
        pairs: variability.pairs,
        good: agreement >= MIN_AGREEMENT
            && template_correlation >= MIN_TEMPLATE_CORRELATION
            && variability.coverage >= MIN_COVERAGE,
        beat_index: beats,
        beat_s: times,
    }
}

/// Label many segments, on `threads` threads (0: all cores).
pub fn label_batch(
    segments: &[SegmentSamples<'_>],
    known: Option<f64>,
    threads: usize,
) -> Result<Vec<Label>, ThreadsError> {
    let mut labels = vec![None; segments.len()];
    let items = segments.iter().zip(&mut labels).collect();
    threads::for_each(items, threads, |(&segment, out)| *out = Some(label(segment, known)))?;
    Ok(labels.into_iter().flatten().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Pulses of about `period_s` with `noise`, quantised to steps of `1 / levels`, so that neighbours can be equal.
    fn segment(period_s: f64, noise: f64, levels: f64, seed: u64) -> Vec<f64> {
        let (mut phase, mut random) = (0.0, seed | 1);
        let pulse = |_| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let unit = (random >> 11) as f64 / (1_u64 << 53) as f64;
            phase += (1.0 + 0.2 * unit) * std::f64::consts::TAU / (64.0 * period_s);
            ((-phase.sin() - 0.4 * (2.0 * phase).sin() + noise * (unit - 0.5)) * levels).round() / levels
        };
        (0..OUTPUT_SAMPLES).map(pulse).collect()
    }

    proptest! {
        #[test]
        fn labels_are_the_same_with_all_instructions(
            period_s in 0.4..1.6_f64, noise in 0.0..6.0_f64, levels in prop_oneof![Just(2.0), Just(1e9)], seed: u64,
        ) {
            let samples = segment(period_s, noise, levels, seed);
            let label = |set: InstructionSet| set.run(OneLabel { segment: SegmentSamples::F64(&samples), known: None });
            let portable = label(InstructionSet::Portable);
            for set in InstructionSet::available() {
                // As text, where NaN equals NaN
                prop_assert_eq!(format!("{:?}", label(set)), format!("{portable:?}"));
            }
        }
    }
}
