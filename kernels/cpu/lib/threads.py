"""Kernels on several threads: a pool of Python threads, each in compiled code without Python's
lock.

No threading layer of Numba: OpenMP's kills a forked child, the work queue aborts under concurrent
callers. Here a child makes a pool of its own, and callers may be as many as they like. Tasks write
to places of their own and their sums do not cross tasks, so the number of threads changes no bit.
"""

from __future__ import annotations

import os
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from itertools import pairwise
from typing import Any

import numpy as np
import torch

for _kind in (np.float32, np.float64):
    np.finfo(_kind)  # NumPy below 2.4 works limits out when first asked: not where small ones are 0

GRAIN = 500_000
"""Fused multiply-adds worth a thread of its own: about 20 microseconds, what waking one takes."""

GROUP = 8
"""Blocks of a task at most: they share the copy of what they read. (With 4,096 steps and more a
scan of neurons alone is a tenth slower than with 4; layers are not.)"""

_pool: ThreadPoolExecutor | None = None


def _forget_pool() -> None:
    global _pool
    _pool = None  # its threads stayed in the parent


os.register_at_fork(after_in_child=_forget_pool)

_SMALLEST = 5e-324
"""Times 1 it is 0 on a thread that flushes subnormal numbers (`torch.set_flush_denormal`)."""


def grouped(rows: int, blocks: int) -> tuple[int, int]:
    """How many of a row's blocks make a task, and the number of tasks: blocks of a task share what
    they read, but threads are not left without work. No bit of a result depends on it."""
    group = max(1, min(GROUP, blocks, rows * blocks // (2 * torch.get_num_threads())))
    return group, rows * -(-blocks // group)


def run(kernel: Any, tasks: int, work: int, *arguments: Any) -> None:
    """`share` for a kernel, in which subnormal numbers are 0.

    A trace falls below them (1.2e-38; in float64 2.2e-308) within 88 (709) of its time constants
    without a spike, and there some processors are several times slower: kernels/README.md.
    """
    before = _SMALLEST * 1.0 == 0.0
    try:
        torch.set_flush_denormal(True)  # nothing happens where a processor has no such mode
        if tasks and (work < GRAIN or torch.get_num_threads() == 1):
            kernel(0, tasks, *arguments)
        else:
            share(kernel, tasks, work, *arguments)
    finally:
        torch.set_flush_denormal(before)


def share(function: Any, tasks: int, work: int, *arguments: Any) -> None:
    """`function(begin, end, *arguments)` over all of [0, tasks), in shares on up to
    `torch.get_num_threads()` threads; `work` counts the multiply-adds of all tasks."""
    threads = min(torch.get_num_threads(), tasks, 1 + work // GRAIN)
    if threads == 0:
        return
    shares = list(pairwise(tasks * n // threads for n in range(threads + 1)))
    how = _SMALLEST * 1.0 == 0.0
    started = [(part, _start(how, function, *part, *arguments)) for part in shares[1:]]
    try:
        function(*shares[0], *arguments)
    finally:
        for part, future in reversed(started):
            if future.cancel():  # no thread has begun it, and none will
                function(*part, *arguments)
            else:
                future.result()


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


def _share(future: Future[None], flushing: bool, function: Any, *call: Any) -> None:
    """Runs a share on a thread of the pool, which rounds as the caller does."""
    if not future.set_running_or_notify_cancel():
        return
    try:
        torch.set_flush_denormal(flushing)
        function(*call)
    except BaseException as error:  # the caller raises it
        future.set_exception(error)
    else:
        future.set_result(None)
