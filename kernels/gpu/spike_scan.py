"""Threshold, reset and adaptation over a sequence of currents, and its reverse in time.

    F_k(t) = d_k F_k(t-1) + a_k s(t-1),   V(t) = c(t) - sum_k F_k(t),   s(t) = V(t) > theta

The arithmetic of a step and of its reverse: `lib/neuron.py`. Gradients of d and a:
`lib/feedback_gradient.py`.

| name | shape | meaning |
|---|---|---|
| current | [R, T, B, J] | c, any strides over replicas, time and samples |
| threshold | [R, J] | theta |
| decay, strength | [R, K, J] | d, a |
| feedback, last | [R, K, B, J] | F before the first and after the last step |
| spike | [R, B, J] | s before the first step, any number |
| derivative | [R, T, B, J] | ds/dV |
| g_spikes, g_potential, g_feedback | as s, V, last | gradients of the loss, each may be absent |
| g_v | [R, T, B, J] | dL/dV, the gradient of the current |
| a to least, p_theta | -, [R, J] | what `surrogate_derivative` takes |
| to_threshold | [R, B, J] | dL/dtheta of each sample, added over B afterwards |

One thread per neuron and sample (`lanes_of_program`) keeps the state in registers for the whole
sequence. While a chunk of U steps is computed, the next U are on their way from memory.

FUSED: the backward scan also computes the gradients of d and a, and unless KIND is "given" ds/dV
from V, which then stands in the place of the derivative.

Cost, N = R T B J: N (2 K + 1) multiply-adds, products and additions forward, N (3 K + 3) in
reverse. HBM and L2 bytes over time: forward 12 N; reverse 4 N (2 + one for each of g_spikes and
g_potential). States and gradients of samples: 4 R B J (2 K + 1) forward, 4 R B J (2 K + 3) in
reverse.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..surrogate_kinds import GIVEN
from .lib.add_partials import add_partials
from .lib.feedback_gradient import (
    Fused,
    feedback_gradient,
    feedback_gradient_reverse_step,
    fused_arguments,
    fused_if_allowed,
    fused_start,
    store_feedback_gradient,
)
from .lib.lanes import lane_configuration, lane_grid, lanes_of_program, load_chunk
from .lib.launch import dense, launch, named_strides, rows
from .lib.neuron import (
    load_per_feedback,
    neuron_reverse_step,
    neuron_step,
    surrogate_derivative,
)


@triton.jit(
    do_not_specialize=[
        "T", "B", "stride_cr", "stride_ct", "stride_cb", "stride_or", "stride_ot", "stride_ob",
    ]
)  # fmt: skip
def spike_scan_kernel(
    current, threshold, decay, strength, feedback, spike, spikes, potential, last,
    T, B,
    stride_cr: tl.int64, stride_ct: tl.int64, stride_cb: tl.int64,
    stride_or: tl.int64, stride_ot: tl.int64, stride_ob: tl.int64,
    J: tl.constexpr, K: tl.constexpr, LANES: tl.constexpr, U: tl.constexpr,
):  # fmt: skip
    """Strides c_ of the current, o_ of spikes and potential."""
    i_r, o_l, m_l = lanes_of_program(B, J, LANES)
    o_b = o_l // J
    o_j = o_l % J
    lanes = B.to(tl.int64) * J
    step_c = stride_ct.to(tl.int64)
    step_o = stride_ot.to(tl.int64)
    p_c = current + i_r * stride_cr + o_b * stride_cb + o_j
    o_out = i_r * stride_or + o_b * stride_ob + o_j
    p_s = spikes + o_out
    p_v = potential + o_out
    o_state = i_r * K * lanes + o_l

    b_threshold = tl.load(threshold + i_r * J + o_j, mask=m_l, other=0.0)
    b_decays = load_per_feedback(decay + i_r * (K * J), J, o_j, m_l, K, True)
    b_strengths = load_per_feedback(strength + i_r * (K * J), J, o_j, m_l, K, True)
    b_feedbacks = load_per_feedback(feedback, lanes, o_state, m_l, K, True)
    b_spike = tl.load(spike + i_r * lanes + o_l, mask=m_l, other=0.0)

    b_next = load_chunk(p_c, T, m_l, step_c, U, True)
    for i in range(T // U):
        b_currents = b_next
        p_c += U * step_c
        b_next = load_chunk(p_c, T - (i + 1) * U, m_l, step_c, U, True)
        for u in tl.static_range(U):
            b_spike, b_potential, b_feedbacks = neuron_step(
                b_currents[u], b_spike, b_feedbacks, b_decays, b_strengths, b_threshold, K
            )
            tl.store(p_s, b_spike, mask=m_l)
            tl.store(p_v, b_potential, mask=m_l)
            p_s += step_o
            p_v += step_o
    for u in tl.static_range(U - 1):  # a last chunk that is not full
        if u < T % U:
            b_spike, b_potential, b_feedbacks = neuron_step(
                b_next[u], b_spike, b_feedbacks, b_decays, b_strengths, b_threshold, K
            )
            tl.store(p_s, b_spike, mask=m_l)
            tl.store(p_v, b_potential, mask=m_l)
            p_s += step_o
            p_v += step_o

    for k in tl.static_range(K):
        tl.store(last + o_state + k * lanes, b_feedbacks[k], mask=m_l)


@triton.jit(
    do_not_specialize=[
        "T", "B", "stride_sr", "stride_st", "stride_sb", "stride_pr", "stride_pt", "stride_pb",
        "stride_dr", "stride_dt", "stride_db", "stride_or", "stride_ot", "stride_ob",
        "stride_zr", "stride_zt", "stride_zb",
    ]
)  # fmt: skip
def spike_scan_backward_kernel(
    g_spikes, g_potential, g_feedback, derivative, decay, strength,
    g_v, to_threshold, d_feedback, d_spike,
    p_spikes, p_feedback, p_spike, p_theta, p_to_f_decay, p_to_f_strength, a, b, c, d, e, least,
    T, B,
    stride_sr: tl.int64, stride_st: tl.int64, stride_sb: tl.int64,
    stride_pr: tl.int64, stride_pt: tl.int64, stride_pb: tl.int64,
    stride_dr: tl.int64, stride_dt: tl.int64, stride_db: tl.int64,
    stride_or: tl.int64, stride_ot: tl.int64, stride_ob: tl.int64,
    stride_zr: tl.int64, stride_zt: tl.int64, stride_zb: tl.int64,
    J: tl.constexpr, K: tl.constexpr, DETACH_RESET: tl.constexpr,
    HAS_G_SPIKES: tl.constexpr, HAS_G_POTENTIAL: tl.constexpr, HAS_G_FEEDBACK: tl.constexpr,
    FUSED: tl.constexpr, KIND: tl.constexpr, LANES: tl.constexpr, U: tl.constexpr,
):  # fmt: skip
    """Strides s_ of g_spikes, p_ of g_potential, d_ of the derivative, o_ of g_v, z_ of spikes."""
    i_r, o_l, m_l = lanes_of_program(B, J, LANES)
    o_b = o_l // J
    o_j = o_l % J
    lanes = B.to(tl.int64) * J
    step_s = -stride_st.to(tl.int64)
    step_p = -stride_pt.to(tl.int64)
    step_d = -stride_dt.to(tl.int64)
    step_o = -stride_ot.to(tl.int64)
    p_s = g_spikes + i_r * stride_sr + o_b * stride_sb + o_j - (T - 1) * step_s
    p_p = g_potential + i_r * stride_pr + o_b * stride_pb + o_j - (T - 1) * step_p
    p_d = derivative + i_r * stride_dr + o_b * stride_db + o_j - (T - 1) * step_d
    p_o = g_v + i_r * stride_or + o_b * stride_ob + o_j - (T - 1) * step_o
    o_state = i_r * K * lanes + o_l

    b_decays = load_per_feedback(decay + i_r * (K * J), J, o_j, m_l, K, True)
    b_strengths = load_per_feedback(strength + i_r * (K * J), J, o_j, m_l, K, True)
    b_fs = load_per_feedback(g_feedback, lanes, o_state, m_l, K, HAS_G_FEEDBACK)
    b_spike = tl.zeros([LANES], tl.float32)
    b_threshold = tl.zeros([LANES], tl.float32)
    b_theta, b_first, b_qs = fused_start(
        p_theta, p_spike, i_r * J + o_j, i_r * lanes + o_l, m_l, K, FUSED
    )
    b_to_decay = b_qs
    b_to_strength = b_qs
    step_z = -stride_zt.to(tl.int64)
    p_z = p_spikes + i_r * stride_zr + o_b * stride_zb + o_j - (T - 2) * step_z  # s(t-1)

    b_next_s = load_chunk(p_s, T, m_l, step_s, U, HAS_G_SPIKES)
    b_next_p = load_chunk(p_p, T, m_l, step_p, U, HAS_G_POTENTIAL)
    b_next_d = load_chunk(p_d, T, m_l, step_d, U, True)
    b_next_z = load_chunk(p_z, T - 1, m_l, step_z, U, FUSED)
    for i in range(T // U):
        b_ss = b_next_s
        b_ps = b_next_p
        b_ds = b_next_d
        b_zs = b_next_z
        p_s += U * step_s
        p_p += U * step_p
        p_d += U * step_d
        p_z += U * step_z
        left = T - (i + 1) * U
        b_next_s = load_chunk(p_s, left, m_l, step_s, U, HAS_G_SPIKES)
        b_next_p = load_chunk(p_p, left, m_l, step_p, U, HAS_G_POTENTIAL)
        b_next_d = load_chunk(p_d, left, m_l, step_d, U, True)
        b_next_z = load_chunk(p_z, left - 1, m_l, step_z, U, FUSED)
        for u in tl.static_range(U):
            b_d = surrogate_derivative(b_ds[u], b_theta, a, b, c, d, e, least, KIND)
            b_back = b_fs
            b_g, b_spike, b_fs, b_threshold = neuron_reverse_step(
                b_ss[u], b_ps[u], b_d, b_spike, b_fs, b_decays, b_strengths,
                b_threshold, K, DETACH_RESET,
            )  # fmt: skip
            tl.store(p_o, b_g, mask=m_l)
            p_o += step_o
            if FUSED:
                b_z = tl.where(u + 1 < left + U, b_zs[u], b_first)
                b_qs, b_to_decay, b_to_strength = feedback_gradient_reverse_step(
                    b_g, b_z, b_back, b_qs, b_to_decay, b_to_strength, b_decays, K
                )
    for u in tl.static_range(U - 1):  # a last chunk that is not full
        if u < T % U:
            b_d = surrogate_derivative(b_next_d[u], b_theta, a, b, c, d, e, least, KIND)
            b_back = b_fs
            b_g, b_spike, b_fs, b_threshold = neuron_reverse_step(
                b_next_s[u], b_next_p[u], b_d, b_spike, b_fs, b_decays, b_strengths,
                b_threshold, K, DETACH_RESET,
            )  # fmt: skip
            tl.store(p_o, b_g, mask=m_l)
            p_o += step_o
            if FUSED:
                b_z = tl.where(u + 1 < T % U, b_next_z[u], b_first)
                b_qs, b_to_decay, b_to_strength = feedback_gradient_reverse_step(
                    b_g, b_z, b_back, b_qs, b_to_decay, b_to_strength, b_decays, K
                )

    for k in tl.static_range(K):
        tl.store(d_feedback + o_state + k * lanes, b_fs[k], mask=m_l)
    o_lane = i_r * lanes + o_l
    tl.store(to_threshold + o_lane, b_threshold, mask=m_l)
    tl.store(d_spike + o_lane, b_spike, mask=m_l)
    if FUSED:
        store_feedback_gradient(
            p_to_f_decay, p_to_f_strength, p_feedback, (i_r * B + o_b) * (K * J) + o_j, o_state,
            lanes, m_l, b_qs, b_to_decay, b_to_strength, b_strengths, J, K,
        )  # fmt: skip


def spike_scan(
    current: Tensor,
    threshold: Tensor,
    feedback_decay: Tensor,
    feedback_strength: Tensor,
    feedback: Tensor,
    spike: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """current [R, T, B, J], threshold [R, J], decay and strength [R, K, J], feedback [R, K, B, J],
    spike [R, B, J] -> spikes, V [R, T, B, J], final feedback [R, K, B, J]."""
    spikes, potential = (
        torch.empty(current.shape, device=current.device, dtype=torch.float32) for _ in range(2)
    )
    neuron = (threshold, feedback_decay, feedback_strength, feedback, spike)
    last = launch_scan(rows(current), *neuron, spikes, potential)
    return spikes, potential, last


def launch_scan(
    current: Tensor,
    threshold: Tensor,
    feedback_decay: Tensor,
    feedback_strength: Tensor,
    feedback: Tensor,
    spike: Tensor,
    spikes: Tensor,
    potential: Tensor,
) -> Tensor:
    """Fills spikes and potential, of the same strides; returns the final feedback."""
    replicas, steps, batch, neurons = current.shape
    last = torch.empty(feedback.shape, device=current.device, dtype=torch.float32)
    chosen = lane_configuration("spike_scan", replicas * batch * neurons)
    launch(
        spike_scan_kernel,
        lane_grid(replicas, batch * neurons, chosen),
        {
            "current": current,
            "threshold": dense(threshold),
            "decay": dense(feedback_decay),
            "strength": dense(feedback_strength),
            "feedback": dense(feedback),
            "spike": dense(spike),
            "spikes": spikes,
            "potential": potential,
            "last": last,
            "T": steps,
            "B": batch,
            **named_strides("c", current),
            **named_strides("o", spikes),
        },
        {"J": neurons, "K": feedback_decay.shape[1], **chosen.constants},
        chosen.num_warps,
    )
    return last


def spike_scan_backward(
    g_spikes: Tensor | None,
    g_potential: Tensor | None,
    g_feedback: Tensor | None,
    derivative: Tensor,
    spikes: Tensor,
    feedback_decay: Tensor,
    feedback_strength: Tensor,
    feedback: Tensor,
    spike: Tensor,
    detach_reset: bool = False,
    threshold: Tensor | None = None,
    kind: str = GIVEN,
    numbers: Sequence[float] = (),
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of the loss by those of the outputs -> d_current [R, T, B, J], d_threshold [R, J],
    d_decay, d_strength [R, K, J], d_feedback [R, K, B, J], d_spike [R, B, J].

    With a threshold and a surrogate, `derivative` is V, of which it makes ds/dV.
    """
    fused = fused_if_allowed(spikes, feedback, spike, threshold, kind, numbers)
    g_v = torch.empty(derivative.shape, device=derivative.device, dtype=torch.float32)
    to_threshold, d_feedback, d_spike = launch_reverse(
        None if g_spikes is None else rows(g_spikes),
        None if g_potential is None else rows(g_potential),
        g_feedback,
        rows(derivative),
        feedback_decay,
        feedback_strength,
        g_v,
        detach_reset,
        fused,
    )
    d_threshold = add_partials(to_threshold, to_threshold.shape[2])
    d_decay, d_strength = feedback_gradient(
        g_v, g_feedback, spikes, feedback_decay, feedback_strength, feedback, spike, fused
    )
    return g_v, d_threshold, d_decay, d_strength, d_feedback, d_spike


def launch_reverse(
    g_spikes: Tensor | None,
    g_potential: Tensor | None,
    g_feedback: Tensor | None,
    derivative: Tensor,
    feedback_decay: Tensor,
    feedback_strength: Tensor,
    g_v: Tensor,
    detach_reset: bool,
    fused: Fused | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Fills g_v -> d_threshold of each sample [R, B, J], d_feedback, d_spike."""
    replicas, steps, batch, neurons = derivative.shape
    feedbacks = feedback_decay.shape[1]
    device = derivative.device
    to_threshold, d_spike = (
        torch.empty(replicas, batch, neurons, device=device, dtype=torch.float32) for _ in range(2)
    )
    d_feedback = torch.empty(
        replicas, feedbacks, batch, neurons, device=device, dtype=torch.float32
    )
    chosen = lane_configuration("spike_scan_backward", replicas * batch * neurons)
    arguments, constants = fused_arguments(fused, d_feedback)
    # What is absent is never read: any tensor stands in.
    seen = derivative if g_spikes is None else g_spikes
    potential = derivative if g_potential is None else g_potential
    launch(
        spike_scan_backward_kernel,
        lane_grid(replicas, batch * neurons, chosen),
        {
            "g_spikes": seen,
            "g_potential": potential,
            "g_feedback": d_feedback if g_feedback is None else dense(g_feedback),
            "derivative": derivative,
            "decay": dense(feedback_decay),
            "strength": dense(feedback_strength),
            "g_v": g_v,
            "to_threshold": to_threshold,
            "d_feedback": d_feedback,
            "d_spike": d_spike,
            **arguments,
            "T": steps,
            "B": batch,
            **named_strides("s", seen),
            **named_strides("p", potential),
            **named_strides("d", derivative),
            **named_strides("o", g_v),
        },
        {
            "J": neurons,
            "K": feedbacks,
            "DETACH_RESET": detach_reset,
            "HAS_G_SPIKES": g_spikes is not None,
            "HAS_G_POTENTIAL": g_potential is not None,
            "HAS_G_FEEDBACK": g_feedback is not None,
            **constants,
            **chosen.constants,
        },
        chosen.num_warps,
    )
    return to_threshold, d_feedback, d_spike
