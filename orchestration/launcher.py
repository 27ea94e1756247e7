"""A run launcher that notices when a run's process is gone, whoever killed it."""

from __future__ import annotations

from dagster import DagsterRun
from dagster._core.errors import DagsterUserCodeUnreachableError
from dagster._core.launcher.base import CheckRunHealthResult, WorkerStatus
from dagster._core.launcher.default_run_launcher import DefaultRunLauncher
from dagster._grpc.types import CanCancelExecutionRequest, CanCancelExecutionResult
from dagster_shared.serdes import deserialize_value


class CheckingRunLauncher(DefaultRunLauncher):
    """Dagster's default launcher, with the health check that its run monitoring asks for.

    Without it a run whose machine went down stays started for ever, and with it the writer that waits for its slot.
    """

    @property
    def supports_check_run_worker_health(self) -> bool:
        return True

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """Ask the code server that started the run whether it still knows it."""
        client = self._get_grpc_client_for_termination(run.run_id)  # type: ignore[no-untyped-call]  # Dagster's, untyped
        if client is None:
            return CheckRunHealthResult(WorkerStatus.NOT_FOUND, "no code server is on record for this run")
        try:
            answer = deserialize_value(
                client.can_cancel_execution(CanCancelExecutionRequest(run_id=run.run_id), timeout=10),
                CanCancelExecutionResult,
            )
        except DagsterUserCodeUnreachableError:
            return CheckRunHealthResult(WorkerStatus.NOT_FOUND, "the code server that started this run is gone")
        if answer.can_cancel:
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        return CheckRunHealthResult(WorkerStatus.NOT_FOUND, "the code server no longer runs this run's process")
