"""A few bytes can stand for gigabytes: the validator stays within its limits of time, memory and messages."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dagster import serialize_value

from accelkd.home.layout import Home
from accelkd.recordings import validate
from accelkd.recordings.batches import MANIFEST
from accelkd.recordings.schema import PARTICIPANT, RECORDING, SURVEY
from accelkd.recordings.validate import MAX_KEPT, BatchError, iter_recordings, validate_batch
from accelkd.segments.segment import segment_batch
from assets.partitions import arrival_batches
from assets.recordings import raw_recordings
from tests.support.odd_entries import no_longer_than
from tests.support.recordings import edit_manifest, recording, replace_table, write_batch

PART = "recordings/part-00000.parquet"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A valid batch in the landing zone of a home."""
    return write_batch(tmp_path / "landing", [recording()])


def repeated(folder: Path, path: str, rows: list[dict[str, Any]], schema: pa.Schema, times: int) -> None:
    """Put so many copies of a row into a file; equal values take next to no room."""
    replace_table(folder, path, pa.Table.from_pylist(rows, schema).take(pa.array([0] * times)))


def many_participants(folder: Path, times: int) -> None:
    row = {"participant_id": "p 1", "sex": "?"}
    repeated(folder, "participants.parquet", [row], PARTICIPANT.arrow(), times)


def test_of_each_rule_a_few_violations_are_kept_with_the_number_of_all(folder: Path) -> None:
    many_participants(folder, 5_000)
    violations = validate_batch(folder)
    assert violations.counts == {"identifier": 5_000, "duplicate_participant": 4_999}
    assert len(violations) == 2 * MAX_KEPT
    assert violations.omitted["identifier"] == 5_000 - MAX_KEPT
    with pytest.raises(BatchError, match=r"and 4,980 more: identifier") as caught:
        next(iter_recordings(folder))
    assert len(str(caught.value)) < 10_000


def test_what_dagster_stores_of_a_refused_batch_is_small(folder: Path) -> None:
    many_participants(folder, 5_000)
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions(str(arrival_batches.name), ["b1"])
        resources = {"home": Home(folder.parents[1])}
        result = dg.materialize(
            [raw_recordings], partition_key="b1", instance=instance, resources=resources, raise_on_error=False
        )
        events = [serialize_value(entry) for entry in instance.all_logs(result.run_id)]
    assert not result.success
    assert "| duplicate_participant | 4999 |" in "".join(events)
    assert sum(map(len, events)) < 100_000


def test_every_quarantined_recording_counts_and_a_few_say_why(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validate, "MAX_DETAILS", 30)
    small: dict[str, Any] = {"ppg": [[1.0]] * 4, "dark": [[1.0]], "accel": [[1.0]] * 3}
    repeated(folder, PART, [recording(ppg_rate_hz=1.0, **small)], RECORDING.arrow(), 500)
    violations = validate_batch(folder)
    assert violations.recordings == 500
    assert violations.counts == {"rate": 500, "duplicate_recording": 499}
    assert len(violations) == 2 * MAX_KEPT
    home = Home(folder.parents[1])
    counts = segment_batch(home, "b1")
    assert (counts.seen, counts.quarantined, counts.segments) == (500, 500, 0)
    assert counts.reasons == {"rate": 500}
    details = pq.read_table(home.quarantine("b1")).column("detail").to_pylist()
    assert sum("is not in 20 to 2048" in detail for detail in details) == 30
    assert all("rate" in detail for detail in details)


@pytest.mark.parametrize(
    ("path", "schema", "row"),
    [
        ("participants.parquet", PARTICIPANT.arrow(), {"participant_id": "p1"}),
        (PART, RECORDING.arrow(), recording(ppg=[[1.0]] * 4, dark=[[1.0]], accel=[[1.0]] * 3)),
    ],
)
def test_more_rows_than_a_batch_may_have_are_not_read(
    folder: Path, path: str, schema: pa.Schema, row: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    repeated(folder, path, [row], schema, 100_001)
    assert (folder / path).stat().st_size < 100_000
    monkeypatch.setattr(validate, "_read_names", lambda *_: pytest.fail("read"))
    (violation,) = validate_batch(folder)
    assert (violation.file, violation.rule, violation.fatal) == (MANIFEST, "too_large", True)
    assert "100,001 rows of table" in violation.detail


@pytest.mark.parametrize(("limit", "value"), [("MAX_VALUES", 1_000_000), ("MAX_DECODED_BYTES", 4_000_000)])
def test_long_lists_are_refused_before_they_are_decoded(
    folder: Path, monkeypatch: pytest.MonkeyPatch, limit: str, value: int
) -> None:
    repeated(folder, PART, [recording(ppg=[[1.0] * 400_000] * 4)], RECORDING.arrow(), 1)
    assert (folder / PART).stat().st_size < 100_000
    assert validate_batch(folder) == []
    monkeypatch.setattr(validate, limit, value)
    monkeypatch.setattr(validate, "_read_names", lambda *_: pytest.fail("decoded"))
    (violation,) = validate_batch(folder)
    assert (violation.file, violation.rule, violation.fatal) == (PART, "too_large", True)
    assert "row group 0 has 1,60" in violation.detail


def test_a_batch_that_decodes_to_a_thousand_times_its_size_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = recording(ppg=[[1.0] * 100_000] * 4)
    repeated(folder, PART, [row], RECORDING.arrow(), 16)
    monkeypatch.setattr(validate, "MAX_DECODED_BYTES", 30_000_000)
    assert validate_batch(folder).counts["too_large"] == 0
    with (folder / PART).open("rb") as file:
        content = file.read()
    for number in range(1, 4):
        (folder / f"recordings/part-0000{number}.parquet").write_bytes(content)
    edit_manifest(
        folder,
        lambda manifest: manifest["files"].extend(
            manifest["files"][0] | {"path": f"recordings/part-0000{number}.parquet"} for number in range(1, 4)
        ),
    )
    (violation,) = validate_batch(folder)
    assert (violation.file, violation.rule) == ("recordings/part-00001.parquet", "too_large")


def test_one_long_name_a_thousand_times_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repeated(folder, PART, [recording(recording_id="r" * 100_000)], RECORDING.arrow(), 300)
    assert "identifier" in validate_batch(folder).counts
    assert all(len(str(violation)) < 1_500 for violation in validate_batch(folder))
    monkeypatch.setattr(validate, "MAX_TEXT_BYTES", 20_000_000)
    (violation,) = validate_batch(folder)
    assert (violation.file, violation.rule, violation.fatal) == (PART, "too_large", True)


def test_answers_are_counted_in_linear_time(folder: Path) -> None:
    row = {"participant_id": "p1", "question_id": "q", "answer": "yes"}
    shutil.copyfile(folder / "participants.parquet", folder / "survey.parquet")
    edit_manifest(
        folder,
        lambda manifest: manifest["files"].append(
            {"path": "survey.parquet", "table": "survey", "rows": 1, "sha256": ""}
        ),
    )
    repeated(folder, "survey.parquet", [row], SURVEY.arrow(), 100_000)
    with no_longer_than(20):
        violations = validate_batch(folder)
    assert violations.counts == {"duplicate_answer": 99_999}
    assert [violation.row for violation in violations] == list(range(1, MAX_KEPT + 1))


def test_ninety_thousand_listed_files_take_linear_time(folder: Path) -> None:
    edit_manifest(
        folder,
        lambda manifest: manifest["files"].extend(
            manifest["files"][0] | {"path": f"recordings/part-{number:05d}.parquet"} for number in range(1, 90_000)
        ),
    )
    with no_longer_than(60):  # two seconds of an idle core; minutes where each is compared with all
        violations = validate_batch(folder)
    assert violations.counts == {"missing": 89_999}
    assert len(violations) == MAX_KEPT


def test_a_file_that_is_listed_again_and_again_is_not_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    edit_manifest(folder, lambda manifest: manifest.update(files=manifest["files"] + manifest["files"][:1] * 10_000))
    monkeypatch.setattr(validate, "open_batch_file", lambda *_: pytest.fail("read"))
    assert {violation.rule for violation in validate_batch(folder)} == {"listed_twice"}
