"""Parts of a cluster die in the middle of a catch-up: `python -m tests.support.cluster_faults --seeds 30`.

A home lives on PostgreSQL, an S3 server and two Ray nodes, of which the worker alone has cores for runs. For each seed
a batch lands, and a catch-up begins in a process of its own. Up to five seconds after the first, second or third of its
runs on the worker has started, or after the last of them has ended, a part is killed by SIGKILL: the raylet of the
worker or of the head, all of the head's node, the process of a run, the catch-up, the S3 server, PostgreSQL. Nodes and
servers come back after a second or two. Then the catch-up is started again, as Dagster's daemon would, until one ends
well, and everything is compared:

- Each file that an index of the store names is there, with its hash, and as it is on the head.
- The published file holds every batch and segment once, and what one machine publishes that nothing happened to; so do
  the data versions of all assets.
- A run that counts as failed stays so, and has reported and written nothing since.

At the end of each home somebody withdraws, and the store's objects and the worker's cache are searched for them. The
seeds take the parts in turn, and draw everything else but the speed of the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import dagster as dg
import duckdb
import pyarrow.parquet as pq

from accelkd.home.layout import Home
from accelkd.home.settings import Settings
from accelkd.home.store import open_store
from accelkd.home.units import Unit, pull, stored_units
from accelkd.operations.remnants import find_remnants
from accelkd.operations.share import refresh_worker
from accelkd.operations.withdraw import withdraw
from accelkd.segments.store import SegmentStore
from orchestration.elsewhere import FILES_ALONE
from tests.support import REPOSITORY
from tests.support.cluster_home import ClusterHome, cluster_home, data_versions, published_contents
from tests.support.homes import adopt_pair, new_home, simulate
from tests.support.pipeline import opened_instance
from tests.support.processes import wait_until
from tests.support.services import Postgres, S3Server, postgres, s3_server

CATCH_UP = [sys.executable, "-m", "orchestration.catch_up", "--keep-encoders"]
CPUS = (0, 1)  # of the nodes: every run on them is the worker's
LIMIT_S = 300  # of one catch-up: by itself it takes a tenth
MAX_CATCH_UPS = 5
KINDS = ("worker raylet", "head raylet", "head node", "run", "catch-up", "S3 server", "PostgreSQL")
ON_NODES = KINDS[:4]  # which do nothing after the last run on the nodes
STAGES = ("raw_recordings", "segments", "embedding files", "loading, reports, publication")
# What a run reports of what it has done
REPORTS = {
    dg.DagsterEventType.ASSET_MATERIALIZATION,
    dg.DagsterEventType.STEP_SUCCESS,
    dg.DagsterEventType.RUN_SUCCESS,
}


@dataclass
class Round:
    """What happened for a seed."""

    seed: int
    killed: str
    during: str  # stage, and which steps were going on
    ends: list[str] = field(default_factory=list)  # of each catch-up
    whole_after_s: float = 0.0  # since the kill
    wrong: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        wrong = "; ".join(self.wrong) or "none"
        cells = (self.seed, self.killed, self.during, " → ".join(self.ends), f"{self.whole_after_s:.0f}", wrong)
        return f"| {' | '.join(map(str, cells))} |"


@dataclass
class Faults:
    """A home on a cluster, and one of this machine alone in which the same arrives."""

    cluster: ClusterHome
    undisturbed: Home
    scratch: Path
    landed: list[str] = field(default_factory=list)

    @property
    def home(self) -> Home:
        return self.cluster.home

    @property
    def worker(self) -> Home:
        """The home as the second node has it: a cache."""
        return Home(self.cluster.cluster.nodes[1].folder / "cache", store=self.home.store, locks=self.home.locks)

    def deliver(self) -> None:
        """Land a batch of three new participants, in both homes."""
        number = len(self.landed)
        batch_id = f"b{number:03d}"
        simulate(self.undisturbed, batch_id, 3 * number, participants=3, segments=3, seed=7)
        part = self.home.landing / f".{batch_id}"
        shutil.copytree(self.undisturbed.batch(batch_id), part)
        part.rename(self.home.batch(batch_id))
        self.landed.append(batch_id)

    def start(self, log: Path) -> subprocess.Popen[bytes]:
        """Begin a catch-up."""
        with log.open("wb") as output:
            return subprocess.Popen(
                CATCH_UP,
                cwd=REPOSITORY,
                env=os.environ | dict(self.cluster.environment),
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def settle(self) -> list[str]:
        """Catch up until a catch-up ends well; returns how each ended. Raises RuntimeError if none does."""
        ends = []
        for _ in range(MAX_CATCH_UPS):
            log = self.scratch / "log"
            with self.start(log) as process:
                ends.append(end_of(process, log))
            if ends[-1] == "done":
                return ends
        raise RuntimeError(f"it does not recover: {' → '.join(ends)}\n{log.read_text()}")

    def round(self, seed: int, *, kind: str | None = None, stage: int | None = None) -> Round:
        """Land, catch up, kill, catch up until it ends well, compare."""
        draw = random.Random(seed)
        kind = kind or KINDS[seed % len(KINDS)]
        drawn = draw.randrange(3 if kind in ON_NODES else 4)
        stage = drawn if stage is None else stage
        delay_s, away_s = draw.uniform(0, 5), draw.uniform(1, 2)
        self.deliver()
        log = self.scratch / "log"
        with self.start(log) as process:
            with opened_instance(self.home) as instance:
                before = {run.run_id for run in instance.get_runs()}
                wait_until(
                    lambda: process.poll() is not None or has_reached(instance, before, stage),
                    every_s=0.2,
                    limit_s=LIMIT_S,
                )
                time.sleep(delay_s)
                if kind == "run":
                    wait_until(lambda: process.poll() is not None or self.cluster.cluster.drivers(), limit_s=LIMIT_S)
                last = (log.read_text(encoding="utf-8").splitlines() or ["nothing"])[-1].split()
                result = Round(seed, kind, f"{delay_s:.1f} s into {STAGES[stage]}, after {' '.join(last[:2])}")
            killed_at = time.monotonic()
            self.kill(kind, process, away_s, draw)
            result.ends.append(end_of(process, log))
        try:
            if result.ends != ["done"]:
                result.ends += self.settle()
        except RuntimeError as error:
            result.wrong.append(str(error)[-3000:])
            return result
        result.whole_after_s = time.monotonic() - killed_at
        result.wrong += self.differences()
        return result

    def kill(self, kind: str, process: subprocess.Popen[bytes], away_s: float, draw: random.Random) -> None:
        """Kill a part, and start it again if nobody else does."""
        nodes = self.cluster.cluster
        if kind == "catch-up":
            process.kill()
        elif kind == "run":
            for pid in draw.sample(sorted(nodes.drivers()), 1) if nodes.drivers() else ():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        elif kind in ("S3 server", "PostgreSQL"):
            service: S3Server | Postgres = self.cluster.s3 if kind == "S3 server" else self.cluster.postgres
            service.kill()
            time.sleep(away_s)
            service.start()
        elif kind == "head node":
            nodes.kill_node(0)
            time.sleep(away_s)
            nodes.restart_node(0)
        else:
            number = 0 if kind == "head raylet" else 1
            nodes.nodes[number].kill_raylet()
            time.sleep(away_s)
            nodes.restart_node(number)

    # What must hold

    def differences(self) -> list[str]:
        """What is not as it must be, one line each."""
        for name in ("split.parquet", "split.copy.parquet"):  # who is assigned with whom depends on the moment
            if (self.undisturbed.root / "cohort" / name).exists():
                shutil.copyfile(self.home.root / "cohort" / name, self.undisturbed.root / "cohort" / name)
        variables = {name: value for name, value in os.environ.items() if not name.startswith("ACCELKD_")}
        variables |= {
            "ACCELKD_HOME": str(self.undisturbed.root),
            "DAGSTER_HOME": str(self.undisturbed.root / "dagster"),
        }
        subprocess.run(CATCH_UP, cwd=REPOSITORY, env=variables, check=True, capture_output=True)
        with opened_instance(self.undisturbed) as instance:
            expected = {**data_versions(instance), **published_contents(self.undisturbed)}
        with opened_instance(self.home) as instance:
            made = {**data_versions(instance), **published_contents(self.home)}
            wrong = self.written_by_the_dead(instance)
        wrong += [
            f"{name}: {expected.get(name, 'absent')} expected, {made.get(name, 'absent')} made"
            for name in sorted(expected.keys() | made.keys())
            if expected.get(name) != made.get(name)
        ]
        return wrong + self.not_whole() + self.doubled()

    def not_whole(self) -> list[str]:
        """Units of the store that lack, and files that are not as the head has them."""
        wrong = []
        units = stored_units(self.home)
        expected = {f"{kind}/{batch_id}" for kind in ("landing", "segments") for batch_id in self.landed}
        wrong += [f"no unit {name}" for name in sorted(expected - units.keys())]
        with tempfile.TemporaryDirectory() as folder:
            copy = Home(Path(folder) / "copy", store=self.home.store)
            for name, files in units.items():
                try:
                    pull(copy, Unit(name, tuple(files)))
                except Exception as error:
                    wrong.append(f"unit {name}: {error!r}")
                    continue
                for path in files:
                    if (copy.root / path).read_bytes() != (self.home.root / path).read_bytes():
                        wrong.append(f"{path} is another on the head")
        return wrong

    def doubled(self) -> list[str]:
        """What the published file holds twice, or not at all."""
        with duckdb.connect(str(self.home.published), read_only=True) as connection:
            batches = connection.execute("SELECT batch_id FROM batches ORDER BY ALL").fetchall()
            segments, distinct = connection.execute(
                "SELECT count(*), count(DISTINCT segment_id) FROM segments"
            ).fetchall()[0]
        wrong = [] if [name for (name,) in batches] == self.landed else [f"published batches: {batches}"]
        stored = sum(SegmentStore([self.home.segments(batch_id)]).metadata.num_rows for batch_id in self.landed)
        if not segments == distinct == stored:
            wrong.append(f"{stored} segments; {segments} published, {distinct} distinct")
        return wrong

    def written_by_the_dead(self, instance: dg.DagsterInstance) -> list[str]:
        """What runs have reported or written after they counted as failed."""
        wrong = []
        store = open_store(str(self.home.store))
        written = {}
        for entry in store.list("index"):
            written[entry.key] = (json.loads(store.get(entry.key)[0])["written_by"], entry.modified)
        for record in instance.get_run_records(dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE])):
            run_id = record.dagster_run.run_id
            failed = False
            for logged in instance.all_logs(run_id):
                event = logged.dagster_event
                if event is None:
                    continue
                if failed and event.event_type in REPORTS:
                    wrong.append(f"{run_id} has reported after its failure: {logged.message}")
                failed = failed or event.event_type is dg.DagsterEventType.RUN_FAILURE
            wrong += [
                f"{run_id} has written {key} after its failure"
                for key, (owner, at) in written.items()
                if owner == run_id and at > (record.end_time or 0) + 2
            ]
        return wrong

    def withdraw(self) -> tuple[int, list[str]]:
        """Withdraw the first participant of the first batch.

        Returns in how many places of the worker's cache they were, and what is left of them anywhere.
        """
        table = pq.read_table(self.home.batch(self.landed[0]) / "participants.parquet", columns=["participant_id"])
        participant = str(table.column("participant_id").to_pylist()[0])
        metadata = SegmentStore([self.home.segments(self.landed[0])]).metadata.to_pylist()
        own = [row for row in metadata if row["participant_id"] == participant]
        names = {participant, *(row["segment_id"] for row in own), *(row["recording_id"] for row in own)}
        before = find_remnants(self.worker.root, names, []).lines
        wait_until(lambda: not self.cluster.cluster.drivers(), limit_s=LIMIT_S)  # orphans, which hold the home's lock
        result = withdraw(self.home, participant)
        refresh_worker(self.worker)
        wrong = [] if result.finished else [str(result)]
        with tempfile.TemporaryDirectory() as folder:
            fetched = Path(folder)
            store = open_store(str(self.home.store))
            for number, entry in enumerate(store.list()):
                suffix = "".join(Path(entry.key.removesuffix(".json")).parts[-2:-1])
                (fetched / f"{number}-{suffix}").write_bytes(store.get(entry.key)[0])
            for place, root in (("store", fetched), ("cache", self.worker.root), ("head", self.home.root)):
                remnants = find_remnants(root, names, [])
                wrong += [f"{place}: {line}" for line in remnants.lines]
                wrong += [f"{place} not searched: {path} {why}" for path, why in remnants.not_searched.items()]
        return len(before), wrong


def has_reached(instance: dg.DagsterInstance, before: Collection[str], stage: int) -> bool:
    """Whether a new run of a stage is in progress on the worker; of the last stage, whether no other is left."""
    runs = [run for run in instance.get_runs(dg.RunsFilter(tags={FILES_ALONE: "true"})) if run.run_id not in before]
    of_stage = [run for run in runs if stage_of(run) == min(stage, 2)]
    return bool(of_stage) and all(run.is_finished is (stage == 3) for run in of_stage)


def stage_of(run: dg.DagsterRun) -> int:
    """Which of STAGES a run on the worker is of."""
    steps = set(run.step_keys_to_execute or ())
    return 0 if "raw_recordings" in steps else 1 if "segments" in steps else 2


def end_of(process: subprocess.Popen[bytes], log: Path) -> str:
    """How a catch-up ended: `done`, or what it said last."""
    try:
        status = process.wait(LIMIT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        return f"HANGS: {log.read_text(errors='replace')[-300:]}"
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    failed = [line for line in lines if "FAILED" in line]
    if status == 0:
        return "done"
    return "killed" if status == -signal.SIGKILL else f"{status}: {(failed or lines or [''])[-1].strip()[:200]}"


def prepared(cluster: ClusterHome, scratch: Path) -> Faults:
    """A home with a batch and an adopted pair, caught up, and the same on one machine.

    Raises RuntimeError if they differ.
    """
    undisturbed = new_home(scratch / "alone")
    faults = Faults(cluster, undisturbed, scratch)
    Settings(preset="smoke").save(cluster.home)
    cluster.home.landing.mkdir(parents=True, exist_ok=True)
    for home in (undisturbed, cluster.home):
        adopt_pair(home, Home(scratch / f"for-{home.root.name}" / "pair"))
    faults.deliver()
    faults.settle()
    if wrong := faults.differences():  # before anything was killed
        raise RuntimeError("\n".join(wrong))
    return faults


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.support.cluster_faults", description=__doc__)
    parser.add_argument("--seeds", type=int, default=30)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--each", type=int, default=10, help="seeds per home")
    parser.add_argument("--kind", choices=KINDS)
    parser.add_argument("--stage", type=int)
    arguments = parser.parse_args()
    seeds, rounds, wrong = list(range(arguments.first, arguments.first + arguments.seeds)), [], []
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that all that was started ends, too
    with postgres() as database, s3_server() as bucket:
        for start in range(0, len(seeds), arguments.each):
            with tempfile.TemporaryDirectory() as folder:
                scratch = Path(folder)
                with cluster_home(scratch / "home", database, bucket, cpus=CPUS) as cluster:
                    started = time.monotonic()
                    faults = prepared(cluster, scratch)
                    print(f"prepared in {time.monotonic() - started:.0f} s", flush=True)
                    for seed in seeds[start : start + arguments.each]:
                        rounds.append(faults.round(seed, kind=arguments.kind, stage=arguments.stage))
                        print(rounds[-1], flush=True)
                    places, left = faults.withdraw()
                    print(f"withdrawal: in {places} places of the worker's cache before, left: {left}", flush=True)
                    wrong += left
    return 1 if wrong or any(round_.wrong for round_ in rounds) else 0


if __name__ == "__main__":
    sys.exit(main())
