//! Lanes of AVX-512: eight per register, one register per frame.

use std::arch::x86_64::*;

use super::{Frame, Kernel, LANES, Lanes, TILE, Tile};

/// Proof that the processor has AVX-512 F, DQ and VL: only [`Avx512::detect`] creates it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Avx512(());

impl Avx512 {
    pub(super) fn detect() -> Option<Self> {
        let all = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("fma");
        all.then_some(Self(()))
    }
}

/// Compile and run a kernel for AVX-512.
pub(super) fn run<K: Kernel>(lanes: Avx512, kernel: K) -> K::Output {
    #[target_feature(enable = "avx512f,avx512dq,avx512vl,fma")]
    fn inner<K: Kernel>(lanes: Avx512, kernel: K) -> K::Output {
        kernel.run(lanes)
    }
    // SAFETY: `lanes` proves that the processor has the features.
    unsafe { inner(lanes, kernel) }
}

impl Avx512 {
    /// Four samples of row `k` and four of row `k + 4`: this layout saves one of the three shuffles of a transposition.
    #[inline(always)]
    fn pair(self, rows: &Tile<f64>, k: usize, four: usize) -> __m512d {
        let low: &[f64; 4] = &rows.0[k].as_chunks().0[four];
        let high: &[f64; 4] = &rows.0[k + 4].as_chunks().0[four];
        // SAFETY: `self` proves that the processor has the instructions; each load reads one whole array.
        unsafe {
            let low = _mm512_castpd256_pd512(_mm256_loadu_pd(low.as_ptr()));
            _mm512_insertf64x4::<1>(low, _mm256_loadu_pd(high.as_ptr()))
        }
    }

    /// `(frame − mean) * factor` in single precision.
    #[inline(always)]
    fn single(self, frame: &Frame, mean: __m512d, factor: __m512d) -> __m256 {
        let scaled = self.mul(self.sub(self.load(frame, 0), mean), factor);
        // SAFETY: `self` proves that the processor has the instruction.
        unsafe { _mm512_cvtpd_ps(scaled) }
    }
}

// SAFETY (every block below): `self` proves that the processor has the instructions; loads and stores go through
// references to whole arrays, at offsets that the array's length bounds.
impl Lanes for Avx512 {
    type V = __m512d;
    const WIDTH: usize = LANES;

    #[inline(always)]
    fn splat(self, value: f64) -> Self::V {
        // SAFETY: as above.
        unsafe { _mm512_set1_pd(value) }
    }

    #[inline(always)]
    fn load(self, frame: &Frame, _column: usize) -> Self::V {
        // SAFETY: as above; a frame is 64-byte aligned.
        unsafe { _mm512_load_pd(frame.0.as_ptr()) }
    }

    #[inline(always)]
    fn read(self, values: &[f64; LANES], _column: usize) -> Self::V {
        // SAFETY: as above.
        unsafe { _mm512_loadu_pd(values.as_ptr()) }
    }

    #[inline(always)]
    fn store(self, frame: &mut Frame, _column: usize, value: Self::V) {
        // SAFETY: as above; a frame is 64-byte aligned.
        unsafe { _mm512_store_pd(frame.0.as_mut_ptr(), value) }
    }

    #[inline(always)]
    fn add(self, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: as above.
        unsafe { _mm512_add_pd(a, b) }
    }

    #[inline(always)]
    fn sub(self, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: as above.
        unsafe { _mm512_sub_pd(a, b) }
    }

    #[inline(always)]
    fn mul(self, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: as above.
        unsafe { _mm512_mul_pd(a, b) }
    }

    #[inline(always)]
    fn add_product(self, c: Self::V, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: as above.
        unsafe { _mm512_fmadd_pd(a, b, c) }
    }

    #[inline(always)]
    fn sub_product(self, c: Self::V, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: as above.
        unsafe { _mm512_fnmadd_pd(a, b, c) }
    }

    #[inline(always)]
    fn max_magnitude(self, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: as above. The larger magnitude, without its sign; the other operand where one is NaN.
        unsafe { _mm512_range_pd::<0b1011>(b, a) }
    }

    #[inline(always)]
    fn greater(self, a: &[f64; LANES], b: &[f64; LANES]) -> u8 {
        // SAFETY: as above.
        unsafe { _mm512_cmp_pd_mask::<_CMP_GT_OQ>(_mm512_loadu_pd(a.as_ptr()), _mm512_loadu_pd(b.as_ptr())) }
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
    fn transpose_in(self, rows: &Tile<f64>, _column: usize, four: usize) -> [Self::V; 4] {
        let (a, b) = (self.pair(rows, 0, four), self.pair(rows, 1, four));
        let (c, d) = (self.pair(rows, 2, four), self.pair(rows, 3, four));
        // SAFETY: as above.
        unsafe {
            let first = _mm512_setr_epi64(0, 1, 8, 9, 4, 5, 12, 13);
            let second = _mm512_setr_epi64(2, 3, 10, 11, 6, 7, 14, 15);
            let (ab02, ab13) = (_mm512_unpacklo_pd(a, b), _mm512_unpackhi_pd(a, b));
            let (cd02, cd13) = (_mm512_unpacklo_pd(c, d), _mm512_unpackhi_pd(c, d));
            [
                _mm512_permutex2var_pd(ab02, first, cd02),
                _mm512_permutex2var_pd(ab13, first, cd13),
                _mm512_permutex2var_pd(ab02, second, cd02),
                _mm512_permutex2var_pd(ab13, second, cd13),
            ]
        }
    }

    #[inline(always)]
    fn transpose_out(self, frames: &[Frame; TILE], mean: &Frame, factor: &Frame, rows: &mut Tile<f32>) {
        let (mean, factor) = (self.load(mean, 0), self.load(factor, 0));
        for (number, frames) in frames.as_chunks::<LANES>().0.iter().enumerate() {
            let single = |frame: usize| self.single(&frames[frame], mean, factor);
            // SAFETY: as above.
            let transposed = unsafe {
                // Frames k and k + 1 interleaved
                let (a, b) = (single(0), single(1));
                let (c, d) = (single(2), single(3));
                let (ab_low, ab_high) = (_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
                let (cd_low, cd_high) = (_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
                let (a, b) = (single(4), single(5));
                let (c, d) = (single(6), single(7));
                let (ef_low, ef_high) = (_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
                let (gh_low, gh_high) = (_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
                // Four frames of lane k in the low half, of lane k + 4 in the high half
                let early = [
                    _mm256_shuffle_ps::<0x44>(ab_low, cd_low),
                    _mm256_shuffle_ps::<0xEE>(ab_low, cd_low),
                    _mm256_shuffle_ps::<0x44>(ab_high, cd_high),
                    _mm256_shuffle_ps::<0xEE>(ab_high, cd_high),
                ];
                let late = [
                    _mm256_shuffle_ps::<0x44>(ef_low, gh_low),
                    _mm256_shuffle_ps::<0xEE>(ef_low, gh_low),
                    _mm256_shuffle_ps::<0x44>(ef_high, gh_high),
                    _mm256_shuffle_ps::<0xEE>(ef_high, gh_high),
                ];
                [
                    _mm256_permute2f128_ps::<0x20>(early[0], late[0]),
                    _mm256_permute2f128_ps::<0x20>(early[1], late[1]),
                    _mm256_permute2f128_ps::<0x20>(early[2], late[2]),
                    _mm256_permute2f128_ps::<0x20>(early[3], late[3]),
                    _mm256_permute2f128_ps::<0x31>(early[0], late[0]),
                    _mm256_permute2f128_ps::<0x31>(early[1], late[1]),
                    _mm256_permute2f128_ps::<0x31>(early[2], late[2]),
                    _mm256_permute2f128_ps::<0x31>(early[3], late[3]),
                ]
            };
            for (lane, value) in transposed.into_iter().enumerate() {
                let samples: &mut [f32; LANES] = &mut rows.0[lane].as_chunks_mut().0[number];
                // SAFETY: as above.
                unsafe { _mm256_storeu_ps(samples.as_mut_ptr(), value) };
            }
        }
    }
}
