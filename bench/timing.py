"""Times of calls, warm and interleaved, and the memory of a call.

On a GPU calls rotate through several sets of inputs, together larger than any L2 cache, as they
come in training (`sets_for`).
"""

from __future__ import annotations

import ctypes
import gc
import itertools
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import torch

from hetsyn_triton import freed_memory
from hetsyn_triton.experiments.studies import memory

Key = TypeVar("Key", bound=Hashable)
Run = Callable[[], Any]

BEYOND_L2 = 128 << 20
"""Bytes of inputs that no L2 cache holds: it has 50 MB in an H100, 60 MB in an H200."""
MOST_SETS = 16


def sets_for(bytes_of_one: int) -> int:
    """Sets of inputs that are together larger than the cache."""
    return min(MOST_SETS, max(1, -(-BEYOND_L2 // max(bytes_of_one, 1))))


def size_of(*tensors: Any) -> int:
    """Bytes of all tensors among the arguments."""
    return sum(t.numel() * t.element_size() for t in tensors if isinstance(t, torch.Tensor))


def peak_bytes(run: Run, device: torch.device) -> dict[str, int]:
    """`peak_bytes`, what a call allocates on a GPU at its peak; nothing on a CPU."""
    if device.type != "cuda":
        return {}
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    result = run()
    torch.cuda.synchronize(device)
    del result
    return {"peak_bytes": int(torch.cuda.max_memory_allocated(device) - before)}


def _timed_cuda(runs: Sequence[Callable[[], Any]]) -> list[float]:
    pairs = []
    torch.cuda.synchronize()
    for run in runs:
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        run()
        end.record()
        pairs.append((begin, end))
    torch.cuda.synchronize()
    return [begin.elapsed_time(end) for begin, end in pairs]


def _timed_cpu(runs: Sequence[Callable[[], Any]]) -> list[float]:
    found = []
    for run in runs:
        begin = time.perf_counter()
        run()
        found.append(1e3 * (time.perf_counter() - begin))
    return found


# -- interleaved contenders, and memory on a CPU ---------------------------------------------------


def in_turn(
    runs: Mapping[Key, Sequence[Run]],
    seconds: float,
    least: int = 5,
    most: int = 100,
    device: torch.device | str = "cpu",
) -> tuple[dict[Key, list[float]], dict[Key, Exception]]:
    """Time contenders interleaved: what the machine does meanwhile affects all of them.

    Each contender has one call, or several with inputs of their own, which rotate. All are called
    twice before, so that code is compiled and memory mapped. A short call runs several times in a
    round. On a GPU a time is that between two CUDA events.

    Args:
        runs: The calls of each contender.
        seconds: Time for all rounds together.
        least: Minimum number of rounds.
        most: Maximum number of rounds, if that is not below `least`.
        device: Where the calls run.

    Returns:
        Milliseconds of each contender, and the errors of those that broke.
    """
    cuda = torch.device(device).type == "cuda"
    timed, at_once = (_timed_cuda, 20) if cuda else (_timed_cpu, 5)
    calls = {key: itertools.cycle(runs[key]) for key in runs}
    found: dict[Key, list[float]] = {key: [] for key in runs}
    broken: dict[Key, Exception] = {}

    def take(key: Key, count: int) -> list[float]:
        """Times of `count` calls; none from a contender that breaks."""
        if key in broken:
            return []
        try:
            return timed([next(calls[key]) for _ in range(count)])
        except Exception as error:  # one contender's failure must not cost the others their times
            broken[key] = error
            return []

    gc.collect()
    gc.disable()  # it would run between two events
    try:
        for key in runs:
            take(key, len(runs[key]))
        once = {key: ms for key in runs for ms in take(key, 1)}
        slowest = max(once.values(), default=0.0)
        times = {key: max(1, min(at_once, int(slowest / max(once[key], 1e-3)))) for key in once}
        times = times if len(once) > 1 else dict.fromkeys(once, at_once)
        a_round = sum(times[key] * once[key] for key in once)
        for _ in range(max(least, min(most, int(1e3 * seconds / max(a_round, 1e-3))))):
            for key in once:
                found[key] += take(key, times[key])
    finally:
        gc.enable()
    return {key: ms for key, ms in found.items() if key not in broken}, broken


def zero_denormals() -> None:
    """Flush subnormal numbers to 0 for all contenders, as our CPU kernels always do.

    Threads inherit this from the thread that starts them: call it before any work.
    """
    torch.set_flush_denormal(True)


def keep_freed_memory(size: int) -> bool:
    """Keep freed memory in the process, and map `size` bytes now: calls touch no new pages.

    Returns:
        Whether the allocator supports this.
    """
    kept = freed_memory.keep_freed_memory()
    if kept:
        torch.full((size // 4,), 1.0)
    return kept


def _trim() -> None:
    """Give the pages of free memory back to the system: using them again is growth."""
    gc.collect()
    with suppress(AttributeError, OSError, TypeError):  # no glibc
        ctypes.CDLL(None).malloc_trim(0)


def growth_and_ms(run: Callable[[], Any]) -> tuple[int | None, float]:
    """Peak growth of the process during a call, and the milliseconds of that call.

    Free memory is given back before. Linux counts to within 32 pages a core.

    Returns:
        Bytes, None if the system does not tell; milliseconds.
    """
    ms: list[float] = []
    _trim()
    growth = memory.growth(lambda: ms.extend(_timed_cpu([run])))
    return growth, ms[0]
