//! NumPy arrays as rows of samples, without a copy.

use numpy::ndarray::{ArrayViewD, Axis};
use numpy::{Element, PyArrayDyn, PyArrayMethods, PyReadonlyArrayDyn, PyUntypedArray, PyUntypedArrayMethods};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use rust_dsp_core::Samples;

/// A NumPy array of raw samples, borrowed for reading.
pub(crate) enum Array<'py> {
    I16(PyReadonlyArrayDyn<'py, i16>),
    I32(PyReadonlyArrayDyn<'py, i32>),
    F32(PyReadonlyArrayDyn<'py, f32>),
    F64(PyReadonlyArrayDyn<'py, f64>),
}

/// Borrow an array for reading; `None` if it has another dtype. `name` is for errors.
pub(crate) fn borrow<'py, T: Element>(
    object: &Bound<'py, PyAny>,
    name: &str,
) -> PyResult<Option<PyReadonlyArrayDyn<'py, T>>> {
    check_unmasked(object, name)?;
    let Ok(array) = object.cast::<PyArrayDyn<T>>() else { return Ok(None) };
    if !array.is_aligned() {
        return Err(PyValueError::new_err(format!("{name} is not aligned in memory")));
    }
    array.try_readonly().map(Some).map_err(|_| PyValueError::new_err(format!("{name} is being written to")))
}

/// Refuse a masked array: its mask would be lost, and what it hides would count as measured.
fn check_unmasked(object: &Bound<'_, PyAny>, name: &str) -> PyResult<()> {
    if object.hasattr("mask")? && object.hasattr("filled")? {
        return Err(PyTypeError::new_err(format!(
            "{name} is a masked array, whose mask would be lost: mark missing samples by `.filled(numpy.nan)`"
        )));
    }
    Ok(())
}

/// The dtype of an array, or the type of another object, for errors.
pub(crate) fn describe(object: &Bound<'_, PyAny>) -> String {
    match object.cast::<PyUntypedArray>() {
        Ok(array) => format!("dtype {}", array.dtype()),
        Err(_) => format!("{}", object.get_type()),
    }
}

impl<'py> Array<'py> {
    fn new(object: &Bound<'py, PyAny>, dimensions: usize, name: &str) -> PyResult<Self> {
        let array = if let Some(array) = borrow(object, name)? {
            Self::I16(array)
        } else if let Some(array) = borrow(object, name)? {
            Self::I32(array)
        } else if let Some(array) = borrow(object, name)? {
            Self::F32(array)
        } else if let Some(array) = borrow(object, name)? {
            Self::F64(array)
        } else {
            return Err(PyTypeError::new_err(format!(
                "{name} must be a NumPy array of int16, int32, float32 or float64, found {}",
                describe(object)
            )));
        };
        if array.shape().len() != dimensions {
            let shape = array.shape();
            return Err(PyValueError::new_err(format!(
                "{name} must have {dimensions} dimensions, found shape {shape:?}"
            )));
        }
        Ok(array)
    }

    fn shape(&self) -> &[usize] {
        match self {
            Self::I16(array) => array.shape(),
            Self::I32(array) => array.shape(),
            Self::F32(array) => array.shape(),
            Self::F64(array) => array.shape(),
        }
    }

    /// The rows of recording `index` of a 3-D array, or all rows of a 2-D array.
    fn rows(&self, index: Option<usize>, name: &str) -> PyResult<Vec<Samples<'_>>> {
        match self {
            Self::I16(array) => rows(array.as_array(), index, name, Samples::I16),
            Self::I32(array) => rows(array.as_array(), index, name, Samples::I32),
            Self::F32(array) => rows(array.as_array(), index, name, Samples::F32),
            Self::F64(array) => rows(array.as_array(), index, name, Samples::F64),
        }
    }
}

fn rows<'a, T>(
    array: ArrayViewD<'a, T>,
    index: Option<usize>,
    name: &str,
    samples: fn(&'a [T]) -> Samples<'a>,
) -> PyResult<Vec<Samples<'a>>> {
    let recording = match index {
        Some(index) => array.index_axis_move(Axis(0), index),
        None => array,
    };
    (0..recording.len_of(Axis(0)))
        .map(|row| {
            let row = recording.clone().index_axis_move(Axis(0), row);
            row.to_slice()
                .map(samples)
                .ok_or_else(|| PyValueError::new_err(format!("{name} has rows that are not contiguous")))
        })
        .collect()
}

/// One stream of a batch: `[N, rows, samples]`, or N arrays `[rows, samples]`.
pub(crate) enum Stream<'py> {
    Stacked(Array<'py>),
    Listed(Vec<Array<'py>>),
}

impl<'py> Stream<'py> {
    pub(crate) fn new(object: &Bound<'py, PyAny>, name: &str) -> PyResult<Self> {
        if object.cast::<PyUntypedArray>().is_ok() {
            return Ok(Self::Stacked(Array::new(object, 3, name)?));
        }
        let items = object.try_iter().map_err(|_| {
            PyTypeError::new_err(format!(
                "{name} must be a 3-D array or a list of 2-D arrays, found {}",
                describe(object)
            ))
        })?;
        let arrays =
            items.enumerate().map(|(index, item)| Array::new(&item?, 2, &format!("recording {index}: {name}")));
        arrays.collect::<PyResult<_>>().map(Self::Listed)
    }

    /// Number of recordings.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Stacked(array) => array.shape()[0],
            Self::Listed(arrays) => arrays.len(),
        }
    }

    /// Rows of the first recording, if there is one.
    pub(crate) fn rows_per_recording(&self) -> Option<usize> {
        match self {
            Self::Stacked(array) => Some(array.shape()[1]),
            Self::Listed(arrays) => arrays.first().map(|array| array.shape()[0]),
        }
    }

    pub(crate) fn rows(&self, recording: usize, name: &str) -> PyResult<Vec<Samples<'_>>> {
        let name = format!("recording {recording}: {name}");
        match self {
            Self::Stacked(array) => array.rows(Some(recording), &name),
            Self::Listed(arrays) => arrays[recording].rows(None, &name),
        }
    }
}

/// One stream of one recording: `[rows, samples]`.
pub(crate) struct Recording<'py>(Array<'py>);

impl<'py> Recording<'py> {
    pub(crate) fn new(object: &Bound<'py, PyAny>, name: &str) -> PyResult<Self> {
        Array::new(object, 2, name).map(Self)
    }

    /// Number of samples of each row.
    pub(crate) fn samples(&self) -> usize {
        self.0.shape()[1]
    }

    pub(crate) fn rows(&self, name: &str) -> PyResult<Vec<Samples<'_>>> {
        self.0.rows(None, name)
    }
}
