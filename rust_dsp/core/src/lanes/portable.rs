//! Lanes without intrinsics: the compiler vectorises arrays (SSE2 on x86-64, NEON on AArch64).

use std::array::from_fn;

use super::{Frame, LANES, Lanes, TILE, Tile};

#[derive(Clone, Copy, Debug)]
pub(crate) struct Portable;

const WIDTH: usize = 4;

/// `c + a * b`, fused where the target always has the instruction.
#[inline(always)]
fn fused(a: f64, b: f64, c: f64) -> f64 {
    if cfg!(any(target_arch = "aarch64", target_feature = "fma")) { a.mul_add(b, c) } else { c + a * b }
}

impl Lanes for Portable {
    type V = [f64; WIDTH];
    const WIDTH: usize = WIDTH;

    #[inline(always)]
    fn splat(self, value: f64) -> Self::V {
        [value; WIDTH]
    }

    #[inline(always)]
    fn load(self, frame: &Frame, column: usize) -> Self::V {
        from_fn(|lane| frame.0[column * WIDTH + lane])
    }

    #[inline(always)]
    fn read(self, values: &[f64; LANES], column: usize) -> Self::V {
        from_fn(|lane| values[column * WIDTH + lane])
    }

    #[inline(always)]
    fn store(self, frame: &mut Frame, column: usize, value: Self::V) {
        frame.0[column * WIDTH..(column + 1) * WIDTH].copy_from_slice(&value);
    }

    #[inline(always)]
    fn add(self, a: Self::V, b: Self::V) -> Self::V {
        from_fn(|lane| a[lane] + b[lane])
    }

    #[inline(always)]
    fn sub(self, a: Self::V, b: Self::V) -> Self::V {
        from_fn(|lane| a[lane] - b[lane])
    }

    #[inline(always)]
    fn mul(self, a: Self::V, b: Self::V) -> Self::V {
        from_fn(|lane| a[lane] * b[lane])
    }

    #[inline(always)]
    fn add_product(self, c: Self::V, a: Self::V, b: Self::V) -> Self::V {
        from_fn(|lane| fused(a[lane], b[lane], c[lane]))
    }

    #[inline(always)]
    fn sub_product(self, c: Self::V, a: Self::V, b: Self::V) -> Self::V {
        from_fn(|lane| fused(-a[lane], b[lane], c[lane]))
    }

    #[inline(always)]
    fn max_magnitude(self, a: Self::V, b: Self::V) -> Self::V {
        from_fn(|lane| if b[lane].abs() > a[lane] { b[lane].abs() } else { a[lane] })
    }

    #[inline(always)]
    fn greater(self, a: &[f64; LANES], b: &[f64; LANES]) -> u8 {
        (0..LANES).fold(0, |bits, lane| bits | u8::from(a[lane] > b[lane]) << lane)
    }

    #[inline(always)]
    fn sub_product_scalar(self, c: f64, a: f64, b: f64) -> f64 {
        fused(-a, b, c)
    }

    #[inline(always)]
    fn prefetch<T>(self, _values: *const T, _count: usize) {}

    #[inline(always)]
    fn transpose_in(self, rows: &Tile<f64>, column: usize, four: usize) -> [Self::V; 4] {
        from_fn(|k| from_fn(|lane| rows.0[column * WIDTH + lane][4 * four + k]))
    }

    #[inline(always)]
    fn transpose_out(self, frames: &[Frame; TILE], mean: &Frame, factor: &Frame, rows: &mut Tile<f32>) {
        for (lane, row) in rows.0.iter_mut().enumerate() {
            for (sample, frame) in row.iter_mut().zip(frames) {
                *sample = ((frame.0[lane] - mean.0[lane]) * factor.0[lane]) as f32;
            }
        }
    }
}
