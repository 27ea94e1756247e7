//! Windows of a long recording, and the motion in each.

use thiserror::Error;

use crate::WINDOW_S;
use crate::gaps::MAX_GAP_S;
use crate::plan::{Plan, Stream};
use crate::samples::{Samples, with_slice};

/// Motion below which a window is still, in g.
pub const MAX_STILL_G: f64 = 0.05;
/// Range of the means of whole seconds up to which nothing but noise moves an axis, in g. Of people who keep still it
/// is at least 4.4 mg on one axis (breathing, posture), of a thing at rest less than 2 mg: `docs/sensors.md`.
const MAX_LYING_G: f64 = 0.003;
/// Of a noisy sensor the means of seconds spread too: 60 of them reach over 4.6 of their standard deviations.
const LYING_DEVIATIONS: f64 = 6.0;
/// Standard deviation within seconds that counts as the sensor's own noise, at most, in g.
const MAX_NOISE_G: f64 = 0.005;

/// The motion gate: which windows are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// The 95th percentile of the motion is below 0.05 g.
    Strict,
    /// The median of the motion is below 0.05 g.
    Loose,
    /// All windows are kept.
    Off,
}

/// One 60 s window of a recording.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Window {
    /// Start, in seconds after the start of the recording: the first PPG frame, or without PPG the first accelerometer
    /// sample.
    pub offset_s: f64,
    /// Index of the first PPG frame.
    pub ppg_start: usize,
    /// Index of the first dark frame; without dark slots equal to `ppg_start`.
    pub dark_start: usize,
    /// Index of the first accelerometer sample.
    pub accel_start: usize,
    /// Median of the motion over whole seconds, in g; NaN without an accelerometer.
    pub motion_median_g: f64,
    /// 95th percentile of the motion over whole seconds, in g; NaN without an accelerometer.
    pub motion_p95_g: f64,
    /// Whether the sensor lay still like a thing, as [`lies_still`] says: it was hardly worn.
    pub lies_still: bool,
    /// Whether the window passes the gate; without an accelerometer every window does.
    pub kept: bool,
}

/// Invalid arguments of [`Plan::windows`].
#[derive(Clone, Debug, Error, PartialEq)]
pub enum WindowsError {
    /// A rate that the plan lacks.
    #[error("cutting windows of {0} needs {0}_rate_hz in the plan")]
    NoRate(&'static str),
    /// Neither PPG nor acceleration.
    #[error("cutting windows needs ppg, accel or both")]
    NoStream,
    /// A hop shorter than 0.1 s or not finite.
    #[error("hop_s must be finite and at least 0.1, found {0}")]
    Hop(f64),
    /// A start that is not finite.
    #[error("accel_start_s must be finite, found {0}")]
    Start(f64),
}

impl Plan {
    /// Cut a recording of `ppg_samples` frames (and `dark_frames`, if any) into 60 s windows, `hop_s` apart.
    ///
    /// A modality that the recording does not have is `None`. The first window starts when all streams have started.
    /// Streams are aligned by time: each starts at its sample nearest to the window's start. The last windows may lack
    /// as much of their end as the gap rule fills.
    pub fn windows(
        &self,
        ppg_samples: Option<usize>,
        dark_frames: Option<usize>,
        accel: Option<&[Samples<'_>]>,
        hop_s: f64,
        accel_start_s: f64,
        gate: Gate,
    ) -> Result<Vec<Window>, WindowsError> {
        if !(hop_s >= 0.1 && hop_s.is_finite()) {
            return Err(WindowsError::Hop(hop_s));
        }
        if !accel_start_s.is_finite() {
            return Err(WindowsError::Start(accel_start_s));
        }
        let rate_of =
            |stream: &Option<Stream>, name| stream.as_ref().map(|s| s.rate_hz).ok_or(WindowsError::NoRate(name));
        let ppg_rate_hz = ppg_samples.map(|_| rate_of(&self.ppg, "ppg")).transpose()?;
        let accel_rate_hz = accel.map(|_| rate_of(&self.accel, "accel")).transpose()?;
        if ppg_rate_hz.is_none() && accel_rate_hz.is_none() {
            return Err(WindowsError::NoStream);
        }
        let dark_rate_hz = dark_frames.and(ppg_rate_hz).and(self.dark_rate_hz());
        let accel_samples = accel.map(|axes| axes.iter().map(|axis| axis.len()).min().unwrap_or(0));
        // First sample of a stream in a window, and whether the stream reaches its end; always without the stream
        let place = |rate_hz: Option<f64>, samples: Option<usize>, time_s: f64| match (rate_hz, samples) {
            (Some(rate_hz), Some(samples)) => {
                let start = nearest(time_s, rate_hz);
                (start as usize, reaches_end(start, samples as u64, rate_hz))
            }
            _ => (0, true),
        };
        let first_s = if accel.is_some() { accel_start_s.max(0.0) } else { 0.0 };
        let (mut windows, mut spreads) = (Vec::new(), Vec::new());
        for number in 0.. {
            let offset_s = first_s + number as f64 * hop_s;
            let (ppg_start, ppg_covers) = place(ppg_rate_hz, ppg_samples, offset_s);
            let (dark_start, dark_covers) = place(dark_rate_hz, dark_frames, offset_s);
            let (accel_start, accel_covers) = place(accel_rate_hz, accel_samples, offset_s - accel_start_s);
            if !(ppg_covers && dark_covers && accel_covers) {
                break;
            }
            let dark_start = if dark_frames.is_some() { dark_start } else { ppg_start };
            let mut window = Window { ppg_start, dark_start, accel_start, ..Window::at(offset_s) };
            if let (Some(accel), Some(rate_hz)) = (accel, accel_rate_hz) {
                let len = window_samples(rate_hz);
                let axes: Vec<_> = accel.iter().map(|axis| axis.window(accel_start, len)).collect();
                window.judge(&axes, rate_hz, gate, &mut spreads);
            }
            windows.push(window);
        }
        Ok(windows)
    }
}

impl Window {
    /// A window without an accelerometer, at the start of its streams.
    pub(crate) fn at(offset_s: f64) -> Self {
        Self {
            offset_s,
            ppg_start: 0,
            dark_start: 0,
            accel_start: 0,
            motion_median_g: f64::NAN,
            motion_p95_g: f64::NAN,
            lies_still: false,
            kept: true,
        }
    }

    /// Measure the motion of the window's samples, and decide whether the gate keeps it.
    ///
    /// `spreads` is memory for one number per second.
    pub(crate) fn judge(&mut self, axes: &[Samples<'_>], rate_hz: f64, gate: Gate, spreads: &mut Vec<f64>) {
        self.lies_still = measure(axes, rate_hz, spreads);
        (self.motion_median_g, self.motion_p95_g) = (percentile(spreads, 0.5), percentile(spreads, 0.95));
        self.kept = match gate {
            Gate::Strict => self.motion_p95_g < MAX_STILL_G,
            Gate::Loose => self.motion_median_g < MAX_STILL_G,
            Gate::Off => true,
        };
    }
}

/// Index of the sample nearest to an instant.
pub(crate) fn nearest(time_s: f64, rate_hz: f64) -> u64 {
    (time_s * rate_hz + 0.5).floor() as u64
}

/// Samples of a window.
pub(crate) fn window_samples(rate_hz: f64) -> usize {
    nearest(WINDOW_S as f64, rate_hz) as usize
}

/// Whether a stream that ends after `samples` lacks no more of the window from `start` on than the gap rule fills.
pub(crate) fn reaches_end(start: u64, samples: u64, rate_hz: f64) -> bool {
    let missing = start.saturating_add(window_samples(rate_hz) as u64).saturating_sub(samples);
    missing as f64 <= MAX_GAP_S * rate_hz + 1e-9
}

/// Edges of the whole seconds of a stream, in samples.
fn seconds(samples: usize, rate_hz: f64) -> impl Iterator<Item = (usize, usize)> + Clone {
    let edge = move |second: usize| (nearest(second as f64, rate_hz) as usize).min(samples);
    (0..(samples as f64 / rate_hz + 1e-9) as usize).map(move |second| (edge(second), edge(second + 1)))
}

/// Median and 95th percentile, over whole seconds, of the spread of acceleration; NaN without a whole second.
///
/// The spread of a second is the square root of the summed variances of the axes. Samples that are not finite are
/// ignored. All axes have the same length.
pub fn motion(axes: &[Samples<'_>], rate_hz: f64) -> (f64, f64) {
    let mut spreads = Vec::new();
    measure(axes, rate_hz, &mut spreads);
    (percentile(&spreads, 0.5), percentile(&spreads, 0.95))
}

/// The spreads of the whole seconds of a window (in g), sorted; and whether no axis moves more than the noise of a
/// sensor at rest, which is false if any axis has no sample. All axes have the same length.
///
/// Even a still wrist tilts with breath and posture, which moves the means of whole seconds; a thing at rest does not.
/// The idea is that of the non-wear rule of van Hees et al. (PLoS ONE 6(7):e22922, 2011), which takes standard deviation
/// and range over half an hour and more; second means make it sharp enough for one minute.
fn measure(axes: &[Samples<'_>], rate_hz: f64, spreads: &mut Vec<f64>) -> bool {
    let samples = axes.iter().map(|axis| axis.len()).min().unwrap_or(0);
    let seconds = seconds(samples, rate_hz);
    let mut lies_still = !axes.is_empty();
    spreads.clear();
    spreads.extend(seconds.clone().map(|_| 0.0));
    for axis in axes {
        let (mut low, mut high, mut within, mut count) = (f64::INFINITY, f64::NEG_INFINITY, 0.0, 0.0);
        let mut seconds = seconds.clone();
        for spreads in spreads.chunks_mut(TOGETHER) {
            let edges = std::array::from_fn(|_| seconds.next());
            for (spread, moments) in spreads.iter_mut().zip(with_slice!(*axis, slice => moments(slice, edges))) {
                let Some((mean, variance)) = moments else {
                    *spread = UNKNOWN;
                    continue;
                };
                (low, high, within, count) = (low.min(mean), high.max(mean), within + variance, count + 1.0);
                if *spread != UNKNOWN {
                    *spread += variance;
                }
            }
        }
        let noise_g = (within / count).sqrt().min(MAX_NOISE_G);
        lies_still &= count > 0.0 && high - low <= MAX_LYING_G.max(LYING_DEVIATIONS * noise_g / rate_hz.sqrt());
    }
    spreads.retain(|&spread| spread != UNKNOWN);
    spreads.iter_mut().for_each(|spread| *spread = spread.sqrt());
    spreads.sort_unstable_by(f64::total_cmp); // a stable sort would allocate
    lies_still
}

/// In the place of a spread: an axis has no sample.
const UNKNOWN: f64 = -1.0;
/// Seconds that are summed up side by side, a sixth of a window: one sum alone waits for its last addition.
const TOGETHER: usize = 10;

/// Mean and variance of the finite samples between some edges, `None` where there are none.
fn moments<S: Copy + Into<f64>>(
    axis: &[S],
    edges: [Option<(usize, usize)>; TOGETHER],
) -> [Option<(f64, f64)>; TOGETHER] {
    let parts = edges.map(|edges| edges.map_or(&axis[..0], |(from, to)| &axis[from..to]));
    let len = parts[0].len();
    let is_whole = |part: &&[S]| part.len() == len && part.iter().fold(true, |all, &x| all & x.into().is_finite());
    if len > 0 && parts.iter().all(is_whole) {
        let (parts, count) = (parts.map(|part| &part[..len]), len as f64);
        let samples = |index: usize| parts.map(|part| part[index].into());
        let mut sums = [-0.0; TOGETHER];
        for samples in (0..len).map(samples) {
            sums = std::array::from_fn(|n| sums[n] + samples[n]);
        }
        let means = sums.map(|sum| sum / count);
        let mut squares = [-0.0; TOGETHER];
        for samples in (0..len).map(samples) {
            squares = std::array::from_fn(|n| squares[n] + (samples[n] - means[n]) * (samples[n] - means[n]));
        }
        return std::array::from_fn(|n| Some((means[n], squares[n] / count)));
    }
    parts.map(|part| {
        let finite = || part.iter().map(|&sample| sample.into()).filter(|sample: &f64| sample.is_finite());
        let count = finite().count() as f64;
        let mean = finite().sum::<f64>() / count;
        let variance = finite().map(|sample| (sample - mean) * (sample - mean)).sum::<f64>() / count;
        (count > 0.0).then_some((mean, variance))
    })
}

/// Percentile of sorted values, linearly interpolated; NaN without values.
fn percentile(sorted: &[f64], fraction: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let position = fraction * last as f64;
    let below = position.floor() as usize;
    let above = (below + 1).min(last);
    sorted[below] + (sorted[above] - sorted[below]) * (position - below as f64)
}
