//! Inter-beat intervals: which are kept, and the heart rate and its variability.

use crate::WINDOW_S;

/// Shortest and longest plausible interval, in seconds.
const PLAUSIBLE_S: (f64, f64) = (0.3, 2.0);
/// Largest deviation from the median of the five surrounding intervals, as a fraction of it.
const TOLERANCE: f64 = 0.2;
/// Intervals are neighbours if one ends and the next starts within less than this: devices round to about 1/64 s.
const MAX_SEPARATION_S: f64 = 0.02;
/// Fewest intervals for a heart rate.
const MIN_RATE_INTERVALS: usize = 5;
/// Fewest intervals and pairs, and smallest coverage, for SDNN and RMSSD.
const MIN_INTERVALS: usize = 20;
const MIN_PAIRS: usize = 15;
const MIN_COVERAGE: f64 = 0.7;

/// Heart rate and its variability in one 60 s window.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Variability {
    /// Heart rate; NaN with fewer than 5 intervals.
    pub hr_bpm: f64,
    /// Standard deviation of the intervals; NaN with fewer than 20 intervals, 15 pairs or 70 % coverage.
    pub sdnn_ms: f64,
    /// Root mean square of successive differences; NaN under the same conditions.
    pub rmssd_ms: f64,
    /// Kept intervals.
    pub intervals: usize,
    /// Kept intervals whose neighbour, the next interval, is kept.
    pub pairs: usize,
    /// Share of the window inside kept intervals.
    pub coverage: f64,
}

/// Median of at least one value.
pub(crate) fn median(values: &mut [f64]) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 }
}

/// Whether each interval is plausible and within 20 % of the median of the plausible ones among the five around it.
fn kept(intervals_s: &[f64]) -> Vec<bool> {
    let plausible = |&interval: &f64| interval >= PLAUSIBLE_S.0 && interval <= PLAUSIBLE_S.1;
    (0..intervals_s.len())
        .map(|index| {
            let interval = intervals_s[index];
            if !plausible(&interval) {
                return false;
            }
            let around = &intervals_s[index.saturating_sub(2)..(index + 3).min(intervals_s.len())];
            let (mut near, mut count) = ([0.0; 5], 0);
            for &interval in around.iter().filter(|interval| plausible(interval)) {
                near[count] = interval;
                count += 1;
            }
            let median = median(&mut near[..count]);
            (interval - median).abs() <= TOLERANCE * median
        })
        .collect()
}

/// Heart rate, SDNN and RMSSD of the inter-beat intervals `start_s[i]..end_s[i]` of one window, in order of time.
///
/// An interval is kept if it lasts 0.3 to 2 s and is within 20 % of the median of the plausible ones among the five
/// around it; one with a bound that is not finite is not. Nothing is interpolated: RMSSD takes differences only between
/// kept neighbours, where one interval ends within 0.02 s of the start of the next.
///
/// # Panics
/// If there are not as many starts as ends.
pub fn variability(start_s: &[f64], end_s: &[f64]) -> Variability {
    assert_eq!(start_s.len(), end_s.len(), "every interval has a start and an end");
    let intervals_s: Vec<f64> = start_s.iter().zip(end_s).map(|(start, end)| end - start).collect();
    let kept = kept(&intervals_s);
    let (mut intervals, mut total_s) = (0, 0.0);
    for (interval, _) in intervals_s.iter().zip(&kept).filter(|(_, kept)| **kept) {
        intervals += 1;
        total_s += interval;
    }
    let (mut pairs, mut squares) = (0, 0.0);
    for next in 1..intervals_s.len() {
        let neighbours = (start_s[next] - end_s[next - 1]).abs() < MAX_SEPARATION_S;
        if kept[next - 1] && kept[next] && neighbours {
            pairs += 1;
            squares += (intervals_s[next] - intervals_s[next - 1]).powi(2);
        }
    }
    let coverage = total_s / WINDOW_S as f64;
    let mean_s = total_s / intervals as f64;
    let mut variability =
        Variability { hr_bpm: f64::NAN, sdnn_ms: f64::NAN, rmssd_ms: f64::NAN, intervals, pairs, coverage };
    if intervals >= MIN_RATE_INTERVALS {
        variability.hr_bpm = 60.0 / mean_s;
    }
    if intervals >= MIN_INTERVALS && pairs >= MIN_PAIRS && coverage >= MIN_COVERAGE {
        let deviations = intervals_s.iter().zip(&kept).filter(|(_, kept)| **kept);
        let variance: f64 =
            deviations.map(|(interval, _)| (interval - mean_s).powi(2)).sum::<f64>() / (intervals - 1) as f64;
        variability.sdnn_ms = 1e3 * variance.sqrt();
        variability.rmssd_ms = 1e3 * (squares / pairs as f64).sqrt();
    }
    variability
}

/// [`variability`] of the intervals between successive beats; those at an undefined (NaN) beat are not kept.
pub(crate) fn beat_variability(beat_s: &[f64]) -> Variability {
    let end_s = beat_s.get(1..).unwrap_or_default();
    variability(&beat_s[..end_s.len()], end_s)
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
        let variability = beat_variability(&alternating(0.95, 1.05, 50));
        assert_eq!((variability.intervals, variability.pairs), (50, 49));
        assert_relative_eq!(variability.hr_bpm, 60.0, max_relative = 1e-12);
        assert_relative_eq!(variability.rmssd_ms, 100.0, max_relative = 1e-9);
        assert_relative_eq!(variability.sdnn_ms, 50.0 * (50.0_f64 / 49.0).sqrt(), max_relative = 1e-9);
        assert_relative_eq!(variability.coverage, 50.0 / 60.0, max_relative = 1e-12);
    }

    #[test]
    fn a_missed_beat_breaks_its_pairs_and_nothing_else() {
        let mut times = alternating(1.0, 1.0, 50);
        times.remove(20);
        let variability = beat_variability(&times);
        assert_eq!((variability.intervals, variability.pairs), (48, 46));
        assert_relative_eq!(variability.hr_bpm, 60.0, max_relative = 1e-12);
        assert!(variability.rmssd_ms < 1e-9);
    }

    #[test]
    fn an_undefined_beat_is_left_out() {
        let mut times = alternating(1.0, 1.0, 30);
        times[10] = f64::NAN;
        assert_eq!(beat_variability(&times).intervals, 28);
    }

    #[test]
    fn intervals_that_do_not_touch_are_no_neighbours() {
        let beats = alternating(1.0, 1.0, 30);
        for (shift_s, pairs) in [(0.015, 29), (0.025, 28), (-0.015, 29), (-0.025, 28)] {
            let shifted = |times_s: &[f64]| -> Vec<f64> {
                times_s
                    .iter()
                    .enumerate()
                    .map(|(index, time)| if index < 12 { *time } else { time + shift_s })
                    .collect()
            };
            let variability = variability(&shifted(&beats[..30]), &shifted(&beats[1..]));
            assert_eq!((variability.intervals, variability.pairs), (30, pairs), "shifted by {shift_s} s");
        }
    }

    #[test]
    fn too_little_is_nan() {
        for (beats, hr) in [(0, false), (1, false), (5, false), (6, true)] {
            let variability = beat_variability(&alternating(1.0, 1.0, 60)[..beats]);
            assert_eq!(variability.hr_bpm.is_finite(), hr, "{beats} beats");
            assert!(variability.sdnn_ms.is_nan() && variability.rmssd_ms.is_nan());
        }
    }
}
