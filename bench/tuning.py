"""The fastest of the configurations that a GPU kernel offers, found by trying them all.

    python -m bench.tuning

The winners are written to the file named by `HETSYN_TUNED`, else to `hetsyn_triton/tuned.json` in
the user's cache folder. A configuration changes speed, never a result: see
`kernels/gpu/lib/configs.py`.
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
"""A candidate must take at most this part of the shipped one's time, or the shipped one stays."""


class _Asked(dict[str, str]):
    """Choices that remember what was asked for."""

    def __init__(self) -> None:
        super().__init__({"": ""})  # not empty: an empty choice counts as none
        self.shipped: dict[str, str] = {}

    def get(self, key: str, default: Any = None) -> Any:
        self.shipped.setdefault(key, default)
        return default


def shipped(run: Callable[[], Any]) -> dict[str, str]:
    """The size classes `run` asks configurations for, and what is shipped for them."""
    asked = _Asked()
    with pinned(asked):
        run()
    return asked.shipped


def candidates(run: Callable[[], Any], key: str) -> list[str]:
    """Names of the configurations offered for one size class, as the error for a wrong name lists
    them."""
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
    """-> winners by size class, and the times of all candidates. Classes in `known` stay as they
    are."""
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
    """Median of a case, whose inputs rotate."""
    found, broken = timing.in_turn({case: calls}, 0.1, 3, device=device)
    for error in broken.values():
        raise error
    return statistics.median(found[case])


def tune_all(cases: Sequence[Case], device: torch.device) -> dict[str, str]:
    """The winners of all size classes of these cases; a case that breaks is reported."""
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
