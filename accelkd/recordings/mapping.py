"""What the columns of a table mean: a small TOML file beside a delivery, `mapping.toml`.

Sections, all optional but one of [ppg] and [accel] to read recordings; docs/own-recordings.md has whole examples:

    [files]         pattern, separator, decimal, skip_rows, names: which files, and how their text is to be read
    [participant]   column, path or file: where the participant is named
    [session]       column: recordings of one participant inside a file
    [sensor]        column: serial number of the device
    [time]          column, unit or format, epoch, zone: when each row was sampled
    [ppg]           columns, unit, polarity, dark
    [accel]         columns, unit, counts_per_g
    [reference]     source, hr, ibi, ibi_unit, beat
    [events]        column
    [participants]  columns of a table of ages, sexes, heights and weights, with their units and codes

Streams, reference and events may have their own `pattern`, `time` and `where`, and a `rate_hz` where there is no time.
A key that is not known is an error: a misspelt one would silently mean the default.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping as Dictionary
from collections.abc import Sequence
from datetime import date
from pathlib import Path, PurePath
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

STANDARD_GRAVITY_M_S2 = 9.80665
PER_G = {"g": 1.0, "mg": 1000.0, "m/s2": STANDARD_GRAVITY_M_S2}
PER_SECOND = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}
TEXT_SUFFIXES = (".csv", ".tsv", ".txt", ".dat")
COMPRESSED_SUFFIXES = (".gz", ".bz2", ".xz")
SUFFIXES = (*TEXT_SUFFIXES, ".parquet", ".feather", ".arrow", ".mat")


def _several(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _dated(value: object) -> object:
    try:
        return date.fromisoformat(value) if isinstance(value, str) else value
    except ValueError:
        return value  # the name of a column


_Name = Annotated[str, Field(min_length=1)]
_Names = Annotated[list[_Name], Field(min_length=1), BeforeValidator(_several)]
_Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_Number = Annotated[float, Field(allow_inf_nan=False)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Files(_Section):
    """Which files of a delivery are tables, and how text among them is written."""

    pattern: _Names | None = None  # matches the end of a file's path: `*.csv`, `ppg/*.csv`, `**/ppg*.csv`
    separator: Literal[",", ";", "\t", "|", " "] | None = None  # by default as the first lines have it
    decimal: Literal[".", ","] | None = None  # by default a comma where the separator is none
    skip_rows: Annotated[int, Field(ge=0)] = 0  # lines before the header
    names: _Names | None = None  # of the columns, where there is no header


class Participant(_Section):
    """Where the participant is named: in a column, in the N-th part of the path, or in the file's name."""

    column: _Name | None = None
    path: Annotated[int, Field(ge=1, le=99)] | None = None
    # `{participant}_*.csv`, also with `{session}`; with slashes it matches folders too
    file: _Names | None = None

    @model_validator(mode="after")
    def _only_one_place(self) -> Participant:
        if sum(place is not None for place in (self.column, self.path, self.file)) != 1:
            raise ValueError("name one of column, path and file")
        for pattern in self.file or []:
            if pattern.count("{participant}") != 1 or pattern.count("{session}") > 1:
                raise ValueError("file is a pattern with {participant} once and {session} at most once")
        return self


class Column(_Section):
    """A column that holds one thing of each row."""

    column: _Name


class Time(_Section):
    """When each row was sampled."""

    column: _Name
    unit: Literal["s", "ms", "us", "ns", "iso8601"] | None = None  # None: a column of dates, or `format`
    format: _Name | None = None  # of strptime: `%d.%m.%Y %H:%M:%S.%f`
    epoch: Literal["unix", "start"] = "start"  # what numbers count from; `start`: anything else
    zone: _Name | None = None  # of dates without one: `UTC`, `Europe/Berlin`; without it they are local

    @model_validator(mode="after")
    def _consistent(self) -> Time:
        if self.format and self.unit:
            raise ValueError("name one of unit and format")
        if self.epoch == "unix" and self.unit not in PER_SECOND:
            raise ValueError(f"an epoch is one of numbers: unit is one of {', '.join(PER_SECOND)}")
        if self.zone is not None:
            if self.unit in PER_SECOND:
                raise ValueError("zone is one of dates, not of numbers")
            try:
                ZoneInfo(self.zone)
            except (ValueError, LookupError, OSError):
                raise ValueError(f"zone {self.zone!r} is not known; one of them is Europe/Berlin") from None
        return self


class _Source(_Section):
    """Where a stream stands, if not in the files and with the time of all."""

    pattern: _Names | None = None
    time: Time | None = None
    where: dict[str, str] = {}  # only rows with these values in these columns
    rate_hz: _Rate | _Name | None = None  # where there is no time; the name of a number in a MAT file


class _Stream(_Source):
    columns: _Names
    offset: _Number = 0.0  # subtracted from the raw values
    range: Annotated[list[_Number], Field(min_length=2, max_length=2)] | None = None  # at or beyond: no sample


class Ppg(_Stream):
    """Optical channels."""

    unit: _Name = "arbitrary"
    polarity: Literal[1, -1] | None = None  # 1: the pulse is a steep rise, -1: a steep fall, None: decided per window
    dark: _Names | None = None  # channels with the LEDs off


class Accel(_Stream):
    """Acceleration: three columns x, y, z, or one matrix of a MAT file."""

    unit: Literal["g", "mg", "m/s2", "counts"]
    counts_per_g: _Rate | None = None

    @model_validator(mode="after")
    def _scaled(self) -> Accel:
        if (self.unit == "counts") != (self.counts_per_g is not None):
            raise ValueError('unit = "counts" goes with counts_per_g, and only it does')
        if len(self.columns) not in (1, 3):
            raise ValueError("columns are three, x, y and z, or one matrix of a MAT file")
        return self

    @property
    def per_g(self) -> float:
        return self.counts_per_g if self.counts_per_g is not None else PER_G[self.unit]


class Reference(_Source):
    """Heart rate, inter-beat intervals or beats that another sensor or the device itself measured."""

    source: Literal["ecg", "device"]
    hr: _Name | None = None  # beats per minute
    ibi: _Name | None = None  # intervals; a row's time is the interval's end
    ibi_unit: Literal["s", "ms"] | None = None
    beat: _Name | None = None  # instants, in the unit of the time
    start_s: _Number = 0.0  # of the first value, where there is no time

    @model_validator(mode="after")
    def _something(self) -> Reference:
        if not (self.hr or self.ibi or self.beat):
            raise ValueError("name one of hr, ibi and beat")
        if (self.ibi is None) != (self.ibi_unit is None):
            raise ValueError("ibi goes with ibi_unit, and only it does")
        return self


class Events(_Source):
    """Marks: each row of a file of their own, or rows where a column becomes other than blank and zero."""

    column: _Name | None = None

    @model_validator(mode="after")
    def _something(self) -> Events:
        if not (self.pattern or self.column):
            raise ValueError("name a column, or the pattern of a file of marks")
        return self


class Participants(_Section):
    """Columns of a table of participants, where their names do not say it."""

    name: _Name | None = None
    age: _Name | None = None
    age_unit: Literal["years", "months", "weeks", "days"] | None = None
    birth_date: _Name | None = None
    birth_year: _Name | None = None
    measured_on: Annotated[date | _Name, BeforeValidator(_dated)] | None = (
        None  # for an age from a birth date or year: a date, or a column of dates
    )
    sex: _Name | None = None
    sex_codes: dict[str, Literal["female", "male"]] | None = None
    height: _Name | None = None
    height_unit: Literal["m", "cm", "mm", "in", "ft"] | None = None
    weight: _Name | None = None
    weight_unit: Literal["kg", "g", "lb", "st"] | None = None
    bmi: _Name | None = None
    skin_tone: _Name | None = None  # Monk scale

    @model_validator(mode="after")
    def _age_has_a_date(self) -> Participants:
        if (self.birth_date or self.birth_year) and self.measured_on is None:
            raise ValueError("an age from birth needs measured_on: a date, or a column of dates")
        return self


class Mapping(_Section):
    """A whole mapping file."""

    files: Files = Files()
    participant: Participant | None = None
    session: Column | None = None
    sensor: Column | None = None
    time: Time | None = None
    ppg: Ppg | None = None
    accel: Accel | None = None
    reference: Reference | None = None
    events: Events | None = None
    participants: Participants | None = None

    @model_validator(mode="after")
    def _timed(self) -> Mapping:
        for name, stream in (("ppg", self.ppg), ("accel", self.accel)):
            if stream is not None and not (stream.time or self.time or stream.rate_hz):
                raise ValueError(f"[{name}] has neither a time nor rate_hz")
        if self.events is not None and not (self.events.time or self.time):
            raise ValueError("[events] has no time")
        return self

    @property
    def participant_from(self) -> str | None:
        """Where participants are named, as the parameter of `accelkd.recordings.ingest.ingest` says it."""
        if self.participant is None or self.participant.file:
            return None
        return "column" if self.participant.column else f"path:{self.participant.path}"


def read_mapping(path: Path) -> Mapping:
    """The mapping in a TOML file. Raises ValueError with the file, the key and what is allowed, OSError."""
    try:
        return parse_mapping(path.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError:
        raise ValueError(f"{path}: is not text in UTF-8") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def parse_mapping(text: str) -> Mapping:
    """The mapping of a TOML text. Raises ValueError with the key and what is allowed."""
    try:
        return Mapping.model_validate(tomllib.loads(text))
    except ValidationError as error:
        entries = sorted(error.errors(include_url=False), key=lambda entry: entry["type"] != "extra_forbidden")
        problems: dict[str, str] = {}  # a misspelt key before the one that is missing for it
        for entry in entries:
            key, problem = _problem(dict(entry))
            problems.setdefault(key, problem)
        raise ValueError("; ".join(problems.values())) from None


def _problem(error: dict[str, Any]) -> tuple[str, str]:
    """A key, and one line of what pydantic says about its value and what is allowed there."""
    keys = [str(part) for part in error["loc"]]
    names = [key for key in keys if re.fullmatch(r"\w+", key) and key not in ("float", "str", "date")]
    shown = ".".join(names)
    if error["type"] == "extra_forbidden":
        return shown, f"{shown}: unknown key; allowed: {', '.join(_allowed(error['loc'][:-1]))}"
    if error["type"] == "missing":
        return shown, f"{shown}: is missing"
    message = str(error["msg"]).removeprefix("Value error, ").removeprefix("Input should be ")
    return shown, f"{shown}: {message}" if shown else message


def _allowed(keys: Sequence[Any]) -> list[str]:
    """Keys of the section that `keys` lead to."""
    section: type[BaseModel] = Mapping
    for key in keys:
        for kind in _sections(section.model_fields[key].annotation):
            section = kind
    return list(section.model_fields)


def _sections(annotation: Any) -> list[type[BaseModel]]:
    kinds = getattr(annotation, "__args__", (annotation,))
    return [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]


def matches(patterns: Sequence[str], path: PurePath) -> bool:
    """Whether the end of a path, whole names, matches one of the patterns: `*` within a name, `**` across folders."""
    return any(_expression(pattern).fullmatch(path.as_posix()) for pattern in patterns)


def is_table(path: PurePath) -> bool:
    """Whether a file's suffix is one of a table, also where it is compressed."""
    suffixes = [suffix.lower() for suffix in path.suffixes[-2:]]
    if suffixes and suffixes[-1] in COMPRESSED_SUFFIXES:
        return len(suffixes) == 2 and suffixes[0] in TEXT_SUFFIXES
    return bool(suffixes) and suffixes[-1] in SUFFIXES


def named_by(patterns: Sequence[str], path: PurePath) -> Dictionary[str, str] | None:
    """What a path says by patterns with `{participant}` and `{session}`; None where it matches none.

    Raises ValueError where a name can be split in more than one way, since another way would be another participant.
    """
    for pattern in patterns:
        short, long = (_expression(pattern, greedy).fullmatch(path.as_posix()) for greedy in (False, True))
        if short and long:
            if short.groupdict() != long.groupdict():
                raise ValueError(f"{path.name} can be split by {pattern!r} in more than one way")
            return short.groupdict()
    return None


def _expression(pattern: str, greedy: bool = False) -> re.Pattern[str]:
    """A pattern as a regular expression of whole paths."""
    parts = re.split(r"(\*\*/?|\*|\?|\[[^]]+\]|\{participant\}|\{session\})", pattern)
    some = "+" if greedy else "+?"
    words = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    words |= {f"{{{name}}}": f"(?P<{name}>[^/]{some})" for name in ("participant", "session")}
    body = "".join(
        words.get(part, part.replace("[!", "[^") if part.startswith("[") else re.escape(part)) for part in parts
    )
    return re.compile(rf"(?:.*/)?{body}", re.IGNORECASE)
