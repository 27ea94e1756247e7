//! Beats: two independent detectors, and the instant of each beat at its steepest upslope.

use crate::lanes::{LANES, Lanes};
use crate::sums::sum_by;
use crate::{OUTPUT_RATE_HZ, OUTPUT_SAMPLES};

const RATE_HZ: f64 = OUTPUT_RATE_HZ as f64;

/// One segment in double precision.
pub(crate) type Signal = [f64; OUTPUT_SAMPLES];

/// Sign of the pulses: +1 if the signal rises more steeply than it falls, else −1.
#[inline(always)]
pub(crate) fn polarity(signal: &[f64]) -> f64 {
    let cube = |before: f64, after: f64| (after - before) * (after - before) * (after - before);
    let skew = sum_by(&signal[..signal.len() - 1], &signal[1..], cube);
    if skew >= 0.0 { 1.0 } else { -1.0 }
}

/// Index of the maximum; the first if several are equal.
#[inline(always)]
fn argmax(values: &[f64]) -> usize {
    first_best(values, |value, best| value > best)
}

/// Index of the minimum; the first if several are equal.
#[inline(always)]
fn argmin(values: &[f64]) -> usize {
    first_best(values, |value, best| value < best)
}

/// Index of the first value that no other is better than. Several parts are compared side by side, because each
/// comparison waits for the one before it.
#[inline(always)]
fn first_best(values: &[f64], is_better: impl Fn(f64, f64) -> bool) -> usize {
    const PARTS: usize = 4;
    let better = |best: f64, value: f64| if is_better(value, best) { value } else { best };
    let (groups, rest) = values.as_chunks::<PARTS>();
    let mut parts = [values[0]; PARTS];
    for group in groups {
        parts = std::array::from_fn(|part| better(parts[part], group[part]));
    }
    let best = parts.into_iter().chain(rest.iter().copied()).fold(values[0], better);
    values.iter().position(|&value| value == best).unwrap_or(0)
}

/// Systolic peaks by two moving averages of the squared positive part (Elgendi et al. 2013).
#[inline(always)]
pub(crate) fn two_moving_averages<L: Lanes>(lanes: L, signal: &Signal) -> Vec<usize> {
    const PEAK: usize = 7; // 111 ms
    const BEAT: usize = 43; // 667 ms: 6 * PEAK + 1
    const OFFSET: f64 = 0.02;
    const DELAY: usize = 19; // 0.3 s, rounded down: minimum distance of peaks, exclusive
    // Edge values are repeated, so that every sample has a full window
    let mut energy = [0.0; OUTPUT_SAMPLES + BEAT - 1];
    let (inner, edge) = (BEAT / 2..BEAT / 2 + OUTPUT_SAMPLES, BEAT / 2);
    for (energy, &y) in energy[inner.clone()].iter_mut().zip(signal) {
        *energy = if y > 0.0 { y * y } else { 0.0 };
    }
    let (first, last) = (energy[inner.start], energy[inner.end - 1]);
    energy[..edge].fill(first);
    energy[inner.end..].fill(last);
    let mean = sum_by(&energy[inner.clone()], &energy[inner], |energy, _| energy) / OUTPUT_SAMPLES as f64;
    let threshold = OFFSET * mean * (PEAK * BEAT) as f64;

    let mut short = [0.0; OUTPUT_SAMPLES + BEAT - PEAK]; // sums over PEAK
    for (sum, window) in short.iter_mut().zip(energy.array_windows::<PEAK>()) {
        let [a, b, c, d, e, f, g] = window;
        *sum = ((a + b) + (c + d)) + ((e + f) + g);
    }
    let (mut peak, mut beat) = ([0.0; LANES], [0.0; LANES]);
    let mut above = [0_u64; OUTPUT_SAMPLES / 64]; // one bit per sample
    for (number, word) in above.iter_mut().enumerate() {
        for eight in 0..64 / LANES {
            let start = 64 * number + LANES * eight;
            for lane in 0..LANES {
                let at = start + lane;
                let pairs = (short[at] + short[at + 7]) + (short[at + 14] + short[at + 21]);
                let long = (pairs + short[at + 28]) + (short[at + 35] + energy[at + 42]);
                peak[lane] = short[at + (BEAT - PEAK) / 2] * BEAT as f64;
                beat[lane] = long * PEAK as f64 + threshold;
            }
            *word |= u64::from(lanes.greater(&peak, &beat)) << (LANES * eight);
        }
    }

    let mut peaks: Vec<usize> = Vec::with_capacity(OUTPUT_SAMPLES / DELAY);
    let mut end = 0;
    while end < OUTPUT_SAMPLES {
        let start = next(&above, end, true);
        end = next(&above, start, false);
        if end - start >= PEAK {
            let top = start + argmax(&signal[start..end]);
            if peaks.last().is_none_or(|&last| top - last > DELAY) {
                peaks.push(top);
            }
        }
    }
    peaks
}

/// Index of the first bit from `from` on that equals `set`; the number of bits if there is none.
fn next(bits: &[u64], from: usize, set: bool) -> usize {
    let flip = if set { 0 } else { u64::MAX };
    let mut skipped = from % 64;
    for (number, word) in bits.iter().enumerate().skip(from / 64) {
        let remaining = (word ^ flip) >> skipped;
        if remaining != 0 {
            return 64 * number + skipped + remaining.trailing_zeros() as usize;
        }
        skipped = 0;
    }
    64 * bits.len()
}

/// Samples of a window of `multi_scale_peaks`.
const WINDOW: usize = 128;
/// Scales of up to a third of half a window: beats down to 0.5 Hz in 6 s.
const SCALES: usize = 21;
/// Padding before a window: a multiple of the register width.
const MARGIN: usize = SCALES.next_multiple_of(LANES);

/// Systolic peaks by local maxima on many scales (MSPTD: Bishop & Ercole 2018; the fast variant of Charlton et al. 2024).
///
/// Windows of 6 s with 20 % overlap on every third sample.
#[inline(always)]
pub(crate) fn multi_scale_peaks<L: Lanes>(lanes: L, signal: &Signal) -> Vec<usize> {
    const DECIMATE: usize = 3;
    const HOP: usize = 102;
    const LAST: usize = OUTPUT_SAMPLES / DECIMATE - WINDOW;
    const REACH: usize = 4; // samples around a decimated peak that are searched for the highest one
    let mut peaks: Vec<usize> = Vec::with_capacity(OUTPUT_SAMPLES / DECIMATE / 8);
    // Infinite padding: the first samples of a window are no maxima
    let mut window = [f64::INFINITY; MARGIN + WINDOW];
    for start in (0..LAST).step_by(HOP).chain([LAST]) {
        let values: &mut [f64; WINDOW] = window[MARGIN..].first_chunk_mut().expect("a window");
        let sparse = &signal.as_chunks::<DECIMATE>().0[start..start + WINDOW];
        for (value, [sample, ..]) in values.iter_mut().zip(sparse) {
            *value = *sample;
        }
        detrend(values);
        let mut maxima = scale_peaks(lanes, &window);
        while maxima != 0 {
            let centre = (start + maxima.trailing_zeros() as usize) * DECIMATE;
            maxima &= maxima - 1;
            let (from, to) = (centre.saturating_sub(REACH), (centre + REACH + 1).min(OUTPUT_SAMPLES));
            peaks.push(from + argmax(&signal[from..to]));
        }
    }
    peaks.sort_unstable();
    peaks.dedup();
    merge(&peaks, signal)
}

/// `index − middle` of a window.
const RAMP: [f64; WINDOW] = {
    let mut ramp = [0.0; WINDOW];
    let mut index = 0;
    while index < WINDOW {
        ramp[index] = index as f64 - (WINDOW - 1) as f64 / 2.0;
        index += 1;
    }
    ramp
};

#[inline(always)]
fn detrend(window: &mut [f64; WINDOW]) {
    const N: f64 = WINDOW as f64;
    let mean = sum_by(window, window, |x, _| x) / N;
    let slope = sum_by(window, &RAMP, |x, ramp| x * ramp) / (N * (N * N - 1.0) / 12.0);
    for (x, ramp) in window.iter_mut().zip(RAMP) {
        *x -= mean + ramp * slope;
    }
}

/// Local maxima at every scale up to the scale with most maxima: one bit per sample of the window.
#[inline(always)]
fn scale_peaks<L: Lanes>(lanes: L, window: &[f64; MARGIN + WINDOW]) -> u128 {
    let (mut at_all_scales, mut peaks, mut max_count) = (u128::MAX, 0, 0);
    for scale in 1..=SCALES {
        let current = window[MARGIN..].as_chunks::<LANES>().0;
        let before = window[MARGIN - scale..].as_chunks::<LANES>().0;
        let (mut rises, mut falls) = ([0; WINDOW / LANES], [0; WINDOW / LANES]);
        for (((rise, fall), current), before) in rises.iter_mut().zip(&mut falls).zip(current).zip(before) {
            *rise = lanes.greater(current, before);
            *fall = lanes.greater(before, current);
        }
        // Higher than the samples `scale` before and after
        let maxima = u128::from_le_bytes(rises) & (u128::from_le_bytes(falls) >> scale);
        at_all_scales &= maxima;
        if maxima.count_ones() > max_count {
            (peaks, max_count) = (at_all_scales, maxima.count_ones());
        }
    }
    peaks
}

/// Keep the higher of two peaks closer than 0.25 s, from left to right.
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
pub(crate) fn slope(signal: &Signal) -> Signal {
    let mut slope = [0.0; OUTPUT_SAMPLES];
    for (centre, around) in slope.iter_mut().skip(4).zip(signal.array_windows::<9>()) {
        let difference = |k: usize| k as f64 * (around[4 + k] - around[4 - k]);
        *centre = (difference(1) + difference(2) + difference(3) + difference(4)) / 60.0;
    }
    slope
}

/// Instant of each beat, in seconds from the start of the window: the steepest point between the foot and the peak, with
/// sub-sample resolution; NaN if undefined.
///
/// The foot is the lowest sample in the 0.4 s before the peak, and not before the previous peak. `known` are other peaks
/// in order and their instants, which are taken where both have the same peak and reach equally far back.
#[inline(always)]
pub(crate) fn upslope_times(
    signal: &Signal,
    slope: &Signal,
    peaks: &[usize],
    (known, times): (&[usize], &[f64]),
) -> Vec<f64> {
    const REACH: usize = 25; // 0.4 s
    let reach = |peaks: &[usize], peak: usize| peaks.last().map_or(0, |&before| before).max(peak.saturating_sub(REACH));
    let mut passed = 0; // of the known ones
    let time = |(number, &peak): (usize, &usize)| {
        let from = reach(&peaks[..number], peak);
        passed += known[passed..].iter().take_while(|&&other| other < peak).count();
        if known.get(passed) == Some(&peak) && reach(&known[..passed], peak) == from {
            return times[passed];
        }
        if peak - from < 3 {
            return f64::NAN;
        }
        let foot = from + argmin(&signal[from..peak]);
        if foot == 0 {
            return f64::NAN;
        }
        let steepest = foot + argmax(&slope[foot..=peak]);
        if slope[steepest] > 0.0 { parabola(slope, steepest) / RATE_HZ } else { f64::NAN }
    };
    peaks.iter().enumerate().map(time).collect()
}

/// Position of the extremum near `index`, by parabolic interpolation.
fn parabola(values: &[f64], index: usize) -> f64 {
    if index == 0 || index + 1 >= values.len() {
        return index as f64;
    }
    let (before, value, after) = (values[index - 1], values[index], values[index + 1]);
    let curvature = before - 2.0 * value + after;
    if curvature == 0.0 {
        return index as f64;
    }
    index as f64 + (0.5 * (before - after) / curvature).clamp(-0.5, 0.5)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lanes::{InstructionSet, Kernel};
    use approx::assert_abs_diff_eq;

    /// The peaks of both detectors.
    struct Peaks<'a>(&'a Signal);

    impl Kernel for Peaks<'_> {
        type Output = [Vec<usize>; 2];

        #[inline(always)]
        fn run<L: Lanes>(self, lanes: L) -> Self::Output {
            [two_moving_averages(lanes, self.0), multi_scale_peaks(lanes, self.0)]
        }
    }

    /// Steep rises at `period_s`, slow decays.
    fn pulses(period_s: f64) -> Signal {
        std::array::from_fn(|i| {
            let phase = (i as f64 / RATE_HZ / period_s).fract() * std::f64::consts::TAU;
            -(phase.sin() + 0.4 * (2.0 * phase).sin()) // sin + sin 2 falls steeply
        })
    }

    #[test]
    fn polarity_follows_the_steeper_flank() {
        let saw: Vec<f64> = (0..640).map(|i| -f64::from(i % 64)).collect();
        let inverted: Vec<f64> = saw.iter().map(|y| -y).collect();
        assert_eq!((polarity(&saw), polarity(&inverted)), (1.0, -1.0));
    }

    #[test]
    fn both_detectors_count_the_beats_and_the_upslope_repeats() {
        let signal = pulses(0.8);
        let signal = signal.map(|y| y * polarity(&signal));
        let slope = slope(&signal);
        for peaks in InstructionSet::available().flat_map(|set| set.run(Peaks(&signal))) {
            assert!((74..=75).contains(&peaks.len()), "{} beats in 60 s of 0.8 s", peaks.len());
            let times = upslope_times(&signal, &slope, &peaks, (&[], &[]));
            for pair in times[1..].windows(2).filter(|pair| pair.iter().all(|time| time.is_finite())) {
                assert_abs_diff_eq!(pair[1] - pair[0], 0.8, epsilon = 2e-3);
            }
        }
    }

    #[test]
    fn slope_of_a_line_is_its_slope() {
        let slope = slope(&std::array::from_fn(|i| 3.0 * i as f64));
        assert_eq!(&slope[..4], &[0.0; 4]);
        assert_abs_diff_eq!(slope[10], 3.0, epsilon = 1e-12);
        assert_eq!(&slope[OUTPUT_SAMPLES - 4..], &[0.0; 4]);
    }
}
