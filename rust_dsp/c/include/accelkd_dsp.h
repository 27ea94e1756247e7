/* Signal processing of wearable accelerometers and PPG for phones and watches: docs/on-device.md.
 * Generated from rust_dsp/c/src/lib.rs: UPDATE_HEADER=1 cargo test */

#ifndef ACCELKD_DSP_H
#define ACCELKD_DSP_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

// Acceleration, three axes: frames of x, y and z, in g once scaled.
#define ACCELKD_ACCEL 0

// PPG: frames of one value per channel.
#define ACCELKD_PPG 1

// Dark slots of the PPG: frames of one value per slot.
#define ACCELKD_DARK 2

// Gate: the 95th percentile of the motion is below 0.05 g.
#define ACCELKD_GATE_STRICT 0

// Gate: the median of the motion is below 0.05 g.
#define ACCELKD_GATE_LOOSE 1

// Gate: all segments pass.
#define ACCELKD_GATE_OFF 2

// Samples of a row of a segment: 60 s at 64 Hz.
#define ACCELKD_SEGMENT_SAMPLES 3840

// What a function returns: 0, or why it did nothing; `accelkd_last_error` has the message.
typedef enum accelkd_result {
  // Done.
  ACCELKD_OK = 0,
  // No segment is finished: push more samples. No error.
  ACCELKD_NO_SEGMENT = 1,
  // An argument does not fit: settings, a signal that the stream does not have, a null pointer.
  ACCELKD_INVALID = 2,
  // More samples than there is room for: get the segments first, or push the other signals.
  ACCELKD_FULL = 3,
  // Samples after `accelkd_stream_end`.
  ACCELKD_ENDED = 4,
  // A bug of this library. The stream must only be freed.
  ACCELKD_PANIC = 5,
} accelkd_result;

// A stream. Threads may use different streams at the same time, and one stream one after the other.
typedef struct accelkd_stream accelkd_stream;

// A device and what is wanted of it. Start from `accelkd_settings_default()`.
typedef struct accelkd_settings {
  // Samples per second of the accelerometer, 20 to 2048; 0 without one.
  double accel_rate_hz;
  // Full scale of the accelerometer in g, exclusive; by default unlimited.
  double accel_low_g;
  // See `accel_low_g`.
  double accel_high_g;
  // Instant of the first accelerometer sample, in seconds after the first PPG frame; by default 0.
  double accel_start_s;
  // Frames per second of the PPG, 20 to 2048; 0 without PPG.
  double ppg_rate_hz;
  // Full scale of PPG and dark samples, exclusive; by default unlimited.
  double ppg_low;
  // See `ppg_low`.
  double ppg_high;
  // PPG channels.
  uint32_t ppg_channels;
  // Dark slots, up to 8; 0 without.
  uint32_t dark_slots;
  // Instant of each PPG channel inside its frame, in seconds, `[ppg_channels]`; NULL: all 0.
  const double *led_offsets_s;
  // Instant of each dark slot inside its frame, in seconds, `[dark_slots]`; NULL: one slot at 0.
  const double *dark_offsets_s;
  // Frames per second of the dark slots; 0: that of the PPG.
  double dark_rate_hz;
  // From the start of one segment to that of the next, in seconds, at least 0.1; by default 60.
  double hop_s;
  // How far one signal may be ahead of another, and what may be pushed between two segments, in seconds, 1 to 3600; by
  // default 5.
  double slack_s;
  // `ACCELKD_GATE_STRICT` (the default), `ACCELKD_GATE_LOOSE` or `ACCELKD_GATE_OFF`.
  uint32_t gate;
} accelkd_settings;

// Status and levels of one row of a segment.
typedef struct accelkd_channel {
  // Mean before detrending, in units of the samples; NaN if gaps reject the row.
  double level;
  // Standard deviation after the band-pass, in units of the samples; NaN if gaps reject the row.
  double ac_level;
  // Fraction of the samples that is missing.
  double missing;
  // 0 good, or bits: 2 a gap over 0.25 s, 4 over 2 % missing, 8 flat.
  uint8_t status;
} accelkd_channel;

// One finished segment; its pointers are valid until the next call that gets a segment or frees the stream.
typedef struct accelkd_segment {
  // 0 for the first segment.
  uint64_t number;
  // Start, in seconds after the first PPG frame, or without PPG after the first accelerometer sample.
  double start_s;
  // Index of the first accelerometer sample.
  uint64_t accel_start;
  // Index of the first PPG frame.
  uint64_t ppg_start;
  // Index of the first dark frame.
  uint64_t dark_start;
  // Median of the motion over seconds, in g; NaN without acceleration.
  double motion_median_g;
  // 95th percentile of the motion over seconds, in g; NaN without acceleration.
  double motion_p95_g;
  // Z-scored acceleration, `[3][3840]`; NULL without.
  const float *accel;
  // Of each axis; NULL without.
  const struct accelkd_channel *accel_channels;
  // Z-scored PPG, `[ppg_channels][3840]`; NULL without.
  const float *ppg;
  // Of each PPG channel; NULL without.
  const struct accelkd_channel *ppg_channels;
  // NULL if the segment may be given to a model, or why not: "motion", "accel_gap", "accel_missing", "accel_flat",
  // "ppg_gap", "ppg_missing", "ppg_flat". Never freed.
  const char *reason;
  // Whether the segment passes the motion gate.
  bool kept;
  // Whether the sensor lay still like a thing: it was hardly worn.
  bool lies_still;
} accelkd_segment;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// Settings without a signal and with the defaults of everything else.
struct accelkd_settings accelkd_settings_default(void);

// Make a stream, which reserves all its memory. On success `*stream` is to be freed by `accelkd_stream_free`; else NULL.
//
// # Safety
// `settings` and `stream` point to such values, and the offsets in the settings to as many as the settings say.
enum accelkd_result accelkd_stream_new(const struct accelkd_settings *settings,
                                       struct accelkd_stream **stream);

// Free a stream. NULL is allowed.
//
// # Safety
// `stream` is NULL, or came from `accelkd_stream_new` and was not freed.
void accelkd_stream_free(struct accelkd_stream *stream);

// Memory of a stream in bytes, which does not change; 0 for NULL.
//
// # Safety
// `stream` is NULL or a stream.
size_t accelkd_stream_memory_bytes(struct accelkd_stream *stream);

// Frames of a signal that may be pushed now: once all segments have been got at least those of `slack_s`, unless the
// signal is ahead of another one. 0 for a signal that the stream does not have.
//
// # Safety
// `stream` is NULL or a stream.
size_t accelkd_stream_room(struct accelkd_stream *stream, uint32_t signal);

// Push `frames` frames of a signal: one float of each row, then the next frame. NaN marks a lost sample.
//
// # Safety
// `stream` is NULL or a stream; `samples` points to as many floats as the frames have.
enum accelkd_result accelkd_stream_push(struct accelkd_stream *stream,
                                        uint32_t signal,
                                        const float *samples,
                                        size_t frames);

// Push `frames` frames of raw counts; a sample is `count * scale`. For acceleration the scale is g per count.
//
// # Safety
// `stream` is NULL or a stream; `counts` points to as many numbers as the frames have.
enum accelkd_result accelkd_stream_push_counts(struct accelkd_stream *stream,
                                               uint32_t signal,
                                               const int32_t *counts,
                                               size_t frames,
                                               float scale);

// Push `frames` lost frames of a signal.
//
// # Safety
// `stream` is NULL or a stream.
enum accelkd_result accelkd_stream_gap(struct accelkd_stream *stream, uint32_t signal, size_t frames);

// Say that no sample follows: the last segments may then lack up to 0.25 s of their end.
//
// # Safety
// `stream` is NULL or a stream.
enum accelkd_result accelkd_stream_end(struct accelkd_stream *stream);

// Get the next finished segment into `*segment`; `ACCELKD_NO_SEGMENT` until more samples are there. Call it after every
// push until it says so.
//
// # Safety
// `stream` is NULL or a stream; `segment` is NULL or points to memory for a segment.
enum accelkd_result accelkd_stream_next_segment(struct accelkd_stream *stream, struct accelkd_segment *segment);

// Heart rate in bpm from the acceleration of the last segment, without a model, and how sure it is, 0 to 1. Both are NaN
// where there is none: no acceleration, gaps, nothing that moves, no peak.
//
// # Safety
// `stream` is NULL or a stream; the others are NULL or point to a double.
enum accelkd_result accelkd_stream_heart_rate(struct accelkd_stream *stream,
                                              double *hr_bpm,
                                              double *peak);

// The message of the latest error in this thread, up to 255 bytes; empty before the first. Valid until the next error.
const char *accelkd_last_error(void);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* ACCELKD_DSP_H */
