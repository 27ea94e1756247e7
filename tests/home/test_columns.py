"""A table is declared once; schemas and comments come from it."""

from __future__ import annotations

import pyarrow as pa
import pytest

from accelkd.home.columns import Column, Table

RATE = Column("rate", pa.float64(), unit="Hz", nullable=False, meaning="Breathing rate")
RATE_HZ = Column("rate_hz", pa.float64(), unit="Hz", meaning="Breathing rate")


def test_a_comment_has_the_unit_that_the_name_lacks() -> None:
    assert RATE.comment == "Breathing rate (Hz)"
    assert RATE_HZ.comment == "Breathing rate"
    assert Column("top1_percent_sd", pa.float64(), unit="%", meaning="Deviation").comment == "Deviation"
    assert Column("pms", pa.float64(), unit="ms", meaning="Time").comment == "Time (ms)"


def test_the_arrow_schema_has_comments_where_they_are_asked_for() -> None:
    table = Table("t", (RATE, RATE_HZ), meaning="A table")
    assert table.arrow() == pa.schema([pa.field("rate", pa.float64(), nullable=False), ("rate_hz", pa.float64())])
    assert table.arrow().field("rate").metadata is None
    assert table.arrow(comments=True).field("rate").metadata == {b"comment": b"Breathing rate (Hz)"}


def test_the_version_changes_with_columns_and_not_with_words() -> None:
    table = Table("t", (RATE,), meaning="A table")
    reworded = Table("t", (Column("rate", pa.float64(), unit="Hz", nullable=False, meaning="?"),), meaning="?")
    assert reworded.version == table.version
    assert table.with_column(RATE_HZ).version != table.version
    assert Table("t", (RATE,), key=("rate",), meaning="A table").version != table.version


def test_columns_of_a_copy_come_from_the_original() -> None:
    (copy,) = Table("t", (RATE, RATE_HZ), meaning="A table").copied("rate_hz")
    assert (copy.name, copy.sources) == ("rate_hz", ("t.rate_hz",))


@pytest.mark.parametrize(
    ("columns", "key", "message"),
    [
        ((RATE, RATE), (), "table t: rate declared twice"),
        ((RATE,), ("name",), "table t: name in its key"),
        ((RATE_HZ,), ("rate_hz",), "rate_hz in its key, but no column that is never null"),
    ],
)
def test_a_table_that_contradicts_itself_is_refused(
    columns: tuple[Column, ...], key: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Table("t", columns, key=key, meaning="A table")


def test_a_column_that_is_not_there_is_named() -> None:
    with pytest.raises(KeyError, match="table t has no column 'name'"):
        Table("t", (RATE,), meaning="A table")["name"]
