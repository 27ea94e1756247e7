//! Windows of a long recording, and the motion in each.

use thiserror::Error;

use crate::WINDOW_S;
use crate::gaps::MAX_GAP_S;
use crate::plan::Plan;
use crate::samples::Samples;

/// Motion below which a window is still, in g.
const MAX_STILL_G: f64 = 0.05;

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
    /// Start, in seconds after the first PPG frame.
    pub offset_s: f64,
    /// Index of the first PPG frame.
    pub ppg_start: usize,
    /// Index of the first dark frame; without dark slots equal to `ppg_start`.
    pub dark_start: usize,
    /// Index of the first accelerometer sample.
    pub accel_start: usize,
    /// Median of the motion over whole seconds, in g.
    pub motion_median_g: f64,
    /// 95th percentile of the motion over whole seconds, in g.
    pub motion_p95_g: f64,
    /// Whether the window passes the gate.
    pub kept: bool,
}

/// Invalid arguments of [`Plan::windows`].
#[derive(Clone, Debug, Error, PartialEq)]
pub enum WindowsError {
    /// A rate that the plan lacks.
    #[error("cutting windows needs {0}_rate_hz in the plan")]
    NoRate(&'static str),
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
    /// The first window starts when all streams have started. Streams are aligned by time: each starts at its sample
    /// nearest to the window's start. The last windows may lack as much of their end as the gap rule fills.
    pub fn windows(
        &self,
        ppg_samples: usize,
        dark_frames: Option<usize>,
        accel: &[Samples<'_>],
        hop_s: f64,
        accel_start_s: f64,
        gate: Gate,
    ) -> Result<Vec<Window>, WindowsError> {
        let ppg = self.ppg.as_ref().ok_or(WindowsError::NoRate("ppg"))?;
        let stream = self.accel.as_ref().ok_or(WindowsError::NoRate("accel"))?;
        if !(hop_s >= 0.1 && hop_s.is_finite()) {
            return Err(WindowsError::Hop(hop_s));
        }
        if !accel_start_s.is_finite() {
            return Err(WindowsError::Start(accel_start_s));
        }
        let nearest = |time_s: f64, rate_hz: f64| (time_s * rate_hz + 0.5).floor() as usize;
        let accel_samples = accel.iter().map(|axis| axis.len()).min().unwrap_or(0);
        let dark_rate_hz = self.device().dark_rate_hz.unwrap_or(ppg.rate_hz);
        let covers = |start: usize, rate_hz: f64, samples: usize| {
            let missing = start.saturating_add(nearest(WINDOW_S as f64, rate_hz)).saturating_sub(samples);
            missing as f64 <= MAX_GAP_S * rate_hz + 1e-9
        };
        let first_s = accel_start_s.max(0.0);
        let mut windows = Vec::new();
        for number in 0.. {
            let offset_s = first_s + number as f64 * hop_s;
            let ppg_start = nearest(offset_s, ppg.rate_hz);
            let dark_start = nearest(offset_s, dark_rate_hz);
            let accel_start = nearest(offset_s - accel_start_s, stream.rate_hz);
            if !(covers(ppg_start, ppg.rate_hz, ppg_samples)
                && covers(accel_start, stream.rate_hz, accel_samples)
                && dark_frames.is_none_or(|frames| covers(dark_start, dark_rate_hz, frames)))
            {
                break;
            }
            let len = nearest(WINDOW_S as f64, stream.rate_hz);
            let axes: Vec<_> = accel.iter().map(|axis| axis.window(accel_start, len)).collect();
            let (motion_median_g, motion_p95_g) = motion(&axes, stream.rate_hz);
            let kept = match gate {
                Gate::Strict => motion_p95_g < MAX_STILL_G,
                Gate::Loose => motion_median_g < MAX_STILL_G,
                Gate::Off => true,
            };
            windows.push(Window { offset_s, ppg_start, dark_start, accel_start, motion_median_g, motion_p95_g, kept });
        }
        Ok(windows)
    }
}

/// Median and 95th percentile, over whole seconds, of the spread of acceleration; NaN without a whole second.
///
/// The spread of a second is the square root of the summed variances of the axes. Samples that are not finite are
/// ignored. All axes have the same length.
pub fn motion(axes: &[Samples<'_>], rate_hz: f64) -> (f64, f64) {
    let samples = axes.iter().map(|axis| axis.len()).min().unwrap_or(0);
    let seconds = (samples as f64 / rate_hz + 1e-9) as usize;
    let edge = |second: usize| ((second as f64 * rate_hz + 0.5).floor() as usize).min(samples);
    let mut spreads: Vec<f64> = (0..seconds)
        .filter_map(|second| {
            let variances = axes.iter().map(|axis| variance(*axis, edge(second), edge(second + 1)));
            variances.sum::<Option<f64>>().map(f64::sqrt)
        })
        .collect();
    spreads.sort_by(f64::total_cmp);
    (percentile(&spreads, 0.5), percentile(&spreads, 0.95))
}

/// Variance of the finite samples of `from..to`, or `None` if there are none.
fn variance(axis: Samples<'_>, from: usize, to: usize) -> Option<f64> {
    let finite = || (from..to).map(|index| axis.at(index)).filter(|sample| sample.is_finite());
    let count = finite().count() as f64;
    let mean = finite().sum::<f64>() / count;
    (count > 0.0).then(|| finite().map(|sample| (sample - mean) * (sample - mean)).sum::<f64>() / count)
}

/// Percentile of sorted values, linearly interpolated; NaN without values.
fn percentile(sorted: &[f64], fraction: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let position = fraction * last as f64;
    let below = position.floor() as usize;
    let above = (below + 1).min(last);
    sorted[below] + (sorted[above] - sorted[below]) * (position - below as f64)
}
