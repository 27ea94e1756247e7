"""Tables of participants beside a delivery."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from accelkd.recordings.ingest import ingest
from accelkd.recordings.mapping import Participants, parse_mapping
from accelkd.recordings.participants import Described, read_participants
from accelkd.recordings.readers import Demographics


def table(path: Path, text: str, mapping: Participants | None = None) -> Described:
    path.write_text(text, encoding="utf-8")
    return read_participants(path, "e4", mapping)


def test_case_15_has_a_way_in(shared: Path, tmp_path: Path) -> None:
    folder = shared / "cases/15-demographics-table/input"
    described = read_participants(folder / "participants.csv", "e4")
    summary = ingest(
        "e4", folder, tmp_path / "landing", "b", demographics=described, companions=[folder / "participants.csv"]
    )
    assert (summary.read, summary.rejections, summary.companions) == (2, (), 1)
    landed = pq.read_table(tmp_path / "landing/b/participants.parquet")
    assert landed.column("skin_tone").null_count == 2
    assert landed.drop_columns(["skin_tone"]).to_pylist() == [
        {"participant_id": "e4-S01", "sex": "female", "age_years": 34.0, "height_m": 1.68, "bmi_kg_m2": 22.1},
        {"participant_id": "e4-S02", "sex": "male", "age_years": 51.0, "height_m": 1.8, "bmi_kg_m2": 27.4},
    ]
    assert (described.notes, described.unmatched()) == ([], [])


def test_bids_names_units_in_names_and_missing_values(tmp_path: Path) -> None:
    described = table(
        tmp_path / "participants.tsv",
        "participant_id\tage\tsex\tHeight (cm)\tweight_kg\tgroup\n"
        "sub-S01\t34\tF\t168\t62.4\tx\nsub-S02\tn/a\tn/a\t\t\ty\n",
    )
    assert described["S01"] == described["sub-S01"] == described["e4-S01"] == described["e4-sub-S01"]
    known = described["S01"]
    assert (known.sex, known.age_years, known.height_m) == ("female", 34.0, 1.68)
    assert known.bmi_kg_m2 == pytest.approx(62.4 / 1.68**2)
    assert described["S02"] == Demographics()
    assert described.notes == []


def test_rows_and_recordings_without_each_other_are_counted(tmp_path: Path) -> None:
    described = table(tmp_path / "p.csv", "id,age\nS01,30\nS02,40\nS03,50\n")
    assert [described.get(name) is not None for name in ("S01", "e4-S01", "S09")] == [True, True, False]
    assert described.unmatched() == [
        "2 rows of the table of participants without a recording: S02, S03",
        "1 participants without a row in the table of participants: S09",
    ]


def test_mixed_units_are_converted_where_only_one_fits_and_reported_with_their_rows(tmp_path: Path) -> None:
    described = table(
        tmp_path / "p.csv",
        "id,age,height,weight\nA,22,170,72\nB,22,68,155\nC,20,163,130\nD,51,16256,13878\nE,30,1.80,80\n",
    )
    heights = {name: known.height_m for name, known in described.rows.items()}
    assert heights == {"A": 1.7, "B": 1.7272, "C": 1.63, "D": None, "E": 1.8}
    assert [known.bmi_kg_m2 is not None for known in described.rows.values()] == [True, True, False, False, True]
    notes = "\n".join(described.notes)
    for said in (
        "rows 2, 4 of the table of participants: height read as cm by its size",
        "row 3 of the table of participants: height read as in by its size",
        "row 3 of the table of participants: weight read as lb by the height",
        "row 4 of the table of participants: weight 130 without a unit may be kg or lb at this height",
        "row 5 of the table of participants: height 16256 without a unit",
    ):
        assert said in notes


def test_weights_that_agree_on_a_unit_give_it_to_the_rest(tmp_path: Path) -> None:
    rows = "".join(f"P{number},40,1.7,{60 + number}\n" for number in range(6))
    described = table(tmp_path / "p.csv", f"id,age,height_m,weight\n{rows}X,40,1.63,130\n")
    assert described["X"].bmi_kg_m2 == pytest.approx(48.93, abs=0.01)
    assert described.notes == ["weight: no unit is named, kg by the heights"]


def test_a_unit_that_a_name_says_is_not_overruled(tmp_path: Path) -> None:
    described = table(tmp_path / "p.csv", "id,height_m,bmi\nA,175,22\nB,1.75,220\n")
    assert described.rows == {"A": Demographics(bmi_kg_m2=22.0), "B": Demographics(height_m=1.75)}
    assert described.notes == [
        "row 2 of the table of participants: height 175 m is not in 0.4 to 2.6 m: in cm?",
        "row 3 of the table of participants: bmi 220 is not in 8 to 100 kg/m²",
    ]


def test_a_mapping_names_columns_codes_units_and_births(tmp_path: Path) -> None:
    mapping = parse_mapping("""
        [participants]
        name = "Kürzel"
        sex = "geschl"
        sex_codes = {1 = "male", 2 = "female"}
        birth_date = "geb"
        measured_on = "2024-03-01"
        height = "h"
        height_unit = "in"
        weight = "w"
        weight_unit = "lb"
    """).participants
    described = table(tmp_path / "p.csv", "Kürzel;geschl;geb;h;w\nA1;2;1990-03-01;66,5;150\nA2;3;soon;;\n", mapping)
    assert described["A1"].sex == "female"
    assert described["A1"].age_years == pytest.approx(34.0, abs=0.01)
    assert described["A1"].height_m == pytest.approx(1.6891)
    assert described["A1"].bmi_kg_m2 == pytest.approx(23.85, abs=0.01)
    assert described["A2"] == Demographics()
    assert len(described.notes) == 2
    assert mapping is not None
    assert mapping.measured_on == date(2024, 3, 1)


def test_parquet_rows_twice_and_rows_without_a_name(tmp_path: Path) -> None:
    rows = {"subject": ["7", "7", "8", None], "age": [34.0, 35.0, 50.0, 1.0], "sex": ["f", "f", "m", "m"]}
    pq.write_table(pa.table(rows), tmp_path / "p.parquet")
    described = read_participants(tmp_path / "p.parquet", "bami")
    assert described["bami-7"] == Demographics("female")
    assert described["8"] == Demographics("male", 50.0)
    assert "7: 2 rows that differ in age_years, which is left out" in described.notes
    assert "row 5 of the table of participants: no name" in described.notes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no rows"),
        ("age,sex\n30,f\n", "no column names the participants, such as participant_id; it has age, sex"),
        ("id,group\nA,1\n", "no column of age, sex, height, weight, bmi or skin tone; it has id, group"),
    ],
)
def test_a_table_that_says_nothing_is_an_error(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        table(tmp_path / "p.csv", text)


def test_a_column_of_the_mapping_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no column 'years'; it has id, age"):
        table(tmp_path / "p.csv", "id,age\nA,3\n", Participants(age="years"))


@pytest.mark.parametrize(
    ("column", "written", "read", "note"),
    [
        ("skin_tone", "7", 7.0, None),
        ("Monk skin tone", "1", 1.0, None),
        ("skin_tone", "11", None, "skin_tone 11 is not one of the Monk scale's 1 to 10"),
        ("skin_tone", "IV", None, "skin_tone 'IV' is not a number of the Monk scale"),
    ],
)
def test_skin_tone_is_one_of_ten(
    tmp_path: Path, column: str, written: str, read: float | None, note: str | None
) -> None:
    table = tmp_path / "p.csv"
    table.write_text(f"id,{column}\nA,{written}\n")
    described = read_participants(table, "e4")
    assert described["A"].skin_tone == read
    assert any(note in said for said in described.notes) if note else described.notes == []
