"""A run that was given up changes nothing any more, wherever its process still runs.

Dagster fails a run whose machine does not answer, and starts it again elsewhere. The first process may live on: cut
off, stopped for a while, or orphaned. Belongs here: whether a run may still write, and that the database refuses what
it reports to Dagster. Does not belong here: ending its process (ray_run), and refusing its files (accelkd.home).
"""

from __future__ import annotations

import dagster as dg

from orchestration.dagster_internals import execute_in_postgres

# Locking the run's row makes one of them wait: a run is either failed before the event, and refused, or after it.
# Whoever fails a run says so without a step, and names the assets that it did not make.
_FENCE = (
    """
    CREATE OR REPLACE FUNCTION accelkd_refuse_event() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE
        run_status varchar;
    BEGIN
        SELECT status INTO run_status FROM runs WHERE run_id = NEW.run_id FOR SHARE;
        IF run_status IN ('FAILURE', 'CANCELED') THEN
            RAISE EXCEPTION 'run % has ended as %: it reports nothing more', NEW.run_id, run_status;
        END IF;
        RETURN NEW;
    END $$
    """,
    """
    CREATE OR REPLACE TRIGGER accelkd_refuse_event BEFORE INSERT ON event_logs FOR EACH ROW WHEN (
        (NEW.step_key IS NOT NULL AND NEW.dagster_event_type IS DISTINCT FROM 'ASSET_FAILED_TO_MATERIALIZE')
        OR NEW.dagster_event_type IN ('PIPELINE_START', 'PIPELINE_SUCCESS', 'PIPELINE_FAILURE', 'PIPELINE_CANCELED')
    ) EXECUTE FUNCTION accelkd_refuse_event()
    """,
    """
    CREATE OR REPLACE FUNCTION accelkd_refuse_status() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        RAISE EXCEPTION 'run % has ended as %: it does not become %', OLD.run_id, OLD.status, NEW.status;
    END $$
    """,
    """
    CREATE OR REPLACE TRIGGER accelkd_refuse_status BEFORE UPDATE ON runs FOR EACH ROW WHEN (
        OLD.status IN ('FAILURE', 'CANCELED') AND NEW.status <> OLD.status
    ) EXECUTE FUNCTION accelkd_refuse_status()
    """,
)


def fence_runs(instance: dg.DagsterInstance) -> None:
    """Let the database refuse what failed and canceled runs report, and that they become anything else.

    Idempotent. Raises ValueError for an instance whose storage is not PostgreSQL.
    """
    execute_in_postgres(instance, _FENCE)


def was_given_up(instance: dg.DagsterInstance, run_id: str) -> bool:
    """Whether a run counts as failed or canceled, or was deleted."""
    run = instance.get_run_by_id(run_id)
    return run is None or run.status in (dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)


def run_is_alive(instance: dg.DagsterInstance, run_id: str) -> bool:
    """Whether a run may still write: it is there and has not ended. Raises if the storage does not answer."""
    run = instance.get_run_by_id(run_id)
    return run is not None and not run.is_finished
