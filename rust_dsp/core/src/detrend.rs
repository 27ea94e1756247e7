//! Detrending: the least-squares line of the window.
//!
//! The line is fitted while samples are loaded and subtracted after resampling. Resampling is linear, and its response to
//! a constant and to a ramp is precomputed (`Resampler::line_response`).

use crate::lanes::{Frame, LANES, Lanes, TILE, Tile};

/// Sums over the samples of each lane.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LineSums {
    sum: Frame,
    /// Weighted by the index relative to the middle of the window.
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

/// 0, 4, 8, ...
const INDEX: [f64; TILE / 4] = {
    let mut index = [0.0; TILE / 4];
    let mut i = 0;
    while i < TILE / 4 {
        index[i] = (4 * i) as f64;
        i += 1;
    }
    index
};

/// Index of the middle of a window.
fn middle(samples: usize) -> f64 {
    (samples as f64 - 1.0) / 2.0
}

/// The ramp `index − middle`.
pub(crate) fn ramp(samples: usize) -> impl Fn(usize) -> f64 {
    let middle = middle(samples);
    move |index| index as f64 - middle
}

impl LineSums {
    /// Transpose a tile of `rows`, which starts at sample `start` of a window of `samples`, into `frames`, and accumulate
    /// its sums.
    #[inline(always)]
    pub(crate) fn transpose<L: Lanes>(
        &mut self,
        lanes: L,
        rows: &Tile<f64>,
        frames: &mut [Frame; TILE],
        start: usize,
        samples: usize,
    ) {
        let offset = start as f64 - middle(samples);
        let (zero, one) = (lanes.splat(0.0), lanes.splat(1.0));
        for column in 0..L::COLUMNS {
            // Four independent sums hide the latency of the additions. Two of them are products with 1, because additions
            // and maxima compete for one execution unit and multiplications use another.
            let (mut sums, mut moments) = ([zero; 4], [zero; 4]);
            let mut peaks = [lanes.load(&self.peak, column), zero];
            for (four, frames) in frames.as_chunks_mut::<4>().0.iter_mut().enumerate() {
                let x = lanes.transpose_in(rows, column, four);
                let index = lanes.splat(INDEX[four]);
                for k in 0..4 {
                    lanes.store(&mut frames[k], column, x[k]);
                    sums[k] = if k < 2 { lanes.add(sums[k], x[k]) } else { lanes.add_product(sums[k], x[k], one) };
                    moments[k] = lanes.add_product(moments[k], x[k], index);
                    peaks[k % 2] = lanes.max_magnitude(peaks[k % 2], x[k]);
                }
            }
            let (mut sum, mut moment) = (sums[0], moments[0]);
            for k in 1..4 {
                sum = lanes.add(sum, sums[k]);
                moment = lanes.add(moment, lanes.add_product(moments[k], sums[k], lanes.splat(k as f64)));
            }
            let moment = lanes.add_product(moment, sum, lanes.splat(offset));
            let (sum, moment) =
                (lanes.add(lanes.load(&self.sum, column), sum), lanes.add(lanes.load(&self.moment, column), moment));
            lanes.store(&mut self.sum, column, sum);
            lanes.store(&mut self.moment, column, moment);
            lanes.store(&mut self.peak, column, lanes.max_magnitude(peaks[0], peaks[1]));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lanes::{InstructionSet, Kernel};
    use approx::assert_abs_diff_eq;

    struct OneTile<'a>(&'a Tile<f64>);

    impl Kernel for OneTile<'_> {
        type Output = (Line, [Frame; TILE]);

        #[inline(always)]
        fn run<L: Lanes>(self, lanes: L) -> Self::Output {
            let (mut sums, mut frames) = (LineSums::default(), [Frame::default(); TILE]);
            sums.transpose(lanes, self.0, &mut frames, 0, TILE);
            (sums.line(TILE), frames)
        }
    }

    #[test]
    fn line_peak_and_frames_are_those_of_the_rows() {
        for spike in 0..TILE {
            let mut rows = Tile::default();
            for (lane, row) in rows.0.iter_mut().enumerate() {
                for (index, value) in row.iter_mut().enumerate() {
                    *value = lane as f64 + 0.25 * ramp(TILE)(index);
                }
            }
            rows.0[3] = [0.0; TILE];
            rows.0[3][spike] = -100.0;
            for set in InstructionSet::available() {
                let (line, frames) = set.run(OneTile(&rows));
                assert_eq!(line.peak.0[3], 100.0);
                assert_abs_diff_eq!(line.mean.0[5], 5.0, epsilon = 1e-12);
                assert_abs_diff_eq!(line.slope.0[5], 0.25, epsilon = 1e-12);
                assert!(frames.iter().enumerate().all(|(index, frame)| frame.0[7] == rows.0[7][index]));
            }
        }
    }
}
