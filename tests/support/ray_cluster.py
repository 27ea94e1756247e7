"""A Ray cluster on this machine: a head and workers, each a node of its own, whose raylets can be killed.

Jobs leave the session of what started them, but keep the variable that marks the cluster in their environment; Ray's
agents overwrite theirs, but stay in the session. By either all processes of a cluster are found and ended, orphans
included. Its clients do not have that variable.
"""

from __future__ import annotations

import os
import shutil
import signal
import sysconfig
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from uuid import uuid4

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
    head: Mapping[str, str] = field(default_factory=dict)  # more of the head
    # Which every client has to know. Ray reads it once in a process, so clusters of a process share it
    token: str = field(default_factory=lambda: os.environ.get("RAY_AUTH_TOKEN") or uuid4().hex)
    mark: str = field(default_factory=lambda: f"ACCELKD_TEST_CLUSTER={uuid4().hex}")
    has_job_server: bool = True
    gcs_port: int = field(default_factory=free_port)
    job_port: int = field(default_factory=free_port)
    nodes: dict[int, RayNode] = field(default_factory=dict)

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

    def start_node(self, number: int, cpus: int) -> None:
        """Start the head (number 0) or a worker, and return when it is part of the cluster."""
        folder = self.folder / str(number)
        folder.mkdir()
        options = {
            "node-ip-address": _HOST,
            "num-cpus": cpus,
            "num-gpus": 0,
            "object-store-memory": 80_000_000,
            "min-worker-port": 0,
            "max-worker-port": 0,
            "dashboard-agent-listen-port": free_port(),
            "include-log-monitor": "false",
        }
        if number == 0:
            options |= {
                "port": self.gcs_port,
                "temp-dir": self.folder / "s",
                "ray-client-server-port": free_port(),
                "include-dashboard": str(self.has_job_server).lower(),
                "dashboard-host": _HOST,
                "dashboard-port": self.job_port,
                "resources": '{"accelkd_head": 1}',
            }
        else:
            options["address"] = self.address
        variables = {**_FAST, **self._credentials, **self.variables, "ACCELKD_HOME": str(folder / "cache")}
        variables |= self.head if number == 0 else {}
        variables |= dict([self.mark.split("=")])
        # Who starts a node again may have the head's variables by then
        unset = [part for name in (*self.head, "RAY_ADDRESS", "RAY_API_SERVER_ADDRESS") for part in ("-u", name)]
        command = ["/usr/bin/env", *unset, *(f"{name}={value}" for name, value in variables.items())]
        command += [f"{sysconfig.get_path('scripts')}/ray", "start", "--block", "--disable-usage-stats"]
        command += ["--head", "--no-monitor"] if number == 0 else []
        command += [f"--{name}={value}" for name, value in options.items()]
        self.nodes[number] = RayNode(Service(command, folder, partial(self._is_ready, folder, number)), folder)
        self.nodes[number].service.start()

    def _is_ready(self, folder: Path, number: int) -> bool:
        if "Ray runtime started" not in (folder / "log").read_text(encoding="utf-8"):
            return False
        if number or not self.has_job_server:
            return True
        try:
            urllib.request.urlopen(f"{self.job_server}/api/version", timeout=5).close()
        except urllib.error.HTTPError:
            return True  # it asks for the token
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            return False
        return True

    def kill_node(self, number: int) -> None:
        """End all processes of a node but those of jobs, which have left its session."""
        service = self.nodes[number].service
        session = service.process.pid if service.process is not None else 0
        service.kill()
        _end_all(partial(_processes, [session]))

    def restart_node(self, number: int) -> None:
        """Start a node again of which something was killed; without the head's memory its workers start again too.

        Processes of jobs that have left their node's session live on.
        """
        numbers = sorted(self.nodes) if number == 0 else [number]
        for number in numbers:
            self.kill_node(number)
            (self.nodes[number].folder / "log").write_text("", encoding="utf-8")
        for number in numbers:
            self.nodes[number].service.start()

    def drivers(self) -> dict[int, Path]:
        """The processes of runs, orphans included, with the home that each of them uses."""
        homes = {}
        for pid in _processes([], self.mark):
            with suppress(OSError):
                command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
                if b"orchestration.ray_run" in command:
                    homes[pid] = next(Path(v[13:].decode()) for v in variables if v.startswith(b"ACCELKD_HOME="))
        return homes

    def stop(self) -> None:
        """End all processes of the cluster, orphans included."""
        sessions = {node.service.process.pid for node in self.nodes.values() if node.service.process is not None}
        for node in self.nodes.values():
            node.service.kill()
        _end_all(partial(_processes, sessions, self.mark))


@contextmanager
def ray_cluster(
    variables: Mapping[str, str],
    *,
    cpus: tuple[int, ...] = (1, 1),
    head: Mapping[str, str] | None = None,
    job_server: bool = True,
) -> Iterator[RayCluster]:
    """A cluster with one node for each entry of `cpus`, the head first.

    `variables` are in the environment of all nodes, those of `head` in that of the first, over them.
    """
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # short: sockets lie in it
    cluster = RayCluster(folder, variables, head or {}, has_job_server=job_server)
    try:
        with ThreadPoolExecutor() as pool:  # a worker waits for the head by itself
            list(pool.map(cluster.start_node, range(len(cpus)), cpus))
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _end_all(processes: Callable[[], list[int]]) -> None:
    while pids := processes():
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)


def _processes(sessions: Collection[int], variable: str | None = None) -> list[int]:
    """Processes of these sessions, and those with this variable in their environment; zombies are none."""
    pids = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            state, _, _, session = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
            environment = (folder / "environ").read_bytes().split(b"\0") if variable else []
            if state != "Z" and (int(session) in sessions or (variable and variable.encode() in environment)):
                pids.append(int(folder.name))
    return pids


def _child(pid: int, name: str) -> int:
    """The child of a process that has this name. Raises LookupError if there is none."""
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        if Path(f"/proc/{child}/comm").read_text().strip() == name:
            return int(child)
    raise LookupError(f"process {pid} has no child {name}")
