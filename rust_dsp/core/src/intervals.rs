//! Inter-beat intervals: which are kept, and the heart rate and its variability.

use crate::WINDOW_S;

/// Shortest and longest interval that is plausible, in seconds.
const PLAUSIBLE_S: (f64, f64) = (0.3, 2.0);
/// Largest deviation from the median of the five intervals around.
const TOLERANCE: f64 = 0.2;

/// Heart rate and variability of one window.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Variability {
    /// NaN with fewer than 5 intervals.
    pub(crate) hr_bpm: f64,
    /// NaN with fewer than 20 intervals, 15 pairs or 70 % coverage; so is `rmssd_ms`.
    pub(crate) sdnn_ms: f64,
    pub(crate) rmssd_ms: f64,
    /// Kept intervals.
    pub(crate) intervals: usize,
    /// Kept intervals whose successor is kept.
    pub(crate) pairs: usize,
    /// Share of the window inside kept intervals.
    pub(crate) coverage: f64,
}

/// Median of at least one value.
pub(crate) fn median(values: &mut [f64]) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 }
}

/// Whether each interval is plausible and within 20 % of the median of the plausible ones among the five around it.
fn kept(intervals_s: &[f64]) -> Vec<bool> {
    let plausible = |&ibi: &f64| ibi >= PLAUSIBLE_S.0 && ibi <= PLAUSIBLE_S.1;
    (0..intervals_s.len())
        .map(|index| {
            let here = intervals_s[index];
            if !plausible(&here) {
                return false;
            }
            let around = &intervals_s[index.saturating_sub(2)..(index + 3).min(intervals_s.len())];
            let (mut near, mut count) = ([0.0; 5], 0);
            for &ibi in around.iter().filter(|ibi| plausible(ibi)) {
                near[count] = ibi;
                count += 1;
            }
            let median = median(&mut near[..count]);
            (here - median).abs() <= TOLERANCE * median
        })
        .collect()
}

/// Statistics of the intervals between beats; nothing is interpolated, and differences are taken between kept
/// neighbours only.
pub(crate) fn variability(times_s: &[f64]) -> Variability {
    let intervals_s: Vec<f64> = times_s.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let kept = kept(&intervals_s);
    let (mut intervals, mut total_s) = (0, 0.0);
    for (ibi, _) in intervals_s.iter().zip(&kept).filter(|(_, kept)| **kept) {
        intervals += 1;
        total_s += ibi;
    }
    let (mut pairs, mut squares) = (0, 0.0);
    for (ibi, kept) in intervals_s.windows(2).zip(kept.windows(2)) {
        if kept[0] && kept[1] {
            pairs += 1;
            squares += (ibi[1] - ibi[0]).powi(2);
        }
    }
    let coverage = total_s / WINDOW_S as f64;
    let mean_s = total_s / intervals as f64;
    let mut found = Variability { hr_bpm: f64::NAN, sdnn_ms: f64::NAN, rmssd_ms: f64::NAN, intervals, pairs, coverage };
    if intervals >= 5 {
        found.hr_bpm = 60.0 / mean_s;
    }
    if intervals >= 20 && pairs >= 15 && coverage >= 0.7 {
        let deviations = intervals_s.iter().zip(&kept).filter(|(_, kept)| **kept);
        let variance: f64 = deviations.map(|(ibi, _)| (ibi - mean_s).powi(2)).sum::<f64>() / (intervals - 1) as f64;
        found.sdnn_ms = 1e3 * variance.sqrt();
        found.rmssd_ms = 1e3 * (squares / pairs as f64).sqrt();
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use approx::assert_relative_eq;

    /// Beat times with intervals that alternate between two values.
    fn alternating(short_s: f64, long_s: f64, count: usize) -> Vec<f64> {
        (0..=count)
            .scan(0.0, |time_s, i| {
                let now = *time_s;
                *time_s += if i % 2 == 0 { short_s } else { long_s };
                Some(now)
            })
            .collect()
    }

    #[test]
    fn statistics_of_alternating_intervals() {
        let found = variability(&alternating(0.95, 1.05, 50));
        assert_eq!((found.intervals, found.pairs), (50, 49));
        assert_relative_eq!(found.hr_bpm, 60.0, max_relative = 1e-12);
        assert_relative_eq!(found.rmssd_ms, 100.0, max_relative = 1e-9);
        assert_relative_eq!(found.sdnn_ms, 50.0 * (50.0_f64 / 49.0).sqrt(), max_relative = 1e-9);
        assert_relative_eq!(found.coverage, 50.0 / 60.0, max_relative = 1e-12);
    }

    #[test]
    fn a_missed_beat_breaks_its_pairs_and_nothing_else() {
        let mut times = alternating(1.0, 1.0, 50);
        times.remove(20);
        let found = variability(&times);
        assert_eq!((found.intervals, found.pairs), (48, 46));
        assert_relative_eq!(found.hr_bpm, 60.0, max_relative = 1e-12);
        assert!(found.rmssd_ms < 1e-9);
    }

    #[test]
    fn an_undefined_beat_is_left_out() {
        let mut times = alternating(1.0, 1.0, 30);
        times[10] = f64::NAN;
        assert_eq!(variability(&times).intervals, 28);
    }

    #[test]
    fn too_little_is_nan() {
        for (beats, hr) in [(0, false), (1, false), (5, false), (6, true)] {
            let found = variability(&alternating(1.0, 1.0, 60)[..beats]);
            assert_eq!(found.hr_bpm.is_finite(), hr, "{beats} beats");
            assert!(found.sdnn_ms.is_nan() && found.rmssd_ms.is_nan());
        }
    }
}
