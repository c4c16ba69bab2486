"""Find the fastest configuration of every GPU kernel by trying all of them.

    python -m bench.tuning

The fastest are written to the file named by `HETSYN_TUNED`, by default `hetsyn_triton/tuned.json`
in the user's cache folder. A configuration changes speed, never a result
(`kernels/gpu/lib/configs.py`).
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch

from bench import timing
from bench.cases import BENCHMARK, Case
from hetsyn_triton.kernels.gpu.lib import configs
from hetsyn_triton.kernels.gpu.lib.configs import pinned

GAIN = 0.97
"""Largest share of the shipped configuration's time with which a candidate replaces it."""


class _Requested(dict[str, str]):
    """Choices that record the requested size classes."""

    def __init__(self) -> None:
        super().__init__({"": ""})  # an empty dict would count as no choice
        self.shipped: dict[str, str] = {}

    def get(self, key: str, default: Any = None) -> Any:
        self.shipped.setdefault(key, default)
        return default


def shipped(run: Callable[[], Any]) -> dict[str, str]:
    """Return the size classes that `run` requests, with their shipped configurations."""
    requested = _Requested()
    with pinned(requested):
        run()
    return requested.shipped


def candidates(run: Callable[[], Any], key: str) -> list[str]:
    """Return the configurations of a size class, which the error for a wrong name lists."""
    try:
        with pinned({key: "?"}):
            run()
    except ValueError as error:
        listed = str(error).partition("expected one of ")[2].partition(", got ")[0]
        return listed.split(", ")
    return []


def tune(
    run: Callable[[], Any], ms: Callable[[], float], known: Mapping[str, str] | None = None
) -> tuple[dict[str, str], dict[str, dict[str, float]]]:
    """Return the fastest by size class, and all times; classes in `known` are not tried."""
    best, times = dict(known or {}), dict[str, dict[str, float]]()
    for key, first in shipped(run).items():
        if key in best:
            continue
        times[key] = {}
        for name in candidates(run, key):
            with pinned({**best, key: name}):
                times[key][name] = ms()
        fastest = min(times[key], key=times[key].__getitem__)
        best[key] = fastest if times[key][fastest] <= GAIN * times[key][first] else first
    return best, times


def time_ms(case: Case, calls: Sequence[Callable[[], Any]], device: torch.device) -> float:
    """Return the median time of a case; its inputs rotate."""
    found, broken = timing.interleaved({case: calls}, 0.1, 3, device=device)
    for error in broken.values():
        raise error
    return statistics.median(found[case])


def tune_all(cases: Sequence[Case], device: torch.device) -> dict[str, str]:
    """Return the fastest of all size classes of some cases; report cases that fail."""
    best: dict[str, str] = {}
    for case in cases:
        try:
            first = case.arguments(device)
            sets = timing.sets_for(timing.size_of(*first)) if device.type == "cuda" else 1
            more = (case.arguments(device, seed) for seed in range(1, sets))
            calls = [partial(case.run, given) for given in (first, *more)]
            best, times = tune(calls[0], partial(time_ms, case, calls, device), best)
            for key, of in times.items():
                said = ", ".join(f"{name} {ms:.3f} ms" for name, ms in of.items())
                print(f"{key}: {best[key]} of {said}", flush=True)
        except Exception as error:
            print(f"{case.name}: {type(error).__name__}: {error}", flush=True)
    return best


def main() -> int:
    if not torch.cuda.is_available():
        print("no CUDA device is visible")
        return 2
    best = tune_all(BENCHMARK, torch.device("cuda"))
    print(f"written: {configs.store_tuned(best)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
