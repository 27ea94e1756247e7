//! Raw samples of one channel, read in place.

use crate::lanes::{Lanes, TILE};
use crate::validity::{Limits, Sample};

/// Samples ahead of the current ones that are fetched into the cache.
pub(crate) const AHEAD: usize = 512;

/// One channel of one recording as it lies in memory.
#[derive(Clone, Copy, Debug)]
pub enum Samples<'a> {
    /// 16-bit counts.
    I16(&'a [i16]),
    /// 32-bit counts.
    I32(&'a [i32]),
    /// Single precision.
    F32(&'a [f32]),
    /// Double precision.
    F64(&'a [f64]),
}

/// Evaluate an expression for the slice inside, whatever its type.
macro_rules! with_slice {
    ($samples:expr, $slice:ident => $value:expr) => {
        match $samples {
            Samples::I16($slice) => $value,
            Samples::I32($slice) => $value,
            Samples::F32($slice) => $value,
            Samples::F64($slice) => $value,
        }
    };
}

pub(crate) use with_slice;

/// What is subtracted from a stretch of samples: `before + weight * changes`, both of its length.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mix<'a> {
    pub(crate) before: &'a [f64],
    pub(crate) changes: &'a [f64],
    pub(crate) weight: f64,
}

impl<'a> Samples<'a> {
    /// Number of samples.
    pub fn len(self) -> usize {
        with_slice!(self, slice => slice.len())
    }

    /// Whether there is no sample.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// The samples from `start` on, at most `len` of them.
    pub fn window(self, start: usize, len: usize) -> Self {
        let from = start.min(self.len());
        let to = start.saturating_add(len).min(self.len());
        match self {
            Self::I16(slice) => Self::I16(&slice[from..to]),
            Self::I32(slice) => Self::I32(&slice[from..to]),
            Self::F32(slice) => Self::F32(&slice[from..to]),
            Self::F64(slice) => Self::F64(&slice[from..to]),
        }
    }

    /// Sample `index` in double precision.
    pub(crate) fn at(self, index: usize) -> f64 {
        #[expect(clippy::useless_conversion, reason = "one of the four types is f64 already")]
        {
            with_slice!(self, slice => slice[index].into())
        }
    }

    /// Convert the samples from `start` on into `out`, less `mix`; zeros past the end.
    ///
    /// False if one is missing or outside of `limits`; without limits always true.
    #[inline(always)]
    pub(crate) fn bring<L: Lanes>(
        self,
        lanes: L,
        start: usize,
        limits: Option<&Limits>,
        mix: Option<Mix<'_>>,
        out: &mut [f64],
    ) -> bool {
        with_slice!(self, slice => bring(lanes, slice, start, limits, mix, out))
    }

    /// Hint that the tile at `start` will be read soon.
    #[inline(always)]
    pub(crate) fn prefetch<L: Lanes>(self, lanes: L, start: usize) {
        with_slice!(self, slice => lanes.prefetch(slice.as_ptr().wrapping_add(start), TILE));
    }
}

#[inline(always)]
fn bring<L: Lanes, T: Sample>(
    lanes: L,
    samples: &[T],
    start: usize,
    limits: Option<&Limits>,
    mix: Option<Mix<'_>>,
    out: &mut [f64],
) -> bool {
    let from = start.min(samples.len());
    let there = out.len().min(samples.len() - from);
    let (samples, complete) = (&samples[from..from + there], there == out.len());
    let (out, past) = out.split_at_mut(there);
    past.fill(0.0);
    // The same code twice: a tile of constant length becomes straight code.
    let valid = match (samples.as_array::<TILE>(), out.as_mut_array::<TILE>()) {
        (Some(samples), Some(out)) => bring_all(lanes, samples, limits, mix, out),
        _ => bring_all(lanes, samples, limits, mix, out),
    };
    valid && (complete || limits.is_none())
}

/// Convert samples into as many places in `out`, less `mix`. False if one is outside of `limits`.
#[inline(always)]
pub(crate) fn bring_all<L: Lanes, T: Sample>(
    lanes: L,
    samples: &[T],
    limits: Option<&Limits>,
    mix: Option<Mix<'_>>,
    out: &mut [f64],
) -> bool {
    let valid = limits.is_none_or(|limits| T::all_inside(limits, samples));
    match mix {
        None => {
            for (value, &sample) in out.iter_mut().zip(samples) {
                *value = sample.into();
            }
        }
        Some(Mix { before, changes, weight }) => {
            let (before, changes) = (&before[..out.len()], &changes[..out.len()]);
            for (((value, &sample), &before), &change) in out.iter_mut().zip(samples).zip(before).zip(changes) {
                let sample: f64 = sample.into();
                *value = lanes.sub_product_scalar(sample - before, weight, change);
            }
        }
    }
    valid
}
