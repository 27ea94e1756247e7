//! Zero-phase band-pass: the filter runs forward, then backward, over the window and its mirrored ends.

use crate::OUTPUT_SAMPLES;
use crate::design::BandPass;
use crate::detrend::Line;
use crate::lanes::{Frame, LANES, Lanes};

/// Mirrored samples at each end: 4 s, about nine time constants of the slowest pole.
pub const MIRROR: usize = 256;
/// Length of the filter buffer in frames: a window and its mirrored end.
pub(crate) const BUFFER: usize = OUTPUT_SAMPLES + MIRROR;

/// Coefficients of every lane.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LaneFilters {
    /// a1 and a2 of the two sections.
    coefficients: [[Frame; 2]; 2],
    /// Gain of both passes together; `filter` does not apply it.
    pub(crate) gain: [f64; LANES],
}

impl LaneFilters {
    pub(crate) fn new(filters: [&BandPass; LANES]) -> Self {
        let each = |f: fn(&BandPass) -> f64| Frame(filters.map(f));
        Self {
            coefficients: [
                [each(|filter| filter.sections[0].a1), each(|filter| filter.sections[0].a2)],
                [each(|filter| filter.sections[1].a1), each(|filter| filter.sections[1].a2)],
            ],
            gain: filters.map(|filter| filter.gain * filter.gain),
        }
    }
}

/// Sums over the filtered window of each lane.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Moments {
    pub(crate) sum: Frame,
    pub(crate) squares: Frame,
}

/// The two sections in direct form I: the last two inputs and outputs of each, where the output of the first is the
/// input of the second. The critical path of a section is one multiplication.
#[derive(Clone, Copy)]
struct Cascade<V> {
    a: [[V; 2]; 2],
    /// Latest and previous value of the input, the output of the first section, the output of the second.
    last: [[V; 2]; 3],
}

impl<V: Copy> Cascade<V> {
    /// The steady state of a constant `input`: the output of a band-pass is zero.
    #[inline(always)]
    fn steady_state<L: Lanes<V = V>>(lanes: L, filters: &LaneFilters, column: usize, input: V) -> Self {
        let zero = lanes.splat(0.0);
        Self {
            a: [
                [lanes.load(&filters.coefficients[0][0], column), lanes.load(&filters.coefficients[0][1], column)],
                [lanes.load(&filters.coefficients[1][0], column), lanes.load(&filters.coefficients[1][1], column)],
            ],
            last: [[input; 2], [zero; 2], [zero; 2]],
        }
    }

    #[inline(always)]
    fn step<L: Lanes<V = V>>(&mut self, lanes: L, input: V) -> V {
        let mut x = input;
        for section in 0..2 {
            let [a1, a2] = self.a[section];
            let [y1, y2] = self.last[section + 1];
            let driven = lanes.sub_product(lanes.sub(x, self.last[section][1]), a2, y2);
            self.last[section] = [x, self.last[section][0]];
            x = lanes.sub_product(driven, a1, y1);
        }
        self.last[2] = [x, self.last[2][0]];
        x
    }
}

/// Subtract each lane's line, resampled as `line_response`, and apply the band-pass without its gain.
///
/// `signal` starts with the window; the remainder is overwritten.
#[inline(always)]
pub(crate) fn filter<L: Lanes>(
    lanes: L,
    filters: &LaneFilters,
    line: &Line,
    line_response: &[[f64; 2]],
    signal: &mut [Frame; BUFFER],
) -> Moments {
    let mut moments = Moments::default();
    for column in 0..L::COLUMNS {
        let (mean, slope) = (lanes.load(&line.mean, column), lanes.load(&line.slope, column));
        macro_rules! detrended {
            ($frame:expr, $response:expr) => {{
                let [constant, ramp] = $response;
                let x = lanes.sub_product(lanes.load($frame, column), mean, lanes.splat(constant));
                lanes.sub_product(x, slope, lanes.splat(ramp))
            }};
        }

        // Save the mirrored end before the window is overwritten.
        let (window, end) = signal.split_at_mut(OUTPUT_SAMPLES);
        for (frame, mirrored) in end.iter_mut().zip(window.iter().rev().skip(1)) {
            lanes.store(frame, column, lanes.load(mirrored, column));
        }
        let edge = detrended!(&window[MIRROR], line_response[MIRROR]);
        let mut cascade = Cascade::steady_state(lanes, filters, column, edge);
        for (frame, response) in window[1..=MIRROR].iter().zip(&line_response[1..=MIRROR]).rev() {
            cascade.step(lanes, detrended!(frame, *response));
        }
        for (frame, response) in window.iter_mut().zip(line_response) {
            let y = cascade.step(lanes, detrended!(frame, *response));
            lanes.store(frame, column, y);
        }
        for (frame, response) in end.iter_mut().zip(line_response.iter().rev().skip(1)) {
            let y = cascade.step(lanes, detrended!(frame, *response));
            lanes.store(frame, column, y);
        }

        let mut cascade = Cascade::steady_state(lanes, filters, column, lanes.load(&signal[BUFFER - 1], column));
        for frame in signal[OUTPUT_SAMPLES..].iter().rev() {
            cascade.step(lanes, lanes.load(frame, column));
        }
        let (mut sum, mut squares) = (lanes.splat(0.0), lanes.splat(0.0));
        for frame in signal[..OUTPUT_SAMPLES].iter_mut().rev() {
            let y = cascade.step(lanes, lanes.load(frame, column));
            lanes.store(frame, column, y);
            sum = lanes.add(sum, y);
            squares = lanes.add_product(squares, y, y);
        }
        lanes.store(&mut moments.sum, column, sum);
        lanes.store(&mut moments.squares, column, squares);
    }
    moments
}
