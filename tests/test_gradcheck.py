"""Gradients against finite differences: torch.autograd.gradcheck in float64 with a smooth spike.

With s = sigmoid(k (V - theta)) the network is differentiable, so finite differences are the truth
for both the loop (autograd knows the derivative of its spike) and the closed forms (they are handed
k s (1 - s) as data, as they are handed a surrogate). States are not zero, decays include 0 and 1.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from hetsyn_triton.reference import closed_form, loop
from tests.support.operators import DIFFERENTIABLE, SPIKING, Size
from tests.support.random_arguments import apply, problem

CLOSED_FORM: Any = closed_form
"""Untyped, for calls with whole tuples of tensors."""

STEEPNESS = 2.0
SIZE = Size(R=2, T=4, B=2, I=3, J=2, K=2)


def smooth_spike(distance: Tensor, threshold: Tensor) -> Tensor:
    return torch.sigmoid(STEEPNESS * distance)


def slope(spikes: Tensor) -> Tensor:
    return STEEPNESS * spikes * (1 - spikes)


class SmoothSpikeScan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *tensors: Tensor) -> Any:
        outputs = CLOSED_FORM.spike_scan(*tensors, smooth_spike)
        ctx.save_for_backward(*tensors, outputs[0])
        return outputs

    @staticmethod
    def backward(ctx: Any, *g: Tensor) -> Any:
        _, _, decay, strength, feedback, spike, spikes = ctx.saved_tensors
        return CLOSED_FORM.spike_scan_backward(
            *g, slope(spikes), spikes, decay, strength, feedback, spike
        )


class SmoothFeedforwardScan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *tensors: Tensor) -> Any:
        outputs = CLOSED_FORM.feedforward_scan(*tensors, smooth_spike)
        ctx.save_for_backward(*tensors, outputs[0])
        return outputs

    @staticmethod
    def backward(ctx: Any, *g: Tensor) -> Any:
        z, weight, decay, trace, _, *neuron, spikes = ctx.saved_tensors
        *g_neuron, g_trace = g
        g_current, *d_neuron = CLOSED_FORM.spike_scan_backward(
            *g_neuron, slope(spikes), spikes, *neuron
        )
        dz, d_trace = CLOSED_FORM.synaptic_current_backward(g_current, g_trace, weight, decay)
        dw, dr = CLOSED_FORM.synaptic_parameter_gradient(
            z, g_current, g_trace, weight, decay, trace
        )
        return dz, dw, dr, d_trace, *d_neuron


class SmoothRecurrentScan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *tensors: Tensor) -> Any:
        outputs = CLOSED_FORM.recurrent_scan(*tensors, smooth_spike)
        ctx.save_for_backward(*tensors, outputs[0])
        return outputs

    @staticmethod
    def backward(ctx: Any, *g: Tensor) -> Any:
        _, weight, decay, trace, _, *neuron, spikes = ctx.saved_tensors
        d_current, *d_neuron, d_trace = CLOSED_FORM.recurrent_scan_backward(
            *g, slope(spikes), spikes, weight, decay, *neuron
        )
        before = torch.cat([neuron[-1].unsqueeze(1), spikes[:, :-1]], dim=1)
        dw, dr = CLOSED_FORM.synaptic_parameter_gradient(
            before, d_current, g[-1], weight, decay, trace
        )
        return d_current, dw, dr, d_trace, *d_neuron


class SmoothLeakyRecurrentScan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *tensors: Tensor) -> Any:
        outputs = CLOSED_FORM.leaky_recurrent_scan(*tensors, smooth_spike)
        spikes, _, _, currents = outputs
        ctx.save_for_backward(*tensors, spikes, currents)
        return outputs

    @staticmethod
    def backward(ctx: Any, *g: Tensor) -> Any:
        _, weight, decay, current, _, *neuron, spikes, currents = ctx.saved_tensors
        return CLOSED_FORM.leaky_recurrent_scan_backward(
            *g, slope(spikes), spikes, currents, weight, decay, current, *neuron
        )


SMOOTH = {
    "spike_scan": SmoothSpikeScan,
    "feedforward_scan": SmoothFeedforwardScan,
    "recurrent_scan": SmoothRecurrentScan,
    "leaky_recurrent_scan": SmoothLeakyRecurrentScan,
}


def by_loop(operator: str) -> Callable[..., Any]:
    function = getattr(loop, operator)
    if operator in SPIKING:
        return lambda *tensors: function(*tensors, smooth_spike)
    return function  # type: ignore[no-any-return]


def by_closed_form(operator: str) -> Callable[..., Any]:
    """The package's own operator where there is no spike, else closed forms under a smooth one."""
    if operator in SPIKING:
        return SMOOTH[operator].apply
    return lambda *tensors: apply(operator, *tensors)


@pytest.mark.parametrize("implementation", [by_loop, by_closed_form])
@pytest.mark.parametrize("operator", DIFFERENTIABLE)
def test_every_gradient(operator: str, implementation: Callable[[str], Callable[..., Any]]) -> None:
    """Every input is checked: parameters, threshold, feedback, states; and every output."""
    tensors = problem(operator, SIZE, seed=3, analog=True).values()
    inputs = tuple(t.requires_grad_() for t in tensors)
    assert torch.autograd.gradcheck(implementation(operator), inputs, rtol=1e-6, atol=1e-7)
