"""Gradients of decay and strength of the feedback currents: a sweep forward in time, or a part of
the backward scan.

    F(t) = d F(t-1) + a s(t-1),   Y(t) = d Y(t-1) + F(t-1),   X(t) = d X(t-1) + s(t-1)
    dL/dd = - sum_t g(t) Y(t) + g_F Y(T),   dL/da = - sum_t g(t) X(t) + g_F X(T)

with g = dL/dV, g_F the gradient of F(T), and X = Y = 0 before the first step. A feedback current is
a synaptic current of s(t-1), so these are the synaptic parameter gradients. Nothing is divided by
d, which may be 0.

| name | shape | meaning |
|---|---|---|
| g_v | [R, T, B, J] | g, any strides over replicas, time and samples |
| spikes, spike | [R, T, B, J], [R, B, J] | s and what it was before the first step, any number |
| feedback, g_feedback | [R, K, B, J] | F(0), g_F (may be absent) |
| decay, strength | [R, K, J] | d, a |
| to_decay, to_strength | [R, B, K, J] | the sums of each sample, added over B afterwards |
| b_ys, b_xs | tuples of K | Y, X |

One thread per neuron and sample (`lanes_of_program`). Order: ascending in t, then in b.

A backward scan has A_k(t) = dL/dF_k(t) in registers (`at_k` in `lib/neuron.py`). From there the
same sums need no sweep of their own, in another order of additions:

    Q(t) = A(t+1) + d Q(t+1),  Q(T) = 0
    dL/da = sum_t A(t) s(t-1),   dL/dd = a sum_t Q(t) s(t-1) + F(0) Q(0)

The launchers of backward scans do this inside `trial_kernels()` (`Fused`).

Cost of the sweep: 6 K R T B J multiply-adds (one of them a product); HBM and L2 bytes 8 R T B J
over time and 4 R B J (6 K + 1) for states and for the sums of samples, written and read. Inside a
backward scan: 3 K R T B J multiply-adds and 4 R T B J bytes, the spikes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from ... import trial
from ...surrogate_kinds import GIVEN, all_numbers
from .add_partials import add_partials
from .lanes import lane_configuration, lane_grid, lanes_of_program, load_chunk
from .launch import dense, launch, named_strides, rows
from .neuron import load_per_feedback


@triton.jit
def _gradient_step(
    b_g, b_spike, b_fs, b_ys, b_xs, b_to_decay, b_to_strength, b_decays, b_strengths,
    K: tl.constexpr,
):  # fmt: skip
    """g(t), s(t-1) and the states before step t -> the states and sums after it."""
    b_new_fs = ()
    b_new_ys = ()
    b_new_xs = ()
    b_new_to_decay = ()
    b_new_to_strength = ()
    for k in tl.static_range(K):
        b_y = tl.fma(b_decays[k], b_ys[k], b_fs[k])
        b_x = tl.fma(b_decays[k], b_xs[k], b_spike)
        b_new_fs = b_new_fs + (tl.fma(b_decays[k], b_fs[k], b_strengths[k] * b_spike),)
        b_new_ys = b_new_ys + (b_y,)
        b_new_xs = b_new_xs + (b_x,)
        b_new_to_decay = b_new_to_decay + (tl.fma(b_g, b_y, b_to_decay[k]),)
        b_new_to_strength = b_new_to_strength + (tl.fma(b_g, b_x, b_to_strength[k]),)
    return b_new_fs, b_new_ys, b_new_xs, b_new_to_decay, b_new_to_strength


@triton.jit(
    do_not_specialize=[
        "T", "B", "stride_gr", "stride_gt", "stride_gb", "stride_sr", "stride_st", "stride_sb",
    ]
)  # fmt: skip
def feedback_gradient_kernel(
    g_v, spikes, decay, strength, feedback, spike, g_feedback, to_decay, to_strength,
    T, B,
    stride_gr: tl.int64, stride_gt: tl.int64, stride_gb: tl.int64,
    stride_sr: tl.int64, stride_st: tl.int64, stride_sb: tl.int64,
    J: tl.constexpr, K: tl.constexpr, HAS_G_FEEDBACK: tl.constexpr,
    LANES: tl.constexpr, U: tl.constexpr,
):  # fmt: skip
    i_r, o_l, m_l = lanes_of_program(B, J, LANES)
    o_b = o_l // J
    o_j = o_l % J
    lanes = B.to(tl.int64) * J
    step_g = stride_gt.to(tl.int64)
    step_s = stride_st.to(tl.int64)
    p_g = g_v + i_r * stride_gr + o_b * stride_gb + o_j
    p_s = spikes + i_r * stride_sr + o_b * stride_sb + o_j
    o_state = i_r * K * lanes + o_l

    b_decays = load_per_feedback(decay + i_r * (K * J), J, o_j, m_l, K, True)
    b_strengths = load_per_feedback(strength + i_r * (K * J), J, o_j, m_l, K, True)
    b_fs = load_per_feedback(feedback, lanes, o_state, m_l, K, True)
    b_ys = load_per_feedback(feedback, lanes, o_state, m_l, K, False)
    b_xs = b_ys
    b_to_decay = b_ys
    b_to_strength = b_ys
    b_spike = tl.load(spike + i_r * lanes + o_l, mask=m_l, other=0.0)

    b_next_g = load_chunk(p_g, T, m_l, step_g, U, True)
    b_next_s = load_chunk(p_s, T, m_l, step_s, U, True)
    for i in range(T // U):
        b_gs = b_next_g
        b_ss = b_next_s
        p_g += U * step_g
        p_s += U * step_s
        left = T - (i + 1) * U
        b_next_g = load_chunk(p_g, left, m_l, step_g, U, True)
        b_next_s = load_chunk(p_s, left, m_l, step_s, U, True)
        for u in tl.static_range(U):
            b_fs, b_ys, b_xs, b_to_decay, b_to_strength = _gradient_step(
                b_gs[u], b_spike, b_fs, b_ys, b_xs, b_to_decay, b_to_strength,
                b_decays, b_strengths, K,
            )  # fmt: skip
            b_spike = b_ss[u]
    for u in tl.static_range(U - 1):  # a last chunk that is not full
        if u < T % U:
            b_fs, b_ys, b_xs, b_to_decay, b_to_strength = _gradient_step(
                b_next_g[u], b_spike, b_fs, b_ys, b_xs, b_to_decay, b_to_strength,
                b_decays, b_strengths, K,
            )  # fmt: skip
            b_spike = b_next_s[u]

    b_last = load_per_feedback(g_feedback, lanes, o_state, m_l, K, HAS_G_FEEDBACK)
    o_sum = ((i_r * B + o_b) * K) * J + o_j
    for k in tl.static_range(K):
        b_d_decay = -b_to_decay[k]
        b_d_strength = -b_to_strength[k]
        if HAS_G_FEEDBACK:
            b_d_decay = tl.fma(b_last[k], b_ys[k], b_d_decay)
            b_d_strength = tl.fma(b_last[k], b_xs[k], b_d_strength)
        tl.store(to_decay + o_sum + k * J, b_d_decay, mask=m_l)
        tl.store(to_strength + o_sum + k * J, b_d_strength, mask=m_l)


def feedback_gradient(
    g_v: Tensor,
    g_feedback: Tensor | None,
    spikes: Tensor,
    feedback_decay: Tensor,
    feedback_strength: Tensor,
    feedback: Tensor,
    spike: Tensor,
    fused: Fused | None = None,
) -> tuple[Tensor, Tensor]:
    """g_v = dL/dV and spikes [R, T, B, J], g_feedback and feedback [R, K, B, J], decay and strength
    [R, K, J], spike [R, B, J] -> d_decay, d_strength [R, K, J], of a `fused` scan its own."""
    if fused:
        return _sum_over_samples(fused.to_decay), _sum_over_samples(fused.to_strength)
    g_v, spikes = rows(g_v), rows(spikes)
    replicas, steps, batch, neurons = g_v.shape
    feedbacks = feedback_decay.shape[1]
    feedback = dense(feedback)
    to_decay, to_strength = (
        torch.empty(replicas, batch, feedbacks, neurons, device=g_v.device, dtype=torch.float32)
        for _ in range(2)
    )
    chosen = lane_configuration("feedback_gradient", replicas * batch * neurons)
    launch(
        feedback_gradient_kernel,
        lane_grid(replicas, batch * neurons, chosen),
        {
            "g_v": g_v,
            "spikes": spikes,
            "decay": dense(feedback_decay),
            "strength": dense(feedback_strength),
            "feedback": feedback,
            "spike": dense(spike),
            "g_feedback": feedback if g_feedback is None else dense(g_feedback),
            "to_decay": to_decay,
            "to_strength": to_strength,
            "T": steps,
            "B": batch,
            **named_strides("g", g_v),
            **named_strides("s", spikes),
        },
        {
            "J": neurons,
            "K": feedbacks,
            "HAS_G_FEEDBACK": g_feedback is not None,
            **chosen.constants,
        },
        chosen.num_warps,
    )
    return _sum_over_samples(to_decay), _sum_over_samples(to_strength)


def _sum_over_samples(partial: Tensor) -> Tensor:
    """[R, B, K, J] -> [R, K, J]."""
    replicas, batch, feedbacks, neurons = partial.shape
    total = add_partials(partial.view(replicas, batch, feedbacks * neurons), neurons)
    return total.view(replicas, feedbacks, neurons)


# -- inside a backward scan ------------------------------------------------------------------------


@triton.jit
def fused_start(p_theta, p_spike, o_theta, o_spike, m, K: tl.constexpr, FUSED: tl.constexpr):
    """-> thresholds, spikes before the first step, and K zeros for Q and for each sum."""
    b_theta = tl.zeros(m.shape, tl.float32)
    b_first = b_theta
    if FUSED:
        # 1.0 where there is no neuron: a surrogate may divide by it.
        b_theta = tl.load(p_theta + o_theta, mask=m, other=1.0)
        b_first = tl.load(p_spike + o_spike, mask=m, other=0.0)
    return b_theta, b_first, load_chunk(p_theta, 0, m, 0, K, False)


@triton.jit
def feedback_gradient_reverse_step(
    b_g_v, b_spike, b_d_feedbacks, b_qs, b_to_decay, b_to_strength, b_decays, K: tl.constexpr
):  # fmt: skip
    """g(t), s(t-1), what comes back to F(t), Q(t), sums -> Q(t-1), sums."""
    b_before = ()
    b_new_to_decay = ()
    b_new_to_strength = ()
    for k in tl.static_range(K):
        b_at_step = b_d_feedbacks[k] - b_g_v
        b_new_to_decay = b_new_to_decay + (tl.fma(b_qs[k], b_spike, b_to_decay[k]),)
        b_new_to_strength = b_new_to_strength + (tl.fma(b_at_step, b_spike, b_to_strength[k]),)
        b_before = b_before + (tl.fma(b_decays[k], b_qs[k], b_at_step),)
    return b_before, b_new_to_decay, b_new_to_strength


@triton.jit
def store_feedback_gradient(
    to_decay, to_strength, feedback, o_sum, o_state, stride_k, m, b_qs, b_to_decay, b_to_strength,
    b_strengths, J: tl.constexpr, K: tl.constexpr,
):  # fmt: skip
    """Store the sums of a sample, o_sum in [R, B, K, J]; F(0) is at o_state + k stride_k."""
    b_first = load_per_feedback(feedback, stride_k, o_state, m, K, True)
    for k in tl.static_range(K):
        b_d_decay = tl.fma(b_strengths[k], b_to_decay[k], b_first[k] * b_qs[k])
        tl.store(to_decay + o_sum + k * J, b_d_decay, mask=m)
        tl.store(to_strength + o_sum + k * J, b_to_strength[k], mask=m)


class Fused(NamedTuple):
    """What a backward scan needs to compute ds/dV and the gradients of feedback currents itself."""

    spikes: Tensor
    """[R, T, B, J]"""
    feedback: Tensor
    """Before the first step, [R, K, B, J]."""
    spike: Tensor
    """Before the first step, [R, B, J]."""
    threshold: Tensor
    """[R, J]; any tensor for the kind "given"."""
    kind: str
    numbers: Sequence[float]
    to_decay: Tensor
    """Gradient of each sample, [R, B, K, J], which the scan fills."""
    to_strength: Tensor


def fused_if_allowed(
    spikes: Tensor,
    feedback: Tensor,
    spike: Tensor,
    threshold: Tensor | None,
    kind: str,
    numbers: Sequence[float],
) -> Fused | None:
    """None outside `trial_kernels()`, unless the scan has a surrogate."""
    if threshold is None and not trial.allowed():
        return None
    replicas, feedbacks, batch, neurons = feedback.shape
    partials = (
        torch.empty(
            replicas, batch, feedbacks, neurons, device=feedback.device, dtype=torch.float32
        )
        for _ in range(2)
    )
    theta = spike if threshold is None else threshold
    return Fused(spikes, feedback, spike, theta, kind, numbers, *partials)


def fused_arguments(fused: Fused | None, other: Tensor) -> tuple[dict[str, Any], dict[str, Any]]:
    """-> arguments and constants of a backward scan; a tensor of four axes stands in for what is
    absent and never read or written."""
    given = fused or Fused(other, other, other, other, GIVEN, (), other, other)
    spikes = rows(given.spikes)
    arguments = {
        "p_spikes": spikes,
        "p_feedback": dense(given.feedback),
        "p_spike": dense(given.spike),
        "p_theta": dense(given.threshold),
        "p_to_f_decay": given.to_decay,
        "p_to_f_strength": given.to_strength,
        **named_strides("z", spikes),
        **all_numbers(given.kind, given.numbers),
    }
    return arguments, {"FUSED": fused is not None, "KIND": given.kind}
