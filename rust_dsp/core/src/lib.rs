//! Preprocessing, windows and beat labels of wearable PPG and accelerometer recordings, and the heart's recoil in them.
//!
//! A [`Plan`] contains everything that depends on the device (filters, line responses, the schedule of its dark slots)
//! and is shared by threads; processing reads samples in place and writes each output once.
//! A [`Stream`] does the same with samples as they come. `docs/signal-processing.md` states the rules; each module
//! implements one of them.

mod bandpass;
mod beats;
mod dark;
mod design;
mod detrend;
mod gaps;
mod intervals;
mod label;
mod lanes;
mod load;
mod norms;
mod pages;
mod plan;
mod preprocess;
mod quality;
mod recoil;
mod resample;
mod samples;
mod stream;
mod sums;
mod threads;
mod validity;
mod windows;
mod zero_phase;
mod zscore;

pub use bandpass::MIRROR;
pub use design::{ACCEL_BAND_HZ, FIR_HALF, KAISER_BETA, PPG_BAND_HZ};
pub use gaps::{MAX_GAP_S, MAX_MISSING};
pub use intervals::{Variability, variability};
pub use label::{Label, SegmentSamples, label, label_batch};
pub use lanes::InstructionSet;
pub use norms::norms_between;
pub use pages::{Page, pages, read_page};
pub use plan::{Device, Plan, PlanError};
#[cfg(feature = "stages")]
#[doc(hidden)]
pub use preprocess::stages::time_stages;
pub use preprocess::{Channel, Destination, PreprocessError, Recording};
pub use recoil::{BatchError, RECOIL_BAND_HZ, Recoil, recoil, recoil_batch};
pub use samples::Samples;
pub use stream::{Reason, Segment, Signal, Stream, StreamError, StreamSettings};
pub use threads::ThreadsError;
pub use validity::Status;
pub use windows::{Gate, MAX_STILL_G, Window, WindowsError, motion};
pub use zero_phase::{Band, BandError};
pub use zscore::{FLAT, OutputSample};

/// Sampling rate of every output, in Hz.
pub const OUTPUT_RATE_HZ: usize = 64;
/// Length of a window, in seconds.
pub const WINDOW_S: usize = 60;
/// Samples of an output row.
pub const OUTPUT_SAMPLES: usize = OUTPUT_RATE_HZ * WINDOW_S;
