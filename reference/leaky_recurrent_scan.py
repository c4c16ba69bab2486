"""A scan in which s(t-1) feeds back, one decay per neuron: the loop, and the closed form with its
backward."""

import torch
from torch import Tensor

from .lib.scans import reverse_scan, scan
from .lib.steps import (
    SpikeFunction,
    feedback_step,
    heaviside,
    leaky_step,
    membrane_potential,
    previous_steps,
    stack_steps,
)


def loop(
    drive: Tensor,
    weight: Tensor,
    decay: Tensor,
    current: Tensor,
    threshold: Tensor,
    feedback_decay: Tensor,
    feedback_strength: Tensor,
    feedback: Tensor,
    spike: Tensor,
    spike_function: SpikeFunction,
    detach_reset: bool = False,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Recurrent neurons with one decay each: c(t) = rho c(t-1) + u(t) + W s(t-1).

    drive [R, T, B, J], weight [R, J, J], decay [R, J], current [R, B, J]
    -> spikes, V, final feedback, current c [R, T, B, J].
    """
    spikes, potentials, currents = [], [], []
    for drive_t in drive.unbind(1):
        current = leaky_step(current, drive_t + spike @ weight.mT, decay)
        fed_back = spike.detach() if detach_reset else spike
        feedback = feedback_step(feedback, fed_back, feedback_decay, feedback_strength)
        v = membrane_potential(current, feedback)
        spike = spike_function(v - threshold.unsqueeze(1), threshold.unsqueeze(1))
        spikes.append(spike)
        potentials.append(v)
        currents.append(current)
    return (
        stack_steps(spikes, spike),
        stack_steps(potentials, spike),
        feedback,
        stack_steps(currents, spike),
    )


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
