"""Homes that lack PPG, in part or all, labels or people: what can be measured is, and what is whole is published."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import numpy as np
import pytest

from accelkd.home.layout import Home
from accelkd.home.settings import Settings
from accelkd.operations.checks import check_batch
from accelkd.operations.rebuild import rebuild_warehouse
from accelkd.operations.withdraw import withdraw
from accelkd.registry.history import promoted_models
from accelkd.warehouse.report_state import report_state
from accelkd.warehouse.summary import summary
from orchestration.catch_up import CatchUpOutcome, catch_up
from orchestration.sensors import retraining
from tests.support.homes import adopt_pair, new_home
from tests.support.pipeline import opened_instance
from tests.support.recordings import Person, land_people, phone

NO_TEACHER = "no segment has what the PPG teacher takes"


def caught_up(home: Home, **options: Any) -> CatchUpOutcome:
    with opened_instance(home) as instance:
        return catch_up(home, instance, **options)


def published(home: Home, sql: str) -> list[tuple[Any, ...]]:
    with duckdb.connect(str(home.published), read_only=True) as connection:
        return connection.execute(sql).fetchall()


def published_tables(home: Home) -> set[str]:
    return {
        name for (name,) in published(home, "SELECT table_name FROM duckdb_tables() WHERE schema_name = 'embeddings'")
    }


def not_measured(home: Home, asset: str) -> object:
    """What the last materialization of an asset says that it could not measure."""
    with opened_instance(home) as instance:
        event = instance.get_latest_materialization_event(dg.AssetKey(asset))
    assert event is not None
    assert event.asset_materialization is not None
    value = event.asset_materialization.metadata.get("not_measured")
    return None if value is None else value.value


def failed_checks(home: Home) -> set[str]:
    """Checks of the batches that fail, or that cannot be made; the still wrists of these tests carry no heart."""
    batches = sorted(path.name for path in home.landing.iterdir() if not path.name.startswith("."))
    verdicts = [each for batch_id in batches for each in check_batch(home, batch_id)]
    failed = {check.name for check, verdict in verdicts if isinstance(verdict, str) or not verdict.passed}
    return failed - {"accelerometer_carries_the_heart"}


def simulated(name: str, duration_s: float = 240.0) -> Person:
    return Person(name, duration_s)


def wristband(name: str, duration_s: float = 240.0) -> Person:
    return Person(name, duration_s, device_id="e4")


def people(kind: Any, names: Sequence[str]) -> list[Person]:
    return [kind(name) for name in names]


def test_a_home_of_phones_goes_from_files_to_published_embeddings(tmp_path: Path) -> None:
    home = new_home(tmp_path / "home")
    land_people(home, "b1", people(phone, [f"person-{n:02}" for n in range(6)]))

    tables_alone = caught_up(home)
    assert tables_alone.failed == [("ppg_teacher", None)]
    assert ("published_warehouse", None) in tables_alone.materialized
    assert published(home, "SELECT count(*), count(hr_bpm), count(motion_p95_g) FROM segments") == [(24, 0, 24)]
    assert published_tables(home) == set()
    assert caught_up(home, encoders="wait", retry_failed=False).materialized == []
    Settings(preset="smoke", retrain_after_participants=4).save(home)
    skipped = retraining(dg.build_sensor_context(resources={"home": home}))
    assert isinstance(skipped, dg.SkipReason)
    assert "`accelkd adopt ppg-teacher-xs accel-kd-xs`" in str(skipped.skip_message)

    models = adopt_pair(home, Home(tmp_path / "elsewhere"))
    done = caught_up(home, encoders="wait", retry_failed=False)  # as the daemon does
    assert (done.failed, done.skipped) == ([], [])
    assert promoted_models(home) == models
    assert published(home, "SELECT count(*) FROM segments JOIN embeddings.accel_student USING (segment_id)") == [(24,)]
    assert published_tables(home) == {"accel_student"}
    state = report_state(home)
    assert state.is_current
    assert any(NO_TEACHER in reason for reason in state.not_measured)
    assert failed_checks(home) == set()
    assert not_measured(home, "ppg_teacher_probes") == NO_TEACHER
    assert not_measured(home, "retrieval") == NO_TEACHER
    text = (home.reports / "report.md").read_text(encoding="utf-8")
    assert f"Not measured, PPG teacher: {NO_TEACHER}." in text
    shown = summary(home.published)
    assert "24 segments" in shown
    assert f"probe of ppg_teacher: {NO_TEACHER}" in shown
    assert caught_up(home).materialized == []
    rebuild_warehouse(home)
    assert report_state(home) == state
    assert "new since the last training" in str(retraining(dg.build_sensor_context(resources={"home": home})))

    withdrawn = withdraw(home, "person-03")
    assert (withdrawn.remaining, withdrawn.not_searched) == ([], {})
    assert caught_up(home).failed == []
    assert published(home, "SELECT count(*) FROM embeddings.accel_student") == [(20,)]

    second = adopt_pair(home, Home(tmp_path / "another"), seed=1)
    assert second != models
    assert caught_up(home, encoders="wait", retry_failed=False).failed == []
    assert published(home, "SELECT DISTINCT model_id FROM embeddings.accel_student") == [(second["accel_student"],)]


def test_a_home_mixes_devices_with_no_one_and_four_channels(tmp_path: Path) -> None:
    home = new_home(tmp_path / "home")
    land_people(home, "b1", [*people(simulated, [f"four-{n}" for n in range(5)]), phone("phone-0"), phone("phone-1")])
    land_people(home, "b2", [wristband("one-0"), phone("phone-2")])
    land_people(home, "b3", [phone("phone-3")])
    done = caught_up(home)
    assert (done.failed, done.skipped) == ([], [])
    counts = "SELECT batch_id, count(*) FROM embeddings.{} GROUP BY ALL ORDER BY 1"
    assert published(home, counts.format("ppg_teacher")) == [("b1", 20)]
    assert published(home, counts.format("accel_student")) == [("b1", 28), ("b2", 8), ("b3", 4)]
    assert report_state(home).is_current
    assert failed_checks(home) == set()
    ((candidates, people_found),) = published(
        home, "SELECT max(segments), max(participants) FROM retrieval_results WHERE space = 'projected'"
    )
    ((test_segments,),) = published(
        home, "SELECT count(*) FROM embeddings.ppg_teacher JOIN split USING (participant_id) WHERE split = 'test'"
    )
    assert 0 < candidates <= test_segments
    assert people_found <= 5
    assert published(home, "SELECT count(*) FROM participant_embedding('ppg_teacher')") == [(5,)]
    assert published(home, "SELECT count(*) FROM participant_embedding('accel_student')") == [(10,)]
    assert caught_up(home).materialized == []


def test_people_with_ppg_and_people_with_acceleration_take_a_pair_from_elsewhere(tmp_path: Path) -> None:
    home = new_home(tmp_path / "home")
    with_ppg = people(simulated, [f"ppg-{n}" for n in range(4)])
    for person in with_ppg:
        person.accel = person.accel[:0]
    land_people(home, "b1", [*with_ppg, *people(phone, [f"phone-{n}" for n in range(4)])])
    done = caught_up(home)
    assert ("ppg_teacher", None) in done.materialized
    assert done.failed == [("accel_student", None)]  # nobody has both
    assert published(home, "SELECT count(*) FROM segments") == [(32,)]

    models = adopt_pair(home, Home(tmp_path / "elsewhere"))
    assert caught_up(home).failed == []
    assert promoted_models(home) == models
    for encoder, prefix in (("ppg_teacher", "ppg"), ("accel_student", "phone")):
        embedded = f"SELECT count(*), bool_and(starts_with(participant_id, '{prefix}')) FROM embeddings.{encoder}"
        assert published(home, embedded) == [(16, True)]
    assert report_state(home).is_current
    assert caught_up(home).materialized == []


def test_a_pair_from_elsewhere_takes_the_place_of_one_that_was_trained(tmp_path: Path) -> None:
    home = new_home(tmp_path / "home")
    land_people(home, "b1", people(simulated, [f"person-{n}" for n in range(6)]))
    assert caught_up(home).failed == []
    trained = promoted_models(home)
    models = adopt_pair(home, Home(tmp_path / "elsewhere"))
    assert caught_up(home).failed == []
    assert promoted_models(home) == models != trained
    assert published(home, "SELECT DISTINCT model_id FROM embeddings.accel_student") == [(models["accel_student"],)]
    assert caught_up(home).materialized == []


@pytest.mark.parametrize("number", [1, 3])
def test_a_cohort_of_few_people_is_trained_on_and_published(tmp_path: Path, number: int) -> None:
    home = new_home(tmp_path / "home")
    land_people(home, "b1", people(simulated, [f"person-{n}" for n in range(number)]))
    done = caught_up(home)
    assert (done.failed, done.skipped) == ([], [])
    assert published(home, "SELECT count(*) FROM embeddings.accel_student") == [(4 * number,)]
    assert report_state(home).is_current
    assert ("too few people" in str(not_measured(home, "accel_student_probes"))) == (number < 3)
    assert caught_up(home).materialized == []


def test_a_cohort_without_a_label_is_published(tmp_path: Path) -> None:
    home = new_home(tmp_path / "home")
    cohort = people(simulated, [f"person-{n}" for n in range(6)])
    rng = np.random.default_rng(0)
    for person in cohort:
        person.ppg = (1e5 + 1e3 * rng.standard_normal(person.ppg.shape)).astype(np.float32)
    land_people(home, "b1", cohort)
    done = caught_up(home)
    assert (done.failed, done.skipped) == ([], [])
    assert published(home, "SELECT count(*), count(hr_bpm) FROM segments")[0][1] == 0
    assert published(home, "SELECT count(*) > 0 FROM embeddings.ppg_teacher") == [(True,)]
    assert "heart rate: too few people: 0 with the label in training" in str(not_measured(home, "ppg_teacher_probes"))
    assert report_state(home).is_current
