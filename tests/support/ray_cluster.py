"""A Ray cluster on this machine: a head and workers, each a node of its own, whose raylets can be killed.

Jobs leave the session of what started them, but keep the cluster's token in their environment; Ray's agents overwrite
theirs, but stay in the session. By either all processes of a cluster are found and ended, orphans included.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sysconfig
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

from tests.support.processes import wait_until
from tests.support.services import Service
from tests.support.ui import free_port

# An address of the loopback device that Ray does not replace by that of a network, as it does with 127.0.0.1
_HOST = "127.0.0.2"
_FAST = {  # a node that is gone is noticed after two seconds, not thirty
    "RAY_health_check_initial_delay_ms": "0",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "4",
}


@dataclass
class RayNode:
    """One node: `ray start --block` and what it has started."""

    service: Service
    folder: Path  # its cache, ACCELKD_HOME's place on a machine of its own

    def kill_raylet(self) -> None:
        """End the raylet alone by SIGKILL: the processes of jobs on this node become orphans."""
        assert self.service.process is not None
        os.kill(_child(self.service.process.pid, "raylet"), signal.SIGKILL)


@dataclass
class RayCluster:
    """A head and workers, whose clients need its token."""

    folder: Path
    variables: Mapping[str, str]  # of every node, beside its own
    token: str = field(default_factory=lambda: uuid4().hex)  # which every client has to know
    gcs_port: int = field(default_factory=free_port)
    job_port: int = field(default_factory=free_port)
    nodes: list[RayNode] = field(default_factory=list)

    @property
    def client_environment(self) -> dict[str, str]:
        """What a client of the cluster needs in its environment."""
        return {**self._credentials, "RAY_API_SERVER_ADDRESS": self.job_server, "RAY_ADDRESS": self.address}

    @property
    def _credentials(self) -> dict[str, str]:
        return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.token, "RAY_USAGE_STATS_ENABLED": "0"}

    @property
    def job_server(self) -> str:
        """Where jobs are submitted."""
        return f"http://{_HOST}:{self.job_port}"

    @property
    def address(self) -> str:
        """What `ray.init` takes."""
        return f"{_HOST}:{self.gcs_port}"

    def add_node(self, cpus: int = 1) -> RayNode:
        """Start one more node, the head if it is the first, and return when it takes jobs."""
        node = self.start_node(cpus)
        self.wait_for_nodes()
        return node

    def start_node(self, cpus: int = 1) -> RayNode:
        """Start one more node without waiting for it."""
        number = len(self.nodes)
        folder = self.folder / str(number)
        folder.mkdir()
        place = [
            *(
                "--head",
                "--port",
                str(self.gcs_port),
                "--dashboard-host",
                _HOST,
                "--dashboard-port",
                str(self.job_port),
            ),
            *("--ray-client-server-port", str(free_port()), "--no-monitor", "--temp-dir", str(self.folder / "s")),
        ]
        options = [
            *("--block", "--disable-usage-stats", "--node-ip-address", _HOST, "--include-log-monitor", "false"),
            *("--num-cpus", str(cpus), "--num-gpus", "0", "--object-store-memory", "80000000"),
            *("--min-worker-port", "0", "--max-worker-port", "0", "--dashboard-agent-listen-port", str(free_port())),
        ]
        variables = {**_FAST, **self._credentials, **self.variables, "ACCELKD_CACHE": str(folder / "cache")}
        ray = f"{sysconfig.get_path('scripts')}/ray"
        command = [
            *("/usr/bin/env", *(f"{name}={value}" for name, value in variables.items()), ray, "start"),
            *(place if number == 0 else ["--address", self.address]),
            *options,
        ]
        node = RayNode(Service(command, folder, lambda: True), folder)
        self.nodes.append(node)
        node.service._spawn()
        return node

    def wait_for_nodes(self) -> None:
        """Return when every node whose process runs takes jobs."""

        def running() -> int:
            processes = [node.service.process for node in self.nodes]
            return sum(process is not None and process.poll() is None for process in processes)

        wait_until(lambda: self._alive() == running(), limit_s=120)

    def _alive(self) -> int:
        request = urllib.request.Request(
            f"{self.job_server}/nodes?view=summary", headers={"Authorization": f"Bearer {self.token}"}
        )
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                nodes = json.load(answer)["data"]["summary"]
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            return 0
        return sum(node["raylet"].get("state") == "ALIVE" for node in nodes)

    def stop(self) -> None:
        """End all processes of the cluster, orphans included."""
        sessions = {node.service.process.pid for node in self.nodes if node.service.process is not None}
        for node in self.nodes:
            node.service.kill()
        while pids := _processes(sessions, f"RAY_AUTH_TOKEN={self.token}"):
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)


@contextmanager
def ray_cluster(variables: Mapping[str, str], *, cpus: tuple[int, ...] = (1, 1)) -> Iterator[RayCluster]:
    """A cluster with one node for each entry of `cpus`, the head first; `variables` are in their environment."""
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # short: sockets lie in it
    cluster = RayCluster(folder, variables)
    try:
        for number in cpus:
            cluster.start_node(number)
        cluster.wait_for_nodes()
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _processes(sessions: Collection[int], variable: str) -> list[int]:
    """Processes of these sessions, and those with this variable in their environment; zombies are none."""
    pids = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            state, _, _, session = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
            environment = (folder / "environ").read_bytes().split(b"\0")
            if state != "Z" and (int(session) in sessions or variable.encode() in environment):
                pids.append(int(folder.name))
    return pids


def _child(pid: int, name: str) -> int:
    """The child of a process that has this name. Raises LookupError if there is none."""
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        if Path(f"/proc/{child}/comm").read_text().strip() == name:
            return int(child)
    raise LookupError(f"process {pid} has no child {name}")
