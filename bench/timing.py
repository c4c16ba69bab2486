"""How long a call takes: the median of many, warm; and how much memory.

On a GPU (`measure`) the time between two CUDA events around each call, all calls queued in one go.
Calls go round several sets of inputs, together larger than any L2 cache, as they would come in
training. On a CPU (`interleaved`) wall-clock time of contenders that take turns, and the growth of
the process (`growth_and_ms`).
"""

from __future__ import annotations

import ctypes
import gc
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from hetsyn_triton import freed_memory
from hetsyn_triton.experiments.studies import memory

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
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


# -- contenders in turn, and memory on a CPU -------------------------------------------------------


def interleaved(
    runs: Mapping[str, Callable[[], Any]], seconds: float, least: int = 5, most: int = 100
) -> dict[str, Timing]:
    """Medians and quartiles of `in_turn`."""
    timings = {}
    for name, all_ms in in_turn(runs, seconds, least, most).items():
        low, median, high = statistics.quantiles(all_ms, n=4, method="inclusive")
        timings[name] = Timing(median, low, high, len(all_ms), 1, None)
    return timings


def in_turn(
    runs: Mapping[str, Callable[[], Any]],
    seconds: float,
    least: int = 5,
    most: int = 100,
    device: torch.device | str = "cpu",
) -> dict[str, list[float]]:
    """Milliseconds of contenders in turn, at least `least` rounds: what the machine does meanwhile
    meets them all. On a GPU between CUDA events, with nothing else under way.

    A short one runs up to five times in a round. Each is called twice before, so that code is
    compiled and memory mapped.
    """
    timed = _timed_cuda if torch.device(device).type == "cuda" else _timed_cpu
    found: dict[str, list[float]] = {name: [] for name in runs}
    with _free_of_garbage():
        for run in runs.values():
            run()
        once = {name: timed([run])[0] for name, run in runs.items()}
        slowest = max(once.values())
        times = {name: max(1, min(5, int(slowest / max(ms, 1e-3)))) for name, ms in once.items()}
        times = {name: n if len(runs) > 1 else 5 for name, n in times.items()}
        a_round = sum(times[name] * once[name] for name in runs)
        for _ in range(max(least, min(most, int(1e3 * seconds / max(a_round, 1e-3))))):
            for name, run in runs.items():
                found[name] += timed([run] * times[name])
    return found


def zero_denormals() -> None:
    """From here on numbers below the normal ones are 0 for everybody, as they always are in our
    CPU kernels, where the processor has such a mode. Threads have it of the one that starts them,
    so this comes before any work."""
    torch.set_flush_denormal(True)


def keep_freed_memory(size: int) -> bool:
    """From here on freed memory stays with the process, and `size` bytes are mapped beforehand: a
    call that needs no more touches no fresh pages. True where the allocator can be told so."""
    kept = freed_memory.keep_freed_memory()
    if kept:
        torch.full((size // 4,), 1.0)
    return kept


def give_back_freed_memory() -> bool:
    """From here on a tensor from 64 KiB that no freed piece of the heap can hold is mapped by
    itself and unmapped when freed; the pages of what is free now are given back. True where the
    allocator can be told so (glibc)."""
    return _trim() and freed_memory.mallopt(freed_memory.MMAP_THRESHOLD, 1 << 16)


def _trim() -> bool:
    """Pages of free memory go back to the system, so that who takes them again grows."""
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError, TypeError):
        return False
    return True


def growth_and_ms(run: Callable[[], Any]) -> tuple[int | None, float]:
    """By how many bytes the process is larger at the peak of a call than before it, free memory
    given back, None where the system does not tell; and the milliseconds of that call. Linux
    counts to within 32 pages a core."""
    ms: list[float] = []
    _trim()
    growth = memory.growth(lambda: ms.extend(_timed_cpu([run])))
    return growth, ms[0]
