"""What people write down about age, sex, height and weight, in the units of the participants table.

A value counts only where it can be read in one way. What may mean two things, or cannot be true, becomes None with a
note, and a conversion has one too. Notes name the rule and the value, never whose it is: callers add the row.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import isfinite
from typing import Literal, cast

Sex = Literal["female", "male"]

MISSING = frozenset({"", "-", "--", ".", "?", "n/a", "na", "n.a.", "nan", "none", "null", "nil", "unknown", "missing"})
ADULT_YEARS = 18.0
AGE_YEARS = (0.0, 120.0)
HEIGHT_M, ADULT_HEIGHT_M = (0.4, 2.6), (1.2, 2.3)
WEIGHT_KG, ADULT_WEIGHT_KG = (1.5, 400.0), (30.0, 300.0)
BMI_KG_M2 = (8.0, 100.0)
SKIN_TONES = range(1, 11)  # Monk
UNIT_BMI_KG_M2 = (16.0, 50.0)  # of nearly every adult: outside of it, a weight without a unit is in the other unit
POUND_KG, INCH_M, FOOT_M = 0.45359237, 0.0254, 0.3048
_AGE_UNITS = {"years": 1.0, "months": 1 / 12, "weeks": 7 / 365.25, "days": 1 / 365.25}
_HEIGHT_UNITS = {"m": 1.0, "cm": 0.01, "mm": 0.001, "in": INCH_M, "ft": FOOT_M}
_WEIGHT_UNITS = {"kg": 1.0, "g": 0.001, "lb": POUND_KG, "st": 14 * POUND_KG}
_SPELLINGS = {
    "years": ("y", "yr", "yrs", "year", "years", "a", "yo", "y/o", "jahre", "ans"),
    "months": ("mo", "mos", "month", "months"),
    "weeks": ("wk", "wks", "week", "weeks"),
    "days": ("d", "day", "days"),
    "m": ("m", "meter", "meters", "metre", "metres"),
    "cm": ("cm", "cms", "centimeter", "centimeters", "centimetre", "centimetres"),
    "mm": ("mm", "millimeter", "millimeters", "millimetre", "millimetres"),
    "in": ("in", "ins", "inch", "inches", '"', "''", "″"),
    "ft": ("ft", "foot", "feet", "'", "′"),
    "kg": ("kg", "kgs", "kilo", "kilos", "kilogram", "kilograms"),
    "g": ("g", "gram", "grams"),
    "lb": ("lb", "lbs", "pound", "pounds", "#"),
    "st": ("st", "stone", "stones"),
}
UNITS = {spelling: unit for unit, spellings in _SPELLINGS.items() for spelling in spellings}
_SEXES: dict[str, Sex] = {
    **dict.fromkeys(("f", "female", "w", "woman", "women", "girl", "femme", "weiblich", "frau", "fem"), "female"),
    **dict.fromkeys(("m", "male", "man", "men", "boy", "homme", "männlich", "maennlich", "mann", "masc"), "male"),
}
_NUMBER = r"[-+]?(?:\d+(?:[.,]\d*)?|[.,]\d+)(?:e[-+]?\d+)?"
_QUANTITY = re.compile(rf"({_NUMBER})\s*([^\d\s.,+-].*)?", re.IGNORECASE)
_FEET = re.compile(
    r"(\d)\s*(?:'|′|ft|foot|feet)\s*(\d{1,2}(?:\.\d+)?)\s*(?:\"|''|″|in|ins|inch|inches)?", re.IGNORECASE
)


def clean_sex(value: object, codes: Mapping[str, str] | None = None) -> tuple[Sex | None, str | None]:
    """Sex from its spelling (F, female, woman; M, male, man), and why it is None or what was changed.

    A number says nothing by itself: `codes` says what each stands for, such as {"1": "male", "2": "female"}.
    """
    text = _text(value)
    if text.lower() in MISSING:
        return None, None
    written = {str(code).strip().casefold(): sex for code, sex in (codes or {}).items()}
    sex = written.get(text.casefold(), written.get(text.removesuffix(".0")))
    if sex is not None:
        return cast(Sex, sex), None
    if (known := _SEXES.get(text.lower().rstrip("."))) is not None:
        return known, None
    return None, f"sex {text!r} is neither female nor male" + (
        ": say in the mapping what the codes mean" if re.fullmatch(_NUMBER, text) else ""
    )


def clean_age_years(value: object, unit: str | None = None) -> tuple[float | None, str | None]:
    """Age in years, from a number with or without a unit, and why it is None or what was changed.

    `unit` is years, months, weeks or days; without one, years. Ranges (`20-29`, `90+`) and years of birth are none.
    """
    number, written, problem = _quantity("age", value, unit, _AGE_UNITS)
    if number is None:
        return None, problem
    age_years = number * _AGE_UNITS[written or "years"]
    if not AGE_YEARS[0] <= age_years <= AGE_YEARS[1]:
        hint = ": a year of birth? Name it in the mapping" if 1900 <= number <= 2100 else ""
        return None, f"age {_plain(number)} {written or 'years'} is not in {_span(AGE_YEARS)} years{hint}"
    return age_years, _converted("age", number, written, "years", unit)


def clean_height_m(value: object, unit: str | None = None, *, adult: bool = False) -> tuple[float | None, str | None]:
    """Height in metres, and why it is None or what was changed.

    `unit` is m, cm, mm, in or ft, where it is known; a unit beside the number, as in `170 cm` or `5'7"`, counts before
    it. Without either, 1.2 to 2.3 is metres, 120 to 230 centimetres and, only of an `adult`, 54 to 84 inches: a small
    child is as long in centimetres.
    """
    if feet := _FEET.fullmatch(_text(value)):
        height_m = int(feet[1]) * FOOT_M + float(feet[2]) * INCH_M
        return _within("height", height_m, "m", ADULT_HEIGHT_M if adult else HEIGHT_M, _text(value), "feet and inches")
    number, written, problem = _quantity("height", value, unit, _HEIGHT_UNITS)
    if number is None:
        return None, problem
    limits = ADULT_HEIGHT_M if adult else HEIGHT_M
    if written is None:
        usual = {"m": ADULT_HEIGHT_M, "cm": (120.0, 230.0)} | ({"in": (54.0, 84.0)} if adult else {})
        fitting = [name for name, (low, high) in usual.items() if low <= number <= high]
        if len(fitting) != 1:
            return None, f"height {_plain(number)} without a unit is no height of an adult in m, cm or in"
        height_m = round(number * _HEIGHT_UNITS[fitting[0]], 6)
        return height_m, None if fitting[0] == "m" else f"height {_plain(number)} read as {fitting[0]} by its size"
    height_m = round(number * _HEIGHT_UNITS[written], 6)
    if not limits[0] <= height_m <= limits[1]:
        others = [name for name, size in _HEIGHT_UNITS.items() if _between(number * size, ADULT_HEIGHT_M)]
        hint = f": in {others[0]}?" if len(others) == 1 else ""
        return None, f"height {_plain(number)} {written} is not in {_span(limits)} m{hint}"
    return height_m, _converted("height", number, written, "m", unit)


def clean_weight_kg(
    value: object, unit: str | None = None, *, height_m: float | None = None, adult: bool = False
) -> tuple[float | None, str | None]:
    """Weight in kilograms, and why it is None or what was changed.

    `unit` is kg, g, lb or st, where it is known; a unit beside the number counts before it. Without either, the height
    decides: kilograms or pounds, whichever alone gives an adult's body mass index; where both do, neither is taken.
    """
    number, written, problem = _quantity("weight", value, unit, _WEIGHT_UNITS)
    if number is None:
        return None, problem
    limits = ADULT_WEIGHT_KG if adult else WEIGHT_KG
    if written is None:
        fitting = weight_units(number, height_m)
        if len(fitting) != 1:
            why = "may be kg or lb" if fitting else "is no weight of an adult, in kg or lb,"
            return None, f"weight {_plain(number)} without a unit {why} at this height"
        weight_kg = number * _WEIGHT_UNITS[fitting[0]]
        return weight_kg, None if fitting[0] == "kg" else f"weight {_plain(number)} read as lb by the height"
    weight_kg = number * _WEIGHT_UNITS[written]
    if not _between(weight_kg, limits):
        return None, f"weight {_plain(number)} {written} is not in {_span(limits)} kg"
    return weight_kg, _converted("weight", number, written, "kg", unit)


def weight_units(number: float, height_m: float | None) -> list[str]:
    """Which of kg and lb make a weight without a unit an adult's; without a height, both where it can be either."""
    units = []
    for name in ("kg", "lb"):
        weight_kg = number * _WEIGHT_UNITS[name]
        sound = _between(weight_kg, ADULT_WEIGHT_KG)
        if sound and height_m is not None:
            sound = _between(weight_kg / height_m**2, UNIT_BMI_KG_M2)
        if sound:
            units.append(name)
    return units


def clean_bmi_kg_m2(value: object) -> tuple[float | None, str | None]:
    """Body mass index in kg/m², and why it is None."""
    number, _, problem = _quantity("bmi", value, None, {"kg/m2": 1.0})
    if number is None:
        return None, problem
    if not _between(number, BMI_KG_M2):
        return None, f"bmi {_plain(number)} is not in {_span(BMI_KG_M2)} kg/m²"
    return number, None


def clean_skin_tone(value: object) -> tuple[float | None, str | None]:
    """Monk skin tone, 1 to 10 (Monk, 2019), and why it is None; other scales are not converted."""
    number, _, problem = _quantity("skin_tone", value, None, {"the Monk scale": 1.0})
    if number is None:
        return None, problem
    if number not in SKIN_TONES:
        return None, f"skin_tone {_plain(number)} is not one of the Monk scale's 1 to 10"
    return number, None


def _quantity(
    name: str, value: object, unit: str | None, known: Mapping[str, float]
) -> tuple[float | None, str | None, str | None]:
    """Number and unit of a cell, the unit beside it or else `unit`; None and why where it is no such quantity."""
    text = _text(value)
    if text.lower() in MISSING:
        return None, None, None
    match = _QUANTITY.fullmatch(text)
    beside = (match[2] or "").strip().lower().rstrip(".").replace("²", "2").replace("^2", "2") if match else ""
    written = UNITS.get(beside, beside) or (UNITS.get(unit.lower(), unit) if unit else None)
    if not match or (written is not None and written not in known):
        return None, None, f"{name} {text!r} is not a number of {', '.join(known)}"
    number = float(match[1].replace(",", "."))
    if not isfinite(number):
        return None, None, f"{name} {text!r} is not a number of {', '.join(known)}"
    return number, written, None


def _within(
    name: str, number: float, unit: str, limits: tuple[float, float], text: str, was: str
) -> tuple[float | None, str | None]:
    if not _between(number, limits):
        return None, f"{name} {text} is not in {_span(limits)} {unit}"
    return number, f"{name} {text} converted from {was}"


def _converted(name: str, number: float, written: str | None, standard: str, declared: str | None) -> str | None:
    """A note where a cell is in another unit than its column or, without one, than the table of participants."""
    expected = UNITS.get(declared.lower(), declared) if declared else standard
    if written is None or written == expected:
        return None
    return f"{name} {_plain(number)} {written} converted"


def _text(value: object) -> str:
    """A cell as text: of a float without the `.0` that a table of numbers adds to it."""
    if value is None:
        return ""
    if isinstance(value, float):
        return "" if not isfinite(value) else _plain(value)
    return str(value).strip().strip("\ufeff")


def _plain(number: float) -> str:
    return f"{number:.15g}"


def _between(number: float, limits: tuple[float, float]) -> bool:
    return limits[0] <= number <= limits[1]


def _span(limits: tuple[float, float]) -> str:
    return f"{limits[0]:g} to {limits[1]:g}"
