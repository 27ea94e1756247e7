//! `Stream` and `Segment`.

use numpy::ndarray::Axis;
use numpy::{PyArray1, PyArray2, PyArrayMethods, PyReadonlyArrayDyn, PyUntypedArrayMethods};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use rust_dsp_core as core;
use rust_dsp_core::{Channel, OUTPUT_SAMPLES, Signal, StreamSettings};

use crate::input::{borrow, describe};
use crate::plan::{Plan, gate_of};

const SIGNALS: [Signal; 3] = [Signal::Accel, Signal::Ppg, Signal::Dark];

/// Samples of one device to segments, as they come.
#[pyclass(module = "rust_dsp")]
pub(crate) struct Stream(core::Stream);

/// One finished segment of a stream.
#[pyclass(frozen, get_all, module = "rust_dsp")]
pub(crate) struct Segment {
    number: u64,
    offset_s: f64,
    accel_start: u64,
    ppg_start: u64,
    dark_start: u64,
    motion_median_g: f64,
    motion_p95_g: f64,
    lies_still: bool,
    kept: bool,
    reason: Option<&'static str>,
    hr_bpm: f64,
    hr_peak: f64,
    accel: Py<PyArray2<f32>>,
    accel_status: Py<PyArray1<u8>>,
    accel_level: Py<PyArray1<f64>>,
    accel_ac_level: Py<PyArray1<f64>>,
    accel_missing: Py<PyArray1<f64>>,
    ppg: Py<PyArray2<f32>>,
    ppg_status: Py<PyArray1<u8>>,
    ppg_level: Py<PyArray1<f64>>,
    ppg_ac_level: Py<PyArray1<f64>>,
    ppg_missing: Py<PyArray1<f64>>,
}

/// A pushed array `[rows, samples]`.
struct Pushed<'py>(PyReadonlyArrayDyn<'py, f32>);

impl<'py> Pushed<'py> {
    fn new(object: &Bound<'py, PyAny>, name: &str) -> PyResult<Self> {
        let array = borrow::<f32>(object, name)?.ok_or_else(|| {
            PyTypeError::new_err(format!("{name} must be a NumPy array of float32, found {}", describe(object)))
        })?;
        if array.shape().len() != 2 {
            let shape = array.shape();
            return Err(PyValueError::new_err(format!("{name} must have 2 dimensions, found shape {shape:?}")));
        }
        Ok(Self(array))
    }

    fn rows(&self, name: &str) -> PyResult<Vec<&[f32]>> {
        let array = self.0.as_array();
        (0..array.len_of(Axis(0)))
            .map(|row| {
                let row = array.clone().index_axis_move(Axis(0), row);
                row.to_slice().ok_or_else(|| value_error(format!("{name} has rows that are not contiguous")))
            })
            .collect()
    }
}

#[pymethods]
impl Stream {
    #[new]
    #[pyo3(signature = (
        plan, *, hop_s = 60.0, gate = "strict", ppg_channels = None, dark = false, accel_start_s = 0.0, slack_s = 5.0
    ))]
    fn new(
        plan: &Plan,
        hop_s: f64,
        gate: &str,
        ppg_channels: Option<usize>,
        dark: bool,
        accel_start_s: f64,
        slack_s: f64,
    ) -> PyResult<Self> {
        let settings = StreamSettings { ppg_channels, dark, hop_s, accel_start_s, gate: gate_of(gate)?, slack_s };
        core::Stream::new(plan.0.clone(), settings).map(Self).map_err(value_error)
    }

    #[getter]
    fn memory_bytes(&self) -> usize {
        self.0.memory_bytes()
    }

    #[pyo3(signature = (*, accel = None, ppg = None, dark = None))]
    fn push(
        &mut self,
        py: Python<'_>,
        accel: Option<Bound<'_, PyAny>>,
        ppg: Option<Bound<'_, PyAny>>,
        dark: Option<Bound<'_, PyAny>>,
    ) -> PyResult<Vec<Segment>> {
        let mut pushed = [const { None }; 3];
        for ((pushed, object), signal) in pushed.iter_mut().zip([accel, ppg, dark]).zip(SIGNALS) {
            *pushed = object.map(|object| Pushed::new(&object, signal.name())).transpose()?;
        }
        let mut rows = [const { Vec::new() }; 3];
        for ((rows, pushed), signal) in rows.iter_mut().zip(&pushed).zip(SIGNALS) {
            if let Some(pushed) = pushed {
                *rows = pushed.rows(signal.name())?;
                let (expected, actual) = (self.0.rows(signal), rows.len());
                if expected != actual {
                    return Err(value_error(format!("{} has {actual} rows, expected {expected}", signal.name())));
                }
            }
        }
        let lens = [0, 1, 2].map(|signal| rows[signal].first().map_or(0, |row| row.len()));
        self.0.check_ahead(lens).map_err(value_error)?;
        let mut finished = Vec::new();
        self.feed(py, lens, &mut finished, |stream, signal, from, count| {
            let mut part = rows[signal as usize].clone();
            part.iter_mut().for_each(|row| *row = &row[from..from + count]);
            stream.push(signal, &part)
        })?;
        Ok(finished)
    }

    #[pyo3(signature = (*, accel = 0, ppg = 0, dark = 0))]
    fn gap(&mut self, py: Python<'_>, accel: usize, ppg: usize, dark: usize) -> PyResult<Vec<Segment>> {
        let lens = [accel, ppg, dark];
        if let Some(signal) = SIGNALS.into_iter().find(|&signal| lens[signal as usize] > 0 && self.0.rows(signal) == 0)
        {
            return Err(value_error(format!("the stream has no {}", signal.name())));
        }
        self.0.check_ahead(lens).map_err(value_error)?;
        let mut finished = Vec::new();
        self.feed(py, lens, &mut finished, |stream, signal, _, count| stream.gap(signal, count))?;
        Ok(finished)
    }

    fn end(&mut self, py: Python<'_>) -> PyResult<Vec<Segment>> {
        self.0.end();
        let mut finished = Vec::new();
        self.fetch(py, &mut finished)?;
        Ok(finished)
    }
}

impl Stream {
    /// Push `lens` samples part by part, as there is room, and get the segments in between.
    fn feed(
        &mut self,
        py: Python<'_>,
        lens: [usize; 3],
        finished: &mut Vec<Segment>,
        push: impl Fn(&mut core::Stream, Signal, usize, usize) -> Result<(), core::StreamError>,
    ) -> PyResult<()> {
        let mut at = [0; 3];
        while SIGNALS.iter().any(|&signal| at[signal as usize] < lens[signal as usize]) {
            for signal in SIGNALS {
                let from = at[signal as usize];
                let count = (lens[signal as usize] - from).min(self.0.room(signal));
                if count > 0 {
                    push(&mut self.0, signal, from, count).map_err(value_error)?;
                    at[signal as usize] += count;
                }
            }
            self.fetch(py, finished)?;
        }
        Ok(())
    }

    /// Get all segments that are finished.
    fn fetch(&mut self, py: Python<'_>, finished: &mut Vec<Segment>) -> PyResult<()> {
        while let Some(recoil) = py.detach(|| {
            self.0.next_segment()?;
            Some(self.0.heart_rate())
        }) {
            finished.push(segment(py, self.0.segment(), recoil)?);
        }
        Ok(())
    }
}

fn segment(py: Python<'_>, segment: &core::Segment, recoil: core::Recoil) -> PyResult<Segment> {
    let signals = |samples: &[f32]| {
        let rows = samples.len() / OUTPUT_SAMPLES;
        PyArray1::from_slice(py, samples).reshape([rows, OUTPUT_SAMPLES]).map(Bound::unbind)
    };
    let column =
        |channels: &[Channel], value: fn(&Channel) -> f64| PyArray1::from_iter(py, channels.iter().map(value)).unbind();
    let status =
        |channels: &[Channel]| PyArray1::from_iter(py, channels.iter().map(|channel| channel.status.0)).unbind();
    let (accel, ppg) = (&segment.accel_channels, &segment.ppg_channels);
    Ok(Segment {
        number: segment.number,
        offset_s: segment.offset_s,
        accel_start: segment.accel_start,
        ppg_start: segment.ppg_start,
        dark_start: segment.dark_start,
        motion_median_g: segment.motion_median_g,
        motion_p95_g: segment.motion_p95_g,
        lies_still: segment.lies_still,
        kept: segment.kept,
        reason: segment.reason.map(core::Reason::name),
        hr_bpm: recoil.hr_bpm,
        hr_peak: recoil.peak,
        accel: signals(&segment.accel)?,
        accel_status: status(accel),
        accel_level: column(accel, |channel| channel.level),
        accel_ac_level: column(accel, |channel| channel.ac_level),
        accel_missing: column(accel, |channel| channel.missing),
        ppg: signals(&segment.ppg)?,
        ppg_status: status(ppg),
        ppg_level: column(ppg, |channel| channel.level),
        ppg_ac_level: column(ppg, |channel| channel.ac_level),
        ppg_missing: column(ppg, |channel| channel.missing),
    })
}

fn value_error(error: impl std::fmt::Display) -> PyErr {
    PyValueError::new_err(error.to_string())
}
