"""Schemas, fakes and implementations of the raw operators: forwards and backwards without autograd.

Shapes: R replicas, T steps, B samples, I inputs, J neurons, K feedback currents; every tensor has
the replica axis first. What each argument means stands in `hetsyn_triton.reference.closed_form`.
"""

from typing import Any

from torch import Tensor

from hetsyn_triton.reference import closed_form

from .library import define


def _like(*tensors: Tensor) -> tuple[Tensor, ...]:
    return tuple(t.new_empty(t.shape) for t in tensors)


def _trace_like(steps: Tensor, weight: Tensor) -> Tensor:
    """A trace [R, B, J, I] for inputs or gradients [R, T, B, N] and synapses [R, J, I]."""
    replicas, _, batch, _ = steps.shape
    return steps.new_empty(replicas, batch, *weight.shape[1:])


def _steps_like(steps: Tensor, features: int) -> Tensor:
    return steps.new_empty(*steps.shape[:3], features)


def _neuron_gradients_like(
    decay: Tensor, strength: Tensor, feedback: Tensor, spike: Tensor, detach_reset: bool
) -> tuple[Tensor, ...]:
    """d_threshold [R, J], d_feedback_decay, d_feedback_strength, d_feedback, d_spike."""
    replicas, _, neurons = decay.shape
    return decay.new_empty(replicas, neurons), *_like(decay, strength, feedback, spike)


def _spike_scan_backward_fake(
    g_spikes: Tensor | None,
    g_potential: Tensor | None,
    g_feedback: Tensor | None,
    derivative: Tensor,
    spikes: Tensor,
    *neuron: Any,
) -> tuple[Tensor, ...]:
    return *_like(spikes), *_neuron_gradients_like(*neuron)


def _recurrent_scan_backward_fake(
    g_spikes: Tensor | None,
    g_potential: Tensor | None,
    g_feedback: Tensor | None,
    g_trace: Tensor | None,
    derivative: Tensor,
    spikes: Tensor,
    weight: Tensor,
    decay: Tensor,
    *neuron: Any,
) -> tuple[Tensor, ...]:
    return *_like(spikes), *_neuron_gradients_like(*neuron), _trace_like(spikes, weight)


def _leaky_recurrent_scan_backward_fake(
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
    *neuron: Any,
) -> tuple[Tensor, ...]:
    return *_like(spikes, weight, decay, current), *_neuron_gradients_like(*neuron)


# -- synaptic current ------------------------------------------------------------------------------

synaptic_current = define(
    "synaptic_current(Tensor z, Tensor weight, Tensor decay, Tensor? trace) -> (Tensor, Tensor)",
    closed_form.synaptic_current,
    lambda z, weight, decay, trace: (_steps_like(z, weight.shape[1]), _trace_like(z, weight)),
)

synaptic_current_backward = define(
    "synaptic_current_backward(Tensor g, Tensor? g_trace, Tensor weight, Tensor decay)"
    " -> (Tensor, Tensor)",
    closed_form.synaptic_current_backward,
    lambda g, g_trace, weight, decay: (_steps_like(g, weight.shape[2]), _trace_like(g, weight)),
)

synaptic_parameter_gradient = define(
    "synaptic_parameter_gradient(Tensor z, Tensor g, Tensor? g_trace, Tensor weight, Tensor decay,"
    " Tensor? trace) -> (Tensor, Tensor)",
    closed_form.synaptic_parameter_gradient,
    lambda z, g, g_trace, weight, decay, trace: _like(weight, decay),
)

# -- leaky current: one decay per neuron -----------------------------------------------------------

leaky_current = define(
    "leaky_current(Tensor drive, Tensor decay, Tensor current) -> Tensor",
    closed_form.leaky_current,
    lambda drive, decay, current: drive.new_empty(drive.shape),
)

leaky_current_backward = define(
    "leaky_current_backward(Tensor g, Tensor result, Tensor decay, Tensor current)"
    " -> (Tensor, Tensor, Tensor)",
    closed_form.leaky_current_backward,
    lambda g, result, decay, current: _like(g, decay, current),
)

# -- threshold and feedback currents ---------------------------------------------------------------

_NEURON = (
    "Tensor threshold, Tensor feedback_decay, Tensor feedback_strength, Tensor feedback,"
    " Tensor spike"
)
_NEURON_BACKWARD = (
    "Tensor feedback_decay, Tensor feedback_strength, Tensor feedback, Tensor spike,"
    " bool detach_reset"
)

spike_scan = define(
    f"spike_scan(Tensor current, {_NEURON}) -> (Tensor, Tensor, Tensor)",
    closed_form.spike_scan,
    lambda current, threshold, decay, strength, feedback, spike: _like(current, current, feedback),
)

spike_scan_backward = define(
    "spike_scan_backward(Tensor? g_spikes, Tensor? g_potential, Tensor? g_feedback,"
    f" Tensor derivative, Tensor spikes, {_NEURON_BACKWARD})"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    closed_form.spike_scan_backward,
    _spike_scan_backward_fake,
)

feedforward_scan = define(
    f"feedforward_scan(Tensor z, Tensor weight, Tensor decay, Tensor? trace, {_NEURON})"
    " -> (Tensor, Tensor, Tensor, Tensor)",
    closed_form.feedforward_scan,
    lambda z, weight, decay, trace, threshold, feedback_decay, strength, feedback, spike: (
        _steps_like(z, weight.shape[1]),
        _steps_like(z, weight.shape[1]),
        *_like(feedback),
        _trace_like(z, weight),
    ),
)

recurrent_scan = define(
    f"recurrent_scan(Tensor current, Tensor weight, Tensor decay, Tensor? trace, {_NEURON})"
    " -> (Tensor, Tensor, Tensor, Tensor)",
    closed_form.recurrent_scan,
    lambda current, weight, decay, trace, threshold, feedback_decay, strength, feedback, spike: (
        *_like(current, current, feedback),
        _trace_like(current, weight),
    ),
)

recurrent_scan_backward = define(
    "recurrent_scan_backward(Tensor? g_spikes, Tensor? g_potential, Tensor? g_feedback,"
    " Tensor? g_trace, Tensor derivative, Tensor spikes, Tensor weight, Tensor decay,"
    f" {_NEURON_BACKWARD}) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    closed_form.recurrent_scan_backward,
    _recurrent_scan_backward_fake,
)

leaky_recurrent_scan = define(
    f"leaky_recurrent_scan(Tensor drive, Tensor weight, Tensor decay, Tensor current, {_NEURON})"
    " -> (Tensor, Tensor, Tensor, Tensor)",
    closed_form.leaky_recurrent_scan,
    lambda drive, weight, decay, current, threshold, feedback_decay, strength, feedback, spike: (
        _like(drive, drive, feedback, drive)
    ),
)

leaky_recurrent_scan_backward = define(
    "leaky_recurrent_scan_backward(Tensor? g_spikes, Tensor? g_potential, Tensor? g_feedback,"
    " Tensor? g_currents, Tensor derivative, Tensor spikes, Tensor currents, Tensor weight,"
    f" Tensor decay, Tensor current, {_NEURON_BACKWARD})"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    closed_form.leaky_recurrent_scan_backward,
    _leaky_recurrent_scan_backward_fake,
)
