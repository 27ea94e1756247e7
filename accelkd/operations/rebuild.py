"""The warehouse from the home's files: for a staging file that is damaged, lost, or of a schema that does not fit."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import duckdb

from accelkd.cohort.loaded import usable_batches, write_loaded
from accelkd.home.files import DamagedFileError
from accelkd.home.layout import Home
from accelkd.models.specs import ENCODERS
from accelkd.operations.embed import embed_batch
from accelkd.operations.fairness import measure_fairness
from accelkd.operations.readouts import predict_all, refresh_readouts
from accelkd.operations.repair import repairing
from accelkd.operations.sensor_check import check_sensors
from accelkd.recordings.arrivals import SupersededError
from accelkd.recordings.corrections import RefusedBatchError
from accelkd.registry.history import promoted_models
from accelkd.registry.trained_on import read_trained_on
from accelkd.reports.report import map_embeddings, probe_encoder, retrieve_pairs, write_report
from accelkd.training.checkpoint import read_config
from accelkd.warehouse.load import load_batch, load_decisions, load_model, load_split, settle_batches
from accelkd.warehouse.publish import PublishedInfo, publish
from accelkd.warehouse.sensors import load_sensor_checks
from accelkd.warehouse.staging import staging, staging_lock

# Scores of older models and the histories of runs and checks are in no file of the home.
HISTORY = (
    "probe_results",
    "participant_probe_results",
    "retrieval_results",
    "check_results",
    "drift_history",
    "provenance.edges",
    "provenance.artifacts",
    "provenance.runs",
)


class _RebuildingHome(Home):
    """The same home with another staging file."""

    @property
    def staging(self) -> Path:
        return self.root / "warehouse" / "rebuilding.duckdb"

    @property
    def loaded(self) -> Path:
        return self.root / "warehouse" / "rebuilding.json"


def rebuild_warehouse(home: Home) -> PublishedInfo:
    """Load every batch that was loaded, the split and every checkpoint again, embed, evaluate and publish.

    If it is not known which batches were loaded, every segmented one that is neither superseded nor refused is. A batch
    that has been refused meanwhile is left out, as it would be if it was loaded again.
    Results of models that are no longer promoted, and the histories of runs and checks, are taken from the old staging
    file, or from the published one where that cannot be read. Writers wait; until all is done the old file and the
    published one stay in place. Raises whatever a loader raises for a file of the home that is missing or damaged, and
    then changes nothing.
    """
    beside = _RebuildingHome(**vars(home))
    leftovers = [
        beside.staging,
        beside.staging.with_name(f"{beside.staging.name}.wal"),
        beside.staging.with_suffix(".lock"),
        beside.loaded,
    ]
    with staging_lock(home):
        try:
            for path in leftovers:
                path.unlink(missing_ok=True)
            _load(beside, _loaded(home))
            _evaluate(beside)
            any(_keep_history(beside, old) for old in (home.staging, home.published) if old.exists())
            with duckdb.connect(str(beside.staging)) as connection:
                connection.execute("FORCE CHECKPOINT")
            home.staging.with_name(f"{home.staging.name}.wal").unlink(missing_ok=True)
            beside.staging.replace(home.staging)
            write_loaded(home, usable_batches(beside))
        finally:
            for path in leftovers:
                path.unlink(missing_ok=True)
    settle_batches(home)
    return publish(home)


def _loaded(home: Home) -> list[str]:
    """The batches that the warehouse held, as far as it is known."""
    try:
        return usable_batches(home)
    except DamagedFileError as error:
        print(f"{error}; every batch that is neither superseded nor refused is loaded")
        home.loaded.unlink()
        return usable_batches(home)


def _load(home: Home, batch_ids: list[str]) -> None:
    write_loaded(home, batch_ids)
    for batch_id in batch_ids:
        try:
            repairing(home, partial(load_batch, home, batch_id), [batch_id])
        except (SupersededError, RefusedBatchError) as error:  # what was loaded before it has taken its place
            print(f"left out: {error}")
            continue
        _check_sensors(home, batch_id)
    if home.split.exists():
        load_split(home)
    listed = [(path.parent.name, path.stem) for path in (home.root / "cohort" / "trained_on").glob("*/[!.]*.parquet")]
    for encoder, model_id in sorted(listed, key=lambda model: _learned_from(home, *model)):
        load_model(home, encoder, model_id, read_trained_on(home, encoder, model_id)[1])
    load_decisions(home)
    for encoder in _promoted(home):
        for batch_id in usable_batches(home):
            embed_batch(home, encoder, batch_id)


def _check_sensors(home: Home, batch_id: str) -> None:
    """Measure a batch's sensors again; what prevents it costs only their rows."""
    try:
        load_sensor_checks(home, batch_id, check_sensors(home, batch_id))
    except Exception as error:
        print(f"the sensors of batch {batch_id} were not checked: {error}")


def _evaluate(home: Home) -> None:
    encoders = _promoted(home)
    for encoder in encoders:
        probe_encoder(home, encoder)
    if len(encoders) > 1:
        retrieve_pairs(home)
        map_embeddings(home)
    if encoders:
        refresh_readouts(home)
        predict_all(home)
        measure_fairness(home)
        write_report(home)


def _promoted(home: Home) -> list[str]:
    models = promoted_models(home)
    return [spec.name for spec in ENCODERS if spec.name in models]


def _learned_from(home: Home, encoder: str, model_id: str) -> tuple[bool, str, str]:
    """Sorts teachers before their students."""
    return read_config(home.checkpoint(encoder, model_id))["teacher"] is not None, encoder, model_id


def _keep_history(home: Home, old: Path) -> bool:
    """Add the rows of HISTORY that the old file has and the new one does not; returns whether it can be read."""
    try:
        with duckdb.connect(str(old), read_only=True) as connection:
            tables = connection.execute("SELECT schema_name || '.' || table_name FROM duckdb_tables()").fetchall()
            rows = {
                table: connection.sql(f"FROM {table}").to_arrow_table()
                for table in HISTORY
                if (table,) in tables or (f"main.{table}",) in tables
            }
    except duckdb.Error as error:
        print(f"{old} cannot be read; what it has of earlier models, runs and checks is lost: {error}")
        return False
    with staging(home) as connection:
        for table, arriving in rows.items():
            known = {row[0] for row in connection.execute(f"DESCRIBE {table}").fetchall()}
            columns = ", ".join(name for name in arriving.column_names if name in known)
            connection.register("arriving", arriving)
            # A rebuilt artifact has its edges; an unchanged one keeps the run that made it
            new = "WHERE artifact_id NOT IN (SELECT artifact_id FROM provenance.artifacts)" if "edges" in table else ""
            instead = "REPLACE" if table == "provenance.runs" else "IGNORE"
            connection.execute(f"INSERT OR {instead} INTO {table} BY NAME SELECT {columns} FROM arriving {new}")
    return True
