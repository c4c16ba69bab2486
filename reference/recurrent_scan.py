"""A scan in which s(t-1) feeds back through synapses: the loop, and the closed form with its
backward."""

import torch
from torch import Tensor

from .lib.scans import reverse_scan, scan
from .lib.steps import (
    SpikeFunction,
    feedback_step,
    heaviside,
    membrane_potential,
    stack_steps,
    synaptic_sum,
    trace_step,
)
from .lib.traces import Traces, rows_of


def loop(
    current: Tensor,
    weight: Tensor,
    decay: Tensor,
    trace: Tensor | None,
    threshold: Tensor,
    feedback_decay: Tensor,
    feedback_strength: Tensor,
    feedback: Tensor,
    spike: Tensor,
    spike_function: SpikeFunction,
    detach_reset: bool = False,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`spike_scan` with recurrent synapses driven by s(t-1), each with its own decay.

    weight and decay [R, J, J] (postsynaptic first), trace [R, B, J, J] or None for zeros
    -> spikes, V, final feedback, final recurrent trace.
    """
    if trace is None:
        trace = current.new_zeros(*spike.shape, spike.shape[-1])
    spikes, potentials = [], []
    for current_t in current.unbind(1):
        trace = trace_step(trace, spike, decay)
        fed_back = spike.detach() if detach_reset else spike
        feedback = feedback_step(feedback, fed_back, feedback_decay, feedback_strength)
        v = membrane_potential(current_t + synaptic_sum(trace, weight), feedback)
        spike = spike_function(v - threshold.unsqueeze(1), threshold.unsqueeze(1))
        spikes.append(spike)
        potentials.append(v)
    return stack_steps(spikes, spike), stack_steps(potentials, spike), feedback, trace


@torch.no_grad()
def recurrent_scan(
    current: Tensor,
    weight: Tensor,
    decay: Tensor,
    trace: Tensor | None,
    threshold: Tensor,
    feedback_decay: Tensor,
    feedback_strength: Tensor,
    feedback: Tensor,
    spike: Tensor,
    spike_function: SpikeFunction = heaviside,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As `loop.recurrent_scan`: -> spikes, V, final feedback, final recurrent trace [R, B, J,
    J]."""
    state = Traces(trace, decay, current.shape[2])
    weight_rows = rows_of(weight)

    def current_at(t: int, spike: Tensor) -> Tensor:
        state.advance(spike)
        return current[:, t] + state.weighted_sum(weight_rows)

    spikes, potentials, feedback = scan(
        current_at,
        current.shape,
        threshold,
        feedback_decay,
        feedback_strength,
        feedback,
        spike,
        spike_function,
    )
    return spikes, potentials, feedback, state.natural()


@torch.no_grad()
def recurrent_scan_backward(
    g_spikes: Tensor | None,
    g_potential: Tensor | None,
    g_feedback: Tensor | None,
    g_trace: Tensor | None,
    derivative: Tensor,
    spikes: Tensor,
    weight: Tensor,
    decay: Tensor,
    feedback_decay: Tensor,
    feedback_strength: Tensor,
    feedback: Tensor,
    spike: Tensor,
    detach_reset: bool = False,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """-> the six of `spike_scan_backward` and d_trace [R, B, J, J].

    The gradients of weight and decay are `synaptic_parameter_gradient` with z = s(t-1) and g =
    d_current.
    """
    state = Traces(None, decay.mT, spikes.shape[2])
    weight_rows = rows_of(weight.mT)
    carried = None if g_trace is None else g_trace.clone()

    def through_current(t: int, g: Tensor) -> Tensor:
        state.advance(g)
        back = state.weighted_sum(weight_rows)
        if carried is not None:
            back = back + carried.sum(2)
            carried.mul_(decay.unsqueeze(1))
        return back

    gradients = reverse_scan(
        through_current,
        g_spikes,
        g_potential,
        g_feedback,
        derivative,
        spikes,
        feedback_decay,
        feedback_strength,
        feedback,
        spike,
        detach_reset,
    )
    d_trace = (weight * decay).unsqueeze(1) * state.natural().mT
    return *gradients, d_trace if carried is None else d_trace + carried
