"""What a recording may be: limits that its rules and a first look at many recordings share."""

from __future__ import annotations

from datetime import UTC, datetime

RATES_HZ = (20.0, 2048.0)  # what rust_dsp resamples
# Median norm of the acceleration, exclusive: gravity, or running; m/s², mg, raw counts and a factor of two fall outside
ACCEL_NORM_G = (0.5, 2.0)
# When a recording can have begun: anonymised EDF files say 1985-01-01, a counter that ran over is centuries away
STARTED_AT = (datetime(1985, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC))
STARTED_AT_US = tuple(int(instant.timestamp() * 1e6) for instant in STARTED_AT)
