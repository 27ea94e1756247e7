//! What landed recordings need before they are cut: their samples out of Parquet, their norms, and half precision.

use half::f16;
use half::slice::HalfFloatSliceExt;
use numpy::{PyArray1, PyArrayDyn, PyArrayMethods, PyReadonlyArray1, PyUntypedArrayMethods};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use rust_dsp_core as core;

use crate::input::{borrow, describe};

type PageFacts = (usize, usize, usize, usize, bool);
type Counts = (Py<PyArray1<i64>>, Py<PyArray1<i64>>);
type Edges = (Py<PyArray1<i32>>, Py<PyArray1<i32>>);

/// The pages of a column chunk.
#[pyfunction]
pub(crate) fn parquet_pages(chunk: PyReadonlyArray1<'_, u8>) -> PyResult<Option<Vec<PageFacts>>> {
    let facts = |page: core::Page| (page.start, page.compressed, page.uncompressed, page.samples, page.is_split);
    Ok(core::pages(chunk.as_slice()?).map(|pages| pages.into_iter().map(facts).collect()))
}

/// Read the bodies of pages into `out`.
#[pyfunction]
pub(crate) fn read_pages(
    py: Python<'_>,
    bodies: Vec<(PyReadonlyArray1<'_, u8>, usize, bool)>,
    complete: u8,
    out: Bound<'_, PyArray1<f32>>,
) -> PyResult<Option<Edges>> {
    let mut out = out.try_readwrite().map_err(|error| PyValueError::new_err(format!("out: {error}")))?;
    let mut rest = out.as_slice_mut()?;
    let bodies = bodies.iter().map(|(body, samples, is_split)| Ok((body.as_slice()?, *samples, *is_split)));
    let bodies = bodies.collect::<PyResult<Vec<_>>>()?;
    let edges = py.detach(|| {
        let (mut channels, mut recordings, mut before) = (Vec::new(), Vec::new(), 0);
        for (body, samples, is_split) in bodies {
            let (out, others) = std::mem::take(&mut rest).split_at_mut_checked(samples)?;
            core::read_page(body, is_split, complete, before, out, &mut channels, &mut recordings)?;
            (rest, before) = (others, before + samples);
        }
        let is_whole = rest.is_empty() && channels.first() == Some(&0) && recordings.first() == Some(&0);
        is_whole.then_some(())?;
        recordings.push(i32::try_from(channels.len()).ok()?);
        channels.push(i32::try_from(before).ok()?);
        Some((channels, recordings))
    });
    Ok(edges.map(|(channels, recordings)| {
        (PyArray1::from_vec(py, channels).unbind(), PyArray1::from_vec(py, recordings).unbind())
    }))
}

/// Samples that are there on all three axes, and those whose norm is between two limits.
#[pyfunction]
pub(crate) fn norms_between(
    py: Python<'_>,
    samples: PyReadonlyArray1<'_, f32>,
    start: Vec<usize>,
    length: Vec<usize>,
    limits: (f32, f32),
) -> PyResult<Counts> {
    let samples = samples.as_slice()?;
    if start.len() != length.len() {
        return Err(PyValueError::new_err(format!("{} starts, {} lengths", start.len(), length.len())));
    }
    let axes = |(&start, &length): (&usize, &usize)| {
        let rows = length.checked_mul(3).and_then(|all| samples.get(start..start.checked_add(all)?));
        let rows =
            rows.ok_or_else(|| PyValueError::new_err(format!("{start} + 3 · {length} is beyond the samples")))?;
        let ((x, rest), len) = (rows.split_at(length), length);
        Ok([x, &rest[..len], &rest[len..]])
    };
    let recordings = start.iter().zip(&length).map(axes).collect::<PyResult<Vec<_>>>()?;
    let counts: Vec<_> =
        py.detach(|| recordings.iter().map(|&axes| core::norms_between(axes, limits.0, limits.1)).collect());
    let column = |value: fn(&(usize, usize)) -> usize| {
        PyArray1::from_iter(py, counts.iter().map(|counts| value(counts) as i64)).unbind()
    };
    Ok((column(|counts| counts.0), column(|counts| counts.1)))
}

/// An array in half precision, rounded to nearest: a new one or `out`.
#[pyfunction]
#[pyo3(signature = (z, *, out = None))]
pub(crate) fn to_half<'py>(
    py: Python<'py>,
    z: Bound<'py, PyAny>,
    out: Option<Bound<'py, PyArrayDyn<f16>>>,
) -> PyResult<Bound<'py, PyArrayDyn<f16>>> {
    let array = borrow::<f32>(&z, "z")?
        .ok_or_else(|| PyTypeError::new_err(format!("z must be a NumPy array of float32, found {}", describe(&z))))?;
    let samples = array.as_slice().map_err(|_| PyValueError::new_err("z is not contiguous"))?;
    let half = match out {
        Some(out) if out.shape() == array.shape() && out.is_c_contiguous() && out.is_aligned() => out,
        Some(out) => {
            let (expected, found) = (array.shape(), out.shape());
            return Err(PyValueError::new_err(format!(
                "out must be a C-contiguous array of shape {expected:?}, found {found:?}"
            )));
        }
        // SAFETY: any bits are a valid number, and all of them are written below.
        None => unsafe { PyArrayDyn::new(py, array.shape(), false) },
    };
    half.try_readwrite()
        .map_err(|error| PyValueError::new_err(format!("out: {error}")))?
        .as_slice_mut()?
        .convert_from_f32_slice(samples);
    Ok(half)
}
