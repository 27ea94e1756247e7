//! Lanes: eight rows side by side in double precision, in one or more registers per sample.
//!
//! A kernel is written once, generic over [`Lanes`], and [`InstructionSet::run`] instantiates it per instruction set.
//! Every function between that call and an operation is `#[inline(always)]`, because only code that is inlined into the
//! entry function is compiled for its instruction set. Lanes never mix, so a row's result does not depend on its group.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;

/// Rows that are processed together.
pub(crate) const LANES: usize = 8;
/// Samples of a row that are transposed at a time.
pub(crate) const TILE: usize = 128;

/// One sample of each row.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(64))]
pub(crate) struct Frame(pub(crate) [f64; LANES]);

/// A tile of samples, row after row.
#[derive(Clone, Debug)]
#[repr(C, align(64))]
pub(crate) struct Tile<T>(pub(crate) [[T; TILE]; LANES]);

impl<T: Copy + Default> Default for Tile<T> {
    fn default() -> Self {
        Self([[T::default(); TILE]; LANES])
    }
}

/// Arithmetic on a register of `WIDTH` lanes. Column `c` of a frame is its lanes `c * WIDTH..(c + 1) * WIDTH`.
///
/// A value of an implementing type proves that the processor has the instructions.
pub(crate) trait Lanes: Copy {
    /// Register.
    type V: Copy;
    const WIDTH: usize;
    const COLUMNS: usize = LANES / Self::WIDTH;

    fn splat(self, value: f64) -> Self::V;
    fn load(self, frame: &Frame, column: usize) -> Self::V;
    /// `load` of values at any address.
    fn read(self, values: &[f64; LANES], column: usize) -> Self::V;
    fn store(self, frame: &mut Frame, column: usize, value: Self::V);
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    /// `c + a * b`
    fn add_product(self, c: Self::V, a: Self::V, b: Self::V) -> Self::V;
    /// `c - a * b`
    fn sub_product(self, c: Self::V, a: Self::V, b: Self::V) -> Self::V;
    /// `max(a, |b|)`; `a` where `b` is NaN.
    fn max_magnitude(self, a: Self::V, b: Self::V) -> Self::V;
    /// One bit per number: whether `a > b`.
    fn greater(self, a: &[f64; LANES], b: &[f64; LANES]) -> u8;
    /// `c - a * b` of scalars, rounded as in the lanes.
    fn sub_product_scalar(self, c: f64, a: f64, b: f64) -> f64;
    /// Hint that `count` values will be read soon; the address need not be valid.
    fn prefetch<T>(self, values: *const T, count: usize);
    /// Column `column` of the frames `4 * four..4 * four + 4`.
    fn transpose_in(self, rows: &Tile<f64>, column: usize, four: usize) -> [Self::V; 4];
    /// `(frames − mean) * factor`, rounded to nearest.
    fn transpose_out(self, frames: &[Frame; TILE], mean: &Frame, factor: &Frame, rows: &mut Tile<f32>);
}

/// The instruction set that a plan runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InstructionSet {
    /// The baseline of the target.
    Portable,
    /// AVX2 and FMA.
    Avx2,
    /// AVX-512 F, DQ and VL.
    Avx512,
}

/// A computation that is generic over [`Lanes`].
pub(crate) trait Kernel {
    type Output;
    /// Must be `#[inline(always)]`.
    fn run<L: Lanes>(self, lanes: L) -> Self::Output;
}

impl InstructionSet {
    /// The widest instruction set of this processor.
    pub fn detect() -> Self {
        [Self::Avx512, Self::Avx2].into_iter().find(|set| set.is_available()).unwrap_or(Self::Portable)
    }

    /// All instruction sets of this processor.
    pub fn available() -> impl Iterator<Item = Self> {
        [Self::Portable, Self::Avx2, Self::Avx512].into_iter().filter(|set| set.is_available())
    }

    /// Whether this processor has the instruction set.
    pub fn is_available(self) -> bool {
        match self {
            Self::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => avx2::Avx2::detect().is_some(),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => avx512::Avx512::detect().is_some(),
            #[cfg(not(target_arch = "x86_64"))]
            Self::Avx2 | Self::Avx512 => false,
        }
    }

    /// Run a kernel, with portable instructions if the processor lacks the instruction set.
    pub(crate) fn run<K: Kernel>(self, kernel: K) -> K::Output {
        #[cfg(target_arch = "x86_64")]
        match self {
            Self::Avx512 => {
                if let Some(lanes) = avx512::Avx512::detect() {
                    return avx512::run(lanes, kernel);
                }
            }
            Self::Avx2 => {
                if let Some(lanes) = avx2::Avx2::detect() {
                    return avx2::run(lanes, kernel);
                }
            }
            Self::Portable => {}
        }
        kernel.run(portable::Portable)
    }
}
