"""Reproductions so small that they train in a second, on a machine that is as slow as a test says."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from accelkd.home.layout import Home
from accelkd.reproduction import timed
from accelkd.reproduction.cohort import CohortPlan
from accelkd.reproduction.evaluators import evaluate_run
from accelkd.reproduction.experiments import Preset, preset
from accelkd.reproduction.run import Outcome
from accelkd.reproduction.timed import reproduce_in_time
from accelkd.training.runs import Speed

PLAN = CohortPlan("easy", participants=14, segments=5, participants_per_batch=8)
THREE = ("ppg-mae", "accel-kd-mae", "accel-mae")
HOUR = 60.0


def few_experiments(name: str, experiments: Sequence[str], seeds: Sequence[int] = (0,)) -> Preset:
    """A few experiments of a preset, on the small cohort."""
    whole = preset(name)
    return replace(
        whole,
        cohort=PLAN,
        experiments={experiment: whole.experiments[experiment] for experiment in experiments},
        seeds=tuple(seeds),
    )


def miniature(*more: str, first: Sequence[str] = THREE, seeds: Sequence[int] = (0,)) -> Preset:
    """A few experiments of the GPU's miniature; `first` are in its first stage."""
    few = few_experiments("gpu-miniature", (*first, *more), seeds)
    assert few.time_plan is not None
    return replace(few, time_plan=replace(few.time_plan, first=tuple(first)))


def reproduce_in_an_hour(home: Home, chosen: Preset, out: Path, **options: Any) -> Outcome:
    return reproduce_in_time(home, chosen, HOUR, out, **options)


def run_names(outcome: Outcome) -> tuple[set[str], set[str], set[str]]:
    """Names of the runs that are done, failed and left."""
    return set(outcome.done), set(outcome.failed), set(outcome.remaining)


def as_if_slow(*_: object, **__: object) -> Speed:
    """An hour is planned for a machine so slow that some steps fill it: no test depends on how fast this one is."""
    return Speed(0.5, 1.0, None, ())


def reproduce_as_if_slow(home: Home, chosen: Preset, out: Path) -> None:
    """What a process does that is to be killed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timed, "measure_speed", as_if_slow)
        reproduce_in_an_hour(home, chosen, out)


def die_evaluating(*arguments: Any) -> str:
    """In place of `evaluate_run`: a process that evaluates for another one dies."""
    if multiprocessing.parent_process() is not None:
        os._exit(9)
    return evaluate_run(*arguments)
