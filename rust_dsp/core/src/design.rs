//! Filter design, once per plan: resampling ratio, Kaiser low-pass, Butterworth band-pass.

use crate::OUTPUT_RATE_HZ;

/// Band of PPG, in Hz.
pub const PPG_BAND_HZ: (f64, f64) = (0.5, 12.0);
/// Band of acceleration, in Hz.
pub const ACCEL_BAND_HZ: (f64, f64) = (1.0, 20.0);
/// Half length of the low-pass prototype, in units of `max(up, down)`.
pub const FIR_HALF: usize = 10;
/// Shape of its Kaiser window, of 80 dB of stop-band attenuation: 0.1102 · (80 − 8.7).
pub const KAISER_BETA: f64 = 7.857;
/// Tried in turn: small fractions have few filters, and with the last one every rate is within 1e-4 of a fraction.
const MAX_DENOMINATORS: [i128; 6] = [512, 1024, 2048, 4096, 8192, 16_384];

/// A positive fraction in lowest terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Fraction {
    numerator: i128,
    denominator: i128,
}

impl Fraction {
    fn new(numerator: i128, denominator: i128) -> Self {
        let (mut a, mut b) = (numerator, denominator);
        while b != 0 {
            (a, b) = (b, a % b);
        }
        Self { numerator: numerator / a, denominator: denominator / a }
    }

    /// The exact value of a float between 2^-50 and 2^60.
    fn exact(value: f64) -> Self {
        let mut denominator = 1_i128;
        let mut scaled = value;
        while scaled.fract() != 0.0 {
            scaled *= 2.0;
            denominator *= 2;
        }
        Self::new(scaled as i128, denominator)
    }

    /// The closest fraction whose denominator is at most `max` (continued fractions).
    fn limit_denominator(self, max: i128) -> Self {
        if self.denominator <= max {
            return self;
        }
        let (mut p0, mut q0, mut p1, mut q1) = (0, 1, 1, 0);
        let (mut n, mut d) = (self.numerator, self.denominator);
        loop {
            let a = n / d;
            let q2 = q0 + a * q1;
            if q2 > max {
                break;
            }
            (p0, q0, p1, q1) = (p1, q1, p0 + a * p1, q2);
            (n, d) = (d, n - a * d);
        }
        let k = (max - q0) / q1;
        if 2 * d * (q0 + k * q1) <= self.denominator { Self::new(p1, q1) } else { Self::new(p0 + k * p1, q0 + k * q1) }
    }
}

/// `64 / rate_hz` as `(up, down)` to within 1e-4, with the smallest limit of the denominator that allows it; `None`
/// outside 20 to 2048 Hz.
pub(crate) fn resampling_ratio(rate_hz: f64) -> Option<(usize, usize)> {
    if !(20.0..=2048.0).contains(&rate_hz) {
        return None;
    }
    let rate = Fraction::exact(rate_hz).limit_denominator(100_000);
    let exact = Fraction::new(OUTPUT_RATE_HZ as i128 * rate.denominator, rate.numerator);
    MAX_DENOMINATORS.iter().map(|&max| exact.limit_denominator(max)).find_map(|ratio| {
        let error = (ratio.numerator * exact.denominator - exact.numerator * ratio.denominator).abs();
        (error * 10_000 <= exact.numerator * ratio.denominator)
            .then_some((ratio.numerator as usize, ratio.denominator as usize))
    })
}

/// Linear-phase low-pass at `up` times the input rate: windowed sinc, cut-off 1/max(up, down), gain `up` at DC.
///
/// `20 · max(up, down) + 1` taps. Taps at the zeros of the sinc are exactly zero.
pub(crate) fn low_pass(up: usize, down: usize) -> Vec<f64> {
    let factor = up.max(down);
    let half = (FIR_HALF * factor) as isize;
    let bessel_at_beta = bessel_i0(KAISER_BETA);
    let mut taps: Vec<f64> = (-half..=half)
        .map(|offset| {
            let window = {
                let x = offset as f64 / half as f64;
                bessel_i0(KAISER_BETA * (1.0 - x * x).max(0.0).sqrt()) / bessel_at_beta
            };
            let sinc = if offset == 0 {
                1.0
            } else if offset % factor as isize == 0 {
                0.0
            } else {
                let x = std::f64::consts::PI * offset as f64 / factor as f64;
                x.sin() / x
            };
            sinc * window
        })
        .collect();
    let gain = up as f64 / taps.iter().sum::<f64>();
    taps.iter_mut().for_each(|tap| *tap *= gain);
    taps
}

/// Modified Bessel function of the first kind, order 0, by its power series (all terms positive).
fn bessel_i0(x: f64) -> f64 {
    let quarter = x * x / 4.0;
    let (mut sum, mut term, mut k) = (1.0, 1.0, 1.0);
    while term > sum * 1e-17 {
        term *= quarter / (k * k);
        sum += term;
        k += 1.0;
    }
    sum
}

/// Butterworth band-pass of four poles as two sections `(1 − z⁻²) / (1 + a1 z⁻¹ + a2 z⁻²)` and a gain.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BandPass {
    pub(crate) sections: [Section; 2],
    pub(crate) gain: f64,
}

/// Denominator of one section.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Section {
    pub(crate) a1: f64,
    pub(crate) a2: f64,
}

impl BandPass {
    /// Of PPG, at the rate of outputs.
    pub(crate) fn ppg() -> Self {
        Self::butterworth(PPG_BAND_HZ.0, PPG_BAND_HZ.1, OUTPUT_RATE_HZ as f64)
    }

    /// Of acceleration, at the rate of outputs.
    pub(crate) fn accel() -> Self {
        Self::butterworth(ACCEL_BAND_HZ.0, ACCEL_BAND_HZ.1, OUTPUT_RATE_HZ as f64)
    }

    /// Order 2 per edge: bilinear transform of the analogue prototype, edges pre-warped; `low_hz` and `high_hz` are below
    /// half of `rate_hz`.
    pub(crate) fn butterworth(low_hz: f64, high_hz: f64, rate_hz: f64) -> Self {
        // The bilinear transform s = 4 (z − 1) / (z + 1) of a system sampled at 2 per unit of time.
        const BILINEAR: f64 = 4.0;
        let warp = |hz: f64| BILINEAR * (std::f64::consts::PI * hz / rate_hz).tan();
        let (low, high) = (warp(low_hz), warp(high_hz));
        let width = high - low;
        // One pole of the low-pass prototype; its conjugate yields the conjugates of the two band-pass poles.
        let half = Complex::new(-0.5_f64.sqrt(), 0.5_f64.sqrt()).scaled(width / 2.0);
        let root = half.times(half).minus(Complex::new(low * high, 0.0)).sqrt();
        let poles = [half.plus(root), half.minus(root)];
        let mut gain = width * width * BILINEAR * BILINEAR;
        let sections = poles.map(|pole| {
            let denominator = Complex::new(BILINEAR, 0.0).minus(pole);
            gain /= denominator.norm_squared();
            let z = Complex::new(BILINEAR, 0.0).plus(pole).over(denominator);
            Section { a1: -2.0 * z.re, a2: z.norm_squared() }
        });
        Self { sections, gain }
    }
}

#[derive(Clone, Copy)]
struct Complex {
    re: f64,
    im: f64,
}

impl Complex {
    fn new(re: f64, im: f64) -> Self {
        Self { re, im }
    }

    fn plus(self, other: Self) -> Self {
        Self::new(self.re + other.re, self.im + other.im)
    }

    fn minus(self, other: Self) -> Self {
        Self::new(self.re - other.re, self.im - other.im)
    }

    fn times(self, other: Self) -> Self {
        Self::new(self.re * other.re - self.im * other.im, self.re * other.im + self.im * other.re)
    }

    fn over(self, other: Self) -> Self {
        self.times(Self::new(other.re, -other.im)).scaled(1.0 / other.norm_squared())
    }

    fn scaled(self, by: f64) -> Self {
        Self::new(self.re * by, self.im * by)
    }

    fn norm_squared(self) -> f64 {
        self.re * self.re + self.im * self.im
    }

    /// The root with a non-negative real part.
    fn sqrt(self) -> Self {
        let norm = self.norm_squared().sqrt();
        let re = ((norm + self.re) / 2.0).max(0.0).sqrt();
        let im = ((norm - self.re) / 2.0).max(0.0).sqrt();
        Self::new(re, im.copysign(self.im))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use approx::assert_relative_eq;

    #[test]
    fn ratios_of_nominal_and_measured_rates() {
        for (rate_hz, ratio) in [
            (64.0, (1, 1)),
            (256.0, (1, 4)),
            (125.0, (64, 125)),
            (50.0, (32, 25)),
            (55.0, (64, 55)),
            (51.2, (5, 4)),
            (54.75, (256, 219)),
            (20.0, (16, 5)),
            (2048.0, (1, 32)),
        ] {
            assert_eq!(resampling_ratio(rate_hz), Some(ratio), "{rate_hz} Hz");
        }
        let (up, down) = resampling_ratio(51.705).expect("supported");
        assert_relative_eq!(up as f64 / down as f64, 64.0 / 51.705, max_relative = 1e-4);
        for bad in [19.999, 2048.1, f64::NAN, f64::INFINITY, -64.0] {
            assert_eq!(resampling_ratio(bad), None);
        }
    }

    #[test]
    fn low_pass_has_its_gain_at_dc_and_zeros_of_the_sinc() {
        let taps = low_pass(1, 4);
        assert_eq!(taps.len(), 81);
        assert_relative_eq!(taps.iter().sum::<f64>(), 1.0, epsilon = 1e-14);
        assert_eq!(taps[36], 0.0);
        assert!(taps[40] > 0.2);
    }

    #[test]
    fn band_pass_has_unit_gain_inside_and_half_power_at_its_edges() {
        for (filter, low_hz, high_hz) in [(BandPass::ppg(), 0.5, 12.0), (BandPass::accel(), 1.0, 20.0)] {
            let magnitude = |hz: f64| {
                let w = 2.0 * std::f64::consts::PI * hz / OUTPUT_RATE_HZ as f64;
                let delay = |k: f64| Complex::new((k * w).cos(), -(k * w).sin());
                filter.sections.iter().fold(filter.gain, |product, section| {
                    let zeros = Complex::new(1.0, 0.0).minus(delay(2.0));
                    let poles =
                        Complex::new(1.0, 0.0).plus(delay(1.0).scaled(section.a1)).plus(delay(2.0).scaled(section.a2));
                    product * (zeros.norm_squared() / poles.norm_squared()).sqrt()
                })
            };
            assert_relative_eq!(magnitude(low_hz), 0.5_f64.sqrt(), epsilon = 1e-12);
            assert_relative_eq!(magnitude(high_hz), 0.5_f64.sqrt(), epsilon = 1e-12);
            assert!(magnitude(0.0) < 1e-12);
            assert!(magnitude(3.0) > 0.99);
        }
    }
}
