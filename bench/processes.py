"""Call functions in other processes: a worker that is restarted when it ends, or a fork."""

from __future__ import annotations

import atexit
import multiprocessing
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any
from unittest import mock

Answer = dict[str, Any]
"""What a function returns, or the `reason` why it returned nothing."""
OUT_OF_TIME = "out of time"


@contextmanager
def environment(threads: int, **more: str) -> Iterator[None]:
    """Set the environment variables of processes started in this context."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
    with mock.patch.dict(os.environ, dict.fromkeys(names, str(threads)) | more):
        yield


class Worker:
    """A process that calls functions; it starts at the first call and restarts if it has ended.

    Args:
        prepare: Function that each new process calls first.
        given: Arguments of `prepare`.
        threads: Number of threads.
        more: More environment variables.
    """

    def __init__(
        self, prepare: Callable[..., None], *given: Any, threads: int, **more: str
    ) -> None:
        self.prepare, self.given, self.threads, self.more = prepare, given, threads, more
        self.process: multiprocessing.process.BaseProcess | None = None
        atexit.register(self.close)  # before multiprocessing waits for its processes

    def call(
        self, function: Callable[..., Answer], *given: Any, seconds: float | None = None
    ) -> Answer:
        """Call a function in the process; kill the process after `seconds`."""
        if self.process is None:
            spawn = multiprocessing.get_context("spawn")
            self.pipe, other = spawn.Pipe()
            self.process = spawn.Process(target=_serve, args=(other, self.prepare, self.given))
            with environment(self.threads, **self.more):
                self.process.start()
            other.close()
        try:
            self.pipe.send((function, given))
            if self.pipe.poll(seconds):
                answer: Answer = self.pipe.recv()
                return answer
        except (EOFError, OSError):
            return {"reason": f"its process ended with {self.close()}"}
        self.process.kill()
        self.close()
        return {"reason": OUT_OF_TIME}

    def close(self) -> int | None:
        """End the process; return its exit status."""
        if self.process is None:
            return None
        process, self.process = self.process, None
        self.pipe.close()
        process.join()
        return process.exitcode


def _serve(pipe: Connection, prepare: Callable[..., None], given: tuple[Any, ...]) -> None:
    prepare(*given)
    while True:
        try:
            function, arguments = pipe.recv()
        except EOFError:
            return
        pipe.send(_answer(function, arguments))


def _answer(function: Callable[..., Answer], given: tuple[Any, ...]) -> Answer:
    try:
        return function(*given)
    except Exception as error:
        return {"reason": f"{type(error).__name__}: {error}"[:300]}


def in_a_fork(function: Callable[..., Answer], *given: Any) -> Answer:
    """Call a function in a fork of this process."""
    fork = multiprocessing.get_context("fork")
    reading, writing = fork.Pipe(duplex=False)
    process = fork.Process(target=lambda: writing.send(_answer(function, given)))
    process.start()
    writing.close()
    try:
        answer: Answer = reading.recv()
    except EOFError:
        answer = {}
    process.join()
    return answer or {"reason": f"the process ended with {process.exitcode}"}
