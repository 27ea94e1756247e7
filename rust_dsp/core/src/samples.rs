//! Raw samples of one channel, read in place.

use crate::validity::Limits;

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
        with_slice!(self, slice => slice[index].into())
    }

    /// Fill `out` with the samples from `start` on; zeros past the end.
    #[inline(always)]
    pub(crate) fn convert(self, start: usize, out: &mut [f64]) {
        with_slice!(self, slice => convert(slice, start, out));
    }

    /// Whether all samples of `start..start + len` are there and valid.
    #[inline(always)]
    pub(crate) fn all_valid(self, start: usize, len: usize, limits: Limits) -> bool {
        if start + len > self.len() {
            return false;
        }
        match self {
            Self::I16(slice) => limits.all_inside_integers(&slice[start..start + len]),
            Self::I32(slice) => limits.all_inside_integers(&slice[start..start + len]),
            Self::F32(slice) => limits.all_inside_singles(&slice[start..start + len]),
            Self::F64(slice) => limits.all_inside_doubles(&slice[start..start + len]),
        }
    }
}

#[inline(always)]
fn convert<T: Copy + Into<f64>>(samples: &[T], start: usize, out: &mut [f64]) {
    let from = start.min(samples.len());
    let there = out.len().min(samples.len() - from);
    for (value, &sample) in out[..there].iter_mut().zip(&samples[from..from + there]) {
        *value = sample.into();
    }
    out[there..].fill(0.0);
}
