"""Recordings that lack a modality, altogether or for a while, and sensors that nobody wears."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from accelkd.home.layout import Home
from accelkd.segments.segment import segment_batch
from accelkd.segments.store import SegmentStore
from tests.support.recordings import RATE_HZ, Person, land_people

MINUTE = 60 * RATE_HZ


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def rows(home: Home) -> list[dict[str, Any]]:
    with pa.memory_map(str(home.segments("b1"))) as source:
        return pa.ipc.open_file(source).read_all().to_pylist()


def without(person: Person, modality: str) -> Person:
    setattr(person, modality, np.empty((0, 0), np.float32))
    return person


def test_a_batch_may_mix_devices_with_none_one_and_four_channels(home: Home) -> None:
    people = [
        Person("four"),
        Person("one", device_id="e4"),
        without(Person("accel"), "ppg"),
        without(Person("ppg"), "accel"),
        without(Person("phone", device_id="phone"), "ppg"),
    ]
    people[4].accel = people[2].accel
    land_people(home, "b1", people)
    counts = segment_batch(home, "b1")
    assert (counts.seen, counts.segments, counts.reasons) == (5, 5, {})
    assert counts.channels == {"ppg": {0: 2, 1: 1, 4: 2}, "accel": {0: 1, 3: 4}}
    store = SegmentStore([home.segments("b1")])
    channels = dict(
        zip(
            store.metadata.column("participant_id").to_pylist(),
            zip(store.counts("ppg"), store.counts("accel"), strict=True),
            strict=True,
        )
    )
    assert channels == {"four": (4, 3), "one": (1, 3), "accel": (0, 3), "ppg": (4, 0), "phone": (0, 3)}
    by_name = {row["participant_id"]: row for row in rows(home)}
    accel, ppg = by_name["accel"], by_name["ppg"]
    assert (accel["ppg"], accel["ppg_status"], accel["ppg_level"]) == ([], [], [])
    assert (accel["hr_bpm"], accel["label_channel"], accel["label_good"]) == (None, None, False)
    assert accel["motion_p95_g"] < 0.05
    assert (ppg["accel"], ppg["accel_status"], ppg["motion_p95_g"]) == ([], [], None)
    assert ppg["label_good"]


def test_either_modality_alone_gives_the_same_signals_as_beside_the_other(home: Home) -> None:
    land_people(home, "b1", [Person("p1", 130)])
    segment_batch(home, "b1")
    both = rows(home)
    alone = Home(home.root / "alone")
    for modality, other in (("ppg", "accel"), ("accel", "ppg")):
        person = without(Person("p1", 130), other)
        land_people(Home(alone.root / modality), "b1", [person])
        segment_batch(Home(alone.root / modality), "b1")
        kept = rows(Home(alone.root / modality))
        assert [row[modality] for row in kept] == [row[modality] for row in both]
        assert [row["segment_id"] for row in kept] == [row["segment_id"] for row in both]


def test_a_modality_without_a_sample_in_a_window_is_absent_there(home: Home) -> None:
    person = Person("p1", 240)
    person.ppg[:, MINUTE : 2 * MINUTE] = np.nan  # the light is switched off
    person.accel[:, 2 * MINUTE : 3 * MINUTE] = np.nan
    person.ppg[:, 3 * MINUTE :] = np.nan
    person.accel[:, 3 * MINUTE :] = np.nan
    land_people(home, "b1", [person])
    counts = segment_batch(home, "b1")
    assert counts.reasons == {"no_signal": 1}
    assert counts.channels == {"ppg": {0: 1, 4: 2}, "accel": {0: 1, 3: 2}}


def test_a_stream_of_nothing_but_missing_samples_is_absent(home: Home) -> None:
    person = Person("p1")
    person.ppg[:] = np.nan
    land_people(home, "b1", [person])
    counts = segment_batch(home, "b1")
    assert counts.reasons == {}
    assert counts.channels == {"ppg": {0: 1}, "accel": {3: 1}}


def on_a_table(person: Person) -> Person:
    """Nothing moves the accelerometer, and the light sees no pulse."""
    rng = np.random.default_rng(1)
    table = np.array([[0.0], [0.0], [1.0]]) + 0.002 * rng.standard_normal(person.accel.shape)
    person.accel = table.astype(np.float32)
    person.ppg[:] = 1e5 + 10 * rng.standard_normal(person.ppg.shape)
    return person


@pytest.mark.parametrize("gate", ["strict", "loose"])
def test_a_watch_on_the_table_is_quarantined(home: Home, gate: Any) -> None:
    land_people(home, "b1", [on_a_table(Person("table")), without(on_a_table(Person("alone")), "ppg"), Person("worn")])
    counts = segment_batch(home, "b1", gate=gate)
    assert counts.reasons == {"not_worn": 2}
    assert [row["participant_id"] for row in rows(home)] == ["worn"]
    detail = pq.read_table(home.quarantine("b1")).to_pylist()[0]["detail"]
    assert detail.startswith("nothing but noise moves the sensor, and no pulse")


def test_a_pulse_shows_that_even_a_motionless_sensor_is_worn(home: Home) -> None:
    person = Person("p1")
    ppg = person.ppg.copy()
    on_a_table(person)
    person.ppg = ppg
    land_people(home, "b1", [person])
    assert segment_batch(home, "b1").segments == 1


def test_without_a_gate_nothing_is_judged_by_its_motion(home: Home) -> None:
    land_people(home, "b1", [on_a_table(Person("p1"))])
    assert segment_batch(home, "b1", gate="off").segments == 1


def test_a_bad_reference_is_dropped_and_counted_and_its_recording_stays(home: Home) -> None:
    facts = {
        "reference_source": "ecg",
        "reference_hr_s": [1.0, 20.0, 40.0, 55.0],
        "reference_hr_bpm": [70.0, 0.0, 71.0, 72.0],
        "reference_beat_s": [1.0, 2.0, 1.5],
    }
    land_people(home, "b1", [Person("p1", facts=facts)])
    counts = segment_batch(home, "b1")
    assert (counts.seen, counts.segments) == (3, 1)
    assert counts.reasons == {"reference_order": 1, "reference_value": 1}
    (row,) = rows(home)
    assert row["reference_hr_bpm"] == pytest.approx(71.0)
    units = pq.read_table(home.quarantine("b1")).column("unit").to_pylist()
    assert units == ["reference", "reference"]
