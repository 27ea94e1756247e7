"""Calls in a separate process: one that exits afterwards with its memory and modules, or one that is kept."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, ParamSpec, TypeVar

from accelkd.home.explained import is_explained, mark_explained

P = ParamSpec("P")
R = TypeVar("R")

_kept: dict[int, ProcessPoolExecutor] = {}  # by the process that it serves: a fork does not inherit its threads


def run_in_subprocess(function: Callable[P, R], *arguments: P.args, **keywords: P.kwargs) -> R:
    """Call a module-level function in a new process; returns its result, which must be picklable.

    Raises RuntimeError with the text of the exception that it raises, with the traceback in a note and, unless accelkd
    explains it, its type; and ChildProcessError if the process dies. It is killed when this call is interrupted, and
    exits when this process does.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send_result, args=(sender, function, arguments, keywords), daemon=True)
    process.start()
    sender.close()  # so that a dead process shows as the end of the stream
    answer: tuple[R, str | None, str, bool]
    try:
        answer = receiver.recv()
    except EOFError:
        process.join()
        raise ChildProcessError(f"{function.__name__}: its process died with exit code {process.exitcode}") from None
    finally:
        process.kill()
        process.join()
        receiver.close()
    result, error, traceback_text, explained = answer
    if error is not None:
        failed = RuntimeError(error)
        mark_explained(failed, explained)
        failed.add_note(traceback_text)
        raise failed
    return result


def _send_result(
    sender: Connection, function: Callable[..., Any], arguments: tuple[Any, ...], keywords: dict[str, Any]
) -> None:
    end_with_parent()
    try:
        sender.send((function(*arguments, **keywords), None, "", False))
    except Exception as error:
        explained = is_explained(error)
        text = str(error) if explained else f"{type(error).__name__}: {error}"
        sender.send((None, text, traceback.format_exc(), explained))


def run_in_kept_process(function: Callable[P, R], *arguments: P.args, **keywords: P.kwargs) -> R:
    """Call a module-level function in a process that serves the next call too: for libraries that crash on bad input.

    Arguments, result and what it raises must be picklable. Raises what it raises, and ChildProcessError if the process
    dies of it twice: once may be somebody else's doing.
    """
    caller = os.getpid()
    for _ in range(2):
        if caller not in _kept:
            _kept[caller] = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _start_kept)
        try:
            return _kept[caller].submit(function, *arguments, **keywords).result()
        except BrokenProcessPool:
            del _kept[caller]
    raise ChildProcessError("the process that was to do it died twice")


def _start_kept() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt of the whole group is for the caller to report
    end_with_parent()


def end_pool(pool: ProcessPoolExecutor) -> None:
    """Terminate a pool, including its running tasks: when this returns, all its processes have exited."""
    processes = list((pool._processes or {}).values())  # no public API before Python 3.14
    pool.shutdown(wait=False, cancel_futures=True)
    for process in processes:
        process.kill()
    for process in processes:
        process.join()


def end_with_parent() -> None:
    """Exit this process when its parent exits: otherwise a pool's workers would wait for it forever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_after, args=(parent,), name="end-with-parent", daemon=True).start()


def _end_after(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)
