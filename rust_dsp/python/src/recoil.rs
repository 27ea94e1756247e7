//! `band_pass`, `recoil_rate` and `recoil_rates`.

use half::f16;
use numpy::{Element, PyArray1, PyArray2, PyArrayMethods, PyReadonlyArrayDyn, PyUntypedArrayMethods};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use rust_dsp_core::{Band, OUTPUT_SAMPLES, RECOIL_BAND_HZ, Recoil, SegmentSamples, recoil, recoil_batch};

use crate::input::{Recording, borrow, describe};

type Rates = (Py<PyArray1<f64>>, Py<PyArray1<f64>>);

/// Band-pass every row of `[rows, samples]`, forward and backward.
#[pyfunction]
pub(crate) fn band_pass(
    py: Python<'_>,
    accel: Bound<'_, PyAny>,
    rate_hz: f64,
    band_hz: (f64, f64),
) -> PyResult<Py<PyArray2<f64>>> {
    let accel = Recording::new(&accel, "accel")?;
    let rows = accel.rows("accel")?;
    let band = Band::new(band_hz, rate_hz).map_err(value_error)?;
    let filtered = py.detach(|| rows.iter().flat_map(|&row| band.filter(row)).collect::<Vec<_>>());
    PyArray1::from_vec(py, filtered).reshape([rows.len(), accel.samples()]).map(Bound::unbind)
}

/// Heart rate from the acceleration `[axes, samples]` of one recording.
#[pyfunction]
#[pyo3(signature = (accel, rate_hz, *, band_hz = RECOIL_BAND_HZ))]
pub(crate) fn recoil_rate(
    py: Python<'_>,
    accel: Bound<'_, PyAny>,
    rate_hz: f64,
    band_hz: (f64, f64),
) -> PyResult<(f64, f64)> {
    let accel = Recording::new(&accel, "accel")?;
    let axes = accel.rows("accel")?;
    let Recoil { hr_bpm, peak } = py.detach(|| recoil(&axes, rate_hz, band_hz)).map_err(value_error)?;
    Ok((hr_bpm, peak))
}

/// Heart rates from segments `[N, axes, 3840]`.
#[pyfunction]
#[pyo3(signature = (z, *, scale = None, band_hz = RECOIL_BAND_HZ, threads = 0))]
pub(crate) fn recoil_rates(
    py: Python<'_>,
    z: Bound<'_, PyAny>,
    scale: Option<Bound<'_, PyAny>>,
    band_hz: (f64, f64),
    threads: usize,
) -> PyResult<Rates> {
    let scale = match scale {
        None => None,
        Some(scale) => Some(borrow::<f64>(&scale, "scale")?.ok_or_else(|| {
            PyTypeError::new_err(format!("scale must be a NumPy array of float64, found {}", describe(&scale)))
        })?),
    };
    if let Some(z) = borrow::<f32>(&z, "z")? {
        rates(py, z, |row| SegmentSamples::F32(row), scale, band_hz, threads)
    } else if let Some(z) = borrow::<f64>(&z, "z")? {
        rates(py, z, |row| SegmentSamples::F64(row), scale, band_hz, threads)
    } else if let Some(z) = borrow::<f16>(&z, "z")? {
        rates(py, z, |row| SegmentSamples::F16(row), scale, band_hz, threads)
    } else {
        let dtype = describe(&z);
        Err(PyTypeError::new_err(format!("z must be a NumPy array of float16, float32 or float64, found {dtype}")))
    }
}

fn rates<T: Element>(
    py: Python<'_>,
    z: PyReadonlyArrayDyn<'_, T>,
    samples: for<'a> fn(&'a [T]) -> SegmentSamples<'a>,
    scale: Option<PyReadonlyArrayDyn<'_, f64>>,
    band_hz: (f64, f64),
    threads: usize,
) -> PyResult<Rates> {
    let (&[count, axes, OUTPUT_SAMPLES], true) = (z.shape(), z.shape().get(1) > Some(&0)) else {
        let shape = z.shape();
        return Err(PyValueError::new_err(format!(
            "z must have the shape [N, axes, {OUTPUT_SAMPLES}], found {shape:?}"
        )));
    };
    if let Some(shape) = scale.as_ref().map(|scale| scale.shape()).filter(|shape| *shape != [count, axes]) {
        return Err(PyValueError::new_err(format!("scale must have the shape [{count}, {axes}], found {shape:?}")));
    }
    let scale: Option<Vec<f64>> = scale.map(|scale| scale.as_array().iter().copied().collect());
    let view = z.as_array();
    let segments = view
        .rows()
        .into_iter()
        .map(|row| {
            row.to_slice().map(samples).ok_or_else(|| PyValueError::new_err("z has rows that are not contiguous"))
        })
        .collect::<PyResult<Vec<_>>>()?;
    let recoils =
        py.detach(|| recoil_batch(&segments, scale.as_deref(), axes, band_hz, threads)).map_err(value_error)?;
    let column = |value: fn(&Recoil) -> f64| PyArray1::from_iter(py, recoils.iter().map(value)).unbind();
    Ok((column(|recoil| recoil.hr_bpm), column(|recoil| recoil.peak)))
}

fn value_error(error: impl std::fmt::Display) -> PyErr {
    PyValueError::new_err(error.to_string())
}
