"""The device table: the facts that decide how a recording of a device is read, windowed and labelled."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Literal


@dataclass(frozen=True)
class Device:
    """One kind of sensor. Ranges are exclusive: a sample at or beyond a limit counts as missing.

    Any recording may lack a modality, whatever its device has.
    """

    device_id: str
    manufacturer: str
    ppg_channels: int | None  # 0: it has no PPG; None: it differs between recordings
    ppg_unit: str
    led_offsets_s: tuple[float, ...] = ()  # instant of each PPG channel inside its frame; empty: all at its start
    ppg_full_scale: tuple[float, float] = (-inf, inf)  # also of the dark slots; infinite where not documented
    accel_range_g: tuple[float, float] = (-inf, inf)
    # +1: systole is a steep rise; -1: raw reflected light, a steep fall; None: the beat finder decides per window
    polarity: Literal[1, -1] | None = None
    dark_slots: int | None = 0  # dark or ambient slots per frame; None: it differs between recordings
    reader: str | None = None  # module of accelkd.recordings.readers; None where no export format is read


def _simulated(placement: str, rate_hz: int) -> Device:
    """Four LEDs that fire one after the other, a fifth of a frame apart, after a dark slot; a 19-bit converter."""
    return Device(
        f"sim-{placement}-{rate_hz}",
        manufacturer="accelkd simulator",
        ppg_channels=4,
        ppg_unit="counts",
        led_offsets_s=tuple((slot + 1) / (5 * rate_hz) for slot in range(4)),
        ppg_full_scale=(0.0, 2.0**19),
        accel_range_g=(-16.0, 16.0),
        polarity=1,
        dark_slots=1,
    )


DEVICES: dict[str, Device] = {
    device.device_id: device
    for device in (
        _simulated("wrist", 64),
        _simulated("wrist", 256),
        _simulated("chest", 64),  # the acceleration alone: the light is the wrist's
        _simulated("chest", 256),
        # Acceleration in signed bytes of 1/64 g, with rails at -128 and 127
        Device("e4", "Empatica", 1, "arbitrary", (0.0,), accel_range_g=(-2.0, 127 / 64), polarity=1, reader="e4"),
        Device("bami", "BAMI Lab", 3, "counts", (0.0,) * 3, (0.0, 65535.0), (-8.0, 32767 / 4096), -1, reader="bami"),
        # A converter with rails near 0 and 2790 mV; the accelerometer saturates softly, without a rail
        Device("wrist-edf", "Shimmer", 1, "mV", (0.0,), (0.5, 2790.0), polarity=-1, reader="wrist_edf"),
        # Rails as seen in the recordings (the acceleration's are 511 and -512 counts of 0.0078 g); polarity varies
        Device("troika", "TROIKA", 2, "counts", (0.0,) * 2, (-1023.0, 1023.0), (-3.99, 3.98), reader="troika"),
        # The ambient light is sampled in the frame of the LEDs, at instants that are not documented
        Device("polar", "Polar", 3, "counts", (0.0,) * 3, polarity=-1, dark_slots=1, reader="polar"),
        # The peaks that the device marks are minima, after a steep fall
        Device("embraceplus", "Empatica", 1, "arbitrary", (0.0,), polarity=-1, reader="embraceplus"),
        Device("verily", "Verily", 1, "counts", (0.0,), reader="verily"),
        # Accelerometers; what lies at the range that a recording was set to, its reader marks as missing
        Device("axivity", "Axivity", 0, "none", reader="axivity"),
        Device("geneactiv", "Activinsights", 0, "none", reader="geneactiv"),
        Device("actigraph", "ActiGraph", 0, "none", reader="actigraph"),
        Device("matrix", "Parmay", 0, "none", reader="matrix"),
        Device("nilspod", "Portabiles", 0, "none", accel_range_g=(-16.0, 16.0), reader="nilspod"),
        Device("phone", "various", 0, "none", reader="phone"),
        # Files that say themselves what they hold
        Device("edf", "various", None, "arbitrary", dark_slots=None, reader="edf"),
        Device("wfdb", "various", None, "arbitrary", dark_slots=None, reader="wfdb"),
        Device("table", "various", None, "arbitrary", dark_slots=None, reader="table"),
    )
}
