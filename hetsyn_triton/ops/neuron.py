"""The five tensors of a neuron: threshold, feedback currents and last spike.

Reset and adaptation obey one law, F(t) = decay F(t-1) + strength s(t-1). They are stacked along K
and called feedback currents; the reset has the threshold as strength.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from hetsyn_triton import validation as check
from hetsyn_triton.states import NeuronState
from hetsyn_triton.surrogates import Surrogate

from . import checks
from .dispatch import like

FORWARD = (
    "Tensor threshold, Tensor feedback_decay, Tensor feedback_strength, Tensor feedback,"
    " Tensor spike"
)
"""The part of a schema for a `Neuron`."""
BACKWARD = (
    "Tensor feedback_decay, Tensor feedback_strength, Tensor feedback, Tensor spike,"
    " bool detach_reset"
)
"""The part of a backward's schema for a `Neuron`, whose threshold it does not need."""


class Neuron(NamedTuple):
    """What the scans know of their neurons. Without replicas the axis R is missing."""

    threshold: Tensor
    """[R, J]"""
    feedback_decay: Tensor
    """[R, K, J]"""
    feedback_strength: Tensor
    """[R, K, J]"""
    feedback: Tensor
    """Feedback currents before the first step, [R, K, B, J]."""
    spike: Tensor
    """Spikes before the first step, [R, B, J]."""


def stacked(
    threshold: Tensor,
    reset_decay: Tensor,
    adaptation_decay: Tensor | None,
    adaptation_strength: Tensor | None,
    reset: Tensor,
    adaptation: Tensor | None,
    spike: Tensor,
) -> Neuron:
    """Stack reset and, if there is one, adaptation along K."""
    decays, strengths, feedback = [reset_decay], [threshold], [reset]
    if adaptation_decay is not None:
        assert adaptation_strength is not None
        assert adaptation is not None
        decays.append(adaptation_decay)
        strengths.append(adaptation_strength)
        feedback.append(adaptation)
    return Neuron(
        threshold,
        torch.stack(decays, -2),
        torch.stack(strengths, -2),
        torch.stack(feedback, -3),
        spike,
    )


def checked(
    steps: Tensor,
    threshold: Tensor | float,
    reset_decay: Tensor | float,
    adaptation_decay: Tensor | float | None,
    adaptation_strength: Tensor | float | None,
    state: NeuronState | None,
    surrogate: Surrogate,
) -> Neuron:
    """Check and stack what describes the neurons of `steps` [T, B, J]."""
    check.check_surrogate(surrogate)
    if (adaptation_decay is None) != (adaptation_strength is None):
        raise ValueError(
            "adaptation_decay and adaptation_strength: expected both or neither, got only "
            f"{'adaptation_strength' if adaptation_decay is None else 'adaptation_decay'}"
        )
    theta = checks.per_neuron("threshold", threshold, steps)
    kappa = checks.per_neuron("reset_decay", reset_decay, steps)
    check.check_positive("threshold", theta)
    check.check_unit_interval("reset_decay", kappa)
    rho = strength = None
    if adaptation_decay is not None and adaptation_strength is not None:
        rho = checks.per_neuron("adaptation_decay", adaptation_decay, steps)
        strength = checks.per_neuron("adaptation_strength", adaptation_strength, steps)
        check.check_unit_interval("adaptation_decay", rho)
        check.check_finite("adaptation_strength", strength)
    adapts = rho is not None
    if state is not None and not isinstance(state, NeuronState):
        raise TypeError(f"state: expected NeuronState, got {type(state).__name__}")
    if state is not None and (state.adaptation is None) == adapts:
        raise ValueError(
            f"state.adaptation: expected {'a tensor' if adapts else 'None'}, "
            f"got {'None' if adapts else 'a tensor'}"
        )
    reset = checks.initial("state.reset", state and state.reset, steps)
    adaptation = None
    if adapts:
        adaptation = checks.initial("state.adaptation", state and state.adaptation, steps)
    spike = checks.initial("state.spike", state and state.spike, steps)
    return stacked(theta, kappa, rho, strength, reset, adaptation, spike)


def state_after(neuron: Neuron, spikes: Tensor, feedback: Tensor) -> NeuronState:
    """Return the state after `spikes` [T, B, J], with the last feedback currents [K, B, J]."""
    reset, *adaptation = feedback.unbind(-3)
    spike = last(spikes, neuron.spike)
    return NeuronState(reset, adaptation[0] if adaptation else None, spike)


def last(steps: Tensor, before: Tensor) -> Tensor:
    """Return a copy of the last step, or of the state before if there is no step."""
    return (steps.select(-3, -1) if steps.shape[-3] else before).clone()


def gradients_like(
    decay: Tensor, strength: Tensor, feedback: Tensor, spike: Tensor, detach_reset: bool
) -> tuple[Tensor, ...]:
    """Return empty gradients of a `Neuron`, for fakes."""
    replicas, _, neurons = decay.shape
    return decay.new_empty(replicas, neurons), *like(decay, strength, feedback, spike)
