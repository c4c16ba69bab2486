"""Random arguments of every operator, as a layer calls it, on any device.

`Sizes` names an operator and its sizes: R replicas, T steps, B samples, I inputs, J neurons, K
feedback currents; recurrent operators have I = J.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hetsyn_triton.kernels.surrogate_kinds import KINDS
from hetsyn_triton.ops.surrogate import numbers_of
from hetsyn_triton.surrogates import MultiGaussian

Arguments = tuple[Any, ...]


@dataclass(frozen=True)
class Sizes:
    """One operator at one size."""

    name: str
    operator: str
    R: int
    T: int
    B: int
    I: int  # noqa: E741 - the field's letter
    J: int
    K: int = 1
    states: bool = False
    """Initial traces present; in reverse every gradient, those of final states among them."""
    detach: bool = False
    """`detach_reset` of a reverse scan."""

    def arguments(self, device: torch.device | str, seed: int = 0) -> Arguments:
        """Random tensors: a tenth of the inputs are spikes, decays are those of 5 to 20 steps."""
        return ARGUMENTS[self.operator](self, Values(torch.device(device), seed))


class Values:
    """Random tensors on a device, the same for the same seed; on the meta device only shapes."""

    def __init__(self, device: torch.device, seed: int) -> None:
        self.device = device
        meta = device.type == "meta"
        self.generator = None if meta else torch.Generator(device).manual_seed(seed)

    def uniform(self, *shape: int) -> Tensor:
        return torch.rand(shape, device=self.device, generator=self.generator)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, device=self.device, generator=self.generator)

    def spikes(self, *shape: int) -> Tensor:
        return (self.uniform(*shape) < 0.1).float()

    def decays(self, *shape: int) -> Tensor:
        return torch.exp(-1.0 / (5.0 + 15.0 * self.uniform(*shape)))

    def weights(self, c: Sizes) -> tuple[Tensor, Tensor]:
        return self.normal(c.R, c.J, c.I) * c.I**-0.5, self.decays(c.R, c.J, c.I)

    def neuron(self, c: Sizes) -> tuple[Tensor, ...]:
        """Decay and strength of the feedback, feedback, spike."""
        strength = 0.5 + self.uniform(c.R, c.K, c.J)
        states = torch.zeros(c.R, c.K, c.B, c.J, device=self.device)
        return self.decays(c.R, c.K, c.J), strength, states, states[:, 0].clone()

    def threshold(self, c: Sizes) -> Tensor:
        return 0.5 + self.uniform(c.R, c.J)

    def current(self, c: Sizes) -> Tensor:
        return torch.zeros(c.R, c.B, c.J, device=self.device)

    def trace(self, c: Sizes) -> Tensor | None:
        return self.uniform(c.R, c.B, c.J, c.I) if c.states else None

    def gradients(self, c: Sizes) -> tuple[Tensor | None, ...]:
        """g_spikes, g_potential, g_feedback."""
        g_spikes = self.normal(c.R, c.T, c.B, c.J)
        if not c.states:
            return g_spikes, None, None
        return g_spikes, torch.zeros_like(g_spikes), self.normal(c.R, c.K, c.B, c.J)


def _current(c: Sizes, v: Values) -> Arguments:
    return v.spikes(c.R, c.T, c.B, c.I), *v.weights(c), v.trace(c)


def _current_backward(c: Sizes, v: Values) -> Arguments:
    return v.normal(c.R, c.T, c.B, c.J), v.trace(c), *v.weights(c)


def _parameter_gradient(c: Sizes, v: Values) -> Arguments:
    z, g = v.spikes(c.R, c.T, c.B, c.I), v.normal(c.R, c.T, c.B, c.J)
    return z, g, v.trace(c), *v.weights(c), v.trace(c)


def _layer(c: Sizes, v: Values) -> Arguments:
    return *_current(c, v), v.threshold(c), *v.neuron(c)


def _scan(c: Sizes, v: Values) -> Arguments:
    return v.normal(c.R, c.T, c.B, c.J), v.threshold(c), *v.neuron(c)


def _scan_backward(c: Sizes, v: Values) -> Arguments:
    derivative, spikes = v.uniform(c.R, c.T, c.B, c.J), v.spikes(c.R, c.T, c.B, c.J)
    return *v.gradients(c), derivative, spikes, *v.neuron(c), c.detach


def _potentials(c: Sizes, v: Values) -> Arguments:
    return v.normal(c.R, c.T, c.B, c.J), v.threshold(c)


def _recurrent(c: Sizes, v: Values) -> Arguments:
    return v.normal(c.R, c.T, c.B, c.J), *v.weights(c), v.trace(c), v.threshold(c), *v.neuron(c)


def _recurrent_backward(c: Sizes, v: Values) -> Arguments:
    derivative, spikes = v.uniform(c.R, c.T, c.B, c.J), v.spikes(c.R, c.T, c.B, c.J)
    given = (*v.gradients(c), v.trace(c))
    return *given, derivative, spikes, *v.weights(c), *v.neuron(c), c.detach


def _leaky_current(c: Sizes, v: Values) -> Arguments:
    return v.normal(c.R, c.T, c.B, c.J), v.decays(c.R, c.J), v.current(c)


def _leaky_current_backward(c: Sizes, v: Values) -> Arguments:
    return v.normal(c.R, c.T, c.B, c.J), *_leaky_current(c, v)


def _leaky_recurrent(c: Sizes, v: Values) -> Arguments:
    leak, neuron = v.decays(c.R, c.J), (v.threshold(c), *v.neuron(c))
    return v.normal(c.R, c.T, c.B, c.J), v.weights(c)[0], leak, v.current(c), *neuron


def _leaky_recurrent_backward(c: Sizes, v: Values) -> Arguments:
    derivative, spikes = v.uniform(c.R, c.T, c.B, c.J), v.spikes(c.R, c.T, c.B, c.J)
    currents, weight = v.normal(c.R, c.T, c.B, c.J), v.weights(c)[0]
    given = (*v.gradients(c), None, derivative, spikes, currents)
    return *given, weight, v.decays(c.R, c.J), v.current(c), *v.neuron(c), c.detach


def _surrogate(c: Sizes, v: Values) -> Arguments:
    return *_potentials(c, v), *(numbers_of(MultiGaussian(), torch.float32) or ())


ARGUMENTS: dict[str, Callable[[Sizes, Values], Arguments]] = {
    "synaptic_current": _current,
    "synaptic_current_backward": _current_backward,
    "synaptic_parameter_gradient": _parameter_gradient,
    "leaky_current": _leaky_current,
    "leaky_current_backward": _leaky_current_backward,
    "feedforward_scan": _layer,
    "feedforward_scan_fused": _layer,
    "feedforward_scan_split": _layer,
    "spike_scan": _scan,
    "spike_scan_backward": _scan_backward,
    "recurrent_scan": _recurrent,
    "recurrent_scan_backward": _recurrent_backward,
    "recurrent_scan_by_steps": _recurrent,
    "recurrent_scan_backward_by_steps": _recurrent_backward,
    "leaky_recurrent_scan": _leaky_recurrent,
    "leaky_recurrent_scan_backward": _leaky_recurrent_backward,
    "surrogate": _surrogate,
    **{f"surrogate_{kind}": _potentials for kind in KINDS},
}
