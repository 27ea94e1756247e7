"""The run launcher of deploy/ray/dagster.yaml: each run is a job of a Ray cluster.

Belongs here: how such a run is started. Does not belong here: what its process does beside Dagster's own (ray_run).
"""

from __future__ import annotations

import json

import dagster as dg
import dagster_ray

from orchestration.elsewhere import FILES_ALONE
from orchestration.fence import fence_runs

_RESOURCES = "dagster-ray/config"  # tag of a run: what it asks the cluster for
# On the machine that has the warehouse, started with `--resources '{"accelkd_head": 1}'`, beside what it waits for
_ON_THE_HEAD = {"num_cpus": 0.001, "resources": {"accelkd_head": 0.001}}


class RayRunLauncher(dagster_ray.RayRunLauncher):
    """dagster-ray's launcher, whose runs end when Dagster gives them up (`orchestration.ray_run`).

    Runs that need files alone start on any node, all others on the head.
    """

    def _launch_ray_job(self, submission_id: str, entrypoint: str, run: dg.DagsterRun) -> None:
        fence_runs(self._instance)
        assert run.job_code_origin is not None  # as of every run that is launched
        python = run.job_code_origin.repository_origin.executable_path
        fenced = entrypoint.replace("dagster api ", f"{python} -m orchestration.ray_run api ", 1)
        if FILES_ALONE not in run.tags:
            asked = json.loads(run.tags.get(_RESOURCES, "{}"))
            run = run.with_tags({**run.tags, _RESOURCES: json.dumps({**asked, **_ON_THE_HEAD})})
        super()._launch_ray_job(submission_id, fenced, run)
