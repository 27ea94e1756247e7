//! Zero-phase band-pass of a signal of any length and rate: the filter of `bandpass`, one signal at a time.

use thiserror::Error;

use crate::design::BandPass;
use crate::samples::Samples;

/// Mirrored ends, in periods of the lower edge: about nine time constants of the slowest pole.
const MIRROR_PERIODS: f64 = 2.0;
const RATES_HZ: (f64, f64) = (20.0, 2048.0);
/// Lowest edge: below it the mirrored ends are longer than a segment.
const MIN_EDGE_HZ: f64 = 0.05;

/// A band that the rate does not hold, or a rate that is not supported.
#[derive(Clone, Copy, Debug, Error, PartialEq)]
pub enum BandError {
    /// A rate outside 20 to 2048 Hz.
    #[error("rate_hz must be from 20 to 2048, found {0}")]
    Rate(f64),
    /// Edges that are not in order, or not below half the rate.
    #[error(
        "band_hz must rise from at least 0.05 to below half of the rate of {rate_hz} Hz, found {low_hz} to {high_hz}"
    )]
    Edges {
        /// Lower edge.
        low_hz: f64,
        /// Upper edge.
        high_hz: f64,
        /// Rate of the signal.
        rate_hz: f64,
    },
}

/// A Butterworth band-pass of four poles, for signals of one rate.
#[derive(Clone, Copy, Debug)]
pub struct Band {
    filter: BandPass,
    mirror: usize,
    rate_hz: f64,
}

impl Band {
    /// The band from `low_hz` to `high_hz` of signals at `rate_hz`.
    pub fn new((low_hz, high_hz): (f64, f64), rate_hz: f64) -> Result<Self, BandError> {
        if !(rate_hz >= RATES_HZ.0 && rate_hz <= RATES_HZ.1) {
            return Err(BandError::Rate(rate_hz));
        }
        if !(low_hz >= MIN_EDGE_HZ && high_hz > low_hz && high_hz < rate_hz / 2.0) {
            return Err(BandError::Edges { low_hz, high_hz, rate_hz });
        }
        let filter = BandPass::butterworth(low_hz, high_hz, rate_hz);
        Ok(Self { filter, mirror: (MIRROR_PERIODS * rate_hz / low_hz).ceil() as usize, rate_hz })
    }

    /// Sampling rate of the signals.
    pub fn rate_hz(&self) -> f64 {
        self.rate_hz
    }

    /// The filtered signal, in its unit: forward and backward over the signal and its mirrored ends, which start in the
    /// steady state. NaN everywhere if a sample is not finite.
    pub fn filter(&self, signal: Samples<'_>) -> Vec<f64> {
        self.run(signal.len(), |index| [signal.at(index)], &mut Vec::new()).as_flattened().to_vec()
    }

    /// Length of the work on a signal of `len` samples.
    pub(crate) fn work_len(&self, len: usize) -> usize {
        len + 2 * self.mirror.min(len.saturating_sub(1))
    }

    /// `filter` of `N` signals side by side, `frame` of the `len` samples; the result is part of `work`, whose memory is
    /// reused.
    #[inline(always)]
    pub(crate) fn run<'a, const N: usize>(
        &self,
        len: usize,
        frame: impl Fn(usize) -> [f64; N],
        work: &'a mut Vec<[f64; N]>,
    ) -> &'a [[f64; N]] {
        let mirror = self.mirror.min(len.saturating_sub(1));
        work.clear();
        work.reserve(self.work_len(len));
        work.extend((1..=mirror).rev().map(&frame));
        work.extend((0..len).map(&frame));
        work.extend((1..=mirror).map(|distance| frame(len - 1 - distance)));
        for _ in 0..2 {
            self.pass(work);
            work.reverse();
        }
        let gain = self.filter.gain * self.filter.gain;
        let filtered = &mut work[mirror..mirror + len];
        filtered.as_flattened_mut().iter_mut().for_each(|y| *y *= gain);
        for lane in 0..N {
            if !filtered.iter().all(|frame| frame[lane].is_finite()) {
                filtered.iter_mut().for_each(|frame| frame[lane] = f64::NAN);
            }
        }
        filtered
    }

    /// Filter in place, without the gain: direct form I, from the steady state of the first samples.
    #[inline(always)]
    fn pass<const N: usize>(&self, signals: &mut [[f64; N]]) {
        let first = signals.first().copied().unwrap_or([0.0; N]);
        // Latest and previous values of the input and of each section's output
        let mut last = [[first; 2], [[0.0; N]; 2], [[0.0; N]; 2]];
        for samples in signals {
            let mut x = *samples;
            for (number, section) in self.filter.sections.iter().enumerate() {
                let ([y1, y2], before) = (last[number + 1], last[number][1]);
                let y = std::array::from_fn(|n| x[n] - before[n] - section.a2 * y2[n] - section.a1 * y1[n]);
                last[number] = [x, last[number][0]];
                x = y;
            }
            last[2] = [x, last[2][0]];
            *samples = x;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use approx::assert_abs_diff_eq;

    #[test]
    fn a_sine_keeps_its_phase_inside_the_band_and_is_gone_outside() {
        for rate_hz in [32.0, 64.0, 100.0, 419.73, 2048.0] {
            let band = Band::new((4.0, 11.0), rate_hz).expect("a band");
            let sine = |hz: f64| -> Vec<f64> {
                (0..(20.0 * rate_hz) as usize)
                    .map(|i| 1.0 + (std::f64::consts::TAU * hz * i as f64 / rate_hz).sin())
                    .collect()
            };
            let middle = (8.0 * rate_hz) as usize..(12.0 * rate_hz) as usize;
            let (inside, kept) = (sine(6.5), band.filter(Samples::F64(&sine(6.5))));
            for index in middle.clone() {
                assert_abs_diff_eq!(kept[index], inside[index] - 1.0, epsilon = 0.02);
            }
            assert!(band.filter(Samples::F64(&sine(0.5)))[middle].iter().all(|y| y.abs() < 1e-3), "{rate_hz} Hz");
        }
    }

    #[test]
    fn bands_and_rates_that_do_not_fit_are_errors() {
        assert_eq!(Band::new((4.0, 11.0), 19.0).err(), Some(BandError::Rate(19.0)));
        for band_hz in [(18.0, 32.0), (11.0, 4.0), (0.0, 4.0), (f64::NAN, 4.0), (1.0, f64::INFINITY)] {
            assert!(matches!(Band::new(band_hz, 64.0), Err(BandError::Edges { .. })), "{band_hz:?}");
        }
    }

    #[test]
    fn short_and_broken_signals_pass_through() {
        let band = Band::new((4.0, 11.0), 64.0).expect("a band");
        assert!(band.filter(Samples::F64(&[])).is_empty());
        assert_eq!(band.filter(Samples::F64(&[1.0])), [0.0]);
        assert!(band.filter(Samples::F64(&[0.0, f64::INFINITY, 0.0])).iter().all(|y| y.is_nan()));
    }
}
