"""What a file holds: the device whose reader reads it, or a proposed mapping of its columns.

What the values say (units, rates, clocks, polarity) is measured and stands beside each line. What they do not say is a
line that is commented out, for who knows it to fill in: nothing is guessed in silence.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from accelkd.recordings.devices import DEVICES
from accelkd.recordings.listing import printable
from accelkd.recordings.mapping import PER_SECOND, STANDARD_GRAVITY_M_S2, Files, Time, is_table
from accelkd.recordings.participants import NAME_STEM
from accelkd.recordings.readers import Reader, Times, Unreadable
from accelkd.recordings.readers.columns import Columns, column_names, read_columns
from accelkd.recordings.readers.phone import has_known_name
from accelkd.recordings.timeline import MAX_BACK_S

Values = npt.NDArray[np.float64]

RATES_HZ = (5.0, 2048.0)  # of a stream whose unit of time is sought
UNIX_S = (9e8, 2.5e9)  # 1998 to 2049
MIN_SKEWNESS = 0.45  # of the slopes of a clear pulse; steps of a run reach 0.32
MIN_AGREEING = 0.85  # of the stretches of a channel whose slopes are skewed alike
_STRETCH_S = 10.0
_MAX_ROWS = 2_000_000
_MAX_PREAMBLE = 40  # lines before a header
_COUNTS_PER_G = [2**power for power in range(4, 16)]
_MAGIC = (
    (0, b"0       ", "edf", "an EDF or BDF file"),
    (0, b"\xffBIOSEMI", "edf", "a BDF file"),
    (0, b"Obj\x01", "embraceplus", "an Avro file"),
    (0, b"MD", "axivity", "a CWA file"),
    (0, b"Device Identity", "geneactiv", "a GENEActiv file"),
)
_TIME = (
    r"(?:(?:sensor|phone|unix|utc|system|device|local)[ _]?)?(?:date[ _]?)?time(?:[ _]?stamps?)?|ts|t|unix|epoch|date"
    r"|elapsed|seconds?(?:_elapsed)?|datetime"
)
_OPTICAL = r"(?:ppg|bvp|pleth|plethysmogra\w*|green|infra ?red|ir|red|led|pd|optical|sig ?ppg|blue)"
_DARK = r"(?:amb(?:ient)?|dark)"
_HEART_RATE = r"(?:hr|heart ?rate|bpm|pulse ?rate|hr ?bpm|bpm ?ecg)"
_INTERVAL = r"(?:ibi|rri?|r r|nni?|ppi|pp ?intervals?|rr ?intervals?|bbi|inter ?beat ?intervals?)"
_SESSION = r"(?:session|visit|trial|recording|run|ses)(?: ?(?:id|nr|no|number))?"
_SENSOR = r"(?:serial(?: ?(?:number|no|nr))?|(?:device|sensor) ?(?:id|serial|number))"
_EVENT = r"(?:events?|markers?|marks?|tags?|button)"
_RATE = r"(?:fs|rate|sampling ?rate|sample ?rate|sampling ?frequency|freq(?:uency)?|srate|hz)"
_NOT_ACCEL = re.compile(r"gyr|rot|mag|ang|quat|omega|orient|grav|^g·$|^g[ _]·|^m·$|^m[ _]·", re.IGNORECASE)
_FORMATS = (
    "%d.%m.%Y %H:%M:%S.%f",
    "%d.%m.%Y %H:%M:%S",
    "%d/%m/%Y %H:%M:%S.%f",
    "%d/%m/%Y %H:%M:%S",
    "%m/%d/%Y %H:%M:%S.%f",
    "%m/%d/%Y %H:%M:%S",
    "%Y/%m/%d %H:%M:%S.%f",
    "%Y/%m/%d %H:%M:%S",
    "%Y%m%d %H:%M:%S",
    "%Y-%m-%d %H:%M:%S:%f",
    "%H:%M:%S.%f",
    "%H:%M:%S",
)


@dataclass(frozen=True)
class _Clock:
    """The rows' times in seconds, as far as they can be read, and the lines of the mapping that say so."""

    time_s: Times | None
    lines: list[str]


def describe(file: Path) -> str:
    """Text to show: how to ingest a file that a reader knows, else a proposed `mapping.toml`.

    Raises ValueError for a file that is neither of a known format nor a table, and OSError.
    """
    if file.is_dir():
        raise ValueError(f"{file} is a folder: name one of its files")
    with file.open("rb") as opened:
        head = opened.read(1024)
    shown = printable(file.name)
    devices, doubts = _devices(file)
    if devices:
        lines = [f"# {shown} is read without a mapping:"]
        return "\n".join([*lines, *(f"#   accelkd ingest {device} <folder> --batch <id>" for device in devices)]) + "\n"
    for offset, magic, device, what in _MAGIC:
        if head[offset:].startswith(magic) and not is_table(file):
            return (
                f"# {shown} is {what}, and its name is not that of one: rename it as docs/devices.md says, then\n"
                + (f"#   accelkd ingest {device} <folder> --batch <id>\n")
            )
    if not is_table(file):
        detail = f": {doubts[0]}" if doubts else ""
        raise ValueError(f"{file}: neither of a known format nor a table of text, Parquet, Feather or MAT{detail}")
    try:
        files = _header(file)
        columns = read_columns(file, column_names(file, files), files)
    except Unreadable as error:
        raise ValueError(f"{file}: {error.detail}") from None
    return "\n".join([*_preface(shown, columns, doubts), *_mapping(file, columns, files.skip_rows)]) + "\n"


def devices_of(file: Path) -> list[str]:
    """Devices whose readers read the file, with the files beside it; without those that tables of a phone look like."""
    return _devices(file)[0]


def _devices(file: Path) -> tuple[list[str], list[str]]:
    """Devices whose readers read the file, with the files beside it; and why those that know its name do not."""
    beside = sorted(path for path in file.parent.iterdir() if path.is_file())
    devices, doubts = [], []
    for name, device in DEVICES.items():
        if device.reader is None or name == "table":
            continue
        if name == "phone" and not has_known_name(file):
            continue  # three axes beside a time: a mapping takes what stands beside them too
        try:
            reader = cast(Reader, import_module(f"accelkd.recordings.readers.{device.reader}"))
        except ImportError:
            continue  # of a format whose library is not installed
        sessions = [session for session in reader.find(beside).sessions if file in session.files]
        for session in sessions[:1]:
            try:
                reader.read(session)
                devices.append(name)
            except (Unreadable, OSError) as error:
                doubts.append(f"named as a file of {name}, but {error}")
    return devices, doubts


def _header(file: Path) -> Files:
    """How many lines stand before the header. Raises Unreadable where no line is one."""
    problem: Unreadable | None = None
    for skip_rows in range(_MAX_PREAMBLE):
        files = Files(skip_rows=skip_rows)
        try:
            if len(column_names(file, files)) > 1 or not skip_rows:
                return files
        except Unreadable as error:
            problem = problem or error
            if error.reason != "bad_header":
                break
    assert problem is not None
    raise problem


def _preface(shown: str, columns: Columns, doubts: Sequence[str]) -> list[str]:
    lines = [
        f"# A mapping of {shown}, proposed by its names and values. Check each line; fill in those marked FILL IN."
    ]
    lines += [f"# {printable(doubt, 200)}" for doubt in doubts]
    sizes = [
        f"{printable(name)} {_size(columns.values[name])}".strip() for name in columns.names if name in columns.values
    ]
    return [*lines, f"# It has: {', '.join(sizes[:60])}"]


def _size(column: Any) -> str:
    return f"({' x '.join(map(str, column.shape))})" if isinstance(column, np.ndarray) and column.ndim else ""


def _mapping(file: Path, columns: Columns, skip_rows: int) -> list[str]:
    names = [name for name in columns.names if name in columns.values]
    numeric = {name: values for name in names if (values := _numbers(columns, name)) is not None}
    axes, others = _axes(numeric)
    optical = [name for name in numeric if name not in axes and _is(name, _OPTICAL) and not _is(name, _DARK)]
    dark = [name for name in numeric if name not in axes and _is(name, _DARK)]
    suffix = "".join(path for path in file.suffixes[-2:] if not path[1:].isdigit()) or file.suffix
    lines = ["", "[files]", f"pattern = {_quoted(f'*{suffix}')}"]
    lines += [f"skip_rows = {skip_rows}  # lines before the header"] if skip_rows else []
    lines += _participant(columns, names)
    clock = _clock(columns, names, len(next(iter(numeric.values()))) if numeric else 0)
    lines += clock.lines
    rate_hz = None if clock.time_s is None else _rate(clock.time_s)
    rated = _rate_lines(clock, columns, numeric)
    if optical:
        lines += _ppg(optical, dark, numeric, rate_hz, rated)
    if axes:
        lines += _accel(axes, numeric, rated)
    else:
        lines += ["", "# No three columns x, y, z of an acceleration are known by their names", "# [accel]"]
        lines += ['# columns = ["x", "y", "z"]  # FILL IN, or leave it out', '# unit = "g"  # g, mg, m/s2 or counts']
    if not optical:
        lines += ["", "# No column of a PPG is known by its name", "# [ppg]"]
        taken = {*axes, *dark}
        rest = [name for name in numeric if name not in taken and numeric[name].size > 1 and not _is_known(name)]
        lines += [
            f"# columns = {_array(rest[:8] or ['green'])}  # FILL IN, or leave it out",
            "# polarity = 1  # 1 or -1",
        ]
    lines += [f"# {line}" for line in others]
    return lines + _reference(numeric, names, {*axes, *optical}, timed="[time]" in clock.lines)


def _is_known(name: str) -> bool:
    """Whether a column is a time, a reference or gyroscope by its name, and no optical channel."""
    kinds = (_HEART_RATE, _INTERVAL, _SESSION, _SENSOR, _EVENT)
    by_name = any(re.fullmatch(pattern, _spaced(name)) for pattern in kinds) or re.fullmatch(_TIME, _time_name(name))
    return bool(by_name) or re.search(r"gyr|mag|temp|batt|^#$", name, re.IGNORECASE) is not None


def _is(name: str, pattern: str) -> bool:
    """Whether a column's name is a word of a kind, alone or with numbers and others of it: `ppg_green_1`, `LED2`."""
    return any(re.fullmatch(pattern, word) for word in _words(name)) or re.fullmatch(pattern, _spaced(name)) is not None


def _spaced(name: str) -> str:
    last = name.rsplit(".", 1)[-1]
    return re.sub(r"[\W_\d]+", " ", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", _without_unit(last))).strip().casefold()


def _without_unit(name: str) -> str:
    """A name without units in brackets, in its own case."""
    return re.sub(r"\s*(?:\[[^]]*\]|\([^)]*\))", "", name.strip("\ufeff \t#\"'"))


def _words(name: str) -> list[str]:
    return _spaced(name).split()


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)  # a TOML string is a JSON string


def _array(names: Iterable[str]) -> str:
    return f"[{', '.join(map(_quoted, names))}]"


def _numbers(columns: Columns, name: str) -> Values | None:
    """A column of numbers; None for text, dates and what is nearly all blank."""
    column = columns.values[name]
    if not isinstance(column, np.ndarray) and pa.types.is_temporal(column.type):
        return None
    try:
        values = columns.numbers(name)
    except Unreadable:
        return None
    if values.ndim == 2 and values.shape[0] > values.shape[1]:
        values = values.T
    known = int(np.isfinite(values).sum())
    return values if known and (known > 1 or values.size == 1) else None


def _axes(numeric: Mapping[str, Values]) -> tuple[list[str], list[str]]:
    """The columns of the acceleration, or a matrix of it, and remarks on others that look like one."""
    matrices = [name for name, values in numeric.items() if values.ndim == 2 and len(values) == 3 and _is_accel(name)]
    if matrices:
        return matrices[:1], []
    templates: dict[str, dict[str, str]] = {}
    for name, values in numeric.items():
        if values.ndim != 1:
            continue
        plain = _without_unit(name)
        for index, letter in enumerate(plain):
            if letter.lower() in "xyz":
                templates.setdefault(f"{plain[:index]}·{plain[index + 1 :]}", {})[letter.lower()] = name
    triples = {key: found_axes for key, found_axes in templates.items() if len(found_axes) == 3}
    ranked = sorted((key for key in triples if not _NOT_ACCEL.search(key)), key=_accel_rank)
    if not ranked:
        return [], []
    chosen = [triples[ranked[0]][axis] for axis in "xyz"]
    remarks = [f"Not taken as the acceleration: {', '.join(triples[key].values())}" for key in ranked[1:]]
    return chosen, remarks


def _is_accel(name: str) -> bool:
    return re.search(r"acc|^a$", _spaced(name)) is not None


def _accel_rank(template: str) -> tuple[int, int]:
    without_gravity = re.search(r"lin|user|nograv", template, re.IGNORECASE) is not None
    named = 0 if re.search("acc", template, re.IGNORECASE) else 1 if re.match(r"a[ _.]?·", template.lower()) else 2
    return int(without_gravity), named


def _participant(columns: Columns, names: Sequence[str]) -> list[str]:
    lines = []
    naming = [name for name in names if re.fullmatch(NAME_STEM, re.sub(r"[\W_]+", "_", _without_unit(name)).casefold())]
    if naming:
        values = {value for value in columns.texts(naming[0], 1) if value}
        lines += ["", "[participant]", f"column = {_quoted(naming[0])}  # {len(values)} different in this file"]
    else:
        lines += [
            "",
            "# No column names the participant. By default the name of the folder or of the file does, where only one",
            "# of them can be it; else FILL IN one of:",
            "# [participant]",
            "# path = 1  # the first name below the ingested folder",
            '# file = "{participant}_*.csv"  # a part of the file\'s name',
        ]
    for title, pattern in (("session", _SESSION), ("sensor", _SENSOR)):
        fitting = [name for name in names if re.fullmatch(pattern, _spaced(name))]
        if fitting and fitting[0] not in naming[:1]:
            lines += ["", f"[{title}]", f"column = {_quoted(fitting[0])}"]
    return lines


def _clock(columns: Columns, names: Sequence[str], rows: int) -> _Clock:
    """The column of the rows' times."""
    dated = [name for name in names if _is_dated(columns.values[name])]
    named = [name for name in names if name not in dated and re.fullmatch(_TIME, _time_name(name))]
    lengths = {name: np.size(columns.values[name]) for name in named if isinstance(columns.values[name], np.ndarray)}
    candidates = dated + [name for name in named if name not in lengths or lengths[name] == rows]
    lines = ["", "# No column of times is known by its name: rows are samples at a rate, see rate_hz below"]
    for name in sorted(candidates, key=lambda name: "phone" in name.lower()):
        clock = _read_clock(columns, name)
        if clock is not None:
            others = [other for other in candidates if other != name]
            return _Clock(clock.time_s, clock.lines + [f"# Also a time: {_quoted(other)}" for other in others])
    return _Clock(None, lines)


def _is_dated(column: Any) -> bool:
    return not isinstance(column, np.ndarray) and pa.types.is_timestamp(column.type)


def _time_name(name: str) -> str:
    plain = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", _without_unit(name).rsplit(".", 1)[-1]).casefold()
    return re.sub(r"[ _-](?:ms|us|ns|s|sec|millis|unix|utc|iso)$", "", plain)


def _read_clock(columns: Columns, name: str) -> _Clock | None:
    start = ["", "[time]", f"column = {_quoted(name)}"]
    if _is_dated(columns.values[name]):
        time_s, absolute = columns.instants(Time(column=name))
        zone = [] if absolute else [_zone_line()]
        return _Clock(time_s, [*start, f"# dates of the file, {_rated(time_s)}", *zone])
    values = _numbers(columns, name)
    if values is not None:
        return _number_clock(values.ravel(), name, start)
    texts = [text for text in columns.texts(name, 1) if text][:1000]
    if not texts:
        return None
    time_s, absolute = columns.instants(Time(column=name, unit="iso8601"))
    if np.isfinite(time_s).sum() > 1:
        zone = [] if absolute else [_zone_line()]
        return _Clock(time_s, [*start, f'unit = "iso8601"  # {_rated(time_s)}', *zone])
    fitting = [text for text in _FORMATS if all(_fits(cell, text) for cell in texts)]
    if not fitting:
        return _Clock(None, [*start, '# format = "%d.%m.%Y %H:%M:%S"  # FILL IN, as in Python\'s strptime'])
    if len({text.replace("%m", "%d") for text in fitting}) < len(fitting):
        return _Clock(
            None, [*start, *(f"# format = {_quoted(text)}  # FILL IN: this or the other" for text in fitting)]
        )
    time_s, _ = columns.instants(Time(column=name, format=fitting[0]))
    zone = [_zone_line()] if "%Y" in fitting[0] else []
    return _Clock(time_s, [*start, f"format = {_quoted(fitting[0])}  # {_rated(time_s)}", *zone])


def _zone_line() -> str:
    return '# zone = "UTC"  # FILL IN where the dates are of a known zone (Europe/Berlin); else they are local'


def _fits(cell: str, text: str) -> bool:
    try:
        datetime.strptime(cell, text)
    except ValueError:
        return False
    return True


def _number_clock(values: Values, name: str, start: list[str]) -> _Clock | None:
    """Unit and epoch of times that are numbers: by their size, else by the rate that they would mean."""
    known = values[np.isfinite(values)]
    if len(known) < 2:
        return None
    middle = float(np.median(known))
    for unit, per_second in PER_SECOND.items():
        if UNIX_S[0] <= middle / per_second <= UNIX_S[1]:
            began = datetime.fromtimestamp(float(known[0]) / per_second, UTC)
            time_s = values / per_second
            lines = [f'unit = "{unit}"  # {_rated(time_s)}', f'epoch = "unix"  # began {began:%Y-%m-%d %H:%M:%S} UTC']
            return _Clock(time_s, [*start, *lines])
    rates = {unit: _rate(values / per_second) for unit, per_second in PER_SECOND.items()}
    fitting = {unit: rate for unit, rate in rates.items() if rate and RATES_HZ[0] <= rate <= RATES_HZ[1]}
    written = re.search(r"[\[( _](s|sec|ms|us|µs|ns)[\])]?$", name.strip().casefold())
    if written:
        unit = {"sec": "s", "µs": "us"}.get(written[1], written[1])
        fitting = {unit: fitting[unit]} if unit in fitting else fitting
    if len(fitting) == 1:
        (unit,) = fitting
        steps = np.unique(np.diff(known)[:1000])
        counter = " It may be a number of the row: then leave [time] out." if steps.tolist() == [1.0] else ""
        time_s = values / PER_SECOND[unit]
        lines = [f'unit = "{unit}"  # {_rated(time_s)}.{counter}', 'epoch = "start"  # no time since 1970']
        return _Clock(time_s, [*start, *lines])
    options = ", ".join(f"{unit} would be {rate:.4g} Hz" for unit, rate in rates.items() if rate)
    return _Clock(
        None, [*start, f'# unit = "s"  # FILL IN: {options or "its steps are no samples"}', 'epoch = "start"']
    )


def _rate(time_s: Times) -> float | None:
    """The rate that times mean, of the samples between which nothing is lost."""
    known = time_s[np.isfinite(time_s)][:_MAX_ROWS]
    stamps = np.unique(known)
    steps = np.diff(stamps)
    if not len(steps):
        return None
    forward = np.diff(known)
    usual = forward[(forward >= 0) & (forward < max(float(np.median(steps)) * 3, 1e-12))]
    if len(usual) < 2 or usual.mean() == 0 or (forward < -MAX_BACK_S).mean() > 0.4:
        return float(1 / np.median(steps))
    return float(1 / usual.mean())


def _rated(time_s: Times) -> str:
    rate_hz = _rate(time_s)
    return "no rate can be measured" if rate_hz is None else f"rows at {rate_hz:.4g} Hz"


def _rate_lines(clock: _Clock, columns: Columns, numeric: Mapping[str, Values]) -> list[str]:
    """`rate_hz` of streams where there is no time."""
    if any(line == "[time]" for line in clock.lines):
        return []
    rates = [name for name, values in numeric.items() if values.size == 1 and _is(name, _RATE)]
    if rates and any(isinstance(column, np.ndarray) for column in columns.values.values()):
        return [f"rate_hz = {_quoted(rates[0])}  # {numeric[rates[0]].item():g} in this file"]
    return ["# rate_hz = 50  # FILL IN: samples per second"]


def _ppg(
    optical: Sequence[str],
    dark: Sequence[str],
    numeric: Mapping[str, Values],
    rate_hz: float | None,
    rated: Sequence[str],
) -> list[str]:
    whole = all((values[np.isfinite(values)] % 1 == 0).all() for values in map(numeric.__getitem__, optical))
    lines = ["", "[ppg]", f"columns = {_array(optical)}"]
    lines.append(
        f'unit = "{"counts" if whole else "arbitrary"}"  # {"whole" if whole else "fractional"} numbers; only noted'
    )
    lines += rated
    scalar = [float(values.item()) for name, values in numeric.items() if values.size == 1 and _is(name, _RATE)]
    rate_hz = rate_hz or (scalar[0] if scalar else None)
    channels = [channel for name in optical for channel in np.atleast_2d(numeric[name])]
    signs = {_polarity(channel, rate_hz) for channel in channels} if rate_hz else {0}
    if len(signs) == 1 and (sign := signs.pop()):
        slope = "rises steeply" if sign > 0 else "falls steeply"
        lines.append(f"polarity = {sign}  # the pulse {slope}, as far as its slopes say")
    else:
        why = "its slopes do not say" if rate_hz else "it needs a rate"
        lines.append(f"# polarity = 1  # FILL IN if it is known: 1 if a beat is a steep rise, -1 a steep fall; {why}")
    if dark:
        lines.append(f"dark = {_array(dark)}  # light with the LEDs off, by its name")
    return lines


def _polarity(channel: Values, rate_hz: float) -> int:
    """1 if the steep slopes of a channel are rises, -1 if they are falls, 0 if neither is clear."""
    from scipy.signal import butter, sosfiltfilt
    from scipy.stats import skew

    filled = channel[np.isfinite(channel)][: int(600 * rate_hz)]
    stretch = int(_STRETCH_S * rate_hz)
    if len(filled) < 3 * stretch or rate_hz < 20:
        return 0
    sos = butter(2, (0.5, 8.0), "bandpass", fs=rate_hz, output="sos")
    slopes = np.diff(sosfiltfilt(sos, filled))
    count = len(slopes) // stretch
    skewness = skew(slopes[: count * stretch].reshape(count, stretch), axis=1)
    middle = float(np.median(skewness))
    if abs(middle) < MIN_SKEWNESS or (np.sign(skewness) == np.sign(middle)).mean() < MIN_AGREEING:
        return 0
    return 1 if middle > 0 else -1


def _accel(axes: Sequence[str], numeric: Mapping[str, Values], rated: Sequence[str]) -> list[str]:
    lines = ["", "[accel]", f"columns = {_array(axes)}"]
    samples = np.concatenate([np.atleast_2d(numeric[name]) for name in axes])
    offset = _offset(samples)
    norm = np.sqrt(((samples - offset) ** 2).sum(axis=0))
    norm = norm[np.isfinite(norm)]
    median = float(np.median(norm)) if len(norm) else np.nan
    said = f"the median norm is {median:.4g}"
    if 0.85 <= median <= 1.15:
        lines.append(f'unit = "g"  # {said}')
    elif 0.9 <= median / STANDARD_GRAVITY_M_S2 <= 1.1:
        lines.append(f'unit = "m/s2"  # {said}')
    elif 940 <= median <= 1015 or (offset == 0 and 1035 < median <= 1060):
        lines.append(f'unit = "mg"  # {said}')
    elif counts := [count for count in _COUNTS_PER_G if abs(median / count - 1) <= 0.08]:
        lines.append(f'unit = "counts"  # {said}, near a power of two')
        lines.append(f"counts_per_g = {counts[0]}  # check it: the device's manual says it")
        if counts[0] == 1024 and offset == 0 and median <= 1035:
            lines[-2:] = [f'# unit = "mg"  # FILL IN: {said}, mg or 1024 counts per g', "# counts_per_g = 1024"]
    elif median < 0.3:
        lines.append(f'# unit = "g"  # FILL IN: {said}: gravity seems to be removed, and accelkd needs it')
    else:
        lines.append(f'# unit = "counts"  # FILL IN: {said}, no known unit of 1 g')
        lines.append(f"# counts_per_g = {median:.0f}  # FILL IN, if the sensor was still for most of the time")
    if offset:
        lines.append(f"offset = {offset}  # raw values lie around it")
    return [*lines, *rated]


def _offset(samples: Values) -> int:
    """What was added to make counts unsigned: a power of two, in the middle of values that are never negative."""
    if np.nanmin(samples) < 0:
        return 0
    middle = float(np.nanmean(np.nanmedian(samples, axis=1)))
    return next((2**bits for bits in (15, 13, 12, 11, 9) if abs(middle / 2**bits - 1) < 0.25), 0)


def _reference(numeric: Mapping[str, Values], names: Sequence[str], taken: set[str], *, timed: bool) -> list[str]:
    lines = []
    rates = [
        name
        for name in numeric
        if name not in taken and numeric[name].size > 1 and re.fullmatch(_HEART_RATE, _spaced(name))
    ]
    intervals = [
        name
        for name in numeric
        if name not in taken and numeric[name].size > 1 and re.fullmatch(_INTERVAL, _spaced(name))
    ]
    if rates or intervals:
        lines += ["", "# [reference]  # FILL IN the source and remove the marks at the lines' beginnings"]
        lines.append('# source = "ecg"  # "ecg", or "device" where it comes from the PPG itself')
        lines += [f"# hr = {_quoted(rates[0])}"] if rates else []
        if intervals:
            values = numeric[intervals[0]]
            median = float(np.nanmedian(values[values > 0])) if (values > 0).any() else np.nan
            unit = "ms" if 250 <= median <= 2500 else "s" if 0.25 <= median <= 2.5 else ""
            lines.append(f"# ibi = {_quoted(intervals[0])}")
            lines.append(f'# ibi_unit = "{unit}"  # {"by" if unit else "FILL IN: s or ms; not clear by"} its values')
    events = [name for name in names if re.fullmatch(_EVENT, _spaced(name))]
    if events and timed:
        lines += ["", "[events]", f"column = {_quoted(events[0])}  # rows where it becomes other than blank and zero"]
    return lines
