"""The run launcher that dagster.yaml names: it notices when a run's process is gone, whoever killed it.

Belongs here: how runs are started and watched. Does not belong here: what they do, and when (jobs, sensors).
"""

from __future__ import annotations

import dagster as dg

from accelkd.home.layout import Home
from orchestration.catch_up_lock import CATCH_UP, catch_up_lock
from orchestration.dagster_internals import CheckRunHealthResult, WorkerStatus, runs_in_code_server


class CheckingRunLauncher(dg.DefaultRunLauncher):
    """Dagster's default launcher, with the health check that its run monitoring asks for.

    Without it a run whose machine went down stays started for ever, and with it the writer that waits for its slot.
    """

    @property
    def supports_check_run_worker_health(self) -> bool:
        return True

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """Ask the code server that started the run whether it still runs its process.

        The runs of a catch-up have no process of their own: they run as long as it holds its lock.
        """
        if CATCH_UP in run.tags:
            try:
                with catch_up_lock(Home.from_environment(), busy="a catch-up is running"):
                    return CheckRunHealthResult(WorkerStatus.NOT_FOUND, "the catch-up that it was part of is gone")
            except BlockingIOError:
                return CheckRunHealthResult(WorkerStatus.RUNNING)
        try:
            running = runs_in_code_server(self, run.run_id)
        except LookupError:
            return CheckRunHealthResult(WorkerStatus.NOT_FOUND, "no code server is on record for this run")
        except ConnectionError:
            return CheckRunHealthResult(WorkerStatus.NOT_FOUND, "the code server that started this run is gone")
        if running:
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        return CheckRunHealthResult(WorkerStatus.NOT_FOUND, "the code server no longer runs this run's process")
