//! `variability` and `Variability`.

use numpy::{PyReadonlyArrayDyn, PyUntypedArrayMethods};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use rust_dsp_core as core;

use crate::input::{borrow, describe};

/// Heart rate and its variability in one 60 s window.
#[pyclass(frozen, get_all, module = "rust_dsp")]
pub(crate) struct Variability {
    hr_bpm: f64,
    sdnn_ms: f64,
    rmssd_ms: f64,
    intervals: usize,
    pairs: usize,
    coverage: f64,
}

/// Heart rate, SDNN and RMSSD of inter-beat intervals.
#[pyfunction]
pub(crate) fn variability(py: Python<'_>, start_s: Bound<'_, PyAny>, end_s: Bound<'_, PyAny>) -> PyResult<Variability> {
    let (start_s, end_s) = (instants(&start_s, "start_s")?, instants(&end_s, "end_s")?);
    if start_s.len() != end_s.len() {
        let (starts, ends) = (start_s.len(), end_s.len());
        return Err(PyValueError::new_err(format!("start_s has {starts} values, end_s has {ends}")));
    }
    let core::Variability { hr_bpm, sdnn_ms, rmssd_ms, intervals, pairs, coverage } =
        py.detach(|| core::variability(&start_s, &end_s));
    Ok(Variability { hr_bpm, sdnn_ms, rmssd_ms, intervals, pairs, coverage })
}

/// A copy of an array of finite instants, which need not be contiguous.
fn instants(object: &Bound<'_, PyAny>, name: &str) -> PyResult<Vec<f64>> {
    let Some(array): Option<PyReadonlyArrayDyn<'_, f64>> = borrow(object, name)? else {
        let dtype = describe(object);
        return Err(PyTypeError::new_err(format!("{name} must be a NumPy array of float64, found {dtype}")));
    };
    let [_] = array.shape() else {
        let shape = array.shape();
        return Err(PyValueError::new_err(format!("{name} must have 1 dimension, found shape {shape:?}")));
    };
    let instants: Vec<f64> = array.as_array().iter().copied().collect();
    match instants.iter().position(|instant| !instant.is_finite()) {
        None => Ok(instants),
        Some(index) => {
            Err(PyValueError::new_err(format!("{name} must be finite, found {} at index {index}", instants[index])))
        }
    }
}
