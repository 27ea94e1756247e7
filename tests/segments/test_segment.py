"""Recordings to segments: every window ends in the store or in quarantine, with labels that are right."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import rust_dsp
from accelkd.home.layout import Home
from accelkd.home.settings import MotionGate
from accelkd.recordings.ingest import ingest
from accelkd.recordings.simulator.simulate import simulate_batch
from accelkd.recordings.validate import BatchError
from accelkd.segments.segment import recount, segment_batch, segment_id
from accelkd.segments.store import SegmentStore
from tests.support.recordings import RATE_HZ, Person, land_people


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def quarantine(home: Home, batch_id: str) -> list[dict[str, Any]]:
    return pq.read_table(home.quarantine(batch_id)).to_pylist()


def rows(home: Home, batch_id: str) -> list[dict[str, Any]]:
    return pa.ipc.open_file(str(home.segments(batch_id))).read_all().drop_columns(["ppg", "accel"]).to_pylist()


def gap(person: Person) -> None:
    person.ppg[:, 600:700] = np.nan


def scattered(person: Person) -> None:
    person.ppg[:, ::40] = np.nan


def flat(person: Person) -> None:
    person.ppg[:] = 1e5


def rails(person: Person) -> None:
    person.ppg[:, 500:900] = 2.0**19


def accel_gap(person: Person) -> None:
    person.accel[1, 600:700] = np.nan


def accel_flat(person: Person) -> None:
    person.accel[:] = np.array([[0.0], [0.0], [1.0]])


def shaking(person: Person) -> None:
    person.accel[0, ::2] += 0.4


def no_accel(person: Person) -> None:
    person.accel[:, 200:] = np.nan


def short(person: Person) -> None:
    person.ppg, person.accel = person.ppg[:, :3000], person.accel[:, :3000]


def wrong_unit(person: Person) -> None:
    person.accel *= 9.81


DAMAGE: dict[Callable[[Person], None], tuple[str, str]] = {
    gap: ("window", "ppg_gap"),
    scattered: ("window", "ppg_missing"),
    flat: ("window", "ppg_flat"),
    rails: ("window", "ppg_gap"),
    accel_gap: ("window", "accel_gap"),
    accel_flat: ("window", "accel_flat"),
    shaking: ("window", "motion"),
    no_accel: ("window", "accel_gap"),
    short: ("recording", "too_short"),
    wrong_unit: ("recording", "accel_unit"),
}


def test_each_damage_is_reported_by_its_reason_and_the_rest_goes_on(home: Home) -> None:
    people = [Person("healthy")]
    for number, damage in enumerate(DAMAGE):
        people.append(Person(f"p{number:02d}"))
        damage(people[-1])
    unread = {"source_file": "x.csv", "participant_id": None, "reason": "empty_file", "detail": "0 bytes"}
    land_people(home, "b1", people, rejected=[unread])
    counts = segment_batch(home, "b1")
    reasons = {row["participant_id"]: (row["unit"], row["reason"]) for row in quarantine(home, "b1")}
    assert reasons.pop(None) == ("file", "empty_file")
    assert reasons == {f"p{number:02d}": expected for number, expected in enumerate(DAMAGE.values())}
    assert (counts.seen, counts.segments, counts.quarantined) == (12, 1, 11)
    assert counts.reasons["ppg_gap"] == 2
    assert [row["participant_id"] for row in rows(home, "b1")] == ["healthy"]
    assert recount(home, "b1") == counts
    assert all(row["detail"] for row in quarantine(home, "b1"))


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    damages=st.lists(st.sampled_from([None, *DAMAGE]), min_size=1, max_size=7),
    minutes=st.integers(1, 3),
    hop_s=st.sampled_from([60.0, 20.0]),
    gate=st.sampled_from(["strict", "loose", "off"]),
)
def test_counts_add_up_whatever_is_damaged(
    home: Home, damages: list[Callable[[Person], None] | None], minutes: int, hop_s: float, gate: MotionGate
) -> None:
    shutil.rmtree(home.root, ignore_errors=True)
    people = [Person(f"p{number}", duration_s=60.0 * minutes) for number in range(len(damages))]
    for person, damage in zip(people, damages, strict=True):
        if damage is not None:
            damage(person)
    land_people(home, "b1", people)
    counts = segment_batch(home, "b1", gate=gate, hop_s=hop_s)
    quarantined, kept = quarantine(home, "b1"), rows(home, "b1")
    assert counts.segments == len(kept)
    assert counts.quarantined == len(quarantined) == sum(counts.reasons.values())
    assert counts.seen == len(kept) + len(quarantined)
    whole = [person for person, damage in zip(people, damages, strict=True) if damage not in (short, wrong_unit)]
    windows = 1 + int((minutes - 1) * 60 / hop_s)
    assert counts.seen == windows * len(whole) + len(people) - len(whole)
    for person in whole:  # each window once, on one side or the other
        where = [row["offset_s"] for row in (*quarantined, *kept) if row["participant_id"] == person.name]
        assert sorted(where) == [hop_s * number for number in range(windows)]


def test_one_good_channel_is_enough_and_bad_rows_are_zeros_with_their_status(home: Home) -> None:
    person = Person("p1", hr_bpm=64)
    person.ppg[[0, 1, 3], 100:300] = np.nan
    person.accel[2] = 1.0
    land_people(home, "b1", [person])
    segment_batch(home, "b1")
    (row,) = rows(home, "b1")
    assert row["ppg_status"] == [3 * 2, 3 * 2, 0, 3 * 2]  # gap and missing
    assert row["accel_status"] == [0, 0, 8]
    assert row["label_channel"] == 2
    assert row["hr_bpm"] == pytest.approx(64, abs=1.5)
    signals = SegmentStore([home.segments("b1")]).signals("ppg", np.array([0]))[0]
    assert not signals[[0, 1, 3]].any()
    assert signals[2].astype(np.float64).std() == pytest.approx(1, abs=1e-3)


def test_the_best_channel_gives_the_labels(home: Home) -> None:
    people = [Person(f"p{n}") for n in range(4)]
    rng = np.random.default_rng(0)
    for best, person in enumerate(people):
        noise = 500 * rng.standard_normal(person.ppg.shape).astype(np.float32)
        noise[best] = 0
        person.ppg += noise
    land_people(home, "b1", people)
    segment_batch(home, "b1")
    assert [row["label_channel"] for row in rows(home, "b1")] == [0, 1, 2, 3]
    assert all(row["label_good"] and row["hr_bpm"] == pytest.approx(70, abs=1.5) for row in rows(home, "b1"))


def test_labels_that_fail_the_gate_are_null_and_their_quality_is_kept(home: Home) -> None:
    person = Person("p1")
    person.ppg[:] = 1e5 + 1e3 * np.random.default_rng(0).standard_normal(person.ppg.shape)
    land_people(home, "b1", [person])
    assert segment_batch(home, "b1").label_good == 0
    (row,) = rows(home, "b1")
    assert (row["hr_bpm"], row["sdnn_ms"], row["rmssd_ms"], row["label_good"]) == (None, None, None, False)
    assert row["label_template_correlation"] < 0.8


def test_the_same_batch_gives_the_same_bytes(home: Home) -> None:
    people = [Person(f"p{n}", duration_s=200) for n in range(7)]
    gap(people[2])
    land_people(home, "b1", people)
    segment_batch(home, "b1")
    first = home.segments("b1").read_bytes(), home.quarantine("b1").read_bytes()
    segment_batch(home, "b1", gate="off", hop_s=10)
    segment_batch(home, "b1")
    assert (home.segments("b1").read_bytes(), home.quarantine("b1").read_bytes()) == first


def test_segments_are_named_by_recording_and_offset_and_timed(home: Home) -> None:
    start = datetime(2026, 3, 1, 12, 0, 0, 250_000, tzinfo=UTC)
    timed, untimed = Person("p1", 150, facts={"started_at": start}), Person("p2", 60)
    untimed.facts["started_at"] = None
    land_people(home, "b1", [timed, untimed])
    segment_batch(home, "b1", hop_s=30)
    segments = rows(home, "b1")
    assert [row["offset_s"] for row in segments] == [0, 30, 60, 90, 0]
    names = [segment_id(row["recording_id"], row["offset_s"]) for row in segments]
    assert [row["segment_id"] for row in segments] == names
    assert len(set(names)) == 5
    assert segments[1]["started_at"] == datetime(2026, 3, 1, 12, 0, 30, 250_000, tzinfo=UTC)
    assert segments[4]["started_at"] is None
    assert segment_id("r-p1", 30.0) == "b5a7feac21b3f29d"  # names must not change between versions


def test_streams_of_other_rates_and_starts_are_cut_at_the_same_time(home: Home) -> None:
    person = Person("p1", 130, device_id="e4", facts={"accel_rate_hz": 32.0, "accel_start_s": 5.0})
    person.accel = person.accel[:, : 32 * 124]
    land_people(home, "b1", [person])
    segment_batch(home, "b1")
    assert [row["offset_s"] for row in rows(home, "b1")] == [5.0, 65.0]
    assert SegmentStore([home.segments("b1")]).channels("ppg") == 1


def test_a_batch_of_nothing_but_damage_gives_an_empty_store(home: Home) -> None:
    person = Person("p1")
    gap(person)
    land_people(home, "b1", [person])
    counts = segment_batch(home, "b1")
    assert (counts.seen, counts.segments, counts.quarantined) == (1, 0, 1)
    assert (counts.participants, counts.label_good, counts.label_medians) == (0, 0, {})
    assert len(SegmentStore([home.segments("b1")])) == 0


def test_a_damaged_batch_is_refused_and_earlier_segments_stay(home: Home) -> None:
    land_people(home, "b1", [Person("p1")])
    segment_batch(home, "b1")
    before = home.segments("b1").read_bytes()
    part = home.batch("b1") / "recordings" / "part-00000.parquet"
    part.write_bytes(part.read_bytes()[:-100])
    with pytest.raises(BatchError, match="sha256"):
        segment_batch(home, "b1")
    assert home.segments("b1").read_bytes() == before
    with pytest.raises(FileNotFoundError):
        segment_batch(home, "b2")


def test_simulated_recordings_get_the_labels_of_their_truth(home: Home) -> None:
    simulate_batch(home.landing, "sim", participants=12, segments=4, seed=3, profile="easy", rate_hz=256)
    counts = segment_batch(home, "sim")
    assert counts.seen == 48
    assert counts.with_reference == counts.segments > 40
    assert counts.label_good > 0.9 * counts.segments
    good = [row for row in rows(home, "sim") if row["label_good"]]
    error = {
        label: np.array([abs(row[label] - row[f"reference_{label}"]) for row in good if row[label] is not None])
        for label in ("hr_bpm", "sdnn_ms", "rmssd_ms")
    }
    assert np.median(error["hr_bpm"]) < 0.3
    assert np.median(error["sdnn_ms"]) < 4
    assert np.median(error["rmssd_ms"]) < 8
    from_accel = [abs(row["accel_hr_bpm"] - row["reference_hr_bpm"]) for row in good]
    assert np.median(from_accel) < 0.3
    assert np.median([row["accel_hr_peak"] for row in good]) > 0.8


def test_the_rate_from_acceleration_is_that_of_the_axes_as_they_moved(home: Home) -> None:
    simulate_batch(home.landing, "sim", participants=2, segments=2, seed=3, profile="easy")
    segment_batch(home, "sim")
    signals = SegmentStore([home.segments("sim")]).signals("accel")
    segments = rows(home, "sim")
    rates, peaks = rust_dsp.recoil_rates(signals, scale=np.array([row["accel_ac_level"] for row in segments]))
    np.testing.assert_allclose(
        [row["accel_hr_bpm"] for row in segments], rates, atol=0.1
    )  # signals have half precision
    np.testing.assert_allclose([row["accel_hr_peak"] for row in segments], peaks, atol=0.01)


def test_real_minutes_agree_with_the_device(home: Home, shared: Path, tmp_path: Path) -> None:
    sessions = tmp_path / "sessions"
    for name in ("S06", "S24"):
        shutil.copytree(shared / "data" / "stress-predict-e4" / name, sessions / name)
    ingest("e4", sessions, home.landing, "e4")
    strict, loose = segment_batch(home, "e4"), segment_batch(home, "e4", gate="loose")
    assert strict.seen == loose.seen == 109
    assert strict.segments < loose.segments
    assert loose.with_reference == loose.segments
    errors = [abs(row["hr_bpm"] - row["reference_hr_bpm"]) for row in rows(home, "e4") if row["label_good"]]
    assert len(errors) > 20
    assert np.mean(errors) < 2


def test_status_of_a_store_is_that_of_the_specification(home: Home) -> None:
    """A quarter of a second may be missing, more may not: 16 samples at 64 Hz are filled, 17 are a gap."""
    filled, lost = Person("p1"), Person("p2")
    filled.ppg[:, 1000:1016] = np.nan
    lost.ppg[:, 1000:1017] = np.nan
    land_people(home, "b1", [filled, lost])
    assert RATE_HZ == 64
    counts = segment_batch(home, "b1")
    assert counts.reasons == {"ppg_gap": 1}
    (row,) = rows(home, "b1")
    assert row["participant_id"] == "p1"
    assert row["ppg_missing"] == pytest.approx([16 / 3840] * 4)
