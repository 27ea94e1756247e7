"""What `make ui` starts can be reached from this machine alone."""

from __future__ import annotations

from pathlib import Path

from tests.support.homes import new_home
from tests.support.ui import dagster_dev

LOOPBACK = {"0100007F", "00000000000000000000000001000000"}  # 127.0.0.1 and ::1, as /proc/net writes them
LISTENS = "0A"


def test_every_socket_that_listens_is_bound_to_loopback(tmp_path: Path) -> None:
    home = new_home(tmp_path)
    with dagster_dev(home) as address:
        sockets = listening(f"DAGSTER_HOME={home.root / 'dagster'}")
    assert int(address.rpartition(":")[2]) in {port for port, _ in sockets}
    assert {local for _, local in sockets} <= LOOPBACK


def listening(variable: str) -> set[tuple[int, str]]:
    """Port and address of every TCP socket on which a process listens that has this environment variable."""
    sockets = {}
    for table in ("tcp", "tcp6"):
        for line in Path("/proc/net", table).read_text().splitlines()[1:]:
            _, local, _, state, *rest = line.split()
            if state == LISTENS:
                sockets[f"socket:[{rest[5]}]"] = local.split(":")
    listening_sockets = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if variable.encode() not in (process / "environ").read_bytes().split(b"\0"):
                continue
            opened = [str(descriptor.readlink()) for descriptor in (process / "fd").iterdir()]
        except OSError:  # it has ended, or is the kernel's
            continue
        listening_sockets |= {(int(sockets[name][1], 16), sockets[name][0]) for name in opened if name in sockets}
    return listening_sockets
