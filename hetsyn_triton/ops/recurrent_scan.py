"""A recurrent layer's scan: `spike_scan` with synapses driven by s(t-1), one decay per synapse."""

from typing import Any, cast

import torch
from torch import Tensor
from torch.utils._python_dispatch import _get_current_dispatch_mode

from hetsyn_triton import validation as check
from hetsyn_triton.kernels.cpu.lib import threads
from hetsyn_triton.one_thread import on_this_thread
from hetsyn_triton.reference import closed_form, loop
from hetsyn_triton.reference.lib.steps import previous_steps, surrogate_spike
from hetsyn_triton.states import NeuronState
from hetsyn_triton.surrogates import Surrogate, Triangular

from . import branches, checks, neuron, synaptic_current
from .autograd import once, vmap_over_replicas
from .dispatch import define, full_precision, like, resolve, trace_like
from .neuron import Neuron
from .surrogate import scan_backward, with_surrogate

COPY = 20
"""What copying an element costs, in multiply-adds of a kernel."""

raw = define(
    f"recurrent_scan(Tensor current, Tensor weight, Tensor decay, Tensor? trace, {neuron.FORWARD})"
    " -> (Tensor, Tensor, Tensor, Tensor)",
    closed_form.recurrent_scan,
    lambda current, weight, decay, trace, threshold, feedback_decay, strength, feedback, spike: (
        *like(current, current, feedback),
        trace_like(current, weight),
    ),
)

raw_backward = define(
    "recurrent_scan_backward(Tensor? g_spikes, Tensor? g_potential, Tensor? g_feedback,"
    " Tensor? g_trace, Tensor derivative, Tensor spikes, Tensor weight, Tensor decay,"
    f" {neuron.BACKWARD}) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    closed_form.recurrent_scan_backward,
    lambda g_spikes, g_potential, g_feedback, g_trace, derivative, spikes, weight, decay, *rest: (
        *like(spikes),
        *neuron.gradients_like(*rest),
        trace_like(spikes, weight),
    ),
)

raw_surrogate_backward = with_surrogate(raw_backward)


def recurrent_scan(
    current: Tensor,
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
    """Run recurrent neurons: `spike_scan` with recurrent synapses, one decay per synapse.

    Adds sum_i w_ji x_ji(t) to the current of neuron j, where x_ji(t) = r_ji x_ji(t-1) + s_i(t-1).

    Args:
        current: Current from outside, [T, B, J] or [R, T, B, J], float32 or float64.
        weight: Recurrent weights w, [J, J] or [R, J, J], postsynaptic neuron first.
        decay: Decay factors r in [0, 1], shaped as `weight`.
        threshold: Threshold theta: a positive number, [J] or [R, J].
        reset_decay: Decay kappa of the reset current, in [0, 1]: a number, [J] or [R, J].
        trace: Recurrent traces x(0), [B, J, J]. Default: zeros.
        state: State of the neurons before the first step. Default: zeros.
        adaptation_decay: As in `spike_scan`.
        adaptation_strength: As in `spike_scan`.
        surrogate: As in `spike_scan`.
        detach_reset: As in `spike_scan`.
        backend: "auto", "triton", "cpu" or "reference".

    Returns:
        Spikes, [T, B, J], potentials V, [T, B, J], the final traces, [B, J, J], and the state.

    Raises:
        ValueError: If a shape, device or value does not fit.
        TypeError: If a type or dtype does not fit.
        BackendUnavailableError: If `backend` cannot run here.

    Example:
        >>> current = torch.tensor([2.0, 0.0, 0.0]).view(3, 1, 1)
        >>> spikes, *_ = recurrent_scan(
        ...     current, torch.full((1, 1), 3.0), torch.full((1, 1), 0.9), 1.0, 0.5
        ... )
        >>> spikes.flatten()
        tensor([1., 1., 1.])
    """
    replicated = checks.check_steps("current", current)
    check.check_parameter_dtype("current", current.dtype)
    checks.check_square("weight", weight, "current", current)
    checks.check_square("decay", decay, "current", current)
    if trace is not None:
        check.check_like("trace", trace, "current", current)
        shape = (*current.shape[:-3], current.shape[-2], *weight.shape[-2:])
        check.check_shape("trace", trace, shape, checks.axes("B, J, J", current))
    given = neuron.checked(
        current, threshold, reset_decay, adaptation_decay, adaptation_strength, state, surrogate
    )
    check.check_finite("weight", weight)
    check.check_unit_interval("decay", decay)
    steps, weight, decay, trace, *own = checks.replicate(
        replicated, current, weight, decay, trace, *given
    )
    outputs = run(steps, weight, decay, trace, Neuron(*own), surrogate, detach_reset, backend)
    spikes, potential, feedback, trace = checks.unreplicate(replicated, *outputs)
    return spikes, potential, trace, neuron.state_after(given, spikes, feedback)


def run(
    current: Tensor,
    weight: Tensor,
    decay: Tensor,
    trace: Tensor | None,
    own: Neuron,
    surrogate: Surrogate,
    detach_reset: bool,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`recurrent_scan` without checks, with the replica axis -> spikes, V, final feedback, final
    trace."""
    given = (current, weight, decay, trace, *own)
    with full_precision(current.device):
        if resolve(backend, current.device, "recurrent_scan", current.dtype) == "reference":
            return loop.recurrent_scan(*given, surrogate_spike(surrogate), detach_reset)
        active = branches.current.branches is not None
        branch = branches.branch(weight, decay) if active else None
        if branch is not None:
            given = (given[0], branch.weight, branch.decay, *given[3:])
        outputs = RecurrentScan.apply(*given, surrogate, detach_reset, branch)  # type: ignore[no-untyped-call]
        return cast(tuple[Tensor, Tensor, Tensor, Tensor], outputs)


@vmap_over_replicas
class RecurrentScan(torch.autograd.Function):
    """(current, weight, decay, trace, the neuron's tensors, surrogate, detach_reset, branch)
    -> (spikes, V, final feedback, final trace)."""

    @staticmethod
    def forward(
        current: Tensor,
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
        return raw(current, weight, decay, trace, *own)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        _, *given, ctx.surrogate, ctx.detach_reset, ctx.branch = inputs
        spikes, potential, _, _ = output
        ctx.save_for_backward(spikes, potential, *given)
        ctx.set_materialize_grads(False)

    @staticmethod
    @once
    def backward(ctx: Any, *g: Tensor | None) -> Any:
        spikes, potential, weight, decay, trace, threshold, *own = ctx.saved_tensors
        rest = (spikes, weight, decay, *own, ctx.detach_reset)
        d_current, *d_neuron, d_trace = scan_backward(
            raw_backward, raw_surrogate_backward, ctx.surrogate, g, potential, threshold, *rest
        )
        *_, spike = own
        *_, g_trace = g
        needed = (False, *ctx.needs_input_grad[1:3], False)
        if any(needed):
            z = previous(spikes, spike)
            _, dw, dr, _ = synaptic_current.gradients(
                needed, ctx.branch, d_current, g_trace, z, weight, decay, trace
            )
        else:
            dw = dr = None
        d_trace = None if trace is None else d_trace
        return d_current, dw, dr, d_trace, *d_neuron, None, None, None


def previous(steps: Tensor, initial: Tensor) -> Tensor:
    """`previous_steps`, copied by the kernels' threads, without a gradient."""
    if not (check.readable(steps) and check.readable(initial)):
        return previous_steps(steps, initial)
    if _get_current_dispatch_mode() is not None:
        return previous_steps(steps, initial)
    found = steps.new_empty(steps.shape)

    def copy(begin: int, end: int) -> None:
        first = max(begin, 1)
        with on_this_thread(), torch.no_grad():
            found[:, begin:first] = initial[:, None]
            found[:, first:end] = steps[:, first - 1 : end - 1]

    threads.share(copy, steps.shape[1], COPY * steps.numel())
    return found
