"""Age, sex, height and weight as people write them down."""

from __future__ import annotations

import math

import pytest

from accelkd.recordings.demographics import clean_age_years, clean_height_m, clean_sex, clean_weight_kg


@pytest.mark.parametrize(
    ("value", "sex"),
    [
        ("F", "female"),
        ("female", "female"),
        (" Woman ", "female"),
        ("m", "male"),
        ("Male", "male"),
        ("männlich", "male"),
    ],
)
def test_sex_is_read_in_its_usual_spellings(value: str, sex: str) -> None:
    assert clean_sex(value) == (sex, None)


@pytest.mark.parametrize("value", ["1", 2, 2.0, "other", "x"])
def test_a_code_or_another_word_is_no_sex(value: object) -> None:
    sex, note = clean_sex(value)
    assert sex is None
    assert note is not None
    assert "neither female nor male" in note


@pytest.mark.parametrize("value", [None, "", "n/a", "NaN", math.nan, "unknown"])
def test_what_is_missing_needs_no_note(value: object) -> None:
    assert clean_sex(value) == clean_age_years(value) == clean_height_m(value) == clean_weight_kg(value) == (None, None)


@pytest.mark.parametrize("value", ["2", 2, 2.0, "2.0"])
def test_codes_mean_what_the_mapping_says(value: object) -> None:
    assert clean_sex(value, {"1": "male", "2": "female"}) == ("female", None)


@pytest.mark.parametrize(
    ("value", "unit", "age_years"),
    [
        ("34", None, 34),
        (34.0, None, 34),
        ("34 years", None, 34),
        ("34y", None, 34),
        ("408", "months", 34),
        ("34,5", None, 34.5),
    ],
)
def test_age(value: object, unit: str | None, age_years: float) -> None:
    age, _ = clean_age_years(value, unit)
    assert age == pytest.approx(age_years)


@pytest.mark.parametrize("value", ["1987", "20-29", "90+", "-3", "old", "340", "34 kg"])
def test_what_is_no_age_is_reported(value: str) -> None:
    age, note = clean_age_years(value)
    assert age is None
    assert note


@pytest.mark.parametrize(
    ("value", "unit", "adult", "height_m"),
    [
        (1.75, None, False, 1.75),
        ("175", None, False, 1.75),
        ("175", "cm", False, 1.75),
        ("175 cm", "m", False, 1.75),
        ("1,75 m", None, False, 1.75),
        ("5'9\"", None, True, 1.7526),
        ("5 ft 9 in", None, True, 1.7526),
        ("69", "in", False, 1.7526),
        ("69", None, True, 1.7526),
        ("98", "cm", False, 0.98),  # a child
    ],
)
def test_height(value: object, unit: str | None, adult: bool, height_m: float) -> None:
    height, _ = clean_height_m(value, unit, adult=adult)
    assert height == pytest.approx(height_m)


@pytest.mark.parametrize(
    ("value", "unit", "adult"),
    [("69", None, False), ("12.7", None, True), ("17018", None, True), ("5.9", None, True), ("175", "m", False)],
)
def test_a_height_that_can_be_read_in_no_or_in_two_ways_is_reported(value: str, unit: str | None, adult: bool) -> None:
    height, note = clean_height_m(value, unit, adult=adult)
    assert height is None
    assert note
    assert value in note


def test_the_unit_that_would_fit_is_named() -> None:
    assert clean_height_m("175", "m") == (None, "height 175 m is not in 0.4 to 2.6 m: in cm?")


@pytest.mark.parametrize(
    ("value", "unit", "height_m", "weight_kg"),
    [
        ("70", "kg", None, 70),
        ("154", "lb", None, 69.85),
        ("154 lbs", "kg", None, 69.85),
        ("66", None, 1.58, 66),
        ("245", None, 1.93, 111.13),
        ("155", None, 1.7272, 70.31),
    ],
)
def test_weight(value: str, unit: str | None, height_m: float | None, weight_kg: float) -> None:
    weight, _ = clean_weight_kg(value, unit, height_m=height_m)
    assert weight == pytest.approx(weight_kg, abs=0.01)


@pytest.mark.parametrize(("value", "height_m"), [("130", 1.63), ("118", 1.62), ("130", None), ("7257", 1.7018)])
def test_a_weight_that_may_be_in_kilograms_or_pounds_is_neither(value: str, height_m: float | None) -> None:
    weight, note = clean_weight_kg(value, height_m=height_m)
    assert weight is None
    assert note
    assert "without a unit" in note


def test_a_conversion_is_reported() -> None:
    assert clean_weight_kg("154 lb", "kg")[1] == "weight 154 lb converted"
    assert clean_height_m("175")[1] == "height 175 read as cm by its size"
    assert clean_height_m("175", "cm")[1] is None  # as its column says
