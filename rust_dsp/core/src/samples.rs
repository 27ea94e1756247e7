//! Raw samples of one channel, read in place.

use crate::lanes::{Lanes, TILE};

/// Distance, in samples, from the tile that is processed to the one that is prefetched.
pub(crate) const PREFETCH_DISTANCE: usize = 512;

/// The samples of one channel, borrowed in the type that they are stored in.
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

/// Evaluate an expression with the slice inside, generic over its type.
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

impl<'a> Samples<'a> {
    /// Number of samples.
    pub fn len(self) -> usize {
        with_slice!(self, slice => slice.len())
    }

    /// Whether there are no samples.
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

    /// Hint that the tile at `start` will be read soon.
    #[inline(always)]
    pub(crate) fn prefetch<L: Lanes>(self, lanes: L, start: usize) {
        with_slice!(self, slice => lanes.prefetch(slice.as_ptr().wrapping_add(start), TILE));
    }
}
