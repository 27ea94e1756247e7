"""With a store the warehouse's embeddings are views of files: the same for who reads them, and copied nowhere."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import duckdb
import pytest

from accelkd.home.files import DamagedFileError
from accelkd.home.layout import Home
from accelkd.home.store import open_store
from accelkd.home.units import stored_files
from accelkd.operations.promote import fill_tables, roll_back
from accelkd.operations.remnants import find_remnants
from accelkd.operations.share import bring_published, refresh_worker, share_home, share_published
from accelkd.operations.withdraw import withdraw
from accelkd.registry.history import decide
from accelkd.warehouse.embedding_relations import remove_unused
from accelkd.warehouse.inspect import table_contents
from accelkd.warehouse.publish import NO_CONTENT, PublishedInfo, publish
from accelkd.warehouse.read_embeddings import read_embeddings
from accelkd.warehouse.schema import EMBEDDING_FILES
from accelkd.warehouse.staging import staging
from tests.support.homes import land, land_two_batches, load_and_split, loaded_pair

TEACHER = "ppg_teacher"
Open = Callable[[str], Home]


@pytest.fixture
def head(machine: Open) -> Home:
    home = machine("head")
    fill(home)
    return home


def fill(home: Home) -> None:
    land_two_batches(home)
    promote(home)


def promote(home: Home, seed: int = 0) -> dict[str, str]:
    models = loaded_pair(home, ["b1", "b2"], seed=seed)
    decide(home, "promoted", models, "test")
    fill_tables(home)
    return models


def share(home: Home) -> PublishedInfo:
    published = publish(home)
    share_home(home)
    share_published(home)
    return published


def content(home: Home) -> dict[str, tuple[int, int | None]]:
    """Rows of every published table with the sum of their hashes, but for which run wrote what and when."""
    return {table: rows for table, rows in table_contents(home.published).items() if table not in NO_CONTENT}


def columns(connection: duckdb.DuckDBPyConnection) -> list[tuple[str, ...]]:
    """Names, types and comments of all that an analyst finds, but for the list of files."""
    return connection.execute(
        "SELECT schema_name, table_name, column_name, data_type, comment FROM duckdb_columns() "
        "WHERE NOT internal AND table_name <> 'embedding_files' ORDER BY ALL"
    ).fetchall()


def count(file: Path) -> int:
    """Read by a process of its own, as analysts do: DuckDB takes a file of the same name for the one that is open."""
    query = "SELECT count(embedding[1]) FROM embeddings.ppg_teacher JOIN participants USING (participant_id)"
    code = f"import duckdb; print(duckdb.connect({str(file)!r}, read_only=True).execute({query!r}).fetchall()[0][0])"
    return int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


def pinned(home: Home) -> set[str]:
    return {path.relative_to(home.objects).as_posix() for path in home.objects.rglob("embeddings/*/*/*/*")}


def test_files_publish_what_tables_publish(head: Home, machine: Open, tmp_path: Path) -> None:
    alone = Home(tmp_path / "alone")
    fill(alone)
    expected, shared = publish(alone), share(head)
    assert (shared.rows, shared.content_version) == (expected.rows, expected.content_version)
    analyst = machine("analyst")
    bring_published(analyst)
    assert not list((analyst.root / "embeddings").glob("*"))  # it has brought nothing but what the views read
    contents = content(alone)
    assert contents["embeddings.ppg_teacher"][0] == 36
    for home in (head, analyst):
        assert content(home) == contents
        with duckdb.connect(str(home.published), read_only=True) as connection:
            for name in ("ppg_teacher", "accel_student"):  # read, not summed from the list of files
                rows = connection.execute(f"SELECT count(*), sum(hash(t)) FROM embeddings.{name} t").fetchall()
                assert rows == [contents[f"embeddings.{name}"]]
            seen = columns(connection)
            own = read_embeddings(connection, TEACHER, test_only=False)
        with duckdb.connect(str(alone.published), read_only=True) as connection:
            assert seen == columns(connection)
            other = read_embeddings(connection, TEACHER, test_only=False)
        assert own.segment_ids == other.segment_ids
        assert (own.matrix.values == other.matrix.values).all()


def test_the_file_does_not_grow_with_embeddings_and_the_store_has_each_once(head: Home) -> None:
    share(head)
    with duckdb.connect(str(head.published), read_only=True) as connection:
        listed = connection.execute(
            "SELECT column_name, comment FROM duckdb_columns() WHERE table_name = 'embedding_files'"
        ).fetchall()
        kinds = connection.execute("SELECT count(*) FROM duckdb_tables() WHERE schema_name = 'embeddings'").fetchall()
    assert listed == [(column.name, column.comment) for column in EMBEDDING_FILES.columns]
    assert kinds == [(0,)]
    for path in head.root.glob("embeddings/*/*/*.parquet"):
        name = head.relative(path)
        keys = [entry.key for entry in open_store(str(head.store)).list(f"objects/{name}")]
        assert keys == [f"objects/{name}/{(path.with_name(path.name + '.sha256')).read_text()[:64]}"]
        (own,) = (head.objects / name).iterdir()
        assert own.samefile(path)


def test_a_pull_brings_only_what_is_new(head: Home, machine: Open) -> None:
    share(head)
    analyst = machine("analyst")
    bring_published(analyst)
    before = {name: (analyst.objects / name).stat().st_ino for name in pinned(analyst)}
    land(head, "b3", ["r1", "r2"])
    load_and_split(head, ["b3"])
    fill_tables(head)
    share(head)
    bring_published(analyst)
    after = {name: (analyst.objects / name).stat().st_ino for name in pinned(analyst)}
    assert len(before) == 4
    assert len(after) == 6
    assert before.items() <= after.items()


def test_who_reads_while_another_model_is_published_goes_on_reading_the_former(head: Home, machine: Open) -> None:
    analyst = machine("analyst")
    share(head)
    bring_published(analyst)
    query = "SELECT any_value(model_id), count(*), sum(embedding[1]) FROM embeddings.ppg_teacher"
    homes = (head, analyst)
    connections = [duckdb.connect(str(home.published), read_only=True) for home in homes]
    before = [connection.execute(query).fetchall() for connection in connections]
    for seed in (1, 2):  # so that files of the first are neither promoted, nor the ones to go back to
        models = promote(head, seed)
        share(head)
        bring_published(analyst)
    assert not (head.root / "embeddings" / TEACHER / before[0][0][0]).exists()
    assert [connection.execute(query).fetchall() for connection in connections] == before
    for connection in connections:
        connection.close()
    for home in homes:
        with duckdb.connect(str(home.published), read_only=True) as connection:
            assert connection.execute(query).fetchall()[0][0] == models[TEACHER]
        remove_unused(home, 0)  # a day later
        assert {name.split("/")[2] for name in pinned(home)} <= pinned_models(home)
        assert count(home.published) == 36


def pinned_models(home: Home) -> set[str]:
    with duckdb.connect(str(home.staging if home.head else home.published), read_only=True) as connection:
        return {row[0] for row in connection.execute("SELECT model_id FROM provenance.embedding_files").fetchall()}


def test_a_rollback_takes_the_former_files(head: Home) -> None:
    first = promote(head, 1)
    promote(head, 2)
    roll_back(head, "test")
    with duckdb.connect(str(head.published), read_only=True) as connection:
        models = connection.execute("SELECT DISTINCT model_id FROM embeddings.ppg_teacher").fetchall()
    assert models == [(first[TEACHER],)]


def test_readers_see_one_publication_or_the_other(head: Home, machine: Open) -> None:
    share(head)
    analyst = machine("analyst")
    bring_published(analyst)
    code = (
        "import duckdb, sys, os\n"
        "print('ready', flush=True)\n"
        "while not os.path.exists(sys.argv[2]):\n"
        "    with duckdb.connect(sys.argv[1], read_only=True) as c:\n"
        "        models = c.execute('SELECT list(DISTINCT model_id) FROM embeddings.ppg_teacher').fetchall()[0][0]\n"
        "        n = c.execute('SELECT count(*), count(s.segment_id) FROM embeddings.ppg_teacher '\n"
        "                      'LEFT JOIN segments s USING (segment_id)').fetchall()[0]\n"
        "        print(*models, *n, flush=True)\n"
    )
    end = analyst.root / "end"
    reader = subprocess.Popen(
        [sys.executable, "-c", code, str(analyst.published), str(end)], stdout=subprocess.PIPE, text=True
    )
    assert reader.stdout is not None
    assert reader.stdout.readline() == "ready\n"
    expected = {" ".join([pinned_teacher(head), "36", "36"])}
    for seed in (1, 2):
        promote(head, seed)
        share(head)
        bring_published(analyst)
        expected.add(" ".join([pinned_teacher(head), "36", "36"]))
        time.sleep(0.3)
    end.touch()
    said, _ = reader.communicate(timeout=60)
    assert reader.returncode == 0
    assert len(set(said.splitlines())) > 1
    assert set(said.splitlines()) <= expected


def test_a_pull_that_is_interrupted_leaves_the_former_publication(
    head: Home, machine: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    share(head)
    analyst = machine("analyst")
    bring_published(analyst)
    former = content(analyst)
    promote(head, 1)
    share(head)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as interrupted:
        interrupted.setattr("accelkd.operations.share.make_views", killed)
        with pytest.raises(KeyboardInterrupt):
            bring_published(analyst)
    assert content(analyst) == former
    assert count(analyst.published) == 36
    bring_published(analyst)
    assert content(analyst) == content(head) != former


def pinned_teacher(home: Home) -> str:
    with staging(home) as connection:
        return str(connection.execute("SELECT any_value(model_id) FROM embeddings.ppg_teacher").fetchall()[0][0])


def test_withdrawal_leaves_nothing_on_any_machine_and_the_others_rows_stay(head: Home, machine: Open) -> None:
    analysts = [machine(name) for name in ("analyst", "away")]
    share(head)
    for analyst in analysts:
        bring_published(analyst)
    name = "p1"
    segments = {f"b1-{name}"}
    with duckdb.connect(str(head.published), read_only=True) as connection:
        ids = connection.execute("SELECT segment_id FROM segments WHERE participant_id = ?", [name]).fetchall()
    names = {name, *segments, *(segment for (segment,) in ids)}
    assert any("objects" in place for place in find_remnants(analysts[0].root, names, []).places)

    assert withdraw(head, name).finished
    assert count(head.published) == 33
    bring_published(analysts[0])
    assert count(analysts[0].published) == 33
    refresh_worker(analysts[1])  # which does not pull what is published again
    store = Path(str(head.store).removeprefix("file://"))
    for root in (head.root, *(analyst.root for analyst in analysts), store):
        assert not find_remnants(root, names, []).places
    fill_tables(head)


def test_a_file_that_is_missing_or_damaged_is_named(head: Home, machine: Open) -> None:
    share(head)
    analyst = machine("analyst")
    bring_published(analyst)
    name = sorted(pinned(analyst))[-1]
    (analyst.objects / name).unlink()
    with duckdb.connect(str(analyst.published), read_only=True) as connection, pytest.raises(duckdb.Error, match=name):
        connection.execute("SELECT sum(embedding[1]) FROM embeddings.ppg_teacher").fetchall()
    bring_published(analyst)
    assert count(analyst.published) == 36
    (analyst.objects / name).write_bytes(b"damaged")
    with duckdb.connect(str(analyst.published), read_only=True) as connection, pytest.raises(duckdb.Error, match=name):
        connection.execute("SELECT sum(embedding[1]) FROM embeddings.ppg_teacher").fetchall()
    bring_published(analyst)
    assert count(analyst.published) == 36

    before = stored_files(head, "published")
    (head.objects / name).write_bytes(b"damaged")
    with pytest.raises(DamagedFileError, match=name):
        share_published(head)
    (head.objects / name).unlink()
    with pytest.raises(DamagedFileError, match=rf"{name} is missing"):
        share_published(head)
    assert stored_files(head, "published") == before


def test_a_home_gets_a_store_is_moved_and_loses_it(tmp_path: Path) -> None:
    alone = Home(tmp_path / "alone")
    fill(alone)
    expected = publish(alone)
    head = replace(alone, store=(tmp_path / "store").as_uri(), head=True)
    shared = publish(head)
    assert (shared.rows, shared.content_version) == (expected.rows, expected.content_version)
    moved = replace(head, root=tmp_path / "it's moved")
    head.root.rename(moved.root)
    assert publish(moved).content_version == expected.content_version
    assert count(moved.published) == 36
    again = publish(replace(moved, store=None, head=False))
    assert (again.rows, again.content_version) == (expected.rows, expected.content_version)
    with duckdb.connect(str(moved.published), read_only=True) as connection:
        tables = connection.execute("SELECT count(*) FROM duckdb_tables() WHERE schema_name = 'embeddings'").fetchall()
        assert tables == [(2,)]
