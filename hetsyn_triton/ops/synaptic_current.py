"""Synaptic current, one decay per synapse: x(t) = r x(t-1) + z(t), c(t) = sum_i w x(t).

The backward is the same scan with w and r transposed and time reversed; it gives dL/dz. A forward
sweep with g = dL/dc known gives dL/dw and dL/dr. Nothing is divided by r.
"""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

from hetsyn_triton import validation as check
from hetsyn_triton.reference import closed_form, loop

from . import checks
from .autograd import once, vmap_over_replicas
from .branches import Branch, branch, current
from .dispatch import define, full_precision, like, resolve, steps_like, trace_like

raw = define(
    "synaptic_current(Tensor z, Tensor weight, Tensor decay, Tensor? trace) -> (Tensor, Tensor)",
    closed_form.synaptic_current,
    lambda z, weight, decay, trace: (steps_like(z, weight.shape[1]), trace_like(z, weight)),
)

raw_backward = define(
    "synaptic_current_backward(Tensor g, Tensor? g_trace, Tensor weight, Tensor decay)"
    " -> (Tensor, Tensor)",
    closed_form.synaptic_current_backward,
    lambda g, g_trace, weight, decay: (steps_like(g, weight.shape[2]), trace_like(g, weight)),
)

raw_parameter_gradient = define(
    "synaptic_parameter_gradient(Tensor z, Tensor g, Tensor? g_trace, Tensor weight, Tensor decay,"
    " Tensor? trace) -> (Tensor, Tensor)",
    closed_form.synaptic_parameter_gradient,
    lambda z, g, g_trace, weight, decay, trace: like(weight, decay),
)


def synaptic_current(
    z: Tensor, weight: Tensor, decay: Tensor, trace: Tensor | None = None, *, backend: str = "auto"
) -> tuple[Tensor, Tensor]:
    """Sum the synaptic currents of each neuron, one decay per synapse.

    Computes x(t) = r x(t-1) + z(t) and c(t) = sum_i w x(t) for every synapse and step.

    Args:
        z: Presynaptic input, [T, B, I] or [R, T, B, I]; bool, integer or floating point.
        weight: Synaptic weights w, [J, I] or [R, J, I], float32 or float64.
        decay: Decay factors r in [0, 1], shaped as `weight`.
        trace: Traces x(0), [B, J, I]. Default: zeros.
        backend: "auto", "triton", "cpu" or "reference".

    Returns:
        The current c, [T, B, J], and the final traces, [B, J, I].

    Raises:
        ValueError: If a shape, device or value does not fit.
        TypeError: If a type or dtype does not fit.
        BackendUnavailableError: If `backend` cannot run here.

    Example:
        >>> z = torch.ones(3, 1, 2)
        >>> current, trace = synaptic_current(z, torch.ones(1, 2), torch.tensor([[0.0, 1.0]]))
        >>> current[:, 0, 0]
        tensor([2., 3., 4.])

    References:
        HetSyn (NeurIPS 2025), the equation of I_ji.
    """
    replicated = checks.check_synapses(z, weight, decay, trace)
    z = check.as_input("z", z, weight.dtype)
    z, weight, decay, trace = checks.replicate(replicated, z, weight, decay, trace)
    outputs = run(z, weight, decay, trace, backend)
    return cast(tuple[Tensor, Tensor], checks.unreplicate(replicated, *outputs))


def run(
    z: Tensor, weight: Tensor, decay: Tensor, trace: Tensor | None, backend: str
) -> tuple[Tensor, Tensor]:
    """`synaptic_current` without checks; every tensor has the replica axis."""
    with full_precision(z.device):
        if resolve(backend, z.device, "synaptic_current", z.dtype) == "reference":
            return loop.synaptic_current(z, weight, decay, trace)
        own = None if current.branches is None else branch(weight, decay)
        if own is not None:
            weight, decay = own.weight, own.decay
        outputs = SynapticCurrent.apply(z, weight, decay, trace, own)  # type: ignore[no-untyped-call]
        return cast(tuple[Tensor, Tensor], outputs)


@vmap_over_replicas
class SynapticCurrent(torch.autograd.Function):
    """(z, weight, decay, trace, own) -> (current, final trace).

    `own` is the branch for the gradients of weight and decay, if there is one.
    """

    @staticmethod
    def forward(
        z: Tensor, weight: Tensor, decay: Tensor, trace: Tensor | None, own: Branch | None
    ) -> Any:
        return raw(z, weight, decay, trace)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        *given, ctx.branch = inputs
        ctx.save_for_backward(*given)
        ctx.set_materialize_grads(False)

    @staticmethod
    @once
    def backward(ctx: Any, g: Tensor | None, g_trace: Tensor | None) -> Any:
        z, weight, decay, trace = ctx.saved_tensors
        if g is None:
            g = z.new_zeros(*z.shape[:3], weight.shape[1])
        needed = ctx.needs_input_grad[:4]
        return *gradients(needed, ctx.branch, g, g_trace, z, weight, decay, trace), None


def gradients(
    needed: Sequence[bool],
    own: Branch | None,
    g: Tensor,
    g_trace: Tensor | None,
    z: Tensor,
    weight: Tensor,
    decay: Tensor,
    trace: Tensor | None,
) -> tuple[Tensor | None, ...]:
    """Return the gradients of (z, weight, decay, trace) where `needed`, from g = dL/dc.

    Those of weight and decay go to their branch if there is one.
    """
    dz = dw = dr = d_trace = None
    need_z, need_w, need_r, need_trace = needed
    if own is not None:  # first: it starts while dL/dz is computed
        own.run(raw_parameter_gradient, z, g, g_trace, weight, decay, trace)
    elif need_w or need_r:
        dw, dr = raw_parameter_gradient(z, g, g_trace, weight, decay, trace)
    if need_z or need_trace:
        dz, d_trace = raw_backward(g, g_trace, weight, decay)
    # An absent initial trace takes no gradient.
    return dz, dw, dr, None if trace is None else d_trace
