"""Threshold, reset and adaptation over given currents: V = c - feedback, s = 1 if V > theta."""

from typing import Any, cast

import torch
from torch import Tensor

from hetsyn_triton import validation as check
from hetsyn_triton.reference import closed_form, loop
from hetsyn_triton.reference.lib.steps import surrogate_spike
from hetsyn_triton.states import NeuronState
from hetsyn_triton.surrogates import Surrogate, Triangular

from . import checks, neuron
from .autograd import once, vmap_over_replicas
from .dispatch import define, full_precision, like, resolve
from .neuron import Neuron
from .surrogate import scan_backward, with_surrogate

raw = define(
    f"spike_scan(Tensor current, {neuron.FORWARD}) -> (Tensor, Tensor, Tensor)",
    closed_form.spike_scan,
    lambda current, threshold, decay, strength, feedback, spike: like(current, current, feedback),
)

raw_backward = define(
    "spike_scan_backward(Tensor? g_spikes, Tensor? g_potential, Tensor? g_feedback,"
    f" Tensor derivative, Tensor spikes, {neuron.BACKWARD})"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    closed_form.spike_scan_backward,
    lambda g_spikes, g_potential, g_feedback, derivative, spikes, *rest: (
        *like(spikes),
        *neuron.gradients_like(*rest),
    ),
)

raw_surrogate_backward = with_surrogate(raw_backward)


def spike_scan(
    current: Tensor,
    threshold: Tensor | float,
    reset_decay: Tensor | float,
    state: NeuronState | None = None,
    *,
    adaptation_decay: Tensor | float | None = None,
    adaptation_strength: Tensor | float | None = None,
    surrogate: Surrogate = Triangular(),  # noqa: B008 - frozen
    detach_reset: bool = False,
    backend: str = "auto",
) -> tuple[Tensor, Tensor, NeuronState]:
    """Turn currents into spikes, with a reset current and an optional adaptation current.

    Computes V = c - J - J_a and s = 1 if V > theta else 0, where
    J(t) = kappa J(t-1) + theta s(t-1) and J_a(t) = rho_a J_a(t-1) + a s(t-1).

    Args:
        current: Input current c, [T, B, J] or [R, T, B, J], float32 or float64.
        threshold: Threshold theta: a positive number, [J] or [R, J].
        reset_decay: Decay kappa of the reset current, in [0, 1]: a number, [J] or [R, J].
        state: State before the first step. Default: zeros.
        adaptation_decay: Decay rho_a, like `reset_decay`. Default: no adaptation.
        adaptation_strength: Strength a of the adaptation, together with `adaptation_decay`.
        surrogate: `surrogate(V - theta, theta)` stands for ds/dV in the backward pass.
        detach_reset: Stop the gradient from J and J_a to the spikes that drive them.
        backend: "auto", "triton", "cpu" or "reference".

    Returns:
        Spikes, [T, B, J], potentials V, [T, B, J], and the state after the last step.

    Raises:
        ValueError: If a shape, device or value does not fit.
        TypeError: If a type or dtype does not fit.
        BackendUnavailableError: If `backend` cannot run here.

    Example:
        >>> spikes, potential, state = spike_scan(torch.full((3, 1, 1), 1.5), 1.0, 0.5)
        >>> potential.flatten()
        tensor([1.5000, 0.5000, 1.0000])
        >>> spikes.flatten()
        tensor([1., 0., 0.])
    """
    replicated = checks.check_steps("current", current)
    check.check_parameter_dtype("current", current.dtype)
    given = neuron.checked(
        current, threshold, reset_decay, adaptation_decay, adaptation_strength, state, surrogate
    )
    steps, *own = checks.replicate(replicated, current, *given)
    outputs = run(steps, Neuron(*own), surrogate, detach_reset, backend)
    spikes, potential, feedback = checks.unreplicate(replicated, *outputs)
    return spikes, potential, neuron.state_after(given, spikes, feedback)


def run(
    current: Tensor, own: Neuron, surrogate: Surrogate, detach_reset: bool, backend: str
) -> tuple[Tensor, Tensor, Tensor]:
    """`spike_scan` without checks, with the replica axis -> spikes, V, final feedback."""
    with full_precision(current.device):
        if resolve(backend, current.device, "spike_scan", current.dtype) == "reference":
            return loop.spike_scan(current, *own, surrogate_spike(surrogate), detach_reset)
        outputs = SpikeScan.apply(current, *own, surrogate, detach_reset)  # type: ignore[no-untyped-call]
        return cast(tuple[Tensor, Tensor, Tensor], outputs)


@vmap_over_replicas
class SpikeScan(torch.autograd.Function):
    """(current, the neuron's tensors, surrogate, detach_reset) -> (spikes, V, final feedback)."""

    @staticmethod
    def forward(
        current: Tensor,
        threshold: Tensor,
        feedback_decay: Tensor,
        feedback_strength: Tensor,
        feedback: Tensor,
        spike: Tensor,
        surrogate: Surrogate,
        detach_reset: bool,
    ) -> Any:
        return raw(current, threshold, feedback_decay, feedback_strength, feedback, spike)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        _, *own, ctx.surrogate, ctx.detach_reset = inputs
        spikes, potential, _ = output
        ctx.save_for_backward(spikes, potential, *own)
        ctx.set_materialize_grads(False)

    @staticmethod
    @once
    def backward(ctx: Any, *g: Tensor | None) -> Any:
        spikes, potential, threshold, *own = ctx.saved_tensors
        rest = (spikes, *own, ctx.detach_reset)
        gradients = scan_backward(
            raw_backward, raw_surrogate_backward, ctx.surrogate, g, potential, threshold, *rest
        )
        return *gradients, None, None
