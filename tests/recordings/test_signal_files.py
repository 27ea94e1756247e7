"""EDF, BDF and WFDB files of any origin: signals by label and unit, gaps by time, people by header."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import wfdb

from accelkd.recordings.ingest import IngestSummary, ingest
from accelkd.recordings.readers import Recording, Unreadable, edf
from accelkd.recordings.readers import wfdb as wfdb_reader
from accelkd.recordings.readers.signals import choose, g_per_unit
from accelkd.recordings.validate import validate_batch
from tests.support.edf import Edf, Signal
from tests.support.odd_entries import no_longer_than
from tests.support.recordings import pulse

Floats = npt.NDArray[np.float64]
SECONDS = 90
G = 9.80665


def ppg(rate_hz: int = 64) -> Floats:
    wave = pulse(SECONDS, 70, 1, level=1000)[0].astype(np.float64) - 1000
    return np.interp(np.arange(SECONDS * rate_hz) / rate_hz, np.arange(len(wave)) / 64, wave)


def axes(rate_hz: int, scale: float) -> list[Floats]:
    rng = np.random.default_rng(0)
    return [scale * (level + 0.01 * rng.standard_normal(SECONDS * rate_hz)) for level in (0.6, 0.0, 0.8)]


def ecg(rate_hz: int, beat_s: Floats) -> Floats:
    t = np.arange(SECONDS * rate_hz) / rate_hz
    return np.asarray(np.exp(-0.5 * ((t[:, None] - beat_s) / 0.012) ** 2).sum(axis=1))


def accelerometer(unit: str, scale: float, rate_hz: int = 50, stem: str = "ACC") -> list[Signal]:
    limits = (-4 * scale, 4 * scale)
    return [
        Signal(f"{stem} {axis}", unit, rate_hz, samples, limits)
        for axis, samples in zip("XYZ", axes(rate_hz, scale), strict=True)
    ]


def read_edf(path: Path) -> list[Recording]:
    (session,) = edf.find([path]).sessions
    return edf.read(session)


def landed(device: str, folder: Path, tmp_path: Path) -> IngestSummary:
    summary = ingest(device, folder, tmp_path / "landing", "b1")
    assert validate_batch(tmp_path / "landing/b1") == []
    return summary


@pytest.mark.parametrize(
    ("unit", "scale"),
    [
        ("g", 1),
        ("G", 1),
        ("mg", 1000),
        ("mG", 1000),
        ("m/s^2", G),
        ("m/s2", G),
        ("m/s²", G),
        ("ms^-2", G),
        ("m/s/s", G),
    ],
)
def test_units_of_acceleration(tmp_path: Path, unit: str, scale: float) -> None:
    Edf([Signal("PPG green", "mV", 64, ppg()), *accelerometer(unit, scale)]).write(tmp_path / "P1.edf")
    (recording,) = read_edf(tmp_path / "P1.edf")
    assert recording.ppg is not None
    assert recording.accel is not None
    assert (recording.ppg.shape, recording.ppg_rate_hz) == ((1, SECONDS * 64), 64.0)
    assert (recording.accel.shape, recording.accel_rate_hz) == ((3, SECONDS * 50), 50.0)
    np.testing.assert_allclose(recording.accel.mean(axis=1), [0.6, 0.0, 0.8], atol=0.01)
    assert recording.started_at_s is None


def test_spellings_of_units() -> None:
    for spelling in ("m/s^2", "m/s**2", "m / s2", "m.s^-2", "m·s⁻²", "ms-2", "m/sec^2", "m/sÂ²", "M/S2"):
        assert g_per_unit(spelling) == pytest.approx(1 / G), spelling
    assert [g_per_unit(unit) for unit in ("", "counts", "adu", "LSB", "mV", "deg/s")] == [None] * 6


@pytest.mark.parametrize(
    "labels",
    [
        ["Acc X", "Acc Y", "Acc Z"],
        ["accel_x", "accel_y", "accel_z"],
        ["X axis acceleration"[:16], "Y axis acceleration"[:16], "Z axis acceleration"[:16]],
        ["AccelX", "AccelY", "AccelZ"],
        ["wrist_acc_z", "wrist_acc_y", "wrist_acc_x"],
        ["ax", "ay", "az"],
        ["Accelerometer", "Accelerometer", "Accelerometer"],
    ],
)
def test_axes_by_their_labels(labels: list[str]) -> None:
    chosen = choose(["PLETH", *labels, "gyro_x", "gyro_y", "gyro_z"], ["NU", *["g"] * 3, *["dps"] * 3], [100.0] * 7)
    assert chosen.ppg == (0,)
    expected = (3, 2, 1) if labels[0] == "wrist_acc_z" else (1, 2, 3)
    assert chosen.accel == expected


def test_of_several_sensors_the_one_at_the_wrist_is_read() -> None:
    labels = [f"{place}_acc_{axis}" for place in ("chest", "wrist") for axis in "xyz"]
    chosen = choose([*labels, "wrist_ppg", "finger_ppg", "SpO2 Pleth rate"], ["g"] * 6 + ["mV"] * 3, [64.0] * 9)
    assert (chosen.accel, chosen.ppg) == ((3, 4, 5), (6,))
    assert len(chosen.notes) == 2


def test_acceleration_in_counts_is_refused_and_left_out_beside_ppg(tmp_path: Path) -> None:
    Edf(accelerometer("counts", 1000)).write(tmp_path / "P1.edf")
    with pytest.raises(Unreadable, match=r"accel_unit: P1.edf: the unit of 'ACC X' is 'counts'"):
        read_edf(tmp_path / "P1.edf")
    Edf([Signal("Pleth", "", 64, ppg()), *accelerometer("counts", 1000)]).write(tmp_path / "P1.edf")
    (recording,) = read_edf(tmp_path / "P1.edf")
    assert recording.accel is None
    assert recording.ppg is not None
    assert any("counts" in note for note in recording.notes)


def test_beats_come_from_the_electrocardiogram(tmp_path: Path) -> None:
    beat_s = np.arange(0.5, SECONDS - 0.5, 0.83)
    signals = [Signal("ECG", "mV", 250, ecg(250, beat_s), (-2, 2)), Signal("PPG", "mV", 64, ppg())]
    Edf(signals).write(tmp_path / "P1.edf")
    (recording,) = read_edf(tmp_path / "P1.edf")
    assert recording.reference_source == "ecg"
    assert recording.reference_beat_s is not None
    np.testing.assert_allclose(recording.reference_beat_s, beat_s, atol=0.005)


@pytest.mark.parametrize("is_bdf", [False, True])
def test_interruptions_are_gaps_and_long_ones_begin_another_recording(tmp_path: Path, is_bdf: bool) -> None:
    onsets_s = [*range(30), *range(35, 65), *range(5000, 5030)]
    file = Edf([Signal("PPG", "mV", 64, ppg()), *accelerometer("g", 1)], onsets_s=[float(s) for s in onsets_s])
    file.is_bdf = is_bdf
    path = file.write(tmp_path / ("P1.bdf" if is_bdf else "P1.edf"))
    first, second = read_edf(path)
    assert first.ppg is not None
    assert first.accel is not None
    assert second.ppg is not None
    assert (first.ppg.shape[1], second.ppg.shape[1]) == (65 * 64, 30 * 64)
    assert np.flatnonzero(np.isnan(first.ppg[0])).tolist() == list(range(30 * 64, 35 * 64))
    assert np.flatnonzero(np.isnan(first.accel[0])).tolist() == list(range(30 * 50, 35 * 50))
    np.testing.assert_allclose(first.ppg[0, 35 * 64 :], ppg()[30 * 64 : 60 * 64], atol=0.01)


def test_a_bdf_file_has_24_bits(tmp_path: Path) -> None:
    Edf([Signal("PPG", "uV", 64, ppg(), (-1e5, 1e5))], is_bdf=True).write(tmp_path / "P1.BDF")
    (recording,) = read_edf(tmp_path / "P1.BDF")
    assert recording.ppg is not None
    np.testing.assert_allclose(recording.ppg[0], ppg(), atol=0.02)


def test_a_cut_file_is_read_up_to_its_last_whole_record_and_its_fill_is_cut(tmp_path: Path) -> None:
    path = Edf([Signal("PPG", "mV", 64, ppg()), *accelerometer("g", 1)]).write(tmp_path / "P1.edf")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    (recording,) = read_edf(path)
    assert 40 < recording.duration_s < 46
    assert "whole data records" in recording.notes[0]
    short = [samples[:-20] for samples in (ppg(), *axes(64, 1))]
    signals = [
        Signal(label, "g", 64, samples, (-20, 20))
        for label, samples in zip(["PPG", "x acc", "y acc", "z acc"], short, strict=True)
    ]
    (recording,) = read_edf(Edf(signals).write(path))
    assert recording.ppg is not None
    assert recording.ppg.shape[1] == SECONDS * 64 - 20
    assert recording.notes[0] == "0.312 s of fill samples cut from the end"


def test_the_header_names_and_describes_the_person(tmp_path: Path) -> None:
    signals = [Signal("PPG", "mV", 64, ppg()), *accelerometer("g", 1)]
    dated = "Startdate 02-MAR-2020 X X X"
    Edf(signals, "A7 F 01-JAN-1980 X", dated, "02.03.20").write(tmp_path / "x.edf")
    (recording,) = read_edf(tmp_path / "x.edf")
    assert recording.participant == "A7"
    assert recording.demographics is not None
    assert (recording.demographics.sex, recording.demographics.age_years) == ("female", 40.2)
    summary = ingest("edf", tmp_path, tmp_path / "landing", "b1", participant_from="file")
    assert (summary.read, summary.participants) == (1, 1)
    for patient, participant in (("X X X X", None), ("A7", "A7"), ("A7 M 01-JAN-1980 X", "A7"), ("Jane Doe", None)):
        Edf(signals, patient).write(tmp_path / "x.edf")
        (recording,) = read_edf(tmp_path / "x.edf")
        assert recording.participant == participant
        age = recording.demographics.age_years if recording.demographics else None
        assert age is None  # no real start date


@pytest.mark.parametrize("labels", [["SpO2", "Resp"], ["EEG C3", "Status"]])
def test_a_file_without_the_signals_is_refused(tmp_path: Path, labels: list[str]) -> None:
    Edf([Signal(label, "mV", 64, ppg()) for label in labels]).write(tmp_path / "P1.edf")
    with pytest.raises(Unreadable, match="wrong_signals"):
        read_edf(tmp_path / "P1.edf")


def test_any_damage_of_a_header_is_a_reason(tmp_path: Path) -> None:
    path = Edf([Signal("PPG", "mV", 64, ppg()), *accelerometer("g", 1)]).write(tmp_path / "P1.edf")
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(150):
        damaged = bytearray(content)
        for at in rng.integers(0, 256 * 5, 6):
            damaged[at] = rng.integers(0, 256)
        path.write_bytes(damaged)
        with suppress(Unreadable):
            assert all(recording.duration_s > 0 for recording in read_edf(path))


# --- WFDB


def write_record(folder: Path, name: str, unit: str = "g", scale: float = 1.0, **options: object) -> Floats:
    """A record of an ECG, a PPG and three axes at 128 Hz, its beats annotated; returns their instants."""
    beat_s = np.arange(0.5, SECONDS - 0.5, 0.8)
    signals = np.stack([ecg(128, beat_s), ppg(128) + len(unit), *axes(128, scale)], axis=1)
    wfdb.wrsamp(
        name,
        128,
        ["mV", "mV", *[unit] * 3],
        ["II", "PLETH", "ACC_X", "ACC_Y", "ACC_Z"],
        p_signal=signals,
        fmt=["16"] * 5,
        write_dir=str(folder),
        **options,
    )
    return beat_s


def test_a_wfdb_record_with_its_beats(tmp_path: Path) -> None:
    folder = tmp_path / "delivery"
    folder.mkdir()
    beat_s = write_record(folder, "P1", "m/s^2", G, comments=["Age: 61  Sex: M"])
    wfdb.wrann("P1", "atr", np.round(beat_s * 128).astype(int), symbol=["N"] * len(beat_s), write_dir=str(folder))
    write_record(folder, "P2", "mg", 1000.0)
    summary = landed("wfdb", folder, tmp_path)
    assert (summary.read, summary.participants, summary.rejections) == (2, 2, ())
    first, second = (wfdb_reader.read(session)[0] for session in wfdb_reader.find(sorted(folder.iterdir())).sessions)
    assert first.demographics is not None
    assert (first.demographics.age_years, first.demographics.sex) == (61.0, "male")
    for recording in (first, second):
        assert recording.accel is not None
        np.testing.assert_allclose(recording.accel.mean(axis=1), [0.6, 0.0, 0.8], atol=0.01)
        assert recording.reference_beat_s is not None
        np.testing.assert_allclose(recording.reference_beat_s, beat_s, atol=0.01)
    assert "beats detected" not in "".join(first.notes)
    assert "beats detected" in "".join(second.notes)


def test_a_wfdb_record_of_segments_has_gaps_between_them(tmp_path: Path) -> None:
    write_record(tmp_path, "P1_1")
    write_record(tmp_path, "P1_2")
    frames = SECONDS * 128
    (tmp_path / "P1.hea").write_text(f"P1/3 5 128 {2 * frames + 1280}\nP1_1 {frames}\n~ 1280\nP1_2 {frames}\n")
    (session,) = wfdb_reader.find(sorted(tmp_path.iterdir())).sessions
    assert (session.source.name, len(session.files)) == ("P1.hea", 5)
    (recording,) = wfdb_reader.read(session)
    assert recording.ppg is not None
    assert np.flatnonzero(np.isnan(recording.ppg[0])).tolist() == list(range(frames, frames + 1280))
    (tmp_path / "P1_1.dat").unlink()
    (recording,) = wfdb_reader.read(session)
    assert recording.duration_s == SECONDS
    assert any(note.startswith("a gap: unreadable_file: P1_1.hea") for note in recording.notes)


def test_damaged_wfdb_records(tmp_path: Path) -> None:
    write_record(tmp_path, "P1")
    data = (tmp_path / "P1.dat").read_bytes()
    (tmp_path / "P1.dat").write_bytes(data[: len(data) // 2 + 3])
    (session,) = wfdb_reader.find(sorted(tmp_path.iterdir())).sessions
    (recording,) = wfdb_reader.read(session)
    assert recording.duration_s == SECONDS / 2
    assert "end after" in recording.notes[0]
    (tmp_path / "P1.atr").write_bytes(b"\x01\x02\x03")
    (session,) = wfdb_reader.find(sorted(tmp_path.iterdir())).sessions
    assert wfdb_reader.read(session)[0].ppg is not None
    (tmp_path / "P1.dat").unlink()
    (session,) = wfdb_reader.find(sorted(tmp_path.iterdir())).sessions
    with pytest.raises(Unreadable, match=r"missing_file: P1\.hea names 'P1.dat', which is not there"):
        wfdb_reader.read(session)
    (tmp_path / "P1.hea").write_bytes(b"\xff\xfe nothing")
    (session,) = wfdb_reader.find(sorted(tmp_path.iterdir())).sessions
    with pytest.raises(Unreadable, match="unreadable_file"):
        wfdb_reader.read(session)


def test_a_wfdb_header_opens_nothing_but_the_files_of_its_record(tmp_path: Path) -> None:
    folder = tmp_path / "delivery"
    folder.mkdir()
    write_record(tmp_path, "elsewhere")
    for name in ("P1", "P2"):
        write_record(folder, name)
    header = (folder / "P1.hea").read_text()
    (folder / "P1.dat").unlink()
    os.mkfifo(folder / "P1.dat")  # whoever opens it waits for ever
    (folder / "P3.hea").write_text(header.replace("P1.dat", "../elsewhere.dat").replace("P1 ", "P3 "))
    frames = SECONDS * 128
    (folder / "P4.hea").write_text(f"P4/1 5 128 {frames}\n../elsewhere {frames}\n")
    with no_longer_than(30):
        summary = landed("wfdb", folder, tmp_path)
    assert summary.read == 1
    reasons = {entry.source_file: entry.reason for entry in summary.rejections}
    assert reasons == {
        "P1.dat": "not_a_regular_file",
        "P1.hea": "missing_file",
        **dict.fromkeys(("P3.hea", "P4.hea"), "unreadable_file"),  # the library takes no path with folders
    }


@pytest.mark.parametrize(("device", "recordings"), [("edf", 5), ("wrist-edf", 5)])
def test_real_files_are_read_by_both_readers(shared: Path, tmp_path: Path, device: str, recordings: int) -> None:
    summary = landed(device, shared / "data/wrist-ppg-exercise", tmp_path)
    assert (summary.read, summary.participants) == (recordings, 4)
