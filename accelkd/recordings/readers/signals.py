"""What the signals of a file are, by their labels and units, where the file names them itself."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from accelkd.recordings.readers import Signals

STANDARD_GRAVITY_M_S2 = 9.80665
PLAUSIBLE_G = (0.5, 2.0)  # median norm of a recording, as the validator has it
GRAVITY_G = (0.9, 1.1)  # of one whose unit is in doubt
_PPG = {"ppg", "pleth", "plet", "plethysmogram", "plethysmograph", "photoplethysmogram", "photoplethysmograph", "bvp"}
_NOT_PPG = {"ambient", "dark", "hr", "rate", "temp", "quality", "status", "time", "perfusion"}
_ECG = {"ecg", "ekg", "electrocardiogram", "ecgi", "ecgii", "ecgiii", "mli", "mlii", "mliii"}
_ECG_LEADS = {"i", "ii", "iii", "avr", "avl", "avf", "v", "v1", "v2", "v3", "v4", "v5", "v6"}  # with a voltage
_VOLTS = {"v", "mv", "uv", "µv", "nv"}
_ACCEL = {"acc", "accel", "accl", "acce", "acceleration", "accelerations", "accelerometer", "accelerometry", "a"}
_NOT_ACCEL = {"gyro", "gyr", "gyroscope", "mag", "magn", "magnetometer", "linear", "user", "jerk"}
_G_PER_M_S2 = 1 / STANDARD_GRAVITY_M_S2
_SPELLINGS = (
    (1.0, ("g", "gs", "g's", "gn", "g0", "gee", "gees", "gforce")),
    (1e-3, ("mg", "millig", "milligs", "milligravity")),
    (1e-6, ("ug", "µg")),
    (_G_PER_M_S2, ("m/s2", "ms-2", "m/s/s", "m.s-2", "mps2", "ms2", "m/(s2)", "meter/s2", "metre/s2")),
    (1e-2 * _G_PER_M_S2, ("cm/s2", "cms-2", "gal")),
    (1e-3 * _G_PER_M_S2, ("mm/s2", "mms-2")),
)
_G_PER_UNIT = {spelling: scale for scale, spellings in _SPELLINGS for spelling in spellings}


def g_per_unit(unit: str) -> float | None:
    """How many g a unit is, in any spelling (`m/s²`, `ms^-2`, `mG`, ...); None for counts and everything else."""
    plain = unit.casefold().replace("â²", "2").replace("²", "2").replace("⁻", "-").replace("−", "-")
    plain = re.sub(r"second|sec", "s", re.sub(r"[\s^*·_\"\[\]{}]", "", plain))
    return _G_PER_UNIT.get(plain)


def in_g(streams: Sequence[Signals], scales: Sequence[float], notes: list[str]) -> list[Signals]:
    """Acceleration `[3, samples]` of one sensor in g, from the units of its axes.

    Headers are wrong at times: where gravity is not 1 g in the unit that they say and is in another one, that counts,
    with a note.
    """
    scaled = [stream * np.array(scales)[:, None] for stream in streams]
    norm = np.concatenate([np.sqrt((stream**2).sum(axis=0)) for stream in scaled]) if scaled else np.empty(0)
    norm = norm[np.isfinite(norm)]
    if not norm.size or len(set(scales)) > 1:
        return scaled
    median = float(np.median(norm))
    if PLAUSIBLE_G[0] < median < PLAUSIBLE_G[1]:
        return scaled
    for name, scale in (("g", 1.0), ("mg", 1e-3), ("m/s^2", _G_PER_M_S2)):
        if GRAVITY_G[0] < median / scales[0] * scale < GRAVITY_G[1]:
            notes.append(f"the median norm is {median:.3g} g by the unit of the header: read as {name}")
            return [stream * scale for stream in streams]
    return scaled


@dataclass(frozen=True)
class Chosen:
    """Indices of the signals that make a recording, and what was left out."""

    ppg: tuple[int, ...] = ()
    accel: tuple[int, ...] = ()  # x, y, z
    accel_g_per_unit: tuple[float, ...] = ()
    ecg: int | None = None
    accel_problem: str = ""  # why there is no acceleration although there are axes
    notes: tuple[str, ...] = field(default=())


def choose(labels: Sequence[str], units: Sequence[str], rates_hz: Sequence[float]) -> Chosen:
    """Classify signals by label and unit.

    Channels of one stream have the rate of its first. Of several accelerometers the wrist's is taken, else the first;
    of several electrocardiogram leads the first.
    """
    notes = []
    optical = [number for number, label in enumerate(labels) if _is_ppg(label)]
    wrist = [number for number in optical if _at_wrist(labels[number])]
    if wrist and len(wrist) < len(optical):
        notes.append(f"{len(optical) - len(wrist)} PPG signals of another place left out")
        optical = wrist
    ppg = [number for number in optical if rates_hz[number] == rates_hz[optical[0]]]
    if len(ppg) < len(optical):
        notes.append(f"{len(optical) - len(ppg)} PPG signals of another rate left out")
    triples = _triples(labels, units)
    known = [axes for axes in triples if all(g_per_unit(units[axis]) for axis in axes)]
    known = [axes for axes in known if len({rates_hz[axis] for axis in axes}) == 1]
    problem = ""
    if triples and not known:
        problem = f"the unit of {labels[triples[0][0]]!r} is {units[triples[0][0]]!r}, expected g, mg or m/s^2"
    known.sort(key=lambda axes: not _at_wrist(labels[axes[0]]))
    if len(known) > 1:
        notes.append(f"{len(known) - 1} other accelerometers left out")
    ecgs = [number for number, label in enumerate(labels) if _is_ecg(label, units[number])]
    accel = known[0] if known else ()
    scales = tuple(g_per_unit(units[axis]) or 0.0 for axis in accel)
    return Chosen(tuple(ppg), accel, scales, ecgs[0] if ecgs else None, problem, tuple(notes))


def _words(label: str) -> list[str]:
    return re.findall(r"[a-z]+\d*|\d+", re.sub(r"([a-z])([A-Z])", r"\1 \2", label).casefold())


def _at_wrist(label: str) -> bool:
    return "wrist" in label.casefold()


def _is_ppg(label: str) -> bool:
    words = _words(label)
    return any(word.rstrip("0123456789") in _PPG for word in words) and not _NOT_PPG & set(words)


def _is_ecg(label: str, unit: str) -> bool:
    words = _words(label)
    if any(word.rstrip("0123456789") in _ECG for word in words):
        return not {"hr", "rate", "time", "quality"} & set(words)
    return unit.casefold() in _VOLTS and len(words) <= 2 and words[-1:] != [] and words[-1] in _ECG_LEADS


def _triples(labels: Sequence[str], units: Sequence[str]) -> list[tuple[int, int, int]]:
    """Signals of one accelerometer: the same label but for x, y and z, or three times the very same one."""
    groups: dict[str, dict[str, int]] = {}
    same: dict[str, list[int]] = {}
    for number, (label, unit) in enumerate(zip(labels, units, strict=True)):
        words = _words(label)
        if _NOT_ACCEL & {word.rstrip("0123456789") for word in words}:
            continue
        stem, axis = _axis(words)
        is_accel = bool(_ACCEL & {word.rstrip("0123456789") for word in stem}) or g_per_unit(unit) is not None
        if not is_accel:
            continue
        if axis:
            groups.setdefault(" ".join(stem), {}).setdefault(axis, number)
        else:
            same.setdefault(label.casefold().strip(), []).append(number)
    triples = [(axes["x"], axes["y"], axes["z"]) for axes in groups.values() if len(axes) == 3]
    triples += [(numbers[0], numbers[1], numbers[2]) for numbers in same.values() if len(numbers) == 3]
    return sorted(triples)


def _axis(words: Sequence[str]) -> tuple[list[str], str]:
    """The words of a label without its axis, and the axis: `acc_x`, `X-axis acceleration`, `AccelX`, `ax`."""
    rest = [word for word in words if word not in ("axis", "data", "chan", "channel")]
    for number, word in enumerate(rest):
        if word in ("x", "y", "z"):
            return [*rest[:number], *rest[number + 1 :]], word
        if word[-1:] in ("x", "y", "z") and word[:-1] in _ACCEL:
            return [*rest[:number], word[:-1], *rest[number + 1 :]], word[-1]
    return rest, ""
