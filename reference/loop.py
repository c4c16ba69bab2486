"""The plain loop over time under autograd: slow, and true.

Shapes as in `steps`: R replicas, T steps, B samples, I inputs, J neurons, K feedback currents; time
is axis 1.
"""

from torch import Tensor, stack

from .steps import (
    SpikeFunction,
    feedback_step,
    leaky_step,
    membrane_potential,
    synaptic_sum,
    trace_step,
)


def _stack(steps: list[Tensor], like: Tensor) -> Tensor:
    """Joins the steps along time; no steps give a tensor shaped as `like` with T = 0."""
    return stack(steps, dim=1) if steps else like.unsqueeze(1)[:, :0]


def synaptic_current(
    z: Tensor, weight: Tensor, decay: Tensor, trace: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Summed synaptic current of every neuron.

    z [R, T, B, I], weight and decay [R, J, I], trace [R, B, J, I] or None for zeros
    -> current [R, T, B, J], final trace [R, B, J, I].
    """
    if trace is None:
        trace = z.new_zeros(z.shape[0], z.shape[2], *weight.shape[1:])
    currents = []
    for z_t in z.unbind(1):
        trace = trace_step(trace, z_t, decay)
        currents.append(synaptic_sum(trace, weight))
    return _stack(currents, synaptic_sum(trace, weight)), trace


def leaky_current(drive: Tensor, decay: Tensor, current: Tensor) -> Tensor:
    """Leaky integration with one decay per neuron: drive [R, T, B, J], decay [R, J], current [R, B,
    J] -> [R, T, B, J]."""
    currents = []
    for drive_t in drive.unbind(1):
        current = leaky_step(current, drive_t, decay)
        currents.append(current)
    return _stack(currents, current)


def spike_scan(
    current: Tensor,
    threshold: Tensor,
    feedback_decay: Tensor,
    feedback_strength: Tensor,
    feedback: Tensor,
    spike: Tensor,
    spike_function: SpikeFunction,
    detach_reset: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Threshold and feedback currents over given synaptic currents.

    current [R, T, B, J], threshold [R, J], feedback_decay and feedback_strength [R, K, J], feedback
    [R, K, B, J], spike [R, B, J] (the last spike before t = 1) -> spikes and V [R, T, B, J], final
    feedback [R, K, B, J]. `detach_reset` stops the gradient from the feedback currents to the
    spikes that drive them.
    """
    spikes, potentials = [], []
    for current_t in current.unbind(1):
        fed_back = spike.detach() if detach_reset else spike
        feedback = feedback_step(feedback, fed_back, feedback_decay, feedback_strength)
        v = membrane_potential(current_t, feedback)
        spike = spike_function(v - threshold.unsqueeze(1), threshold.unsqueeze(1))
        spikes.append(spike)
        potentials.append(v)
    return _stack(spikes, spike), _stack(potentials, spike), feedback


def feedforward_scan(
    z: Tensor,
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
    """`synaptic_current`, then `spike_scan` -> spikes, V, final feedback, final trace."""
    current, trace = synaptic_current(z, weight, decay, trace)
    neuron = (threshold, feedback_decay, feedback_strength, feedback, spike)
    return *spike_scan(current, *neuron, spike_function, detach_reset), trace


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
    return _stack(spikes, spike), _stack(potentials, spike), feedback, trace


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
    return _stack(spikes, spike), _stack(potentials, spike), feedback, _stack(currents, spike)
