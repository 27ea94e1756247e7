"""The whole platform at the paper's size in participants: `python benches/paper_scale.py --home DIR`.

172 batches of 1,000 simulated participants each, with their survey, land in a home and go all the way, under what
`make ui` starts (daemon, code server, web server): tables, split, a pair of encoders, embeddings, reports, the file
that is published. Then one batch more arrives. Full size have participants, batches and tables; small are the signals,
one minute of each participant (the paper has 116), and the encoders, those of the preset `smoke`, trained for six
steps: training is not measured here. It needs four minutes of somebody, so those of the first batch have six each. Of
more than nine batches the later ones take the signals of the first ones again, with another baseline of the light and
with participants, answers and times of their own: simulating a single minute of a person costs several milliseconds.

On a slow or busy machine `--reported 150` spares most of Dagster's runs: 150 of the batches are segmented, loaded and
embedded by the functions that the assets call, on all cores, and reported to Dagster as made elsewhere, without their
checks, pictures and sensor checks. The other batches, the one that follows, and everything that reads all of them, go
through Dagster as before.

Every step that has ended is in `DIR/results.json`, and a later call goes on with the next one, also after another was
stopped in the middle: what catch-ups cost is read from Dagster's records of them. `--partitions 3 --participants 20`
takes some minutes. The whole needs 25 GB, and Chromium for the pages of the UI; without it they are left out.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import tables

from accelkd.home.files import sha256_file, write_json
from accelkd.home.layout import Home
from accelkd.home.settings import Settings
from accelkd.models.specs import ENCODERS
from accelkd.operations.embed import embed_batch, embed_into_file
from accelkd.recordings.batches import MANIFEST, writing_batch
from accelkd.recordings.simulator import simulate_batch
from accelkd.recordings.simulator.answers import survey_answers
from accelkd.recordings.simulator.optics import FULL_SCALE
from accelkd.recordings.simulator.participants import draw_traits
from accelkd.recordings.simulator.simulate import participant_id, participant_table
from accelkd.segments.segment import segment_batch
from accelkd.warehouse.load import load_batch
from assets.partitions import arrival_batches
from orchestration.catch_up_lock import CATCH_UP, catch_up_lock
from orchestration.dagster_internals import DATA_VERSION_TAG
from orchestration.instance import opened_instance
from orchestration.statuses import UNFINISHED

REPOSITORY = Path(__file__).parents[1]
SEED = 172
LIMIT_S = 6 * 3600
IDLE_S = 90  # that the sensors are watched while nothing happens
TRAINED_MINUTES = 6  # of each participant of the first batch: training asks for four, and some are quarantined
SIMULATED = 8  # batches, beside the first one, whose signals are simulated
FEW = 10  # batches whose median stands for the first and the last ones
SENSORS = ("arrivals", "changes", "retraining")
PAGES = {  # address, and what is looked for on the page
    "asset catalogue": ("/assets", "participant_split"),
    "asset graph, all groups": ("/asset-groups", "cohort"),
    "one asset of all batches": ("/assets/segments", "Metadata"),
    "its partitions": ("/assets/segments?view=partitions", "paper-"),
    "its checks": ("/assets/segments?view=checks&checkDetail=quarantine_rate", "windows are quarantined"),
    "runs": ("/runs", "catch_up"),
}
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
Result = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, required=True, help="folder of the home, the deliveries and the results")
    parser.add_argument("--partitions", type=int, default=172, help="batches that land first; one more follows")
    parser.add_argument("--participants", type=int, default=1000, help="of each batch")
    parser.add_argument("--reported", type=int, default=0, help="batches that are made without Dagster's runs")
    parser.add_argument("--rate-hz", type=int, choices=(64, 256), default=64, help="of the simulated device")
    arguments = parser.parse_args()
    size = {name: value for name, value in vars(arguments).items() if name != "home"}
    bench = Bench(arguments.home.resolve(), size)
    bench.step("simulate", functools.partial(simulate, bench))
    bench.prepare()
    bench.step("made_without_runs", functools.partial(make_without_runs, bench))
    if any(name not in bench.results for name in WITH_DAGSTER):
        with bench.running():
            for name, work in WITH_DAGSTER.items():
                bench.step(name, functools.partial(work, bench))
    bench.step("sizes", functools.partial(sizes, bench))
    print(json.dumps(bench.results, indent=1))
    show(bench.results)


@dataclass
class Bench:
    """One home, and what was measured in it."""

    folder: Path
    size: dict[str, int]
    results: Result = field(default_factory=dict)
    address: str = ""
    used: dict[tuple[int, str], tuple[str, float]] = field(default_factory=dict)  # kind and CPU seconds, by process

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.home = Home(self.folder / "home")
        self.deliveries = self.folder / "deliveries"
        path = self.folder / "results.json"
        if path.exists():
            self.results = json.loads(path.read_text(encoding="utf-8"))
        if self.results.setdefault("size", self.size) != self.size:
            raise ValueError(f"{path} is of {self.results['size']}: choose another --home for {self.size}")

    @property
    def names(self) -> list[str]:
        """The batches that land first."""
        return [batch_name(number) for number in range(self.size["partitions"])]

    @property
    def reported(self) -> list[str]:
        """Those of them that are made without Dagster's runs."""
        return self.names[max(len(self.names) - self.size["reported"], 1) :]

    @property
    def another(self) -> str:
        """The batch that arrives when all others are there."""
        return batch_name(self.size["partitions"])

    def step(self, name: str, work: Callable[[], Result]) -> None:
        """Do and record a step, unless it was done before."""
        if name in self.results:
            return
        print(f"{datetime.now(UTC):%H:%M:%S} {name}", file=sys.stderr, flush=True)
        before = self.cpu_s()
        result = work()
        cpu_s = {kind: seconds - before.get(kind, 0.0) for kind, seconds in self.cpu_s().items()}
        self.results.setdefault("cpu_s", {})[name] = cpu_s
        self.results[name] = result
        self.save()

    def cpu_s(self) -> dict[str, float]:
        """CPU seconds of all processes of each kind so far, as far as this call has watched them."""
        total: dict[str, float] = {}
        for kind, seconds in list(self.used.values()):
            total[kind] = total.get(kind, 0.0) + seconds
        return total

    def save(self) -> None:
        write_json(self.folder / "results.json", self.results)

    def since(self, name: str) -> float:
        """When a step began, in seconds since the epoch: also where another call began it."""
        began: float = self.results.setdefault("began", {}).setdefault(name, time.time())
        self.save()
        return began

    def prepare(self) -> None:
        """The home's settings and its Dagster instance."""
        folder = self.home.root / "dagster"
        if not (folder / "dagster.yaml").exists():
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPOSITORY / "dagster.yaml", folder)
            Settings(preset="smoke").save(self.home)

    def land(self, names: Sequence[str]) -> None:
        self.home.landing.mkdir(exist_ok=True)
        for name in names:
            if (folder := self.deliveries / name).exists():
                folder.rename(self.home.batch(name))

    @contextmanager
    def running(self) -> Iterator[None]:
        """What `make ui` starts, with its memory watched, until the block ends."""
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            port = listener.getsockname()[1]
        self.address = f"http://127.0.0.1:{port}"
        dagster = self.home.root / "dagster"
        environment = {"ACCELKD_HOME": str(self.home.root), "DAGSTER_HOME": str(dagster)}
        with (dagster / "ui.log").open("a") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "orchestration.ui", "--port", str(port), "--end-with-parent"],
                cwd=REPOSITORY,
                env=os.environ | environment | {"DAGSTER_GRPC_TIMEOUT_SECONDS": "300"},
                stdout=log,
                stderr=subprocess.STDOUT,
            )
            ended = threading.Event()
            watching = threading.Thread(target=watch_memory, args=(self, f"DAGSTER_HOME={dagster}", ended))
            watching.start()
            try:
                wait_until(self._answers)
                yield
            finally:
                ended.set()
                watching.join()
                process.terminate()
                process.wait(60)

    def _answers(self) -> bool:
        try:
            urllib.request.urlopen(f"{self.address}/server_info", timeout=5).close()
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            return False
        return True

    def launch(self, job: str, config: Mapping[str, object] | None = None) -> str:
        """Launch a job as the UI's button does; returns the run's id."""
        selector = {
            "repositoryLocationName": "accelkd",
            "repositoryName": "__repository__",
            "jobName": job,
        }
        query = (
            "mutation($params: ExecutionParams!) { launchPipelineExecution(executionParams: $params) "
            "{ __typename ... on LaunchRunSuccess { run { runId } } } }"
        )
        parameters = {"selector": selector, "runConfigData": config or {}, "mode": "default"}
        body = json.dumps({"query": query, "variables": {"params": parameters}}).encode()
        request = urllib.request.Request(f"{self.address}/graphql", body, headers={"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=300) as answer:
            launched = json.load(answer)
        try:
            return str(launched["data"]["launchPipelineExecution"]["run"]["runId"])
        except (KeyError, TypeError):
            raise RuntimeError(f"{job} was not launched: {launched}") from None

    def execute(self, job: str, config: Mapping[str, object] | None = None) -> dg.RunRecord:
        """Launch a job and wait for its end. Raises RuntimeError if it fails."""
        run_id = self.launch(job, config)
        with self.instance() as instance:

            def ended() -> bool:
                run = instance.get_run_by_id(run_id)
                return run is not None and run.is_finished

            wait_until(ended)
            record = instance.get_run_record_by_id(run_id)
        if record is None or record.dagster_run.status is not dg.DagsterRunStatus.SUCCESS:
            raise RuntimeError(f"run {run_id} of {job} did not succeed")
        return record

    @contextmanager
    def instance(self) -> Iterator[dg.DagsterInstance]:
        with opened_instance(self.home.root / "dagster") as instance:
            yield instance

    def wait_for(self, names: Sequence[str], *, embedded: bool) -> None:
        """Wait until batches are published, by choice with all embeddings, and no run is in progress."""
        wait_until(lambda: set(names) <= published_batches(self.home, embedded=embedded))
        with self.instance() as instance:
            wait_until(lambda: not instance.get_runs(dg.RunsFilter(statuses=UNFINISHED), limit=1))


def simulate(bench: Bench) -> Result:
    """Deliveries of all batches, the one more included; those that are there are kept."""
    started = time.monotonic()
    work = functools.partial(simulate_one, bench.deliveries, bench.home.landing, bench.size)
    numbers = range(len(bench.names) + 1)
    simulated, again = numbers[: SIMULATED + 1], numbers[SIMULATED + 1 :]
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        seconds = [s for some in (simulated, again) for s in list(pool.map(work, some)) if s]
    return {
        "wall_s": time.monotonic() - started,
        "cpu_s": sum(seconds),
        "bytes": disk_bytes(bench.deliveries),
    }


def simulate_one(deliveries: Path, landing: Path, size: Mapping[str, int], number: int) -> float:
    """One batch, of participants of its own; returns CPU seconds, 0 if it is there."""
    name, participants = batch_name(number), size["participants"]
    if (deliveries / name).exists() or (landing / name).exists():
        return 0.0
    started = time.process_time()
    if number > SIMULATED:
        source = batch_name(1 + (number - 1) % SIMULATED)
        folder = deliveries if (deliveries / source).exists() else landing
        use_again(folder / source, deliveries, number, participants)
    else:
        simulate_batch(
            deliveries,
            name,
            participants=participants,
            segments=TRAINED_MINUTES if number == 0 else 1,
            seed=SEED,
            rate_hz=size["rate_hz"],
            first_participant=number * participants,
        )
    return time.process_time() - started


def use_again(source: Path, deliveries: Path, number: int, participants: int) -> None:
    """A batch of the signals of another one, of other participants, a day later each time."""
    first = number * participants
    ids = [participant_id(SEED, first + row) for row in range(participants)]
    traits = draw_traits(SEED, first, participants)
    people = dict(
        zip(pq.read_table(source / "participants.parquet").column("participant_id").to_pylist(), ids, strict=True)
    )

    def renamed(rows: pa.Table) -> pa.Table:
        own = [people[name] for name in rows.column("participant_id").to_pylist()]
        columns = {"participant_id": own, "recording_id": [f"{name}-0000" for name in own]}
        for column, values in columns.items():
            rows = rows.set_column(rows.column_names.index(column), column, pa.array(values))
        return rows

    with writing_batch(deliveries, batch_name(number), source="simulation") as batch:
        for part in sorted((source / "recordings").iterdir()):
            rows = renamed(pq.read_table(part))
            ppg = rows.column("ppg").combine_chunks()
            light = ppg.values.values.to_numpy()
            light = np.where((light > number) & (light < FULL_SCALE / 2), light + np.float32(number), light)
            signals = pa.ListArray.from_arrays(ppg.values.offsets, pa.array(light))
            rows = rows.set_column(
                rows.column_names.index("ppg"), "ppg", pa.ListArray.from_arrays(ppg.offsets, signals)
            )
            later = pc.add(rows.column("started_at"), pa.scalar(timedelta(days=number // SIMULATED)))
            batch.add("recordings", rows.set_column(rows.column_names.index("started_at"), "started_at", later))
        batch.add("participants", participant_table(ids, traits))
        batch.add("survey", survey_answers(SEED, first, ids, traits))
        batch.add("truth", renamed(pq.read_table(source / "truth.parquet")))


def batch_name(number: int) -> str:
    return f"paper-{number:04d}"


def make_without_runs(bench: Bench) -> Result:
    """Segments and tables of the batches that are reported to Dagster; times of the functions that assets call."""
    bench.land(bench.reported)
    names = [name for name in bench.reported if not bench.home.segments(name).exists()]
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        segmented_s = list(pool.map(functools.partial(segment_one, bench.home), names))
    loaded_s = []
    with bench.instance() as instance:
        instance.add_dynamic_partitions(str(arrival_batches.name), bench.reported)
        for name in bench.reported:
            started = time.process_time()
            load_batch(bench.home, name)
            loaded_s.append(time.process_time() - started)
            store = sha256_file(bench.home.segments(name))
            report(instance, "raw_recordings", name, sha256_file(bench.home.batch(name) / MANIFEST))
            for asset in ("segments", "segment_tables", "sensor_check"):
                report(instance, asset, name, store)
    return {"segmenting_cpu_s": growth(segmented_s), "loading_cpu_s": growth(loaded_s)} if segmented_s else {}


def segment_one(home: Home, batch_id: str) -> float:
    """CPU seconds of segmenting one batch."""
    started = time.process_time()
    segment_batch(home, batch_id)
    return time.process_time() - started


def embed_without_runs(bench: Bench) -> Result:
    """Embeddings of the batches that are reported to Dagster, in files and in the tables."""
    spent: dict[str, list[float]] = {}
    with bench.instance() as instance:
        for name in bench.reported:
            for spec in ENCODERS:
                started = time.process_time()
                file = embed_into_file(bench.home, spec.name, name)
                made = time.process_time()
                loaded = embed_batch(bench.home, spec.name, name)
                spent.setdefault(f"{spec.name}_embedding_cpu_s", []).append(made - started)
                spent.setdefault(f"{spec.name}_loading_cpu_s", []).append(time.process_time() - made)
                report(instance, f"{spec.name}_embedding_files", name, file.content_version)
                report(instance, f"{spec.name}_embeddings", name, loaded.content_version)
    return {name: growth(seconds) for name, seconds in spent.items()}


def report(instance: dg.DagsterInstance, asset: str, batch_id: str, version: str) -> None:
    """Report an asset of a batch as made outside of Dagster."""
    event = dg.AssetMaterialization(asset, partition=batch_id, tags={DATA_VERSION_TAG: version})
    instance.report_runless_asset_event(event)


def land_all(bench: Bench) -> Result:
    """All batches land at once: a catch-up without encoders."""
    since = bench.since("tables")
    bench.land(bench.names)
    bench.wait_for(bench.names, embedded=False)
    return caught_up(bench, since)


def train(bench: Bench) -> Result:
    """The job `retrain`, with encoders that are promoted whatever they measure."""
    since = bench.since("train")
    config = {"ops": {"promoted_encoders": {"config": {"force": "a benchmark"}}}}
    with catch_up_lock(bench.home):  # the catch-up that follows waits for the reports
        record = bench.execute("retrain", config)
        with bench.instance() as instance:
            trained = summary(steps(instance, [record]))
        without_runs = embed_without_runs(bench)
    return {"run_s": run_seconds(record), "steps": trained, "since": since, "without_runs": without_runs}


def embed(bench: Bench) -> Result:
    """The catch-up that follows the promotion: embeddings, reports, the published file."""
    since = bench.since("embed")
    bench.wait_for(bench.names, embedded=True)
    return caught_up(bench, since)


def idle(bench: Bench) -> Result:
    """Ticks of the sensors while nothing happens."""
    time.sleep(20)  # for what follows the last catch-up
    since = time.time()
    time.sleep(IDLE_S)
    return ticks(bench, since)


def pages(bench: Bench) -> Result:
    """Seconds until a browser shows pages of the UI, and the slowest queries that each of them makes."""
    if CHROMIUM is None:
        return {}
    from playwright.sync_api import Request, sync_playwright

    shown: Result = {}
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = chromium.new_page(viewport={"width": 1600, "height": 1000})
        page.set_default_timeout(180_000)
        queries: list[tuple[str, float]] = []

        def finished(request: Request) -> None:
            query = re.search(r"/graphql\?op=(\w+)", request.url)
            if query is not None:
                queries.append((query[1], max(request.timing["responseEnd"], 0.0) / 1e3))

        page.on("requestfinished", finished)
        page.goto(f"{bench.address}/assets")  # the programs of the page, which the browser keeps
        page.get_by_text("participant_split").first.wait_for()
        for name, (address, text) in PAGES.items():
            seconds, slowest = [], dict[str, float]()
            for _ in range(3):
                page.goto("about:blank")
                queries.clear()
                started = time.monotonic()
                page.goto(bench.address + address, wait_until="commit")
                page.get_by_text(text).first.wait_for()
                seconds.append(time.monotonic() - started)
                with suppress(Exception):  # a page that asks again and again is never idle
                    page.wait_for_load_state("networkidle", timeout=3_000)
                for query, query_s in queries:
                    slowest[query] = max(slowest.get(query, 0.0), query_s)
            longest = sorted(slowest.items(), key=lambda entry: -entry[1])[:3]
            shown[name] = {"seconds": statistics.median(seconds), "most_s": max(seconds), "slowest_queries": longest}
        chromium.close()
    return shown


def one_more(bench: Bench) -> Result:
    """One batch more, from landing to published, with the embeddings of both encoders."""
    since = bench.since("one_more")
    bench.land([bench.another])
    bench.wait_for([bench.another], embedded=True)
    return {**caught_up(bench, since), "ticks": ticks(bench, since)}


def nothing_to_do(bench: Bench) -> Result:
    """What it costs to find that nothing is missing or stale: a catch-up, and the nightly backfill."""
    return {f"{job}_s": run_seconds(bench.execute(job)) for job in ("catch_up", "backfill")}


WITH_DAGSTER: dict[str, Callable[[Bench], Result]] = {
    "tables": land_all,
    "train": train,
    "embed": embed,
    "idle": idle,
    "pages": pages,
    "one_more": one_more,
    "nothing_to_do": nothing_to_do,
}


def sizes(bench: Bench) -> Result:
    """Bytes of the home's parts, and rows of the published tables."""
    home = bench.home
    parts = ("landing", "segments", "quarantine", "embeddings", "reports", "dagster")
    measured: Result = {f"{name}_bytes": disk_bytes(home.root / name) for name in parts}
    measured["staging_bytes"], measured["published_bytes"] = (
        disk_bytes(path) for path in (home.staging, home.published)
    )
    names = ["participants", "segments", "survey_targets", "split", *(f"embeddings.{spec.name}" for spec in ENCODERS)]
    with duckdb.connect(str(home.published), read_only=True) as connection:
        for name in names:
            ((measured[f"{name}_rows"],),) = connection.execute(f"SELECT count(*) FROM {name}").fetchall()
    return measured


def caught_up(bench: Bench, since: float) -> Result:
    """What the catch-ups since a moment have cost: the whole, what their runs did, and what is between."""
    with bench.instance() as instance:
        records = instance.get_run_records(dg.RunsFilter(updated_after=datetime.fromtimestamp(since, UTC)))
        whole = [r for r in records if r.dagster_run.job_name == "catch_up" and CATCH_UP not in r.dagster_run.tags]
        parts = [r for r in reversed(records) if CATCH_UP in r.dagster_run.tags and r.end_time]
        of_steps = steps(instance, parts)
        in_steps_s = sum(sum(seconds) for seconds in of_steps.values())
        whole_s, parts_s = (sum(run_seconds(r, since) for r in some) for some in (whole, parts))
        published = bench.home.published.stat().st_mtime
    return {
        "landing_to_published_s": published - since,
        "catch_ups": len(whole),
        "catch_up_s": whole_s,
        "runs": len(parts),
        "in_steps_s": in_steps_s,
        "in_runs_beside_steps_s": parts_s - in_steps_s,
        "between_runs_s": whole_s - parts_s,
        "steps": summary(of_steps),
        "ticks": ticks(bench, since),
    }


def steps(instance: dg.DagsterInstance, records: Sequence[dg.RunRecord]) -> dict[str, list[float]]:
    """Seconds of every step of runs, in order, by its name."""
    seconds_of: dict[str, list[float]] = {}
    for record in records:
        cursor: str | None = None
        while True:
            page = instance.get_records_for_run(
                record.dagster_run.run_id, cursor=cursor, of_type=dg.DagsterEventType.STEP_SUCCESS, limit=500
            )
            for event in page.records:
                done = event.event_log_entry.dagster_event
                if done is not None and done.step_key is not None:
                    seconds_of.setdefault(done.step_key, []).append(done.step_success_data.duration_ms / 1e3)
            if not page.has_more:
                break
            cursor = page.cursor
    return seconds_of


def summary(of_steps: Mapping[str, Sequence[float]]) -> dict[str, Result]:
    """Of each step: how often, how long in all, and whether it grows with the batches."""
    return {name: growth(seconds) for name, seconds in of_steps.items()}


def growth(seconds: Sequence[float]) -> Result:
    """How often, how long in all, and the medians of the first and the last ones."""
    return {
        "times": len(seconds),
        "total_s": sum(seconds),
        "first_s": statistics.median(seconds[:FEW]),
        "last_s": statistics.median(seconds[-FEW:]),
    }


def by_total(of_steps: Mapping[str, Result]) -> list[tuple[str, Result]]:
    """Steps, the most expensive first."""
    return sorted(of_steps.items(), key=lambda entry: -float(entry[1]["total_s"]))


def ticks(bench: Bench, since: float) -> Result:
    """Seconds of the ticks of each sensor since a moment: of those that skipped, and of those that requested runs."""
    sensor_ticks: Result = {}
    with bench.instance() as instance:
        for state in instance.all_instigator_state():
            if state.name not in SENSORS:
                continue
            ended = [
                (bool(tick.run_ids), tick.end_timestamp - tick.timestamp)
                for tick in instance.get_ticks(state.instigator_origin_id, state.selector_id, after=since)
                if tick.end_timestamp
            ]
            for kind, requested in (("skipped", False), ("requested", True)):
                seconds = [tick_s for has_run, tick_s in ended if has_run is requested]
                if seconds:
                    sensor_ticks[f"{state.name}, {kind}"] = {
                        "ticks": len(seconds),
                        "median_s": statistics.median(seconds),
                        "most_s": max(seconds),
                    }
    return sensor_ticks


def run_seconds(record: dg.RunRecord, since: float = 0.0) -> float:
    """Seconds that a run took, without those before a moment, in which it waited."""
    started = record.start_time or record.create_timestamp.timestamp()
    return (record.end_time or time.time()) - max(started, since)


def published_batches(home: Home, *, embedded: bool) -> set[str]:
    """Batches of the published file, by choice only those that every encoder has embedded."""
    if not home.published.exists():
        return set()
    queries = ["SELECT batch_id FROM batches"]
    queries += [f"SELECT DISTINCT batch_id FROM embeddings.{spec.name}" for spec in ENCODERS] if embedded else []
    with duckdb.connect(str(home.published), read_only=True) as connection:
        try:
            batches = [{str(row[0]) for row in connection.execute(query).fetchall()} for query in queries]
        except duckdb.CatalogException:  # nothing is embedded yet
            return set()
    return set.intersection(*batches)


def watch_memory(bench: Bench, variable: str, ended: threading.Event) -> None:
    """Record the most memory that one process of each kind has held, and its CPU time, twice a second."""
    kinds: dict[tuple[int, str], str | None] = {}
    most: dict[str, Result] = bench.results.setdefault("memory", {})
    while not ended.wait(0.5):
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError, IndexError, KeyError):  # it has just ended
                stat = (folder / "stat").read_text().rpartition(")")[2].split()
                process = int(folder.name), stat[19]
                if process not in kinds:
                    kinds[process] = kind_of(folder, variable)
                if (kind := kinds[process]) is None:
                    continue
                bench.used[process] = kind, (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")
                held = dict(re.findall(r"^(VmHWM|RssAnon):\s+(\d+) kB", (folder / "status").read_text(), re.MULTILINE))
                entry = most.setdefault(kind, {"anonymous_mb": 0.0, "resident_mb": 0.0})
                entry["anonymous_mb"] = max(entry["anonymous_mb"], int(held["RssAnon"]) / 1e3)
                entry["resident_mb"] = max(entry["resident_mb"], int(held["VmHWM"]) / 1e3)
    bench.save()


def kind_of(folder: Path, variable: str) -> str | None:
    """What a process of Dagster on the home is; None for any other process."""
    if variable.encode() not in (folder / "environ").read_bytes().split(b"\0"):
        return None
    command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
    kinds = {"daemon run": "daemon", "dagster_webserver": "web server", "dagster-webserver": "web server"}
    kinds |= {"api grpc": "code server", "spawn_main": "run", "execute_run": "run"}
    return next((kind for text, kind in kinds.items() if text in command), None)


def disk_bytes(path: Path) -> int:
    """Size of a file, or of all files below a folder."""
    return sum(file.stat().st_size for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file())


def wait_until(happened: Callable[[], bool]) -> None:
    """Look once a second. Raises TimeoutError after six hours."""
    deadline = time.monotonic() + LIMIT_S
    while not happened():
        if time.monotonic() > deadline:
            raise TimeoutError(f"it did not happen within {LIMIT_S} s")
        time.sleep(1)


def show(results: Result) -> None:
    """Everything as tables in Markdown."""
    size = results["size"]
    tables.header("what", f"{size['partitions']} batches of {size['participants']:,} participants")
    simulated = results["simulate"]
    tables.row("simulating (not part of the platform)", f"{simulated['wall_s']:.0f} s")
    for name, what in (
        ("tables", "landing to published tables, no encoders yet"),
        ("embed", "embeddings, reports, publishing"),
        ("one_more", "one batch more, landing to published"),
    ):
        step = results[name]
        tables.row(what, f"{step['landing_to_published_s']:.0f} s")
        used = ", ".join(f"{kind} {seconds:.0f} s" for kind, seconds in sorted(results["cpu_s"][name].items()))
        tables.row("- CPU time", used)
        for key, part in (
            ("in_steps_s", "in the steps of its runs"),
            ("in_runs_beside_steps_s", "in its runs, beside steps"),
            ("between_runs_s", "between its runs"),
        ):
            tables.row(f"- {part}", f"{step[key]:.0f} s")
    tables.row("training and promotion", f"{results['train']['run_s']:.0f} s")
    for job in ("catch_up", "backfill"):
        tables.row(f"`{job}` with nothing to do", f"{results['nothing_to_do'][f'{job}_s']:.1f} s")
    tables.header("step", "times", "total (s)", f"median of the first {FEW} (s)", f"of the last {FEW} (s)")
    without_runs = {**results["made_without_runs"], **results["train"]["without_runs"]}
    for step, cost in without_runs.items():
        what = f"{step.removesuffix('_cpu_s')}, CPU, without a run"
        tables.row(what, cost["times"], *(f"{cost[key]:.2f}" for key in ("total_s", "first_s", "last_s")))
    for name in ("tables", "train", "embed"):
        for step, cost in by_total(results[name]["steps"]):
            tables.row(step, cost["times"], *(f"{cost[key]:.2f}" for key in ("total_s", "first_s", "last_s")))
    tables.header("step, one batch more", "s")
    for step, cost in by_total(results["one_more"]["steps"]):
        tables.row(step, f"{cost['total_s']:.2f}")
    tables.header("sensor", "ticks", "median (s)", "most (s)")
    for name in ("tables", "idle", "one_more"):
        for sensor, tick in (results[name] if name == "idle" else results[name]["ticks"]).items():
            tables.row(f"{sensor} ({name})", tick["ticks"], f"{tick['median_s']:.3f}", f"{tick['most_s']:.3f}")
    tables.header("page", "median of three (s)", "most (s)", "slowest queries (s)")
    for page, shown in results["pages"].items():
        queries = ", ".join(f"{query} {query_s:.2f}" for query, query_s in shown["slowest_queries"])
        tables.row(page, f"{shown['seconds']:.2f}", f"{shown['most_s']:.2f}", queries)
    tables.header("process", "most anonymous memory (MB)", "most resident (MB)")
    for kind, held in results["memory"].items():
        tables.row(kind, f"{held['anonymous_mb']:,.0f}", f"{held['resident_mb']:,.0f}")
    tables.header("size", "")
    for name, number in results["sizes"].items():
        what, _, unit = name.rpartition("_")
        tables.row(what, f"{number / 1e9:.3f} GB" if unit == "bytes" else f"{number:,} rows")


if __name__ == "__main__":
    main()
