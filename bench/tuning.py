"""The fastest of the configurations that a kernel offers, found by trying them all.

A configuration changes speed, never a result: see `kernels/gpu/lib/configs.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

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
    run: Callable[[], Any], time_ms: Callable[[], float], known: Mapping[str, str] | None = None
) -> tuple[dict[str, str], dict[str, dict[str, float]]]:
    """-> winners by size class, and the times of all candidates. Classes in `known` stay as they
    are."""
    best, times = dict(known or {}), {}
    for key, first in shipped(run).items():
        if key in best:
            continue
        times[key] = {}
        for name in candidates(run, key):
            with pinned({**best, key: name}):
                times[key][name] = time_ms()
        fastest = min(times[key], key=times[key].__getitem__)
        best[key] = fastest if times[key][fastest] <= GAIN * times[key][first] else first
    return best, times
