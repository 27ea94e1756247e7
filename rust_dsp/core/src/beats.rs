//! Beats: two independent finders, and the instant of each beat at its steepest upslope.

use crate::OUTPUT_RATE_HZ;

const RATE_HZ: f64 = OUTPUT_RATE_HZ as f64;

/// Sign that makes pulses upright: +1 if the signal rises more steeply than it falls, else −1.
#[inline(always)]
pub(crate) fn polarity(signal: &[f64]) -> f64 {
    // Four sums side by side: one would wait for its own last addition
    let mut skew = [0.0; 4];
    for (index, &[before, after]) in signal.array_windows().enumerate() {
        let step = after - before;
        skew[index % 4] += step * step * step;
    }
    let skew: f64 = skew.iter().sum();
    if skew >= 0.0 { 1.0 } else { -1.0 }
}

/// Index of the first largest value.
#[inline(always)]
fn argmax(values: &[f64]) -> usize {
    (1..values.len()).fold(0, |best, index| if values[index] > values[best] { index } else { best })
}

/// Index of the first smallest value.
#[inline(always)]
fn argmin(values: &[f64]) -> usize {
    (1..values.len()).fold(0, |best, index| if values[index] < values[best] { index } else { best })
}

/// Systolic peaks by two moving averages of the squared positive part (Elgendi et al. 2013).
#[inline(always)]
pub(crate) fn two_moving_averages(signal: &[f64]) -> Vec<usize> {
    const PEAK: usize = 7; // 111 ms
    const BEAT: usize = 43; // 667 ms
    const OFFSET: f64 = 0.02;
    const DELAY: usize = 19; // 0.3 s, rounded down: the next peak must be later than that
    let energy: Vec<f64> = signal.iter().map(|&y| if y > 0.0 { y * y } else { 0.0 }).collect();
    let threshold = OFFSET * energy.iter().sum::<f64>() / energy.len() as f64;
    let [peak, beat] = moving_averages(&energy, [PEAK, BEAT]);
    let on = |index: usize| peak[index] > beat[index] + threshold;

    let mut peaks: Vec<usize> = Vec::new();
    let mut index = 0;
    while index < signal.len() {
        let start = index;
        while index < signal.len() && on(index) {
            index += 1;
        }
        if index - start >= PEAK {
            let top = start + argmax(&signal[start..index]);
            if peaks.last().is_none_or(|&last| top - last > DELAY) {
                peaks.push(top);
            }
        }
        index += 1;
    }
    peaks
}

/// Centred moving averages over odd widths, the edge values repeated.
#[inline(always)]
fn moving_averages<const N: usize>(values: &[f64], widths: [usize; N]) -> [Vec<f64>; N] {
    let (first, last) = (values[0], values[values.len() - 1]);
    let mut totals = [0.0; N];
    let mut sums = widths.map(|width| vec![0.0; values.len() + width]);
    for ((sums, total), width) in sums.iter_mut().zip(&mut totals).zip(widths) {
        for sum in &mut sums[1..=width / 2] {
            *total += first;
            *sum = *total;
        }
    }
    // All widths in one loop: a sum has to wait for the one before, but not for the other widths'.
    for (index, value) in values.iter().enumerate() {
        for ((sums, total), width) in sums.iter_mut().zip(&mut totals).zip(widths) {
            *total += value;
            sums[1 + width / 2 + index] = *total;
        }
    }
    for ((sums, total), width) in sums.iter_mut().zip(&mut totals).zip(widths) {
        for sum in &mut sums[1 + width / 2 + values.len()..] {
            *total += last;
            *sum = *total;
        }
        for index in 0..values.len() {
            sums[index] = (sums[index + width] - sums[index]) / width as f64;
        }
        sums.truncate(values.len());
    }
    sums
}

/// Systolic peaks by local maxima on many scales (MSPTD: Bishop & Ercole 2018, made fast by Charlton et al. 2024).
///
/// Windows of 6 s with 20 % overlap on every third sample.
#[inline(always)]
pub(crate) fn multi_scale_peaks(signal: &[f64]) -> Vec<usize> {
    const DECIMATE: usize = 3;
    const WINDOW: usize = 128;
    const HOP: usize = 102;
    const REACH: usize = 4; // samples around a decimated peak among which the highest is taken
    let sparse: Vec<f64> = signal.iter().copied().step_by(DECIMATE).collect();
    let Some(last_start) = sparse.len().checked_sub(WINDOW) else { return Vec::new() };
    let mut starts: Vec<usize> = (0..=last_start).step_by(HOP).collect();
    if starts.last() != Some(&last_start) {
        starts.push(last_start);
    }
    let mut peaks: Vec<usize> = Vec::new();
    let mut window = [0.0; WINDOW];
    for start in starts {
        window.copy_from_slice(&sparse[start..start + WINDOW]);
        detrend(&mut window);
        for peak in scale_peaks(&window) {
            let centre = (start + peak) * DECIMATE;
            let (from, to) = (centre.saturating_sub(REACH), (centre + REACH + 1).min(signal.len()));
            peaks.push(from + argmax(&signal[from..to]));
        }
    }
    peaks.sort_unstable();
    peaks.dedup();
    merge(&peaks, signal)
}

#[inline(always)]
fn detrend(window: &mut [f64]) {
    let n = window.len() as f64;
    let middle = (n - 1.0) / 2.0;
    let mean = window.iter().sum::<f64>() / n;
    let moment: f64 = window.iter().enumerate().map(|(i, x)| (i as f64 - middle) * x).sum();
    let slope = moment / (n * (n * n - 1.0) / 12.0);
    for (i, x) in window.iter_mut().enumerate() {
        *x -= mean + (i as f64 - middle) * slope;
    }
}

/// Local maxima at every scale up to the one that has the most.
#[inline(always)]
fn scale_peaks<const N: usize>(window: &[f64; N]) -> impl Iterator<Item = usize> {
    // Scales of up to a third of the window: beats down to 0.5 Hz in 6 s
    const SCALES: usize = 21;
    let (mut best_scale, mut most) = (1, 0);
    let mut maxima = [[0_u8; N]; SCALES]; // 1 at a local maximum
    for scale in 1..=SCALES {
        let inner = N - 2 * scale;
        let (left, here, right) = (&window[..inner], &window[scale..N - scale], &window[2 * scale..]);
        let row = &mut maxima[scale - 1][scale..N - scale];
        let mut count = 0;
        for (((maximum, &left), &here), &right) in row.iter_mut().zip(left).zip(here).zip(right) {
            *maximum = u8::from(here > left) & u8::from(here > right);
            count += u32::from(*maximum);
        }
        if count > most {
            (best_scale, most) = (scale, count);
        }
    }
    let mut at_all = [1_u8; N];
    for row in &maxima[..best_scale] {
        for (all, maximum) in at_all.iter_mut().zip(row) {
            *all &= maximum;
        }
    }
    (0..N).filter(move |&index| at_all[index] == 1)
}

/// Of peaks closer than 0.25 s keep the higher one, from left to right.
fn merge(peaks: &[usize], signal: &[f64]) -> Vec<usize> {
    const MIN_GAP: usize = OUTPUT_RATE_HZ / 4;
    let mut kept: Vec<usize> = Vec::new();
    for &peak in peaks {
        match kept.last_mut() {
            Some(last) if peak - *last < MIN_GAP => {
                if signal[peak] > signal[*last] {
                    *last = peak;
                }
            }
            _ => kept.push(peak),
        }
    }
    kept
}

/// Derivative per sample: Savitzky-Golay over 9 samples (141 ms), degree 2; zero in the four samples at each end.
#[inline(always)]
pub(crate) fn slope(signal: &[f64]) -> Vec<f64> {
    let mut slope = vec![0.0; signal.len()];
    for (centre, around) in slope.iter_mut().skip(4).zip(signal.array_windows::<9>()) {
        let difference = |k: usize| k as f64 * (around[4 + k] - around[4 - k]);
        *centre = (difference(1) + difference(2) + difference(3) + difference(4)) / 60.0;
    }
    slope
}

/// Instant of each beat, in seconds from the start of the window: the steepest point between the foot and the peak, to
/// a fraction of a sample; NaN where there is none.
///
/// The foot is the lowest sample of the 0.4 s before the peak, not before the peak of the beat before.
#[inline(always)]
pub(crate) fn upslope_times(signal: &[f64], slope: &[f64], peaks: &[usize]) -> Vec<f64> {
    const REACH: usize = 25; // 0.4 s
    let mut earlier = 0;
    peaks
        .iter()
        .map(|&peak| {
            let from = earlier.max(peak.saturating_sub(REACH));
            earlier = peak;
            if peak - from < 3 {
                return f64::NAN;
            }
            let foot = from + argmin(&signal[from..peak]);
            if foot == 0 {
                return f64::NAN;
            }
            let steepest = foot + argmax(&slope[foot..=peak]);
            if slope[steepest] > 0.0 { parabola(slope, steepest) / RATE_HZ } else { f64::NAN }
        })
        .collect()
}

/// Position of the extremum near `index`, to a fraction of a sample.
fn parabola(values: &[f64], index: usize) -> f64 {
    if index == 0 || index + 1 >= values.len() {
        return index as f64;
    }
    let (before, here, after) = (values[index - 1], values[index], values[index + 1]);
    let curvature = before - 2.0 * here + after;
    if curvature == 0.0 {
        return index as f64;
    }
    index as f64 + (0.5 * (before - after) / curvature).clamp(-0.5, 0.5)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::OUTPUT_SAMPLES;
    use approx::assert_abs_diff_eq;

    /// Steep rises at `period_s`, slow decays.
    fn pulses(period_s: f64) -> Vec<f64> {
        (0..OUTPUT_SAMPLES)
            .map(|i| {
                let phase = (i as f64 / RATE_HZ / period_s).fract() * std::f64::consts::TAU;
                phase.sin() + 0.4 * (2.0 * phase).sin()
            })
            .map(|y| -y) // sin + sin 2 falls steeply
            .collect()
    }

    #[test]
    fn polarity_follows_the_steeper_flank() {
        let saw: Vec<f64> = (0..640).map(|i| -f64::from(i % 64)).collect();
        let turned: Vec<f64> = saw.iter().map(|y| -y).collect();
        assert_eq!((polarity(&saw), polarity(&turned)), (1.0, -1.0));
    }

    #[test]
    fn both_finders_count_the_beats_and_the_upslope_repeats() {
        let signal: Vec<f64> = pulses(0.8);
        let signal: Vec<f64> = signal.iter().map(|y| y * polarity(&signal)).collect();
        let slope = slope(&signal);
        for peaks in [two_moving_averages(&signal), multi_scale_peaks(&signal)] {
            assert!((74..=75).contains(&peaks.len()), "{} beats in 60 s of 0.8 s", peaks.len());
            let times = upslope_times(&signal, &slope, &peaks);
            for pair in times[1..].windows(2).filter(|pair| pair.iter().all(|time| time.is_finite())) {
                assert_abs_diff_eq!(pair[1] - pair[0], 0.8, epsilon = 2e-3);
            }
        }
    }

    #[test]
    fn slope_of_a_line_is_its_slope() {
        let line: Vec<f64> = (0..20).map(|i| 3.0 * f64::from(i)).collect();
        let slope = slope(&line);
        assert_eq!(&slope[..4], &[0.0; 4]);
        assert_abs_diff_eq!(slope[10], 3.0, epsilon = 1e-12);
        assert_eq!(&slope[16..], &[0.0; 4]);
    }
}
