//! Vectorised sums over slices.

use crate::lanes::LANES;

/// Sum of `term(a, b)` over the pairs of two slices of the same length.
///
/// Independent partial sums hide the latency of the additions.
#[inline(always)]
pub(crate) fn sum_by(a: &[f64], b: &[f64], term: impl Fn(f64, f64) -> f64) -> f64 {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    let mut sums = [0.0; LANES];
    for (a, b) in a.iter().zip(b) {
        for lane in 0..LANES {
            sums[lane] += term(a[lane], b[lane]);
        }
    }
    for (sum, (&a, &b)) in sums.iter_mut().zip(a_rest.iter().zip(b_rest)) {
        *sum += term(a, b);
    }
    sums.iter().sum()
}
