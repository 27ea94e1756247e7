//! The plan: everything that depends on the device and not on the recording.

use thiserror::Error;

use crate::dark::DarkSchedule;
use crate::design::{BandPass, resampling_ratio};
use crate::lanes::InstructionSet;
use crate::resample::Resampler;
use crate::validity::Limits;

/// Sampling rates, instants and full scales of a sensor.
#[derive(Clone, Debug, PartialEq)]
pub struct Device {
    /// Frames per second of the PPG channels; `None` without PPG.
    pub ppg_rate_hz: Option<f64>,
    /// Samples per second of the accelerometer; `None` without one.
    pub accel_rate_hz: Option<f64>,
    /// Frames per second of the dark slots; by default that of the PPG.
    pub dark_rate_hz: Option<f64>,
    /// Instant of each PPG channel inside its frame, in seconds; empty: any number of channels, all at 0.
    pub led_offsets_s: Vec<f64>,
    /// Instant of each dark slot inside its frame, in seconds.
    pub dark_offsets_s: Vec<f64>,
    /// Full scale of PPG and dark samples, exclusive.
    pub ppg_range: (f64, f64),
    /// Full scale of the accelerometer, exclusive.
    pub accel_range: (f64, f64),
}

impl Default for Device {
    fn default() -> Self {
        let unlimited = (f64::NEG_INFINITY, f64::INFINITY);
        Self {
            ppg_rate_hz: None,
            accel_rate_hz: None,
            dark_rate_hz: None,
            led_offsets_s: Vec::new(),
            dark_offsets_s: vec![0.0],
            ppg_range: unlimited,
            accel_range: unlimited,
        }
    }
}

/// An invalid device.
#[derive(Clone, Debug, Error, PartialEq)]
pub enum PlanError {
    /// Outside 20 to 2048 Hz.
    #[error("{stream} rate {rate_hz} Hz is not supported: 20 to 2048 Hz")]
    Rate {
        /// "ppg", "accel" or "dark".
        stream: &'static str,
        /// The value.
        rate_hz: f64,
    },
    /// Neither PPG nor accelerometer.
    #[error("a plan needs ppg_rate_hz, accel_rate_hz or both")]
    NoStream,
    /// An instant that is not finite.
    #[error("{parameter} must be finite, found {value}")]
    Offset {
        /// "led_offsets_s" or "dark_offsets_s".
        parameter: &'static str,
        /// The value.
        value: f64,
    },
    /// No dark slot, or two at the same instant.
    #[error("dark_offsets_s must name at least one slot, all at different instants")]
    DarkSlots,
    /// An empty range, or NaN.
    #[error("{parameter} must be (low, high) with low < high, found ({low}, {high})")]
    Range {
        /// "ppg_range" or "accel_range".
        parameter: &'static str,
        /// The lower limit.
        low: f64,
        /// The upper limit.
        high: f64,
    },
    /// An instruction set that this processor lacks.
    #[error("this processor does not have the instruction set {0:?}")]
    InstructionSet(InstructionSet),
}

/// Parameters of one stream.
#[derive(Clone, Debug)]
pub(crate) struct Stream {
    pub(crate) rate_hz: f64,
    pub(crate) limits: Limits,
    pub(crate) band: BandPass,
}

/// Filters, line responses and schedules of one device; immutable and shared by threads.
#[derive(Clone, Debug)]
pub struct Plan {
    device: Device,
    pub(crate) instruction_set: InstructionSet,
    pub(crate) ppg: Option<Stream>,
    pub(crate) accel: Option<Stream>,
    pub(crate) ppg_resampler: Option<Resampler>,
    /// `None` if the accelerometer has the rate of the PPG: both then share the filter and the lanes.
    pub(crate) accel_resampler: Option<Resampler>,
    pub(crate) dark: Option<DarkSchedule>,
}

impl Plan {
    /// Plan for a device, with the widest instruction set of this processor.
    pub fn new(device: Device) -> Result<Self, PlanError> {
        Self::with_instruction_set(device, InstructionSet::detect())
    }

    /// Plan for a device, with the given instruction set.
    pub fn with_instruction_set(device: Device, instruction_set: InstructionSet) -> Result<Self, PlanError> {
        if !instruction_set.is_available() {
            return Err(PlanError::InstructionSet(instruction_set));
        }
        if device.ppg_rate_hz.is_none() && device.accel_rate_hz.is_none() {
            return Err(PlanError::NoStream);
        }
        for (parameter, offsets) in
            [("led_offsets_s", &device.led_offsets_s), ("dark_offsets_s", &device.dark_offsets_s)]
        {
            if let Some(&value) = offsets.iter().find(|offset| !offset.is_finite()) {
                return Err(PlanError::Offset { parameter, value });
            }
        }
        let slots = &device.dark_offsets_s;
        if slots.is_empty() || (1..slots.len()).any(|slot| slots[..slot].contains(&slots[slot])) {
            return Err(PlanError::DarkSlots);
        }
        let ppg_limits = limits("ppg_range", device.ppg_range)?;
        let accel_limits = limits("accel_range", device.accel_range)?;
        let ppg_resampler = device.ppg_rate_hz.map(|rate_hz| resampler("ppg", rate_hz)).transpose()?;
        let accel_resampler = match device.accel_rate_hz {
            Some(rate_hz) if Some(rate_hz) != device.ppg_rate_hz => Some(resampler("accel", rate_hz)?),
            _ => None,
        };
        let dark = match device.ppg_rate_hz {
            Some(led_rate_hz) => {
                let rate_hz = device.dark_rate_hz.unwrap_or(led_rate_hz);
                if !(rate_hz > 0.0 && rate_hz <= 2048.0) {
                    return Err(PlanError::Rate { stream: "dark", rate_hz });
                }
                Some(DarkSchedule::new(led_rate_hz, rate_hz, &device.led_offsets_s, &device.dark_offsets_s))
            }
            None => None,
        };
        Ok(Self {
            instruction_set,
            ppg: device.ppg_rate_hz.map(|rate_hz| Stream { rate_hz, limits: ppg_limits, band: BandPass::ppg() }),
            accel: device.accel_rate_hz.map(|rate_hz| Stream {
                rate_hz,
                limits: accel_limits,
                band: BandPass::accel(),
            }),
            ppg_resampler,
            accel_resampler,
            dark,
            device,
        })
    }

    /// Frames per second of the dark slots; `None` without PPG.
    pub(crate) fn dark_rate_hz(&self) -> Option<f64> {
        self.device.ppg_rate_hz.map(|rate_hz| self.device.dark_rate_hz.unwrap_or(rate_hz))
    }

    /// Memory of the filters, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        [&self.ppg_resampler, &self.accel_resampler].into_iter().flatten().map(Resampler::bytes).sum()
    }

    /// The device.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The instruction set that the plan runs on.
    pub fn instruction_set(&self) -> InstructionSet {
        self.instruction_set
    }
}

fn limits(parameter: &'static str, (low, high): (f64, f64)) -> Result<Limits, PlanError> {
    if low < high { Ok(Limits::new(low, high)) } else { Err(PlanError::Range { parameter, low, high }) }
}

fn resampler(stream: &'static str, rate_hz: f64) -> Result<Resampler, PlanError> {
    let (up, down) = resampling_ratio(rate_hz).ok_or(PlanError::Rate { stream, rate_hz })?;
    Ok(Resampler::new(rate_hz, up, down))
}
