/* Heart rate from a chest or wrist accelerometer, minute by minute, as a device would do it.
 *
 *   heart_rate RATE_HZ COUNTS_PER_G [HOP_S] < counts.csv
 *
 * Each line of the input is one sample: three integers, x,y,z. A line without three integers is a lost sample.
 * docs/on-device.md shows how to build it. */

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "accelkd_dsp.h"

enum { CHUNK = 64 }; /* frames, as a sensor's FIFO has them */

/* Here the segment would go to the model: float accel[3][3840], z-scored. */
static void embed(const accelkd_segment *segment) { (void)segment->accel; }

static int check(accelkd_result result) {
  if (result == ACCELKD_OK || result == ACCELKD_NO_SEGMENT) return result == ACCELKD_OK;
  fprintf(stderr, "%s\n", accelkd_last_error());
  exit(1);
}

static void print_segments(accelkd_stream *stream) {
  accelkd_segment segment;
  while (check(accelkd_stream_next_segment(stream, &segment))) {
    double hr_bpm, peak;
    check(accelkd_stream_heart_rate(stream, &hr_bpm, &peak));
    printf("%.3f s: %.3f bpm, peak %.4f, %s\n", segment.start_s, hr_bpm, peak, segment.reason ? segment.reason : "good");
    if (!segment.reason) embed(&segment);
  }
}

static void push(accelkd_stream *stream, const int32_t *counts, size_t frames, float g_per_count) {
  check(accelkd_stream_push_counts(stream, ACCELKD_ACCEL, counts, frames, g_per_count));
  print_segments(stream);
}

int main(int argc, char **argv) {
  if (argc < 3) {
    fprintf(stderr, "usage: %s RATE_HZ COUNTS_PER_G [HOP_S] < counts.csv\n", argv[0]);
    return 2;
  }
  accelkd_settings settings = accelkd_settings_default();
  settings.accel_rate_hz = atof(argv[1]);
  if (argc > 3) settings.hop_s = atof(argv[3]);
  const float g_per_count = (float)(1.0 / atof(argv[2]));
  accelkd_stream *stream;
  check(accelkd_stream_new(&settings, &stream));
  fprintf(stderr, "%zu bytes\n", accelkd_stream_memory_bytes(stream));

  int32_t counts[CHUNK][3];
  size_t frames = 0;
  char line[256];
  while (fgets(line, sizeof line, stdin)) {
    int x, y, z;
    if (sscanf(line, "%d,%d,%d", &x, &y, &z) == 3) {
      counts[frames][0] = x;
      counts[frames][1] = y;
      counts[frames][2] = z;
      if (++frames < CHUNK) continue;
    }
    const int lost = frames < CHUNK;
    push(stream, counts[0], frames, g_per_count);
    frames = 0;
    if (lost) {
      check(accelkd_stream_gap(stream, ACCELKD_ACCEL, 1));
      print_segments(stream);
    }
  }
  push(stream, counts[0], frames, g_per_count);
  check(accelkd_stream_end(stream));
  print_segments(stream);
  accelkd_stream_free(stream);
  return 0;
}
