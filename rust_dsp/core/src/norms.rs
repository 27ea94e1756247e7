//! The norms of acceleration, counted.

use crate::lanes::{InstructionSet, Kernel, Lanes};

/// Of the samples of three axes of the same length: how many are there on all of them, and how many of these have a norm
/// between `low` and `high`.
///
/// Computed in single precision: a norm within 1e-5 of a limit may be on either side of it.
///
/// # Panics
/// If the axes differ in length.
pub fn norms_between(axes: [&[f32]; 3], low: f32, high: f32) -> (usize, usize) {
    assert!(axes.iter().all(|axis| axis.len() == axes[0].len()), "axes have the same length");
    InstructionSet::detect().run(Count { axes, low: low * low, high: high * high })
}

struct Count<'a> {
    axes: [&'a [f32]; 3],
    low: f32,
    high: f32,
}

impl Kernel for Count<'_> {
    type Output = (usize, usize);

    #[inline(always)]
    fn run<L: Lanes>(self, _: L) -> (usize, usize) {
        let Self { axes: [x, y, z], low, high } = self;
        let (mut complete, mut between) = (0, 0);
        // A part whose counts fit 32 bits, which are added as many at a time as there are samples in a register
        for ((x, y), z) in x.chunks(1 << 16).zip(y.chunks(1 << 16)).zip(z.chunks(1 << 16)) {
            let (mut is_there, mut is_between) = (0_u32, 0_u32);
            for ((x, y), z) in x.iter().zip(y).zip(z) {
                let square = x * x + y * y + z * z;
                is_there += u32::from(x.is_finite() & y.is_finite() & z.is_finite());
                is_between += u32::from((square > low) & (square < high)); // false where one is not there
            }
            (complete, between) = (complete + is_there as usize, between + is_between as usize);
        }
        (complete, between)
    }
}
