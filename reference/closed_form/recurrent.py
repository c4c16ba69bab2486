"""Scans in which s(t-1) feeds back: with one decay per synapse, and with one per neuron."""

import torch
from torch import Tensor

from ..steps import SpikeFunction, heaviside, previous_steps
from .spikes import reverse_scan, scan
from .traces import Traces, rows_of


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


@torch.no_grad()
def leaky_recurrent_scan(
    drive: Tensor,
    weight: Tensor,
    decay: Tensor,
    current: Tensor,
    threshold: Tensor,
    feedback_decay: Tensor,
    feedback_strength: Tensor,
    feedback: Tensor,
    spike: Tensor,
    spike_function: SpikeFunction = heaviside,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As `loop.leaky_recurrent_scan`: -> spikes, V, final feedback, current c [R, T, B, J]."""
    currents = torch.empty_like(drive, memory_format=torch.contiguous_format)
    decay = decay.unsqueeze(1)

    def current_at(t: int, spike: Tensor) -> Tensor:
        before = currents[:, t - 1] if t else current
        currents[:, t] = torch.addcmul(torch.baddbmm(drive[:, t], spike, weight.mT), decay, before)
        return currents[:, t]

    spikes, potentials, feedback = scan(
        current_at,
        drive.shape,
        threshold,
        feedback_decay,
        feedback_strength,
        feedback,
        spike,
        spike_function,
    )
    return spikes, potentials, feedback, currents


@torch.no_grad()
def leaky_recurrent_scan_backward(
    g_spikes: Tensor | None,
    g_potential: Tensor | None,
    g_feedback: Tensor | None,
    g_currents: Tensor | None,
    derivative: Tensor,
    spikes: Tensor,
    currents: Tensor,
    weight: Tensor,
    decay: Tensor,
    current: Tensor,
    feedback_decay: Tensor,
    feedback_strength: Tensor,
    feedback: Tensor,
    spike: Tensor,
    detach_reset: bool = False,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """-> d_drive [R, T, B, J], d_weight [R, J, J], d_decay [R, J], d_current [R, B, J],
    d_threshold, d_feedback_decay, d_feedback_strength, d_feedback, d_spike."""
    d_drive = torch.empty_like(derivative, memory_format=torch.contiguous_format)
    d_current = torch.zeros_like(current)
    row_decay = decay.unsqueeze(1)

    def through_current(t: int, g: Tensor) -> Tensor:
        nonlocal d_current
        at_step = g + d_current if g_currents is None else g + d_current + g_currents[:, t]
        d_drive[:, t] = at_step
        d_current = row_decay * at_step
        return torch.bmm(at_step, weight)

    _, d_threshold, d_feedback_decay, d_feedback_strength, d_feedback, d_spike = reverse_scan(
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
    d_weight = torch.bmm(d_drive.flatten(1, 2).mT, previous_steps(spikes, spike).flatten(1, 2))
    d_decay = (d_drive * previous_steps(currents, current)).sum((1, 2))
    return (
        d_drive,
        d_weight,
        d_decay,
        d_current,
        d_threshold,
        d_feedback_decay,
        d_feedback_strength,
        d_feedback,
        d_spike,
    )
