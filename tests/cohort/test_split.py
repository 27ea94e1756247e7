"""The split ledger: nobody moves, strata stay balanced, order does not matter."""

from __future__ import annotations

import hashlib
import random
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from accelkd.cohort.split import (
    LEDGER,
    SplitError,
    age_band,
    assert_disjoint,
    extend_split,
    participants_on,
    read_split,
    split_version,
    strata_table,
    write_split,
)
from accelkd.home.files import DamagedFileError, sha256_json

Person = tuple[str, str | None, float | None, str, str]
NAMES = ("participant_id", "sex", "age_years", "device_id", "batch_id")

person = st.tuples(
    st.integers(0, 300).map("p{:03d}".format),
    st.sampled_from(["female", "male", None]),
    st.sampled_from([19.0, 29.9, 30.0, 45.0, 58.0, 71.0, None]),
    st.sampled_from(["e4", "polar"]),
    st.sampled_from(["b1", "b2", "b3"]),
)
cohorts = st.lists(person, min_size=1, max_size=120, unique_by=lambda row: row[0])
quick = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])


def table(people: Sequence[Person]) -> pa.Table:
    types = (pa.string(), pa.string(), pa.float64(), pa.string(), pa.string())
    return pa.table({n: pa.array([row[i] for row in people], types[i]) for i, n in enumerate(NAMES)})


def sides(ledger: Path) -> dict[str, str]:
    rows = read_split(ledger)
    return dict(zip(rows.column("participant_id").to_pylist(), rows.column("split").to_pylist(), strict=True))


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    return tmp_path / "cohort" / "split.parquet"


@quick
@given(first=cohorts, second=cohorts)
def test_nobody_ever_moves(ledger: Path, first: list[Person], second: list[Person]) -> None:
    shutil.rmtree(ledger.parent, ignore_errors=True)
    extend_split(ledger, table(first))
    before = sides(ledger)
    summary = extend_split(ledger, table(second))
    after = sides(ledger)
    assert before.items() <= after.items()
    assert summary.added == len(after) - len(before) == len({p[0] for p in second} - before.keys())
    assert participants_on(ledger, "train") | participants_on(ledger, "test") == after.keys()
    assert_disjoint(participants_on(ledger, "train"), participants_on(ledger, "test"))


@quick
@given(people=cohorts, fraction=st.sampled_from([0.1, 0.2, 0.25, 0.5]))
def test_each_stratum_stays_within_one_person_of_its_share(ledger: Path, people: list[Person], fraction: float) -> None:
    shutil.rmtree(ledger.parent, ignore_errors=True)
    summary = extend_split(ledger, table(people), test_fraction=fraction)
    size: Counter[tuple[str, ...]] = Counter()
    tests: Counter[tuple[str, ...]] = Counter()
    for row in read_split(ledger).to_pylist():
        stratum = row["device_id"], row["sex"], row["age_band"]
        size[stratum] += 1
        tests[stratum] += row["split"] == "test"
    assert all(abs(tests[s] - fraction * size[s]) < 1 for s in size)
    assert summary.strata == len(size)
    assert summary.largest_deviation == max(abs(tests[s] - fraction * size[s]) for s in size)
    assert summary.train + summary.test == summary.participants == len(people)


@quick
@given(people=cohorts)
def test_strata_are_counted_by_side(ledger: Path, people: list[Person]) -> None:
    shutil.rmtree(ledger.parent, ignore_errors=True)
    extend_split(ledger, table(people), test_fraction=0.5)
    rows = read_split(ledger).to_pylist()
    for columns in (["device_id", "sex", "age_band", "split"], ["sex", "split"]):
        counted = strata_table(read_split(ledger), columns[:-1]).to_pylist()
        assert {tuple(row[name] for name in columns): row["participants"] for row in counted} == Counter(
            tuple(row[name] for name in columns) for row in rows
        )
        assert counted == sorted(counted, key=lambda row: [row[name] for name in columns])
    assert strata_table(read_split(ledger)).column_names == ["device_id", "sex", "age_band", "split", "participants"]


@quick
@given(people=cohorts, shuffled=st.randoms(use_true_random=False))
def test_rows_and_calls_may_come_in_any_grouping(ledger: Path, people: list[Person], shuffled: random.Random) -> None:
    shutil.rmtree(ledger.parent, ignore_errors=True)
    at_once = extend_split(ledger, table(people))
    bytes_at_once = ledger.read_bytes()
    ledger.unlink()
    reordered = list(people)
    shuffled.shuffle(reordered)
    extend_split(ledger, table(reordered))
    assert ledger.read_bytes() == bytes_at_once
    ledger.unlink()
    for batch in ("b1", "b2", "b3"):
        last = extend_split(ledger, table([p for p in people if p[4] == batch]))
    assert ledger.read_bytes() == bytes_at_once
    assert last.split_version == at_once.split_version


@pytest.mark.parametrize(
    ("number", "expected"),
    [(1, 0), (3, 1), (10, 2), (16, 3), (100, 20)],
)
def test_one_stratum_and_many_strata_of_one_give_the_same_share(ledger: Path, number: int, expected: int) -> None:
    one_stratum = [(f"p{i:03d}", None, None, "e4", "b1") for i in range(number)]
    assert extend_split(ledger, table(one_stratum)).test == expected
    ledger.unlink()
    strata_of_one = [(f"p{i:03d}", None, None, f"device-{i}", "b1") for i in range(number)]
    assert extend_split(ledger, table(strata_of_one)).test == expected


def test_a_large_cohort_is_balanced_on_every_level(ledger: Path) -> None:
    people = [
        (f"p{i:04d}", ("female", "male")[i * 7 % 3 % 2], 18.0 + i * 13 % 70, ("a", "b", "c")[i % 5 % 3], "b1")
        for i in range(2000)
    ]
    summary = extend_split(ledger, table(people))
    assert abs(summary.test - 400) <= 2
    rows = read_split(ledger).to_pylist()
    for device in "abc":
        here = [row["split"] == "test" for row in rows if row["device_id"] == device]
        assert sum(here) == pytest.approx(0.2 * len(here), abs=6)


def test_the_seed_decides_the_sides_and_nothing_new_leaves_the_file_alone(ledger: Path, tmp_path: Path) -> None:
    people = [(f"p{i:03d}", "female", 44.0, "e4", "b1") for i in range(50)]
    first = extend_split(ledger, table(people), seed=1)
    other = extend_split(tmp_path / "other.parquet", table(people), seed=2)
    assert first.split_version != other.split_version
    assert first.test == other.test
    written = ledger.stat().st_mtime_ns
    again = extend_split(ledger, table(people), seed=1)
    assert again.added == 0
    assert ledger.stat().st_mtime_ns == written
    assert again.split_version == first.split_version == split_version(read_split(ledger))


def test_a_participant_of_two_devices_counts_once_with_the_first(ledger: Path) -> None:
    summary = extend_split(
        ledger,
        table([("p1", None, None, "polar", "b2"), ("p1", "male", 30.0, "e4", "b1"), ("p1", None, None, "bami", "b1")]),
    )
    assert summary.participants == 1
    assert read_split(ledger).to_pylist()[0]["device_id"] == "bami"


def test_other_settings_are_refused(ledger: Path) -> None:
    people = table([("p1", None, None, "e4", "b1")])
    extend_split(ledger, people, seed=1)
    with pytest.raises(SplitError, match="keeps its seed"):
        extend_split(ledger, people, seed=2)
    with pytest.raises(SplitError, match="keeps its seed"):
        extend_split(ledger, people, seed=1, test_fraction=0.3)
    with pytest.raises(ValueError, match="test_fraction"):
        extend_split(ledger, people, seed=1, test_fraction=1.0)


def test_a_damaged_ledger_is_refused(ledger: Path) -> None:
    extend_split(ledger, table([("p1", None, None, "e4", "b1")]))
    good = read_split(ledger)
    write_split(ledger, pa.concat_tables([good, good]))
    with pytest.raises(SplitError, match="more than one row"):
        participants_on(ledger, "train")
    write_split(ledger, good.set_column(1, good.schema.field("split"), pa.array(["both"])))
    with pytest.raises(SplitError, match="unknown side"):
        participants_on(ledger, "train")
    write_split(ledger, good.drop_columns(["sex"]))
    with pytest.raises(SplitError, match="columns"):
        participants_on(ledger, "train")


@pytest.mark.parametrize("side", ["split.parquet", "split.copy.parquet"])
def test_one_damaged_or_lost_file_of_the_ledger_is_made_whole_from_the_other(ledger: Path, side: str) -> None:
    extend_split(ledger, table([(f"p{i}", None, None, "e4", "b1") for i in range(9)]))
    before = read_split(ledger)
    damaged = ledger.with_name(side)
    content = bytearray(damaged.read_bytes())
    content[len(content) // 3] ^= 4
    for wrong in (bytes(content), b"", None):
        damaged.unlink()
        if wrong is not None:
            damaged.write_bytes(wrong)
        assert read_split(ledger).equals(before)
        extend_split(ledger, table([("p0", None, None, "e4", "b1")]))
        assert read_split(ledger).equals(before)


def test_a_ledger_whose_two_files_are_damaged_is_never_made_anew(ledger: Path) -> None:
    people = table([("p1", None, None, "e4", "b1")])
    extend_split(ledger, people)
    for path in ledger.parent.glob("*.parquet"):
        path.write_bytes(b"nothing")
    with pytest.raises(DamagedFileError, match=r"split\.parquet.*split\.copy\.parquet"):
        extend_split(ledger, people)


def test_leakage_is_raised() -> None:
    assert_disjoint(["p1"], ["p2"])
    with pytest.raises(SplitError, match="1 participants"):
        assert_disjoint(["p1", "p2"], ["p2", "p3"])


def test_age_bands() -> None:
    assert [age_band(a) for a in (18, 29.9, 30, 69.99, 70, 101, None, float("nan"))] == [
        "under 30",
        "under 30",
        "30 to 39",
        "60 to 69",
        "70 and over",
        "70 and over",
        "unknown",
        "unknown",
    ]


def test_a_ledger_of_version_0_1_0_is_verified_by_the_hash_that_it_was_written_with(ledger: Path) -> None:
    """Until it is written again."""
    extend_split(ledger, table([(f"p{i}", "male", 44.0, "e4", "b1") for i in range(30)]), seed=3)
    rows = read_split(ledger)
    settings = {b"seed": b"3", b"test_fraction": b"0.2"}
    for good in (True, False):
        recorded = sha256_json(rows.to_pylist() if good else rows.to_pylist()[1:]).encode()
        for path in ledger.parent.glob("*.parquet"):
            pq.write_table(rows.replace_schema_metadata({**settings, b"rows_sha256": recorded}), path)
        if not good:
            with pytest.raises(DamagedFileError, match="its rows are not those that were written"):
                read_split(ledger)
            continue
        assert read_split(ledger).equals(rows)
        summary = extend_split(ledger, table([("new", None, None, "e4", "b2")]), seed=3)
        assert (summary.participants, summary.added) == (31, 1)
        assert (pq.read_schema(ledger).metadata or {}).keys() >= {b"columns_sha256", b"seed"}
        assert b"rows_sha256" not in (pq.read_schema(ledger).metadata or {})


@pytest.mark.parametrize("damage", ["moved", "swapped", "null"])
def test_rows_that_are_not_those_that_were_written_are_noticed(ledger: Path, damage: str) -> None:
    """Also where all bytes of a column are the same, and stand in other rows."""
    write_split(ledger, table_of_ledger([("ab", "train", "c"), ("d", "train", "")]))
    others: dict[str, list[tuple[str, str, str | None]]] = {
        "moved": [("a", "train", "c"), ("bd", "train", "")],
        "swapped": [("d", "train", ""), ("ab", "train", "c")],
        "null": [("ab", "train", "c"), ("d", "train", None)],
    }
    metadata = pq.read_schema(ledger).metadata
    for path in ledger.parent.glob("*.parquet"):
        pq.write_table(table_of_ledger(others[damage]).replace_schema_metadata(metadata), path)
    with pytest.raises(DamagedFileError, match="its rows are not those that were written"):
        read_split(ledger)


def test_the_version_of_an_assignment_is_the_one_that_checkpoints_hold(ledger: Path) -> None:
    rows = [
        ("ü1", "test", "c"),
        ("p10", "train", "c"),
        ("p1", "test", "c"),
        ("P2", "train", "c"),
        ("p1 ", "train", "c"),
    ]
    lines = "\n".join(f"{participant} {side}" for participant, side, _ in sorted(rows))
    expected = hashlib.sha256(lines.encode()).hexdigest()[:16]
    assert split_version(table_of_ledger(rows)) == split_version(table_of_ledger(rows[::-1])) == expected
    in_parts = pa.concat_tables([table_of_ledger(rows[:2]), table_of_ledger(rows[2:])])
    assert split_version(in_parts) == expected == "7b8d5d0e7858e91e"
    write_split(ledger, in_parts)
    assert read_split(ledger).to_pylist() == table_of_ledger(rows).to_pylist()
    assert split_version(table_of_ledger([])) == hashlib.sha256(b"").hexdigest()[:16]


def table_of_ledger(rows: Sequence[tuple[str, str, str | None]]) -> pa.Table:
    """Rows of a ledger by participant, side and device."""
    schema = LEDGER.arrow()
    if any(None in row for row in rows):
        schema = pa.schema([field.with_nullable(True) for field in schema])
    values = [(person, side, "male", "under 30", device, "b1") for person, side, device in rows]
    return pa.Table.from_pylist([dict(zip(schema.names, row, strict=True)) for row in values], schema)
