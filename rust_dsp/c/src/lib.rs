//! C interface of `rust_dsp_core::Stream`; the header is `include/accelkd_dsp.h`, the page `docs/on-device.md`.
//!
//! No panic crosses the boundary: it becomes `ACCELKD_PANIC`. Messages of errors lie in fixed memory of each thread.

#![allow(non_camel_case_types, reason = "names of C")]

use std::cell::RefCell;
use std::ffi::c_char;
use std::fmt::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::{ptr, slice};

use rust_dsp_core::{
    Channel, Device, Gate, Plan, Reason, Recoil, Segment, Signal, Stream, StreamError, StreamSettings,
};

/// What a function returns: 0, or why it did nothing; `accelkd_last_error` has the message.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum accelkd_result {
    /// Done.
    ACCELKD_OK = 0,
    /// No segment is finished: push more samples. No error.
    ACCELKD_NO_SEGMENT = 1,
    /// An argument does not fit: settings, a signal that the stream does not have, a null pointer.
    ACCELKD_INVALID = 2,
    /// More samples than there is room for: get the segments first, or push the other signals.
    ACCELKD_FULL = 3,
    /// Samples after `accelkd_stream_end`.
    ACCELKD_ENDED = 4,
    /// A bug of this library. The stream must only be freed.
    ACCELKD_PANIC = 5,
}

use accelkd_result::*;

/// Acceleration, three axes: frames of x, y and z, in g once scaled.
pub const ACCELKD_ACCEL: u32 = 0;
/// PPG: frames of one value per channel.
pub const ACCELKD_PPG: u32 = 1;
/// Dark slots of the PPG: frames of one value per slot.
pub const ACCELKD_DARK: u32 = 2;

/// Gate: the 95th percentile of the motion is below 0.05 g.
pub const ACCELKD_GATE_STRICT: u32 = 0;
/// Gate: the median of the motion is below 0.05 g.
pub const ACCELKD_GATE_LOOSE: u32 = 1;
/// Gate: all segments pass.
pub const ACCELKD_GATE_OFF: u32 = 2;

/// Samples of a row of a segment: 60 s at 64 Hz.
pub const ACCELKD_SEGMENT_SAMPLES: usize = 3840;

/// A device and what is wanted of it. Start from `accelkd_settings_default()`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct accelkd_settings {
    /// Samples per second of the accelerometer, 20 to 2048; 0 without one.
    pub accel_rate_hz: f64,
    /// Full scale of the accelerometer in g, exclusive; by default unlimited.
    pub accel_low_g: f64,
    /// See `accel_low_g`.
    pub accel_high_g: f64,
    /// Instant of the first accelerometer sample, in seconds after the first PPG frame; by default 0.
    pub accel_start_s: f64,
    /// Frames per second of the PPG, 20 to 2048; 0 without PPG.
    pub ppg_rate_hz: f64,
    /// Full scale of PPG and dark samples, exclusive; by default unlimited.
    pub ppg_low: f64,
    /// See `ppg_low`.
    pub ppg_high: f64,
    /// PPG channels.
    pub ppg_channels: u32,
    /// Dark slots, up to 8; 0 without.
    pub dark_slots: u32,
    /// Instant of each PPG channel inside its frame, in seconds, `[ppg_channels]`; NULL: all 0.
    pub led_offsets_s: *const f64,
    /// Instant of each dark slot inside its frame, in seconds, `[dark_slots]`; NULL: one slot at 0.
    pub dark_offsets_s: *const f64,
    /// Frames per second of the dark slots; 0: that of the PPG.
    pub dark_rate_hz: f64,
    /// From the start of one segment to that of the next, in seconds, at least 0.1; by default 60.
    pub hop_s: f64,
    /// How far one signal may be ahead of another, and what may be pushed between two segments, in seconds, 1 to 3600; by
    /// default 5.
    pub slack_s: f64,
    /// `ACCELKD_GATE_STRICT` (the default), `ACCELKD_GATE_LOOSE` or `ACCELKD_GATE_OFF`.
    pub gate: u32,
}

/// Status and levels of one row of a segment.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct accelkd_channel {
    /// Mean before detrending, in units of the samples; NaN if gaps reject the row.
    pub level: f64,
    /// Standard deviation after the band-pass, in units of the samples; NaN if gaps reject the row.
    pub ac_level: f64,
    /// Fraction of the samples that is missing.
    pub missing: f64,
    /// 0 good, or bits: 2 a gap over 0.25 s, 4 over 2 % missing, 8 flat.
    pub status: u8,
}

/// One finished segment; its pointers are valid until the next call that gets a segment or frees the stream.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct accelkd_segment {
    /// 0 for the first segment.
    pub number: u64,
    /// Start, in seconds after the first PPG frame, or without PPG after the first accelerometer sample.
    pub start_s: f64,
    /// Index of the first accelerometer sample.
    pub accel_start: u64,
    /// Index of the first PPG frame.
    pub ppg_start: u64,
    /// Index of the first dark frame.
    pub dark_start: u64,
    /// Median of the motion over seconds, in g; NaN without acceleration.
    pub motion_median_g: f64,
    /// 95th percentile of the motion over seconds, in g; NaN without acceleration.
    pub motion_p95_g: f64,
    /// Z-scored acceleration, `[3][3840]`; NULL without.
    pub accel: *const f32,
    /// Of each axis; NULL without.
    pub accel_channels: *const accelkd_channel,
    /// Z-scored PPG, `[ppg_channels][3840]`; NULL without.
    pub ppg: *const f32,
    /// Of each PPG channel; NULL without.
    pub ppg_channels: *const accelkd_channel,
    /// NULL if the segment may be given to a model, or why not: "motion", "accel_gap", "accel_missing", "accel_flat",
    /// "ppg_gap", "ppg_missing", "ppg_flat". Never freed.
    pub reason: *const c_char,
    /// Whether the segment passes the motion gate.
    pub kept: bool,
    /// Whether the sensor lay still like a thing: it was hardly worn.
    pub lies_still: bool,
}

/// A stream. Threads may use different streams at the same time, and one stream one after the other.
pub struct accelkd_stream {
    stream: Stream,
    accel_channels: Vec<accelkd_channel>,
    ppg_channels: Vec<accelkd_channel>,
}

/// The message of the latest error, cut off where it does not fit.
struct Message {
    text: [u8; 256],
    len: usize,
}

impl Write for Message {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        for byte in part.bytes().take(self.text.len() - 1 - self.len) {
            self.text[self.len] = byte;
            self.len += 1;
        }
        Ok(())
    }
}

thread_local! {
    static MESSAGE: RefCell<Message> = const { RefCell::new(Message { text: [0; 256], len: 0 }) };
}

/// Keep the message of an error and return its code.
fn error(code: accelkd_result, message: impl fmt::Display) -> accelkd_result {
    MESSAGE.with_borrow_mut(|kept| {
        *kept = Message { text: [0; 256], len: 0 };
        // Cannot fail: what does not fit is cut off
        let _ = write!(kept, "{message}");
    });
    code
}

fn of_stream(result: Result<(), StreamError>) -> accelkd_result {
    match result {
        Ok(()) => ACCELKD_OK,
        Err(full @ StreamError::Full { .. }) => error(ACCELKD_FULL, full),
        Err(ended @ StreamError::Ended) => error(ACCELKD_ENDED, ended),
        Err(other) => error(ACCELKD_INVALID, other),
    }
}

/// Call `work` with the stream; a panic becomes a code.
///
/// # Safety
/// `stream` is null, or came from `accelkd_stream_new`, was not freed, and no other thread uses it meanwhile.
unsafe fn with(
    stream: *mut accelkd_stream,
    work: impl FnOnce(&mut accelkd_stream) -> accelkd_result,
) -> accelkd_result {
    // SAFETY: the caller says that it is null or points to a stream that nobody else uses.
    let Some(stream) = (unsafe { stream.as_mut() }) else { return error(ACCELKD_INVALID, "stream is NULL") };
    // After a panic the stream may only be freed, which the header says: no broken state is seen
    catch_unwind(AssertUnwindSafe(|| work(stream))).unwrap_or_else(|_| error(ACCELKD_PANIC, "a bug of accelkd_dsp"))
}

/// The values that a pointer of C points to; none for a length of 0. `None` for a null pointer.
///
/// # Safety
/// `values` is null, or points to `len` values that nobody writes to during `'a`.
unsafe fn values<'a, T>(values: *const T, len: usize) -> Option<&'a [T]> {
    match (values.is_null(), len) {
        (_, 0) => Some(&[]),
        (true, _) => None,
        // SAFETY: not null; the caller says that `len` values are there and stay.
        (false, _) => Some(unsafe { slice::from_raw_parts(values, len) }),
    }
}

fn signal(number: u32) -> Option<Signal> {
    match number {
        ACCELKD_ACCEL => Some(Signal::Accel),
        ACCELKD_PPG => Some(Signal::Ppg),
        ACCELKD_DARK => Some(Signal::Dark),
        _ => None,
    }
}

fn reason(reason: Reason) -> *const c_char {
    match reason {
        Reason::Motion => c"motion",
        Reason::PpgGap => c"ppg_gap",
        Reason::PpgMissing => c"ppg_missing",
        Reason::PpgFlat => c"ppg_flat",
        Reason::AccelGap => c"accel_gap",
        Reason::AccelMissing => c"accel_missing",
        Reason::AccelFlat => c"accel_flat",
    }
    .as_ptr()
}

impl accelkd_stream {
    fn new(settings: &accelkd_settings, led_offsets_s: Vec<f64>, dark_offsets_s: Vec<f64>) -> Result<Self, String> {
        let given = |rate_hz: f64| (rate_hz != 0.0).then_some(rate_hz);
        let gate = match settings.gate {
            ACCELKD_GATE_STRICT => Gate::Strict,
            ACCELKD_GATE_LOOSE => Gate::Loose,
            ACCELKD_GATE_OFF => Gate::Off,
            other => return Err(format!("gate must be 0, 1 or 2, found {other}")),
        };
        let ppg_channels = settings.ppg_channels as usize;
        let device = Device {
            ppg_rate_hz: given(settings.ppg_rate_hz),
            accel_rate_hz: given(settings.accel_rate_hz),
            dark_rate_hz: given(settings.dark_rate_hz),
            led_offsets_s,
            dark_offsets_s,
            ppg_range: (settings.ppg_low, settings.ppg_high),
            accel_range: (settings.accel_low_g, settings.accel_high_g),
        };
        let plan = Plan::new(device).map_err(|error| error.to_string())?;
        let stream = StreamSettings {
            ppg_channels: Some(ppg_channels),
            dark: settings.dark_slots > 0,
            hop_s: settings.hop_s,
            accel_start_s: settings.accel_start_s,
            gate,
            slack_s: settings.slack_s,
        };
        let stream = Stream::new(plan, stream).map_err(|error| error.to_string())?;
        let unknown = accelkd_channel { level: f64::NAN, ac_level: f64::NAN, missing: f64::NAN, status: 0 };
        let channels = |signal| vec![unknown; stream.rows(signal)];
        Ok(Self { accel_channels: channels(Signal::Accel), ppg_channels: channels(Signal::Ppg), stream })
    }

    /// The view of C on the next segment.
    fn next(&mut self) -> Option<accelkd_segment> {
        let segment: &Segment = self.stream.next_segment()?;
        let copy = |to: &mut [accelkd_channel], from: &[Channel]| {
            for (to, &Channel { status, level, ac_level, missing }) in to.iter_mut().zip(from) {
                *to = accelkd_channel { level, ac_level, missing, status: status.0 };
            }
        };
        copy(&mut self.accel_channels, &segment.accel_channels);
        copy(&mut self.ppg_channels, &segment.ppg_channels);
        fn start<T>(values: &[T]) -> *const T {
            if values.is_empty() { ptr::null() } else { values.as_ptr() }
        }
        Some(accelkd_segment {
            number: segment.number,
            start_s: segment.offset_s,
            accel_start: segment.accel_start,
            ppg_start: segment.ppg_start,
            dark_start: segment.dark_start,
            motion_median_g: segment.motion_median_g,
            motion_p95_g: segment.motion_p95_g,
            accel: start(&segment.accel),
            accel_channels: start(&self.accel_channels),
            ppg: start(&segment.ppg),
            ppg_channels: start(&self.ppg_channels),
            reason: segment.reason.map_or(ptr::null(), reason),
            kept: segment.kept,
            lies_still: segment.lies_still,
        })
    }
}

/// Settings without a signal and with the defaults of everything else.
#[unsafe(no_mangle)]
pub extern "C" fn accelkd_settings_default() -> accelkd_settings {
    accelkd_settings {
        accel_rate_hz: 0.0,
        accel_low_g: f64::NEG_INFINITY,
        accel_high_g: f64::INFINITY,
        accel_start_s: 0.0,
        ppg_rate_hz: 0.0,
        ppg_low: f64::NEG_INFINITY,
        ppg_high: f64::INFINITY,
        ppg_channels: 0,
        dark_slots: 0,
        led_offsets_s: ptr::null(),
        dark_offsets_s: ptr::null(),
        dark_rate_hz: 0.0,
        hop_s: 60.0,
        slack_s: 5.0,
        gate: ACCELKD_GATE_STRICT,
    }
}

/// Make a stream, which reserves all its memory. On success `*stream` is to be freed by `accelkd_stream_free`; else NULL.
///
/// # Safety
/// `settings` and `stream` point to such values, and the offsets in the settings to as many as the settings say.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn accelkd_stream_new(
    settings: *const accelkd_settings,
    stream: *mut *mut accelkd_stream,
) -> accelkd_result {
    // SAFETY: the caller says that both point to such values, or they are null.
    let (Some(settings), Some(stream)) = (unsafe { (settings.as_ref(), stream.as_mut()) }) else {
        return error(ACCELKD_INVALID, "settings or stream is NULL");
    };
    *stream = ptr::null_mut();
    let (channels, slots) = (settings.ppg_channels as usize, settings.dark_slots as usize);
    // SAFETY: the caller says that the offsets are NULL, or as many as the settings say.
    let (leds, dark) = unsafe { (values(settings.led_offsets_s, channels), values(settings.dark_offsets_s, slots)) };
    if dark.is_none() && slots > 1 {
        return error(ACCELKD_INVALID, "dark_offsets_s is NULL, which is for one slot");
    }
    let leds = leds.unwrap_or_default();
    let dark = dark.filter(|offsets| !offsets.is_empty()).unwrap_or(&[0.0]);
    let made = catch_unwind(AssertUnwindSafe(|| accelkd_stream::new(settings, leds.to_vec(), dark.to_vec())));
    match made {
        Ok(Ok(made)) => {
            *stream = Box::into_raw(Box::new(made));
            ACCELKD_OK
        }
        Ok(Err(message)) => error(ACCELKD_INVALID, message),
        Err(_) => error(ACCELKD_PANIC, "a bug of accelkd_dsp"),
    }
}

/// Free a stream. NULL is allowed.
///
/// # Safety
/// `stream` is NULL, or came from `accelkd_stream_new` and was not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn accelkd_stream_free(stream: *mut accelkd_stream) {
    if !stream.is_null() {
        // SAFETY: it came from Box::into_raw in `accelkd_stream_new`, and the caller frees it once.
        let stream = unsafe { Box::from_raw(stream) };
        // Dropping frees memory and nothing else; a panic would be kept here
        let _ = catch_unwind(AssertUnwindSafe(|| drop(stream)));
    }
}

/// Memory of a stream in bytes, which does not change; 0 for NULL.
///
/// # Safety
/// `stream` is NULL or a stream.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn accelkd_stream_memory_bytes(stream: *mut accelkd_stream) -> usize {
    let mut bytes = 0;
    let count = |stream: &mut accelkd_stream| {
        let channels = stream.accel_channels.capacity() + stream.ppg_channels.capacity();
        bytes = stream.stream.memory_bytes() + channels * size_of::<accelkd_channel>();
        ACCELKD_OK
    };
    // SAFETY: the caller's promise.
    unsafe { with(stream, count) };
    bytes
}

/// Frames of a signal that may be pushed now: once all segments have been got at least those of `slack_s`, unless the
/// signal is ahead of another one. 0 for a signal that the stream does not have.
///
/// # Safety
/// `stream` is NULL or a stream.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn accelkd_stream_room(stream: *mut accelkd_stream, signal: u32) -> usize {
    let mut room = 0;
    let ask = |stream: &mut accelkd_stream| {
        room = self::signal(signal).map_or(0, |signal| stream.stream.room(signal));
        ACCELKD_OK
    };
    // SAFETY: the caller's promise.
    unsafe { with(stream, ask) };
    room
}

/// Push `frames` frames of a signal: one float of each row, then the next frame. NaN marks a lost sample.
///
/// # Safety
/// `stream` is NULL or a stream; `samples` points to as many floats as the frames have.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn accelkd_stream_push(
    stream: *mut accelkd_stream,
    signal: u32,
    samples: *const f32,
    frames: usize,
) -> accelkd_result {
    // SAFETY: the caller's promise, for both.
    unsafe { push(stream, signal, samples, frames, |stream, signal, samples| stream.push_interleaved(signal, samples)) }
}

/// Push `frames` frames of raw counts; a sample is `count * scale`. For acceleration the scale is g per count.
///
/// # Safety
/// `stream` is NULL or a stream; `counts` points to as many numbers as the frames have.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn accelkd_stream_push_counts(
    stream: *mut accelkd_stream,
    signal: u32,
    counts: *const i32,
    frames: usize,
    scale: f32,
) -> accelkd_result {
    // SAFETY: the caller's promise, for both.
    unsafe { push(stream, signal, counts, frames, |stream, signal, counts| stream.push_counts(signal, counts, scale)) }
}

/// Hand `frames` frames at `samples` to `take`.
///
/// # Safety
/// `stream` is null or a stream; `samples` is null or points to as many values as the frames have.
unsafe fn push<T>(
    stream: *mut accelkd_stream,
    signal: u32,
    samples: *const T,
    frames: usize,
    take: impl FnOnce(&mut Stream, Signal, &[T]) -> Result<(), StreamError>,
) -> accelkd_result {
    let work = |handle: &mut accelkd_stream| {
        let Some(signal) = self::signal(signal) else { return error(ACCELKD_INVALID, "signal must be 0, 1 or 2") };
        let room = handle.stream.room(signal);
        if frames > room && handle.stream.rows(signal) > 0 {
            // Before the length in samples is computed, which might overflow
            return of_stream(Err(StreamError::Full { signal: signal.name(), room, samples: frames }));
        }
        // SAFETY: the caller says that so many values are there; they are read during this call alone.
        let Some(samples) = (unsafe { values(samples, frames * handle.stream.rows(signal)) }) else {
            return error(ACCELKD_INVALID, "samples is NULL");
        };
        of_stream(take(&mut handle.stream, signal, samples))
    };
    // SAFETY: the caller's promise.
    unsafe { with(stream, work) }
}

/// Push `frames` lost frames of a signal.
///
/// # Safety
/// `stream` is NULL or a stream.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn accelkd_stream_gap(stream: *mut accelkd_stream, signal: u32, frames: usize) -> accelkd_result {
    let work = |stream: &mut accelkd_stream| match self::signal(signal) {
        Some(signal) => of_stream(stream.stream.gap(signal, frames)),
        None => error(ACCELKD_INVALID, "signal must be 0, 1 or 2"),
    };
    // SAFETY: the caller's promise.
    unsafe { with(stream, work) }
}

/// Say that no sample follows: the last segments may then lack up to 0.25 s of their end.
///
/// # Safety
/// `stream` is NULL or a stream.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn accelkd_stream_end(stream: *mut accelkd_stream) -> accelkd_result {
    let work = |stream: &mut accelkd_stream| {
        stream.stream.end();
        ACCELKD_OK
    };
    // SAFETY: the caller's promise.
    unsafe { with(stream, work) }
}

/// Get the next finished segment into `*segment`; `ACCELKD_NO_SEGMENT` until more samples are there. Call it after every
/// push until it says so.
///
/// # Safety
/// `stream` is NULL or a stream; `segment` is NULL or points to memory for a segment.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn accelkd_stream_next_segment(
    stream: *mut accelkd_stream,
    segment: *mut accelkd_segment,
) -> accelkd_result {
    if segment.is_null() {
        return error(ACCELKD_INVALID, "segment is NULL");
    }
    let work = |stream: &mut accelkd_stream| match stream.next() {
        Some(next) => {
            // SAFETY: not null, and the caller says that there is memory for a segment; nothing there is read or dropped.
            unsafe { segment.write(next) };
            ACCELKD_OK
        }
        None => ACCELKD_NO_SEGMENT,
    };
    // SAFETY: the caller's promise.
    unsafe { with(stream, work) }
}

/// Heart rate in bpm from the acceleration of the last segment, without a model, and how sure it is, 0 to 1. Both are NaN
/// where there is none: no acceleration, gaps, nothing that moves, no peak.
///
/// # Safety
/// `stream` is NULL or a stream; the others are NULL or point to a double.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn accelkd_stream_heart_rate(
    stream: *mut accelkd_stream,
    hr_bpm: *mut f64,
    peak: *mut f64,
) -> accelkd_result {
    if hr_bpm.is_null() || peak.is_null() {
        return error(ACCELKD_INVALID, "hr_bpm or peak is NULL");
    }
    let work = |stream: &mut accelkd_stream| {
        let recoil: Recoil = stream.stream.heart_rate();
        // SAFETY: neither is null, and the caller says that both point to a double.
        unsafe {
            hr_bpm.write(recoil.hr_bpm);
            peak.write(recoil.peak);
        }
        ACCELKD_OK
    };
    // SAFETY: the caller's promise.
    unsafe { with(stream, work) }
}

/// The message of the latest error in this thread, up to 255 bytes; empty before the first. Valid until the next error.
#[unsafe(no_mangle)]
pub extern "C" fn accelkd_last_error() -> *const c_char {
    MESSAGE.with_borrow(|message| message.text.as_ptr().cast())
}
