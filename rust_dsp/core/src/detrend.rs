//! Detrending: the least-squares line of the window.
//!
//! The line is fitted while samples stream by and subtracted after resampling, which is linear: what resampling makes
//! of a constant and of a ramp is known beforehand (`Resampler::line_response`).

use crate::lanes::{Frame, LANES, Lanes, TILE};

/// Sums over the samples of each lane.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LineSums {
    sum: Frame,
    /// Weighted by the index, counted from the middle of the window.
    moment: Frame,
    /// Largest magnitude.
    peak: Frame,
}

/// The line `mean + slope * (index − middle)` of each lane, and the lane's largest magnitude.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Line {
    pub(crate) mean: Frame,
    pub(crate) slope: Frame,
    pub(crate) peak: Frame,
}

/// 0, 1, 2, ...
const INDEX: [f64; TILE] = {
    let mut index = [0.0; TILE];
    let mut i = 0;
    while i < TILE {
        index[i] = i as f64;
        i += 1;
    }
    index
};

/// Index of the middle of a window.
fn middle(samples: usize) -> f64 {
    (samples as f64 - 1.0) / 2.0
}

/// The ramp `index − middle` that a slope multiplies.
pub(crate) fn ramp(samples: usize) -> impl Fn(usize) -> f64 {
    let middle = middle(samples);
    move |index| index as f64 - middle
}

impl LineSums {
    /// Add samples `start..start + frames.len()` (at most a tile) of a window of `samples`.
    #[inline(always)]
    pub(crate) fn add<L: Lanes>(&mut self, lanes: L, frames: &[Frame], start: usize, samples: usize) {
        let offset = start as f64 - middle(samples);
        for column in 0..L::COLUMNS {
            let zero = lanes.splat(0.0);
            // Two chains of each, because a sum waits for the one before
            let (mut sums, mut moments) = ([zero; 2], [zero; 2]);
            let mut peaks = [lanes.load(&self.peak, column), zero];
            let (pairs, rest) = frames.as_chunks::<2>();
            let (index_pairs, _) = INDEX.as_chunks::<2>();
            for (frames, indices) in pairs.iter().zip(index_pairs) {
                for chain in 0..2 {
                    let x = lanes.load(&frames[chain], column);
                    sums[chain] = lanes.add(sums[chain], x);
                    moments[chain] = lanes.add_product(moments[chain], x, lanes.splat(indices[chain]));
                    peaks[chain] = lanes.max_magnitude(peaks[chain], x);
                }
            }
            for frame in rest {
                let x = lanes.load(frame, column);
                sums[0] = lanes.add(sums[0], x);
                moments[0] = lanes.add_product(moments[0], x, lanes.splat(INDEX[frames.len() - 1]));
                peaks[0] = lanes.max_magnitude(peaks[0], x);
            }
            let peak = lanes.max_magnitude(peaks[0], peaks[1]);
            let sum = lanes.add(sums[0], sums[1]);
            let moment = lanes.add_product(lanes.add(moments[0], moments[1]), sum, lanes.splat(offset));
            let (sum, moment) =
                (lanes.add(lanes.load(&self.sum, column), sum), lanes.add(lanes.load(&self.moment, column), moment));
            lanes.store(&mut self.sum, column, sum);
            lanes.store(&mut self.moment, column, moment);
            lanes.store(&mut self.peak, column, peak);
        }
    }

    pub(crate) fn line(&self, samples: usize) -> Line {
        let n = samples as f64;
        let squares = n * (n * n - 1.0) / 12.0; // of the ramp
        let each = |f: fn(f64, f64) -> f64, values: &Frame, by: f64| {
            let mut out = Frame::default();
            for lane in 0..LANES {
                out.0[lane] = f(values.0[lane], by);
            }
            out
        };
        Line {
            mean: each(|sum, n| sum / n, &self.sum, n),
            slope: each(|moment, squares| moment / squares, &self.moment, squares),
            peak: self.peak,
        }
    }
}
