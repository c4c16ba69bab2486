"""Run cells in several processes; a cell or process that fails does not affect the others.

Each worker is an executor with one process and gets one cell at a time. If a process dies, its cell
is therefore known. Processes are spawned, not forked, because the kernels use threads.
"""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from typing import TypeVar

from hetsyn_triton.freed_memory import keep_freed_memory

Item = TypeVar("Item")

LOOK_EVERY_S = 1.0  # between checks whether the parent still runs

Outcome = tuple[Item, "str | None"]
"""An item, and its error or None."""


def work_through(
    items: Sequence[Item],
    work: Callable[[Item], None],
    processes: int,
    begun: Callable[[Item], None] = lambda item: None,
) -> Iterator[Outcome[Item]]:
    """Call `work(item)` for all items, and yield each when it ends with its error or None.

    The error is one line. With one process, the work is done here, one item after the other. With
    more, `work` and items are pickled. `begun` is called in this process when an item starts.
    Closing the iterator early ends the processes.
    """
    if processes == 1:
        for item in items:
            begun(item)
            try:
                work(item)
            except Exception as failure:
                yield item, in_one_line(failure)
            else:
                yield item, None
        return
    waiting = iter(items)
    workers = [_Worker() for _ in range(min(processes, len(items)))]
    running: dict[Future[None], tuple[_Worker, Item]] = {}

    def give(worker: "_Worker") -> None:
        for item in waiting:
            begun(item)
            running[worker.executor.submit(work, item)] = worker, item
            return

    try:
        for worker in workers:
            give(worker)
        while running:
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                worker, item = running.pop(future)
                error = future.exception()
                if isinstance(error, BrokenProcessPool):
                    worker.renew()
                give(worker)
                yield item, None if error is None else in_one_line(error)
    finally:
        for worker in workers:
            worker.end(kill=bool(running))


def in_one_line(error: BaseException) -> str:
    """Return the type and the first line of an error."""
    if isinstance(error, BrokenProcessPool):
        return "its process ended early (killed or out of memory)"
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


class _Worker:
    """One process in its own executor."""

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.executor = ProcessPoolExecutor(1, context, initializer=_begin, initargs=(os.getpid(),))
        self.process: Future[int] = self.executor.submit(os.getpid)

    def end(self, kill: bool) -> None:
        """End the process; with `kill`, in the middle of its work."""
        self.executor.shutdown(wait=not kill, cancel_futures=True)
        if kill and self.process.done() and self.process.exception() is None:
            with suppress(ProcessLookupError):
                os.kill(self.process.result(), signal.SIGTERM)


def _begin(parent: int) -> None:
    """Ignore Ctrl-C, which the parent handles, and end when the parent is killed."""
    keep_freed_memory()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    """End this process, in the middle of its work, once `parent` is no longer its parent."""
    while os.getppid() == parent:
        time.sleep(LOOK_EVERY_S)
    os._exit(1)
