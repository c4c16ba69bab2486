"""A feedforward layer as one operator: `synaptic_current`, then `spike_scan` of it."""

from typing import Any, cast

import torch
from torch import Tensor

from hetsyn_triton import validation as check
from hetsyn_triton.reference import closed_form, loop
from hetsyn_triton.reference.lib.steps import surrogate_spike
from hetsyn_triton.states import NeuronState
from hetsyn_triton.surrogates import Surrogate, Triangular

from . import branches, checks, neuron, spike_scan, synaptic_current
from .autograd import once, vmap_over_replicas
from .dispatch import define, full_precision, like, resolve, steps_like, trace_like
from .neuron import Neuron
from .surrogate import scan_backward

raw = define(
    f"feedforward_scan(Tensor z, Tensor weight, Tensor decay, Tensor? trace, {neuron.FORWARD})"
    " -> (Tensor, Tensor, Tensor, Tensor)",
    closed_form.feedforward_scan,
    lambda z, weight, decay, trace, threshold, feedback_decay, strength, feedback, spike: (
        steps_like(z, weight.shape[1]),
        steps_like(z, weight.shape[1]),
        *like(feedback),
        trace_like(z, weight),
    ),
)


def feedforward_scan(
    z: Tensor,
    weight: Tensor,
    decay: Tensor,
    threshold: Tensor | float,
    reset_decay: Tensor | float,
    trace: Tensor | None = None,
    state: NeuronState | None = None,
    *,
    adaptation_decay: Tensor | float | None = None,
    adaptation_strength: Tensor | float | None = None,
    surrogate: Surrogate = Triangular(),  # noqa: B008 - frozen
    detach_reset: bool = False,
    backend: str = "auto",
) -> tuple[Tensor, Tensor, Tensor, NeuronState]:
    """Run a feedforward layer: `synaptic_current` and `spike_scan` in one operator.

    The numbers are those of the two one after the other, up to rounding.

    Args:
        z: Presynaptic input, [T, B, I] or [R, T, B, I]; bool, integer or floating point.
        weight: Synaptic weights w, [J, I] or [R, J, I], float32 or float64.
        decay: Decay factors r in [0, 1], shaped as `weight`.
        threshold: Threshold theta: a positive number, [J] or [R, J].
        reset_decay: Decay kappa of the reset current, in [0, 1]: a number, [J] or [R, J].
        trace: Traces x(0), [B, J, I]. Default: zeros.
        state: State of the neurons before the first step. Default: zeros.
        adaptation_decay: As in `spike_scan`.
        adaptation_strength: As in `spike_scan`.
        surrogate: As in `spike_scan`.
        detach_reset: As in `spike_scan`.
        backend: "auto", "triton", "cpu" or "reference".

    Returns:
        Spikes, [T, B, J], potentials V, [T, B, J], the final traces, [B, J, I], and the state.

    Raises:
        ValueError: If a shape, device or value does not fit.
        TypeError: If a type or dtype does not fit.
        BackendUnavailableError: If `backend` cannot run here.

    Example:
        >>> z, weight = torch.ones(4, 1, 2), torch.full((1, 2), 0.3)
        >>> spikes, *_ = feedforward_scan(z, weight, torch.full((1, 2), 0.5), 1.0, 0.5)
        >>> spikes.flatten()
        tensor([0., 0., 1., 0.])
    """
    replicated = checks.check_synapses(z, weight, decay, trace)
    z = check.as_input("z", z, weight.dtype)
    # As the current would be: neither its values nor its memory are needed here.
    current = z.new_empty(1).expand(*z.shape[:-1], weight.shape[-2])
    given = neuron.checked(
        current, threshold, reset_decay, adaptation_decay, adaptation_strength, state, surrogate
    )
    z, weight, decay, trace, *own = checks.replicate(replicated, z, weight, decay, trace, *given)
    outputs = run(z, weight, decay, trace, Neuron(*own), surrogate, detach_reset, backend)
    spikes, potential, feedback, trace = checks.unreplicate(replicated, *outputs)
    return spikes, potential, trace, neuron.state_after(given, spikes, feedback)


def run(
    z: Tensor,
    weight: Tensor,
    decay: Tensor,
    trace: Tensor | None,
    own: Neuron,
    surrogate: Surrogate,
    detach_reset: bool,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`feedforward_scan` without checks, with the replica axis -> spikes, V, final feedback,
    final trace."""
    given = (z, weight, decay, trace, *own)
    with full_precision(z.device):
        if resolve(backend, z.device, "feedforward_scan", z.dtype) == "reference":
            return loop.feedforward_scan(*given, surrogate_spike(surrogate), detach_reset)
        active = branches.current.branches is not None
        branch = branches.branch(weight, decay) if active else None
        if branch is not None:
            given = (given[0], branch.weight, branch.decay, *given[3:])
        outputs = FeedforwardScan.apply(*given, surrogate, detach_reset, branch)  # type: ignore[no-untyped-call]
        return cast(tuple[Tensor, Tensor, Tensor, Tensor], outputs)


@vmap_over_replicas
class FeedforwardScan(torch.autograd.Function):
    """(z, weight, decay, trace, the neuron's tensors, surrogate, detach_reset, branch)
    -> (spikes, V, final feedback, final trace). The backward is that of `spike_scan`, then that of
    `synaptic_current`."""

    @staticmethod
    def forward(
        z: Tensor,
        weight: Tensor,
        decay: Tensor,
        trace: Tensor | None,
        threshold: Tensor,
        feedback_decay: Tensor,
        feedback_strength: Tensor,
        feedback: Tensor,
        spike: Tensor,
        surrogate: Surrogate,
        detach_reset: bool,
        branch: branches.Branch | None,
    ) -> Any:
        own = (threshold, feedback_decay, feedback_strength, feedback, spike)
        return raw(z, weight, decay, trace, *own)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        *given, ctx.surrogate, ctx.detach_reset, ctx.branch = inputs
        spikes, potential, _, _ = output
        ctx.save_for_backward(spikes, potential, *given)
        ctx.set_materialize_grads(False)

    @staticmethod
    @once
    def backward(ctx: Any, *g: Tensor | None) -> Any:
        spikes, potential, z, weight, decay, trace, threshold, *own = ctx.saved_tensors
        *g_neuron, g_trace = g
        d_current, *d_neuron = scan_backward(
            spike_scan.raw_backward,
            spike_scan.raw_surrogate_backward,
            ctx.surrogate,
            g_neuron,
            potential,
            threshold,
            spikes,
            *own,
            ctx.detach_reset,
        )
        needed = ctx.needs_input_grad[:4]
        d_synapses = synaptic_current.gradients(
            needed, ctx.branch, d_current, g_trace, z, weight, decay, trace
        )
        return *d_synapses, *d_neuron, None, None, None
