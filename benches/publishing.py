"""From landing to published, under Dagster's daemon: `python benches/publishing.py`.

A home with a trained and promoted pair of encoders, and the daemon as `make ui` starts it. Timed, as wall-clock time,
is how long analysts wait until the published file holds all of it: after a batch of 24 participants has landed, after
20 small batches have landed at once, and after another pair was promoted over all that are there.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import dagster as dg
import duckdb

from accelkd.home.layout import Home
from accelkd.home.settings import Settings
from accelkd.models.specs import ENCODERS
from accelkd.operations.train import load_candidate, train_candidate
from accelkd.recordings.simulator import simulate_batch
from accelkd.registry.history import decide, promoted_models
from orchestration.catch_up import catch_up

REPOSITORY = Path(__file__).parents[1]
PARTICIPANTS, SMALL = 24, 6  # of the one batch, and of each of the small ones
LIMIT_S = 1800


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, default=20, help="small batches that land at once")
    parser.add_argument("--promoted-over", type=int, default=28, help="batches that another pair is promoted over")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = prepare(Path(folder))
        with daemon(home):
            time.sleep(60)  # the daemon's first ticks, and whatever it has to do
            print("| what | until it is published (s) |\n|---|---|", flush=True)
            show("one batch of 24 participants", land(home, {"one": PARTICIPANTS}))
            small = {f"small-{number:02d}": SMALL for number in range(arguments.batches)}
            show(f"{len(small)} batches of {SMALL} at once", land(home, small))
            missing = arguments.promoted_over - len(published_batches(home))
            land(home, {f"more-{number:02d}": SMALL for number in range(missing)})
            show(f"another pair promoted over {arguments.promoted_over} batches", promote_another(home))


def show(what: str, seconds: float) -> None:
    print(f"| {what} | {seconds:.0f} |", flush=True)


def prepare(root: Path) -> Home:
    """A home with one batch, and a pair of encoders promoted; published."""
    home = Home(root)
    (root / "dagster").mkdir()
    shutil.copy(REPOSITORY / "dagster.yaml", root / "dagster")
    Settings(preset="smoke").save(home)
    simulate(home, {"first": PARTICIPANTS})
    with dg.DagsterInstance.from_config(str(root / "dagster")) as instance:
        catch_up(home, instance)
    return home


def simulate(home: Home, batches: Mapping[str, int]) -> None:
    """Land simulated batches, each of so many participants of its own, four minutes each."""
    for batch_id, participants in batches.items():
        cohort = int(hashlib.sha256(batch_id.encode()).hexdigest()[:6], 16)  # so that no two share participants
        simulate_batch(home.landing, batch_id, participants=participants, segments=4, seed=cohort, profile="easy")


def land(home: Home, batches: Mapping[str, int]) -> float:
    """Seconds until batches are published, with the embeddings of every encoder."""
    outside = home.root / ".deliveries"
    simulate(Home(outside), batches)
    for folder in sorted((outside / "landing").iterdir()):
        folder.rename(home.landing / folder.name)
    started = time.monotonic()
    wait_until(lambda: set(batches) <= published_batches(home))
    return time.monotonic() - started


def promote_another(home: Home) -> float:
    """Seconds until the published file holds the embeddings of another pair, of all batches."""
    models = {}
    for spec in ENCODERS:
        models[spec.name] = train_candidate(home, spec.name, seed=1).folder.name
        load_candidate(home, spec.name)
    started = time.monotonic()
    decide(home, "promoted", models, "a benchmark")
    assert promoted_models(home) == models
    wait_until(lambda: published_models(home) == models)
    return time.monotonic() - started


def published_models(home: Home) -> dict[str, str]:
    """The model of each table of embeddings in the published file, and of the probes on it."""
    with duckdb.connect(str(home.published), read_only=True) as connection:
        query = (
            "SELECT DISTINCT e.model_id FROM embeddings.{0} e "
            "JOIN probe_results p ON encoder = '{0}' AND p.model_id = e.model_id"
        )
        rows = {spec.name: connection.execute(query.format(spec.name)).fetchall() for spec in ENCODERS}
    return {name: models[0][0] for name, models in rows.items() if models}


def published_batches(home: Home) -> set[str]:
    """Batches of the published file that every encoder has embedded."""
    with duckdb.connect(str(home.published), read_only=True) as connection:
        embedded = [
            {row[0] for row in connection.execute(f"SELECT DISTINCT batch_id FROM embeddings.{spec.name}").fetchall()}
            for spec in ENCODERS
        ]
        loaded = {row[0] for row in connection.execute("SELECT batch_id FROM batches").fetchall()}
    return loaded.intersection(*embedded)


@contextmanager
def daemon(home: Home) -> Iterator[None]:
    """Dagster's daemon on a home; killed with all that it has started."""
    environment = {**os.environ, "ACCELKD_HOME": str(home.root), "DAGSTER_HOME": str(home.root / "dagster")}
    with (home.root / "daemon.log").open("w") as log:
        process = subprocess.Popen(
            [Path(sys.executable).with_name("dagster-daemon"), "run", "--workspace", "workspace.yaml"],
            cwd=REPOSITORY,
            env=environment,
            start_new_session=True,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            yield
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def wait_until(happened: Callable[[], bool]) -> None:
    """Look four times a second. Raises TimeoutError after half an hour."""
    deadline = time.monotonic() + LIMIT_S
    while not happened():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not published within {LIMIT_S} s")
        time.sleep(0.25)


if __name__ == "__main__":
    main()
