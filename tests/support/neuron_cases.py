"""What the proofs of the operators with one value per neuron share: arguments, the float64 truth,
rounding bounds, pieces."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hetsyn_triton.kernels.cpu.leaky_current import leaky_current, leaky_current_backward
from hetsyn_triton.kernels.cpu.leaky_recurrent_scan import (
    leaky_recurrent_scan,
    leaky_recurrent_scan_backward,
)
from hetsyn_triton.kernels.cpu.spike_scan import spike_scan, spike_scan_backward
from hetsyn_triton.reference import closed_form
from tests.support.bounds import assert_spikes_follow, assert_within
from tests.support.problems import Size, problem

Arguments = dict[str, Any]

DTYPES = [torch.float32, torch.float64]
# Where time and samples stand in what has any.
TIME = dict.fromkeys(
    ("current_t", "drive", "g", "result", "g_spikes", "g_potential", "g_currents", "derivative",
     "spikes", "currents"), 1,
)  # fmt: skip
SAMPLES = dict.fromkeys(TIME, 2) | {"current": 1, "spike": 1, "feedback": 2, "g_feedback": 2}


@dataclass(frozen=True)
class Operator:
    """A launcher and its closed form; `arguments` and `results` in their order."""

    kernel: Callable[..., Any]
    truth: Callable[..., Any]
    problem: str
    """Whose random problem it is."""
    arguments: tuple[str, ...]
    results: tuple[str, ...]
    roundings: Callable[[Size], int]
    """On the way of any term of any result."""
    optional: tuple[str, ...] = ()
    samples: tuple[int | None, ...] = ()
    """Where samples stand in the results; None: summed over."""
    spiking: bool = False

    def __call__(self, given: Arguments) -> tuple[Tensor, ...]:
        return as_tuple(self.kernel(*(given[n] for n in self.arguments)))


def as_tuple(found: Any) -> tuple[Tensor, ...]:
    return found if isinstance(found, tuple) else (found,)


def arguments(
    operator: Operator,
    size: Size,
    dtype: torch.dtype = torch.float32,
    *,
    states: bool = True,
    given: tuple[str, ...] | None = None,
    detach_reset: bool = False,
    seed: int = 0,
) -> Arguments:
    """By name; `given`: which of the optional gradients are there, None: all."""
    made: Arguments = dict(problem(operator.problem, size, seed, states=states, dtype=dtype))
    if states and "spike" in made:  # The spike before the first step may be any number.
        made["spike"] = made["spike"] * 0.75 - 0.25
    generator = torch.Generator().manual_seed(seed + 1)
    steps = (size.R, size.T, size.B, size.J)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=dtype)

    made |= {n: normal(*steps) for n in ("g", "g_spikes", "g_potential", "g_currents")}
    made |= {n: normal(*steps) for n in ("result", "currents")}
    made["g_feedback"] = normal(size.R, size.K, size.B, size.J)
    made["derivative"] = 0.5 * normal(*steps).abs()
    made["spikes"] = (normal(*steps) > 0.3).to(dtype)
    made["detach_reset"] = detach_reset
    for n in operator.optional:
        if given is not None and n not in given:
            made[n] = None
    return {n: made[n] for n in operator.arguments}


def each(given: Arguments, change: Callable[[str, Tensor], Tensor]) -> Arguments:
    return {n: change(n, t) if isinstance(t, Tensor) else t for n, t in given.items()}


def absolute(name: str, tensor: Tensor) -> Tensor:
    """With the signs under which every term of every result adds up: feedback currents are
    subtracted."""
    negative = name in ("feedback", "feedback_strength", "g_feedback")
    return -tensor.double().abs() if negative else tensor.double().abs()


def truth(operator: Operator, given: Arguments, spikes: Tensor | None) -> tuple[Tensor, ...]:
    """The closed form, every spike given where there are any."""
    if not operator.spiking:
        return as_tuple(operator.truth(**given))
    assert spikes is not None
    steps = iter(spikes.double().unbind(1))
    return as_tuple(operator.truth(**given, spike_function=lambda *_: next(steps)))


def check(operator: Operator, size: Size, given: Arguments) -> tuple[Tensor, ...]:
    """Runs the kernel and holds it to the bounds; no argument changes."""
    before = each(given, lambda n, t: t.clone())
    found = operator(given)
    assert all(torch.equal(given[n], t) for n, t in before.items() if isinstance(t, Tensor))
    spikes = found[0] if operator.spiking else None
    wanted = truth(operator, each(given, lambda n, t: t.double()), spikes)
    magnitudes = truth(operator, each(given, absolute), spikes)
    n = operator.roundings(size)
    dtype = given[operator.arguments[-2]].dtype
    for got, want, magnitude, what in zip(found, wanted, magnitudes, operator.results, strict=True):
        assert got.dtype == dtype, what
        assert got.is_contiguous(), what
        assert_within(got, want, magnitude.abs(), n, what)
    if spikes is not None:
        assert_spikes_follow(spikes, wanted[1], magnitudes[1], given["threshold"], n)
    addresses = {got.data_ptr() for got in found if got.numel()}
    assert len(addresses) == sum(1 for got in found if got.numel())
    return found


def axis(operator: Operator, axes: dict[str, int], name: str) -> int | None:
    """Of an argument. `current` is a state, but for the spike scan, where it has steps."""
    stepped = name == "current" and operator.problem == "spike_scan"
    return axes.get("current_t" if stepped else name)


def cut(
    operator: Operator, given: Arguments, axes: dict[str, int], start: int, length: int
) -> Arguments:
    """A piece of all arguments that have the axis."""

    def piece(name: str, tensor: Tensor) -> Tensor:
        at = axis(operator, axes, name)
        return tensor if at is None else tensor.narrow(at, start, length)

    return each(given, piece)


def assert_errors_are_those_of_float32(operator: Operator, given: Arguments) -> None:
    """On average at most twice those of the closed form in float32."""
    found, plain = operator(given), as_tuple(operator.truth(**given))
    exact = as_tuple(operator.truth(**each(given, lambda n, t: t.double())))
    for got, usual, want, what in zip(found, plain, exact, operator.results, strict=True):
        error, of_plain = ((t.double() - want).square().mean().sqrt() for t in (got, usual))
        assert error <= 2 * of_plain, f"{what}: {error / of_plain:.2f} times the closed form's"


# -- the operators ---------------------------------------------------------------------------------

NEURON = ("feedback_decay", "feedback_strength", "feedback", "spike")
GRADIENTS = ("g_spikes", "g_potential", "g_feedback")
SPIKE_SCAN = Operator(
    spike_scan,
    closed_form.spike_scan,
    "spike_scan",
    ("current", "threshold", *NEURON),
    ("spikes", "V", "feedback"),
    lambda size: 2 * size.T + size.K + 2,
    samples=(2, 2, 2),
    spiking=True,
)
SPIKE_SCAN_BACKWARD = Operator(
    spike_scan_backward,
    closed_form.spike_scan_backward,
    "spike_scan",
    (
        *GRADIENTS, "derivative", "spikes", *NEURON, "detach_reset",
    ),
    ("d_current", "d_threshold", "d_decay", "d_strength", "d_feedback", "d_spike"),
    lambda size: (size.K + 7) * size.T + size.B + 4,
    optional=GRADIENTS,
    samples=(2, None, None, None, 2, 1),
)  # fmt: skip
LEAKY_GRADIENTS = (*GRADIENTS, "g_currents")
LEAKY_CURRENT = Operator(
    leaky_current,
    closed_form.leaky_current,
    "leaky_current",
    ("drive", "decay", "current"),
    ("current",),
    lambda size: size.T + 1,
    samples=(2,),
)
LEAKY_CURRENT_BACKWARD = Operator(
    leaky_current_backward,
    closed_form.leaky_current_backward,
    "leaky_current",
    ("g", "result", "decay", "current"),
    ("d_drive", "d_decay", "d_current"),
    lambda size: 2 * size.T + size.B + 2,
    samples=(2, None, 1),
)
LEAKY_SCAN = Operator(
    leaky_recurrent_scan,
    closed_form.leaky_recurrent_scan,
    "leaky_recurrent_scan",
    ("drive", "weight", "decay", "current", "threshold", *NEURON),
    ("spikes", "V", "feedback", "currents"),
    lambda size: 2 * size.T + size.J + size.K + 4,
    samples=(2, 2, 2, 2),
    spiking=True,
)
LEAKY_SCAN_BACKWARD = Operator(
    leaky_recurrent_scan_backward,
    closed_form.leaky_recurrent_scan_backward,
    "leaky_recurrent_scan",
    (
        *LEAKY_GRADIENTS, "derivative", "spikes", "currents", "weight", "decay", "current", *NEURON,
        "detach_reset",
    ),
    (
        "d_drive", "d_weight", "d_decay", "d_current", "d_threshold", "d_feedback_decay",
        "d_feedback_strength", "d_feedback", "d_spike",
    ),
    lambda size: (size.T + 1) * (size.J + size.K + 8) + 2 * size.T + size.B,
    optional=LEAKY_GRADIENTS,
    samples=(2, None, None, 1, None, None, None, 2, 1),
)  # fmt: skip
OPERATORS = {
    "spike scan": SPIKE_SCAN,
    "spike scan backward": SPIKE_SCAN_BACKWARD,
    "leaky current": LEAKY_CURRENT,
    "leaky current backward": LEAKY_CURRENT_BACKWARD,
    "leaky scan": LEAKY_SCAN,
    "leaky scan backward": LEAKY_SCAN_BACKWARD,
}
