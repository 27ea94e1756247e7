//! Lanes of AVX2 and FMA: four per register, two registers per frame.

use std::arch::x86_64::*;

use super::{Frame, Kernel, LANES, Lanes, TILE, Tile};

/// Proof that the processor has AVX2 and FMA: only [`Avx2::detect`] creates it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Avx2(());

impl Avx2 {
    pub(super) fn detect() -> Option<Self> {
        (is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")).then_some(Self(()))
    }
}

/// Compile and run a kernel for AVX2.
pub(super) fn run<K: Kernel>(lanes: Avx2, kernel: K) -> K::Output {
    #[target_feature(enable = "avx2,fma")]
    fn inner<K: Kernel>(lanes: Avx2, kernel: K) -> K::Output {
        kernel.run(lanes)
    }
    // SAFETY: `lanes` proves that the processor has the features.
    unsafe { inner(lanes, kernel) }
}

const WIDTH: usize = 4;

impl Avx2 {
    /// Four samples of a row.
    #[inline(always)]
    fn four(self, rows: &Tile<f64>, row: usize, number: usize) -> __m256d {
        let samples: &[f64; WIDTH] = &rows.0[row].as_chunks().0[number];
        // SAFETY: `self` proves that the processor has the instruction, which reads one whole array.
        unsafe { _mm256_loadu_pd(samples.as_ptr()) }
    }

    /// A column of `(frame − mean) * factor` in single precision.
    #[inline(always)]
    fn single(self, frame: &Frame, column: usize, mean: __m256d, factor: __m256d) -> __m128 {
        let scaled = self.mul(self.sub(self.load(frame, column), mean), factor);
        // SAFETY: `self` proves that the processor has the instruction.
        unsafe { _mm256_cvtpd_ps(scaled) }
    }
}

// SAFETY (every block below): `self` proves that the processor has the instructions; loads and stores go through
// references to whole arrays, at offsets that the array's length bounds.
impl Lanes for Avx2 {
    type V = __m256d;
    const WIDTH: usize = WIDTH;

    #[inline(always)]
    fn splat(self, value: f64) -> Self::V {
        // SAFETY: as above.
        unsafe { _mm256_set1_pd(value) }
    }

    #[inline(always)]
    fn load(self, frame: &Frame, column: usize) -> Self::V {
        let lanes: &[f64; WIDTH] = &frame.0.as_chunks().0[column];
        // SAFETY: as above; half of a 64-byte aligned frame is 32-byte aligned.
        unsafe { _mm256_load_pd(lanes.as_ptr()) }
    }

    #[inline(always)]
    fn read(self, values: &[f64; LANES], column: usize) -> Self::V {
        let values: &[f64; WIDTH] = &values.as_chunks().0[column];
        // SAFETY: as above.
        unsafe { _mm256_loadu_pd(values.as_ptr()) }
    }

    #[inline(always)]
    fn store(self, frame: &mut Frame, column: usize, value: Self::V) {
        let lanes: &mut [f64; WIDTH] = &mut frame.0.as_chunks_mut().0[column];
        // SAFETY: as above; half of a 64-byte aligned frame is 32-byte aligned.
        unsafe { _mm256_store_pd(lanes.as_mut_ptr(), value) }
    }

    #[inline(always)]
    fn add(self, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: as above.
        unsafe { _mm256_add_pd(a, b) }
    }

    #[inline(always)]
    fn sub(self, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: as above.
        unsafe { _mm256_sub_pd(a, b) }
    }

    #[inline(always)]
    fn mul(self, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: as above.
        unsafe { _mm256_mul_pd(a, b) }
    }

    #[inline(always)]
    fn add_product(self, c: Self::V, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: as above.
        unsafe { _mm256_fmadd_pd(a, b, c) }
    }

    #[inline(always)]
    fn sub_product(self, c: Self::V, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: as above.
        unsafe { _mm256_fnmadd_pd(a, b, c) }
    }

    #[inline(always)]
    fn max_magnitude(self, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: as above. The instruction returns its second operand where one is NaN.
        unsafe { _mm256_max_pd(_mm256_andnot_pd(_mm256_set1_pd(-0.0), b), a) }
    }

    #[inline(always)]
    fn greater(self, a: &[f64; LANES], b: &[f64; LANES]) -> u8 {
        let half = |a: &[f64; WIDTH], b: &[f64; WIDTH]| {
            // SAFETY: as above.
            unsafe {
                let greater = _mm256_cmp_pd::<_CMP_GT_OQ>(_mm256_loadu_pd(a.as_ptr()), _mm256_loadu_pd(b.as_ptr()));
                _mm256_movemask_pd(greater) as u8
            }
        };
        let (a, b) = (a.as_chunks().0, b.as_chunks().0);
        half(&a[0], &b[0]) | half(&a[1], &b[1]) << WIDTH
    }

    #[inline(always)]
    fn sub_product_scalar(self, c: f64, a: f64, b: f64) -> f64 {
        (-a).mul_add(b, c)
    }

    #[inline(always)]
    fn prefetch<T>(self, values: *const T, count: usize) {
        for line in (0..count).step_by(64 / size_of::<T>()) {
            // SAFETY: a hint that touches no memory, whatever the address; the processor has SSE.
            unsafe { _mm_prefetch::<_MM_HINT_T1>(values.wrapping_add(line).cast()) };
        }
    }

    #[inline(always)]
    fn transpose_in(self, rows: &Tile<f64>, column: usize, four: usize) -> [Self::V; 4] {
        let (a, b) = (self.four(rows, column * WIDTH, four), self.four(rows, column * WIDTH + 1, four));
        let (c, d) = (self.four(rows, column * WIDTH + 2, four), self.four(rows, column * WIDTH + 3, four));
        // SAFETY: as above.
        unsafe {
            let (ab02, ab13) = (_mm256_unpacklo_pd(a, b), _mm256_unpackhi_pd(a, b));
            let (cd02, cd13) = (_mm256_unpacklo_pd(c, d), _mm256_unpackhi_pd(c, d));
            [
                _mm256_permute2f128_pd::<0x20>(ab02, cd02),
                _mm256_permute2f128_pd::<0x20>(ab13, cd13),
                _mm256_permute2f128_pd::<0x31>(ab02, cd02),
                _mm256_permute2f128_pd::<0x31>(ab13, cd13),
            ]
        }
    }

    #[inline(always)]
    fn transpose_out(self, frames: &[Frame; TILE], mean: &Frame, factor: &Frame, rows: &mut Tile<f32>) {
        for column in 0..Self::COLUMNS {
            let (mean, factor) = (self.load(mean, column), self.load(factor, column));
            for (number, frames) in frames.as_chunks::<WIDTH>().0.iter().enumerate() {
                let single = |frame: usize| self.single(&frames[frame], column, mean, factor);
                let (a, b) = (single(0), single(1));
                let (c, d) = (single(2), single(3));
                // SAFETY: as above.
                let transposed = unsafe {
                    let (ab01, ab23) = (_mm_unpacklo_ps(a, b), _mm_unpackhi_ps(a, b));
                    let (cd01, cd23) = (_mm_unpacklo_ps(c, d), _mm_unpackhi_ps(c, d));
                    [
                        _mm_movelh_ps(ab01, cd01),
                        _mm_movehl_ps(cd01, ab01),
                        _mm_movelh_ps(ab23, cd23),
                        _mm_movehl_ps(cd23, ab23),
                    ]
                };
                for (k, value) in transposed.into_iter().enumerate() {
                    let samples: &mut [f32; WIDTH] = &mut rows.0[column * WIDTH + k].as_chunks_mut().0[number];
                    // SAFETY: as above.
                    unsafe { _mm_storeu_ps(samples.as_mut_ptr(), value) };
                }
            }
        }
    }
}
