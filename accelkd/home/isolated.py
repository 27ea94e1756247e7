"""A call in a process of its own: what it loads and allocates ends with it."""

from __future__ import annotations

import multiprocessing
import os
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


def run_in_subprocess(function: Callable[P, R], *arguments: P.args, **named: P.kwargs) -> R:
    """Call a function of a module in a new process; returns what it returns, which must be plain data.

    Raises RuntimeError with type and text of what it raises, its traceback in a note, and ChildProcessError if the
    process dies. It is killed when this call is interrupted, and dies when this process does.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(sender, function, arguments, named), daemon=True)
    process.start()
    sender.close()  # so that a dead process is seen as the end of the stream
    answer: tuple[R, str | None, str]
    try:
        answer = receiver.recv()
    except EOFError:
        process.join()
        raise ChildProcessError(f"{function.__name__}: its process died with exit code {process.exitcode}") from None
    finally:
        process.kill()
        process.join()
        receiver.close()
    result, error, where = answer
    if error is not None:
        failed = RuntimeError(error)
        failed.add_note(where)
        raise failed
    return result


def _answer(
    sender: Connection, function: Callable[..., Any], arguments: tuple[Any, ...], named: dict[str, Any]
) -> None:
    end_with_parent()
    try:
        sender.send((function(*arguments, **named), None, ""))
    except Exception as error:
        sender.send((None, f"{type(error).__name__}: {error}", traceback.format_exc()))


def end_pool(pool: ProcessPoolExecutor) -> None:
    """End a pool at once, also the processes that are at work: when this returns none of them is there any more."""
    processes = list((pool._processes or {}).values())  # no public way before Python 3.14
    pool.shutdown(wait=False, cancel_futures=True)
    for process in processes:
        process.kill()
    for process in processes:
        process.join()


def end_with_parent() -> None:
    """Have this process end as soon as the one that started it has: a pool's workers would wait for it forever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_after, args=(parent,), name="end-with-parent", daemon=True).start()


def _end_after(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)
