"""Alerts: which problems are open, what was sent about each, and delivering what was not.

A problem is reported when it opens, when it changes and when it is resolved, and not in between. What is open and what
is still to be sent is in `alerts/state.json`; a channel that is down keeps its queue and disturbs no other.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from accelkd.home.files import write_json
from accelkd.home.layout import Home
from accelkd.home.locks import home_lock
from accelkd.operations.alert_channels import (
    Channel,
    DeliveryError,
    Entry,
    Kind,
    load_alert_settings,
    settings_file,
)

MAX_TEXT = 300  # characters of a sentence
MAX_QUEUED = 1000  # entries of one channel; older ones are dropped first
FIRST_PAUSE_S, MAX_PAUSE_S = 60.0, 3600.0  # after a delivery that failed; doubles each time
GIVE_UP_S = 2 * 24 * 3600.0  # after which an entry that could not be sent is dropped
FAILURES_UNTIL_DOWN = 3  # in a row, before the other channels report it

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Problem:
    """Something that a person should look at."""

    key: str  # what the problem is about: the same problem has the same key
    kind: Kind
    text: str  # one sentence, without participants
    version: str = ""  # of what is wrong: another one is reported as a change
    details: Mapping[str, Any] = field(default_factory=dict)  # for whoever resolves it


@dataclass
class _Failing:
    """A channel whose last delivery failed."""

    failures: int
    next_attempt: float  # seconds since the epoch
    error: str


@dataclass
class _State:
    open: dict[str, Problem] = field(default_factory=dict)
    pending: list[Entry] = field(default_factory=list)  # not yet in the queues
    queues: dict[str, list[Entry]] = field(default_factory=dict)  # by channel
    failing: dict[str, _Failing] = field(default_factory=dict)  # by channel
    dropped: dict[str, int] = field(default_factory=dict)  # by channel


@dataclass(frozen=True)
class AlertStatus:
    """What is open, and how the channels are doing."""

    open: Sequence[Problem]
    undelivered: Mapping[str, int]  # entries by channel
    dropped: Mapping[str, int]  # given up, ever, by channel
    failing: Mapping[str, str]  # the last error by channel


def alerts_are_on(home: Home) -> bool:
    """Whether the home has an `alerts.toml`."""
    return settings_file(home).exists()


def alert_status(home: Home) -> AlertStatus:
    """What is open and undelivered in a home."""
    state = _read(home)
    return AlertStatus(
        list(state.open.values()),
        {name: len(queue) for name, queue in state.queues.items() if queue},
        state.dropped,
        {name: channel.error for name, channel in state.failing.items()},
    )


def record(home: Home, opened: Iterable[Problem] = (), resolved: Collection[str] = ()) -> None:
    """Write down problems that are open and keys of those that are not; what is news waits for `deliver`."""
    with _state(home) as state:
        for problem in opened:
            _open(state, replace(problem, text=_sentence(problem.text)))
        for key in resolved:
            if gone := state.open.pop(key, None):
                state.pending.append(Entry("resolved", gone.kind, gone.text, _now()))


def deliver(home: Home) -> list[str]:
    """Send what is news through every channel; returns a line for each channel that failed.

    Raises ValueError for an `alerts.toml` that breaks a rule; nothing is lost by that.
    """
    channels = load_alert_settings(home).channels
    with _state(home) as state:
        state.queues = {name: state.queues.get(name, []) for name in channels}  # a channel that was removed has none
        state.failing = {name: failing for name, failing in state.failing.items() if name in channels}
        _resolve_removed_channels(state, channels)
        _enqueue(state, channels)
        failed = [line for name, channel in channels.items() if (line := _flush(home, state, name, channel))]
        _enqueue(state, channels)  # that a channel is down, or works again
        for name in set(channels) - set(state.failing):
            _flush(home, state, name, channels[name])
    return failed


def send_test(home: Home) -> dict[str, str | None]:
    """Send a test message through every channel, whatever it selects: why it failed, or None, by channel.

    Raises ValueError for an `alerts.toml` that breaks a rule.
    """
    entry = Entry("test", "run_failed", "This is a test of the alerts; nothing is wrong.", _now())
    results: dict[str, str | None] = {}
    for name, channel in load_alert_settings(home).channels.items():
        try:
            channel.deliver(home, f"accelkd {_sentence(home.root.name)}: test", [entry])
            results[name] = None
        except DeliveryError as error:
            results[name] = str(error)
    return results


def _open(state: _State, problem: Problem) -> None:
    before = state.open.get(problem.key)
    if before is not None and (before.version, before.kind) == (problem.version, problem.kind):
        return
    state.open[problem.key] = problem
    state.pending.append(Entry("new" if before is None else "changed", problem.kind, problem.text, _now()))


def _enqueue(state: _State, channels: Mapping[str, Channel]) -> None:
    """Put what is pending into the queues of the channels that asked for it."""
    for name, channel in channels.items():
        down = f"channel {name} "
        wanted = [
            entry
            for entry in state.pending
            if entry.kind in channel.send and not (entry.kind == "channel_down" and entry.text.startswith(down))
        ]
        queue = state.queues[name] + wanted
        _drop(state, name, len(queue) - MAX_QUEUED)
        state.queues[name] = queue[-MAX_QUEUED:]
    state.pending = []


def _flush(home: Home, state: _State, name: str, channel: Channel) -> str | None:
    """Deliver the queue of one channel in one message; a line that says why where that failed."""
    queue, failing = state.queues[name], state.failing.get(name)
    if not queue or (failing and time.time() < failing.next_attempt):
        return None
    try:
        channel.deliver(home, _subject(home, queue), queue)
    except Exception as error:  # whatever one channel does, the others are delivered
        reason = str(error) if isinstance(error, DeliveryError) else type(error).__name__
        failures = failing.failures + 1 if failing else 1
        pause_s = min(FIRST_PAUSE_S * 2 ** min(failures - 1, 10), MAX_PAUSE_S)
        state.failing[name] = _Failing(failures, time.time() + pause_s, reason)
        oldest = datetime.fromtimestamp(time.time() - GIVE_UP_S, UTC).isoformat(timespec="seconds")
        state.queues[name] = [entry for entry in queue if entry.at >= oldest]
        _drop(state, name, len(queue) - len(state.queues[name]))
        if failures >= FAILURES_UNTIL_DOWN:
            _open(state, Problem(f"channel:{name}", "channel_down", f"channel {name} delivers no alerts: {reason}"))
        return f"{name}: {reason}; {len(state.queues[name])} alerts wait, next attempt in {pause_s:.0f} s"
    state.queues[name] = []
    state.failing.pop(name, None)
    if gone := state.open.pop(f"channel:{name}", None):
        state.pending.append(Entry("resolved", "channel_down", gone.text, _now()))
    return None


def _drop(state: _State, name: str, count: int) -> None:
    if count > 0:
        state.dropped[name] = state.dropped.get(name, 0) + count
        log.warning("channel %s: %d alerts are dropped undelivered", name, count)


def _resolve_removed_channels(state: _State, channels: Collection[str]) -> None:
    for key in [key for key in state.open if key.startswith("channel:") and key[len("channel:") :] not in channels]:
        del state.open[key]


def _subject(home: Home, entries: Sequence[Entry]) -> str:
    resolved = sum(entry.status == "resolved" for entry in entries)
    problems = len(entries) - resolved
    counts = [f"{problems} problem{'s' if problems > 1 else ''}"] if problems else []
    counts += [f"{resolved} resolved"] if resolved else []
    return f"accelkd {_sentence(home.root.name)}: {', '.join(counts)}"


def _sentence(text: str) -> str:
    """One printable line: what it names may have been made by others."""
    line = "".join(char if char.isprintable() else " " for char in text)
    return line if len(line) <= MAX_TEXT else f"{line[: MAX_TEXT - 1]}…"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@contextmanager
def _state(home: Home) -> Iterator[_State]:
    """The state, locked, and written back when the block ends."""
    with home_lock(home, "alerts/.lock"):
        state = _read(home)
        before = asdict(state)
        yield state
        if asdict(state) != before:
            write_json(home.root / "alerts" / "state.json", asdict(state))


def _read(home: Home) -> _State:
    path = home.root / "alerts" / "state.json"
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        return _State(
            {key: Problem(**problem) for key, problem in raw["open"].items()},
            [Entry(**entry) for entry in raw["pending"]],
            {name: [Entry(**entry) for entry in queue] for name, queue in raw["queues"].items()},
            {name: _Failing(**channel) for name, channel in raw["failing"].items()},
            raw["dropped"],
        )
    except FileNotFoundError:
        return _State()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        log.warning("%s cannot be read (%s): every problem that is open is reported again", path, type(error).__name__)
        return _State()
