"""Work spread over processes of this machine, any of which may die."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def default_num_workers() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0))


def map_in_processes(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    num_workers: int,
    start_method: str = "fork",
) -> Iterator[tuple[Item, Result]]:
    """Yield each item and what a function makes of it, as they are done.

    A worker ends when its parent does, after the item that it has begun.

    Args:
        function: called in a worker; with one worker, in this process.
        items: handed out one at a time.
        num_workers: processes.
        start_method: ``"fork"``, where workers have all that this process has, or ``"spawn"``,
            where the function is sent to them.

    Raises:
        RuntimeError: if a worker dies.
        Exception: what the function raises; no further item is begun.
    """
    if num_workers <= 1:
        for item in items:
            yield item, function(item)
        return
    context: Any = multiprocessing.get_context(start_method)
    pending = iter(items)
    # Each worker's end of a pipe is its own: it is cut when the worker dies.
    busy: dict[Connection, tuple[Any, Item]] = {}
    processes = []
    pipes: list[Connection] = []
    try:
        for _, item in zip(range(num_workers), pending, strict=False):
            ours, theirs = context.Pipe()
            inherited = [*pipes, ours] if start_method == "fork" else []
            process = context.Process(
                target=_serve, args=(function, theirs, inherited), daemon=True
            )
            process.start()
            theirs.close()
            pipes.append(ours)
            processes.append(process)
            busy[ours] = process, item
            _send(ours, item)
        while busy:
            for pipe in wait(list(busy)):
                assert isinstance(pipe, Connection)
                process, done = busy.pop(pipe)
                result = _receive(pipe, process)
                for item in pending:
                    busy[pipe] = process, item
                    _send(pipe, item)
                    break
                yield done, result
    finally:
        for process in processes:
            process.terminate()
        # One that was terminated too early, before it could take that for its end, sees this.
        for pipe in pipes:
            pipe.close()
        for process in processes:
            process.join()


def _send(pipe: Connection, item: Any) -> None:
    # Of a worker that is dead ``_receive`` tells.
    with contextlib.suppress(ConnectionError):
        pipe.send(item)


def _receive(pipe: Connection, process: Any) -> Any:
    try:
        succeeded, value = pipe.recv()
    except (EOFError, ConnectionError):
        process.join()
        code = process.exitcode
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with {code}"
        raise RuntimeError(
            f"a worker process {how}; where memory ran out, fewer workers need less"
        ) from None
    if not succeeded:
        raise value
    return value


def _serve(
    function: Callable[[Any], Any], pipe: Connection, inherited: Sequence[Connection]
) -> None:
    """A worker: while another process holds the parent's end, its death would go unnoticed."""
    for other in inherited:
        other.close()
    # Of Ctrl-C the parent hears too, and it ends the workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A handler of the parent's, which a fork has too, would let it outlive being terminated.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            pipe.send(_call(function, pipe.recv()))


def _call(function: Callable[[Any], Any], item: Any) -> tuple[bool, Any]:
    try:
        return True, function(item)
    except Exception as error:
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:
            return False, RuntimeError(f"{type(error).__name__}: {error}")
        return False, error
