"""Metrics of a home in Prometheus' text format: what lies in it, how old it is, and how large.

An orchestrator adds its own: a function of a home, named by an entry point of the group `accelkd.metrics`. Everything
is read, nothing is locked or written; what cannot be read is missing, and `accelkd_collector_up` says so.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from importlib.metadata import entry_points
from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from accelkd.home.files import write_text
from accelkd.home.layout import Home
from accelkd.models.specs import ENCODERS
from accelkd.operations.alerts import alert_status
from accelkd.recordings.arrivals import landed_folders, refused, superseded
from accelkd.recordings.batches import MANIFEST
from accelkd.registry.history import history
from accelkd.warehouse.monitor import published_counts

GROUP = "accelkd.metrics"
FOLDERS = ("landing", "segments", "quarantine", "checkpoints", "warehouse", "reports", "dagster")

log = logging.getLogger(__name__)

Collect = Callable[[Home], Iterable[Metric]]


def metrics_text(home: Home) -> str:
    """All metrics of a home as text."""
    return generate_latest(_registry(home)).decode()


def write_metrics(home: Home, path: Path) -> None:
    """Replace a file by the metrics, atomically: for the textfile collector of node_exporter."""
    write_text(path, metrics_text(home))


def serve_metrics(home: Home, port: int) -> None:
    """Serve the metrics on http://127.0.0.1:PORT/metrics until the process is stopped; a request reads them again."""
    _, thread = start_http_server(port, addr="127.0.0.1", registry=_registry(home))
    with suppress(KeyboardInterrupt):
        thread.join()


def _registry(home: Home) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(_HomeCollector(home))
    return registry


class _HomeCollector(Collector):
    def __init__(self, home: Home) -> None:
        self.home = home
        self.collectors: dict[str, Collect] = {"home": _home, "published": _published}
        self.failures: dict[str, str] = {}
        for entry in entry_points(group=GROUP):
            self.collectors[entry.name] = _loaded(entry.load)

    def describe(self) -> Iterable[Metric]:
        return ()  # registering reads nothing

    def collect(self) -> Iterator[Metric]:
        up = gauge("collector_up", "Whether a part of the metrics could be read", ["collector"])
        seconds = gauge("collector_seconds", "How long reading it took", ["collector"])
        for name, collect in self.collectors.items():
            started = time.monotonic()
            try:
                yield from list(collect(self.home))
                up.add_metric([name], 1)
            except Exception as error:  # the others are read nevertheless
                log.warning("metrics of %s cannot be read: %s: %s", name, type(error).__name__, error)
                up.add_metric([name], 0)
            seconds.add_metric([name], time.monotonic() - started)
        yield up
        yield seconds


def _loaded(load: Callable[[], Collect]) -> Collect:
    def collect(home: Home) -> Iterable[Metric]:
        return load()(home)

    return collect


def gauge(name: str, meaning: str, labels: Iterable[str] = ()) -> GaugeMetricFamily:
    """A family of metrics that begins with `accelkd_`."""
    return GaugeMetricFamily(f"accelkd_{name}", meaning, labels=list(labels))


def single(name: str, meaning: str, value: float | None) -> Iterator[Metric]:
    """One metric without labels; none where nothing is known."""
    if value is not None:
        family = gauge(name, meaning)
        family.add_metric([], value)
        yield family


def labelled(name: str, meaning: str, label: str, values: Mapping[str, float]) -> Metric:
    """One metric for each value of a label."""
    family = gauge(name, meaning, [label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family


def _home(home: Home) -> Iterator[Metric]:
    """What the files say."""
    folders = landed_folders(home.landing)
    states = {"landed": len(folders), "refused": len(refused(home)), "superseded": len(superseded(home))}
    yield labelled("batches", "Arrival batches by state; the same batch may be in several", "state", states)
    arrived = [_modified(home.landing / name / MANIFEST) for name in folders]
    yield from single(
        "last_arrival_timestamp_seconds", "When the newest batch was complete", max(filter(None, arrived), default=None)
    )
    yield from single(
        "last_publish_timestamp_seconds", "When the warehouse was published last", _modified(home.published)
    )
    trained = {spec.name: _modified(home.encoder(spec.name) / "candidate.json") for spec in ENCODERS}
    known = {name: at for name, at in trained.items() if at is not None}
    yield labelled("last_training_timestamp_seconds", "When an encoder was trained last", "encoder", known)
    decisions = [decision.at for decision in history(home) if decision.action != "rejected"]
    promoted = datetime.fromisoformat(decisions[-1]).timestamp() if decisions else None
    yield from single("last_promotion_timestamp_seconds", "When encoders were promoted or rolled back last", promoted)
    sizes = {name: _size(home.root / name) for name in FOLDERS}
    yield labelled("size_bytes", "Size of a folder of the home", "folder", sizes)
    yield from single("disk_free_bytes", "Free space for the home", shutil.disk_usage(home.root).free)
    status = alert_status(home)
    counts = Counter(str(problem.kind) for problem in status.open)
    yield labelled("alerts_open", "Problems that are open, by kind", "kind", dict(counts))
    yield labelled("alerts_undelivered", "Alerts that wait for a channel", "channel", status.undelivered)
    dropped = CounterMetricFamily("accelkd_alerts_dropped", "Alerts that were never delivered", labels=["channel"])
    for channel, count in status.dropped.items():
        dropped.add_metric([channel], count)
    yield dropped


def _published(home: Home) -> Iterator[Metric]:
    """What the published file says."""
    counts = published_counts(home.published)
    if counts is None:
        return
    yield from single("published_batches", "Batches in the published warehouse", counts.batches)
    yield from single("published_participants", "Participants with segments in it", counts.participants)
    yield from single("published_segments", "Segments in it", counts.segments)
    rates = counts.quarantine_rates
    yield from single(
        "last_quarantine_rate", "Quarantine rate of the batch loaded last", next(iter(rates.values()), None)
    )
    yield labelled("quarantine_rate", "Share of a batch that is no segment; of the newest batches", "batch", rates)
    yield labelled(
        "embeddings_coverage",
        "Share of the segments that it can take which an encoder embedded",
        "encoder",
        counts.coverage,
    )


def _modified(path: Path) -> float | None:
    try:
        return path.stat().st_mtime
    except OSError:
        return None


def _size(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with suppress(OSError):  # a run has just replaced it
            total += path.lstat().st_size if path.is_file() else 0
    return total
