"""What every operator must return: the plain loop over time under autograd, in float64.

Spikes are given, and so is ds/dV, so that between two thresholds every result is a sum of products
of the arguments. `check` holds a result to the rounding bound of `bounds` and of the table.
"""

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from hetsyn_triton.reference import loop
from hetsyn_triton.reference.lib.steps import previous_steps
from tests.support.bounds import assert_spikes_follow, assert_within
from tests.support.operators import OPERATORS, Operator, Size
from tests.support.problems import as_tuple, vjp

Named = dict[str, Any]
"""Tensors by name. None, or not there, where an optional one is absent."""

NEGATIVE = ("feedback", "feedback_strength", "g_feedback")
"""Subtracted in V: made negative where all terms shall add up."""


class _GivenSpike(torch.autograd.Function):
    """The given spike forward, the given ds/dV backward."""

    @staticmethod
    def forward(ctx: Any, distance: Tensor, spike: Tensor, derivative: Tensor) -> Tensor:
        ctx.save_for_backward(derivative)
        return spike.clone()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        (derivative,) = ctx.saved_tensors
        return g * derivative, None, None


def given_spikes(
    spikes: Tensor, derivative: Tensor | None = None
) -> Callable[[Tensor, Tensor], Tensor]:
    """A spike function that returns one step of `spikes` [R, T, B, J] after the other."""
    slopes = torch.zeros_like(spikes) if derivative is None else derivative
    steps = iter(zip(spikes.unbind(1), slopes.unbind(1), strict=True))
    return lambda distance, _: _GivenSpike.apply(distance, *next(steps))  # type: ignore[no-untyped-call]


def double(given: Named, absolute: bool = False) -> dict[str, Tensor]:
    """The numbers in float64. `absolute`: with signs under which every term of a result adds up."""

    def one(name: str, t: Tensor) -> Tensor:
        t = t.double()
        return t if not absolute else -t.abs() if name in NEGATIVE else t.abs()

    return {name: one(name, t) for name, t in given.items() if t is not None}


def narrow(letters: dict[str, str], given: Named, axis: str, start: int, length: int) -> Named:
    """A piece of every tensor that has the axis, a letter."""
    return {
        name: t
        if t is None or axis not in letters[name]
        else t.narrow(letters[name].index(axis), start, length)
        for name, t in given.items()
    }


def size_of(table: Operator, given: Named) -> Size:
    """The size that the arguments have."""
    found: dict[str, int] = {}
    for name, letters in table.arguments.items():
        tensor = given.get(name)
        if tensor is not None:
            found |= dict(zip(letters, tensor.shape, strict=False))
    return Size(**{f.name: found.get(f.name, found["J"]) for f in fields(Size)})


def by_loop(
    operator: str, given: dict[str, Tensor], detach_reset: bool = False
) -> tuple[Tensor, ...]:
    """Results of the loop for float64 arguments; `given` also has the spikes of a forward."""
    table = OPERATORS[operator]
    function: Callable[..., Any] = getattr(loop, table.forward)
    forward = OPERATORS[table.forward]
    size = size_of(table, given)
    like = next(iter(given.values()))
    leaves = {
        name: given[name] if name in given else like.new_zeros(size.shape(letters))
        for name, letters in forward.arguments.items()
    }
    if table.backward:
        if "currents" in given:
            leaves["drive"] = _drive(given)
        leaves = {name: t.detach().requires_grad_() for name, t in leaves.items()}
    options: dict[str, Any] = {}
    if forward.spiking:
        options["spike_function"] = given_spikes(given["spikes"], given.get("derivative"))
        options["detach_reset"] = detach_reset
    outputs = as_tuple(function(**leaves, **options))
    if not table.backward:
        return outputs
    arriving = [given.get(n) for n in table.arguments if n == "g" or n.startswith("g_")]
    wanted = {name: leaves[name.removeprefix("d_")] for name in table.results}
    return tuple(vjp(outputs, arriving, wanted).values())


def _drive(given: dict[str, Tensor]) -> Tensor:
    """The drive that makes the given currents c: c(t) = r c(t-1) + drive(t) + W s(t-1)."""
    before = previous_steps(given["currents"], given["current"])
    drive = given["currents"] - given["decay"][:, None, None] * before
    if "weight" in given:
        spikes = previous_steps(given["spikes"], given["spike"])
        drive = drive - spikes @ given["weight"].mT.unsqueeze(1)
    return drive


def check(
    operator: str, given: Named, found: tuple[Tensor, ...], detach_reset: bool = False
) -> None:
    """Every result is of the right dtype and layout, and within rounding of the truth."""
    table = OPERATORS[operator]
    spikes = {"spikes": found[0]} if table.spiking else {}
    numbers = {**given, **spikes}
    exact = by_loop(operator, double(numbers), detach_reset)
    magnitude = by_loop(operator, double(numbers, absolute=True), detach_reset)
    n = table.roundings(size_of(table, given))
    dtype = next(t.dtype for name, t in given.items() if name.endswith("decay"))
    for name, *tensors in zip(table.results, found, exact, magnitude, strict=True):
        assert tensors[0].dtype == dtype, name
        assert tensors[0].is_contiguous(), name
        assert_within(tensors[0], tensors[1], tensors[2].abs(), n, name)
    if table.spiking:
        assert_spikes_follow(found[0], exact[1], magnitude[1], given["threshold"], n)
