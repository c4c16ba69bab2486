"""Kernels on several threads: a pool of Python threads, each in compiled code without Python's
lock.

No threading layer of Numba: OpenMP's kills a forked child, the work queue aborts under concurrent
callers. Here a child makes a pool of its own, and callers may be as many as they like. Tasks write
to places of their own and their sums do not cross tasks, so the number of threads changes no bit.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import pairwise
from typing import Any

import torch

GRAIN = 500_000
"""Fused multiply-adds worth a thread of its own: about 20 microseconds, what waking one takes."""

GROUP = 4
"""Blocks of a task at most."""

_pool: ThreadPoolExecutor | None = None


def _forget_pool() -> None:
    global _pool
    _pool = None  # its threads stayed in the parent


os.register_at_fork(after_in_child=_forget_pool)

_SMALLEST = 5e-324


@contextmanager
def _denormals_are_zero() -> Iterator[None]:
    """On this thread, what `torch.set_flush_denormal` sets; afterwards as it was.

    A trace falls below the normal numbers (1.2e-38, in float64 2.2e-308) within 88 (708) of its
    time constants without a spike, and there processors of some makers are many times slower.
    """
    before = _SMALLEST * 1.0 == 0.0
    torch.set_flush_denormal(True)  # False, and nothing done, where the processor has no such mode
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


def grouped(rows: int, blocks: int) -> tuple[int, int]:
    """How many of a row's blocks make a task, and the number of tasks: blocks of a task share what
    they read, but threads are not left without work. No bit of a result depends on it."""
    group = max(1, min(GROUP, blocks, rows * blocks // (2 * torch.get_num_threads())))
    return group, rows * -(-blocks // group)


def run(kernel: Any, tasks: int, work: int, *arguments: Any) -> None:
    """`kernel(begin, end, *arguments)` over all of [0, tasks), in shares on up to
    `torch.get_num_threads()` threads; `work` counts the multiply-adds of all tasks."""
    threads = min(torch.get_num_threads(), tasks, 1 + work // GRAIN)
    if threads == 0:
        return
    shares = list(pairwise(tasks * n // threads for n in range(threads + 1)))
    started = [(share, _start(kernel, *share, *arguments)) for share in shares[1:]]
    try:
        _compute(kernel, *shares[0], *arguments)
    finally:
        for share, future in reversed(started):
            if future.cancel():  # no thread has begun it, and none will
                _compute(kernel, *share, *arguments)
            else:
                future.result()


def _compute(kernel: Any, *call: Any) -> None:
    with _denormals_are_zero():
        kernel(*call)


def _start(*call: Any) -> Future[None]:
    """A share that waits for a thread; it is left waiting where none can be had."""
    global _pool
    if _pool is None:
        _pool = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="hetsyn_triton")
    future: Future[None] = Future()
    # The interpreter is shutting down, or the system has no thread to give.
    with suppress(RuntimeError):
        _pool.submit(_share, future, *call)
    return future


def _share(future: Future[None], *call: Any) -> None:
    """Runs a share on a thread of the pool."""
    if not future.set_running_or_notify_cancel():
        return
    try:
        _compute(*call)
    except BaseException as error:  # the caller raises it
        future.set_exception(error)
    else:
        future.set_result(None)
