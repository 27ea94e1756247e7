"""Processes that are killed while they replace a unit: `python -m tests.support.committing`, with JSON as its argument.

For each seed a child replaces the unit `units/<seed>` by other contents, and kills itself some moment after its n-th
request to the store; the seed draws both. Children are forked, so that thirty of them take seconds.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from accelkd.home.layout import Home
from accelkd.home.store import open_store
from accelkd.home.units import Unit, replacing

REQUESTS = 9  # of one replacement: two to claim, one to pull, one to look, four uploads, the index


def unit(seed: int) -> Unit:
    return Unit(f"units/{seed}", (f"units/{seed}/*",))


def write(home: Home, seed: int, version: str) -> None:
    """Make the files of a unit: some change with the version, one does not, one comes or goes."""
    folder = home.root / "units" / str(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("a", "b"):
        (folder / name).write_text(f"{version} {name}")
    (folder / "same").write_text("same")
    (folder / "old").unlink(missing_ok=True)
    (folder / version).write_text(version)


def _die_in_request(store: Any, seed: int, max_delay_s: float) -> None:
    """Let this process kill itself in one of its requests to the store."""
    chance = random.Random(seed)
    last, delay_s = chance.randrange(REQUESTS), chance.uniform(0, max_delay_s)
    requests = iter(range(REQUESTS + 1))

    def dying(request: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any) -> Any:
            if next(requests) == last:
                threading.Timer(delay_s, os.kill, (os.getpid(), signal.SIGKILL)).start()
            return request(*arguments)

        return wrapped

    for name in ("get", "put_if_absent", "put_if_match", "upload"):
        setattr(store, name, dying(getattr(store, name)))


def main() -> None:
    arguments = json.loads(sys.argv[1])
    ends = []
    for seed in arguments["seeds"]:
        # The store's threads start with its first request, which is the child's
        home = Home(Path(arguments["root"]), run_id=f"run {seed}", store=arguments["store"])
        child = os.fork()
        if child == 0:
            _die_in_request(open_store(arguments["store"]), seed, arguments["max_delay_s"])
            with replacing(home, unit(seed)):
                write(home, seed, "new")
            os._exit(0)
        ends.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    print(json.dumps(ends))


if __name__ == "__main__":
    main()
