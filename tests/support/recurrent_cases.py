"""What the tests of the recurrent scan share: arguments, the float64 truth, rounding bounds."""

from typing import Any

import torch
from torch import Tensor

from hetsyn_triton.reference import closed_form
from tests.support.bounds import assert_spikes_follow, assert_within
from tests.support.problems import Size, problem

Arguments = dict[str, Any]
"""Tensors by name; None where an optional one is absent."""

FORWARD = (
    "current", "weight", "decay", "trace", "threshold", "feedback_decay", "feedback_strength",
    "feedback", "spike",
)  # fmt: skip
GIVEN = ("g_spikes", "g_potential", "g_feedback", "g_trace")
SWEEP = (*GIVEN, "derivative", "weight", "decay", "feedback_decay", "feedback_strength")
BACKWARD = (
    *GIVEN, "derivative", "spikes", "weight", "decay", "feedback_decay", "feedback_strength",
    "feedback", "spike",
)  # fmt: skip
OUTPUTS = ("spikes", "V", "feedback", "trace")
RESULTS = (
    "d_current", "d_threshold", "d_feedback_decay", "d_feedback_strength", "d_feedback", "d_spike",
    "d_trace",
)  # fmt: skip


CPU = torch.device("cpu")


def forward_arguments(
    size: Size,
    device: torch.device = CPU,
    dtype: torch.dtype = torch.float32,
    *,
    seed: int = 0,
    states: bool = True,
) -> Arguments:
    """Arguments of the forward by name."""
    made = problem("recurrent_scan", size, seed, states=states)
    if states:  # The spike before the first step may be any number.
        made["spike"] = made["spike"] * 0.75 - 0.25
    return {n: made[n].to(device, dtype) if n in made else None for n in FORWARD}


def backward_arguments(
    size: Size,
    device: torch.device = CPU,
    dtype: torch.dtype = torch.float32,
    *,
    seed: int = 0,
    given: tuple[str, ...] = GIVEN,
) -> Arguments:
    """Arguments of the backward by name; `given` names the gradients that are present."""
    generator = torch.Generator().manual_seed(seed + 1)

    def normal(*shape: int) -> Tensor:
        made = torch.randn(shape, generator=generator, dtype=torch.float64)
        return made.to(device, dtype)

    R, T, B, J, K = size.R, size.T, size.B, size.J, size.K
    shapes = {"g_feedback": (R, K, B, J), "g_trace": (R, B, J, J)}
    made = forward_arguments(size, device, dtype, seed=seed)
    made |= {n: normal(*shapes.get(n, (R, T, B, J))) for n in GIVEN}
    made["derivative"] = normal(R, T, B, J).abs() * 0.5
    made["spikes"] = (normal(R, T, B, J) > 0).to(dtype)
    return {n: None if n in GIVEN and n not in given else made[n] for n in BACKWARD}


def doubled(given: Arguments) -> Arguments:
    return {n: None if t is None else t.double() for n, t in given.items()}


def absolute(given: Arguments) -> Arguments:
    """Absolute values with the signs under which every term of every result adds up: feedback
    currents are subtracted, so they and their gradients are made negative."""
    negative = ("feedback", "feedback_strength", "g_feedback")
    return {
        n: None if t is None else (-t.abs() if n in negative else t.abs())
        for n, t in doubled(given).items()
    }


def forced(arguments: Arguments, spikes: Tensor) -> tuple[Tensor, ...]:
    """The closed form in float64 with every spike given."""
    given = iter(spikes.double().unbind(1))
    return closed_form.recurrent_scan(**arguments, spike_function=lambda *_: next(given))


def assert_forward(arguments: Arguments, found: tuple[Tensor, ...]) -> None:
    """Spikes follow V, and all else is within rounding of the truth for these spikes."""
    spikes = found[0]
    _, T, _, J = spikes.shape
    K = arguments["feedback"].shape[1]
    exact = forced(doubled(arguments), spikes)
    magnitude = forced(absolute(arguments), spikes)
    # Two for each step of a recurrence, the sum over neurons, the feedbacks, the ends.
    roundings = 2 * T + J + K + 12
    assert_spikes_follow(spikes, exact[1], magnitude[1], arguments["threshold"], roundings)
    for what, *tensors in zip(OUTPUTS, found, exact, magnitude, strict=True):
        assert tensors[0].dtype == arguments["current"].dtype
        assert tensors[0].is_contiguous()
        assert_within(tensors[0], tensors[1], tensors[2].abs(), roundings, what)


def assert_backward(arguments: Arguments, found: tuple[Tensor, ...], detach_reset: bool) -> None:
    """All gradients are within rounding of the truth for these spikes."""
    _, T, B, J = arguments["derivative"].shape
    K = arguments["feedback"].shape[1]
    exact = closed_form.recurrent_scan_backward(**doubled(arguments), detach_reset=detach_reset)
    magnitude = closed_form.recurrent_scan_backward(
        **absolute(arguments), detach_reset=detach_reset
    )
    # A term may go through the sum over neurons in every step, and once through time and batch.
    roundings = (T + 1) * (J + K + 16) + T + B
    for what, *tensors in zip(RESULTS, found, exact, magnitude, strict=True):
        assert tensors[0].dtype == arguments["derivative"].dtype
        assert_within(tensors[0], tensors[1], tensors[2].abs(), roundings, what)
