"""Synaptic current, one decay per synapse: the loop, and closed forms of it and its gradients."""

import torch
from torch import Tensor

from .lib.steps import stack_steps, synaptic_sum, trace_step
from .lib.traces import Traces, lanes_of, rows_of


def loop(
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
    return stack_steps(currents, synaptic_sum(trace, weight)), trace


@torch.no_grad()
def synaptic_current(
    z: Tensor, weight: Tensor, decay: Tensor, trace: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """z [R, T, B, I], weight and decay [R, J, I], trace [R, B, J, I] -> current [R, T, B, J], final
    trace [R, B, J, I]."""
    replicas, steps, batch, _ = z.shape
    state = Traces(trace, decay, batch)
    weight_rows = rows_of(weight)
    current = z.new_empty(replicas, steps, batch, weight.shape[1])
    for t in range(steps):
        state.advance(z[:, t])
        current[:, t] = state.weighted_sum(weight_rows)
    return current, state.natural()


@torch.no_grad()
def synaptic_current_backward(
    g: Tensor, g_trace: Tensor | None, weight: Tensor, decay: Tensor
) -> tuple[Tensor, Tensor]:
    """g [R, T, B, J], g_trace [R, B, J, I] (of the final trace) -> dz [R, T, B, I], d_trace [R, B,
    J, I] (of the initial one)."""
    reversed_dz, final = synaptic_current(g.flip(1), weight.mT, decay.mT)
    dz = reversed_dz.flip(1)
    d_trace = (weight * decay).unsqueeze(1) * final.mT
    if g_trace is not None:
        carried = g_trace.clone()
        for t in reversed(range(g.shape[1])):
            dz[:, t] += carried.sum(2)
            carried *= decay.unsqueeze(1)
        d_trace += carried
    return dz, d_trace


@torch.no_grad()
def synaptic_parameter_gradient(
    z: Tensor,
    g: Tensor,
    g_trace: Tensor | None,
    weight: Tensor,
    decay: Tensor,
    trace: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """One forward sweep: z [R, T, B, I], g [R, T, B, J] and the states of `synaptic_current` -> dw,
    dr [R, J, I]."""
    state = Traces(trace, decay, z.shape[2])
    rows = rows_of(decay)
    y = torch.zeros_like(state.x)
    dw = torch.zeros_like(rows)
    dr = torch.zeros_like(rows)
    for t, g_t in enumerate(lanes_of(g)):
        torch.addcmul(state.x, rows, y, out=y)
        state.advance(z[:, t])
        _add_product(dw, g_t, state.x)
        _add_product(dr, g_t, y)
    dw, dr = dw.view_as(weight), weight * dr.view_as(weight)
    if g_trace is not None:
        dr += (g_trace * y.view(*weight.shape[:2], *y.shape[1:]).transpose(1, 2)).sum(1)
    return dw, dr


def _add_product(total: Tensor, g: Tensor, states: Tensor) -> None:
    """total [R*J, 1, I] += g [R*J, 1, B] @ states [R*J, B, I]."""
    if g.shape[-1] == 1:  # the same without the fixed cost of a batched product
        total.addcmul_(g, states)
    else:
        total.baddbmm_(g, states)
