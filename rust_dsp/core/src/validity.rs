//! Validity: which raw samples can be used, and the status bits of a row.

use crate::samples::Samples;

/// Status bits of one output row; 0 is good, otherwise the row is all zeros.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Status(pub u8);

impl Status {
    /// Good.
    pub const GOOD: Self = Self(0);
    /// Reserved for a recording that ends early; the gap rules handle a missing end instead.
    pub const SHORT: Self = Self(1);
    /// An invalid run is longer than 0.25 s.
    pub const GAP: Self = Self(2);
    /// More than 2 % of the samples are invalid.
    pub const MISSING: Self = Self(4);
    /// The band-passed signal is zero up to rounding.
    pub const FLAT: Self = Self(8);

    /// The bits of both.
    pub(crate) fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Full scale of a sensor, exclusive: a sample is valid if it is finite and strictly inside.
///
/// Stored as the smallest and the largest valid value of every sample type, so that samples are compared without
/// conversion. NaN fails both comparisons, infinities one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Limits {
    i16: [i16; 2],
    i32: [i32; 2],
    f32: [f32; 2],
    f64: [f64; 2],
}

/// A type of raw samples.
pub(crate) trait Sample: Copy + PartialOrd + Into<f64> {
    /// Smallest and largest valid value.
    fn valid(limits: &Limits) -> [Self; 2];

    /// The slice inside; empty if the samples have another type.
    fn slice(samples: Samples<'_>) -> &[Self];

    /// Whether all samples are valid.
    #[inline(always)]
    fn all_inside(limits: &Limits, samples: &[Self]) -> bool {
        let [smallest, largest] = Self::valid(limits);
        // No early exit, so that the compiler vectorises the loop.
        samples.iter().fold(true, |valid, &sample| valid & (sample >= smallest) & (sample <= largest))
    }
}

macro_rules! samples {
    ($($sample:ident $variant:ident)*) => {$(
        impl Sample for $sample {
            #[inline(always)]
            fn slice(samples: Samples<'_>) -> &[Self] {
                if let Samples::$variant(slice) = samples { slice } else { &[] }
            }

            #[inline(always)]
            fn valid(limits: &Limits) -> [Self; 2] {
                limits.$sample
            }
        }
    )*};
}
samples!(i16 I16 i32 I32 f32 F32 f64 F64);

impl Limits {
    pub(crate) fn new(low: f64, high: f64) -> Self {
        /// The integers strictly inside; an empty range, largest below smallest, if there are none.
        macro_rules! integers {
            ($sample:ident) => {{
                let (smallest, largest) = (low.floor() + 1.0, high.ceil() - 1.0);
                let (min, max) = (f64::from($sample::MIN), f64::from($sample::MAX));
                if smallest > max || largest < min {
                    [$sample::MAX, $sample::MIN]
                } else {
                    [smallest.max(min) as $sample, largest.min(max) as $sample]
                }
            }};
        }
        let (single_low, single_high) = (low as f32, high as f32);
        Self {
            i16: integers!(i16),
            i32: integers!(i32),
            f32: [
                if f64::from(single_low) > low { single_low } else { single_low.next_up() },
                if f64::from(single_high) < high { single_high } else { single_high.next_down() },
            ],
            f64: [low.next_up(), high.next_down()],
        }
    }

    /// Whether one sample is valid.
    pub(crate) fn inside(&self, sample: f64) -> bool {
        sample >= self.f64[0] && sample <= self.f64[1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn limit() -> impl Strategy<Value = f64> {
        prop_oneof![
            Just(f64::NEG_INFINITY),
            Just(f64::INFINITY),
            Just(1e300),
            -70_000.0..70_000.0,
            (-70_000..70_000).prop_map(f64::from),
            (-3e9..3e9),
        ]
    }

    proptest! {
        #[test]
        fn every_type_obeys_the_rule(low in limit(), high in limit(), counts: i16, wide: i32, single: f32, double: f64) {
            let limits = Limits::new(low, high);
            let rule = |sample: f64| sample.is_finite() && sample > low && sample < high;
            for near in [counts, low as i16, high as i16] {
                prop_assert_eq!(i16::all_inside(&limits, &[near]), rule(near.into()));
            }
            for near in [wide, low as i32, high as i32] {
                prop_assert_eq!(i32::all_inside(&limits, &[near]), rule(near.into()));
            }
            for near in [single, low as f32, high as f32] {
                prop_assert_eq!(f32::all_inside(&limits, &[near]), rule(near.into()));
            }
            for near in [double, low, high] {
                prop_assert_eq!(f64::all_inside(&limits, &[near]), rule(near));
                prop_assert_eq!(limits.inside(near), rule(near));
            }
        }
    }

    #[test]
    fn nan_and_infinities_are_never_valid() {
        let limits = Limits::new(f64::NEG_INFINITY, f64::INFINITY);
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert!(!f32::all_inside(&limits, &[0.0, bad, 0.0]));
            assert!(!f64::all_inside(&limits, &[0.0, bad.into(), 0.0]));
        }
        assert!(f64::all_inside(&limits, &[f64::MIN, f64::MAX]));
    }
}
