"""The simulated cohort of a reproduction: simulate, segment, split, and read back as arrays."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from accelkd.cohort.participants import segmented_participants
from accelkd.cohort.split import extend_split, participants_on
from accelkd.cohort.training_set import training_set
from accelkd.evaluation.participant_probes import participant_targets
from accelkd.home.files import sha256_json, sweep
from accelkd.home.isolated import end_pool, end_with_parent
from accelkd.home.layout import Home
from accelkd.recordings.labels import LABELS
from accelkd.recordings.simulator import simulate_batch
from accelkd.recordings.survey import survey_targets
from accelkd.segments.segment import segment_batch
from accelkd.segments.store import SegmentStore


@dataclass(frozen=True)
class CohortPlan:
    """The parameters of a simulated cohort."""

    profile: str  # difficulty: easy, realistic or hard
    participants: int
    segments: int  # one-minute recordings of each participant
    seed: int = 7
    participants_per_batch: int = 200
    test_fraction: float = 0.2  # of the participants (section 4.1)
    keep_recordings: bool = True  # else they are deleted after segmentation, which halves the space

    def batches(self) -> dict[str, tuple[int, int]]:
        """Number of the first participant and count of participants of each batch, by the batch's identifier."""
        firsts = range(0, self.participants, self.participants_per_batch)
        return {
            f"sim-{number:04d}": (first, min(self.participants_per_batch, self.participants - first))
            for number, first in enumerate(firsts)
        }


@dataclass(frozen=True)
class Versions:
    """What identifies the data of a cohort."""

    data: str
    split: str


@dataclass(frozen=True)
class Cohort:
    """The segments of a cohort with their labels and participants. Arrays are `[segments]` unless said otherwise."""

    store: SegmentStore
    versions: Versions
    rows: npt.NDArray[np.intp]  # of the store
    participants: npt.NDArray[np.str_]  # of each segment
    in_test: npt.NDArray[np.bool_]
    labels: Mapping[str, npt.NDArray[np.float64]]  # of LABELS; NaN where a label is not good
    people: npt.NDArray[np.str_]  # all participants with a segment, sorted: [people]
    traits: Mapping[str, npt.NDArray[np.float64]]  # [people]: age, BMI, sex (1 male), survey targets; NaN if unknown

    @property
    def training_rows(self) -> npt.NDArray[np.intp]:
        """Positions of the training participants' segments."""
        return np.flatnonzero(~self.in_test)

    @property
    def test_rows(self) -> npt.NDArray[np.intp]:
        """Positions of the test participants' segments."""
        return np.flatnonzero(self.in_test)

    def with_at_most(self, segments: int | None) -> Cohort:
        """The cohort with at most so many segments of each training participant, the first ones; None: all."""
        if segments is None:
            return self
        order = np.argsort(self.participants, kind="stable")
        _, first, code = np.unique(self.participants[order], return_index=True, return_inverse=True)
        number = np.empty(len(order), np.intp)
        number[order] = np.arange(len(order)) - first[code]
        kept = np.flatnonzero(self.in_test | (number < segments))
        return replace(
            self,
            rows=self.rows[kept],
            participants=self.participants[kept],
            in_test=self.in_test[kept],
            labels={name: values[kept] for name, values in self.labels.items()},
        )


def cohort_home(home: Home, plan: CohortPlan) -> Home:
    """The home of a plan's cohort: nested in the given home, separate from arrived recordings."""
    return Home(home.root / "reproduction" / "cohorts" / f"{plan.profile}-{sha256_json(asdict(plan))[:8]}")


def make_cohort(nested_home: Home, plan: CohortPlan, processes: int, stop_at: float = math.inf) -> Versions:
    """Simulate, segment and split the batches that are missing; existing ones are left as they are.

    Raises TimeoutError once `time.monotonic()` has passed `stop_at`; the next call uses the batches made until then.
    """
    sweep(nested_home.root)  # leftovers of a killed call
    # The quarantine is written last: without it a batch is incomplete
    missing = [batch_id for batch_id in plan.batches() if not nested_home.quarantine(batch_id).exists()]
    if min(processes, len(missing)) > 1:
        _make_together(nested_home, plan, missing, processes, stop_at)
    else:
        for batch_id in missing:
            _make_batch(nested_home, plan, processes, batch_id)
    extend_split(
        nested_home.split,
        segmented_participants(nested_home, list(plan.batches())),
        seed=0,
        test_fraction=plan.test_fraction,
    )
    curated = training_set(nested_home)
    return Versions(curated.data_version, curated.split_version)


def _make_together(nested_home: Home, plan: CohortPlan, missing: Sequence[str], processes: int, stop_at: float) -> None:
    with ProcessPoolExecutor(min(processes, len(missing)), get_context("spawn"), end_with_parent) as pool:
        made = [pool.submit(_make_batch, nested_home, plan, 1, batch_id) for batch_id in missing]
        try:
            left = None if stop_at == math.inf else max(0.0, stop_at - time.monotonic())
            for future in as_completed(made, timeout=left):
                future.result()
        except TimeoutError:
            done = sum(future.done() for future in made)
            end_pool(pool)
            raise TimeoutError(f"the time ended after {done} of {len(missing)} batches of the cohort") from None


def _make_batch(nested_home: Home, plan: CohortPlan, processes: int, batch_id: str) -> None:
    """Simulate and segment one batch."""
    first, count = plan.batches()[batch_id]
    if not (nested_home.batch(batch_id) / "recordings").exists():
        shutil.rmtree(nested_home.batch(batch_id), ignore_errors=True)  # its recordings were deleted
        simulate_batch(
            nested_home.landing,
            batch_id,
            participants=count,
            segments=plan.segments,
            seed=plan.seed,
            profile=plan.profile,
            first_participant=first,
            processes=processes,
        )
    segment_batch(nested_home, batch_id)
    if not plan.keep_recordings:
        shutil.rmtree(nested_home.batch(batch_id) / "recordings")


def read_cohort(nested_home: Home, plan: CohortPlan, versions: Versions) -> Cohort:
    """The cohort that `make_cohort` made in `nested_home`; `versions` are what it returned."""
    store = SegmentStore([nested_home.segments(batch_id) for batch_id in plan.batches()])
    participants = np.asarray(store.metadata.column("participant_id").to_pylist())
    people = np.unique(participants)
    test = participants_on(nested_home.split, "test")
    folders = [nested_home.batch(batch_id) for batch_id in plan.batches()]
    demographics, answers = (
        pa.concat_tables([pq.read_table(folder / f"{name}.parquet") for folder in folders])
        for name in ("participants", "survey")
    )
    health = survey_targets(answers)
    return Cohort(
        store=store,
        versions=versions,
        rows=np.arange(len(store)),
        participants=participants,
        in_test=np.isin(participants, sorted(test)),
        labels={name: store.metadata.column(name).to_numpy() for name in LABELS},
        people=people,
        traits=participant_targets(demographics, health, people),
    )


def describe(cohort: Cohort) -> dict[str, Any]:
    """Sizes of the cohort and the days that it covers, as in table 6 of the paper, with its versions."""
    day = cohort.store.metadata.column("started_at").to_numpy().astype("datetime64[D]")
    known = ~np.isnat(day)
    participant = np.unique(cohort.participants[known], return_inverse=True)[1]
    person_days = np.unique(np.stack([participant, day[known].astype(np.int64)]), axis=1)
    sides = {"train": cohort.training_rows, "test": cohort.test_rows}
    return {
        **{
            side: {"participants": len(np.unique(cohort.participants[rows])), "segments": len(rows)}
            for side, rows in sides.items()
        },
        "segments_per_participant": len(cohort.participants) / len(cohort.people),
        "calendar_days_per_participant": person_days.shape[1] / len(cohort.people),
        "time_span_days": int((day[known].max() - day[known].min()).astype(int)) + 1,
        "segments_with_label": {name: int(np.isfinite(values).sum()) for name, values in cohort.labels.items()},
        "data_version": cohort.versions.data,
        "split_version": cohort.versions.split,
    }
