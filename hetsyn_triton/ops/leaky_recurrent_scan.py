"""A recurrent layer with one decay per neuron: c(t) = rho c(t-1) + u(t) + W s(t-1), then spikes."""

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
    "leaky_recurrent_scan(Tensor drive, Tensor weight, Tensor decay, Tensor current,"
    f" {neuron.FORWARD}) -> (Tensor, Tensor, Tensor, Tensor)",
    closed_form.leaky_recurrent_scan,
    lambda drive, weight, decay, current, threshold, feedback_decay, strength, feedback, spike: (
        like(drive, drive, feedback, drive)
    ),
)

raw_backward = define(
    "leaky_recurrent_scan_backward(Tensor? g_spikes, Tensor? g_potential, Tensor? g_feedback,"
    " Tensor? g_currents, Tensor derivative, Tensor spikes, Tensor currents, Tensor weight,"
    f" Tensor decay, Tensor current, {neuron.BACKWARD})"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    closed_form.leaky_recurrent_scan_backward,
    lambda g_spikes, g_potential, g_feedback, g_currents, derivative, spikes, currents, *rest: (
        *like(spikes, *rest[:3]),
        *neuron.gradients_like(*rest[3:]),
    ),
)

raw_surrogate_backward = with_surrogate(raw_backward)


def leaky_recurrent_scan(
    drive: Tensor,
    weight: Tensor,
    decay: Tensor | float,
    threshold: Tensor | float,
    reset_decay: Tensor | float,
    current: Tensor | None = None,
    state: NeuronState | None = None,
    *,
    adaptation_decay: Tensor | float | None = None,
    adaptation_strength: Tensor | float | None = None,
    surrogate: Surrogate = Triangular(),  # noqa: B008 - frozen
    detach_reset: bool = False,
    backend: str = "auto",
) -> tuple[Tensor, Tensor, Tensor, NeuronState]:
    """Run recurrent neurons with one decay per neuron.

    Computes c(t) = rho c(t-1) + u(t) + W s(t-1), then spikes as in `spike_scan`.

    Args:
        drive: Input u of each neuron, [T, B, J] or [R, T, B, J], float32 or float64.
        weight: Recurrent weights W, [J, J] or [R, J, J], postsynaptic neuron first.
        decay: Decay factors rho in [0, 1]: a number, [J] or [R, J].
        threshold: Threshold theta: a positive number, [J] or [R, J].
        reset_decay: Decay kappa of the reset current, in [0, 1]: a number, [J] or [R, J].
        current: Current c(0), [B, J]. Default: zeros.
        state: State of the neurons before the first step. Default: zeros.
        adaptation_decay: As in `spike_scan`.
        adaptation_strength: As in `spike_scan`.
        surrogate: As in `spike_scan`.
        detach_reset: As in `spike_scan`.
        backend: "auto", "triton", "cpu" or "reference".

    Returns:
        Spikes, [T, B, J], potentials V, [T, B, J], the last current, [B, J], and the state.

    Raises:
        ValueError: If a shape, device or value does not fit.
        TypeError: If a type or dtype does not fit.
        BackendUnavailableError: If `backend` cannot run here.

    Example:
        >>> drive = torch.tensor([2.0, 0.0, 0.0]).view(3, 1, 1)
        >>> spikes, *_ = leaky_recurrent_scan(drive, torch.full((1, 1), 3.0), 0.5, 1.0, 0.5)
        >>> spikes.flatten()
        tensor([1., 1., 1.])
    """
    replicated = checks.check_steps("drive", drive)
    check.check_parameter_dtype("drive", drive.dtype)
    checks.check_square("weight", weight, "drive", drive)
    decay = checks.per_neuron("decay", decay, drive)
    current = checks.initial("current", current, drive)
    given = neuron.checked(
        drive, threshold, reset_decay, adaptation_decay, adaptation_strength, state, surrogate
    )
    check.check_finite("weight", weight)
    check.check_unit_interval("decay", decay)
    u, weight, rho, before, *own = checks.replicate(
        replicated, drive, weight, decay, current, *given
    )
    outputs = run(u, weight, rho, before, Neuron(*own), surrogate, detach_reset, backend)
    spikes, potential, feedback, currents = checks.unreplicate(replicated, *outputs)
    last = neuron.last(currents, current)
    return spikes, potential, last, neuron.state_after(given, spikes, feedback)


def run(
    drive: Tensor,
    weight: Tensor,
    decay: Tensor,
    current: Tensor,
    own: Neuron,
    surrogate: Surrogate,
    detach_reset: bool,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`leaky_recurrent_scan` without checks, with the replica axis -> spikes, V, final feedback,
    current of every step."""
    given = (drive, weight, decay, current, *own)
    with full_precision(drive.device):
        if resolve(backend, drive.device, "leaky_recurrent_scan", drive.dtype) == "reference":
            return loop.leaky_recurrent_scan(*given, surrogate_spike(surrogate), detach_reset)
        outputs = LeakyRecurrentScan.apply(*given, surrogate, detach_reset)  # type: ignore[no-untyped-call]
        return cast(tuple[Tensor, Tensor, Tensor, Tensor], outputs)


@vmap_over_replicas
class LeakyRecurrentScan(torch.autograd.Function):
    """(drive, weight, decay, current, the neuron's tensors, surrogate, detach_reset)
    -> (spikes, V, final feedback, current)."""

    @staticmethod
    def forward(
        drive: Tensor,
        weight: Tensor,
        decay: Tensor,
        current: Tensor,
        threshold: Tensor,
        feedback_decay: Tensor,
        feedback_strength: Tensor,
        feedback: Tensor,
        spike: Tensor,
        surrogate: Surrogate,
        detach_reset: bool,
    ) -> Any:
        own = (threshold, feedback_decay, feedback_strength, feedback, spike)
        return raw(drive, weight, decay, current, *own)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        _, *given, ctx.surrogate, ctx.detach_reset = inputs
        spikes, potential, _, currents = output
        ctx.save_for_backward(spikes, potential, currents, *given)
        ctx.set_materialize_grads(False)

    @staticmethod
    @once
    def backward(ctx: Any, *g: Tensor | None) -> Any:
        spikes, potential, currents, weight, decay, current, threshold, *own = ctx.saved_tensors
        rest = (spikes, currents, weight, decay, current, *own, ctx.detach_reset)
        gradients = scan_backward(
            raw_backward, raw_surrogate_backward, ctx.surrogate, g, potential, threshold, *rest
        )
        return *gradients, None, None
