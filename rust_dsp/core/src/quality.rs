//! Quality of a labelled window: agreement of two beat detectors, and similarity of the beats.

use crate::intervals::median;
use crate::lanes::LANES;
use crate::sums::sum_by;

/// Share of the beats of both detectors that have a beat of the other within 0.1 s.
#[inline(always)]
pub(crate) fn agreement(a: &[f64], b: &[f64]) -> f64 {
    const TOLERANCE_S: f64 = 0.1;
    let finite = |times: &[f64]| {
        let mut finite: Vec<f64> = times.iter().copied().filter(|time| time.is_finite()).collect();
        finite.sort_unstable_by(f64::total_cmp);
        finite
    };
    let (a, b) = (finite(a), finite(b));
    if a.len() < 3 || b.len() < 3 {
        return 0.0;
    }
    let matched = |times: &[f64], others: &[f64]| {
        let mut candidates = others;
        let has_match = |&&time: &&f64| {
            // Both are sorted, so what is skipped cannot match later times either.
            candidates = &candidates[candidates.iter().take_while(|&&other| time - other > TOLERANCE_S).count()..];
            candidates.first().is_some_and(|other| (time - other).abs() <= TOLERANCE_S)
        };
        times.iter().filter(has_match).count()
    };
    (matched(&a, &b) + matched(&b, &a)) as f64 / (a.len() + b.len()) as f64
}

/// Mean correlation of each beat with the mean beat, over the median interval (Orphanidou et al. 2015).
#[inline(always)]
pub(crate) fn template_correlation(signal: &[f64], peaks: &[usize]) -> f64 {
    if peaks.len() < 5 {
        return 0.0;
    }
    let mut intervals: Vec<f64> = peaks.windows(2).map(|pair| (pair[1] - pair[0]) as f64).collect();
    let half = (median(&mut intervals) / 2.0).round_ties_even() as usize;
    let width = 2 * half + 1;
    let stride = width.next_multiple_of(LANES);
    // Beats without their means, `[beats][stride]`, padded with zeros to a multiple of the register width
    let mut beats = Vec::with_capacity(peaks.len() * stride);
    for &peak in peaks.iter().filter(|&&peak| peak >= half && peak + half < signal.len()) {
        let start = beats.len();
        beats.extend_from_slice(&signal[peak - half..=peak + half]);
        beats.resize(start + stride, 0.0);
        let beat = &mut beats[start..];
        let mean = sum_by(beat, beat, |y, _| y) / width as f64;
        beat[..width].iter_mut().for_each(|y| *y -= mean);
    }
    let count = beats.len() / stride;
    if count < 5 || half < 6 {
        return 0.0;
    }
    let mut template = vec![0.0; stride];
    for beat in beats.chunks_exact(stride) {
        template.iter_mut().zip(beat).for_each(|(mean, y)| *mean += y);
    }
    template.iter_mut().for_each(|mean| *mean /= count as f64);
    let product = |a: &[f64], b: &[f64]| sum_by(a, b, |a, b| a * b);
    let energy = product(&template, &template);
    let mut total = 0.0;
    for beat in beats.chunks_exact(stride) {
        total += product(beat, &template) / ((product(beat, beat) * energy).sqrt() + 1e-30);
    }
    total / count as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use approx::assert_abs_diff_eq;

    #[test]
    fn agreement_counts_both_sides() {
        let beats = [1.0, 2.0, 3.0, 4.0];
        assert_eq!(agreement(&beats, &beats), 1.0);
        assert_eq!(agreement(&beats, &[1.05, 2.0, 3.5, f64::NAN]), (2.0 + 2.0) / 7.0);
        assert_eq!(agreement(&beats, &[1.0, 2.0]), 0.0);
    }

    #[test]
    fn equal_beats_correlate_perfectly() {
        let signal: Vec<f64> = (0..640).map(|i| (f64::from(i) * std::f64::consts::TAU / 64.0).sin()).collect();
        let peaks: Vec<usize> = (0..10).map(|k| 16 + 64 * k).collect();
        assert_abs_diff_eq!(template_correlation(&signal, &peaks), 1.0, epsilon = 1e-12);
        assert_eq!(template_correlation(&signal, &peaks[..4]), 0.0);
    }
}
