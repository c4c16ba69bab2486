"""What every operator must return: the plain loop over time under autograd, in float64.

Spikes are given, and so is ds/dV, so that between two thresholds every result is a sum of products
of the arguments. `check` compares results and gradients with it, within the bound of `bounds` for
the roundings of the table.
"""

from collections.abc import Callable, Collection
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from hetsyn_triton.ops.dispatch import _NEEDED
from hetsyn_triton.reference import loop
from hetsyn_triton.reference.lib.steps import previous_steps
from tests.support.bounds import assert_spikes_follow, assert_within
from tests.support.operators import DIFFERENTIABLE, OPERATORS, Operator, Size
from tests.support.random_arguments import Problem, Tensors, as_tuple, draw, vjp
from tests.support.tensors import Named

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


def size_of(table: Operator, given: Named) -> Size:
    """The size that the arguments have."""
    found: dict[str, int] = {}
    for name, letters in table.arguments.items():
        tensor = given.get(name)
        if tensor is not None:
            found |= dict(zip(letters, tensor.shape, strict=False))
    return Size(**{f.name: found.get(f.name, 0) for f in fields(Size)})


def gradient_roundings(operator: str, size: Size) -> int:
    """The most roundings of any term of a gradient: those of all operators that autograd calls."""
    return sum(OPERATORS[name].roundings(size) for name in _NEEDED[operator])


def by_loop(
    operator: str,
    given: Tensors,
    detach_reset: bool = False,
    wanted: Collection[str] = (),
) -> Tensors:
    """Results of the loop by name for float64 arguments; `given` also has the spikes of a forward.

    A forward also returns the gradients "d_" of the arguments `wanted`, for the gradients "g_" of
    its results that `given` has.
    """
    table = OPERATORS[operator]
    forward = OPERATORS[table.forward]
    size = size_of(table, given)
    like = next(iter(given.values()))
    leaves = {
        name: given[name] if name in given else like.new_zeros(size.shape(letters))
        for name, letters in forward.arguments.items()
    }
    arriving = [f"g_{name}" for name in table.results]
    if table.backward:
        if "currents" in given:
            leaves["drive"] = _drive(given)
        arriving = [name for name in table.arguments if name == "g" or name.startswith("g_")]
        wanted = [name.removeprefix("d_") for name in table.results]
    leaves |= {name: leaves[name].detach().requires_grad_() for name in wanted}
    options: dict[str, Any] = {}
    if forward.spiking:
        options["spike_function"] = given_spikes(given["spikes"], given.get("derivative"))
        options["detach_reset"] = detach_reset
    outputs = as_tuple(getattr(loop, table.forward)(**leaves, **options))
    results = {} if table.backward else dict(zip(table.results, outputs, strict=True))
    g = [given.get(name) for name in arriving]
    gradients = vjp(outputs, g, {name: leaves[name] for name in wanted})
    return results | {f"d_{name}": d for name, d in gradients.items()}


def _drive(given: dict[str, Tensor]) -> Tensor:
    """The drive that makes the given currents c: c(t) = r c(t-1) + drive(t) + W s(t-1)."""
    before = previous_steps(given["currents"], given["current"])
    drive = given["currents"] - given["decay"][:, None, None] * before
    if "weight" in given:
        spikes = previous_steps(given["spikes"], given["spike"])
        drive = drive - spikes @ given["weight"].mT.unsqueeze(1)
    return drive


def check(
    operator: str,
    given: Named,
    found: tuple[Tensor, ...] | Tensors,
    detach_reset: bool = False,
) -> float:
    """Every result is of the right dtype and layout, and within rounding of the truth.

    `found` may also have gradients "d_" of arguments of a forward. Returns the largest share of a
    bound used.
    """
    table = OPERATORS[operator]
    if isinstance(found, tuple):
        found = dict(zip(table.results, found, strict=True))
    numbers = {**given, **({"spikes": found["spikes"]} if table.spiking else {})}
    wanted = [name.removeprefix("d_") for name in found if name not in table.results]
    exact, magnitude = (
        by_loop(operator, double(numbers, absolute), detach_reset, wanted)
        for absolute in (False, True)
    )
    assert found.keys() == exact.keys()
    size = size_of(table, given)
    n = table.roundings(size)
    dtype = next(t.dtype for name, t in given.items() if name.endswith("decay"))
    share = 0.0
    for name, t in found.items():
        assert t.dtype == dtype, name
        assert t.is_contiguous() or name not in table.results, name
        most = n if name in table.results else gradient_roundings(operator, size)
        share = max(share, assert_within(t, exact[name], magnitude[name].abs(), most, name))
    if table.spiking:
        v = exact["potential"], magnitude["potential"]
        assert_spikes_follow(found["spikes"], *v, given["threshold"], n)
    return share


def check_problem(problem: Problem, found: Tensors) -> float:
    """`check` of outputs and gradients."""
    return check(problem.operator, problem.given, found, problem.detach_reset)


def check_small_problems(device: str = "cuda") -> None:
    """Run and check every operator, forward and backward, for tools that watch memory."""
    for operator in DIFFERENTIABLE:
        for size in (Size(R=2, T=5, B=3, I=37, J=21, K=2), Size(T=3, B=2, I=5, J=70, K=1)):
            problem = draw(operator, size, 1).to(torch.device(device))
            check_problem(problem, problem.run())
