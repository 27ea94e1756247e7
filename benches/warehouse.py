"""Speed of the warehouse: exact search, participant means, loading a batch, publishing, and readers beside a writer.

Run as `python benches/warehouse.py`; prints tables in Markdown. Everything goes through accelkd's own functions, on a
home in a temporary folder, with noise for embeddings.
"""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing as mp
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from multiprocessing.synchronize import Event
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa

from accelkd.home.layout import Home
from accelkd.warehouse.embedding_files import embedding_rows
from accelkd.warehouse.embeddings import load_embeddings
from accelkd.warehouse.provenance import Artifact, record
from accelkd.warehouse.publish import publish
from accelkd.warehouse.staging import staging

WIDTH = 256
PER_PARTICIPANT = 100
ENCODER = "accel_student"


def load(home: Home, model_id: str, batch_id: str, segments: int) -> float:
    """Load one batch of noise; seconds that the embeddings took."""
    rng = np.random.default_rng([*f"{model_id}{batch_id}".encode()])
    ids = [hashlib.sha256(f"{batch_id} {i}".encode()).hexdigest()[:16] for i in range(segments)]
    people = [f"{batch_id}-{i // PER_PARTICIPANT:05d}" for i in range(segments)]
    facts = pa.table({"segment_id": ids, "participant_id": people, "hr_bpm": rng.uniform(50, 100, segments)})
    with staging(home) as connection:
        connection.execute("DELETE FROM segments WHERE batch_id = ?", [batch_id])
        connection.register("arriving", facts)
        connection.execute(
            "INSERT INTO segments BY NAME SELECT *, segment_id AS recording_id, ? AS batch_id, 'sim' AS device_id, "
            "0 AS offset_s, 0.01 AS motion_median_g, 0.02 AS motion_p95_g, true AS label_good, [0] AS ppg_status, "
            "[0, 0, 0] AS accel_status FROM arriving",
            [batch_id],
        )
        record(connection, Artifact("segments", batch_id, "0" * 64), [])
    matrix = rng.standard_normal((segments, WIDTH), np.float32)
    started = time.perf_counter()
    load_embeddings(home, ENCODER, embedding_rows(ENCODER, model_id, batch_id, ids, people, matrix))
    return time.perf_counter() - started


def add_model(home: Home, model_id: str) -> None:
    with staging(home) as connection:
        connection.execute(
            "INSERT INTO models (encoder, model_id, modality, channels, embedding_dim, parameters, split_version, "
            "config, metrics) VALUES (?, ?, 'accel', 3, ?, 0, '', '{}', '{}')",
            [ENCODER, model_id, WIDTH],
        )
        record(connection, Artifact("model", f"{ENCODER}/{model_id}", model_id), [])


def median_s(call: Callable[[], object], rounds: int) -> float:
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


QUERY = f"""
SELECT count(*), (SELECT max(similarity) FROM similar_segments('{ENCODER}', (SELECT min(segment_id) FROM segments), 10))
FROM segments
"""


def read_repeatedly(published: Path, stop: Event, results: mp.Queue[tuple[list[float], list[float], int]]) -> None:
    """Open the published file, ask for the ten most similar of a segment, close; until it has to stop."""
    opening, asking, failed = [], [], 0
    while not stop.is_set():
        started = time.perf_counter()
        try:
            with duckdb.connect(str(published), read_only=True) as connection:
                opening.append(time.perf_counter() - started)
                connection.execute(QUERY).fetchall()
                asking.append(time.perf_counter() - started - opening[-1])
        except duckdb.Error:
            failed += 1
    results.put((opening, asking, failed))


def read_beside(home: Home, work: Callable[[], object]) -> tuple[list[float], list[float], int]:
    """What a reader in another process sees while `work` runs here."""
    stop: Event = mp.Event()
    results: mp.Queue[tuple[list[float], list[float], int]] = mp.Queue()
    reader = mp.Process(target=read_repeatedly, args=(home.published, stop, results))
    reader.start()
    work()
    stop.set()
    seen = results.get()
    reader.join()
    return seen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--segments", type=int, default=1_000_000)
    parser.add_argument("--batch", type=int, default=20_000, help="segments of a batch")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder))
        with staging(home):
            pass
        add_model(home, "first")
        batches = [f"b{i:03d}" for i in range(arguments.segments // arguments.batch)]
        seconds = [load(home, "first", batch_id, arguments.batch) for batch_id in batches]
        rows = [
            ("loading a batch, the first five", statistics.median(seconds[:5])),
            ("loading a batch, the last five", statistics.median(seconds[-5:])),
            ("publishing", median_s(lambda: publish(home), 3)),
        ]
        size = home.published.stat().st_size
        with duckdb.connect(str(home.published), read_only=True) as connection:
            (segment,) = connection.execute("SELECT min(segment_id) FROM segments").fetchall()[0]

            def search() -> object:
                return connection.execute(f"FROM similar_segments('{ENCODER}', ?, 10)", [segment]).fetchall()

            def means() -> object:
                return connection.sql(f"FROM participant_embedding('{ENCODER}')").to_arrow_table()

            started = time.perf_counter()
            search()
            rows.append(("exact top 10, first after opening", time.perf_counter() - started))
            rows.append(("exact top 10", median_s(search, 9)))
            rows.append((f"mean of every participant ({arguments.segments // PER_PARTICIPANT:,})", median_s(means, 3)))

        alone = read_beside(home, lambda: time.sleep(10))
        beside = read_beside(home, lambda: [load(home, "first", batch_id, arguments.batch) for batch_id in batches[:8]])
        publishing = read_beside(home, lambda: publish(home))

        add_model(home, "second")
        for batch_id in batches:
            load(home, "second", batch_id, arguments.batch)
        rows.append(("publishing after a new model was swapped in", median_s(lambda: publish(home), 1)))
        again = home.published.stat().st_size

    print(f"{arguments.segments:,} × {WIDTH} embeddings, batches of {arguments.batch:,}; {os.cpu_count()} cores\n")
    print("| | seconds |\n|---|---|")
    for what, value in rows:
        print(f"| {what} | {value:.3f} |")
    print("\n| a reader beside | opens: opening (median, longest ms) | asking (median, longest ms) | refused |")
    print("|---|---|---|---|")
    for what, (opening, asking, failed) in (("nothing", alone), ("loading", beside), ("publishing", publishing)):
        numbers = (f"{1e3 * statistics.median(times):.1f}, {1e3 * max(times):.1f}" for times in (opening, asking))
        print(f"| {what} | {len(opening)}: {' | '.join(numbers)} | {failed} |")
    print(f"\nPublished: {size / 1e9:.2f} GB; after the swap {again / 1e9:.2f} GB.")
    print(f"Peak memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.1f} GB.")


if __name__ == "__main__":
    main()
