"""The table of participants beside a delivery: names, ages, sexes, heights and weights, as BIDS and others write it."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path
from typing import Any

from accelkd.recordings.demographics import (
    ADULT_YEARS,
    UNITS,
    clean_age_years,
    clean_bmi_kg_m2,
    clean_height_m,
    clean_sex,
    clean_skin_tone,
    clean_weight_kg,
    weight_units,
)
from accelkd.recordings.listing import printable
from accelkd.recordings.mapping import Participants
from accelkd.recordings.readers import Demographics, Unreadable
from accelkd.recordings.readers.columns import Columns, column_names, read_columns

MIN_AGREEING = 5  # weights without a unit that only one unit fits, before it is that of the others too
MAX_BMI_DIFFERENCE = 0.1  # of the one given from weight and height, relative
_MAX_LISTED = 10
# Of a column that names participants
NAME_STEM = (
    r"(?:participants?|subjects?|subj|sub|patients?|persons?|probands?|users?|volunteers?|vp)"
    r"(?:_?(?:id|code|name|number|nr|no|key))?|id|pid|sid|uid|code|pseudonym|record_id"
)
_STEMS = {
    "name": NAME_STEM,
    "age": r"age|alter|age_at_\w+",
    "sex": r"sex|gender|geschlecht|biological_sex|sex_at_birth|sex_assigned_at_birth",
    "height": r"(?:body_?)?height|stature|ht|größe|groesse|körpergröße|koerpergroesse",
    "weight": r"(?:body_?)?(?:weight|mass)|wt|gewicht|körpergewicht|koerpergewicht",
    "bmi": r"bmi(?:_kg_?m2|_kg_m_2)?|body_mass_index(?:_kg_?m2)?",
    "skin_tone": r"(?:monk_?)?skin_?tone(?:_monk)?|monk(?:_scale)?|mst",
}


@dataclass
class Described(Mapping[str, Demographics]):
    """What a table says of each participant, by the name with or without a prefix: `S01`, `sub-S01`, `e4-S01`."""

    device: str
    rows: dict[str, Demographics] = field(default_factory=dict)  # by name without prefix
    notes: list[str] = field(default_factory=list)
    _asked: set[str] = field(default_factory=set)

    def plain(self, name: str) -> str:
        """A name without the prefixes of the device and of BIDS."""
        return name.strip().removeprefix(f"{self.device}-").removeprefix("sub-")

    def __getitem__(self, name: str) -> Demographics:
        plain = self.plain(name)
        self._asked.add(plain)
        return self.rows[plain]

    def __iter__(self) -> Iterator[str]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def unmatched(self) -> list[str]:
        """Notes of rows whose participant was not asked for, and of participants without a row."""
        counted = (
            ("rows of the table of participants without a recording", self.rows.keys() - self._asked),
            ("participants without a row in the table of participants", self._asked - self.rows.keys()),
        )
        return [f"{len(names)} {what}: {_listed(sorted(names))}" for what, names in counted if names]


def read_participants(path: Path, device: str, mapping: Participants | None = None) -> Described:
    """What a CSV, TSV, Parquet or Feather file says of participants, with notes of what was converted or left out.

    Columns are those that `mapping` names, else known by their names, with units in them (`height_cm`, `weight [lb]`).
    Raises ValueError for a table without names or without anything to say of them, and OSError.
    """
    mapping = mapping or Participants()
    try:
        names = column_names(path)
        chosen, units, notes = _chosen(path, names, mapping)
        columns = read_columns(path, [*chosen.values()])
        cells = _cells(columns, chosen)
    except Unreadable as error:
        advice = ": save it as CSV" if path.suffix.lower() in (".xlsx", ".xls", ".ods") else ""
        raise ValueError(f"{path}: {error.detail}{advice}") from None
    described = Described(device, notes=notes)
    units |= _consensus(cells, units, described.notes)
    problems: dict[str, list[int]] = defaultdict(list)
    several: dict[str, list[Demographics]] = defaultdict(list)
    for number, row in enumerate(cells, 2):  # as a spreadsheet numbers them, below the header
        if not row.get("name"):
            problems["no name"].append(number)
            continue
        known, said = _demographics(row, units, mapping)
        several[described.plain(str(row["name"]))].append(known)
        for note in said:
            # Conversions are one rule for many rows; a refusal says what stood there
            problems[re.sub(r" [\d.]+ (read as|\w+ converted)", r" \1", note)].append(number)
    described.notes += [f"{_rows(numbers)}: {rule}" for rule, numbers in problems.items()]
    described.rows = {name: _agreed(name, known, described.notes) for name, known in several.items()}
    return described


def _chosen(
    path: Path, names: tuple[str, ...], mapping: Participants
) -> tuple[dict[str, str], dict[str, str | None], list[str]]:
    """The column of each fact, the unit in its name, and notes."""
    chosen = {
        fact: column for fact in (*_STEMS, "birth_date", "birth_year") if (column := getattr(mapping, fact)) is not None
    }
    if isinstance(mapping.measured_on, str):
        chosen["measured_on"] = mapping.measured_on
    units: dict[str, str | None] = {}
    notes = []
    for fact, stem in _STEMS.items():
        fitting = [name for name in names if _unit(stem, name) is not None]
        if fact not in chosen and fitting and not (fact == "age" and chosen.keys() & {"birth_date", "birth_year"}):
            chosen[fact] = fitting[0]
            if len(fitting) > 1:
                others = ", ".join(printable(name) for name in fitting[1:])
                notes.append(f"{fact}: column {printable(fitting[0])!r} taken, not {others}")
        if fact in chosen:
            declared: str | None = getattr(mapping, f"{fact}_unit", None)
            units[fact] = declared or _unit(stem, chosen[fact]) or None
    shown = ", ".join(printable(name, 60) for name in names[:40])
    if "name" not in chosen:
        raise ValueError(f"{path}: no column names the participants, such as participant_id; it has {shown}")
    if not chosen.keys() - {"name", "measured_on"}:
        raise ValueError(f"{path}: no column of age, sex, height, weight, bmi or skin tone; it has {shown}")
    return chosen, units, notes


def _unit(stem: str, name: str) -> str | None:
    """The unit in a column's name, empty if it has none; None if the name is not of this kind."""
    match = re.fullmatch(r"(.*?)[\s_]*[\[(]([^])]*)[\])]\s*", name.strip("\ufeff \t"))
    plain, bracketed = (match[1], match[2]) if match else (name.strip("\ufeff \t"), "")
    words = re.sub(r"[^\w]+", "_", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", plain)).casefold().strip("_")
    if re.fullmatch(stem, words):
        return UNITS.get(bracketed.strip().casefold().rstrip("."), "")
    base, _, last = words.rpartition("_")
    if last in UNITS and re.fullmatch(stem, base.removesuffix("_in")):
        return UNITS[last]
    return None


def _cells(columns: Columns, chosen: Mapping[str, str]) -> list[dict[str, str | None]]:
    rows = max((len(column) for column in columns.values.values()), default=0)
    texts = {fact: columns.texts(column, rows) for fact, column in chosen.items()}
    return [dict(zip(texts, row, strict=True)) for row in zip(*texts.values(), strict=True)]


def _consensus(
    cells: list[dict[str, str | None]], units: Mapping[str, str | None], notes: list[str]
) -> dict[str, str | None]:
    """The unit of a column of weights without one, where every weight that only one unit fits says the same."""
    if units.get("weight") is not None:
        return {}
    decided = []
    for row in cells:
        age, _ = clean_age_years(row.get("age"), units.get("age"))
        height_m, _ = clean_height_m(row.get("height"), units.get("height"), adult=(age or 0) >= ADULT_YEARS)
        number = re.fullmatch(r"\d+(?:[.,]\d+)?", row.get("weight") or "")
        fitting = weight_units(float(number[0].replace(",", ".")), height_m) if number and height_m else []
        decided += fitting if len(fitting) == 1 else []
    if len(decided) < MIN_AGREEING or len(set(decided)) > 1:
        return {}
    notes.append(f"weight: no unit is named, {decided[0]} by the heights")
    return {"weight": decided[0]}


def _demographics(
    row: Mapping[str, str | None], units: Mapping[str, str | None], mapping: Participants
) -> tuple[Demographics, list[str]]:
    """What a row says of its participant, and notes."""
    notes: list[str | None] = []
    sex, note = clean_sex(row.get("sex"), mapping.sex_codes)
    notes.append(note)
    if "birth_date" in row or "birth_year" in row:
        age_years, note = _age_from_birth(row, mapping)
    else:
        age_years, note = clean_age_years(row.get("age"), units.get("age"))
    notes.append(note)
    adult = age_years is not None and age_years >= ADULT_YEARS
    height_m, note = clean_height_m(row.get("height"), units.get("height"), adult=adult)
    notes.append(note)
    bmi, note = clean_bmi_kg_m2(row.get("bmi"))
    notes.append(note)
    weight_kg, note = clean_weight_kg(row.get("weight"), units.get("weight"), height_m=height_m, adult=adult)
    if row.get("height") or not row.get("bmi"):  # a weight alone says nothing that is kept
        notes.append(note)
    if weight_kg is not None and height_m is not None:
        computed, note = clean_bmi_kg_m2(weight_kg / height_m**2)
        notes.append(note and f"{note}: from weight and height")
        if bmi is None:
            bmi = computed
        elif computed is None or abs(bmi / computed - 1) > MAX_BMI_DIFFERENCE:
            notes.append("bmi is not that of weight and height: left out")
            bmi = None
    skin_tone, note = clean_skin_tone(row.get("skin_tone"))
    notes.append(note)
    return Demographics(sex, age_years, height_m, bmi, skin_tone), [note for note in notes if note]


def _age_from_birth(row: Mapping[str, str | None], mapping: Participants) -> tuple[float | None, str | None]:
    measured = mapping.measured_on if isinstance(mapping.measured_on, date) else _date(row.get("measured_on"))
    born, year = row.get("birth_date"), row.get("birth_year")
    if born is None and year is None:
        return None, None
    if measured is None:
        return None, "age: no date to count it at"
    if born is not None:
        day = _date(born)
        if day is None:
            return None, "age: the date of birth is none of ISO 8601, such as 1990-01-31"
        return clean_age_years(round((measured - day).days / 365.25, 2))
    if not re.fullmatch(r"(?:19|20)\d\d", year or ""):
        return None, "age: the year of birth is none"
    return clean_age_years(float(measured.year - int(year or 0)))


def _date(text: str | None) -> date | None:
    try:
        return datetime.fromisoformat(text or "").date()
    except ValueError:
        return None


def _agreed(name: str, several: list[Demographics], notes: list[str]) -> Demographics:
    """What all rows of one participant say alike."""
    if len(several) == 1:
        return several[0]
    agreed: dict[str, Any] = {}
    for fact in ("sex", "age_years", "height_m", "bmi_kg_m2", "skin_tone"):
        said = {getattr(known, fact) for known in several} - {None}
        agreed[fact] = said.pop() if len(said) == 1 else None
        if said:
            notes.append(f"{printable(name)}: {len(several)} rows that differ in {fact}, which is left out")
    return Demographics(**agreed)


def _rows(numbers: list[int]) -> str:
    return f"row{'s' if len(numbers) > 1 else ''} {_listed(numbers)} of the table of participants"


def _listed(items: list[Any]) -> str:
    shown = ", ".join(printable(str(item)) for item in items[:_MAX_LISTED])
    return shown + (f" and {len(items) - _MAX_LISTED} more" if len(items) > _MAX_LISTED else "")
