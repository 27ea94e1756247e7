"""How time and memory grow with the number of rows, beside the code of before where it still runs.

    python benches/scaling.py [--most 20000000] [--only sampler split retrieval probes wide reading ...]

Each number is of a process of its own, on made-up rows of 116 segments a participant. Memory is what the process holds
beyond its inputs at most, without pages of files, which the system takes back when it needs them. Prints Markdown.
"""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing as mp
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tables

from accelkd.home.layout import Home

PER_PARTICIPANT = 116  # segments: 20 million of 172,318 participants
BATCH_SIZE = 1_024
NARROW, WIDTH = 64, 256  # of embeddings
DRAWS = 20
POOLS, POOL = 10, 40  # of 40 participants each, so that 4 million test segments can be measured on two cores
STORE_BYTES = 20_000_000  # of each store that is verified
SIZES = (1_000, 10_000, 100_000, 1_000_000, 20_000_000)

Measure = Callable[[], object]


def participants(rows: int) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
    return (np.arange(rows) // PER_PARTICIPANT).astype(np.int32)


@contextmanager
def sampler(rows: int) -> Iterator[dict[str, Measure]]:
    """The constructor, and draws; before, all participants were permuted at each step."""
    from accelkd.training.data import ParticipantSampler

    count = rows // PER_PARTICIPANT + 1
    names = pa.array([f"p{number:08d}" for number in range(count)]).take(pa.array(participants(rows)))
    made = ParticipantSampler(names)
    yield {
        "sampler made": lambda: ParticipantSampler(names),
        f"{DRAWS} batches drawn": lambda: [made.draw(0, step, BATCH_SIZE) for step in range(DRAWS)],
        f"{DRAWS} batches drawn, before": lambda: [
            np.random.default_rng([0, step]).permutation(count)[:BATCH_SIZE] for step in range(DRAWS)
        ],
    }


@contextmanager
def split(rows: int) -> Iterator[dict[str, Measure]]:
    """A ledger of so many participants is read and named."""
    from accelkd.cohort.split import LEDGER, read_split, split_version, write_split
    from accelkd.home.files import sha256_json

    number = np.arange(rows)
    same = {name: pa.array([name]).take(pa.array(number * 0)) for name in ("male", "30 to 39", "e4")}
    columns = [
        pa.array([f"p{n:08d}" for n in np.random.default_rng(0).permutation(rows)]),
        pa.array(["train", "test"]).take(pa.array(number % 2)),
        *same.values(),
        pa.array([f"b{n:04d}" for n in range(rows // 1000 + 1)]).take(pa.array(number // 1000)),
    ]
    table = pa.table(columns, LEDGER.arrow())

    def before() -> str:
        read = pq.read_table(ledger)
        sha256_json(read.to_pylist())
        Counter(read.column("participant_id").to_pylist())
        pairs = sorted(zip(read.column("participant_id").to_pylist(), read.column("split").to_pylist(), strict=True))
        return hashlib.sha256("\n".join(f"{name} {side}" for name, side in pairs).encode()).hexdigest()

    with tempfile.TemporaryDirectory() as folder:
        ledger = Path(folder) / "split.parquet"
        write_split(ledger, table)
        work: dict[str, Measure] = {"split read, with its version": lambda: split_version(read_split(ledger))}
        yield work | ({"split read, with its version, before": before} if rows <= 1_000_000 else {})


@contextmanager
def retrieval(rows: int) -> Iterator[dict[str, Measure]]:
    """Test segments, a fifth of all; before, every pair of them was compared."""
    from accelkd.evaluation.retrieval import ranks, retrieve

    rows //= 5
    rng = np.random.default_rng(0)
    queries, keys = (rng.standard_normal((rows, NARROW), np.float32) for _ in range(2))
    people = participants(rows)
    work: dict[str, Measure] = {
        f"{POOLS} pools of {POOL} participants": lambda: retrieve(
            queries, keys, people, pools=POOLS, pool_participants=POOL, device="cpu"
        )
    }
    yield work | ({"every pair of test segments, before": lambda: ranks(queries, keys)} if rows <= 20_000 else {})


@contextmanager
def probes(rows: int, width: int = NARROW) -> Iterator[dict[str, Measure]]:
    """A probe is fitted on four fifths and predicts the rest, from a file; before, from copies in memory."""
    from accelkd.evaluation.matrix import store
    from accelkd.evaluation.probes import fit_ridges

    rng = np.random.default_rng(0)
    parts = (
        (
            np.arange(start, min(start + 50_000, rows)),
            rng.standard_normal((min(50_000, rows - start), width), np.float32),
        )
        for start in range(0, rows, 50_000)
    )
    people, y = participants(rows), rng.standard_normal((rows, 1))
    in_test = people % 5 == 0
    train, test = np.flatnonzero(~in_test), np.flatnonzero(in_test)

    def fit() -> object:
        return fit_ridges(matrix, y[train], people[train], train).predict(matrix.take(test))

    def before() -> object:
        x, held_out = np.array(matrix.values)[train], np.array(matrix.values)[test]
        mean, scale = x.mean(axis=0, dtype=np.float64), x.std(axis=0, dtype=np.float64)
        for fold in range(5):
            own = people[train] // 5 % 5 == fold
            standardised = np.column_stack([(x[own] - mean) / scale, y[train][own]])
            standardised.T @ standardised
        return held_out @ mean

    matrix = store(parts, (rows, width))
    name = f"a probe, width {width}"
    yield {name: fit} | ({f"{name}, before (without the solution)": before} if rows <= 1_000_000 else {})


@contextmanager
def reading(rows: int) -> Iterator[dict[str, Measure]]:
    """Embeddings are read out of the warehouse with their labels; before, into memory and in order."""
    from accelkd.warehouse.read_embeddings import read_embeddings
    from accelkd.warehouse.schema import create, embeddings_table
    from accelkd.warehouse.staging import staging

    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder))
        with staging(home) as connection:
            connection.execute(create(embeddings_table("e", WIDTH)))
            connection.execute(
                "INSERT INTO segments BY NAME SELECT md5(i::VARCHAR) AS segment_id, segment_id AS recording_id, "
                "format('p{:08d}', i // $each) AS participant_id, 'b' AS batch_id, 'e4' AS device_id, 0 AS offset_s, "
                "0 AS motion_median_g, 0 AS motion_p95_g, true AS label_good, [0] AS ppg_status, [0] AS accel_status, "
                "70 AS hr_bpm FROM range($rows) t(i)",
                {"each": PER_PARTICIPANT, "rows": rows},
            )
            connection.execute(
                "INSERT INTO split BY NAME SELECT DISTINCT participant_id, "
                "if(hash(participant_id) % 5 = 0, 'test', 'train') AS split, 'male' AS sex, 'b' AS age_band, "
                "'e4' AS device_id, 'b' AS batch_id FROM segments"
            )
            for start in range(0, rows, 50_000):
                part = rng.standard_normal((min(50_000, rows - start), WIDTH), np.float32)
                lists = pa.FixedSizeListArray.from_arrays(pa.array(part.ravel()), WIDTH)
                connection.register("part", pa.table({"i": np.arange(start, start + len(part)), "embedding": lists}))
                connection.execute(
                    "INSERT INTO embeddings.e BY NAME SELECT md5(i::VARCHAR) AS segment_id, 'b' AS batch_id, "
                    "format('p{:08d}', i // ?) AS participant_id, 'm' AS model_id, embedding FROM part",
                    [PER_PARTICIPANT],
                )
        with staging(home) as connection:
            connection.execute("SET memory_limit = '256MB'")  # of DuckDB's own cache, which counts as memory here

            def before() -> object:
                connection.execute("SET memory_limit = '8GB'")  # with less, sorting rows as wide as these failed
                read = connection.sql(
                    "SELECT segment_id, participant_id, split = 'test' AS in_test, model_id, embedding, hr_bpm FROM "
                    "embeddings.e JOIN segments USING (segment_id, participant_id) JOIN split USING (participant_id) "
                    "ORDER BY segment_id"
                ).to_arrow_table()
                names = [np.asarray(read.column(name).to_pylist()) for name in ("segment_id", "participant_id")]
                return read.column("embedding").combine_chunks().flatten().to_numpy(), names

            name = f"embeddings read, width {WIDTH}"
            yield {name: lambda: read_embeddings(connection, "e", test_only=False), f"{name}, before": before}


@contextmanager
def checksums(rows: int) -> Iterator[dict[str, Measure]]:
    """So many stores are verified by four ranks that train one encoder; before, each read every one."""
    from accelkd.home import verified
    from accelkd.home.files import verify_checksum, write_checksum

    verified.SETTLED_S = 0.0
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder))
        paths = [home.segments(f"b{number}") for number in range(rows)]
        paths[0].parent.mkdir()
        for path in paths:
            path.write_bytes(np.random.default_rng(0).bytes(STORE_BYTES))
            write_checksum(path)
        time.sleep(0.1)

        def four_ranks() -> None:
            for _ in range(4):
                with verified.verified_once(home) as verify:
                    for path in paths:
                        verify(path)

        name = f"stores of {STORE_BYTES // 10**6} MB verified by four ranks"
        yield {
            name: four_ranks,
            f"{name}, before": lambda: [verify_checksum(path) for _ in range(4) for path in paths],
            f"{name}, again within a day": four_ranks,
        }


@contextmanager
def publishing(rows: int) -> Iterator[dict[str, Measure]]:
    """Embeddings are published as tables and, with a store, as views; sizes are of the published file."""
    from accelkd.home.units import make_cache
    from accelkd.operations.share import bring_published, share_home, share_published
    from accelkd.warehouse.publish import publish

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        store = (root / "store").as_uri()
        alone, head = Home(root / "alone"), Home(root / "head", store=store, head=True)
        analyst = Home(root / "analyst", store=store)
        make_cache(head)
        share_home(head)
        work: dict[str, Measure] = {}

        def published(home: Home) -> str:
            publish(home)
            return f"{home.published.stat().st_size / 1e6:,.1f} MB on disk"

        def shared_again() -> None:
            publish(head)
            share_published(head)

        def pulled() -> str:
            bring_published(analyst)
            return f"{analyst.published.stat().st_size / 1e6:,.1f} MB on disk"

        def count() -> object:
            with duckdb.connect(str(analyst.published), read_only=True) as connection:
                return len(connection.execute(MEAN).fetchall())

        for name, home in (("tables", alone), ("views", head)):
            work[f"{name}: loaded"] = partial(fill, home, rows)
            work[f"{name}: published"] = partial(published, home)
            work[f"{name}: published again"] = partial(published, home)
        work["views: shared, embeddings uploaded too"] = lambda: share_published(head)
        work["views: published and shared again"] = shared_again
        work["views: pulled for the first time"] = pulled
        work["views: pulled again"] = pulled
        work["views: means of all participants on the analyst's machine"] = count
        work["tables: the same"] = lambda: len(
            duckdb.connect(str(alone.published), read_only=True).execute(MEAN).fetchall()
        )
        yield work


MEAN = (
    "SELECT participant_id, avg(embedding[1]), avg(hr_bpm) FROM embeddings.accel_student JOIN segments "
    "USING (segment_id, participant_id) GROUP BY participant_id"
)
BATCH_ROWS = 35_000  # a five-hundredth of 20 million: those of 300 participants


def fill(home: Home, rows: int) -> None:
    """Segments of made-up participants and their embeddings, loaded from a file for each batch."""
    from accelkd.warehouse.embedding_files import EmbeddingFile, embedding_rows, write_embeddings
    from accelkd.warehouse.embeddings import load_embeddings
    from accelkd.warehouse.provenance import Artifact, record
    from accelkd.warehouse.staging import staging

    rng = np.random.default_rng(0)
    with staging(home) as connection:
        connection.execute(
            "INSERT INTO models (encoder, model_id, modality, channels, embedding_dim, parameters, split_version, "
            "config, metrics) VALUES ('accel_student', 'm', 'accel', 3, ?, 0, '', '{}', '{}')",
            [WIDTH],
        )
        record(connection, Artifact("model", "accel_student/m", "m"), [])
    for number, start in enumerate(range(0, rows, BATCH_ROWS)):
        batch_id, count = f"b{number:03d}", min(BATCH_ROWS, rows - start)
        with staging(home) as connection:
            connection.execute(
                "INSERT INTO batches BY NAME SELECT $batch AS batch_id, 'sim' AS source, ['sim'] AS devices, "
                "1 AS participants, $rows AS recordings, $rows AS segments, 0 AS quarantined",
                {"batch": batch_id, "rows": count},
            )
            connection.execute(
                "INSERT INTO segments BY NAME SELECT md5(i::VARCHAR)[:16] AS segment_id, segment_id AS recording_id, "
                "format('p{:08d}', i // $each) AS participant_id, $batch AS batch_id, 'e4' AS device_id, "
                "0 AS offset_s, 0 AS motion_median_g, 0 AS motion_p95_g, true AS label_good, [0] AS ppg_status, "
                "[0, 0, 0] AS accel_status, 70 AS hr_bpm FROM range($start, $start + $rows) t(i)",
                {"each": PER_PARTICIPANT, "rows": count, "start": start, "batch": batch_id},
            )
            record(connection, Artifact("segments", batch_id, "0" * 64), [])
            keys = connection.sql(
                "SELECT segment_id, participant_id FROM segments WHERE batch_id = ?", params=[batch_id]
            ).to_arrow_table()
        matrix = rng.standard_normal((count, WIDTH), np.float32)
        ids, people = (keys.column(name).combine_chunks() for name in keys.column_names)
        table = embedding_rows("accel_student", "m", batch_id, ids, people, matrix)
        write_embeddings(home, EmbeddingFile("accel_student", "m", batch_id, count, WIDTH, None, "", "", {}), table)
        load_embeddings(home, "accel_student", table)


PARTS: dict[str, tuple[Callable[[int], AbstractContextManager[dict[str, Measure]]], tuple[int, ...]]] = {
    "sampler": (sampler, SIZES),
    "split": (split, (1_000, 10_000, 172_318, 1_000_000)),
    "retrieval": (retrieval, SIZES),
    "probes": (probes, SIZES),
    "wide": (partial(probes, width=WIDTH), (1_000, 10_000, 100_000, 1_000_000)),
    "reading": (reading, (1_000, 10_000, 100_000, 400_000)),
    "checksums": (checksums, (1, 10, 100)),
    "publishing": (publishing, (10_000, 100_000, 1_000_000)),
}


def anonymous_mb() -> float:
    """Memory of this process that no file stands behind; 0 where the system does not say."""
    status = Path("/proc/self/status")
    lines = status.read_text(encoding="ascii").splitlines() if status.exists() else []
    return next((int(line.split()[1]) / 1e3 for line in lines if line.startswith("RssAnon")), 0.0)


def measured(part: str, rows: int) -> list[tuple[str, float, float, str]]:
    """Name, seconds and MB of each measurement, and what it says of itself."""
    results = []
    with PARTS[part][0](rows) as work:
        inputs = anonymous_mb()
        for name, do in work.items():
            peak, done = [0.0], threading.Event()

            def watch(peak: list[float] = peak, done: threading.Event = done) -> None:
                while not done.wait(0.005):
                    peak[0] = max(peak[0], anonymous_mb())

            watching = threading.Thread(target=watch)
            watching.start()
            started = time.perf_counter()
            result = do()
            seconds = time.perf_counter() - started
            peak[0] = max(peak[0], anonymous_mb())
            said = result if isinstance(result, str) else ""
            del result
            done.set()
            watching.join()
            results.append((name, seconds, max(peak[0] - inputs, 0.0), said))
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--most", type=int, default=SIZES[-1], help="rows at most")
    parser.add_argument("--only", nargs="*", choices=[*PARTS], default=[*PARTS])
    arguments = parser.parse_args()
    for part in arguments.only:
        sizes = [size for size in PARTS[part][1] if size <= arguments.most]
        rows: dict[str, list[str]] = {}
        for number, size in enumerate(sizes):
            with mp.get_context("spawn").Pool(1) as process:
                for name, seconds, mb, said in process.apply(measured, (part, size)):
                    shown = f"{seconds:.3g} s" if seconds < 1_000 else f"{seconds:.0f} s"
                    rows.setdefault(name, [""] * len(sizes))[number] = ", ".join(
                        [shown, f"{mb:,.0f} MB", *filter(None, [said])]
                    )
        tables.header(part, *(f"{size:,}" for size in sizes))
        for name, cells in rows.items():
            tables.row(name, *cells)


if __name__ == "__main__":
    main()
