//! `Plan`, `Preprocessed`, `Windows` and `motion`.

use half::f16;
use numpy::{Element, PyArray1, PyArray2, PyArray3, PyArrayMethods, PyUntypedArrayMethods};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use rust_dsp_core as core;
use rust_dsp_core::{Destination, Device, Gate, InstructionSet, OUTPUT_SAMPLES, OutputSample};

use crate::input::{Recording, Stream, describe};

fn value_error(error: impl ToString) -> PyErr {
    PyValueError::new_err(error.to_string())
}

/// Filters and schedules of one device.
#[pyclass(frozen, module = "rust_dsp")]
pub(crate) struct Plan(pub(crate) core::Plan);

/// Z-scored rows, with the status and the levels of each.
#[pyclass(frozen, get_all, module = "rust_dsp")]
pub(crate) struct Preprocessed {
    ppg: Py<PyAny>,
    accel: Py<PyAny>,
    ppg_status: Py<PyArray2<u8>>,
    ppg_level: Py<PyArray2<f64>>,
    ppg_ac_level: Py<PyArray2<f64>>,
    ppg_missing: Py<PyArray2<f64>>,
    accel_status: Py<PyArray2<u8>>,
    accel_level: Py<PyArray2<f64>>,
    accel_ac_level: Py<PyArray2<f64>>,
    accel_missing: Py<PyArray2<f64>>,
}

/// The 60 s windows of one recording.
#[pyclass(frozen, get_all, module = "rust_dsp")]
pub(crate) struct Windows {
    offset_s: Py<PyArray1<f64>>,
    ppg_start: Py<PyArray1<i64>>,
    dark_start: Py<PyArray1<i64>>,
    accel_start: Py<PyArray1<i64>>,
    motion_median_g: Py<PyArray1<f64>>,
    motion_p95_g: Py<PyArray1<f64>>,
    lies_still: Py<PyArray1<bool>>,
    kept: Py<PyArray1<bool>>,
}

#[pymethods]
impl Plan {
    #[new]
    #[pyo3(
        signature = (
            *, ppg_rate_hz = None, accel_rate_hz = None, dark_rate_hz = None, led_offsets_s = vec![],
            dark_offsets_s = vec![0.0], ppg_range = [f64::NEG_INFINITY, f64::INFINITY],
            accel_range = [f64::NEG_INFINITY, f64::INFINITY], instruction_set = None
        ),
        text_signature = "(*, ppg_rate_hz=None, accel_rate_hz=None, dark_rate_hz=None, led_offsets_s=(), \
                          dark_offsets_s=[0.0], ppg_range=(-1e999, 1e999), accel_range=(-1e999, 1e999), \
                          instruction_set=None)"
    )]
    #[expect(clippy::too_many_arguments, reason = "keyword arguments of a Python constructor")]
    fn new(
        ppg_rate_hz: Option<f64>,
        accel_rate_hz: Option<f64>,
        dark_rate_hz: Option<f64>,
        led_offsets_s: Vec<f64>,
        dark_offsets_s: Vec<f64>,
        ppg_range: [f64; 2],
        accel_range: [f64; 2],
        instruction_set: Option<&str>,
    ) -> PyResult<Self> {
        let device = Device {
            ppg_rate_hz,
            accel_rate_hz,
            dark_rate_hz,
            led_offsets_s,
            dark_offsets_s,
            ppg_range: ppg_range.into(),
            accel_range: accel_range.into(),
        };
        let instruction_set = match instruction_set {
            None => InstructionSet::detect(),
            Some(name) => InstructionSet::available().find(|set| name_of(*set) == name).ok_or_else(|| {
                let names: Vec<_> = InstructionSet::available().map(name_of).collect();
                PyValueError::new_err(format!("instruction_set must be one of {names:?} here, found {name:?}"))
            })?,
        };
        core::Plan::with_instruction_set(device, instruction_set).map(Self).map_err(value_error)
    }

    #[getter]
    fn instruction_set(&self) -> &'static str {
        name_of(self.0.instruction_set())
    }

    fn __repr__(&self) -> String {
        format!("Plan({:?}, {:?})", self.0.device(), self.0.instruction_set())
    }

    #[pyo3(signature = (ppg, dark = None, accel = None, *, dtype = "float32", threads = 0, ppg_out = None, accel_out = None))]
    #[expect(clippy::too_many_arguments, reason = "arguments of a Python method")]
    fn preprocess<'py>(
        &self,
        py: Python<'py>,
        ppg: Option<Bound<'py, PyAny>>,
        dark: Option<Bound<'py, PyAny>>,
        accel: Option<Bound<'py, PyAny>>,
        dtype: &str,
        threads: usize,
        ppg_out: Option<Bound<'py, PyAny>>,
        accel_out: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Preprocessed> {
        let stream =
            |object: Option<Bound<'py, PyAny>>, name| object.map(|object| Stream::new(&object, name)).transpose();
        let streams = [stream(ppg, "ppg")?, stream(dark, "dark")?, stream(accel, "accel")?];
        match dtype {
            "float32" => preprocess::<f32>(py, &self.0, &streams, threads, ppg_out, accel_out),
            "float16" => preprocess::<f16>(py, &self.0, &streams, threads, ppg_out, accel_out),
            _ => Err(PyValueError::new_err(format!("dtype must be 'float32' or 'float16', found {dtype:?}"))),
        }
    }

    #[pyo3(signature = (ppg, accel = None, *, dark = None, hop_s = 60.0, accel_start_s = 0.0, gate = "strict"))]
    #[expect(clippy::too_many_arguments, reason = "arguments of a Python method")]
    fn windows<'py>(
        &self,
        py: Python<'py>,
        ppg: Option<Bound<'py, PyAny>>,
        accel: Option<Bound<'py, PyAny>>,
        dark: Option<Bound<'py, PyAny>>,
        hop_s: f64,
        accel_start_s: f64,
        gate: &str,
    ) -> PyResult<Windows> {
        let gate = gate_of(gate)?;
        let stream =
            |object: Option<Bound<'py, PyAny>>, name| object.map(|object| Recording::new(&object, name)).transpose();
        let ppg_samples = stream(ppg, "ppg")?.map(|ppg| ppg.samples());
        let dark_frames = stream(dark, "dark")?.map(|dark| dark.samples());
        let accel = stream(accel, "accel")?;
        let axes = accel.as_ref().map(|accel| accel.rows("accel")).transpose()?;
        let windows = py
            .detach(|| self.0.windows(ppg_samples, dark_frames, axes.as_deref(), hop_s, accel_start_s, gate))
            .map_err(value_error)?;
        let column = |value: fn(&core::Window) -> f64| PyArray1::from_iter(py, windows.iter().map(value)).unbind();
        let start = |value: fn(&core::Window) -> usize| {
            PyArray1::from_iter(py, windows.iter().map(|window| value(window) as i64)).unbind()
        };
        Ok(Windows {
            offset_s: column(|window| window.offset_s),
            ppg_start: start(|window| window.ppg_start),
            dark_start: start(|window| window.dark_start),
            accel_start: start(|window| window.accel_start),
            motion_median_g: column(|window| window.motion_median_g),
            motion_p95_g: column(|window| window.motion_p95_g),
            lies_still: PyArray1::from_iter(py, windows.iter().map(|window| window.lies_still)).unbind(),
            kept: PyArray1::from_iter(py, windows.iter().map(|window| window.kept)).unbind(),
        })
    }
}

/// The motion gate of a name.
pub(crate) fn gate_of(name: &str) -> PyResult<Gate> {
    match name {
        "strict" => Ok(Gate::Strict),
        "loose" => Ok(Gate::Loose),
        "off" => Ok(Gate::Off),
        _ => Err(PyValueError::new_err(format!("gate must be 'strict', 'loose' or 'off', found {name:?}"))),
    }
}

fn name_of(set: InstructionSet) -> &'static str {
    match set {
        InstructionSet::Portable => "portable",
        InstructionSet::Avx2 => "avx2",
        InstructionSet::Avx512 => "avx512",
    }
}

fn preprocess<T: OutputSample + Element>(
    py: Python<'_>,
    plan: &core::Plan,
    streams: &[Option<Stream<'_>>; 3],
    threads: usize,
    ppg_out: Option<Bound<'_, PyAny>>,
    accel_out: Option<Bound<'_, PyAny>>,
) -> PyResult<Preprocessed> {
    let [ppg, dark, accel] = streams;
    let Some(count) = ppg.as_ref().or(accel.as_ref()).map(Stream::len) else {
        return Err(PyValueError::new_err("neither ppg nor accel is given"));
    };
    for (stream, name) in streams.iter().zip(["ppg", "dark", "accel"]) {
        if let Some(len) = stream.as_ref().map(Stream::len).filter(|&len| len != count) {
            return Err(PyValueError::new_err(format!("{name} has {len} recordings, the batch has {count}")));
        }
    }
    let recordings = (0..count)
        .map(|index| {
            Ok(core::Recording {
                ppg: rows_of(ppg, index, "ppg")?,
                dark: rows_of(dark, index, "dark")?,
                accel: rows_of(accel, index, "accel")?,
            })
        })
        .collect::<PyResult<Vec<_>>>()?;
    let leds = plan.device().led_offsets_s.len();
    let ppg_rows = ppg.as_ref().map_or(0, |stream| stream.rows_per_recording().unwrap_or(leds));
    let accel_rows = if accel.is_some() { 3 } else { 0 };

    let ppg_out = output::<T>(py, ppg_out, [count, ppg_rows, OUTPUT_SAMPLES], "ppg_out")?;
    let accel_out = output::<T>(py, accel_out, [count, accel_rows, OUTPUT_SAMPLES], "accel_out")?;
    let (ppg_channels, accel_channels) = {
        let in_use = |name| move |_| PyValueError::new_err(format!("{name} overlaps an input or the other output"));
        let mut ppg_rw = ppg_out.try_readwrite().map_err(in_use("ppg_out"))?;
        let mut accel_rw = accel_out.try_readwrite().map_err(in_use("accel_out"))?;
        let ppg = Destination { rows: ppg_rows, samples: ppg_rw.as_slice_mut()? };
        let accel = Destination { rows: accel_rows, samples: accel_rw.as_slice_mut()? };
        py.detach(|| plan.preprocess(&recordings, ppg, accel, threads)).map_err(value_error)?
    };
    let column = |channels: &[core::Channel], rows: usize, value: fn(&core::Channel) -> f64| {
        PyArray1::from_iter(py, channels.iter().map(value)).reshape([count, rows]).map(Bound::unbind)
    };
    let status = |channels: &[core::Channel], rows: usize| {
        PyArray1::from_iter(py, channels.iter().map(|channel| channel.status.0))
            .reshape([count, rows])
            .map(Bound::unbind)
    };
    Ok(Preprocessed {
        ppg: ppg_out.into_any().unbind(),
        accel: accel_out.into_any().unbind(),
        ppg_status: status(&ppg_channels, ppg_rows)?,
        ppg_level: column(&ppg_channels, ppg_rows, |channel| channel.level)?,
        ppg_ac_level: column(&ppg_channels, ppg_rows, |channel| channel.ac_level)?,
        ppg_missing: column(&ppg_channels, ppg_rows, |channel| channel.missing)?,
        accel_status: status(&accel_channels, accel_rows)?,
        accel_level: column(&accel_channels, accel_rows, |channel| channel.level)?,
        accel_ac_level: column(&accel_channels, accel_rows, |channel| channel.ac_level)?,
        accel_missing: column(&accel_channels, accel_rows, |channel| channel.missing)?,
    })
}

/// The rows of one recording; none if the stream is not given.
fn rows_of<'a>(stream: &'a Option<Stream<'_>>, recording: usize, name: &str) -> PyResult<Vec<core::Samples<'a>>> {
    stream.as_ref().map_or(Ok(Vec::new()), |stream| stream.rows(recording, name))
}

/// The caller's array after validation, or a new one.
fn output<'py, T: Element>(
    py: Python<'py>,
    array: Option<Bound<'py, PyAny>>,
    shape: [usize; 3],
    name: &str,
) -> PyResult<Bound<'py, PyArray3<T>>> {
    let Some(object) = array else {
        // SAFETY: any bits are a valid number; `preprocess` writes all elements, or fails and the array is never read.
        return Ok(unsafe { PyArray3::new(py, shape, false) });
    };
    let array = object.cast::<PyArray3<T>>().ok().filter(|array| array.shape() == shape && array.is_c_contiguous());
    array.cloned().ok_or_else(|| {
        let dtype = T::get_dtype(py);
        PyValueError::new_err(format!(
            "{name} must be a C-contiguous array of shape {shape:?} and dtype {dtype}, found {}",
            describe(&object)
        ))
    })
}

/// Median and 95th percentile, over whole seconds, of the spread of acceleration.
#[pyfunction]
pub(crate) fn motion(py: Python<'_>, accel: Bound<'_, PyAny>, rate_hz: f64) -> PyResult<(f64, f64)> {
    if !(rate_hz > 0.0 && rate_hz.is_finite()) {
        return Err(PyValueError::new_err(format!("rate_hz must be positive and finite, found {rate_hz}")));
    }
    let accel = Recording::new(&accel, "accel")?;
    let axes = accel.rows("accel")?;
    Ok(py.detach(|| core::motion(&axes, rate_hz)))
}
