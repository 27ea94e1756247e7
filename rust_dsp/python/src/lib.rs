//! `rust_dsp._native`: validates and converts arguments. `rust_dsp_core` computes, with the interpreter lock released.

mod input;
mod label;
mod landed;
mod plan;
mod recoil;
mod stream;
mod variability;

use pyo3::prelude::*;
use rust_dsp_core as core;

/// Native module of the package `rust_dsp`.
#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<plan::Plan>()?;
    module.add_class::<plan::Preprocessed>()?;
    module.add_class::<plan::Windows>()?;
    module.add_class::<stream::Stream>()?;
    module.add_class::<stream::Segment>()?;
    module.add_class::<label::Labels>()?;
    module.add_class::<variability::Variability>()?;
    module.add_function(wrap_pyfunction!(plan::motion, module)?)?;
    module.add_function(wrap_pyfunction!(label::label, module)?)?;
    module.add_function(wrap_pyfunction!(landed::parquet_pages, module)?)?;
    module.add_function(wrap_pyfunction!(landed::read_pages, module)?)?;
    module.add_function(wrap_pyfunction!(landed::norms_between, module)?)?;
    module.add_function(wrap_pyfunction!(landed::to_half, module)?)?;
    module.add_function(wrap_pyfunction!(variability::variability, module)?)?;
    module.add_function(wrap_pyfunction!(recoil::band_pass, module)?)?;
    module.add_function(wrap_pyfunction!(recoil::recoil_rate, module)?)?;
    module.add_function(wrap_pyfunction!(recoil::recoil_rates, module)?)?;
    // The rules of preprocessing that are numbers, for who carries them out elsewhere
    module.add("ACCEL_BAND_HZ", core::ACCEL_BAND_HZ)?;
    module.add("FIR_HALF", core::FIR_HALF)?;
    module.add("FLAT", core::FLAT)?;
    module.add("KAISER_BETA", core::KAISER_BETA)?;
    module.add("MAX_GAP_S", core::MAX_GAP_S)?;
    module.add("MAX_MISSING", core::MAX_MISSING)?;
    module.add("MAX_STILL_G", core::MAX_STILL_G)?;
    module.add("MIRROR", core::MIRROR)?;
    module.add("PPG_BAND_HZ", core::PPG_BAND_HZ)?;
    Ok(())
}
