"""Hours of deliveries, corrections, withdrawals, promotions and kills at random: `python -m tests.reliability.soak`.

A home lives under Dagster's daemon, as `make ui` starts it. In each round batches land and are corrected, odd entries
litter the landing zone, and at random moments the process of a run, the daemon, or all of them are killed. Then the
home has to become quiet by itself, somebody withdraws or other encoders are promoted or rolled back (killed, too, and
repeated), and it has to become quiet again. After each round it must equal, row by row and byte by byte, a home to
which the same happened in order and undisturbed; every failure on record must have its explanation. The seed draws
everything but the speed of the machine.

Only the split is taken over from the disturbed home: who lands together with whom depends on the moment, and decides
who is assigned to which side. That nobody is ever moved is tested on its own.
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
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import dagster as dg
import pyarrow.compute as pc
import pyarrow.parquet as pq

from accelkd.cohort.split import read_split
from accelkd.home.layout import Home
from accelkd.recordings.batches import read_manifest, writing_batch
from accelkd.recordings.simulator import simulate_batch
from accelkd.registry.history import history
from orchestration.catch_up_lock import CATCH_UP
from orchestration.definitions import build_defs
from orchestration.freshness import Freshness
from orchestration.statuses import UNFINISHED
from tests.support import REPOSITORY
from tests.support.comparison import contents, differences
from tests.support.homes import new_home
from tests.support.pipeline import opened_instance
from tests.support.processes import environment, settle, wait_until

QUIET_LIMIT_S = 1800
UNSEARCHED = "NOT SEARCHED: landing/odd-"  # of a withdrawal
# What a killed process leaves on record
OF_KILLS = (
    "its process was killed",
    "the catch-up that it was part of is gone",
    "no code server is on record",
    "the code server that started this run is gone",
    "no longer runs this run's process",
    "terminated by signal 9",
    "seconds to start",
)


@dataclass
class Daemon:
    """Dagster's daemon with its code server and runs, in a process group of its own."""

    home: Home
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self.home.root / "daemon.log").open("ab") as log:
            self.process = subprocess.Popen(
                [Path(sys.executable).with_name("dagster-daemon"), "run", "--workspace", "workspace.yaml"],
                cwd=REPOSITORY,
                env=environment(self.home),
                start_new_session=True,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def kill(self, *, everything: bool) -> None:
        """Kill the daemon, or all that it has started too."""
        assert self.process is not None
        if everything:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.kill()
        self.process.wait()


@dataclass
class Soak:
    """Both homes, what has happened to them, and what was not as it must be."""

    scratch: Path
    draw: random.Random
    disturbed: Home
    undisturbed: Home
    daemon: Daemon
    batches: list[str] = field(default_factory=list)  # present in both, not superseded
    landed: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    seen_runs: set[str] = field(default_factory=set)
    sides: dict[str, str] = field(default_factory=dict)  # of the split, by participant

    def count(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1
        print(f"  {time.strftime('%H:%M:%S')}  {what}", flush=True)

    # What lands

    def deliver(self, *, corrects: str | None = None) -> None:
        """Land a batch of new participants, or a correction of an earlier one with one of them less; in both homes."""
        self.landed += 1
        batch_id = f"batch-{self.landed:03d}"
        landing = self.scratch / "deliveries"
        if corrects is None:
            people = self.draw.randrange(3, 9)
            simulate_batch(landing, batch_id, participants=people, segments=4, seed=1000 + self.landed, profile="easy")
        else:
            correct(self.disturbed.batch(corrects), landing, batch_id)
            self.batches.remove(corrects)
        for home in (self.disturbed, self.undisturbed):
            home.landing.mkdir(exist_ok=True)
            part = home.landing / f".{batch_id}"
            shutil.copytree(landing / batch_id, part)
            part.rename(home.landing / batch_id)
        self.batches.append(batch_id)
        self.count("delivery" if corrects is None else "correction")

    def litter(self) -> None:
        """Something odd in the landing zone of the disturbed home; it stays there until the end of the round."""
        folder = self.disturbed.landing / f"odd-{self.landed}-{self.draw.randrange(1000)}"
        folder.mkdir()
        kind = self.draw.choice(["fifo", "json", "link", "list", "directory"])
        manifest = folder / "manifest.json"
        if kind == "fifo":
            os.mkfifo(manifest)
        elif kind == "json":
            manifest.write_text("[" * 100_000)
        elif kind == "link":
            (folder / "recordings").symlink_to("/nowhere")
        elif kind == "list":
            manifest.write_text("[1, 2]")
        else:
            manifest.mkdir()
        self.count(f"odd entry ({kind})")

    # What dies

    def kill(self) -> None:
        """Kill the process of a run, the daemon or everything, and start again what nobody else would."""
        kind = self.draw.choice(["run", "daemon", "everything"])
        if kind == "run":
            for pid in run_processes(self.disturbed):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    self.count("kill of a run")
            return
        self.daemon.kill(everything=kind == "everything")
        self.count(f"kill of {'the daemon' if kind == 'daemon' else kind}")
        time.sleep(self.draw.uniform(0, 5))
        self.daemon.start()

    # What people do

    def command(self, *arguments: str, kill: bool) -> None:
        """Run `accelkd` in the disturbed home, perhaps killed at random and then repeated; then in the other one."""
        program = [sys.executable, "-m", "accelkd.cli", *arguments]
        if kill:
            with subprocess.Popen(
                program,
                cwd=REPOSITORY,
                env=environment(self.disturbed),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            ) as process:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(self.draw.uniform(0.5, 6))
                process.kill()
            self.count(f"kill of accelkd {arguments[0]}")
        begun = arguments[0] == "withdraw" and (self.disturbed.root / "withdrawal.json").exists()
        log = run_to_its_end([*program[:3], "withdraw"] if begun else program, self.disturbed, unfinished=UNSEARCHED)
        if UNSEARCHED in log:  # as it asks: remove what it cannot search, and finish
            self.tidy()
            run_to_its_end([*program[:3], "withdraw"], self.disturbed)
            self.count("withdrawal finished after an odd entry was removed")
        run_to_its_end(program, self.undisturbed)

    def act(self) -> None:
        """A withdrawal, a promotion or a rollback, in both homes."""
        kind = self.draw.choice(["withdrawal", "promotion", "rollback", "nothing"])
        kill = self.draw.random() < 0.5
        if kind == "withdrawal":
            participant = self.draw.choice(sorted(self.sides))
            self.daemon.kill(everything=True)  # it is refused while runs are in progress
            self.command("withdraw", participant, kill=kill)
            del self.sides[participant]
            self.daemon.start()
        elif kind == "promotion":
            self.command("train", kill=kill)
            self.command("promote", "--force", "soak", kill=False)
        elif kind == "rollback" and len({tuple(entry.models.values()) for entry in history(self.disturbed)}) > 1:
            self.command("rollback", kill=False)
        self.count(kind)

    # What must hold

    def wait_until_quiet(self) -> None:
        """Until the daemon has nothing left to do."""
        with opened_instance(self.disturbed) as instance:
            defs = build_defs(self.disturbed)
            graph = defs.resolve_asset_graph()

            def quiet() -> bool:
                if instance.get_runs(dg.RunsFilter(statuses=UNFINISHED), limit=1):
                    return False
                known = instance.get_dynamic_partitions("arrival_batch")
                if not set(self.batches) <= set(known):
                    return False
                freshness = Freshness(self.disturbed, instance, graph)
                return next(freshness.stale_or_missing(sorted(set(self.batches)), retrain=False), None) is None

            wait_until(quiet, every_s=3, limit_s=QUIET_LIMIT_S)

    def catch_up_undisturbed(self) -> None:
        for name in ("split.parquet", "split.copy.parquet"):
            if (self.disturbed.root / "cohort" / name).exists():
                shutil.copyfile(self.disturbed.root / "cohort" / name, self.undisturbed.root / "cohort" / name)
        command = [sys.executable, "-m", "orchestration.catch_up", "--keep-encoders"]
        subprocess.run(
            command, cwd=REPOSITORY, env=environment(self.undisturbed), check=True, stdout=subprocess.DEVNULL
        )

    def compare(self) -> None:
        self.wrong += differences(contents(self.undisturbed), contents(self.disturbed))
        ledger = read_split(self.disturbed.split)
        sides = dict(zip(ledger.column("participant_id").to_pylist(), ledger.column("split").to_pylist(), strict=True))
        # Whoever is in no batch any more may leave
        present = {name for batch_id in self.batches for name in participants(self.disturbed.batch(batch_id))}
        moved = [
            name for name, side in self.sides.items() if sides.get(name, "gone" if name in present else side) != side
        ]
        self.wrong += [f"moved in the split, or gone from it: {name}" for name in moved]
        self.sides = sides
        self.wrong += self.unexplained()

    def unexplained(self) -> Iterator[str]:
        """Failures on record, since the last look, that neither a kill nor an odd entry explains."""
        killed = any("kill" in what for what in self.counts)
        with opened_instance(self.disturbed) as instance:
            for run in instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE])):
                if run.run_id in self.seen_runs:
                    continue
                self.seen_runs.add(run.run_id)
                messages = list(failures(instance, run.run_id))
                batch_id = run.tags.get("dagster/partition", "")
                if batch_id.startswith("odd-") and any(f"batch {batch_id} cannot be used" in text for text in messages):
                    continue
                if not (killed and any(text in message for message in messages for text in OF_KILLS)):
                    part_of = run.tags.get(CATCH_UP, "")
                    yield f"run {run.run_id} {run.job_name} {batch_id} {part_of}: {' | '.join(messages)[:1000]}"

    def tidy(self) -> None:
        for folder in self.disturbed.landing.glob("odd-*"):
            shutil.rmtree(folder)

    def round(self) -> None:
        before = list(self.batches)
        for _ in range(self.draw.randrange(3, 7)):
            what = self.draw.choices(["delivery", "correction", "litter", "kill"], [4, 2, 1, 3])[0]
            if what == "delivery":
                self.deliver()
            elif what == "correction" and len(before) > 1:
                self.deliver(corrects=before.pop(self.draw.randrange(1, len(before))))
            elif what == "litter":
                self.litter()
            else:
                self.kill()
            time.sleep(self.draw.uniform(0, 20))
        self.wait_until_quiet()
        self.catch_up_undisturbed()
        self.act()
        self.wait_until_quiet()
        self.catch_up_undisturbed()
        self.compare()
        self.tidy()


def correct(original: Path, landing: Path, batch_id: str) -> None:
    """Write a batch that replaces another: the same without its last participant."""
    manifest = read_manifest(original)
    people = participants(original)
    with writing_batch(landing, batch_id, source=manifest.source, replaces=original.name) as batch:
        for entry in manifest.files:
            table = pq.read_table(original / entry.path)
            if len(people) > 1:
                table = table.filter(pc.not_equal(table.column("participant_id"), people[-1]))
            batch.add(entry.table, table)


def participants(batch: Path) -> list[str]:
    """Who a batch is of, in its order."""
    table = pq.read_table(batch / "participants.parquet", columns=["participant_id"])
    return [str(name) for name in table.column("participant_id").to_pylist()]


def failures(instance: dg.DagsterInstance, run_id: str) -> Iterator[str]:
    """What a run says of its failure, of those of its steps, and of its process."""
    for record in instance.all_logs(run_id):
        event = record.dagster_event
        if event is not None and (event.is_failure or event.is_engine_event):
            yield record.message
            if event.is_step_failure:
                data = event.step_failure_data
                yield (data.user_failure_data and data.user_failure_data.description) or str(data.error)


def run_processes(home: Home) -> list[int]:
    """The processes of the runs in progress."""
    pids = []
    with opened_instance(home) as instance:
        for run in instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED])):
            for record in instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ENGINE_EVENT):
                if "Started process for run (pid: " in record.message:
                    pids.append(int(record.message.rpartition("(pid: ")[2].split(")")[0]))
    return pids


def run_to_its_end(program: list[str], home: Home, *, unfinished: str | None = None) -> str:
    """Run a command, again while it is refused because runs are in progress; returns what it printed.

    Raises RuntimeError if it fails, unless it printed `unfinished`.
    """
    deadline = time.monotonic() + QUIET_LIMIT_S
    while True:
        done = subprocess.run(
            program, cwd=REPOSITORY, env=environment(home), capture_output=True, text=True, check=False
        )
        printed = done.stdout + done.stderr
        if done.returncode == 0 or (unfinished and unfinished in printed):
            return printed
        if "runs are in progress" not in printed or time.monotonic() > deadline:
            raise RuntimeError(f"{' '.join(program[2:])} ended with {done.returncode}: {printed}")
        time.sleep(2)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.reliability.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=120)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="leave the homes in this folder")
    arguments = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        scratch = arguments.keep or Path(folder)
        scratch.mkdir(exist_ok=True)
        homes = [new_home(scratch / name) for name in ("disturbed", "undisturbed")]
        soak = Soak(scratch, random.Random(arguments.seed), homes[0], homes[1], Daemon(homes[0]))
        for _ in range(2):
            soak.deliver()
        for home in homes:
            settle(home)
        soak.daemon.start()
        rounds = 0
        try:
            while time.monotonic() - started < 60 * arguments.minutes and not soak.wrong:
                rounds += 1
                print(f"round {rounds}", flush=True)
                soak.round()
        finally:
            soak.daemon.kill(everything=True)
        tables = contents(soak.disturbed)
    print(json.dumps(soak.counts, indent=2))
    minutes = (time.monotonic() - started) / 60
    print(
        f"{rounds} rounds in {minutes:.0f} minutes; {len(tables)} things compared after each, {len(soak.wrong)} differ"
    )
    print("\n".join(soak.wrong))
    return 1 if soak.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
