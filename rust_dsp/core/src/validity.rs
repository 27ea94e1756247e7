//! Validity: which raw samples can be used, and what the status bits of a row say.

/// Status bits of one row of the output; 0 is good, otherwise the row is all zeros.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Status(pub u8);

impl Status {
    /// Good.
    pub const GOOD: Self = Self(0);
    /// Reserved for a recording that ends early; a missing tail is judged by the gap rules instead.
    pub const SHORT: Self = Self(1);
    /// An invalid run is longer than 0.25 s.
    pub const GAP: Self = Self(2);
    /// More than 2 % of the samples are invalid.
    pub const MISSING: Self = Self(4);
    /// The band-passed signal is zero but for rounding.
    pub const FLAT: Self = Self(8);

    /// Both.
    pub(crate) fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Full scale of a sensor, exclusive: a sample is valid if it is finite and strictly inside.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Limits {
    pub(crate) low: f64,
    pub(crate) high: f64,
}

/// An integer sample type and its range in double precision.
pub(crate) trait Integer: Copy + Ord {
    const RANGE: (f64, f64);
    /// Conversion of a value inside `RANGE`.
    fn from_double(value: f64) -> Self;
}

impl Integer for i16 {
    const RANGE: (f64, f64) = (Self::MIN as f64, Self::MAX as f64);
    fn from_double(value: f64) -> Self {
        value as Self
    }
}

impl Integer for i32 {
    const RANGE: (f64, f64) = (Self::MIN as f64, Self::MAX as f64);
    fn from_double(value: f64) -> Self {
        value as Self
    }
}

impl Limits {
    /// The rule itself. Infinities and NaN fail one of the comparisons whatever the limits are.
    pub(crate) fn inside(self, sample: f64) -> bool {
        sample > self.low && sample < self.high
    }

    // The same rule over a block, compared in the samples' own type, which is 2 to 4 times as many per register.

    #[inline(always)]
    pub(crate) fn all_inside_integers<T: Integer>(self, samples: &[T]) -> bool {
        let (lowest, highest) = (self.low.floor() + 1.0, self.high.ceil() - 1.0);
        if lowest > T::RANGE.1 || highest < T::RANGE.0 {
            return samples.is_empty();
        }
        let (lowest, highest) = (T::from_double(lowest.max(T::RANGE.0)), T::from_double(highest.min(T::RANGE.1)));
        samples.iter().fold(true, |valid, &sample| valid & (sample >= lowest) & (sample <= highest))
    }

    #[inline(always)]
    pub(crate) fn all_inside_singles(self, samples: &[f32]) -> bool {
        let (mut low, mut high) = (self.low as f32, self.high as f32);
        if f64::from(low) > self.low {
            low = low.next_down();
        }
        if f64::from(high) < self.high {
            high = high.next_up();
        }
        samples.iter().fold(true, |valid, &sample| valid & (sample > low) & (sample < high))
    }

    #[inline(always)]
    pub(crate) fn all_inside_doubles(self, samples: &[f64]) -> bool {
        samples.iter().fold(true, |valid, &sample| valid & self.inside(sample))
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
        fn blocks_obey_the_rule(low in limit(), high in limit(), counts: Vec<i16>, wide: Vec<i32>, singles: Vec<f32>) {
            let limits = Limits { low, high };
            prop_assert_eq!(limits.all_inside_integers(&counts), counts.iter().all(|&x| limits.inside(x.into())));
            prop_assert_eq!(limits.all_inside_integers(&wide), wide.iter().all(|&x| limits.inside(x.into())));
            prop_assert_eq!(limits.all_inside_singles(&singles), singles.iter().all(|&x| limits.inside(x.into())));
        }
    }

    #[test]
    fn nan_and_infinities_are_never_valid() {
        let limits = Limits { low: f64::NEG_INFINITY, high: f64::INFINITY };
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert!(!limits.all_inside_singles(&[0.0, bad, 0.0]));
            assert!(!limits.all_inside_doubles(&[0.0, bad.into(), 0.0]));
        }
    }
}
