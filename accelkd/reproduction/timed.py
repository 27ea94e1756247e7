"""Experiments within a time budget on one device: training lengths follow from measured speeds.

One process trains, on the GPU if there is one; the others probe what it has trained. Each stage gets its share of the
remaining time, so that a slow one shortens itself and not those after it. Seeds and ablations are trained for as many
steps as the first experiment of their stage. The same command continues an interrupted one.
"""

from __future__ import annotations

import json
import os
import shutil
import time
import traceback
from collections.abc import Mapping, Sequence
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from accelkd.home.files import write_json, write_text
from accelkd.home.layout import Home
from accelkd.reproduction.clock import Clock, time_limit
from accelkd.reproduction.cohort import Cohort, cohort_home, describe, make_cohort, read_cohort
from accelkd.reproduction.evaluate import Encoded, encode, training_rows
from accelkd.reproduction.evaluators import (
    CohortKey,
    evaluate_run,
    evaluators,
    submit,
    write_results,
    write_results_in_worker,
)
from accelkd.reproduction.experiments import Preset, Run, Stage, TimePlan
from accelkd.reproduction.packed import MAX_FILE_BYTES, MERGE_COMMAND, pack, read_facts
from accelkd.reproduction.records import (
    COHORT,
    Task,
    Timing,
    checkpoint_of,
    embeddings_of,
    error_log,
    evaluation_version,
    is_done,
    machine,
    make_task,
    parents,
    print_progress,
    reproduction_lock,
)
from accelkd.reproduction.report import DOCUMENT, write_reproduction
from accelkd.reproduction.run import Outcome
from accelkd.training.checkpoint import export_weights, import_weights, read_metrics, training_version
from accelkd.training.runs import measure_speed, train_encoder
from accelkd.training.signals import DeviceMemoryError, ResidentSignals
from accelkd.training.supervised import SupervisedConfig
from accelkd.training.throughput import measure_ceilings

PLAN = "timed.json"
_MIN_STEPS = 10  # a shorter training is not worth its start
_OVERRUN, _STARTUP_S = 1.5, 30  # a training is stopped after this factor of its share, and so much for compilation


class DeviceLostError(RuntimeError):
    """The GPU no longer works for this process; a new process may continue."""


@dataclass
class _Plan:
    """Decisions and measurements, kept between calls so that an interrupted run continues with the same length."""

    path: Path
    steps: dict[Stage, int] = field(default_factory=dict)
    speed: dict[Stage, float] = field(default_factory=dict)  # segments per second
    lost: dict[str, str] = field(default_factory=dict)  # runs during which the device was lost, with the reason

    @classmethod
    def load(cls, path: Path) -> _Plan:
        return cls(path, **json.loads(path.read_text(encoding="utf-8"))) if path.exists() else cls(path)

    def save(self) -> None:
        write_json(self.path, {"steps": self.steps, "speed": self.speed, "lost": self.lost})


@dataclass(frozen=True)
class _Trained:
    """A run whose encoder has been trained."""

    task: Task
    checkpoint: Path
    embeddings: npt.NDArray[np.float32]


@dataclass
class _Call:
    """The state of one call."""

    folder: Path  # <home>/reproduction
    out: Path
    nested_home: Home
    preset: Preset
    time_plan: TimePlan
    cohort: Cohort
    embedded: Cohort
    resident: ResidentSignals | None
    plan: _Plan
    earlier: Mapping[str, Path | None]  # runs that an earlier call finished, with the checkpoint if it came along
    clock: Clock
    pool: ProcessPoolExecutor
    cohort_key: CohortKey
    facts: dict[str, Any]
    outcome: Outcome = field(default_factory=Outcome)
    trained: dict[str, _Trained] = field(default_factory=dict)
    evaluations: dict[str, Future[str]] = field(default_factory=dict)
    packing: Future[None] | None = None
    overhead_s: dict[Stage, float] = field(default_factory=dict)  # of the last run of a stage, besides training


def reproduce_in_time(
    home: Home,
    preset: Preset,
    budget_min: float,
    out: Path,
    *,
    weights: Sequence[Path] = (),
    seeds: Sequence[int] = (),
    command: str = "accelkd reproduce",
    began: float | None = None,
) -> Outcome:
    """Train and evaluate as much of a preset as `budget_min` minutes allow, and write the results to the folder `out`.

    The time counts from `began` (`time.monotonic()`), by default from the call. `out` gets at most eight files: the
    report, the results, and the weights of the encoders that the time plan keeps. `weights` are the `out` of earlier
    calls: their runs are not repeated, and their encoders serve as teachers. `seeds` replace the preset's. A run that
    fails is reported and recorded; only runs that need it fail with it.

    Raises ValueError for a preset without a time plan or weights of another cohort, BlockingIOError while another
    reproduction runs in the home, and DeviceLostError, after writing the results so far, if the GPU stopped working.
    """
    if preset.time_plan is None:
        raise ValueError(f"preset {preset.name} has lengths of its own, and no time plan")
    clock = Clock.start(budget_min, time.monotonic() if began is None else began)
    time_plan, preset = preset.time_plan, replace(preset, seeds=tuple(seeds) or preset.seeds)
    facts: dict[str, Any] = {
        "preset": preset.name,
        "profile": preset.cohort.profile,
        "seeds": list(preset.seeds),
        "command": command,
        "machine": machine(),
        "cores": os.cpu_count() or 1,
        "torch": torch.__version__,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "code_version": training_version(),
        "evaluation_version": evaluation_version(),
        "stages": [],
    }
    folder = home.root / "reproduction"
    with reproduction_lock(folder):
        out.mkdir(parents=True, exist_ok=True)
        outcome, lost = _train_and_evaluate(folder, home, preset, time_plan, out, weights, facts, clock)
        outcome.report = _report(folder, out, clock.finish_until)
    if lost is not None:
        raise lost
    return outcome


def _train_and_evaluate(
    folder: Path,
    home: Home,
    preset: Preset,
    time_plan: TimePlan,
    out: Path,
    weights: Sequence[Path],
    facts: dict[str, Any],
    clock: Clock,
) -> tuple[Outcome, DeviceLostError | None]:
    """Make the cohort, train until the time for it ends, and write the result files; returns a lost device's error."""
    began = time.monotonic()
    ceilings = measure_ceilings()
    facts |= {"ceilings": asdict(ceilings)}
    print_progress(f"{facts['machine']}, torch {torch.__version__}: {ceilings}")
    nested_home, plan, cores = cohort_home(home, preset.cohort), preset.cohort, os.cpu_count() or 1
    print_progress(f"cohort of {plan.participants:,} × {plan.segments} segments, profile {plan.profile}")
    try:
        versions = make_cohort(nested_home, plan, cores, stop_at=clock.train_until)
    except TimeoutError as error:
        print_progress(str(error))
        outcome = Outcome(remaining=[run.name for run in preset.timed_runs()])
        write_json(folder / COHORT, facts | _state(outcome) | {"time_was_over": str(error)})
        pack(folder, out)
        return outcome, None
    cohort = read_cohort(nested_home, plan, versions)
    facts |= describe(cohort)
    print_progress(f"{len(cohort.store):,} segments after {time.monotonic() - began:.0f} s")
    lengths = _Plan.load(folder / PLAN)
    earlier: dict[str, Path | None] = {}
    for source in weights:
        for name, checkpoint in _earlier(source, nested_home, facts, lengths).items():
            earlier[name] = earlier.get(name) or checkpoint
    lost: DeviceLostError | None = None
    key = (nested_home, plan, versions, preset.embedded_segments)
    with evaluators(key, cores) as pool:
        call = _Call(
            folder,
            out,
            nested_home,
            preset,
            time_plan,
            cohort,
            cohort.with_at_most(preset.embedded_segments),
            _resident(cohort),
            lengths,
            earlier,
            clock,
            pool,
            key,
            facts,
        )
        try:
            _run_all(call)
        except DeviceLostError as error:
            lost = error
        _await_evaluations(call)
        facts["finished"] = datetime.now(UTC).isoformat(timespec="seconds")
        write_results(folder, out, preset, call.embedded, _runs(call), _facts(call))
    return call.outcome, lost


def _earlier(weights: Path, nested_home: Home, facts: Mapping[str, Any], lengths: _Plan) -> dict[str, Path | None]:
    """The runs that an earlier call finished, with imported checkpoints; its training lengths are adopted.

    Raises ValueError if its preset or cohort differs.
    """
    before = read_facts(weights)
    for name in ("preset", "data_version", "split_version"):
        if before.get(name) != facts[name]:
            raise ValueError(f"{weights}: {name} is {before.get(name)}, here it is {facts[name]}")
    if before["code_version"] != facts["code_version"]:
        print_progress(
            f"{weights} was trained by other code: {before['code_version']}, here it is {facts['code_version']}"
        )
    lengths.steps = {**before.get("steps", {}), **lengths.steps}
    earlier: dict[str, Path | None] = dict.fromkeys(before["runs_done"])
    for file in sorted(weights.glob("*.safetensors")):
        earlier[file.stem] = import_weights(file, nested_home.root / "checkpoints" / file.stem.rpartition("-")[0])
    known = ", ".join(name for name, checkpoint in earlier.items() if checkpoint is not None)
    print_progress(f"{weights}: {len(earlier)} runs are done there; weights of {known or 'none'}")
    return earlier


def _resident(cohort: Cohort) -> ResidentSignals | None:
    """The cohort in GPU memory; None without a GPU, or, reported, if it does not fit."""
    if not torch.cuda.is_available():
        return None
    started = time.monotonic()
    try:
        resident = ResidentSignals(cohort.store, torch.device("cuda"))
    except (DeviceMemoryError, torch.OutOfMemoryError) as error:
        print_progress(f"FAILED to hold the cohort in the memory of the GPU, batches are read from the disk: {error}")
        return None
    torch.cuda.synchronize()
    print_progress(f"cohort in the memory of the GPU after {time.monotonic() - started:.0f} s")
    return resident


def _run_all(call: _Call) -> None:
    """Train in the order of the time plan until the time for training ends."""
    runs = {run.name: run for run in call.preset.timed_runs()}
    todo = [run for run in runs.values() if run.name not in call.earlier]
    for run in todo:
        if run.name not in call.trained:  # else it was trained as a parent
            _attempt(call, run, runs, todo)
        _collect(call)
    if call.outcome.remaining:
        print_progress(f"the time has ended: {len(call.outcome.remaining)} of {len(todo)} runs left")


def _attempt(call: _Call, run: Run, runs: Mapping[str, Run], todo: Sequence[Run]) -> None:
    """Train one run, after its parents; record it as left if there is no time for it, and as failed if it fails.

    Raises DeviceLostError if the GPU stopped working.
    """
    outcome = call.outcome
    needs: dict[str, _Trained] = {}
    for experiment, name in parents(run, call.preset, frozenset(runs)).items():
        if name not in call.trained and name not in outcome.failed and name not in outcome.remaining:
            _attempt(call, runs[name], runs, todo)
        if name in outcome.failed:
            _failed(call, run.name, f"needs {name}, which failed")
            return
        if name not in call.trained:
            outcome.remaining.append(run.name)
            return
        needs[experiment] = call.trained[name]
    this = f"{run.name} by {call.facts['code_version']}"
    if this in call.plan.lost:
        _failed(call, run.name, f"the device was lost when it was tried before: {call.plan.lost[this]}")
        return
    try:
        imported = call.earlier.get(run.name)
        if imported is not None:
            task = Task(run, f"imported {imported.name}", {})
            call.trained[run.name] = _Trained(task, imported, _encode(call, run, imported, needs).embeddings)
            return
        planned = _planned(call, run, needs, todo)
        if planned is None:
            outcome.remaining.append(run.name)
        else:
            _execute(call, *planned, needs)
    except Exception as error:
        _failed(call, run.name, traceback.format_exc())
        if _device_is_lost():
            call.plan.lost[this] = str(error)
            call.plan.save()
            raise DeviceLostError(f"the GPU does no more work since {run.name}: {error}") from error


def _planned(call: _Call, run: Run, needs: Mapping[str, _Trained], todo: Sequence[Run]) -> tuple[Task, float] | None:
    """The run with its training length, and the seconds that it may take; None if there is no time for it."""
    stage, batch_size = run.experiment.stage, run.config.optimisation.batch_size
    steps = call.plan.steps.get(stage)
    if steps is not None:
        task = _task(call, run, steps, needs)
        if is_done(call.folder, task):
            return task, 0.0
        if stage not in call.plan.speed:
            call.plan.speed[stage] = _speed(call, run, needs)
        seconds = steps * batch_size / call.plan.speed[stage]
        return (task, seconds) if seconds + _overhead_s(call, stage) <= call.clock.training_left_s else None
    if call.clock.training_left_s <= 0:
        return None
    if stage not in call.plan.speed:  # measuring, above all compilation, takes time from all later stages
        call.plan.speed[stage] = _speed(call, run, needs)
    speed, overhead_s = call.plan.speed[stage], _overhead_s(call, stage)
    seconds = call.clock.training_left_s * _share(call, run, todo) - overhead_s
    # Earlier stages are more important: a share that is too small is extended at the cost of later stages
    seconds = max(seconds, _MIN_STEPS * batch_size / speed)
    if seconds + overhead_s > call.clock.training_left_s:
        return None
    steps = call.plan.steps[stage] = max(_MIN_STEPS, int(seconds * speed / batch_size))
    call.plan.save()
    return _task(call, run, steps, needs), seconds


def _overhead_s(call: _Call, stage: Stage) -> float:
    """Seconds of a run besides training; before a stage's first run, as if encoding were as slow as training."""
    return call.overhead_s.get(stage, len(call.embedded.rows) / call.plan.speed[stage] + 0.5)


def _share(call: _Call, run: Run, todo: Sequence[Run]) -> float:
    """The share of the remaining time that a run may take: its weight relative to the first seed's remaining runs."""
    weights = call.time_plan.weights
    finished = {*call.trained, *call.outcome.failed, *call.outcome.remaining, run.name}
    remaining = [
        other
        for other in todo
        if other.name not in finished
        and other.experiment.name in call.time_plan.first
        and other.seed == call.preset.seeds[0]
    ]
    weight = weights[run.experiment.stage]
    return weight / (weight + sum(weights[other.experiment.stage] for other in remaining))


def _task(call: _Call, run: Run, steps: int, needs: Mapping[str, _Trained]) -> Task:
    """The run with so many training steps; its learning-rate schedule keeps its shape."""
    optimisation = run.experiment.config.optimisation.with_steps(steps)
    rows = max(1, min(optimisation.log_every, steps // 10))
    optimisation = replace(optimisation, log_every=rows, save_every=max(rows, steps // 4))
    config = replace(run.experiment.config, optimisation=optimisation)
    longer = Run(replace(run.experiment, config=config), run.seed)
    return make_task(longer, {name: parent.task for name, parent in needs.items()}, call.preset, call.cohort.versions)


def _execute(call: _Call, task: Task, seconds: float, needs: Mapping[str, _Trained]) -> None:
    """Train and encode one run, and submit its evaluation to the pool."""
    run, began = task.run, time.monotonic()
    if is_done(call.folder, task):
        call.trained[run.name] = _Trained(
            task, checkpoint_of(call.folder, call.nested_home, run.name), embeddings_of(call.folder, run.name)
        )
        call.outcome.done.append(run.name)
        return
    print_progress(f"training {run.name}: {run.config.optimisation.steps:,} steps, about {seconds:.0f} s")
    stop_at = min(
        call.clock.train_until - _overhead_s(call, run.experiment.stage), began + _OVERRUN * seconds + _STARTUP_S
    )
    checkpoint = _train(call, run, needs, stop_at)
    trained = time.monotonic()
    encoded = _encode(call, run, checkpoint, needs)
    timing = Timing(trained - began, time.monotonic() - trained)
    call.trained[run.name] = _Trained(task, checkpoint, encoded.embeddings)
    arguments = (call.folder, task, call.nested_home, checkpoint, encoded, timing, call.cohort_key)
    call.evaluations[run.name] = submit(call.pool, evaluate_run, *arguments, call.preset.label_fractions)
    _keep(call, run, checkpoint)
    metrics = read_metrics(checkpoint)
    call.plan.speed[run.experiment.stage] = metrics["segments_per_s"]
    call.plan.save()
    call.facts["stages"].append(
        {
            "run": run.name,
            "planned_s": seconds,
            **asdict(timing),
            **{name: metrics.get(name) for name in ("steps", "segments_per_s", "mfu", "notes")},
        }
    )
    call.overhead_s[run.experiment.stage] = time.monotonic() - trained
    notes = f" ({metrics['notes']})" if metrics["notes"] else ""
    print_progress(
        f"trained {run.name}: {metrics['steps']:,} steps in {timing.training_s:.0f} s, "
        f"{metrics['segments_per_s']:,.0f} segments/s, loss {metrics['loss']:.3f}{notes}"
    )


def _train(call: _Call, run: Run, needs: Mapping[str, _Trained], stop_at: float) -> Path:
    return train_encoder(
        call.cohort.store,
        _rows(call, run),
        run.config,
        call.nested_home.root / "checkpoints" / run.experiment.name,
        name=run.experiment.name,
        data_version=call.cohort.versions.data,
        split_version=call.cohort.versions.split,
        teacher=_teacher(run, needs),
        resident=call.resident,
        stop_at=stop_at,
    )


def _speed(call: _Call, run: Run, needs: Mapping[str, _Trained]) -> float:
    """Measured training speed in segments per second."""
    measured = measure_speed(
        call.cohort.store,
        _rows(call, run),
        run.config,
        teacher=_teacher(run, needs),
        resident=call.resident,
        steps=3 if call.resident is None else 20,
    )
    return measured.segments_per_s


def _rows(call: _Call, run: Run) -> npt.NDArray[np.intp]:
    """Rows of the store to train on: all of the training side, or for a supervised encoder those that probes use."""
    return training_rows(run, call.embedded if isinstance(run.config, SupervisedConfig) else call.cohort)


def _teacher(run: Run, needs: Mapping[str, _Trained]) -> Path | None:
    return None if run.experiment.teacher is None else needs[run.experiment.teacher].checkpoint


def _encode(call: _Call, run: Run, checkpoint: Path, needs: Mapping[str, _Trained]) -> Encoded:
    partners = {name: parent.embeddings for name, parent in needs.items()}
    return encode(run, call.embedded, checkpoint, partners, call.preset.pools, resident=call.resident)


def _keep(call: _Call, run: Run, checkpoint: Path) -> None:
    """Export the weights of an encoder that the time plan keeps, if they are not too large."""
    if run.experiment.name in call.time_plan.kept and run.seed == call.preset.seeds[0]:
        target = call.out / f"{run.name}.safetensors"
        export_weights(checkpoint, target)
        if target.stat().st_size > MAX_FILE_BYTES:
            print_progress(f"the weights of {run.name} take more than {MAX_FILE_BYTES:,} bytes and are left out")
            target.unlink()


def _device_is_lost() -> bool:
    """Whether the GPU reports a sticky error: an illegal access, a failed assertion in a kernel."""
    if not torch.cuda.is_available():
        return False
    try:
        torch.cuda.synchronize()
    except RuntimeError:
        return True
    return False


def _failed(call: _Call, name: str, reason: str) -> None:
    """Report and record that a run failed."""
    log = error_log(call.folder, name)
    write_text(log, reason.strip() + "\n")
    call.outcome.failed[name] = reason.strip().splitlines()[-1]
    print_progress(f"FAILED {name}: {call.outcome.failed[name]} (more in {log})")


def _collect(call: _Call) -> None:
    """Record the evaluations that have finished, and update the result files if there are new results."""
    for name, future in list(call.evaluations.items()):
        if not future.done():
            continue
        del call.evaluations[name]
        try:
            print_progress(f"evaluated {name}: {future.result()}")
        except BrokenExecutor as error:
            print_progress(f"the evaluation of {name} died and is left for the next call: {error}")
            call.outcome.remaining.append(name)
        except Exception as error:
            _failed(call, name, "".join(traceback.format_exception(error)))
        else:
            call.outcome.done.append(name)
            error_log(call.folder, name).unlink(missing_ok=True)
            if call.packing is None or call.packing.done():
                arguments = (call.folder, call.out, call.preset, call.cohort_key, _runs(call), _facts(call))
                call.packing = submit(call.pool, write_results_in_worker, *arguments)


def _await_evaluations(call: _Call) -> None:
    """Wait for evaluations until the time for them ends; unfinished ones are left for the next call."""
    _collect(call)
    while call.evaluations and time.monotonic() < call.clock.evaluate_until:
        time.sleep(0.05)
        _collect(call)
    call.outcome.remaining += list(call.evaluations)
    call.evaluations.clear()
    if call.packing is not None and not call.packing.cancel():  # else two processes would write the same files
        wait([call.packing], timeout=max(0.0, call.clock.finish_until - time.monotonic()))


def _facts(call: _Call) -> dict[str, Any]:
    return call.facts | _state(call.outcome) | {"steps": dict(call.plan.steps)}


def _runs(call: _Call) -> list[Run]:
    """The finished runs in the order of the time plan."""
    runs = {name: trained.task.run for name, trained in call.trained.items()}
    return [runs[run.name] for run in call.preset.timed_runs() if run.name in call.outcome.done]


def _state(outcome: Outcome) -> dict[str, Any]:
    return {
        "runs_done": list(outcome.done),
        "runs_failed": dict(outcome.failed),
        "runs_left": list(dict.fromkeys(outcome.remaining)),
    }


def _report(folder: Path, out: Path, finish_until: float) -> Path:
    """Write the report and copy it to `out`; if the time ends before, `out` gets a note that says how to make it."""
    document = out / DOCUMENT
    try:
        with time_limit(max(1.0, finish_until - time.monotonic())):
            shutil.copyfile(write_reproduction(folder, figures=False), document)
    except TimeoutError:
        print_progress("the time ended before the report was written")
        write_text(document, f"The time ended before this report was written: `{MERGE_COMMAND}` makes it.\n")
    return document
