"""EDF, EDF+ and BDF files that say themselves what their signals are: PPG, acceleration, electrocardiogram.

Kemp & Olivan, Clinical Neurophysiology 114(9):1755-1761, 2003. Start times have no zone.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from accelkd.recordings.readers import Delivery, Demographics, Recording, Session, Signals, Times, Unreadable
from accelkd.recordings.readers.ecg import reference_beats
from accelkd.recordings.readers.signals import choose, in_g
from accelkd.recordings.timeline import Piece, assemble, place

# Files of PhysioNet's "Wrist PPG During Exercise", whatever reads them
WRIST_PPG = re.compile(r"(s\d+)_(?:walk|run|(?:low|high)_resistance_bike)", re.IGNORECASE)
_DAYS_PER_YEAR = 365.2425
_EPOCHS = {date(1985, 1, 1), date(2000, 1, 1), date(1970, 1, 1), date(1900, 1, 1)}  # that writers put for no date


def find(files: Iterable[Path]) -> Delivery:
    sessions = []
    for path in sorted(files):
        if path.suffix.lower() in (".edf", ".bdf"):
            match = WRIST_PPG.fullmatch(path.stem)
            sessions.append(Session(path, (path,), match[1] if match else None))
    return Delivery(tuple(sessions))


def read(session: Session) -> list[Recording]:
    file = open_edf(session.source)
    chosen = choose(file.labels, file.units, file.rates_hz)
    notes = [*file.notes, *chosen.notes]
    if not chosen.ppg and not chosen.accel:
        if chosen.accel_problem:
            raise Unreadable("accel_unit", f"{session.source.name}: {chosen.accel_problem}")
        raise Unreadable("wrong_signals", f"{session.source.name} has no PPG or acceleration by its labels and units")
    if chosen.accel_problem:
        notes.append(f"acceleration left out: {chosen.accel_problem}")
    end_s = file.fill_start_s([*chosen.ppg, *chosen.accel])
    if end_s < file.duration_s:
        notes.append(f"{file.duration_s - end_s:.3f} s of fill samples cut from the end")
    if end_s <= 0:
        raise Unreadable("empty_stream", f"{session.source.name} holds nothing but fill samples")
    ppg = file.pieces(chosen.ppg, end_s, notes)
    accel = file.pieces(chosen.accel, end_s, notes)
    scaled = in_g([piece.samples for piece in accel], chosen.accel_g_per_unit, notes)
    accel = [replace(piece, samples=samples) for piece, samples in zip(accel, scaled, strict=True)]
    beat_s = None
    if chosen.ecg is not None:
        beat_s = reference_beats(file.pieces([chosen.ecg], end_s, notes), notes)
    facts = Recording(
        reference_source=None if beat_s is None else "ecg",
        reference_beat_s=beat_s,
        participant=file.participant,
        demographics=file.demographics,
        notes=tuple(notes),
    )
    return assemble(ppg, accel, facts, utc=False)


@dataclass(frozen=True)
class EdfFile:
    """An open file: signals are read as they are asked for."""

    name: str
    labels: tuple[str, ...]
    units: tuple[str, ...]
    rates_hz: tuple[float, ...]
    duration_s: float  # of all data records
    declared_s: float  # of those that the header counts
    record_s: float
    onset_s: Times | None  # of each data record, where the recording was interrupted
    participant: str | None
    demographics: Demographics | None
    notes: tuple[str, ...]
    _signals: tuple[Any, ...]

    def digital(self, number: int) -> npt.NDArray[np.integer[Any]]:
        """The samples of a signal as stored."""
        digital: npt.NDArray[np.integer[Any]] = self._signals[number].digital
        return digital

    def physical(self, numbers: Sequence[int]) -> Signals:
        """Signals `[channels, samples]` of one rate in their units."""
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # a signal whose limits are equal cannot be scaled
            try:
                return np.stack([self._signals[number].data for number in numbers])
            except (UserWarning, ValueError) as error:
                raise Unreadable("unreadable_file", f"{self.name}: {error}") from None

    def fill_start_s(self, numbers: Sequence[int]) -> float:
        """Where the fill at the end begins: all of the signals stay at their digital minimum or at zero."""
        starts_s = []
        for number in numbers:
            digital, signal = self.digital(number), self._signals[number]
            fill = digital[-1] if digital.size and digital[-1] in (0, signal.digital_min) else None
            kept = np.flatnonzero(digital != fill) if fill is not None else np.array([digital.size - 1])
            starts_s.append((kept[-1] + 1 if kept.size else 0) / self.rates_hz[number])
        return max(starts_s, default=self.duration_s)

    def pieces(self, numbers: Sequence[int], end_s: float, notes: list[str]) -> list[Piece]:
        """Signals of one rate up to `end_s` of the data records, on the time of the recording."""
        if not numbers:
            return []
        rate_hz = self.rates_hz[numbers[0]]
        samples = self.physical(numbers)[:, : round(end_s * rate_hz)]
        if self.onset_s is None:
            return [Piece(0.0, rate_hz, samples)] if samples.shape[1] else []
        count = round(self.record_s * rate_hz)
        time_s = (self.onset_s[:, None] + np.arange(count) / rate_hz).ravel()[: samples.shape[1]]
        pieces, placed = place(time_s, samples, name=self.labels[numbers[0]])
        notes += placed
        return pieces


def open_edf(path: Path) -> EdfFile:
    """Header and signals of a file. Raises Unreadable for a damaged header; a file that was cut is read up to there."""
    try:
        import edfio
    except ImportError:
        raise Unreadable("missing_library", "EDF needs edfio: install accelkd[formats]") from None
    notes = []
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            reader = edfio.read_bdf if path.suffix.lower() == ".bdf" else edfio.read_edf
            edf: Any = reader(path, header_encoding="latin-1")
            signals = tuple(edf.signals)
            rates_hz = tuple(float(signal.sampling_frequency) for signal in signals)
            labels = tuple(str(signal.label) for signal in signals)
            units = tuple(str(signal.physical_dimension) for signal in signals)
            records, record_s = int(edf.num_data_records), float(edf.data_record_duration)
            with path.open("rb") as header:
                declared = int(header.read(244)[236:])  # the library counts those that are there
            onset_s = _onsets_s(edf, records, record_s)
            if records < 1 or record_s <= 0 or not all(0 < rate < 1e6 for rate in rates_hz):
                raise ValueError("no data records")
            for signal in signals:
                _ = signal.digital_min, signal.digital_max, signal.physical_min, signal.physical_max
    except Exception as error:  # a damaged header makes the library raise nearly anything
        raise Unreadable("unreadable_file", f"{path.name}: {type(error).__name__} while reading the header") from error
    if any("record" in str(warning.message) for warning in caught):
        notes.append(f"the file is not as long as its header says: {records} whole data records read")
    participant, demographics = _patient(edf)
    return EdfFile(
        path.name,
        labels,
        units,
        rates_hz,
        records * record_s,
        max(declared, records) * record_s,
        record_s,
        onset_s,
        participant,
        demographics,
        tuple(notes),
        signals,
    )


def _onsets_s(edf: Any, records: int, record_s: float) -> Times | None:
    """When each data record begins, by the first annotation in each; None where they follow each other."""
    # The library keeps annotation signals to itself, and the onsets of interrupted recordings with them
    keeping = next(iter(edf._annotation_signals), None)
    if keeping is None or not records:
        return None
    raw = np.ascontiguousarray(keeping.digital).view(np.uint8).reshape(records, -1)
    onset_s = np.full(records, np.nan)
    for number, row in enumerate(raw):
        match = re.match(rb"([+-]\d+(?:\.\d*)?)[\x14\x15]", row[:40].tobytes())
        if match:
            onset_s[number] = float(match[1])
    known = np.isfinite(onset_s)
    if not known.any():
        return None
    regular_s = np.arange(records) * record_s
    late_s = onset_s - regular_s - (onset_s[known][0] - regular_s[known][0])
    if np.abs(late_s[known]).max() < 1e-3:
        return None
    # A record without an onset follows the one before
    filled: Times = regular_s + np.interp(np.arange(records), np.flatnonzero(known), (onset_s - regular_s)[known])
    return filled


def _patient(edf: Any) -> tuple[str | None, Demographics | None]:
    """The code of the patient, and sex and age, where the header has the fields of EDF+."""
    fields = str(edf.local_patient_identification).split()
    code = fields[0] if fields and fields[0].upper() != "X" else None
    if len(fields) < 4 or fields[1].upper() not in ("F", "M", "X"):
        return (code if len(fields) == 1 else None), None
    sex = {"F": "female", "M": "male"}.get(fields[1].upper())
    age_years = None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            born, started = edf.patient.birthdate, edf.startdate
        if started not in _EPOCHS and started > born:
            age_years = round((started - born).days / _DAYS_PER_YEAR, 1)
    except Exception:  # the dates are anonymised or no dates
        age_years = None
    if sex is None and age_years is None:
        return code, None
    return code, Demographics(sex="female" if sex == "female" else "male" if sex else None, age_years=age_years)
