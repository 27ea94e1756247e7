"""The run launcher of deploy/ray/dagster.yaml: each run is a job of a Ray cluster.

Belongs here: how such a run is started. Does not belong here: what its process does beside Dagster's own (ray_run).
"""

from __future__ import annotations

import dagster as dg
import dagster_ray

from orchestration.fence import fence_runs


class RayRunLauncher(dagster_ray.RayRunLauncher):
    """dagster-ray's launcher, whose runs end when Dagster gives them up (`orchestration.ray_run`)."""

    def _launch_ray_job(self, submission_id: str, entrypoint: str, run: dg.DagsterRun) -> None:
        fence_runs(self._instance)
        assert run.job_code_origin is not None  # as of every run that is launched
        python = run.job_code_origin.repository_origin.executable_path
        fenced = entrypoint.replace("dagster api ", f"{python} -m orchestration.ray_run api ", 1)
        super()._launch_ray_job(submission_id, fenced, run)
