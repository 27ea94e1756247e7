//! Resampling to 64 Hz: a zero-phase polyphase FIR, mirrored at both ends.
//!
//! Output `m` is at input sample `m * down / up`; its taps reach `half` steps of `1 / up` samples to both sides.

use crate::OUTPUT_SAMPLES;
use crate::design::{FIR_HALF, low_pass};
use crate::detrend::ramp;
use crate::lanes::{Frame, LANES, Lanes, TILE};

/// Input samples of a block, unless the filter reaches further.
const BLOCK: usize = 512;
/// Outputs are computed in multiples of this, which divides the outputs of a window.
const GROUP: usize = 8;

/// The filter of one sampling rate.
#[derive(Clone, Debug)]
pub(crate) struct Resampler {
    up: usize,
    down: usize,
    /// Samples of a window at the input rate.
    pub(crate) samples: usize,
    taps: Taps,
    /// Response to a constant 1 and to the ramp `index − middle`.
    pub(crate) line_response: Vec<[f64; 2]>,
}

#[derive(Clone, Debug)]
enum Taps {
    /// The input has 64 Hz.
    None,
    /// An integer number of input samples per output: one symmetric filter. The middle tap; then `FIR_HALF` taps for
    /// every remainder of the distance to it modulo `down` (without remainder 0, whose taps are zero).
    Decimate { middle: f64, sides: Vec<[f64; FIR_HALF]> },
    /// `width` taps for each of the `up` phases; the first applies to the input sample `before` samples earlier.
    Polyphase { taps: Vec<f64>, width: usize, before: usize },
}

impl Resampler {
    /// `rate_hz` has the ratio `up / down` to 64 Hz.
    pub(crate) fn new(rate_hz: f64, up: usize, down: usize) -> Self {
        let samples = (crate::WINDOW_S as f64 * rate_hz + 0.5).floor() as usize;
        let prototype = low_pass(up, down);
        let half = prototype.len() / 2;
        let taps = if up == down {
            Taps::None
        } else if up == 1 {
            let side = |remainder: usize| std::array::from_fn(|k| prototype[half + remainder + k * down]);
            Taps::Decimate { middle: prototype[half], sides: (1..down).map(side).collect() }
        } else {
            let before = half / up;
            let width = before + half.div_ceil(up) + 1;
            let tap = |phase: usize, k: usize| {
                // Input sample k − before, relative to the one at or before the output
                let distance = phase as isize - (k as isize - before as isize) * up as isize;
                if distance.unsigned_abs() <= half { prototype[(half as isize + distance) as usize] } else { 0.0 }
            };
            let taps = (0..up).flat_map(|phase| (0..width).map(move |k| (phase, k))).map(|(p, k)| tap(p, k)).collect();
            Taps::Polyphase { taps, width, before }
        };
        let mut resampler = Self { up, down, samples, taps, line_response: Vec::new() };
        let ramp = ramp(samples);
        let mirrored = |index: isize| {
            let index = index.unsigned_abs();
            if index < samples { index } else { 2 * (samples - 1) - index }
        };
        resampler.line_response = (0..OUTPUT_SAMPLES)
            .map(|m| {
                let centre = (m * down) as isize;
                if matches!(resampler.taps, Taps::None) {
                    return [1.0, ramp(m)];
                }
                let (half, up) = (half as isize, up as isize);
                let (first, last) = (-(half - centre).div_euclid(up), (centre + half).div_euclid(up));
                (first..=last).fold([0.0; 2], |[constant, slope], index| {
                    let tap = prototype[(half + centre - index * up) as usize];
                    [constant + tap, slope + tap * ramp(mirrored(index))]
                })
            })
            .collect();
        resampler
    }

    /// Memory of the taps and the responses, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        let taps = match &self.taps {
            Taps::None => 0,
            Taps::Decimate { sides, .. } => sides.capacity() * FIR_HALF,
            Taps::Polyphase { taps, .. } => taps.capacity(),
        };
        taps * size_of::<f64>() + self.line_response.capacity() * size_of::<[f64; 2]>()
    }

    /// Number of input samples that the filter needs before and after the one at or before an output.
    fn reach(&self) -> (usize, usize) {
        match &self.taps {
            Taps::None => (0, 0),
            Taps::Decimate { .. } => (FIR_HALF * self.down, FIR_HALF * self.down),
            Taps::Polyphase { width, before, .. } => (*before, width - 1 - before),
        }
    }

    /// Input samples per block.
    pub(crate) fn block(&self) -> usize {
        BLOCK.max((self.reach().0 + 1).next_multiple_of(TILE))
    }
}

/// Sliding window over the input frames.
#[derive(Debug, Default)]
pub(crate) struct Stream {
    frames: Vec<Frame>,
    /// Number of valid frames.
    len: usize,
    /// Input sample of `frames[0]`.
    origin: isize,
    /// Number of outputs computed.
    done: usize,
}

impl Stream {
    /// Memory of the frames, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.frames.capacity() * size_of::<Frame>()
    }

    /// Start a window.
    pub(crate) fn restart(&mut self, resampler: &Resampler) {
        let (before, after) = resampler.reach();
        let capacity = 2 * (before + after) + resampler.block() + GROUP * (resampler.down + 1) + 2 * TILE;
        if self.frames.len() < capacity {
            self.frames.resize(capacity, Frame::default());
        }
        (self.len, self.origin, self.done) = (before, -(before as isize), 0);
    }

    /// Append a tile of input frames, to be written by the caller; only the first `count` are valid.
    #[inline(always)]
    pub(crate) fn push(&mut self, count: usize) -> &mut [Frame; TILE] {
        let from = self.len;
        self.len += count;
        self.frames[from..].first_chunk_mut().expect("restart() allocates a block and a tile")
    }

    /// Compute all outputs that the frames so far allow, after each block; `last` marks the end of the input.
    #[inline(always)]
    pub(crate) fn resample<L: Lanes>(&mut self, lanes: L, resampler: &Resampler, out: &mut [Frame], last: bool) {
        let (before, after) = resampler.reach();
        if self.done == 0 {
            for distance in 1..=before {
                self.frames[before - distance] = self.frames[before + distance];
            }
        }
        let (up, down) = (resampler.up, resampler.down);
        let base = |m: usize| m * down / up; // input sample at or before output m
        if last {
            let end = self.len;
            let needed = (base(OUTPUT_SAMPLES - 1) + after + 1) as isize - self.origin;
            for distance in 1..=(needed - end as isize).max(0) as usize {
                self.frames[end - 1 + distance] = self.frames[end - 1 - distance];
                self.len += 1;
            }
        }
        let available = self.len as isize + self.origin; // input samples 0..available
        let mut ready = if last {
            OUTPUT_SAMPLES
        } else {
            // The largest m with base(m) + after < available
            (((available - after as isize).max(0) as usize * up).div_ceil(down)).min(OUTPUT_SAMPLES)
        };
        if !last {
            ready = self.done + ready.saturating_sub(self.done) / GROUP * GROUP;
        }
        let at = |m: usize| (base(m) as isize - self.origin) as usize;
        let outputs = &mut out[self.done..ready];
        match &resampler.taps {
            Taps::None => outputs.copy_from_slice(&self.frames[at(self.done)..][..ready - self.done]),
            Taps::Decimate { middle, sides } => {
                decimate(lanes, *middle, sides, &self.frames, at(self.done), down, outputs);
            }
            Taps::Polyphase { taps, width, before } => {
                for (m, output) in (self.done..ready).zip(outputs) {
                    let taps = &taps[m * down % up * width..][..*width];
                    polyphase(lanes, taps, &self.frames[at(m) - before..][..*width], output);
                }
            }
        }
        self.done = ready;
        if !last {
            let keep_from = at(self.done) - before;
            self.frames.copy_within(keep_from..self.len, 0);
            self.len -= keep_from;
            self.origin += keep_from as isize;
        }
    }
}

/// Outputs of the symmetric filter, the first centred on `frames[from]`.
#[inline(always)]
fn decimate<L: Lanes>(
    lanes: L,
    middle: f64,
    sides: &[[f64; FIR_HALF]],
    frames: &[Frame],
    from: usize,
    down: usize,
    out: &mut [Frame],
) {
    // As many outputs per step as fit into the registers with two windows of the same length
    if L::WIDTH == LANES {
        decimate_by::<L, 8>(lanes, middle, sides, frames, from, down, out);
    } else {
        decimate_by::<L, 4>(lanes, middle, sides, frames, from, down, out);
    }
}

/// `G` outputs per step: taps at equal distances to the left and right are equal, and from one tap to the next (`down`
/// frames further out) both windows of `G` frames move by one frame. So a step of `G` sums and products loads one tap
/// and two frames.
#[inline(always)]
fn decimate_by<L: Lanes, const G: usize>(
    lanes: L,
    middle: f64,
    sides: &[[f64; FIR_HALF]],
    frames: &[Frame],
    from: usize,
    down: usize,
    out: &mut [Frame],
) {
    let reach = FIR_HALF * down;
    assert!(out.len().is_multiple_of(G) && from >= reach && from + out.len() * down + reach <= frames.len() + down);
    for (number, out) in out.as_chunks_mut::<G>().0.iter_mut().enumerate() {
        let from = from + number * G * down;
        for column in 0..L::COLUMNS {
            macro_rules! at {
                ($index:expr) => {
                    // SAFETY: indices reach from − (reach − 1) to from + (G − 1) · down + reach − 1: see the assertion.
                    lanes.load(unsafe { frames.get_unchecked($index) }, column)
                };
            }
            let (zero, middle) = (lanes.splat(0.0), lanes.splat(middle));
            let mut sums = [zero; G];
            for (m, sum) in sums.iter_mut().enumerate() {
                *sum = lanes.mul(at!(from + m * down), middle);
            }
            for (side, taps) in sides.iter().enumerate() {
                // Frame i · down to the left and right of the first output, in slot i modulo G
                let (left, right) = (from - side - 1, from + side + 1);
                let (mut lefts, mut rights) = ([zero; G], [zero; G]);
                for m in 0..G {
                    lefts[m] = at!(left + m * down);
                    rights[m] = at!(right + m * down);
                }
                macro_rules! steps {
                    ($($k:literal)*) => {$(
                        if $k > 0 {
                            lefts[(10 * G - $k) % G] = at!(left - $k * down);
                            rights[(G - 1 + $k) % G] = at!(right + (G - 1 + $k) * down);
                        }
                        let tap = lanes.splat(taps[$k]);
                        for (m, sum) in sums.iter_mut().enumerate() {
                            let pair = lanes.add(lefts[(10 * G + m - $k) % G], rights[(m + $k) % G]);
                            *sum = lanes.add_product(*sum, pair, tap);
                        }
                    )*};
                }
                steps!(0 1 2 3 4 5 6 7 8 9);
            }
            for (output, sum) in out.iter_mut().zip(sums) {
                lanes.store(output, column, sum);
            }
        }
    }
}

/// One output: the scalar product of the taps and the frames.
#[inline(always)]
fn polyphase<L: Lanes>(lanes: L, taps: &[f64], frames: &[Frame], out: &mut Frame) {
    for column in 0..L::COLUMNS {
        let mut sums = [lanes.splat(0.0); 4];
        for (taps, frames) in taps.chunks(4).zip(frames.chunks(4)) {
            for ((sum, &tap), frame) in sums.iter_mut().zip(taps).zip(frames) {
                *sum = lanes.add_product(*sum, lanes.load(frame, column), lanes.splat(tap));
            }
        }
        lanes.store(out, column, lanes.add(lanes.add(sums[0], sums[1]), lanes.add(sums[2], sums[3])));
    }
}
