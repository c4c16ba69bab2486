"""Which blocks and warps a kernel runs with: the shipped choice, or the one tuned on this machine.

A configuration changes speed, never a result: what orders a sum is fixed by the problem. A kernel
offers a few candidates per size class, the shipped one first. `tuned` choices are read from a file
(`HETSYN_TUNED`, else `hetsyn_triton/tuned.json` in the user's cache folder) that `python -m
bench.tuning` writes. `pinned` holds choices fixed for a block of code, whatever the file says.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, ParamSpec, TypeVar, cast

import torch
import triton

P = ParamSpec("P")
T = TypeVar("T")


class Configuration(NamedTuple):
    """A named choice of compile-time constants and warps."""

    name: str
    constants: dict[str, int]
    num_warps: int


Choices = Mapping[str, str]
"""Names of configurations by `kernel/size class`."""

_pinned: Choices | None = None
_kept: list[Any] = []


def kept(choose: Callable[P, T]) -> Callable[P, T]:
    """Decorator: keep each choice until `pinned` or the tuned file changes."""
    cached = cache(choose)
    _kept.append(cached)
    return cast(Callable[P, T], cached)


def _forget() -> None:
    for cached in _kept:
        cached.cache_clear()


@contextmanager
def pinned(choices: Choices | None = None) -> Iterator[None]:
    """Inside, exactly these choices, and what is not named as shipped; the tuned file is not read.

    For timings and profiles that can be repeated. Not for several threads with different choices.
    """
    global _pinned
    before, _pinned = _pinned, choices or {}
    _forget()
    try:
        yield
    finally:
        _pinned = before
        _forget()


def configuration(
    kernel: str, size_class: str, candidates: Sequence[Configuration]
) -> Configuration:
    """The configuration to run: pinned, else tuned, else the first, which is the shipped one.

    Raises ValueError for a pinned name that is not among the candidates. A tuned name that is not
    is from another version and counts for nothing.
    """
    key = f"{kernel}/{size_class}"
    by_name = {c.name: c for c in candidates}
    if _pinned is not None:
        name = _pinned.get(key, candidates[0].name)
        if name not in by_name:
            raise ValueError(f"{key}: expected one of {', '.join(by_name)}, got {name!r}")
        return by_name[name]
    return by_name.get(tuned().get(key, ""), candidates[0])


def tuned_file() -> Path:
    """Where tuned choices are kept."""
    given = os.environ.get("HETSYN_TUNED")
    if given:
        return Path(given)
    cache_home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache_home) / "hetsyn_triton" / "tuned.json"


def machine() -> str:
    """What tuned choices hold for: the GPU's name and Triton's version."""
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return f"{name}, Triton {triton.__version__}"


@cache
def tuned() -> Choices:
    """The tuned choices for this machine; none where there is no file. Read once per process."""
    try:
        stored = json.loads(tuned_file().read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    found: Choices = stored.get(machine(), {})
    return found


def store_tuned(choices: Choices) -> Path:
    """Adds choices for this machine to the file, in one piece, and returns its path."""
    file = tuned_file()
    file.parent.mkdir(parents=True, exist_ok=True)
    stored = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    stored[machine()] = {**stored.get(machine(), {}), **choices}
    scratch = file.with_suffix(f".{os.getpid()}.tmp")
    scratch.write_text(json.dumps(stored, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    os.replace(scratch, file)
    tuned.cache_clear()
    _forget()
    return file
