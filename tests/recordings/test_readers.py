"""The readers on real recordings: rates, lengths, units and every quirk, as numbers."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from accelkd.recordings.devices import DEVICES
from accelkd.recordings.ingest import IngestSummary, ingest
from accelkd.recordings.readers import Delivery, Reader, bami, e4, polar, troika, wrist_edf
from accelkd.recordings.validate import iter_recordings, validate_batch

FOLDERS = {
    "e4": "stress-predict-e4",
    "bami": "bami1-watch",
    "wrist-edf": "wrist-ppg-exercise",
    "troika": "troika-spc2015",
    "polar": "polar-verity-sense",
}


def find(reader: Reader, folder: Path) -> Delivery:
    return reader.find(sorted(path for path in folder.rglob("*") if path.is_file()))


def read(reader: Reader, folder: Path, name: str) -> Any:
    """The only recording of a session; Any, since both of its modalities are there."""
    (session,) = (session for session in find(reader, folder).sessions if session.source.name == name)
    (recording,) = reader.read(session)
    return recording


@pytest.fixture(scope="module")
def landed(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, IngestSummary]]:
    """Every real recording of the five devices, ingested."""
    landing = tmp_path_factory.mktemp("landing")
    return landing, {
        device: ingest(device, shared / "data" / folder, landing, f"real-{device}")
        for device, folder in FOLDERS.items()
    }


@pytest.mark.parametrize(
    ("device", "recordings", "participants", "minutes"),
    [("e4", 16, 16, 887), ("bami", 16, 16, 224), ("wrist-edf", 5, 4, 26), ("troika", 13, 12, 64), ("polar", 1, 1, 9)],
)
def test_every_real_recording_lands_and_validates(
    landed: tuple[Path, dict[str, IngestSummary]], device: str, recordings: int, participants: int, minutes: int
) -> None:
    landing, summaries = landed
    summary = summaries[device]
    assert (summary.read, summary.participants, summary.rejections) == (recordings, participants, ())
    assert summary.total == recordings
    assert round(summary.duration_s / 60) == minutes
    assert validate_batch(landing / f"real-{device}") == []
    rows = [row for batch, _ in iter_recordings(landing / f"real-{device}") for row in batch.to_pylist()]
    assert len(rows) == recordings
    assert {row["device_id"] for row in rows} == {device}
    assert all(len(row["ppg"]) == DEVICES[device].ppg_channels for row in rows)
    assert all(row["participant_id"].startswith(f"{device}-") for row in rows)


def test_recording_ids_are_unique_over_all_batches(landed: tuple[Path, dict[str, IngestSummary]]) -> None:
    landing, _ = landed
    ids = [
        name
        for path in landing.glob("*/recordings/*.parquet")
        for name in pq.read_table(path, columns=["recording_id"])["recording_id"].to_pylist()
    ]
    assert len(ids) == len(set(ids)) == 51


# --- Empatica E4


def test_e4_streams_keep_their_own_rate_and_length(shared: Path) -> None:
    s01 = read(e4, shared / "data/stress-predict-e4", "S01")
    assert (s01.ppg.shape, s01.ppg_rate_hz) == ((1, 208703), 64.0)
    assert (s01.accel.shape, s01.accel_rate_hz, s01.accel_start_s) == ((3, 104310), 32.0, 0.0)
    assert s01.accel[:, 0].tolist() == [-2 / 64, 43 / 64, 43 / 64]
    assert s01.started_at_s == datetime(2022, 2, 7, 9, 27, 41, tzinfo=UTC).timestamp()


def test_e4_with_crlf_line_ends_equals_the_same_file_with_lf(shared: Path, tmp_path: Path) -> None:
    source = shared / "data/stress-predict-e4/S01"
    assert b"\r\n" in (source / "BVP.csv").read_bytes()
    copy = tmp_path / "S01"
    shutil.copytree(source, copy)
    (copy / "BVP.csv").chmod(0o644)
    (copy / "BVP.csv").write_bytes((source / "BVP.csv").read_bytes().replace(b"\r\n", b"\n"))
    np.testing.assert_array_equal(read(e4, source, "S01").ppg, read(e4, copy, "S01").ppg)


def test_e4_heart_rate_starts_ten_seconds_late_and_intervals_end_where_the_file_says(shared: Path) -> None:
    s06 = read(e4, shared / "data/stress-predict-e4", "S06")
    assert s06.reference_source == "device"
    assert s06.reference_hr_s is not None
    assert s06.reference_hr_bpm is not None
    assert s06.reference_hr_s[:3].tolist() == [10.0, 11.0, 12.0]
    assert s06.reference_hr_bpm[0] == 58.0
    assert s06.reference_ibi_end_s is not None
    assert s06.reference_ibi_s is not None
    # 16.765625 - 15.953125 = 0.8125: the second interval begins where the first ends
    assert s06.reference_ibi_end_s[:2].tolist() == [15.953125, 16.765625]
    covered = s06.reference_ibi_s.sum() / (s06.ppg.shape[1] / 64)
    assert covered == pytest.approx(0.78, abs=0.01)


def test_e4_tags_with_a_slipped_clock_are_put_right_and_in_order(shared: Path) -> None:
    s17 = read(e4, shared / "data/stress-predict-e4", "S17")
    assert s17.event_s is not None
    assert s17.event_s.tolist() == [596.0, 1024.0, 1361.0, 1995.0, 2339.0, 2435.0, 2775.0]
    assert s17.notes == ("2 tags moved by +12 h: a slip of the clock",)


def test_e4_participant_comes_from_the_tag_file(shared: Path, tmp_path: Path) -> None:
    shutil.copytree(shared / "data/stress-predict-e4/S05", tmp_path / "1644829925_A0135C")
    (session,) = find(e4, tmp_path).sessions
    assert session.participant == "S05"


# --- BAMI-1


def test_bami_acceleration_is_signed_and_in_g(shared: Path) -> None:
    record = read(bami, shared / "data/bami1-watch", "Subject_1.mat")
    assert (record.ppg.shape, record.accel.shape) == ((3, 42000), (3, 42000))
    assert (record.ppg_rate_hz, record.accel_rate_hz, record.started_at_s) == (50.0, 50.0, None)
    assert record.accel.min() == pytest.approx(-4.4307, abs=1e-4)
    assert 4085 / 4096 < np.median(np.linalg.norm(record.accel[:, :3000], axis=0)) < 4251 / 4096
    assert record.ppg.min() >= 0
    assert record.ppg.max() < 65536


def test_bami_heart_rate_is_one_value_per_beat(shared: Path) -> None:
    record = read(bami, shared / "data/bami1-watch", "Subject_1.mat")
    assert record.reference_source == "ecg"
    assert record.reference_beat_s is not None
    assert record.reference_hr_bpm is not None
    assert len(record.reference_beat_s) == len(record.reference_hr_bpm) == 1620
    np.testing.assert_array_equal(record.reference_beat_s, record.reference_hr_s)
    np.testing.assert_allclose(60 / np.diff(record.reference_beat_s)[:100], record.reference_hr_bpm[:100], rtol=0.15)


# --- Wrist EDF


def test_wrist_edf_cuts_the_fill_samples_and_reports_the_clock_jumps(shared: Path) -> None:
    record = read(wrist_edf, shared / "data/wrist-ppg-exercise", "s3_low_resistance_bike.edf")
    assert record.ppg.shape == (1, 75520 - 286)
    assert record.notes == (
        "286 fill samples cut from the end",
        "5 jumps of the sample clock, 0.119 s lost in all",
    )
    assert record.ppg[0, -1] > 1000  # the fill is at -13
    assert record.started_at_s is None  # the header has the date of the conversion


def test_wrist_edf_takes_three_different_axes_of_the_low_noise_accelerometer_in_g(shared: Path) -> None:
    record = read(wrist_edf, shared / "data/wrist-ppg-exercise", "s6_walk.edf")
    assert record.accel.shape == (3, 86272 - 295)
    assert np.median(np.linalg.norm(record.accel, axis=0)) == pytest.approx(1.0, abs=0.01)
    correlations = np.asarray(np.corrcoef(record.accel))
    assert np.abs(correlations[np.triu_indices(3, 1)]).max() < 0.9
    # Up to 2.48 g; the wide-range sensor, which has other labels, stops at 2.05 g
    assert np.abs(record.accel).max() == pytest.approx(24.3312 / 9.80665, abs=1e-6)


def test_wrist_edf_beats_come_from_the_beat_list(shared: Path) -> None:
    record = read(wrist_edf, shared / "data/wrist-ppg-exercise", "s6_walk.edf")
    assert record.reference_beat_s is not None
    assert record.reference_beat_s[:2].tolist() == [156 / 256, 335 / 256]
    first_minute = record.reference_beat_s[record.reference_beat_s < 60]
    assert 60 / np.mean(np.diff(first_minute)) == pytest.approx(90.4, abs=1.0)


# --- TROIKA


def test_troika_rows_and_windows_have_the_published_meaning(shared: Path) -> None:
    record = read(troika, shared / "data/troika-spc2015", "DATA_01_TYPE01.mat")
    assert (record.ppg.shape, record.accel.shape, record.ppg_rate_hz) == ((2, 37937), (3, 37937), 125.0)
    assert np.median(np.linalg.norm(record.accel, axis=0)) == pytest.approx(1.03, abs=0.01)
    assert record.reference_hr_s is not None
    assert record.reference_hr_bpm is not None
    assert record.reference_hr_s[:2].tolist() == [4.0, 6.0]  # the middles of 0 to 8 s and of 2 to 10 s
    assert len(record.reference_hr_s) == len(record.reference_hr_bpm) == 148


def test_troika_second_recording_of_a_participant_finds_its_trace(shared: Path) -> None:
    sessions = find(troika, shared / "data/troika-spc2015").sessions
    fourth = [session for session in sessions if session.participant == "4"]
    assert [[path.name for path in session.files] for session in fourth] == [
        ["DATA_04_TYPE02.mat", "DATA_04_TYPE02_BPMtrace.mat"],
        ["DATA_S04_T01.mat", "BPM_S04_T01.mat"],
    ]
    second = troika.read(fourth[1])[0].reference_hr_bpm
    assert second is not None
    assert (len(second), second.min()) == (107, pytest.approx(66.298))


# --- Polar


def test_polar_rates_and_alignment_come_from_sensor_time(shared: Path) -> None:
    record = read(polar, shared / "data", "polar-verity-sense")
    assert record.ppg_rate_hz == pytest.approx(54.750, abs=0.001)
    assert record.accel_rate_hz == pytest.approx(51.705, abs=0.001)
    assert record.accel_start_s == pytest.approx(-0.329625722, abs=1e-6)
    assert (record.ppg.shape, record.accel.shape) == ((3, 28143), (3, 26526))
    assert record.ppg[:, 0].tolist() == [261545, 278928, 293066]
    assert record.accel[:, 0].tolist() == pytest.approx([-0.777, 0.436, -0.499])
    assert record.started_at_s is None  # local time without a zone


def test_polar_ambient_channel_is_the_dark_slot_of_the_same_frame(shared: Path) -> None:
    record = read(polar, shared / "data", "polar-verity-sense")
    assert record.dark is not None
    assert record.dark.shape == (1, 28143)
    assert record.dark[0, 0] == -644  # may be negative
    assert record.dark_offsets_s == (0.0,)


def test_polar_reference_without_zeros_and_blocked_intervals(shared: Path) -> None:
    record = read(polar, shared / "data", "polar-verity-sense")
    assert record.reference_hr_bpm is not None
    assert record.reference_hr_s is not None
    assert record.reference_hr_bpm.min() > 40
    # First heart rate after the zeros: 11:40:17.264, first PPG frame: 11:39:36.029 (phone time)
    first_after_zeros = record.reference_hr_s[record.reference_hr_s > 40][0]
    assert first_after_zeros == pytest.approx(41.235, abs=1e-3)
    assert record.reference_ibi_s is not None
    assert len(record.reference_ibi_s) == 414  # the last ends after the signals
    assert 60 / np.median(record.reference_ibi_s) == pytest.approx(52.5, abs=2.5)
    assert record.event_s is not None
    assert record.event_s.tolist() == pytest.approx([26.354, 507.369], abs=1e-6)
