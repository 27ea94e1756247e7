//! Z-score: zero mean and unit variance over the window, rounded to the type of the output.

use half::f16;
use half::slice::HalfFloatSliceExt;

use crate::OUTPUT_SAMPLES;
use crate::bandpass::Moments;
use crate::lanes::{Frame, LANES, Lanes, TILE, Tile};

/// A row is flat if its AC level is at most this fraction of its largest magnitude before detrending.
pub const FLAT: f64 = 1e-6;

/// Largest standard deviation, and largest inverse of one, whose square is far from the limits of double precision.
const MAX_STD: f64 = 1e150;

/// Type of the output samples: `f32`, or `f16` (rounded from `f32`).
pub trait OutputSample: Copy + Default + Send + Sync + private::Sealed {
    /// Round part of a row; both slices have the same length.
    fn round(from: &[f32], to: &mut [Self]);
}

mod private {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for half::f16 {}
}

impl OutputSample for f32 {
    #[inline(always)]
    fn round(from: &[f32], to: &mut [Self]) {
        to.copy_from_slice(from);
    }
}

impl OutputSample for f16 {
    #[inline(always)]
    fn round(from: &[f32], to: &mut [Self]) {
        to.convert_from_f32_slice(from);
    }
}

/// Mean and inverse standard deviation of each lane, in units of the filtered frames, and the AC level, in units of the
/// samples.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scale {
    mean: Frame,
    inverse: Frame,
    pub(crate) ac_level: [f64; LANES],
}

impl Scale {
    pub(crate) fn new(moments: &Moments, gain: &[f64; LANES]) -> Self {
        let mut scale = Self { mean: Frame::default(), inverse: Frame::default(), ac_level: [0.0; LANES] };
        for (lane, gain) in gain.iter().enumerate() {
            let mean = moments.sum.0[lane] / OUTPUT_SAMPLES as f64;
            let variance = (moments.squares.0[lane] / OUTPUT_SAMPLES as f64 - mean * mean).max(0.0);
            scale.mean.0[lane] = mean;
            scale.inverse.0[lane] = 1.0 / variance.sqrt();
            scale.ac_level[lane] = variance.sqrt() * gain;
        }
        scale
    }

    /// Whether a lane is flat; also true where squares underflow or overflow.
    pub(crate) fn is_flat(&self, lane: usize, peak: f64) -> bool {
        !(self.ac_level[lane] > FLAT * peak && self.inverse.0[lane] > 1.0 / MAX_STD && self.inverse.0[lane] < MAX_STD)
    }

    /// Write the z-scored rows; zeros where the lane is not `good`.
    #[inline(always)]
    pub(crate) fn write<L: Lanes, T: OutputSample>(
        &self,
        lanes: L,
        signal: &[Frame],
        tile: &mut Tile<f32>,
        good: [bool; LANES],
        rows: &mut [&mut [T]],
    ) {
        for (number, frames) in signal[..OUTPUT_SAMPLES].as_chunks::<TILE>().0.iter().enumerate() {
            lanes.transpose_out(frames, &self.mean, &self.inverse, tile);
            let span = number * TILE..(number + 1) * TILE;
            for (lane, row) in rows.iter_mut().enumerate() {
                if good[lane] {
                    T::round(&tile.0[lane], &mut row[span.clone()]);
                } else {
                    row[span.clone()].fill(T::default());
                }
            }
        }
    }
}
