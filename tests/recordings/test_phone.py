"""Accelerometers of phones: data sets and exports of logging apps, with and without gravity."""

from __future__ import annotations

import json
import lzma
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import pytest

from accelkd.recordings.ingest import IngestSummary, ingest
from accelkd.recordings.readers import Recording, Unreadable, phone
from accelkd.recordings.validate import iter_recordings, validate_batch

Floats = npt.NDArray[np.float64]
G = 9.80665
START_NS = 1_728_120_522_020_157_200
RATE_HZ = 100
SAMPLES = 70 * RATE_HZ


def movement(seed: int = 0, gravity: bool = True) -> Floats:
    rng = np.random.default_rng(seed)
    return 0.05 * rng.standard_normal((3, SAMPLES)) + (np.array([[0.0], [6.0], [7.757]]) if gravity else 0)


def write(path: Path, accel: Floats, header: str = "time,seconds_elapsed,z,y,x", scale: float = 1.0) -> Path:
    """A table in the columns of Sensor Logger, whose order of axes the header says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    names = [name for name in header.replace(";", ",").split(",") if name in "xyz"]
    lines = [header]
    for n, sample in enumerate(accel.T * scale):
        axes = ",".join(f"{sample['xyz'.index(name)]:.6f}" for name in names)
        lines.append(f"{START_NS + n * 1_000_000_000 // RATE_HZ},{n / RATE_HZ:.6f},{axes}")
    text = "\n".join([*lines, ""]).encode()
    path.write_bytes(lzma.compress(text) if path.suffix == ".xz" else text)
    return path


def read(folder: Path) -> list[Recording]:
    (session,) = phone.find(sorted(path for path in folder.rglob("*") if path.is_file())).sessions
    return phone.read(session)


def accel_of(folder: Path) -> Floats:
    (recording,) = read(folder)
    assert recording.accel is not None
    return np.asarray(recording.accel, np.float64)


def landed(device: str, folder: Path, tmp_path: Path) -> tuple[IngestSummary, list[dict[str, Any]]]:
    summary = ingest(device, folder, tmp_path / "landing", "b1")
    assert validate_batch(tmp_path / "landing/b1") == []
    rows = [row for batch, _ in iter_recordings(tmp_path / "landing/b1") for row in batch.to_pylist()]
    return summary, rows


@pytest.fixture(scope="module")
def mscardio(
    shared: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[IngestSummary, list[dict[str, Any]], Path]:
    folder = tmp_path_factory.mktemp("mscardio")
    source = shared / "data/mscardio-phone-scg"
    if not source.is_dir():
        pytest.skip("no folder `data/mscardio-phone-scg` in `shared`")
    return *landed("phone", source, folder), folder / "landing"


def test_every_person_of_mscardio_lands(mscardio: Any, shared: Path) -> None:
    summary, rows, _ = mscardio
    sessions = len(list((shared / "data/mscardio-phone-scg/MSCardio").glob("*/*/uncalibrated_scg.csv.xz")))
    people = len(list((shared / "data/mscardio-phone-scg/MSCardio").glob("Subject_*")))
    assert (summary.read, summary.participants) == (sessions, people)
    assert {rejection.reason for rejection in summary.rejections} <= {"not_recognised"}
    norms = [np.median(np.sqrt((np.array(row["accel"]) ** 2).sum(axis=0))) for row in rows]
    assert max(abs(norm - 1) for norm in norms) < 0.1
    assert all(70 < row["accel_rate_hz"] < 520 for row in rows)
    assert all(row["started_at"].year in (2023, 2024, 2025) and row["ppg"] == [] for row in rows)


def test_what_people_typed_is_kept_where_it_can_be_right(mscardio: Any) -> None:
    _, _, landing = mscardio
    people = pq.read_table(landing / "b1/participants.parquet").to_pylist()
    by_name = {person["participant_id"]: person for person in people}
    assert by_name["phone-Subject_0063"] == {
        "participant_id": "phone-Subject_0063",
        "sex": "male",
        "age_years": 45.0,
        "height_m": 1.8,
        "bmi_kg_m2": pytest.approx(25.31),
        "skin_tone": None,
    }
    assert all(person["age_years"] is None or 18 <= person["age_years"] <= 62 for person in people)
    assert all(person["height_m"] is None or 1.4 < person["height_m"] < 2.1 for person in people)
    assert all(person["bmi_kg_m2"] is None or 15 < person["bmi_kg_m2"] < 45 for person in people)
    assert sum(person["bmi_kg_m2"] is not None for person in people) > 0.8 * len(people)


@pytest.mark.parametrize(
    ("height", "weight", "height_m", "bmi"),
    [
        ("180", "82", 1.8, 25.31),
        ("1.8", "82 kg", 1.8, 25.31),
        ("180 cm", "181 lbs", 1.8, 25.34),
        ("71", "180", 1.803, 25.1),  # inches and pounds
        ("5'11\"", "180", 1.803, 25.1),
        ("5 ft 11 in", "82", 1.803, 25.21),
        ("12.7", "82", None, None),
        ("17018", "75", None, None),
        ("170", "13878", 1.7, None),
        ("195", "150", 1.95, None),  # 39 in kg, 18 in pounds
        ("", "", None, None),
        (None, None, None, None),
        ("tall", ["heavy"], None, None),
    ],
)
def test_heights_and_weights(
    tmp_path: Path, height: object, weight: object, height_m: float | None, bmi: float | None
) -> None:
    folder = tmp_path / "Subject_1/Recording_1"
    write(folder / "uncalibrated_scg.csv", movement())
    info = {"Sex": "Female", "Age": "200", "Height": height, "Weight": weight}
    (tmp_path / "Subject_1/general_metadata.json").write_text(json.dumps({"general_info": info}))
    (recording,) = read(tmp_path)
    assert recording.demographics is not None
    assert recording.demographics.sex == "female"
    assert recording.demographics.age_years is None
    assert recording.demographics.height_m == pytest.approx(height_m, abs=5e-4)
    assert recording.demographics.bmi_kg_m2 == pytest.approx(bmi, abs=0.02)


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"general_info": 3}', "null"])
def test_metadata_of_another_kind_costs_nothing(tmp_path: Path, content: str) -> None:
    write(tmp_path / "Subject_1/Recording_1/uncalibrated_scg.csv.xz", movement())
    (tmp_path / "Subject_1/general_metadata.json").write_text(content)
    (recording,) = read(tmp_path)
    assert recording.accel is not None
    assert recording.demographics is None
    assert "general_metadata.json left out" in recording.notes[-1]


@pytest.mark.parametrize("name", ["TotalAcceleration.csv", "AccelerometerUncalibrated.csv", "Accelerometer.csv"])
@pytest.mark.parametrize(("scale", "said"), [(1.0, "m/s^2"), (1 / G, "in g")])
@pytest.mark.parametrize("header", ["time,seconds_elapsed,z,y,x", "time,seconds_elapsed,x,y,z"])
def test_sensor_logger_in_either_unit_and_any_order(
    tmp_path: Path, name: str, scale: float, said: str, header: str
) -> None:
    folder = tmp_path / "delivery/P1/2024-10-05_09-28-42"
    write(folder / name, movement(), header, scale)
    for other in ("Gyroscope.csv", "Metadata.csv", "Annotation.csv"):
        (folder / other).write_text("time,z,y,x\n1,2,3,4\n")
    summary, (row,) = landed("phone", tmp_path / "delivery", tmp_path)
    assert (summary.read, summary.rejections, summary.companions) == (1, (), 3)
    assert said in summary.notes[0]
    assert row["participant_id"] == "phone-P1"
    np.testing.assert_allclose(np.mean(row["accel"], axis=1), [0, 6 / G, 7.757 / G], atol=0.01)
    assert row["accel_rate_hz"] == pytest.approx(RATE_HZ)
    assert row["started_at"].timestamp() == pytest.approx(START_NS / 1e9, abs=1e-3)


def test_gravity_is_added_by_time(tmp_path: Path) -> None:
    folder = tmp_path / "2024-10-05_09-28-42"
    write(folder / "Accelerometer.csv", movement(gravity=False))
    with pytest.raises(Unreadable, match=r"accel_unit: Accelerometer.csv"):
        read(tmp_path)
    gravity = movement() - movement(gravity=False)
    path = write(folder / "Gravity.csv", gravity)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], *lines[1::2]]) + "\n")  # at half the rate
    (recording,) = read(tmp_path)
    assert recording.accel is not None
    np.testing.assert_allclose(recording.accel, movement() / G, atol=1e-4)
    assert any("gravity of Gravity.csv added" in note for note in recording.notes)


def test_the_best_file_of_a_folder_is_read_and_the_next_if_it_is_damaged(tmp_path: Path) -> None:
    write(tmp_path / "a/Accelerometer.csv", movement(gravity=False))
    write(tmp_path / "a/TotalAcceleration.csv", movement(1))
    np.testing.assert_allclose(accel_of(tmp_path), movement(1) / G, atol=1e-4)
    (tmp_path / "a/AccelerometerUncalibrated.csv").write_text("time,seconds_elapsed,z,y,x\n")
    (recording,) = read(tmp_path)
    assert recording.accel is not None
    assert recording.notes[-1].startswith("left out: ")


def test_phyphox(tmp_path: Path) -> None:
    axes = ",".join(f'"Acceleration {axis} (m/s^2)"' for axis in "xyz")
    header = f'"Time (s)",{axes},"Absolute acceleration (m/s^2)"'
    rows = [f"{n / RATE_HZ:.4E},{x:.6E},{y:.6E},{z:.6E},9.8" for n, (x, y, z) in enumerate(movement().T)]
    (tmp_path / "P1").mkdir()
    (tmp_path / "P1/Raw Data.csv").write_text("\n".join([header, *rows]))
    (recording,) = read(tmp_path)
    assert recording.started_at_s is None
    assert recording.accel is not None
    np.testing.assert_allclose(recording.accel, movement() / G, atol=1e-4)
    (tmp_path / "P1/meta").mkdir()
    (tmp_path / "P1/meta/time.csv").write_text(
        '"event","experiment time","system time","system time text"\n"START",0.5,1714999900.5,"2024-05-06"\n'
    )
    (tmp_path / "P1/meta/device.csv").write_text('"property","value"\n')
    (recording,) = read(tmp_path)
    assert recording.started_at_s == pytest.approx(1714999900.0)
    linear = header.replace("Acceleration", "Linear Acceleration")
    (tmp_path / "P1/Raw Data.csv").write_text("\n".join([linear, *(row.replace("E+00", "E-03") for row in rows)]))
    with pytest.raises(Unreadable, match="gravity"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("header", "time", "scale"),
    [
        ("timestamp;accX;accY;accZ", lambda n: f"{n * 10}", 1.0),
        ("Time (ms),gFx,gFy,gFz,TgF", lambda n: f"{n * 10}", 1 / G),
        ("loggingTime(txt),accelerometerTimestamp_sinceReboot(s),accelerometerAccelerationX(G),accelerometerAccelerationY(G),"
         "accelerometerAccelerationZ(G)", lambda n: f"2024-10-05 09:28:42,{n / 100}", 1 / G),
        ("time,ax (m/s^2),ay (m/s^2),az (m/s^2)", lambda n: f"{n / 100}", 1.0),
    ],
)  # fmt: skip
def test_other_loggers_by_the_names_of_their_columns(tmp_path: Path, header: str, time: Any, scale: float) -> None:
    separator = ";" if ";" in header else ","
    rows = [
        separator.join([time(n), *(f"{value * scale:.6f}" for value in sample)])
        for n, sample in enumerate(movement().T)
    ]
    (tmp_path / "P7.csv").write_text("\n".join([header, *rows]) + "\n")
    (recording,) = read(tmp_path)
    assert recording.accel is not None
    assert recording.accel_rate_hz == pytest.approx(RATE_HZ)
    np.testing.assert_allclose(recording.accel, movement() / G, atol=1e-4)


def test_blank_cells_gaps_and_a_cut_end(tmp_path: Path) -> None:
    path = write(tmp_path / "Subject_1/Recording_1/uncalibrated_scg.csv", movement())
    lines = path.read_text().splitlines()
    cells = lines[101].split(",")
    lines[101] = ",".join([*cells[:3], "", cells[4]])
    lines[201] = ",".join(lines[201].split(",")[:3])
    del lines[301:401]
    path.write_text("\n".join(lines)[:-30])
    (recording,) = read(tmp_path)
    assert recording.accel is not None
    assert recording.accel_rate_hz == pytest.approx(RATE_HZ)
    missing = np.flatnonzero(np.isnan(recording.accel).any(axis=0))
    assert missing.tolist() == [100, 200, *range(300, 400)]
    assert recording.accel.shape[1] == SAMPLES - 1


def test_a_table_of_something_else_is_not_recognised(tmp_path: Path) -> None:
    (tmp_path / "delivery").mkdir()
    write(tmp_path / "delivery/P1/TotalAcceleration.csv", movement())
    (tmp_path / "delivery/answers.csv").write_text("participant,question,answer\n1,2,3\n")
    summary, _ = landed("phone", tmp_path / "delivery", tmp_path)
    assert [rejection.source_file for rejection in summary.rejections] == ["answers.csv"]
