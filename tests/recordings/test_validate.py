"""Every rule of the validator, each with a batch that breaks it and nothing else."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from accelkd.recordings.batches import MANIFEST
from accelkd.recordings.labels import LABELS
from accelkd.recordings.people import batch_participants, batch_survey
from accelkd.recordings.schema import RECORDING, SURVEY
from accelkd.recordings.validate import BatchError, iter_recordings, validate_batch
from tests.support import REPOSITORY
from tests.support.damage import flip
from tests.support.recordings import RATE_HZ, SECONDS, WITHOUT_PPG, edit_manifest, recording, replace_table, write_batch

SAMPLES = SECONDS * RATE_HZ
ODD = {"path": "\ud800"}  # which no file can be called, and no log takes
RULE_MODULES = ("validate.py", "listing.py", "references.py", "people.py")
_FILE = r"""(?:"[^"]*"|[^",]*(?:\([^)]*\)[^",]*)?), """
RULE = re.compile(
    rf"""(?:fatal\({_FILE}|Problem\({_FILE}|yield\s*\(?\s*|append\(\(|drop\(|rules = \[\(|rule, detail = )"""
    """"([a-z_]+)","""
)
PART = "recordings/part-00000.parquet"


def test_a_valid_batch_has_no_violations(tmp_path: Path) -> None:
    folder = write_batch(tmp_path, [recording(0), recording(1, dark=[[1.0] * SAMPLES])])
    assert validate_batch(folder) == []


def test_columns_that_may_be_null_may_be_missing(tmp_path: Path) -> None:
    device_only = {name: value for name, value in recording().items() if not name.startswith(("reference", "event"))}
    summaries = dict.fromkeys(("hr_bpm", "sdnn_ms", "rmssd_ms"))
    assert validate_batch(write_batch(tmp_path, [device_only | summaries])) == []


def ones(channels: int, samples: int = SAMPLES) -> list[list[float]]:
    return [[1.0] * samples] * channels


@pytest.mark.parametrize(
    ("rule", "changes"),
    [
        ("identifier", {"recording_id": "../../etc/passwd"}),
        ("identifier", {"recording_id": ""}),
        ("device_unknown", {"device_id": "sim-wrist-65"}),
        ("started_at", {"started_at": datetime(1984, 12, 31, 23, 59, 59, tzinfo=UTC)}),
        ("started_at", {"started_at": datetime(2100, 1, 1, tzinfo=UTC)}),
        ("started_at", {"started_at": 2**62}),  # beyond what Python knows as a date
        ("started_at", {"started_at": -(2**62)}),
        ("participant_unknown", {"participant_id": "p2"}),
        ("channels", {"ppg": ones(3)}),
        ("channels", {"accel": ones(2)}),
        ("rate", {"ppg_rate_hz": 19.9}),
        ("rate", {"ppg_rate_hz": float("nan")}),
        ("rate", {"accel_rate_hz": 2048.5}),
        ("rate", {"dark_rate_hz": 2.0}),
        ("unequal_lengths", {"ppg": [*ones(3), [1.0] * (SAMPLES - 1)]}),
        ("empty_stream", {"accel": [[], [], []]}),
        ("null_sample", {"ppg": [*ones(3), [None] * SAMPLES]}),
        ("null_sample", {"ppg": [*ones(3), None]}),
        ("dark_incomplete", {"dark_rate_hz": None}),
        ("dark_slots", {"dark": None, "dark_rate_hz": None, "dark_offsets_s": None}),
        ("dark_slots", {"dark": ones(2), "dark_offsets_s": [0.0, 0.01]}),
        ("dark_offsets", {"dark_offsets_s": [0.02]}),
        ("channels", {"dark": ones(2)}),
        ("no_overlap", {"accel_start_s": 5.0}),
        ("no_overlap", {"accel_start_s": float("nan")}),
        ("accel_unit", {"accel": [[5.7] * SAMPLES] * 3}),  # m/s²
        ("accel_unit", {"accel": [[0.25] * SAMPLES] * 3}),
    ],
)
def test_a_bad_recording_is_reported_and_the_others_go_on(tmp_path: Path, rule: str, changes: dict[str, Any]) -> None:
    folder = write_batch(tmp_path, [recording(0), recording(1, **changes), recording(2)])
    rows, violations = zip(*iter_recordings(folder), strict=True)
    assert [name for batch in rows for name in batch["recording_id"].to_pylist()] == ["r0", "r2"]
    (violation,) = violations[0]
    assert (violation.file, violation.row, violation.rule, violation.fatal) == (PART, 1, rule, False)
    assert violation.participant_id == changes.get("participant_id", "p1")
    assert violation.recording_id == changes.get("recording_id", "r1")
    assert str(violation).startswith(f"{PART} row 1 participant '{violation.participant_id}': {rule}: ")


@pytest.mark.parametrize(
    ("rule", "changes"),
    [
        ("reference_lengths", {"reference_hr_bpm": [60.0]}),
        ("reference_lengths", {"reference_hr_bpm": None}),
        ("reference_lengths", {"reference_ibi_end_s": None}),
        ("reference_order", {"reference_beat_s": [0.5, 0.5, 2.5]}),
        ("reference_order", {"reference_hr_s": [2.0, 1.0]}),
        ("reference_value", {"reference_beat_s": [0.5, float("nan")]}),
        ("reference_value", {"reference_ibi_s": [1.0, 0.0]}),
        ("reference_value", {"reference_hr_bpm": [60.0, None]}),
        ("reference_value", {"rmssd_ms": -1.0}),
        ("reference_source", {"reference_source": None}),
        ("reference_source", {"reference_source": "guess"}),
        ("event_value", {"event_s": [float("inf")]}),
    ],
)
def test_a_bad_reference_is_dropped_and_its_recording_is_used(
    tmp_path: Path, rule: str, changes: dict[str, Any]
) -> None:
    folder = write_batch(tmp_path, [recording(0), recording(1, **changes)])
    rows, violations = zip(*iter_recordings(folder), strict=True)
    assert rows[0]["recording_id"].to_pylist() == ["r0", "r1"]
    (violation,) = violations[0]
    assert (violation.row, violation.rule, violation.fatal, violation.dropped) == (1, rule, False, True)
    (kept,) = rows[0].slice(1).to_pylist()
    for name in changes:
        assert changes[name] is None or kept[name] != changes[name]
    untouched = rows[0].to_pylist()[0]
    others = set(kept) - {"recording_id", "ppg", "dark", "accel", *LABELS}
    others -= {name for name in kept if name.startswith("reference") or name == "event_s"}
    assert {name: kept[name] for name in others} == {name: untouched[name] for name in others}


def test_only_the_bad_values_of_a_reference_are_dropped(tmp_path: Path) -> None:
    changes = {
        "reference_hr_s": [1.0, 2.0, 1.5, 3.0, 4.0],
        "reference_hr_bpm": [60.0, 0.0, 61.0, float("nan"), 62.0],
        "event_s": [1.0, float("nan"), 3.0],
    }
    folder = write_batch(tmp_path, [recording(0, **changes)])
    ((rows, violations),) = iter_recordings(folder)
    (kept,) = rows.to_pylist()
    assert (kept["reference_hr_s"], kept["reference_hr_bpm"]) == ([1.0, 1.5, 4.0], [60.0, 61.0, 62.0])
    assert kept["event_s"] == [1.0, 3.0]
    assert kept["reference_beat_s"] == [0.5, 1.5, 2.5]
    assert [violation.detail for violation in violations] == [
        "reference_hr_bpm: 2 null, not finite or not positive",
        "event_s: 1 null or not finite",
    ]


def test_a_recording_may_lack_either_modality_but_not_both(tmp_path: Path) -> None:
    no_accel: dict[str, Any] = {"accel": [], "accel_rate_hz": None}
    recordings = [recording(0, **WITHOUT_PPG), recording(1, **no_accel), recording(2, **WITHOUT_PPG, **no_accel)]
    recordings += [recording(3, ppg=[], dark=None, dark_rate_hz=None, dark_offsets_s=None)]
    folder = write_batch(tmp_path, recordings)
    ((rows, violations),) = iter_recordings(folder)
    assert rows["recording_id"].to_pylist() == ["r0", "r1"]
    assert [(violation.row, violation.rule) for violation in violations] == [(2, "no_stream"), (3, "rate")]


def test_minutes_that_come_twice_are_used_once(tmp_path: Path) -> None:
    """By participant, device and sensor: two watches on one person are two sensors."""
    start = datetime(2026, 3, 1, 12, tzinfo=UTC)
    later = start + timedelta(seconds=2)
    recordings = [
        recording(0, started_at=start, sensor_id="left"),
        recording(1, started_at=later, sensor_id="left"),
        recording(2, started_at=later, sensor_id="right"),
        recording(3, started_at=start + timedelta(seconds=5), sensor_id="left"),
        recording(4, started_at=start),
    ]
    folder = write_batch(tmp_path, recordings)
    ((rows, violations),) = iter_recordings(folder)
    assert rows["recording_id"].to_pylist() == ["r0", "r2", "r3"]
    assert [(violation.row, violation.rule) for violation in violations] == [(1, "overlap"), (4, "overlap")]
    assert violations[0].detail == "3.0 s of it are those of 'r0'"


def test_a_batch_of_an_earlier_version_lacks_the_columns_declared_since(tmp_path: Path) -> None:
    folder = write_batch(tmp_path, [recording(0)])
    replace_table(folder, PART, pq.read_table(folder / PART).drop_columns(["ppg_polarity", "sensor_id"]))
    ((rows, violations),) = iter_recordings(folder)
    assert violations == []
    assert rows.schema.equals(RECORDING.arrow())
    assert rows["sensor_id"].to_pylist() == [None]


def test_all_rules_that_a_recording_breaks_are_reported(tmp_path: Path) -> None:
    folder = write_batch(tmp_path, [recording(0, ppg_rate_hz=1.0, participant_id="p9", reference_source="x")])
    assert {violation.rule for violation in validate_batch(folder)} == {
        "rate",
        "participant_unknown",
        "reference_source",
    }


def test_a_recording_that_comes_twice_is_used_once(tmp_path: Path) -> None:
    folder = write_batch(tmp_path, [recording(0), recording(0)])
    (violation,) = validate_batch(folder)
    assert (violation.rule, violation.row) == ("duplicate_recording", 1)


def test_recordings_stream_one_row_group_at_a_time_with_their_row_in_the_file(tmp_path: Path) -> None:
    folder = write_batch(tmp_path, [recording(n, accel_start_s=99.0 if n in (37, 70) else 0.0) for n in range(80)])
    batches = list(iter_recordings(folder))
    assert [batch.num_rows for batch, _ in batches] == [63, 15]
    assert [violation.row for _, violations in batches for violation in violations] == [37, 70]


def people(**columns: list[Any]) -> pa.Table:
    return pa.table({"participant_id": ["p1"], **columns})


@pytest.mark.parametrize(
    ("rule", "tables"),
    [
        ("identifier", {"participants": people(participant_id=["p1", "Robert'); DROP TABLE participants;--"])}),
        ("identifier", {"participants": people(participant_id=["p1", "../p2"])}),
        ("identifier", {"participants": people(participant_id=["p1", "пациент"])}),
        ("duplicate_participant", {"participants": people(participant_id=["p1", "p1"])}),
    ],
)
def test_the_small_tables_must_be_right_as_a_whole(tmp_path: Path, rule: str, tables: dict[str, pa.Table]) -> None:
    folder = write_batch(tmp_path, [recording()], **tables)
    (violation,) = validate_batch(folder)
    assert (violation.rule, violation.fatal) == (rule, True)
    assert violation.row is not None
    with pytest.raises(BatchError, match=rule):
        next(iter_recordings(folder))


@pytest.mark.parametrize(
    ("rule", "tables"),
    [
        ("sex", {"participants": people(sex=["F"])}),
        ("age_years", {"participants": people(age_years=[-1.0])}),
        ("age_years", {"participants": people(age_years=[float("nan")])}),
        ("height_m", {"participants": people(height_m=[170.0])}),
        ("bmi_kg_m2", {"participants": people(bmi_kg_m2=[3.0])}),
        ("participant_unknown", {"survey": pa.table([["p2"], ["q"], ["yes"]], SURVEY.arrow())}),
        ("duplicate_answer", {"survey": pa.table([["p1", "p1"], ["q", "q"], ["yes", "no"]], SURVEY.arrow())}),
    ],
)
def test_what_is_wrong_about_a_person_is_dropped(tmp_path: Path, rule: str, tables: dict[str, pa.Table]) -> None:
    folder = write_batch(tmp_path, [recording()], **tables)
    violations = validate_batch(folder)
    assert {(violation.rule, violation.fatal, violation.dropped) for violation in violations} == {(rule, False, True)}
    assert [rows.num_rows for rows, _ in iter_recordings(folder)] == [0, 1]
    if "participants" in tables:
        (person,) = batch_participants(folder).to_pylist()
        assert set(person.values()) == {"p1", None}
    else:
        assert batch_survey(folder).num_rows == 0


def other_schema(folder: Path) -> None:
    table = pq.read_table(folder / PART)
    replace_table(folder, PART, table.rename_columns(["id", *table.column_names[1:]]))


def not_utf8(folder: Path) -> None:
    table = pq.read_table(folder / "participants.parquet")
    name = pa.array([b"p\xff"], pa.binary()).view(pa.string())
    replace_table(folder, "participants.parquet", table.set_column(0, table.schema.field(0), name))


def set_file(folder: Path, **values: Any) -> None:
    edit_manifest(folder, lambda manifest: manifest["files"][0].update(values))


FATAL: list[tuple[str, Callable[[Path], Any]]] = [
    ("manifest", lambda folder: (folder / MANIFEST).unlink()),
    ("manifest", lambda folder: (folder / MANIFEST).write_text("{")),
    ("manifest", lambda folder: (folder / MANIFEST).write_text("[1]")),
    ("manifest", lambda folder: (folder / MANIFEST).write_bytes(b"\xff\xfe")),
    ("manifest", lambda folder: edit_manifest(folder, lambda manifest: manifest.pop("files"))),
    ("manifest", lambda folder: edit_manifest(folder, lambda manifest: manifest.update(extra=1))),
    ("manifest", lambda folder: set_file(folder, path=7)),
    ("manifest", lambda folder: set_file(folder, table=["recordings"])),
    ("schema_version", lambda folder: edit_manifest(folder, lambda manifest: manifest.update(schema_version=2))),
    ("batch_id", lambda folder: edit_manifest(folder, lambda manifest: manifest.update(batch_id="b2"))),
    ("identifier", lambda folder: edit_manifest(folder, lambda manifest: manifest.update(replaces="../b0"))),
    ("replaces", lambda folder: edit_manifest(folder, lambda manifest: manifest.update(replaces="b1"))),
    ("devices", lambda folder: edit_manifest(folder, lambda manifest: manifest.update(devices=[]))),
    ("devices", lambda folder: edit_manifest(folder, lambda manifest: manifest.update(devices=["sim-wrist-256"]))),
    ("devices", lambda folder: edit_manifest(folder, lambda m: m.update(devices=["sim-wrist-64", "watch"]))),
    ("manifest", lambda folder: edit_manifest(folder, lambda m: m["files"].append(m["files"][0] | ODD))),
    ("listed_twice", lambda folder: edit_manifest(folder, lambda m: m["files"].append(m["files"][0]))),
    ("unlisted", lambda folder: (folder / "recordings/part-00001.parquet").write_bytes(b"")),
    ("missing", lambda folder: (folder / PART).unlink()),
    ("file_name", lambda folder: edit_manifest(folder, lambda m: m["files"].append(m["files"][0] | {"table": "x"}))),
    ("sha256", lambda folder: flip(folder / PART)),
    ("schema", lambda folder: set_file(folder, rows=2)),
    ("schema", other_schema),
    ("schema", not_utf8),
]


@pytest.mark.parametrize(("rule", "spoil"), FATAL, ids=[f"{rule}-{n}" for n, (rule, _) in enumerate(FATAL)])
def test_what_is_wrong_with_the_batch_itself_is_fatal(tmp_path: Path, rule: str, spoil: Callable[[Path], Any]) -> None:
    folder = write_batch(tmp_path, [recording()])
    spoil(folder)
    violations = validate_batch(folder)
    assert rule in {violation.rule for violation in violations}
    assert all(violation.fatal for violation in violations)
    "".join(map(str, violations)).encode()  # any log takes it
    with pytest.raises(BatchError):
        next(iter_recordings(folder))


def test_every_rule_is_documented() -> None:
    sources = [(REPOSITORY / "accelkd/recordings" / name).read_text(encoding="utf-8") for name in RULE_MODULES]
    rules = {rule for source in sources for rule in RULE.findall(source)}
    assert {"not_a_regular_file", "too_large", "devices", "started_at", "dark_slots", "duplicate_answer"} <= rules
    documented = (REPOSITORY / "docs/devices.md").read_text(encoding="utf-8").partition("## The rules")[2]
    assert sorted(rule for rule in rules if f"`{rule}`" not in documented) == []


@pytest.mark.parametrize("devices", ["sim-wrist-64", 7, None, [7], {"sim-wrist-64": 1, "7": 2}, [["sim-wrist-64"]]])
def test_devices_that_are_no_list_of_names_are_refused(tmp_path: Path, devices: Any) -> None:
    folder = write_batch(tmp_path, [recording()])
    edit_manifest(folder, lambda manifest: manifest.update(devices=devices))
    violations = validate_batch(folder)
    assert {violation.file for violation in violations} == {MANIFEST}
    assert {violation.rule for violation in violations} <= {"devices", "manifest"}
    assert violations


def test_a_device_whose_recordings_were_withdrawn_may_stay_listed(tmp_path: Path) -> None:
    folder = write_batch(tmp_path, [recording()])
    edit_manifest(folder, lambda manifest: manifest.update(devices=["sim-wrist-256", "sim-wrist-64"]))
    assert validate_batch(folder) == []


@pytest.mark.parametrize("path", ["../outside.parquet", "/etc/passwd", "recordings/../../outside.parquet"])
def test_a_manifest_cannot_point_outside_of_its_batch(tmp_path: Path, path: str) -> None:
    folder = write_batch(tmp_path, [recording()])
    shutil.copy(folder / PART, tmp_path / "outside.parquet")
    set_file(folder, path=path)
    assert "file_name" in {violation.rule for violation in validate_batch(folder)}


def test_a_batch_without_recordings_or_participants_is_refused(tmp_path: Path) -> None:
    folder = write_batch(tmp_path, [recording()])
    for path in ("participants.parquet", PART):
        (folder / path).unlink()
    edit_manifest(folder, lambda manifest: manifest.update(files=[]))
    assert [str(violation) for violation in validate_batch(folder)] == [
        "manifest.json: missing: no file of table 'recordings'",
        "manifest.json: missing: no file of table 'participants'",
    ]


def test_gaps_and_infinite_samples_are_no_violation(tmp_path: Path) -> None:
    accel = np.tile(np.array([[0.0], [0.6], [0.8]], np.float32), SAMPLES)
    accel[:, 5:9], accel[0, 20] = np.nan, np.inf
    assert validate_batch(write_batch(tmp_path, [recording(accel=list(accel))])) == []
