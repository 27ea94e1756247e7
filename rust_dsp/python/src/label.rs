//! `label` and `Labels`.

use half::f16;
use numpy::{Element, PyArray1, PyReadonlyArrayDyn, PyUntypedArrayMethods};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use rust_dsp_core::{OUTPUT_SAMPLES, SegmentSamples, label_batch};

use crate::input::{borrow, describe};

/// Labels of N segments.
#[pyclass(frozen, get_all, module = "rust_dsp")]
pub(crate) struct Labels {
    polarity: Py<PyArray1<i8>>,
    hr_bpm: Py<PyArray1<f64>>,
    sdnn_ms: Py<PyArray1<f64>>,
    rmssd_ms: Py<PyArray1<f64>>,
    agreement: Py<PyArray1<f64>>,
    template_correlation: Py<PyArray1<f64>>,
    coverage: Py<PyArray1<f64>>,
    intervals: Py<PyArray1<i64>>,
    pairs: Py<PyArray1<i64>>,
    good: Py<PyArray1<bool>>,
    beat_s: Vec<Py<PyArray1<f64>>>,
    beat_index: Vec<Py<PyArray1<i64>>>,
}

/// Beats, heart rate, variability and quality of segments `[N, 3840]`.
#[pyfunction]
#[pyo3(signature = (z, *, polarity = None, threads = 0))]
pub(crate) fn label(py: Python<'_>, z: Bound<'_, PyAny>, polarity: Option<i64>, threads: usize) -> PyResult<Labels> {
    let polarity = match polarity {
        None => None,
        Some(1) => Some(1.0),
        Some(-1) => Some(-1.0),
        Some(other) => return Err(PyValueError::new_err(format!("polarity must be 1, -1 or None, found {other}"))),
    };
    if let Some(z) = borrow::<f32>(&z, "z")? {
        label_segments(py, z, |row| SegmentSamples::F32(row), polarity, threads)
    } else if let Some(z) = borrow::<f64>(&z, "z")? {
        label_segments(py, z, |row| SegmentSamples::F64(row), polarity, threads)
    } else if let Some(z) = borrow::<f16>(&z, "z")? {
        label_segments(py, z, |row| SegmentSamples::F16(row), polarity, threads)
    } else {
        let dtype = describe(&z);
        Err(PyTypeError::new_err(format!("z must be a NumPy array of float16, float32 or float64, found {dtype}")))
    }
}

fn label_segments<T: Element>(
    py: Python<'_>,
    z: PyReadonlyArrayDyn<'_, T>,
    samples: for<'a> fn(&'a [T]) -> SegmentSamples<'a>,
    polarity: Option<f64>,
    threads: usize,
) -> PyResult<Labels> {
    let [_, OUTPUT_SAMPLES] = z.shape() else {
        return Err(PyValueError::new_err(format!(
            "z must have the shape [N, {OUTPUT_SAMPLES}], found {:?}",
            z.shape()
        )));
    };
    let view = z.as_array();
    let segments = view
        .rows()
        .into_iter()
        .map(|row| {
            row.to_slice().map(samples).ok_or_else(|| PyValueError::new_err("z has rows that are not contiguous"))
        })
        .collect::<PyResult<Vec<_>>>()?;
    let labels = py
        .detach(|| label_batch(&segments, polarity, threads))
        .map_err(|error| PyValueError::new_err(format!("no thread pool: {error}")))?;
    macro_rules! column {
        ($label:ident => $value:expr) => {
            PyArray1::from_iter(py, labels.iter().map(|$label| $value)).unbind()
        };
    }
    Ok(Labels {
        polarity: column!(label => label.polarity),
        hr_bpm: column!(label => label.hr_bpm),
        sdnn_ms: column!(label => label.sdnn_ms),
        rmssd_ms: column!(label => label.rmssd_ms),
        agreement: column!(label => label.agreement),
        template_correlation: column!(label => label.template_correlation),
        coverage: column!(label => label.coverage),
        intervals: column!(label => label.intervals as i64),
        pairs: column!(label => label.pairs as i64),
        good: column!(label => label.good),
        beat_s: labels.iter().map(|label| PyArray1::from_slice(py, &label.beat_s).unbind()).collect(),
        beat_index: labels
            .iter()
            .map(|label| PyArray1::from_iter(py, label.beat_index.iter().map(|&index| index as i64)).unbind())
            .collect(),
    })
}
