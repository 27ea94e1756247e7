"""WFDB records, PhysioNet's format: a header `.hea`, signal files that it names, and annotations of beats.

Moody & Mark, https://physionet.org/physiotools/wag; read by the library `wfdb`. Start times have no zone.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from accelkd.recordings.listing import printable
from accelkd.recordings.readers import Delivery, Demographics, Recording, Session, Signals, Times, Unreadable
from accelkd.recordings.readers.ecg import reference_beats
from accelkd.recordings.readers.edf import WRIST_PPG
from accelkd.recordings.readers.signals import choose, in_g
from accelkd.recordings.timeline import MAX_GAP_S, Piece, assemble

ANNOTATORS = ("atr", "ecg", "qrs", "ari", "wqrs", "gqrs", "sqrs", "wabp")  # the first that has beats counts
_BEATS = frozenset("NLRBAaJSVrFejnE/fQ?")
_SIGNAL_FILES = (".dat", ".mat", ".xws")
_BITS = {"8": 8, "16": 16, "24": 24, "32": 32, "61": 16, "80": 8, "160": 16, "212": 12}  # of a sample, by format


def find(files: Iterable[Path]) -> Delivery:
    present = sorted(files)
    headers = [path for path in present if path.suffix.lower() == ".hea"]
    records = {path: _named_in(path) for path in headers}
    segments = {path.parent / f"{name}.hea" for path, names in records.items() for name in names}
    by_stem: dict[tuple[Path, str], list[Path]] = {}
    for path in present:
        by_stem.setdefault((path.parent, path.stem), []).append(path)
    sessions, used = [], set()
    for header in headers:
        names = {header.stem, *records[header]}
        if header in segments:
            continue
        listed = {header.parent / name for name in _signal_files(header, records)}
        paths = [path for name in sorted(names) for path in by_stem.get((header.parent, name), []) if _belongs(path)]
        paths += [path for path in present if path in listed and path not in paths]
        used.update(paths)
        match = WRIST_PPG.fullmatch(header.stem)
        sessions.append(
            Session(header, (header, *(path for path in paths if path != header)), match[1] if match else None)
        )
    companions = [
        path for path in present if path.name in ("RECORDS", "ANNOTATORS", "SHA256SUMS.txt") and path not in used
    ]
    return Delivery(tuple(sessions), tuple(companions))


def _belongs(path: Path) -> bool:
    suffix = path.suffix.lower()
    return suffix in (".hea", *_SIGNAL_FILES) or suffix.removeprefix(".") in ANNOTATORS


def _lines(header: Path) -> list[str]:
    try:
        text = header.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return [line for line in text.splitlines() if line.strip() and not line.startswith("#")]


def _named_in(header: Path) -> list[str]:
    """The segments that a header of several names."""
    lines = _lines(header)
    if not lines or not re.match(r"\S+/\d+\s", lines[0] + " "):
        return []
    return [line.split()[0] for line in lines[1:] if not line.startswith("~")]


def _signal_files(header: Path, records: dict[Path, list[str]]) -> list[str]:
    """The signal files that a header, and those of its segments, name."""
    if names := records.get(header):
        return [
            file
            for name in names
            if (segment := header.parent / f"{name}.hea") in records and segment != header
            for file in [line.split()[0] for line in _lines(segment)[1:]]
        ]
    return [line.split()[0] for line in _lines(header)[1:]]


def read(session: Session) -> list[Recording]:
    library = _library()
    header = session.source
    notes: list[str] = []
    parts, comments, frame_hz = _parts(library, session, notes)
    first = parts[0][1]
    labels, units, rates_hz = zip(
        *((signal.label, signal.unit, signal.rate_hz) for signal in first.values()), strict=True
    )
    chosen = choose(labels, units, rates_hz)
    notes += chosen.notes
    if not chosen.ppg and not chosen.accel:
        if chosen.accel_problem:
            raise Unreadable("accel_unit", f"{header.name}: {chosen.accel_problem}")
        raise Unreadable("wrong_signals", f"{header.name} has no PPG or acceleration by its labels and units")
    if chosen.accel_problem:
        notes.append(f"acceleration left out: {chosen.accel_problem}")
    keys = list(first)
    ppg = _pieces(parts, [keys[number] for number in chosen.ppg])
    accel = _pieces(parts, [keys[number] for number in chosen.accel])
    scaled = in_g([piece.samples for piece in accel], chosen.accel_g_per_unit, notes)
    accel = [replace(piece, samples=samples) for piece, samples in zip(accel, scaled, strict=True)]
    beat_s = _annotated(library, session, frame_hz, notes)
    if beat_s is None and chosen.ecg is not None:
        beat_s = reference_beats(_pieces(parts, [keys[chosen.ecg]]), notes)
    facts = Recording(
        reference_source=None if beat_s is None else "ecg",
        reference_beat_s=beat_s,
        demographics=_demographics(comments),
        notes=tuple(notes),
    )
    return assemble(ppg, accel, facts, utc=False)


@dataclass(frozen=True)
class _Signal:
    label: str
    unit: str
    rate_hz: float
    samples: Signals  # [samples]


_Part = tuple[float, dict[tuple[str, int], _Signal]]  # start in s, signals by label and the number of that label


def _pieces(parts: Sequence[_Part], keys: Sequence[tuple[str, int]]) -> list[Piece]:
    """Signals of one rate over all segments that have them, NaN between, pieces where the gap is long."""
    pieces: list[Piece] = []
    for start_s, signals in parts:
        if not keys or any(key not in signals for key in keys):
            continue
        rate_hz = signals[keys[0]].rate_hz
        samples = np.stack([signals[key].samples for key in keys])
        last = pieces[-1] if pieces else None
        if last is None or last.rate_hz != rate_hz or start_s - last.end_s > MAX_GAP_S:
            pieces.append(Piece(start_s, rate_hz, samples))
            continue
        gap = np.full((len(keys), max(round((start_s - last.end_s) * rate_hz), 0)), np.nan)
        pieces[-1] = replace(last, samples=np.concatenate([last.samples, gap, samples], axis=1))
    return pieces


def _parts(library: Any, session: Session, notes: list[str]) -> tuple[list[_Part], list[str], float]:
    """The segments of a record, or the whole as one, with the comments and frames per second of its header.

    A segment that cannot be read is a gap. Raises Unreadable if none can.
    """
    header = session.source
    _check_delivered(session, header, [header.with_suffix(".hea").name])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            described = library.rdheader(str(header.with_suffix("")))
        frame_hz = float(described.fs)
        if not 0 < frame_hz < 1e6:
            raise ValueError("no rate")
        comments = [str(comment) for comment in described.comments or ()]
        segments = [(header.stem, 0)]
        if hasattr(described, "seg_name"):
            starts = np.cumsum([0, *described.seg_len[:-1]]).tolist()
            names = zip(described.seg_name, described.seg_len, starts, strict=True)
            segments = [(str(name), int(start)) for name, length, start in names if length and name != "~"]
    except Exception as error:  # damaged headers make the library raise nearly anything
        raise Unreadable(
            "unreadable_file", f"{header.name}: {type(error).__name__} while reading the header"
        ) from error
    parts: list[_Part] = []
    errors = []
    for name, start in segments:
        try:
            parts.append((start / frame_hz, _signals(library, session, f"{name}.hea", notes)))
        except Unreadable as error:
            errors.append(error)
    if not parts:
        raise errors[0] if errors else Unreadable("empty_stream", f"{header.name} names no segments")
    notes += [f"a gap: {error}" for error in errors]
    return parts, comments, frame_hz


def _check_delivered(session: Session, header: Path, names: Iterable[str]) -> None:
    """Raise Unreadable if a header names what is not a file of its session: a link, a FIFO, a file elsewhere.

    The library opens whatever is named.
    """
    for name in names:
        if header.parent / name not in session.files:
            raise Unreadable("missing_file", f"{header.name} names {printable(name, 100)!r}, which is not there")


def _signals(library: Any, session: Session, segment: str, notes: list[str]) -> dict[tuple[str, int], _Signal]:
    """All signals of a record of one segment, in their units. Raises Unreadable.

    A signal file that is shorter than its header says is read up to its end.
    """
    _check_delivered(session, session.source, [segment])
    header = session.source.parent / segment
    name = str(header.with_suffix(""))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            described = library.rdheader(name)
            _check_delivered(session, header, described.file_name or ())
            sampto = _complete_frames(described, header.parent)
            if sampto is not None:
                notes.append(f"{header.name}: its signals end after {sampto} of {described.sig_len} samples")
            record = library.rdrecord(name, sampto=sampto, smooth_frames=False)
            signals: dict[tuple[str, int], _Signal] = {}
            for number, samples in enumerate(record.e_p_signal):
                label = str(record.sig_name[number])
                again = sum(other == label for other, _ in signals)
                rate_hz = float(record.fs) * int(record.samps_per_frame[number])
                unit = str(record.units[number])
                signals[label, again] = _Signal(label, unit, rate_hz, np.asarray(samples, np.float64))
            if not signals or not all(len(signal.samples) for signal in signals.values()):
                raise ValueError("no samples")
    except Unreadable:
        raise
    except Exception as error:  # damaged headers and files make the library raise nearly anything
        raise Unreadable(
            "unreadable_file", f"{header.name}: {type(error).__name__} while reading the record"
        ) from error
    return signals


def _library() -> Any:
    try:
        return import_module("wfdb")
    except ImportError:
        raise Unreadable("missing_library", "WFDB records need wfdb: install accelkd[formats]") from None


def _complete_frames(described: Any, folder: Path) -> int | None:
    """How many frames the signal files hold, where that is less than the header says; None where it is not."""
    frames = []
    for name in set(described.file_name or ()):
        in_file = [number for number, other in enumerate(described.file_name) if other == name]
        bits = [_BITS.get(str(described.fmt[number])) for number in in_file]
        if not (folder / name).is_file() or any(bit is None for bit in bits):
            continue
        offset = int(described.byte_offset[in_file[0]] or 0)
        per_frame = sum(
            (bit or 0) * int(described.samps_per_frame[number]) for bit, number in zip(bits, in_file, strict=True)
        )
        frames.append(max((folder / name).stat().st_size - offset, 0) * 8 // per_frame)
    known = min(frames, default=None)
    return known if known is not None and described.sig_len and known < described.sig_len else None


def _annotated(library: Any, session: Session, frame_hz: float, notes: list[str]) -> Times | None:
    """Instants of the annotated beats; None where there are none."""
    name = str(session.source.with_suffix(""))
    for annotator in ANNOTATORS:
        if session.source.with_suffix(f".{annotator}") not in session.files or annotator == "wabp":
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                annotation = library.rdann(name, annotator)
        except Exception as error:  # damaged annotations make the library raise nearly anything
            notes.append(f"{session.source.stem}.{annotator} left out: {type(error).__name__} while reading it")
            continue
        samples: npt.NDArray[np.int64] = np.asarray(annotation.sample, np.int64)
        is_beat = np.array([symbol in _BEATS for symbol in annotation.symbol], bool)
        if is_beat.any():
            rate_hz = float(annotation.fs or frame_hz)
            beat_s: Times = np.unique(samples[is_beat]) / rate_hz
            return beat_s
    return None


def _demographics(comments: Sequence[str]) -> Demographics | None:
    """Age and sex, where a comment names them, as PhysioNet's headers do: `Age: 32  Sex: M`, `<age>: 32`."""
    text = " ".join(comments)
    age = re.search(r"\bage>?\s*[:=]?\s*(\d{1,3}(?:\.\d+)?)\b", text, re.IGNORECASE)
    sex = re.search(r"\b(?:sex|gender)>?\s*[:=]?\s*(male|female|m|f)\b", text, re.IGNORECASE)
    age_years = float(age[1]) if age and 0 < float(age[1]) <= 120 else None
    if age_years is None and sex is None:
        return None
    named = {"m": "male", "f": "female"}.get(sex[1][0].lower()) if sex else None
    return Demographics(sex="female" if named == "female" else "male" if named else None, age_years=age_years)
