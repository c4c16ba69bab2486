"""Launches inside `trial_kernels()`: what Triton works out for a kernel is worked out once.

A counter stands in for the compiled kernel, so these tests need no GPU.
"""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from hetsyn_triton import kernels, ops, trial_kernels
from hetsyn_triton.kernels import trial
from hetsyn_triton.kernels.gpu.lib import launch as launching
from hetsyn_triton.ops import dispatch
from hetsyn_triton.surrogates import Triangular
from tests.support.operators import OPERATORS, Size
from tests.support.random_arguments import problem, surrogate_arguments

PROJECT = tuple(str(Path(str(package.__file__)).parent) for package in (kernels, ops))
CALLS = 31
"""At most so many calls of the project's own Python functions for each launch."""


class Compiled:
    """What Triton returns from a first launch: it is called as `compiled[grid](*arguments)`."""

    def __init__(self, log: list[tuple[tuple[int, ...], tuple[Any, ...]]]) -> None:
        self.log = log

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        return lambda *arguments: self.log.append((grid, arguments))


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[list[Any], list[Any]]]:
    """What goes the long way, by Triton's own launcher, and what goes the short way."""
    long: list[Any] = []
    short: list[Any] = []
    for operator in dispatch.TRITON.operators:
        dispatch.TRITON.launcher(operator)  # imported before names are replaced

    def run(call: launching.Launch) -> Compiled:
        long.append(call)
        return Compiled(short)

    monkeypatch.setattr(launching, "_run", run)
    monkeypatch.setattr(launching, "_compiled", {})
    monkeypatch.setattr(launching, "steps_ahead", lambda steps: steps)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: None)  # the index of a CPU device
    with trial_kernels():
        yield long, short


def arguments_of(operator: str, size: Size) -> list[Any]:
    if operator == "surrogate":
        given = surrogate_arguments(Triangular(), size)
        return [t.float() if isinstance(t, Tensor) else t for t in given]
    made = problem(operator, size, dtype=torch.float32)
    table = OPERATORS[operator]
    arguments: list[Any] = [made.get(name) for name in table.arguments]
    return arguments + [False] * table.detachable


def call(operator: str, size: Size) -> None:
    dispatch.TRITON.launcher(operator)(*arguments_of(operator, size))


BASE = Size(R=1, T=5, B=2, I=7, J=6, K=1)


@pytest.mark.parametrize("operator", sorted(dispatch.TRITON.operators & set(OPERATORS)))
def test_steps_samples_and_replicas_compile_nothing(
    operator: str, launches: tuple[list[Any], list[Any]]
) -> None:
    long, short = launches
    call(operator, BASE)
    first = len(long) + len(short)
    compiled = len(long)
    for size in (BASE, Size(R=3, T=5, B=2, I=7, J=6, K=1), Size(R=2, T=9, B=4, I=7, J=6, K=1)):
        call(operator, size)
    assert len(long) == compiled > 0
    assert len(long) + len(short) == 4 * first


def test_arguments_come_in_order(launches: tuple[list[Any], list[Any]]) -> None:
    """Those of the call at hand, in the order of the kernel's signature; grids have three axes."""
    long, short = launches
    call("spike_scan", BASE)
    call("spike_scan", Size(R=2, T=9, B=4, I=7, J=6, K=1))
    ((kernel, _, named, constants, _, _),) = long
    ((grid, arguments),) = short
    assert len(grid) == 3
    found = dict(zip(kernel.arg_names, arguments, strict=True))
    assert found.keys() == named.keys() | constants.keys()
    assert {n: found[n] for n in constants} == constants
    assert (found["T"], found["B"]) == (9, 4)
    assert found["current"].shape == (2, 9, 4, 6)
    assert found["stride_cr"] == found["current"].stride(0)


@pytest.mark.parametrize("other", ["neurons", "feedbacks", "alignment", "device"])
def test_another_kernel_is_compiled(other: str, launches: tuple[list[Any], list[Any]]) -> None:
    """Another constant, a tensor that is not 16-byte aligned, or another device."""
    long, short = launches
    call("spike_scan", BASE)
    given = arguments_of("spike_scan", BASE)
    if other == "neurons":
        given = arguments_of("spike_scan", Size(R=1, T=5, B=2, I=7, J=5, K=1))
    elif other == "feedbacks":
        given = arguments_of("spike_scan", Size(R=1, T=5, B=2, I=7, J=6, K=2))
    elif other == "alignment":
        current: Tensor = given[0]
        given[0] = torch.empty(current.numel() + 1)[1:].view(current.shape).copy_(current)
    else:
        given = [t.to("meta") for t in given]
        torch.cuda.current_device = lambda: 0  # restored by the fixture's monkeypatch
    dispatch.TRITON.launcher("spike_scan")(*given)
    assert len(long) == 2
    assert not short


def test_outside_the_switch_triton_launches(
    launches: tuple[list[Any], list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    long, short = launches
    monkeypatch.setattr(trial, "allowed", lambda: False)
    for _ in range(3):
        call("spike_scan", BASE)
    assert len(long) == 3
    assert not short


@pytest.mark.parametrize("operator", sorted(dispatch.TRITON.operators & set(OPERATORS)))
def test_calls_of_python(operator: str, launches: tuple[list[Any], list[Any]]) -> None:
    """Few of the project's functions run for a launch, however long the sequence is."""
    given = arguments_of(operator, BASE)
    run = dispatch.TRITON.launcher(operator)
    for _ in range(2):
        run(*given)
    _, short = launches
    count = before = len(short)
    calls = 0

    def seen(frame: Any, event: str, _: object) -> None:
        nonlocal calls
        calls += event == "call" and frame.f_code.co_filename.startswith(PROJECT)

    sys.setprofile(seen)
    try:
        run(*given)
    finally:
        sys.setprofile(None)
    count = len(short) - before
    assert calls <= CALLS * count, (calls, count)
