"""What the image runs, without an image: as a user who may write to the home and the temporary folder alone."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tests.support import REPOSITORY
from tests.support.processes import wait_until

ENTRYPOINT = REPOSITORY / "deploy" / "entrypoint"
COMPOSE = REPOSITORY / "deploy" / "compose"
NOBODY = 65534
WRITABLE_BY_ALL = ("/tmp", "/var/tmp", "/dev/shm", "/run/lock", "/var/lock")
STOP_S = 10
USER, PASSWORD = "operator", "right"
PASSWORD_HASH = "$2a$14$H3S.2FIX6g5kClsKCy0tsemgrJycDFzBperSLHcAwbd3/xiZXRXT."


@dataclass
class Place:
    """A home and a folder of temporary files, both those of a user without rights."""

    root: Path
    environment: dict[str, str]

    def command(self, *words: str) -> list[str]:
        """The entry point with some words, run by that user: reading everything, writing nothing else."""
        return [*as_nobody(), sys.executable, str(ENTRYPOINT), *words]

    @contextmanager
    def running(self, *words: str, **variables: str) -> Iterator[subprocess.Popen[bytes]]:
        with (self.root / f"{words[0]}.log").open("wb") as log:
            process = subprocess.Popen(
                self.command(*words),
                cwd="/",
                env={**self.environment, **variables},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                process.wait(timeout=2 * STOP_S)

    def log(self, command: str) -> str:
        return (self.root / f"{command}.log").read_text(encoding="utf-8", errors="replace")


def as_nobody() -> list[str]:
    if os.getuid() != 0 or shutil.which("setpriv") is None:
        return []
    read = (
        "--inh-caps=-all,+dac_read_search",
        "--ambient-caps=-all,+dac_read_search",
        "--bounding-set=-all,+dac_read_search",
    )
    return ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", *read]


@pytest.fixture
def place() -> Iterator[Place]:
    root = Path(tempfile.mkdtemp())  # not pytest's folder, which no other user may enter
    root.chmod(0o755)
    for name in ("home", "tmp"):
        (root / name).mkdir()
        if as_nobody():
            os.chown(root / name, NOBODY, NOBODY)
    yield Place(
        root,
        {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(REPOSITORY),
            "ACCELKD_HOME": str(root / "home"),
            "TMPDIR": str(root / "tmp"),
            "ACCELKD_UI_PORT": str(free_port()),
            "ACCELKD_CORES": "3",
            "DAGSTER_GRPC_TIMEOUT_SECONDS": "300",
        },
    )
    shutil.rmtree(root)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=10):
            return True
    except OSError:
        return False


def wait_for(process: subprocess.Popen[bytes], address: str, log: Path) -> None:
    def ready() -> bool:
        assert process.poll() is None, log.read_text(encoding="utf-8", errors="replace")
        return answers(address)

    wait_until(ready, limit_s=300)


def test_the_web_server_ends_in_time_and_writes_to_home_and_temporary_folder_alone(place: Place) -> None:
    started = time.time()
    port = place.environment["ACCELKD_UI_PORT"]
    healthy = place.command("healthy")
    with place.running("ui") as process:
        wait_for(process, f"http://127.0.0.1:{port}/server_info", place.root / "ui.log")
        assert subprocess.run(healthy, env=place.environment, check=False).returncode == 0
        asked = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=STOP_S) == 0
        assert time.monotonic() - asked < STOP_S
    assert not answers(f"http://127.0.0.1:{port}/server_info")
    assert subprocess.run(healthy, env=place.environment, check=False).returncode == 1
    assert "max_concurrent_runs: 3" in (place.root / "home" / "dagster" / "dagster.yaml").read_text(encoding="utf-8")
    if as_nobody():  # what else belongs to that user, and is new
        assert written_elsewhere(place, since=started) == []


def written_elsewhere(place: Place, since: float) -> list[str]:
    written = []
    for top in map(Path, WRITABLE_BY_ALL):
        for folder, folders, files in os.walk(top):
            folders[:] = [
                name for name in folders if Path(folder, name) not in (place.root / "home", place.root / "tmp")
            ]
            for name in (*files, *folders):
                try:
                    status = Path(folder, name).lstat()
                except OSError:  # another process's, gone
                    continue
                if status.st_uid == NOBODY and status.st_mtime >= since and Path(folder, name).parent != place.root:
                    written.append(str(Path(folder, name)))
    return written


def test_the_daemon_ends_in_time_with_all_that_it_has_started(place: Place) -> None:
    with place.running("daemon") as process:
        wait_until(lambda: "Instance is configured with the following daemons" in place.log("daemon"), limit_s=300)
        process.send_signal(signal.SIGTERM)
        asked = time.monotonic()
        process.wait(timeout=STOP_S)
        assert time.monotonic() - asked < STOP_S
    left = [
        entry
        for entry in Path("/proc").glob("[0-9]*")
        if f"TMPDIR={place.root / 'tmp'}".encode() in environ(entry).split(b"\0")
    ]
    assert left == []


def environ(process: Path) -> bytes:
    try:
        return (process / "environ").read_bytes()
    except OSError:
        return b""


def test_the_command_line_works_on_the_home_and_its_status_is_passed_on(place: Place) -> None:
    def run(*words: str) -> tuple[int, str]:
        result = subprocess.run(
            place.command(*words),
            cwd="/",
            env=place.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        return result.returncode, result.stdout

    words = "simulate --participants 1 --segments 1 --seed 1 --batch b1 --processes 1"
    assert run("accelkd", *words.split())[0] == 0
    assert run("accelkd", "validate", "b1") == (0, "b1: valid\n")
    assert run("accelkd", "backup", str(place.root / "tmp" / "backups"))[0] == 0
    (place.root / "home" / "landing" / "b1" / "participants.parquet").unlink()
    assert run("accelkd", "validate", "b1")[0] == 1
    assert run("accelkd", "restore", str(place.root / "tmp" / "backups"), "--replace")[0] == 0
    assert run("accelkd", "validate", "b1")[0] == 0
    assert run("catch-up", "--help")[0] == 0


@pytest.mark.parametrize(
    ("words", "variables", "status", "message"),
    [
        (("serve",), {}, 2, "no command 'serve'"),
        (("ui",), {"ACCELKD_HOME": "/proc/home"}, 2, "entrypoint: "),
        (("daemon",), {"ACCELKD_CORES": "many"}, 2, "not a number of cores"),
        (("accelkd", "summary"), {}, 2, "accelkd.duckdb"),
        ((), {}, 2, ""),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    place: Place, words: tuple[str, ...], variables: dict[str, str], status: int, message: str
) -> None:
    result = subprocess.run(
        place.command(*words),
        cwd="/",
        env={**place.environment, **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert result.returncode == status
    assert message in result.stderr
    assert "Traceback" not in result.stderr


QUERY = "{ workspaceOrError { ... on Workspace { locationEntries { locationOrLoadError { __typename } } } } }"


@pytest.mark.skipif(shutil.which("caddy") is None, reason="caddy is not installed: the login was not tried")
def test_behind_the_login_the_web_server_answers_and_before_it_nothing_does(place: Place) -> None:
    """The Caddyfile of the compose file, in front of the web server with a code server of its own."""
    ui, site = place.environment["ACCELKD_UI_PORT"], free_port()
    caddy = subprocess.Popen(
        ["caddy", "run", "--config", "Caddyfile", "--adapter", "caddyfile"],
        cwd=COMPOSE,
        env={
            **os.environ,
            "XDG_DATA_HOME": str(place.root),
            "XDG_CONFIG_HOME": str(place.root),
            "ACCELKD_SITE": f"http://127.0.0.1:{site}",
            "ACCELKD_UI": f"127.0.0.1:{ui}",
            "ACCELKD_USER": USER,
            "ACCELKD_PASSWORD_HASH": PASSWORD_HASH,
            "ACCELKD_CADDY_ADMIN": "off",
        },
        stderr=subprocess.DEVNULL,
    )
    try:
        port = str(free_port())
        with place.running("code-server", ACCELKD_CODE_PORT=port) as code:
            wait_until(lambda: code.poll() is None and connects(int(port)), limit_s=300)
            with place.running("ui", ACCELKD_CODE_SERVER=f"127.0.0.1:{port}") as server:
                wait_for(server, f"http://127.0.0.1:{ui}/server_info", place.root / "ui.log")
                for path in ("/", "/graphql", "/server_info", "/runs", "/report_asset_materialization/x", "//graphql"):
                    assert status_of(site, path) == 401
                    assert status_of(site, path, password="wrong") == 401
                assert status_of(site, "/server_info", password=PASSWORD) == 200
                assert status_of(site, "/", password=PASSWORD) == 200
                (location,) = graphql(site, QUERY)["workspaceOrError"]["locationEntries"]
                assert location["locationOrLoadError"]["__typename"] == "RepositoryLocation"
                with pytest.raises(InvalidStatus) as refused:
                    connect(f"ws://127.0.0.1:{site}/graphql", subprotocols=["graphql-ws"], open_timeout=30)  # type: ignore[list-item]
                assert refused.value.response.status_code == 401
                with connect(
                    f"ws://127.0.0.1:{site}/graphql",
                    subprotocols=["graphql-ws"],  # type: ignore[list-item]
                    additional_headers={"Authorization": authorization(PASSWORD)},
                    open_timeout=30,
                ) as web_socket:
                    web_socket.send(json.dumps({"type": "connection_init", "payload": {}}))
                    assert json.loads(web_socket.recv(timeout=30))["type"] == "connection_ack"
    finally:
        caddy.terminate()
        caddy.wait(timeout=30)


def connects(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5):
            return True
    except OSError:
        return False


def authorization(password: str) -> str:
    return "Basic " + base64.b64encode(f"{USER}:{password}".encode()).decode()


def request(site: int, path: str, password: str | None = None, data: bytes | None = None) -> urllib.request.Request:
    headers = {"Content-Type": "application/json"} | ({"Authorization": authorization(password)} if password else {})
    return urllib.request.Request(f"http://127.0.0.1:{site}{path}", data=data, headers=headers)


def status_of(site: int, path: str, password: str | None = None) -> int:
    try:
        with urllib.request.urlopen(request(site, path, password), timeout=60) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def graphql(site: int, query: str) -> dict[str, dict[str, list[dict[str, dict[str, str]]]]]:
    sent = request(site, "/graphql", PASSWORD, json.dumps({"query": query}).encode())
    with urllib.request.urlopen(sent, timeout=60) as answer:
        data: dict[str, dict[str, list[dict[str, dict[str, str]]]]] = json.load(answer)["data"]
    return data
