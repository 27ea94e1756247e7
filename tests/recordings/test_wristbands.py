"""Exports of wristbands in the variants that exist: names, headers, companions, several sessions in a folder."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from accelkd.recordings.ingest import IngestSummary, ingest
from accelkd.recordings.readers import Session, Unreadable, bami, e4, polar, troika
from accelkd.recordings.validate import iter_recordings, validate_batch

START_S = 1_644_226_061
SECONDS = 70


def find(reader: Any, folder: Path) -> tuple[Session, ...]:
    sessions: tuple[Session, ...] = reader.find(sorted(path for path in folder.rglob("*") if path.is_file())).sessions
    return sessions


def landed(device: str, folder: Path, tmp_path: Path) -> tuple[IngestSummary, list[dict[str, Any]]]:
    summary = ingest(device, folder, tmp_path / "landing", "b1")
    if summary.read:
        assert validate_batch(tmp_path / "landing/b1") == []
    rows = [row for batch, _ in iter_recordings(tmp_path / "landing/b1") for row in batch.to_pylist()]
    return summary, rows


# --- Empatica E4


def write_e4(folder: Path, **changes: Any) -> Path:
    """A session of 70 s; `changes` replace files by the name of their stem, None leaves one out."""
    rng = np.random.default_rng(0)
    start = f"{START_S}.000000"
    files: dict[str, Any] = {
        "BVP": "\n".join([start, "64.000000", *(f"{x:.2f}" for x in rng.normal(0, 30, SECONDS * 64))]) + "\n",
        "ACC": "\n".join([", ".join([start] * 3), ", ".join(["32.000000"] * 3), *["2,-18,61"] * (SECONDS * 32)]) + "\n",
        "HR": "\n".join([f"{START_S + 10}.000000", "1.000000", *["70.00"] * 60]) + "\n",
        "IBI": f"{start}, IBI\n" + "".join(f"{0.5 + n},1.000000\n" for n in range(60)),
        "TEMP": f"{start}\n4.000000\n" + "30.1\n" * 280,
        "EDA": f"{start}\n4.000000\n" + "0.1\n" * 280,
        "tags": "",
    } | changes
    folder.mkdir(parents=True)
    for name, content in files.items():
        if content is not None:
            (folder / f"{name}.csv").write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def only_e4(folder: Path) -> Any:
    (session,) = find(e4, folder)
    (recording,) = e4.read(session)
    return recording


def content(folder: Path, name: str) -> str:
    return (folder / f"{name}.csv").read_text()


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text,
        lambda text: "\ufeff" + text,
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.replace("\n", "\n\n"),
        lambda text: text.replace(".000000", "", 4),
        lambda text: text.replace(", ", ","),
        lambda text: text.replace(",", ", "),
        lambda text: text.replace(".000000", ".0"),
        lambda text: text.replace(f"{START_S}.000000", f"{START_S}000"),
        lambda text: text.rstrip("\n"),
        lambda text: text.replace("\n", ",\n"),
    ],
    ids=["as it is", "BOM", "CRLF", "blank lines", "whole numbers", "no spaces", "spaces", "decimals", "milliseconds",
         "no last line end", "trailing separators"],
)  # fmt: skip
def test_e4_headers_and_line_ends(tmp_path: Path, change: Callable[[str], str]) -> None:
    folder = write_e4(tmp_path / "S01")
    expected = only_e4(tmp_path)
    for name in ("BVP", "ACC"):
        (folder / f"{name}.csv").write_text(change(content(folder, name)), newline="")
    recording = only_e4(tmp_path)
    assert (recording.ppg_rate_hz, recording.accel_rate_hz, recording.accel_start_s) == (64.0, 32.0, 0.0)
    assert recording.started_at_s == START_S
    np.testing.assert_array_equal(recording.ppg, expected.ppg)
    np.testing.assert_array_equal(recording.accel, expected.accel)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("HR", None),
        ("HR", ""),
        ("HR", "\n\n"),
        ("HR", f"{START_S}\n1\n"),
        ("HR", f"{START_S + 10}\n1\n" + "0.00\n" * 60),
        ("HR", "no heart rate\n"),
        ("HR", b"\x00" * 500),
        ("HR", f"{START_S + 90_000}\n1\n" + "70.00\n" * 60),
    ],
)
def test_e4_heart_rates_that_are_none(tmp_path: Path, name: str, text: str | bytes | None) -> None:
    write_e4(tmp_path / "S01", **{name: text})
    recording = only_e4(tmp_path)
    assert (recording.reference_hr_s, recording.reference_source) == (None, "device")
    assert recording.ppg.shape == (1, SECONDS * 64)
    assert len(recording.reference_ibi_s) == 60
    assert text is None or recording.notes


@pytest.mark.parametrize(
    "text",
    ["", "\r\n", f"{START_S}, IBI\n", "start,IBI\n", f"{START_S}, IBI\n1.5\n", "\ufeff", f"{START_S}, IBI\nx,y\n"],
)
def test_e4_intervals_that_are_none(tmp_path: Path, text: str) -> None:
    write_e4(tmp_path / "S01", IBI=text)
    recording = only_e4(tmp_path)
    assert recording.reference_ibi_s is None
    assert len(recording.reference_hr_s) == 60


@pytest.mark.parametrize(
    ("text", "events"),
    [
        ("\r\n", []),
        (f"{START_S + 5}.25\r\n\r\n{START_S + 9}.50\r\n", [5.25, 9.5]),
        (f"{START_S + 9}.50,\n{START_S + 5}.25,\n", [5.25, 9.5]),
        ("tags\n" + f"{START_S + 5}\n", [5.0]),
        (f"{START_S - 9}\n", []),
        ("nothing pressed\n", []),
    ],
)
def test_e4_tags(tmp_path: Path, text: str, events: list[float]) -> None:
    write_e4(tmp_path / "S01", tags=text)
    recording = only_e4(tmp_path)
    assert (recording.event_s if recording.event_s is not None else np.empty(0)).tolist() == events


def test_e4_streams_of_unequal_length_are_cut_where_they_part(tmp_path: Path) -> None:
    folder = write_e4(tmp_path / "delivery/S01")
    text = content(folder, "BVP").splitlines()
    (folder / "BVP.csv").write_text("\n".join([*text, *text[2:] * 2]) + "\n")
    summary, rows = landed("e4", tmp_path / "delivery", tmp_path)
    assert (summary.read, summary.rejections) == (2, ())
    assert [len(row["ppg"][0]) for row in rows] == [SECONDS * 64, 2 * SECONDS * 64]
    assert [len(row["accel"]) for row in rows] == [3, 0]


def test_e4_serial_numbers_and_participants(tmp_path: Path) -> None:
    names = {
        "P01/1644226061_A0135C": "A0135C",
        "P01/1644226061_a0135c (1)": "A0135C",
        "P02/1594140175": None,
        "P03/15_1594140175": None,
        "P04/1644226061_P04": None,
    }
    for name in names:
        write_e4(tmp_path / name)
    assert {str(s.source.relative_to(tmp_path)): s.sensor_id for s in find(e4, tmp_path)} == names
    assert {session.participant for session in find(e4, tmp_path)} == {None}
    write_e4(tmp_path / "x", tags=None)
    (tmp_path / "x/tags_1644226061_A0135C.csv").write_text("")
    assert find(e4, tmp_path / "x")[0].participant is None  # a session, not a person


# --- Polar Sensor Logger


def write_polar(
    folder: Path, prefix: str = "Polar_Sense_", start: datetime = datetime(2024, 3, 5, 22, 10), **changes: Any
) -> Path:
    """A session of 70 s that the phone saw from `start` on."""
    folder.mkdir(parents=True, exist_ok=True)
    origin_ns = int((start - datetime(2000, 1, 1)).total_seconds() * 1e9)
    rng = np.random.default_rng(int(start.timestamp()))

    def rows(rate_hz: float, columns: list[float], end: str = "") -> list[str]:
        stamps = [start + timedelta(seconds=n / rate_hz) for n in range(int(SECONDS * rate_hz))]
        return [
            ";".join([
                stamp.isoformat(timespec="milliseconds"),
                str(origin_ns + round(n * 1e9 / rate_hz)),
                *(f"{value + rng.normal():.0f}" for value in columns),
            ]) + end
            for n, stamp in enumerate(stamps)
        ]  # fmt: skip

    seconds = [(start + timedelta(seconds=n)).isoformat(timespec="milliseconds") for n in range(SECONDS)]
    ppg_header = "Phone timestamp;sensor timestamp [ns];channel 0;channel 1;channel 2;ambient"
    files: dict[str, Any] = {
        "PPG": "\n".join([ppg_header, *rows(55, [300_000, 310_000, 290_000, 200], ";")]),
        "ACC": "\n".join(["Phone timestamp;sensor timestamp [ns];X [mg];Y [mg];Z [mg]", *rows(52, [90, -300, 950])]),
        "HR": "\n".join(["Phone timestamp;HR [bpm]", *(f"{stamp};60" for stamp in seconds)]),
        "PPI": "\n".join([
            "Phone timestamp;PP-interval [ms];error estimate [ms];blocker;contact;contact;hr [bpm]",
            *(f"{stamp};1000;5;0;1;1;60" for stamp in seconds),
        ]),
    } | changes  # fmt: skip
    for name, text in files.items():
        if text is not None:
            (folder / f"{prefix}{name}.txt").write_text(text + "\n")
    return folder


def only_polar(folder: Path) -> Any:
    (session,) = find(polar, folder)
    (recording,) = polar.read(session)
    return recording


@pytest.mark.parametrize(
    ("prefix", "sensor_id"),
    [
        ("Polar_Sense_", None),
        ("Polar_Sense_0A1B2C3D_20240305_221000_", "0A1B2C3D"),
        ("Polar_OH1_7E12AB34_20240305_221000_", "7E12AB34"),
        ("Polar_Verity_Sense_0A1B2C3D_20240305_221000_", "0A1B2C3D"),
        ("Polar_H10_0A1B2C3D_20240305_221000_", "0A1B2C3D"),
    ],
)
def test_polar_names(tmp_path: Path, prefix: str, sensor_id: str | None) -> None:
    write_polar(tmp_path / "delivery/p01", prefix)
    (tmp_path / f"delivery/p01/{prefix}GYRO.txt").write_text("Phone timestamp;X [dps]\n")
    summary, (row,) = landed("polar", tmp_path / "delivery", tmp_path)
    assert (summary.read, summary.companions, summary.rejections) == (1, 1, ())
    assert (row["participant_id"], row["sensor_id"]) == ("polar-p01", sensor_id)
    assert row["ppg_rate_hz"] == pytest.approx(55, abs=1e-3)
    assert (len(row["reference_hr_s"]), len(row["reference_ibi_s"])) == (SECONDS, SECONDS)


def test_polar_sessions_in_one_folder_are_told_apart_by_their_names(tmp_path: Path) -> None:
    starts = [datetime(2024, 3, 5, 22, 10), datetime(2024, 3, 5, 22, 30), datetime(2024, 3, 6, 22, 10)]
    for start in starts:
        write_polar(tmp_path / "delivery/p01", f"Polar_Sense_0A1B2C3D_{start:%Y%m%d_%H%M%S}_", start)
    folder = tmp_path / "delivery/p01"
    for path in folder.glob("*_20240305_221000_ACC.txt"):  # switched on some seconds after the PPG
        path.rename(path.with_name(path.name.replace("221000", "221007")))
    write_polar(folder, "Polar_Sense_99999999_20240305_221000_", datetime(2024, 3, 5, 22, 10, 1))
    sessions = find(polar, folder)
    assert [(len(session.files), session.sensor_id) for session in sessions] == [(4, "0A1B2C3D")] * 3 + [
        (4, "99999999")
    ]
    summary, rows = landed("polar", tmp_path / "delivery", tmp_path)
    assert (summary.read, summary.participants, summary.rejections) == (4, 1, ())
    assert all(len(row["ppg"]) == len(row["accel"]) == 3 for row in rows)


def test_polar_newer_columns_and_other_orders_are_read_by_name(tmp_path: Path) -> None:
    write_polar(tmp_path)
    expected = only_polar(tmp_path)
    path = tmp_path / "Polar_Sense_PPG.txt"
    rows = [row.rstrip(";").split(";") for row in path.read_text().splitlines()]
    reordered = [
        ";".join([row[1], row[0], row[5], *row[2:5], "status" if n == 0 else "1"]) for n, row in enumerate(rows)
    ]
    path.write_text("\r\n".join(reordered))
    recording = only_polar(tmp_path)
    np.testing.assert_array_equal(recording.ppg, expected.ppg)
    np.testing.assert_array_equal(recording.dark, expected.dark)


@pytest.mark.parametrize("name", ["HR", "PPI"])
@pytest.mark.parametrize("text", ["", "Phone timestamp", "a;b;c\n1;2;3", "Phone timestamp;HR [bpm]\n;;\nnow;70"])
def test_polar_references_that_are_none(tmp_path: Path, name: str, text: str) -> None:
    write_polar(tmp_path, "Polar_Sense_", datetime(2024, 3, 5), **{name: text})
    recording = only_polar(tmp_path)
    assert recording.ppg.shape[1] == SECONDS * 55
    assert recording.reference_source == "device"  # the other is there
    assert (recording.reference_hr_s is None) == (name == "HR")
    assert (recording.reference_ibi_s is None) == (name == "PPI")


def test_polar_chest_strap_has_beats_of_its_electrocardiogram(tmp_path: Path) -> None:
    start = datetime(2024, 3, 5, 22, 10)
    origin_ns = int((start - datetime(2000, 1, 1)).total_seconds() * 1e9)
    t = np.arange(SECONDS * 130) / 130
    beat_s = np.arange(0.6, SECONDS - 0.5, 0.9)
    volts = 1000 * np.exp(-0.5 * ((t[:, None] - beat_s) / 0.015) ** 2).sum(axis=1)
    rows = [
        f"2024-03-05T22:10:00.000;{origin_ns + round(s * 1e9)};{s * 1000:.1f};{v:.0f}"
        for s, v in zip(t, volts, strict=True)
    ]
    ecg = "\n".join(["Phone timestamp;sensor timestamp [ns];timestamp [ms];ecg [uV]", *rows])
    rr = "Phone timestamp;RR-interval [ms]\n2024-03-05T22:10:02.000;900"
    write_polar(tmp_path, "Polar_H10_0A1B2C3D_20240305_221000_", PPG=None, PPI=None, ECG=ecg, RR=rr)
    recording = only_polar(tmp_path)
    assert (recording.ppg, recording.reference_source) == (None, "ecg")
    np.testing.assert_allclose(recording.reference_beat_s, beat_s, atol=0.01)
    (tmp_path / "Polar_H10_0A1B2C3D_20240305_221000_ECG.txt").unlink()
    recording = only_polar(tmp_path)
    assert (recording.reference_source, recording.reference_ibi_s.tolist()) == ("device", [0.9])


def test_polar_references_alone_are_no_recording(tmp_path: Path) -> None:
    write_polar(tmp_path, PPG=None, ACC=None)
    (session,) = find(polar, tmp_path)
    with pytest.raises(Unreadable, match="missing_file"):
        polar.read(session)


# --- MATLAB data sets


def test_troika_test_part(shared: Path, tmp_path: Path) -> None:
    source = shared / "data/troika-spc2015"
    for number, name in ((1, "S01_T01"), (2, "S04_T02")):
        (path,) = source.glob(f"DATA_0{number}_TYPE0?.mat")
        (tmp_path / "TestData").mkdir(exist_ok=True)
        (tmp_path / "TrueBPM").mkdir(exist_ok=True)
        savemat(tmp_path / f"TestData/TEST_{name}.mat", {"sig": loadmat(path)["sig"][1:]})
        shutil.copyfile(path.with_name(f"{path.stem}_BPMtrace.mat"), tmp_path / f"TrueBPM/True_{name}.mat")
    for name in ("DATA_S04_T01.mat", "BPM_S04_T01.mat"):
        shutil.copyfile(source / name, tmp_path / name)
    sessions = find(troika, tmp_path)
    assert [(session.participant, len(session.files)) for session in sessions] == [("4", 2), ("S1", 2), ("4", 2)]
    (recording,) = troika.read(sessions[1])
    assert recording.reference_hr_bpm is not None
    assert len(recording.reference_hr_bpm) == 148
    assert recording.accel is not None
    assert np.median(np.sqrt((recording.accel**2).sum(axis=0))) == pytest.approx(1.03, abs=0.01)


def test_bami_of_another_length_or_with_one_modality(shared: Path, tmp_path: Path) -> None:
    content = loadmat(shared / "data/bami1-watch/Subject_1.mat")
    signals = {name: content[name][:, :9000] for name in ("sigPPG", "sigAcc")}
    beats = content["timeECG"][content["timeECG"][:, 0] < 180]
    savemat(tmp_path / "Subject_07.mat", {**signals, "timeECG": beats.T, "bpmECG": content["bpmECG"][: len(beats)].T})
    savemat(tmp_path / "Subject_8.mat", {"sigAcc": content["sigAcc"].T[:9000]})
    first, second = find(bami, tmp_path)
    assert (first.participant, second.participant) == ("7", "8")
    (recording,) = bami.read(first)
    assert recording.reference_hr_s is not None
    assert (recording.duration_s, len(recording.reference_hr_s)) == (180.0, len(beats))
    (recording,) = bami.read(second)
    assert recording.ppg is None
    assert recording.accel is not None
    assert (recording.accel.shape, recording.reference_source) == ((3, 9000), None)
