"""How long a call takes: the median of many, warm, on inputs that are not in the cache.

On a GPU the time between two CUDA events around each call, all calls queued in one go; on the CPU
(rehearsals) wall-clock time. Calls go round several sets of inputs, together larger than any L2
cache, as they would come in training.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

BEYOND_L2 = 128 << 20
"""Bytes of inputs that no L2 cache holds: it has 50 MB in an H100, 60 MB in an H200."""
MOST_SETS = 16


@dataclass(frozen=True)
class Timing:
    """Milliseconds of a call, and bytes it took beyond its inputs at its peak."""

    ms: float
    low_ms: float
    """Lower quartile."""
    high_ms: float
    """Upper quartile."""
    repeats: int
    sets: int
    peak_bytes: int | None
    """None where it was not measured: on the CPU."""


@dataclass(frozen=True)
class Call:
    """A call with its own inputs, and how many bytes these are."""

    run: Callable[[], Any]
    bytes: int = 0


def sets_for(bytes_of_one: int) -> int:
    """Sets of inputs that are together larger than the cache."""
    return min(MOST_SETS, max(1, -(-BEYOND_L2 // max(bytes_of_one, 1))))


def size_of(*tensors: Any) -> int:
    """Bytes of all tensors among the arguments."""
    return sum(t.numel() * t.element_size() for t in tensors if isinstance(t, torch.Tensor))


def rotating(make: Callable[[int], Call], device: torch.device) -> list[Call]:
    """Calls with inputs of their own, from seeds 0, 1 ...; one on the CPU."""
    first = make(0)
    count = sets_for(first.bytes) if device.type == "cuda" and first.bytes else 1
    return [first, *(make(seed) for seed in range(1, count))]


def measure(
    calls: Sequence[Call], device: torch.device, seconds: float = 1.0, most: int = 200
) -> Timing:
    """Times `calls` in turn for about `seconds`, at least three times, after a warm-up."""
    run_once = _timed_cuda if device.type == "cuda" else _timed_cpu
    with _free_of_garbage():
        for call in calls:  # compiles, touches all memory
            call.run()
        once = run_once([calls[0].run])[0]
        repeats = max(3, min(most, int(1e3 * seconds / max(once, 1e-3))))
        order = [calls[i % len(calls)].run for i in range(repeats)]
        if device.type == "cuda":
            run_once(order[: max(1, repeats // 4)])  # clocks come up
        found = run_once(order)
    low, _, high = statistics.quantiles(found, n=4)
    return Timing(
        statistics.median(found), low, high, repeats, len(calls), peak_bytes(calls[0].run, device)
    )


def peak_bytes(run: Callable[[], Any], device: torch.device) -> int | None:
    """What a call allocates at its peak beyond what was there before."""
    if device.type != "cuda":
        return None
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    result = run()
    torch.cuda.synchronize(device)
    del result
    return int(torch.cuda.max_memory_allocated(device) - before)


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


@contextmanager
def _free_of_garbage() -> Iterator[None]:
    """Python's collector does not run between two events."""
    import gc

    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
