"""Readers of binary formats: real files as numbers, and variants of rate, range and damage that are written here."""

from __future__ import annotations

import io
import shutil
import struct
import zipfile
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from accelkd.recordings.devices import DEVICES
from accelkd.recordings.ingest import ingest
from accelkd.recordings.readers import Reader, Recording, Unreadable
from accelkd.recordings.timeline import place
from accelkd.recordings.validate import validate_batch
from tests.support import binary_formats as formats

FORMATS = "accelerometer-formats"
REAL = {
    "axivity": (f"{FORMATS}/ax3_testfile.cwa", f"{FORMATS}/ax6_testfile.cwa"),
    "geneactiv": (f"{FORMATS}/GENEActiv_testfile.bin",),
    "actigraph": (f"{FORMATS}/example_actigraph.gt3x",),
    "matrix": (f"{FORMATS}/mtx_100Hz_acc_HR_temp.BIN",),
    "embraceplus": ("empatica-embraceplus/test_data.avro",),
    "verily": ("verily-study-watch/imu", "verily-study-watch/ppg"),
    "nilspod": ("biopsykit-nilspod-chest/ecg_sample_Vp01.bin",),
}
SHARED_SUFFIX = ("geneactiv", "matrix", "nilspod")  # .bin says nothing: the content decides
SUFFIXES = {"axivity": ".cwa", "actigraph": ".gt3x", "embraceplus": ".avro"}


def reader_of(device: str) -> Reader:
    module: Any = import_module(f"accelkd.recordings.readers.{DEVICES[device].reader}")
    return module


def read(device: str, folder: Path) -> list[Recording]:
    reader = reader_of(device)
    (session,) = reader.find(sorted(path for path in folder.rglob("*") if path.is_file())).sessions
    return list(reader.read(session))


def read_bytes(device: str, content: bytes, folder: Path) -> list[Recording]:
    path = folder / f"P1{SUFFIXES.get(device, '.bin')}"
    path.write_bytes(content)
    return read(device, folder)


def copy(shared: Path, names: tuple[str, ...], folder: Path) -> Path:
    """Copies, in a folder of their own, that may be damaged."""
    for name in names:
        source = shared / "data" / name
        for path in [source] if source.is_file() else source.iterdir():
            target = folder / (path.name if source.is_file() else f"{source.name}/{path.name}")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
    return folder


def norm(recording: Recording) -> float:
    assert recording.accel is not None
    return float(np.nanmedian(np.linalg.norm(recording.accel, axis=0)))


def missing(recording: Recording) -> int:
    """Accelerometer samples that are missing."""
    assert recording.accel is not None
    return int(np.isnan(recording.accel).any(axis=0).sum())


# --- All formats


@pytest.mark.parametrize(("device", "recordings", "seconds"), [
    ("axivity", 2, 290), ("geneactiv", 1, 59), ("actigraph", 1, 81), ("matrix", 1, 393), ("embraceplus", 1, 1812),
    ("verily", 2, 731), ("nilspod", 1, 616),
])  # fmt: skip
def test_real_recordings_land_and_validate(
    shared: Path, tmp_path: Path, device: str, recordings: int, seconds: int
) -> None:
    delivery = copy(shared, REAL[device], tmp_path / "study/P7")
    summary = ingest(device, delivery.parent, tmp_path / "landing", "b1", participant_from="path")
    assert (summary.read, summary.participants, summary.rejections) == (recordings, 1, ())
    assert round(summary.duration_s) == seconds
    assert validate_batch(tmp_path / "landing/b1") == []


@pytest.mark.parametrize("device", SHARED_SUFFIX)
def test_files_of_other_formats_with_the_suffix_are_not_taken(shared: Path, device: str) -> None:
    others = [shared / "data" / path for name in SHARED_SUFFIX if name != device for path in REAL[name]]
    others += list((shared / "data/verily-study-watch").rglob("*.bin"))
    assert reader_of(device).find(sorted(others)).sessions == ()


@pytest.mark.parametrize("device", SUFFIXES)
@pytest.mark.parametrize(("content", "reason"), [(b"", "empty_file"), (bytes(10_000), None), (b"PK\3\4" * 99, None)])
def test_a_file_without_the_format_is_rejected(tmp_path: Path, device: str, content: bytes, reason: str | None) -> None:
    with pytest.raises(Unreadable) as error:
        read_bytes(device, content, tmp_path)
    assert error.value.reason in ("empty_file", "unreadable_file", "missing_file") if reason is None else [reason]
    assert "P1" in error.value.detail


@pytest.mark.parametrize("device", REAL)
def test_random_damage_ends_in_a_recording_or_a_rejection(shared: Path, tmp_path: Path, device: str) -> None:
    rng = np.random.default_rng(0)
    folder = copy(shared, REAL[device], tmp_path)
    originals = {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
    for round_number in range(8):
        path = list(originals)[round_number % len(originals)]
        content = bytearray(originals[path])
        at = int(rng.integers(min(len(content), 3000) if round_number % 2 else len(content)))
        length = int(rng.integers(1, 3000))
        match round_number % 4:
            case 0:
                content[at : at + length] = bytes(length)
            case 1:
                content[at : at + 8] = rng.bytes(8)
            case 2:
                del content[at : at + length]
            case _:
                del content[at:]
        path.write_bytes(content)
        reader = reader_of(device)
        for session in reader.find(sorted(originals)).sessions:
            with suppress(Unreadable):
                assert all(recording.duration_s < 1e6 for recording in reader.read(session))
        path.write_bytes(originals[path])


# --- Axivity


def test_axivity_samples_follow_the_stamps_not_the_nominal_rate(shared: Path, tmp_path: Path) -> None:
    (record,) = read("axivity", copy(shared, REAL["axivity"][:1], tmp_path))
    assert record.accel is not None
    assert record.accel.shape == (3, 17400)
    assert record.accel[:, 0].tolist() == [0.328125, 0.984375, 0.203125]  # three values of ten bits
    assert record.accel_rate_hz == pytest.approx(98.86, abs=0.01)  # set to 100
    assert (record.sensor_id, record.participant, record.started_at_s) == ("39434", "26", None)
    assert missing(record) == 4  # at the rails of 8 g
    assert record.notes == ()


def test_axivity_ax6_leaves_out_the_seconds_in_which_the_gyroscope_takes_the_place(
    shared: Path, tmp_path: Path
) -> None:
    (record,) = read("axivity", copy(shared, REAL["axivity"][1:], tmp_path))
    assert record.accel is not None
    assert record.notes == ("34 sectors with acceleration and gyroscope exchanged left out",)
    assert np.isnan(record.accel[:, : 34 * 40]).all()
    assert missing(record) == pytest.approx(34 * 40, abs=2)
    assert norm(record) == pytest.approx(1.0, abs=0.01)
    assert record.sensor_id == "6011834"


@pytest.mark.parametrize(("rate_hz", "range_g"), [(25.0, 2), (50.0, 16), (100.0, 4)])
def test_axivity_rates_and_ranges(tmp_path: Path, rate_hz: float, range_g: int) -> None:
    counts = formats.wrist(1600, 256)
    counts[500, 0] = range_g * 256 - 1
    (record,) = read_bytes("axivity", formats.cwa(counts, rate_hz=rate_hz, range_g=range_g, upper_id=2), tmp_path)
    assert record.accel is not None
    assert record.accel_rate_hz == pytest.approx(rate_hz, rel=1e-3)
    assert np.flatnonzero(np.isnan(record.accel[0])).tolist() == [500]
    np.testing.assert_array_equal(record.accel[1:], counts.T[1:] / 256)
    assert record.sensor_id == str(4711 + 2 * 65536)


@pytest.mark.parametrize("damage", ["checksum", "zeros", "removed", "misaligned"])
def test_axivity_a_damaged_sector_is_a_gap(tmp_path: Path, damage: str) -> None:
    counts = formats.wrist(8000, 256)
    content = bytearray(formats.cwa(counts, true_rate_hz=101.0))
    at = 1024 + 40 * 512
    match damage:
        case "checksum":
            content[at + 100] ^= 1
        case "zeros":
            content[at : at + 512] = bytes(512)
        case "removed":
            del content[at : at + 512]
        case _:
            del content[at + 7 : at + 500]
    (record,) = read_bytes("axivity", bytes(content), tmp_path)
    assert record.accel is not None
    assert record.accel.shape == (3, 8000)
    assert np.isnan(record.accel[:, 3200:3280]).all()
    np.testing.assert_array_equal(record.accel[:, 3280:], counts.T[:, 3280:] / 256)
    assert record.accel_rate_hz == pytest.approx(101.0, rel=1e-3)
    assert any("1 gaps, 80 samples" in note for note in record.notes)


def test_axivity_sectors_of_more_samples_than_they_hold_are_none(tmp_path: Path) -> None:
    content = bytearray(formats.cwa(formats.wrist(400, 256)))
    for at in range(1024, len(content), 512):
        content[at + 28 : at + 30] = struct.pack("<H", 999)
        content[at + 510 : at + 512] = bytes(2)
        words = np.frombuffer(bytes(content[at : at + 512]), "<u2")
        content[at + 510 : at + 512] = struct.pack("<H", -int(words.sum()) & 0xFFFF)
    with pytest.raises(Unreadable, match="no sound sector of acceleration"):
        read_bytes("axivity", bytes(content), tmp_path)


def test_axivity_without_its_header_keeps_the_samples(tmp_path: Path) -> None:
    content = bytes(1024) + formats.cwa(formats.wrist(800, 256))[1024:-100]
    (record,) = read_bytes("axivity", content, tmp_path)
    assert record.accel is not None
    assert record.accel.shape == (3, 720)  # the last sector is cut
    assert (record.sensor_id, record.participant) == (None, None)


def test_axivity_a_clock_that_was_set_back_begins_another_recording(tmp_path: Path) -> None:
    first, second = (formats.cwa(formats.wrist(800, 256, seed)) for seed in (1, 2))
    records = read_bytes("axivity", first + second[1024:], tmp_path)
    assert [record.accel.shape[1] for record in records if record.accel is not None] == [800, 800]


# --- GENEActiv


def test_geneactiv_is_calibrated_and_its_clock_has_a_zone(shared: Path, tmp_path: Path) -> None:
    (record,) = read("geneactiv", copy(shared, REAL["geneactiv"], tmp_path))
    assert record.accel is not None
    assert record.accel.shape == (3, 5031)
    assert record.accel[:, 0] == pytest.approx([0.7405217, 0.0140670, -0.6439032], abs=1e-6)
    assert record.accel_rate_hz == pytest.approx(85.714, abs=1e-3)  # 300 samples in 3.5 s
    assert record.started_at_s == 1369908774.5 - 3600  # 10:12:54.5 at GMT +01:00
    assert (record.sensor_id, record.participant, record.demographics) == ("012967", None, None)


def test_geneactiv_damaged_pages_are_gaps_and_the_cut_one_ends_early(tmp_path: Path) -> None:
    counts = formats.wrist(3000, 256)
    content = formats.geneactiv(counts).replace(b"Sequence Number:4\r\nPage Time:2023", b"Sequence Number:4\r\nPage T")
    (record,) = read_bytes("geneactiv", content[: -12 * 100 - 7], tmp_path)
    assert record.accel is not None
    assert record.accel.shape == (3, 2899)
    assert np.isnan(record.accel[:, 1200:1500]).all()
    np.testing.assert_allclose(record.accel[:, 1500:], counts.T[:, 1500:2899] / 256, rtol=1e-6)
    assert record.notes[:2] == ("1 damaged or empty pages left out", "1 pages cut after their last readable sample")
    assert record.started_at_s == formats.START_S + 2 * 3600
    assert record.demographics is not None
    assert (record.demographics.sex, record.demographics.age_years, record.demographics.height_m) == (
        "female", 40.0, 1.7,
    )  # fmt: skip


# The square of the second is too large for a number
@pytest.mark.parametrize(("zeros", "height"), [(30, "1e+28"), (160, "1e+158")])
def test_geneactiv_facts_about_a_person_that_cannot_be_right_are_left_out(
    tmp_path: Path, zeros: int, height: str
) -> None:
    content = formats.geneactiv(formats.wrist(4000, 256)).replace(b"Height:170", b"Height:1" + b"0" * zeros)
    (tmp_path / "in").mkdir()
    (tmp_path / "in/P1.bin").write_bytes(content)
    summary = ingest("geneactiv", tmp_path / "in", tmp_path / "landing", "b1")
    assert any(f"geneactiv-P1: height_m: {height} is not in 0.4 to 2.6, left out" in note for note in summary.notes)
    assert validate_batch(tmp_path / "landing/b1") == []


def test_geneactiv_without_a_zone_has_no_start(tmp_path: Path) -> None:
    (record,) = read_bytes("geneactiv", formats.geneactiv(formats.wrist(900, 256), zone=""), tmp_path)
    assert record.started_at_s is None


def test_geneactiv_rails_are_missing(tmp_path: Path) -> None:
    counts = formats.wrist(900, 256)
    counts[10, 0], counts[20, 2] = 2047, -2048
    (record,) = read_bytes("geneactiv", formats.geneactiv(counts), tmp_path)
    assert record.accel is not None
    assert np.argwhere(np.isnan(record.accel)).tolist() == [[0, 10], [2, 20]]


# --- ActiGraph


def test_actigraph_scale_and_zone_are_those_of_the_file(shared: Path, tmp_path: Path) -> None:
    (record,) = read("actigraph", copy(shared, REAL["actigraph"], tmp_path))
    assert record.accel is not None
    assert record.accel.shape == (3, 4860)
    assert record.accel[:, 0].tolist() == [-0.51953125, -0.51953125, -0.63671875]
    assert record.accel_rate_hz == pytest.approx(60.0, abs=1e-6)
    assert record.started_at_s == 1714488780 + 5 * 3600  # 14:53 at UTC-5
    assert (record.sensor_id, record.participant) == ("MOS2E17210537", "Adam_Test")


@pytest.mark.parametrize(("rate_hz", "kind"), [(30, 0), (30, 0x1A), (40, 0), (100, 0x1A)])
def test_actigraph_rates_and_kinds_of_records(tmp_path: Path, rate_hz: int, kind: int) -> None:
    counts = formats.wrist(rate_hz * 40, 256)
    (record,) = read_bytes("actigraph", formats.gt3x(counts, rate_hz=rate_hz, kind=kind), tmp_path)
    assert record.accel is not None
    np.testing.assert_array_equal(record.accel, counts.T / 256)
    assert record.accel_rate_hz == pytest.approx(rate_hz)
    assert record.demographics is not None
    assert (record.demographics.sex, record.demographics.age_years) == ("male", 40.0)


def test_actigraph_first_format_has_samples_alone(tmp_path: Path) -> None:
    counts = formats.wrist(30 * 100 + 1, 341)
    info = {"Serial Number": "NEO1D12345678", "Acceleration Scale": "", "TimeZone": ""}
    (record,) = read_bytes("actigraph", formats.gt3x(counts, info=info, nhanes=True), tmp_path)
    assert record.accel is not None
    np.testing.assert_allclose(record.accel, counts.T / 341, rtol=1e-6)
    assert record.accel_rate_hz == pytest.approx(30.0)
    assert record.started_at_s is None


def test_actigraph_a_damaged_record_and_a_sleeping_device_are_gaps(tmp_path: Path) -> None:
    counts = formats.wrist(30 * 60, 256)
    records = formats.gt3x_records(counts, 30, 0x1A)
    records[20] = records[20][:50] + b"\x1e" + records[20][51:]
    log = b"".join(records[:40] + records[45:])
    (record,) = read_bytes("actigraph", stored_gt3x(log), tmp_path)
    assert record.accel is not None
    assert record.accel.shape == (3, 1800)
    gaps = np.flatnonzero(np.isnan(record.accel[0])) // 30
    assert sorted(set(gaps.tolist())) == [20, 40, 41, 42, 43, 44]
    np.testing.assert_array_equal(record.accel[:, 45 * 30 :], counts.T[:, 45 * 30 :] / 256)


def stored_gt3x(log: bytes) -> bytes:
    """A `.gt3x` with this log, not compressed."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("info.txt", "Serial Number: MOS2D1\nSample Rate: 30\nAcceleration Scale: 256\n")
        archive.writestr("log.bin", log)
    return file.getvalue()


@pytest.mark.parametrize("keep", [0.3, 0.7, 0.99])
def test_actigraph_a_cut_archive_is_read_as_far_as_it_goes(tmp_path: Path, keep: float) -> None:
    counts = formats.wrist(30 * 600, 256)
    content = formats.gt3x(counts)
    (record,) = read_bytes("actigraph", content[: int(len(content) * keep)], tmp_path)
    assert record.accel is not None
    samples = record.accel.shape[1]
    assert samples > 30 * 600 * (keep - 0.1)
    np.testing.assert_array_equal(record.accel, counts.T[:, :samples] / 256)


# --- Matrix


def test_matrix_scale_rate_and_heart_rate(shared: Path, tmp_path: Path) -> None:
    (record,) = read("matrix", copy(shared, REAL["matrix"], tmp_path))
    assert record.accel is not None
    assert record.accel.shape == (3, 40312)
    assert record.accel[:, 0] == pytest.approx([2860 * 8 / 32767, 2752 * 8 / 32767, -956 * 8 / 32768])
    assert record.accel_rate_hz == pytest.approx(102.4, abs=0.2)  # set to 100
    assert record.started_at_s == 1737755054
    assert record.reference_source == "device"
    assert record.reference_hr_s is not None
    assert record.reference_hr_bpm is not None
    assert (record.reference_hr_s.tolist(), record.reference_hr_bpm.tolist()) == ([0.0], [74.0])


def matrix_packets(rate_hz: int = 25) -> list[bytes]:
    return [
        formats.matrix_packet(
            formats.wrist(rate_hz * 60, 32767 / 8, minute),
            formats.START_S + 60 * minute,
            formats.START_S + 60 * (minute + 1),
            (0 if minute == 3 else 60 + minute,),
        )
        for minute in range(6)
    ]


def test_matrix_heart_rates_of_zero_are_left_out(tmp_path: Path) -> None:
    (record,) = read_bytes("matrix", formats.matrix(matrix_packets()), tmp_path)
    assert record.accel_rate_hz == pytest.approx(25.0, rel=1e-3)
    assert record.reference_hr_s is not None
    assert record.reference_hr_bpm is not None
    assert record.reference_hr_s.tolist() == [0.0, 60.0, 120.0, 240.0, 300.0]
    assert record.reference_hr_bpm.tolist() == [60, 61, 62, 64, 65]
    assert norm(record) == pytest.approx(1.0, abs=0.01)


def test_matrix_a_damaged_packet_is_a_gap_and_the_cut_one_ends_early(tmp_path: Path) -> None:
    packets = matrix_packets()
    packets[2] = packets[2][:500] + b"\0\0" + packets[2][502:]
    content = formats.matrix(packets)
    (record,) = read_bytes("matrix", content[: -4 - 6 * 500], tmp_path)
    assert record.accel is not None
    assert record.accel.shape == (3, 25 * 360 - 500)
    assert np.isnan(record.accel[:, 3001:4499]).all()
    assert not np.isnan(record.accel[:, 4501:]).any()
    assert {"the last packet is cut", "1 damaged packets left out"} <= set(record.notes)


# --- EmbracePlus


def test_embraceplus_scale_clock_and_peaks(shared: Path, tmp_path: Path) -> None:
    (record,) = read("embraceplus", copy(shared, REAL["embraceplus"], tmp_path))
    assert record.ppg is not None
    assert record.accel is not None
    assert (record.ppg.shape, record.ppg_rate_hz, record.accel.shape) == ((1, 115904), 64.0, (3, 115904))
    assert record.accel_rate_hz == pytest.approx(63.9999, abs=1e-4)
    assert record.accel[:, 0].tolist() == [-2048 / 2048, -139 / 2048, 404 / 2048]  # 32 g / 65536, not 0.000488
    assert record.accel_start_s == pytest.approx(1.0003, abs=1e-4)
    assert record.started_at_s == pytest.approx(1764153713.255728)
    assert (record.sensor_id, record.participant) == ("3YK3K152XH", "000001")
    assert record.reference_source == "device"
    assert record.reference_beat_s is not None
    assert len(record.reference_beat_s) == 1791  # five are before the first sample
    assert 60 / np.median(np.diff(record.reference_beat_s)) == pytest.approx(59.2, abs=0.1)


def test_embraceplus_peaks_are_minima_after_a_steep_fall(shared: Path, tmp_path: Path) -> None:
    (record,) = read("embraceplus", copy(shared, REAL["embraceplus"], tmp_path))
    assert record.ppg is not None
    assert record.reference_beat_s is not None
    at = np.round(record.reference_beat_s[300:360] * 64).astype(int)
    pulse = np.median(record.ppg[0][at[:, None] + np.arange(-32, 33)], axis=0)
    slope = np.diff(pulse)
    assert abs(int(pulse.argmin()) - 32) <= 4
    assert -slope.min() > 1.3 * slope.max()
    assert DEVICES["embraceplus"].polarity == -1


def embrace_record(**raw: Any) -> dict[str, Any]:
    start = formats.START_S * 1_000_000
    counts = formats.wrist(640, 4096)
    axes = {axis: counts[:, number].tolist() for number, axis in enumerate("xyz")}
    return {
        "enrollment": {"participantID": "017", "newField": "x"},
        "deviceSn": "3YK00",
        "rawData": {
            "accelerometer": {
                "timestampStart": start,
                "samplingFrequency": 64.0,
                "imuParams": {"physicalMin": -8, "physicalMax": 8, "digitalMin": -32768, "digitalMax": 32768},
                **axes,
            },
            "bvp": {"timestampStart": start, "samplingFrequency": 64.0, "values": [float(v) for v in range(640)]},
            "tags": {"tagsTimeMicros": [start + 2_500_000]},
            **raw,
        },
    }


@pytest.mark.parametrize("wrong", ["12:30", {"a": 64.0}, [64.0]])
def test_embraceplus_fields_of_another_type_cost_their_stream_alone(tmp_path: Path, wrong: Any) -> None:
    start = formats.START_S * 1_000_000
    ppg = {"timestampStart": start, "samplingFrequency": wrong, "values": [float(v) for v in range(640)]}
    formats.write_avro(tmp_path / "P1.avro", embrace_record(bvp=ppg, tags={"tagsTimeMicros": wrong}))
    (record,) = read("embraceplus", tmp_path)
    assert record.ppg is None
    assert record.accel is not None
    assert "PPG without a start and a rate left out" in record.notes


@pytest.mark.parametrize(
    "write_name", ["1-1-001_1707311064.avro", "1-1-001-3YK3K152F5_1707311064.avro"], ids=["short", "with serial number"]
)
def test_embraceplus_fields_are_found_by_name(tmp_path: Path, write_name: str) -> None:
    formats.write_avro(tmp_path / write_name, embrace_record())
    (session,) = reader_of("embraceplus").find([tmp_path / write_name]).sessions
    assert session.participant == "1-1-001"
    (record,) = read("embraceplus", tmp_path)
    assert norm(record) == pytest.approx(1.0, abs=0.01)  # 16 g / 65536
    assert record.event_s is not None
    assert record.event_s.tolist() == [2.5]
    assert (record.participant, record.reference_source) == ("017", None)


@pytest.mark.parametrize(("lost", "stream"), [("bvp", "ppg"), ("accelerometer", "accel")])
def test_embraceplus_without_one_stream_keeps_the_other(tmp_path: Path, lost: str, stream: str) -> None:
    formats.write_avro(tmp_path / "a.avro", embrace_record(**{lost: {"timestampStart": 0, "samplingFrequency": 0.0}}))
    (record,) = read("embraceplus", tmp_path)
    assert getattr(record, stream) is None
    assert record.duration_s == pytest.approx(10.0)


# --- Verily Study Watch


def test_verily_streams_are_placed_by_their_times(shared: Path, tmp_path: Path) -> None:
    (record,) = read("verily", copy(shared, REAL["verily"], tmp_path))
    assert record.ppg is not None
    assert record.accel is not None
    assert (record.ppg.shape, record.accel.shape) == ((1, 64775), (3, 72947))
    assert record.ppg_rate_hz == pytest.approx(100.49, abs=0.01)
    assert record.accel_rate_hz == pytest.approx(99.82, abs=0.01)
    assert record.ppg[0, 0] == 649511
    assert record.accel[:, 0] == pytest.approx(np.array([-1151, 1200, -572]) * 0.00469378 / 9.80665)
    assert (record.started_at_s, record.participant) == (1624812740.0, "X")  # 2021-06-27 16:52:20 UTC


ACCEL = {f"acceleration_{axis}": ("m/s/s", 9.80665 / 2048) for axis in "xyz"}


def test_verily_units_channels_and_byte_order_are_those_of_the_description(tmp_path: Path) -> None:
    counts = formats.wrist(3000, 2048)
    others = {"rotation_x": ("deg/s", 0.1), **{f"accelerometer_{axis}": ("g", 1 / 2048) for axis in "zyx"}}
    values = np.concatenate([np.zeros((3000, 1), np.int64), counts[:, ::-1]], axis=1).astype(">i2")
    formats.tsdf(tmp_path, "P1_imu", others, values, 50.0)
    formats.tsdf(
        tmp_path,
        "P1_ppg",
        {"red": ("none", 1.0), "green": ("none", 1.0)},
        np.tile([7, 9], (900, 1)).astype("<i4"),
        30.0,
    )
    (record,) = read("verily", tmp_path)
    assert record.ppg is not None
    assert record.accel is not None
    np.testing.assert_allclose(record.accel, counts.T / 2048)
    assert record.accel_rate_hz == pytest.approx(50.0, rel=1e-4)
    assert record.ppg_rate_hz == pytest.approx(30.0, rel=1e-4)
    assert set(record.ppg[0].tolist()) == {9.0}


@pytest.mark.parametrize("damage", ["cut", "no times", "no PPG", "description"])
def test_verily_damage_of_one_file_never_costs_the_acceleration(tmp_path: Path, damage: str) -> None:
    formats.tsdf(tmp_path / "imu", "imu", ACCEL, formats.wrist(3000, 2048).astype("<i2"), 100.0)
    formats.tsdf(tmp_path / "ppg", "ppg", {"green": ("none", 1.0)}, np.ones((3000, 1), "<i4"), 100.0)
    match damage:
        case "cut":
            with (tmp_path / "imu/imu_values.bin").open("rb+") as file:
                file.truncate(2000 * 6 + 1)
        case "no times":
            (tmp_path / "ppg/ppg_time.bin").unlink()
        case "no PPG":
            (tmp_path / "ppg/ppg_values.bin").unlink()
        case _:
            (tmp_path / "ppg/ppg_meta.json").write_bytes(b"{")
    (record,) = read("verily", tmp_path)
    assert record.accel is not None
    assert record.accel.shape[1] == (2000 if damage == "cut" else 3000)
    assert (record.ppg is None) == (damage != "cut")
    assert record.notes


def test_verily_descriptions_of_other_sensors_are_companions(tmp_path: Path) -> None:
    formats.tsdf(tmp_path, "imu", ACCEL, formats.wrist(300, 2048).astype("<i2"), 100.0)
    formats.tsdf(tmp_path, "location", {"steps": ("none", 1.0)}, np.ones((9, 1), "<i4"), 1.0)
    delivery = reader_of("verily").find(sorted(tmp_path.iterdir()))
    assert [len(session.files) for session in delivery.sessions] == [3]
    assert len(delivery.companions) == 3


# --- NilsPod


def test_nilspod_acceleration_and_beats_of_the_ecg(shared: Path, tmp_path: Path) -> None:
    (record,) = read("nilspod", copy(shared, REAL["nilspod"], tmp_path))
    assert record.accel is not None
    assert (record.accel.shape, record.accel_rate_hz) == ((3, 157790), 256.0)
    assert record.accel[:, 0].tolist() == [-3 / 2048, -1297 / 2048, 1613 / 2048]
    assert norm(record) == pytest.approx(1.007, abs=1e-3)
    assert record.started_at_s == pytest.approx(1571826711, abs=0.01)  # 2019-10-23 10:31:51 UTC
    assert record.sensor_id == "049518079433"
    assert record.reference_source == "ecg"
    assert record.reference_beat_s is not None
    intervals_s = np.diff(record.reference_beat_s)
    rates_bpm = [60 / np.median(part) for part in np.array_split(intervals_s, 20)]
    assert min(rates_bpm) > 74
    assert max(rates_bpm) < 98
    assert np.mean(np.abs(np.diff(intervals_s)) > 0.2 * intervals_s[1:]) < 0.005


def ecg(samples: int, rate_hz: float, bpm: float = 72.0) -> tuple[np.ndarray, np.ndarray]:
    """A train of narrow waves with noise, and their samples."""
    beats = np.arange(0.7, samples / rate_hz - 0.5, 60 / bpm)
    time_s = np.arange(samples) / rate_hz
    waves = sum(np.exp(-0.5 * ((time_s - beat) / 0.012) ** 2) for beat in beats)
    noise = np.random.default_rng(0).normal(0, 0.03, samples) + 0.3 * np.sin(2 * np.pi * 0.3 * time_s)
    return np.round(10_000 * (waves + noise)).astype(np.int64), np.round(beats * rate_hz).astype(np.int64)


@pytest.mark.parametrize(("rate_code", "rate_hz", "range_g"), [(4, 256.0, 4), (5, 204.8, 8)])
def test_nilspod_rates_and_ranges_past_midnight(tmp_path: Path, rate_code: int, rate_hz: float, range_g: int) -> None:
    counts = formats.wrist(8000, 32768 / range_g)
    signal, beats = ecg(8000, rate_hz)
    first = round((formats.START_S % 86400) * rate_hz)
    content = formats.nilspod(counts, signal, rate_code=rate_code, range_g=range_g, first=first)
    (record,) = read_bytes("nilspod", content, tmp_path)
    assert record.accel is not None
    np.testing.assert_allclose(record.accel, counts.T * range_g / 32768, rtol=1e-6)
    assert record.accel_rate_hz == pytest.approx(rate_hz)
    assert record.started_at_s == pytest.approx(formats.START_S, abs=0.01)
    assert record.reference_beat_s is not None
    np.testing.assert_allclose(record.reference_beat_s, beats / rate_hz, atol=0.02)


@pytest.mark.parametrize("damage", ["lost", "overwritten", "cut", "midnight"])
def test_nilspod_lost_samples_are_gaps_by_the_counter(tmp_path: Path, damage: str) -> None:
    counts = formats.wrist(8000, 2048)
    signal, _ = ecg(8000, 256.0)
    content = bytearray(formats.nilspod(counts, signal, first=formats.START_S % 86400 * 256))
    size, lost = 14, slice(52 + 3000 * 14, 52 + 3100 * 14)
    match damage:
        case "lost":
            del content[lost.start + 5 : lost.stop - 3]
        case "overwritten":
            content[lost] = np.random.default_rng(0).bytes(100 * size)
        case "cut":
            del content[-5:]
        case _:
            midnight = np.frombuffer(formats.nilspod(counts, signal)[52:], np.uint8).reshape(-1, 14).copy()
            counter = (86400 * 256 - 4000 + np.arange(8000)) % (86400 * 256)
            midnight[:, 10:] = counter.astype("<u4").view(np.uint8).reshape(-1, 4)
            content[52:] = midnight.tobytes()
    (record,) = read_bytes("nilspod", bytes(content), tmp_path)
    assert record.accel is not None
    assert record.accel.shape[1] == (7999 if damage == "cut" else 8000)
    assert missing(record) == (pytest.approx(100, abs=2) if damage in ("lost", "overwritten") else 0)
    np.testing.assert_array_equal(record.accel[:, 3102:7999], counts.T[:, 3102:7999] / 2048)


# --- Stamps


def test_a_stamp_that_is_far_off_costs_its_sample_alone() -> None:
    time_s = np.arange(1000) / 50
    time_s[300] = 1e30
    (piece,), notes = place(time_s, np.arange(1000.0)[None])
    assert piece.samples.shape == (1, 1000)
    assert np.flatnonzero(np.isnan(piece.samples[0])).tolist() == [300]
    assert notes[0] == "1 samples without a time left out"


def test_samples_at_one_instant_between_long_gaps_are_left_out() -> None:
    time_s = np.concatenate([np.arange(100) / 50, [5000.0, 5000.0], 10_000 + np.arange(100) / 50])
    pieces, notes = place(time_s, np.arange(202.0)[None])
    assert [piece.samples.shape[1] for piece in pieces] == [100, 100]
    assert "2 samples between two long gaps left out" in notes
