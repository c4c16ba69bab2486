"""Time interleaved, warm calls, and measure the memory of a call.

On a GPU, calls rotate through sets of inputs that together exceed any L2 cache, because inputs are
not in the cache in training either (`sets_for`).
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
"""Bytes of inputs that exceed any L2 cache: 50 MB in an H100, 60 MB in an H200."""
MOST_SETS = 16


def sets_for(bytes_of_one: int) -> int:
    """Return the number of sets of inputs that together exceed the cache."""
    return min(MOST_SETS, max(1, -(-BEYOND_L2 // max(bytes_of_one, 1))))


def size_of(*tensors: Any) -> int:
    """Return the bytes of all tensors among the arguments."""
    return sum(t.numel() * t.element_size() for t in tensors if isinstance(t, torch.Tensor))


def peak_bytes(run: Run, device: torch.device) -> dict[str, int]:
    """Return `peak_bytes`, the peak allocation of a call on a GPU; nothing on a CPU."""
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


def interleaved(
    runs: Mapping[Key, Sequence[Run]],
    seconds: float,
    least: int = 5,
    most: int = 100,
    device: torch.device | str = "cpu",
) -> tuple[dict[Key, list[float]], dict[Key, Exception]]:
    """Time contenders interleaved, so that other load on the machine affects all of them.

    A contender has one call, or several with different inputs, which rotate. Two warm-up calls
    compile code and map memory. Short calls run several times per round. GPU times are those
    between two CUDA events.

    Args:
        runs: The calls of each contender.
        seconds: Time for all rounds together.
        least: Minimum number of rounds.
        most: Maximum number of rounds, unless `least` is larger.
        device: Where the calls run.

    Returns:
        Milliseconds of each contender, and the errors of those that failed.
    """
    cuda = torch.device(device).type == "cuda"
    timed, at_once = (_timed_cuda, 20) if cuda else (_timed_cpu, 5)
    calls = {key: itertools.cycle(runs[key]) for key in runs}
    found: dict[Key, list[float]] = {key: [] for key in runs}
    broken: dict[Key, Exception] = {}

    def take(key: Key, count: int) -> list[float]:
        """Time `count` calls; return no times if the contender fails."""
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
    """Flush subnormal numbers to 0 for all contenders, as the CPU kernels always do.

    Threads inherit this from the thread that starts them: call it before any work.
    """
    torch.set_flush_denormal(True)


def keep_freed_memory(size: int) -> bool:
    """Keep freed memory in the process and map `size` bytes now, so that calls map no new pages.

    Returns:
        Whether the allocator supports this.
    """
    kept = freed_memory.keep_freed_memory()
    if kept:
        torch.full((size // 4,), 1.0)
    return kept


def _trim() -> None:
    """Return free memory to the system, so that its next use counts as growth."""
    gc.collect()
    with suppress(AttributeError, OSError, TypeError):  # no glibc
        ctypes.CDLL(None).malloc_trim(0)


def growth_and_ms(run: Callable[[], Any]) -> tuple[int | None, float]:
    """Measure the peak growth of the process during a call, and time that call.

    Free memory is returned to the system first. Linux counts to within 32 pages per core.

    Returns:
        Bytes, None if the system does not report them; milliseconds.
    """
    ms: list[float] = []
    _trim()
    growth = memory.growth(lambda: ms.extend(_timed_cpu([run])))
    return growth, ms[0]
