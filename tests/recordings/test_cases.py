"""Small deliveries that were once read wrongly or refused: each is read as its README says is right."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from accelkd.recordings.ingest import IngestSummary, ingest
from accelkd.recordings.validate import iter_recordings, validate_batch


@dataclass(frozen=True)
class Case:
    """A delivery below shared/cases, and what comes of it."""

    device: str
    folder: str
    read: int
    participants: int
    rejected: tuple[str, ...] = ()  # reasons
    notes: tuple[str, ...] = ()  # that some line contains


CASES = (
    Case("e4", "01-e4-sessions-per-person/input", 9, 3),
    Case(
        "e4",
        "02-e4-empty-reference/input",
        5,
        5,
        notes=("IBI.csv has no rows", "HR.csv has no rows", "HR.csv has no samples", "IBI.csv has no intervals"),
    ),
    Case("polar", "03-polar-logger-names/input", 1, 1),
    Case("polar", "04-polar-hr-header/input", 3, 3),
    Case("e4", "05-bom/e4", 2, 2),
    Case("polar", "05-bom/polar", 1, 1),
    Case("polar", "07-polar-lost-packet/input", 1, 1, notes=("1 gaps, 44 samples (0.800 s) lost",)),
    Case("e4", "08-e4-same-session-twice/input", 1, 1, rejected=("overlap",)),
    Case("e4", "10-one-stream-only/acc-only", 1, 1),
    Case("e4", "10-one-stream-only/ppg-only", 1, 1),
    Case("polar", "10-one-stream-only/polar-acc", 1, 1),
    Case("e4", "11-e4-hr-zero/input", 1, 1, notes=("1 heart rates that are zero",)),
    Case("wrist-edf", "13-edf-unit-spelling/input", 4, 4, notes=("read as m/s^2",)),
    Case("edf", "13-edf-unit-spelling/input", 4, 4, notes=("read as m/s^2",)),
    Case("e4", "14-e4-zip/input", 1, 1),
    Case("e4", "16-e4-blank-tags/input", 1, 1),
    Case("polar", "18-polar-cut-and-restart/input", 3, 2, notes=("the last row, which is cut", "the clock went back")),
)


def landed(shared: Path, landing: Path, device: str, folder: str) -> tuple[IngestSummary, list[dict[str, Any]]]:
    """A case's summary and recordings."""
    if not (shared / "cases").is_dir():
        pytest.skip("no folder `cases` in `shared`")
    summary = ingest(device, shared / "cases" / folder, landing, "b1")
    assert validate_batch(landing / "b1") == []
    rows = [row for batch, _ in iter_recordings(landing / "b1") for row in batch.to_pylist()]
    return summary, sorted(rows, key=lambda row: (row["participant_id"], row["started_at"] is None, row["started_at"]))


@pytest.mark.parametrize("case", CASES, ids=[f"{case.device}: {case.folder}" for case in CASES])
def test_the_case_is_read_as_it_should_be(shared: Path, tmp_path: Path, case: Case) -> None:
    summary, rows = landed(shared, tmp_path, case.device, case.folder)
    assert (summary.read, summary.participants, len(rows)) == (case.read, case.participants, case.read)
    assert tuple(rejection.reason for rejection in summary.rejections) == case.rejected
    for note in case.notes:
        assert any(note in line for line in summary.notes), note


def test_sessions_belong_to_the_folder_of_their_person_and_name_their_sensor(shared: Path, tmp_path: Path) -> None:
    _, rows = landed(shared, tmp_path, "e4", "01-e4-sessions-per-person/input")
    assert [row["participant_id"] for row in rows] == [f"e4-P0{number}" for number in (1, 2, 3) for _ in range(3)]
    assert {row["sensor_id"] for row in rows if row["participant_id"] == "e4-P01"} == {"A001BC"}


def test_an_empty_reference_costs_that_reference_alone(shared: Path, tmp_path: Path) -> None:
    _, rows = landed(shared, tmp_path, "e4", "02-e4-empty-reference/input")
    kept = {row["participant_id"]: (bool(row["reference_hr_s"]), bool(row["reference_ibi_s"])) for row in rows}
    assert kept == {
        "e4-A01": (True, True),
        "e4-A02": (True, False),
        "e4-A03": (False, True),
        "e4-A04": (False, True),
        "e4-A05": (True, False),
    }


def test_the_serial_number_is_in_the_names_of_the_app(shared: Path, tmp_path: Path) -> None:
    _, (row,) = landed(shared, tmp_path, "polar", "03-polar-logger-names/input")
    assert (row["participant_id"], row["sensor_id"]) == ("polar-p01", "0A1B2C3D")
    assert row["ppg_rate_hz"] == pytest.approx(55, abs=0.01)
    assert len(row["dark"]) == 1


def test_heart_rates_are_read_by_the_name_of_their_column(shared: Path, tmp_path: Path) -> None:
    _, rows = landed(shared, tmp_path, "polar", "04-polar-hr-header/input")
    assert [row["reference_hr_bpm"][:2] for row in rows] == [[62.0, 62.0]] * 3
    assert [row["reference_hr_s"][:2] for row in rows] == [[0.0, 1.0]] * 3


def test_a_byte_order_mark_changes_nothing(shared: Path, tmp_path: Path) -> None:
    _, (plain, marked) = landed(shared, tmp_path, "e4", "05-bom/e4")
    for column in ("started_at", "reference_hr_s", "reference_hr_bpm", "ppg_rate_hz", "accel_start_s"):
        assert plain[column] == marked[column]


def test_a_lost_packet_is_missing_samples_where_it_was(shared: Path, tmp_path: Path) -> None:
    _, (row,) = landed(shared, tmp_path, "polar", "07-polar-lost-packet/input")
    ppg = np.array(row["ppg"])
    lost = np.flatnonzero(np.isnan(ppg[0]))
    assert len(lost) / row["ppg_rate_hz"] == pytest.approx(0.8, abs=0.02)
    assert np.ptp(lost) + 1 == len(lost)
    assert ppg.shape[1] / row["ppg_rate_hz"] == pytest.approx(610, abs=0.1)
    assert np.isnan(row["dark"][0]).sum() == len(lost)


def test_of_a_session_delivered_twice_the_longer_stays(shared: Path, tmp_path: Path) -> None:
    _, (row,) = landed(shared, tmp_path, "e4", "08-e4-same-session-twice/input")
    assert len(row["ppg"][0]) == 310 * 64


@pytest.mark.parametrize(
    ("device", "folder", "ppg", "accel"),
    [("e4", "acc-only", 0, 3), ("e4", "ppg-only", 1, 0), ("polar", "polar-acc", 0, 3)],
)
def test_one_stream_is_enough(shared: Path, tmp_path: Path, device: str, folder: str, ppg: int, accel: int) -> None:
    _, (row,) = landed(shared, tmp_path, device, f"10-one-stream-only/{folder}")
    assert (len(row["ppg"]), len(row["accel"])) == (ppg, accel)
    assert (row["ppg_rate_hz"] is None, row["accel_rate_hz"] is None) == (not ppg, not accel)
    assert row["dark"] is None


@pytest.mark.parametrize("device", ["wrist-edf", "edf"])
def test_acceleration_is_in_g_however_its_unit_is_spelled(shared: Path, tmp_path: Path, device: str) -> None:
    _, rows = landed(shared, tmp_path, device, "13-edf-unit-spelling/input")
    for row in rows:
        norm = np.sqrt((np.array(row["accel"]) ** 2).sum(axis=0))
        assert np.median(norm) == pytest.approx(1.0, abs=0.01)
        assert row["reference_beat_s"] is None  # the ECG of these files is noise


def test_a_zip_is_the_folder_that_it_holds(shared: Path, tmp_path: Path) -> None:
    _, (row,) = landed(shared, tmp_path, "e4", "14-e4-zip/input")
    assert (row["participant_id"], row["sensor_id"]) == ("e4-P01", "A001BC")


def test_a_table_beside_the_sessions_disturbs_none(shared: Path, tmp_path: Path) -> None:
    summary, _ = landed(shared, tmp_path, "e4", "15-demographics-table/input")
    assert (summary.read, summary.participants) == (2, 2)


def test_no_press_of_the_button_is_no_event(shared: Path, tmp_path: Path) -> None:
    _, (row,) = landed(shared, tmp_path, "e4", "16-e4-blank-tags/input")
    assert not row["event_s"]


def test_a_clock_that_was_reset_begins_another_recording_with_its_own_references(shared: Path, tmp_path: Path) -> None:
    _, rows = landed(shared, tmp_path, "polar", "18-polar-cut-and-restart/input")
    whole, *parts = rows
    assert whole["participant_id"] == "polar-cut"
    assert [row["participant_id"] for row in parts] == ["polar-restart"] * 2
    seconds = sorted(len(row["ppg"][0]) / row["ppg_rate_hz"] for row in parts)
    assert seconds == pytest.approx([150, 160], abs=0.1)
    for row in parts:
        duration_s = len(row["ppg"][0]) / row["ppg_rate_hz"]
        assert len(row["reference_hr_s"]) == pytest.approx(duration_s, abs=2)
        assert abs(row["accel_start_s"]) < 0.1
