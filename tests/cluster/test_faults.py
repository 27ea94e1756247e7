"""Parts of a cluster die, somebody reads while it publishes, somebody withdraws: nothing is lost, half or left over."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import duckdb
import psycopg
import pytest
from ray.job_submission import JobSubmissionClient

from accelkd.operations.share import bring_published, share_published
from accelkd.warehouse.publish import publish
from accelkd.warehouse.staging import staging
from tests.support.cluster_faults import CPUS, STAGES, Faults, prepared
from tests.support.cluster_home import cluster_home
from tests.support.processes import wait_until
from tests.support.services import Postgres, S3Server

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def faults(postgres: Postgres, s3_server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Faults]:
    scratch = tmp_path_factory.mktemp("faults")
    with cluster_home(scratch / "home", postgres, s3_server, cpus=CPUS) as cluster:
        yield prepared(cluster, scratch)


@pytest.mark.parametrize(("kind", "stage"), [("worker raylet", 1), ("catch-up", 2)])
def test_what_dies_is_made_up_for(faults: Faults, kind: str, stage: int) -> None:
    happened = faults.round(0, kind=kind, stage=stage)
    assert STAGES[stage] in happened.during
    assert happened.ends[-1] == "done"
    assert happened.wrong == []


def test_no_credential_is_written_down(faults: Faults) -> None:
    cluster = faults.cluster
    secrets = {
        "password of PostgreSQL": psycopg.conninfo.conninfo_to_dict(cluster.postgres.dsn)["password"],
        "secret of the bucket": cluster.s3.secret_access_key,
        "token of Ray": cluster.cluster.token,
    }
    texts = {}
    with psycopg.connect(cluster.environment["ACCELKD_DAGSTER_POSTGRES_URL"].replace("+psycopg2", "")) as connection:
        tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        for (table,) in tables:  # runs with their tags, and events with their metadata, among them
            rows = connection.execute(f"SELECT t::text FROM {table} t".encode()).fetchall()
            texts[f"Dagster's table {table}"] = "\n".join(row for (row,) in rows).encode()
    assert texts["Dagster's table event_logs"]
    assert texts["Dagster's table runs"]
    bearer = {"Authorization": f"Bearer {cluster.cluster.token}"}  # Ray has looked for a token when it was imported
    jobs = JobSubmissionClient(cluster.cluster.job_server, headers=bearer)
    for job in jobs.list_jobs():
        texts[f"Ray's job {job.submission_id}"] = repr(job).encode()
        texts[f"log of Ray's job {job.submission_id}"] = jobs.get_job_logs(str(job.submission_id)).encode()
    for root in (cluster.home.root, faults.worker.root, cluster.cluster.folder / "s"):
        for path in (path for path in root.rglob("*") if path.is_file() and not path.is_symlink()):
            texts[str(path)] = path.read_bytes()
    assert len(texts) > 100
    wanted = {name: str(secret).encode() for name, secret in secrets.items()}
    assert [(name, where) for where, text in texts.items() for name, secret in wanted.items() if secret in text] == []


def test_a_worker_that_reads_while_the_head_publishes_sees_one_publication_or_the_other(faults: Faults) -> None:
    home, worker = faults.home, faults.worker
    note = home.reports / "publication.txt"
    seen: list[tuple[int, int]] = []  # what the published file says, and what a report beside it
    ends = threading.Event()

    def read() -> None:
        while not ends.is_set():
            bring_published(worker)
            with duckdb.connect(str(worker.published), read_only=True) as connection:
                rows = connection.execute(
                    "SELECT count(*) FROM duckdb_tables() WHERE table_name LIKE 'publication_%'"
                ).fetchall()
                connection.execute("SELECT sum(hash(t)) FROM segments t").fetchall()
            seen.append((rows[0][0], int((worker.reports / note.name).read_text())))

    def publish_as(number: int) -> None:
        note.write_text(str(number))
        publish(home)
        share_published(home)

    def has_read(number: int) -> bool:
        return reader.done() or (bool(seen) and seen[-1][0] == number)

    publish_as(0)
    with ThreadPoolExecutor() as pool:
        reader = pool.submit(read)
        try:
            wait_until(partial(has_read, 0), limit_s=60)
            for number in (1, 2):
                with staging(home) as connection:
                    connection.execute(f"CREATE TABLE publication_{number} (number INTEGER)")
                publish_as(number)
                wait_until(partial(has_read, number), limit_s=60)
        finally:
            ends.set()
        reader.result()
    assert set(seen) == {(0, 0), (1, 1), (2, 2)}
    assert seen == sorted(seen)
    with staging(home) as connection:
        connection.execute("DROP TABLE publication_1; DROP TABLE publication_2")
    note.unlink()


def test_nothing_is_left_of_who_withdraws_in_the_store_or_a_workers_cache(faults: Faults) -> None:
    before, wrong = faults.withdraw()
    assert before > 0
    assert wrong == []
