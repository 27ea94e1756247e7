"""Any table: CSV, Parquet, Feather or MAT files whose columns a mapping names (`accelkd.recordings.mapping`)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from accelkd.recordings.mapping import Accel, Events, Mapping, Ppg, Reference, Time, is_table, matches, named_by
from accelkd.recordings.readers import Delivery, Reader, Recording, Session, Signals, Times, Unreadable
from accelkd.recordings.readers.columns import Columns, read_columns
from accelkd.recordings.timeline import MAX_BACK_S, Piece, assemble, place

MAX_EXACT = 2**24  # integers up to here are exact in float32, the type of recordings
MAX_RATE_DIFFERENCE = 0.02  # of the measured rate from the mapping's, before it is reported
MAX_TIME_S = 1e11  # of any clock; a larger number is none
_SHUFFLED = 0.01  # steps back per row, above which rows are shuffled and the clock was not reset
_STREAMS = ("ppg", "accel")
_TITLES = {"ppg": "PPG", "accel": "acceleration"}
_NO_MARK = frozenset({"0", "0.0", "false", "no"})
_NO_MAPPING = "a table needs a mapping: --mapping, or from Python reader=table_reader(read_mapping(path))"

_Section = Ppg | Accel | Reference | Events
_Key = tuple[str | None, str | None]  # participant and session, as columns name them


@dataclass(frozen=True)
class _Rows:
    """Rows of one section: values by time, and whose they are."""

    values: Signals  # [channels, rows]
    time_s: Times | None  # None: equally spaced at `rate_hz`
    clock: Literal["unix", "column", "start"]  # seconds since 1970, of a column's own clock, or from the start
    keys: Sequence[_Key] | None  # None: the file does not say
    rate_hz: float | None = None
    sensors: Sequence[str | None] | None = None

    def at(self, rows: npt.NDArray[np.intp]) -> _Rows:
        return replace(
            self, values=self.values[:, rows], time_s=None if self.time_s is None else self.time_s[rows], keys=None
        )


def table_reader(mapping: Mapping) -> Reader:
    """A reader of the tables that a mapping describes. Raises ValueError if it names no stream."""
    if mapping.ppg is None and mapping.accel is None:
        raise ValueError("the mapping has neither [ppg] nor [accel]")
    return _TableReader(mapping)


def find(files: Iterable[Path]) -> Delivery:
    """Raises ValueError where there is a file: without a mapping nothing says what its columns mean."""
    if not list(files):
        return Delivery(())
    raise ValueError(_NO_MAPPING)


def read(_session: Session) -> list[Recording]:
    """Raises ValueError: without a mapping nothing says what the columns mean."""
    raise ValueError(_NO_MAPPING)


@dataclass(frozen=True)
class _TableReader:
    mapping: Mapping

    @property
    def sections(self) -> dict[str, _Section]:
        named = {name: getattr(self.mapping, name) for name in (*_STREAMS, "reference", "events")}
        return {name: section for name, section in named.items() if section is not None}

    def find(self, files: Iterable[Path]) -> Delivery:
        """Each file is a session, unless streams have files of their own: then those of a folder or a name are."""
        tables = {path: names for path in sorted(files) if (names := self._sections_of(path))}
        naming = self.mapping.participant.file if self.mapping.participant else None
        by_file = all(section.pattern is None for section in self.sections.values())
        groups: dict[tuple[str, ...], list[Path]] = {}
        named: dict[tuple[str, ...], tuple[str | None, str | None]] = {}
        for path in tables:
            participant = contradiction = None
            key: tuple[str, ...] = (str(path),) if by_file else (str(path.parent),)
            if naming is not None:
                try:
                    words = named_by(naming, path)
                    participant = words["participant"] if words else None
                    contradiction = None if words else f"{path.name} is not named as {' or '.join(naming)}"
                    if words and not by_file:
                        key = (_base(naming, path), words["participant"], words.get("session") or "")
                except ValueError as error:
                    contradiction = str(error)
            groups.setdefault(key, []).append(path)
            named[key] = (participant, contradiction or named.get(key, (None, None))[1])
        sessions = []
        for key, members in groups.items():
            participant, contradiction = named[key]
            source = members[0] if by_file or naming is not None else members[0].parent
            several = [name for name in self.sections if sum(name in tables[path] for path in members) > 1]
            if several and not self.mapping.participant:
                contradiction = f"it has several files of [{several[0]}]: the mapping must say where the participant is"
            sessions.append(Session(source, tuple(members), participant, contradiction))
        return Delivery(tuple(sessions))

    def _sections_of(self, path: Path) -> set[str]:
        """The sections that a file belongs to: those with a pattern that it matches, else those without a pattern."""
        own = {name for name, entry in self.sections.items() if entry.pattern and matches(entry.pattern, path)}
        if own:
            return own
        pattern = self.mapping.files.pattern
        shared = is_table(path) if pattern is None else matches(pattern, path)
        return {name for name, entry in self.sections.items() if not entry.pattern} if shared else set()

    def read(self, session: Session) -> list[Recording]:
        """The recordings of each participant and session that the files name."""
        files = {path: self._sections_of(path) for path in session.files}
        if not any(name in names for names in files.values() for name in _STREAMS):
            raise Unreadable("missing_file", "no file of [ppg] or [accel] beside it")
        notes: list[str] = []
        problems: list[Unreadable] = []
        rows: dict[str, _Rows] = {}
        loaded: dict[Path, Columns] = {}
        for path, names in files.items():
            try:
                loaded[path] = read_columns(path, self._wanted(names), self.mapping.files)
            except (Unreadable, OSError) as error:
                problem = error if isinstance(error, Unreadable) else Unreadable("unreadable_file", str(error.strerror))
                problems.append(problem)
                notes.append(f"{path.name} left out: {problem.detail}")
        for name, section in self.sections.items():
            own = [loaded[path] for path in loaded if name in files[path]]
            parts: dict[str, list[_Rows]] = {}
            try:
                for columns in own:
                    for kind, part in self._parts(name, section, columns):
                        parts.setdefault(kind, []).append(part)
                rows |= {kind: _joined(name, several) for kind, several in parts.items()}
            except Unreadable as error:
                problems.append(error)
                notes.append(f"no {_TITLES.get(name, name)}: {error.detail}")
        for column in self._key_columns():
            if column and loaded and not any(column in columns.values for columns in loaded.values()):
                next(iter(loaded.values())).raw(column)  # raises: nothing says whose the rows are
        notes += [note for columns in loaded.values() for note in columns.notes]
        streams = {name: rows.pop(name) for name in _STREAMS if name in rows}
        if not streams:
            raise _most_telling(problems, session)
        recordings: list[Recording] = []
        for key, chosen in _by_key({**streams, **rows}):
            recordings += self._recordings(key, chosen, problems, notes)
        if not recordings:
            raise _most_telling(problems, session)
        first = replace(recordings[0], notes=(*dict.fromkeys(notes), *recordings[0].notes))
        return [first, *recordings[1:]]

    def _wanted(self, names: Collection[str]) -> list[str]:
        """The columns that the sections of a file need."""
        mapping = self.mapping
        wanted = [entry.column for entry in (mapping.participant, mapping.session, mapping.sensor) if entry]
        for name in names:
            section = self.sections[name]
            time = section.time or mapping.time
            wanted += [time.column if time else None, *section.where]
            wanted += [section.rate_hz if isinstance(section.rate_hz, str) else None]
            if isinstance(section, Ppg | Accel):
                wanted += [*section.columns, *((section.dark or ()) if isinstance(section, Ppg) else ())]
            elif isinstance(section, Reference):
                wanted += [section.hr, section.ibi, section.beat]
            else:
                wanted += [section.column]
        return list(dict.fromkeys(name for name in wanted if name))

    def _parts(self, name: str, section: _Section, columns: Columns) -> Iterator[tuple[str, _Rows]]:
        """What one file holds of a section, by kind: a stream, a kind of reference, or events."""
        if isinstance(section, Ppg | Accel):
            yield name, self._stream(section, columns)
        elif isinstance(section, Reference):
            for kind in ("hr", "ibi", "beat"):
                column = getattr(section, kind)
                if column is None:
                    continue
                try:
                    yield kind, self._reference(kind, column, section, columns)
                except Unreadable as error:
                    columns.notes.append(f"reference {kind} left out: {error.detail}")
        else:
            yield name, self._events(section, columns)

    def _stream(self, section: Ppg | Accel, columns: Columns) -> _Rows:
        dark = (section.dark or []) if isinstance(section, Ppg) else []
        values = _channels(columns, [*section.columns, *dark])
        if section.range:
            low, high = section.range
            values = np.where((values > low) & (values < high), values, np.nan)
        values = values - section.offset
        if isinstance(section, Accel):
            if len(values) != 3:
                raise Unreadable("channels", f"{columns.file}: expected 3 axes, found {len(values)} channels")
            values = values / section.per_g
        return self._timed(section, columns, values)

    def _reference(self, kind: str, column: str, section: Reference, columns: Columns) -> _Rows:
        values = columns.numbers(column).ravel()[None]
        time = section.time or self.mapping.time
        if kind == "beat":
            as_time = time or Time(column=column, unit="s")
            instants_s, absolute = columns.instants(as_time, column)
            rows = self._timed(section, columns, values, (instants_s, absolute))
            return rows if time else replace(rows, clock="start")
        if kind == "ibi" and section.ibi_unit == "ms":
            values = values / 1000
        if time is None or time.column not in columns.values:
            if kind == "ibi":
                instants_s = section.start_s + np.nancumsum(values[0])
            else:
                rate_hz = _rate_hz(section.rate_hz, columns)
                if rate_hz is None:
                    raise Unreadable("missing_time", f"{columns.file}: {kind} has neither a time nor rate_hz")
                instants_s = section.start_s + np.arange(values.shape[1]) / rate_hz
            rows = self._timed(section, columns, values, (instants_s, False))
            return replace(rows, clock="start")
        return self._timed(section, columns, values)

    def _events(self, section: Events, columns: Columns) -> _Rows:
        time = section.time or self.mapping.time
        assert time is not None  # as the mapping's rules say
        instants_s, absolute = columns.instants(time)
        marked = np.ones(len(instants_s), bool)
        if section.column is not None:
            cells = columns.texts(section.column, len(instants_s))
            before = [None, *cells[:-1]]
            marked = np.array(
                [
                    cell is not None and cell.lower() not in _NO_MARK and cell != previous
                    for cell, previous in zip(cells, before, strict=True)
                ],
                bool,
            )
        instants_s = np.where(marked, instants_s, np.nan)
        return self._timed(section, columns, instants_s[None], (instants_s, absolute))

    def _timed(
        self, section: _Section, columns: Columns, values: Signals, instants: tuple[Times, bool] | None = None
    ) -> _Rows:
        """Values with their times and keys, without the rows that `where` leaves out."""
        count = values.shape[1]
        if not count:
            raise Unreadable("empty_file", f"{columns.file} has no rows")
        rate_hz = _rate_hz(section.rate_hz, columns)
        time = section.time or self.mapping.time
        clock: Literal["unix", "column", "start"] = "start"
        if instants is None and time is not None and (time.column in columns.values or rate_hz is None):
            instants = columns.instants(time)
        elif instants is None and time is not None:
            columns.notes.append(f"{columns.file}: no column {time.column!r}: samples are placed by rate_hz")
        if instants is not None:
            if len(instants[0]) != count:
                raise Unreadable("unequal_lengths", f"{columns.file}: {count} samples at {len(instants[0])} times")
            clock = "unix" if instants[1] else "column"
        elif rate_hz is None:
            raise Unreadable("missing_time", f"{columns.file} has neither a time nor a rate")
        keys = self._keys(columns, count)
        sensors = None
        if self.mapping.sensor is not None and self.mapping.sensor.column in columns.values:
            sensors = columns.texts(self.mapping.sensor.column, count)
        time_s = None if instants is None else instants[0]
        if section.where:
            kept = np.ones(count, bool)
            for name, expected in section.where.items():
                kept &= np.array([cell == expected for cell in columns.texts(name, count)], bool)
            rows = np.flatnonzero(kept)
            values, time_s = values[:, rows], None if time_s is None else time_s[rows]
            keys = None if keys is None else [keys[row] for row in rows]
            sensors = None if sensors is None else [sensors[row] for row in rows]
        return _Rows(values, time_s, clock, keys, rate_hz, sensors)

    def _keys(self, columns: Columns, count: int) -> list[_Key] | None:
        """Participant and session of each row; None where the file has no such column."""
        wanted = self._key_columns()
        if not any(wanted) or any(name and name not in columns.values for name in wanted):
            return None
        participants, sessions = (columns.texts(name, count) if name else [None] * count for name in wanted)
        if len(participants) != count or len(sessions) != count:
            raise Unreadable("unequal_lengths", f"{columns.file}: participants and samples differ in number")
        return list(zip(participants, sessions, strict=True))

    def _key_columns(self) -> list[str | None]:
        entries = (self.mapping.participant, self.mapping.session)
        return [entry.column if entry else None for entry in entries]

    def _recordings(
        self, key: _Key, rows: dict[str, _Rows], problems: list[Unreadable], file_notes: list[str]
    ) -> list[Recording]:
        """Recordings of one participant and session."""
        notes: list[str] = []
        runs = _runs({name: entry for name, entry in rows.items() if name in _STREAMS}, notes)
        sensor = next((name for entry in rows.values() for name in entry.sensors or () if name), None)
        facts = Recording(
            ppg_polarity=self.mapping.ppg.polarity if self.mapping.ppg else None,
            dark_offsets_s=(0.0,) * len((self.mapping.ppg and self.mapping.ppg.dark) or ()),
            sensor_id=sensor,
            participant=key[0],
        )
        extras = {name: entry for name, entry in rows.items() if name not in _STREAMS}
        split = {name: _split_alike(name, entry, len(runs), notes) for name, entry in extras.items()}
        recordings: list[Recording] = []
        for number, streams in enumerate(runs):
            pieces: dict[str, list[Piece]] = {}
            for name, entry in streams.items():
                try:
                    pieces[name], corrected = _pieces(name, entry)
                    notes += corrected
                except Unreadable as error:
                    problems.append(error)
                    notes.append(f"no {_TITLES[name]}: {error.detail}")
            pieces = {name: several for name, several in pieces.items() if several}
            if not pieces:
                continue
            pieces, absolute = _on_one_clock(pieces, streams, notes)
            start_s = min(several[0].start_s for several in pieces.values())
            others = {name: parts[number] for name, parts in split.items() if parts}
            described = self._with_extras(facts, others, start_s, absolute, notes)
            ppg, accel = (pieces.get(name, []) for name in _STREAMS)
            dark = len(facts.dark_offsets_s or ()) if ppg else 0
            recordings += assemble(ppg, accel, described, dark_channels=dark, utc=absolute)
        if not recordings:
            file_notes += notes
            return []
        return [replace(recordings[0], notes=tuple(dict.fromkeys(notes))), *recordings[1:]]

    def _with_extras(
        self, facts: Recording, rows: dict[str, _Rows], start_s: float, absolute: bool, notes: list[str]
    ) -> Recording:
        """References and events on the clock of the streams, which began at `start_s`."""
        series: dict[str, tuple[Times, Times]] = {}
        for name, entry in rows.items():
            assert entry.time_s is not None  # a rate has become times
            shift_s = 0.0
            if entry.clock == "start" or (absolute and entry.clock == "column"):
                shift_s = start_s
                if entry.clock == "column":
                    notes.append(f"{name}: its times count from the start of the recording")
            elif entry.clock == "unix" and not absolute:
                notes.append(f"{name} left out: its times are absolute, those of the signals are not")
                continue
            known = np.isfinite(entry.time_s) & np.isfinite(entry.values[0])
            time_s, values = entry.time_s[known] + shift_s, entry.values[0][known]
            order = np.argsort(time_s, kind="stable")
            series[name] = _SERIES[name](name, time_s[order], values[order], notes)
        source = self.mapping.reference.source if self.mapping.reference else None
        has = {name: pair for name, pair in series.items() if len(pair[0])}
        return replace(
            facts,
            reference_source=source if has.keys() & {"hr", "ibi", "beat"} else None,
            reference_hr_s=has["hr"][0] if "hr" in has else None,
            reference_hr_bpm=has["hr"][1] if "hr" in has else None,
            reference_ibi_end_s=has["ibi"][0] if "ibi" in has else None,
            reference_ibi_s=has["ibi"][1] if "ibi" in has else None,
            reference_beat_s=has["beat"][0] if "beat" in has else None,
            event_s=has["events"][0] if "events" in has else None,
        )


def _most_telling(problems: Sequence[Unreadable], session: Session) -> Unreadable:
    """Why there is no recording: what was wrong with columns that were there, before columns that were not."""
    ordered = sorted(problems, key=lambda problem: problem.reason == "missing_column")
    if not ordered:
        return Unreadable("empty_file", f"{session.source.name} has no rows")
    reason, detail = ordered[0].reason, ordered[0].detail
    named = any(path.name in detail for path in session.files)
    return Unreadable(reason, detail if named else f"{session.source.name}: {detail}")


def _base(patterns: Sequence[str], path: Path) -> str:
    """The folder that a naming pattern begins below."""
    for pattern in patterns:
        if matches([pattern.replace("{participant}", "*").replace("{session}", "*")], path):
            depth = pattern.count("/")
            return "" if "**" in pattern or depth >= len(path.parents) else str(path.parents[depth])
    return str(path.parent)


def _channels(columns: Columns, names: Sequence[str]) -> Signals:
    """Columns, or rows of matrices, as `[channels, samples]`."""
    channels: list[npt.NDArray[np.float64]] = []
    for name in names:
        values = columns.numbers(name)
        if values.ndim == 2 and values.shape[0] > values.shape[1]:
            values = values.T
        if values.ndim > 2:
            raise Unreadable("wrong_column", f"{columns.file}: {name!r} has {values.ndim} dimensions")
        channels += list(np.atleast_2d(values))
    lengths = {len(channel) for channel in channels}
    if len(lengths) > 1:
        raise Unreadable("unequal_lengths", f"{columns.file}: channels of {sorted(lengths)} samples")
    return np.stack(channels)


def _rate_hz(rate: float | str | None, columns: Columns) -> float | None:
    """The rate of a mapping, or the number in a MAT file that it names."""
    if not isinstance(rate, str):
        return rate
    value = columns.numbers(rate).ravel()
    if len(value) == 0 or not (np.isfinite(value[0]) and value[0] > 0):
        raise Unreadable("rate", f"{columns.file}: {rate!r} is no rate")
    return float(value[0])


def _joined(name: str, parts: Sequence[_Rows]) -> _Rows:
    """Rows of several files of a section, after each other. Raises Unreadable where nothing says in which order."""
    first = parts[0]
    if len(parts) == 1:
        return first
    times = [part.time_s for part in parts if part.time_s is not None]
    if len(times) < len(parts) or len({part.clock for part in parts}) > 1:
        raise Unreadable("ambiguous_files", f"[{name}] has {len(parts)} files, and no time that orders them")
    if len({len(part.values) for part in parts}) > 1:
        raise Unreadable("channels", f"the files of [{name}] differ in the number of channels")
    keys = [part.keys for part in parts if part.keys is not None]
    sensors = [part.sensors for part in parts if part.sensors is not None]
    return replace(
        first,
        values=np.concatenate([part.values for part in parts], axis=1),
        time_s=np.concatenate(times),
        keys=[key for several in keys for key in several] if len(keys) == len(parts) else None,
        sensors=[sensor for several in sensors for sensor in several] if len(sensors) == len(parts) else None,
    )


def _by_key(rows: dict[str, _Rows]) -> Iterator[tuple[_Key, dict[str, _Rows]]]:
    """The rows of each participant and session, in the order of their first appearance in a stream."""
    codes: dict[_Key, int] = {}
    coded: dict[str, npt.NDArray[np.int64]] = {}
    for name, entry in rows.items():
        if entry.keys is None:
            continue
        if name not in _STREAMS:
            coded[name] = np.array([codes.get(key, -1) for key in entry.keys], np.int64)
        else:
            coded[name] = np.array([codes.setdefault(key, len(codes)) for key in entry.keys], np.int64)
    if not codes:
        codes[None, None] = 0
    order = {name: np.argsort(values, kind="stable") for name, values in coded.items()}
    edges = {name: np.searchsorted(coded[name][order[name]], np.arange(len(codes) + 1)) for name in coded}
    for key, code in codes.items():
        chosen: dict[str, _Rows] = {}
        for name, entry in rows.items():
            if name not in coded:
                if len(codes) > 1 and name in _STREAMS:
                    raise Unreadable("missing_column", f"[{name}] does not say whose its rows are, and others do")
                if len(codes) == 1:
                    chosen[name] = entry
                continue
            index = order[name][edges[name][code] : edges[name][code + 1]]
            if len(index):
                whose = None if entry.sensors is None else [entry.sensors[row] for row in index[:1]]
                chosen[name] = replace(entry.at(index), sensors=whose)
        yield key, chosen


def _runs(streams: dict[str, _Rows], notes: list[str]) -> list[dict[str, _Rows]]:
    """Streams, cut where their clock begins again; rows that are merely out of order are sorted."""
    split = {name: _resets(name, entry, notes) for name, entry in streams.items()}
    counts = {len(parts) for parts in split.values()}
    if counts == {1} or len(counts) == 1:
        return [{name: parts[number] for name, parts in split.items()} for number in range(counts.pop())]
    if all(entry.clock == "unix" for entry in streams.values()):
        return [streams]  # the times say what belongs together
    shown = " and ".join(f"{_TITLES[name]} {len(parts) - 1}" for name, parts in split.items())
    raise Unreadable("time_order", f"clocks that begin again a different number of times: {shown}")


def _resets(name: str, rows: _Rows, notes: list[str]) -> list[_Rows]:
    """Rows with a time, cut where it begins again; sorted where rows are merely out of order."""
    if rows.time_s is None:
        return [rows]
    title = _TITLES.get(name, name)
    with np.errstate(invalid="ignore"):
        kept = np.flatnonzero(np.abs(rows.time_s) < MAX_TIME_S)
    if len(kept) < len(rows.time_s):
        notes.append(f"{title}: {len(rows.time_s) - len(kept)} rows without a time left out")
    steps = np.diff(rows.time_s[kept])
    far = np.abs(steps) > MAX_BACK_S
    there_and_back = far[:-1] & far[1:] & (np.sign(steps[:-1]) != np.sign(steps[1:])) & (steps[:-1] + steps[1:] >= 0)
    odd = np.flatnonzero(there_and_back) + 1
    if 0 < len(odd) < _SHUFFLED * len(kept):
        notes.append(f"{title}: {len(odd)} rows with a time far from those around them left out")
        kept = np.delete(kept, odd)
    time_s = rows.time_s[kept]
    resets = np.flatnonzero(np.diff(time_s) < -MAX_BACK_S) + 1
    if not len(resets):
        return [rows if len(kept) == len(rows.time_s) else rows.at(kept)]
    runs = np.split(np.arange(len(kept)), resets)
    spans = sorted((float(time_s[run].min()), float(time_s[run].max())) for run in runs)
    apart = all(before[1] < after[0] for before, after in pairwise(spans))
    if apart or len(resets) > _SHUFFLED * len(kept):
        notes.append(f"{title}: rows out of order sorted by time")
        return [rows.at(kept[np.argsort(time_s, kind="stable")])]
    notes.append(f"{title}: the clock begins again {len(resets)} times")
    return [rows.at(kept[run]) for run in runs]


def _split_alike(name: str, rows: _Rows, count: int, notes: list[str]) -> list[_Rows]:
    """References or events, for each of `count` recordings; empty where it is not known to which they belong."""
    if count == 1:
        return [rows]
    if rows.clock == "unix":
        return [rows] * count
    parts = _resets(name, rows, [])
    if len(parts) == count:
        return parts
    notes.append(f"{name} left out: the signals' clock begins again, and its own not as often")
    return []


def _pieces(name: str, rows: _Rows) -> tuple[list[Piece], list[str]]:
    """Equally spaced samples of a stream."""
    values, notes = rows.values, []
    if not values.shape[1]:
        raise Unreadable("no_time", "no row has a time that can be read")
    filled = np.flatnonzero(np.isfinite(values).any(axis=0))
    if not len(filled):
        raise Unreadable("empty_stream", f"all of its {values.shape[1]} rows are blank")
    if name == "ppg" and np.nanmax(np.abs(values)) > MAX_EXACT:
        values = values - np.nanmedian(values, axis=1, keepdims=True)
        notes.append("PPG: above 2^24 counts, its median subtracted")
    if rows.time_s is None:
        assert rows.rate_hz is not None
        return [Piece(0.0, rows.rate_hz, values[:, : filled[-1] + 1])], notes
    # A blank row is another stream's sample where streams share a table, or a lost one: its time says which
    if len(filled) < values.shape[1]:
        rows, values = rows.at(filled), values[:, filled]
    assert rows.time_s is not None
    pieces, corrected = place(rows.time_s, values, name=_TITLES[name])
    if rows.rate_hz and (off := [p for p in pieces if abs(p.rate_hz / rows.rate_hz - 1) > MAX_RATE_DIFFERENCE]):
        corrected.append(f"{_TITLES[name]}: {off[0].rate_hz:.3f} Hz by its times, {rows.rate_hz:g} Hz by the mapping")
    return pieces, notes + corrected


def _on_one_clock(
    pieces: dict[str, list[Piece]], rows: dict[str, _Rows], notes: list[str]
) -> tuple[dict[str, list[Piece]], bool]:
    """Pieces of both streams, and whether their clock is absolute; a stream without times starts with the other."""
    clocks = {name: rows[name].clock for name in pieces}
    if len(set(clocks.values())) == 1:
        return pieces, "unix" in clocks.values()
    if "start" not in clocks.values():
        raise Unreadable("clocks", "the times of PPG and acceleration do not count from the same instant")
    timed = next(name for name in pieces if clocks[name] != "start")
    start_s = pieces[timed][0].start_s
    notes.append(f"the stream without times starts with the {_TITLES[timed]}")
    moved = {
        name: several if name == timed else [replace(piece, start_s=piece.start_s + start_s) for piece in several]
        for name, several in pieces.items()
    }
    return moved, clocks[timed] == "unix"


def _heart_rates(name: str, time_s: Times, values: Times, notes: list[str]) -> tuple[Times, Times]:
    """Heart rates that are known; of a value that stands in every row, one for each second."""
    known = values > 0
    if not known.all():
        notes.append(f"{name}: {(~known).sum()} values that are not positive left out")
    time_s, values = time_s[known], values[known]
    if len(time_s) > 1 and np.median(np.diff(time_s)) < 0.3:
        first = np.diff(np.floor(time_s), prepend=-np.inf) > 0
        time_s, values = time_s[first], values[first]
    return time_s, values


def _intervals(name: str, time_s: Times, values: Times, notes: list[str]) -> tuple[Times, Times]:
    """Inter-beat intervals; of a value that stands in every row until the next beat, the first row."""
    known = values > 0
    time_s, values = time_s[known], values[known]
    if len(time_s) > 1 and np.median(np.diff(time_s)) < 0.25 * np.median(values):
        first = np.diff(values, prepend=np.nan) != 0
        notes.append(f"{name}: repeated in every row, taken where it changes")
        time_s, values = time_s[first], values[first]
    return time_s, values


def _instants(_name: str, time_s: Times, values: Times, _notes: list[str]) -> tuple[Times, Times]:
    return time_s, values


_SERIES: dict[str, Callable[[str, Times, Times, list[str]], tuple[Times, Times]]] = {
    "hr": _heart_rates,
    "ibi": _intervals,
    "beat": _instants,
    "events": _instants,
}
