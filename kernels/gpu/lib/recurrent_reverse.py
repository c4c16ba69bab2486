"""The reverse in time of a recurrent layer's scan, one launch: equations and costs in
`recurrent_scan`, the tile in `recurrent_tile`.

| name | shape | meaning |
|---|---|---|
| p_d, p_gs, p_gp, p_g | [R, T, B, J] | ds/dV, dL/ds and dL/dV as given, the whole dL/dV |
| b_x | KK x [BJ, KG] | l of (o = k, s = j), or y where a gradient arrives on the last trace |
| b_d_s, b_d_f | [BJ] and K of them | gradients of s(t-1) and F(t-1), carried backward in time |
| b_z | KK x [KG] | g(t) of all neurons |

FUSED: the gradients of the feedback currents too, and ds/dV from V, which then is p_d.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .exchange import await_all, columns, publish, wait_for
from .feedback_gradient import (
    Fused,
    feedback_gradient_reverse_step,
    fused_arguments,
    fused_start,
    store_feedback_gradient,
)
from .launch import dense, launch, named_strides, rows
from .neuron import load_per_feedback, neuron_reverse_step, surrogate_derivative
from .prefetch import lines_of_row, prefetch_next
from .recurrent_tile import (
    Tile,
    advance,
    load_tile,
    programs_of,
    store_tile,
)


@triton.jit
def _reverse_sample(
    i_n, i_p, p_g_spikes, p_g_potential, p_g_feedback, p_g_trace, p_derivative, p_weight, p_decay,
    p_f_decay, p_f_strength, p_g_v, p_d_threshold, p_d_feedback, p_d_spike, p_d_trace,
    p_spikes, p_feedback, p_spike, p_theta, p_to_f_decay, p_to_f_strength, a, b, c, d, e, least,
    T, B, one,
    stride_sr, stride_st, stride_sb, stride_pr, stride_pt, stride_pb,
    stride_dr, stride_dt, stride_db, stride_gr, stride_gt, stride_gb,
    stride_zr, stride_zt, stride_zb,
    J: tl.constexpr, K: tl.constexpr, HAS_G_SPIKES: tl.constexpr, HAS_G_POTENTIAL: tl.constexpr,
    HAS_G_FEEDBACK: tl.constexpr, HAS_G_TRACE: tl.constexpr, DETACH_RESET: tl.constexpr,
    FUSED: tl.constexpr, KIND: tl.constexpr, PROGRAMS: tl.constexpr, BJ: tl.constexpr,
    KG: tl.constexpr, KK: tl.constexpr, AHEAD: tl.constexpr, RELAXED: tl.constexpr,
):  # fmt: skip
    i_r = i_n // B
    i_b = i_n % B
    i_begin = i_p
    if PROGRAMS > 1:
        # Equals i_p, which the compiler does not know: it recomputes offsets in each sample
        # instead of keeping them on the stack.
        i_begin = i_p + (i_n - i_n * one).to(tl.int32)
    o_o = i_begin * BJ + tl.arange(0, BJ)
    m_o = o_o < J
    o_g = tl.arange(0, KG)
    o_all = tl.arange(0, KG * KK)
    o_store = (o_o * one)[:, None] + 0 * o_g[None, :]
    m_store = m_o[:, None] & (o_g == 0)[None, :]
    p_w = p_weight + i_r * (J * J)
    b_w = load_tile(p_w, o_o, o_g, m_o, T >= 0, one, J, BJ, KG, KK, True)
    p_r = p_decay + i_r * (J * J)
    b_r = load_tile(p_r, o_o, o_g, m_o, T >= 0, one, J, BJ, KG, KK, True)
    if HAS_G_TRACE:
        p_x = p_g_trace + i_n * (J * J)
        b_x = load_tile(p_x, o_o, o_g, m_o, T >= 0, one, J, BJ, KG, KK, True)
    else:
        b_x = load_tile(p_r, o_o, o_g, m_o, T < 0, one, J, BJ, KG, KK, True)
    b_decays = load_per_feedback(p_f_decay + i_r * (K * J), J, o_o, m_o, K, True)
    b_strengths = load_per_feedback(p_f_strength + i_r * (K * J), J, o_o, m_o, K, True)
    stride_k = B.to(tl.int64) * J
    o_feedback = (i_r * K * B + i_b) * J
    b_d_f = load_per_feedback(p_g_feedback + o_feedback, stride_k, o_o, m_o, K, HAS_G_FEEDBACK)
    b_d_s = tl.zeros([BJ], tl.float32)
    b_d_threshold = tl.zeros([BJ], tl.float32)
    last = (T - 1).to(tl.int64)
    p_d = p_derivative + i_r * stride_dr + i_b * stride_db + last * stride_dt
    p_gs = p_g_spikes + i_r * stride_sr + i_b * stride_sb + last * stride_st
    p_gp = p_g_potential + i_r * stride_pr + i_b * stride_pb + last * stride_pt
    p_g = p_g_v + i_r * stride_gr + i_b * stride_gb + last * stride_gt
    b_theta, b_first, b_qs = fused_start(
        p_theta, p_spike, i_r * J + o_o, i_n * J + o_o, m_o, K, FUSED
    )
    b_z_step = b_first
    b_to_decay = b_qs
    b_to_strength = b_qs
    p_z = p_spikes + i_r * stride_zr + i_b * stride_zb + (last - 1) * stride_zt  # s(t-1)
    if FUSED:
        b_z_step = tl.load(p_z + o_o, mask=m_o & (T > 1), other=0.0)
    m_first = m_o & (T > 0)
    b_derivative = tl.load(p_d + o_o, mask=m_first, other=0.0)
    b_g_spikes = 0.0
    b_g_potential = 0.0
    if HAS_G_SPIKES:
        b_g_spikes = tl.load(p_gs + o_o, mask=m_first, other=0.0)
    if HAS_G_POTENTIAL:
        b_g_potential = tl.load(p_gp + o_o, mask=m_first, other=0.0)
    if AHEAD > 0:
        far = tl.minimum(AHEAD, T - 1)
        p_d_ahead = lines_of_row(p_d - far * stride_dt, i_begin * BJ, J, BJ)
        p_gs_ahead = lines_of_row(p_gs - far * stride_st, i_begin * BJ, J, BJ)
        p_z_ahead = lines_of_row(p_z - tl.minimum(AHEAD, T - 2) * stride_zt, i_begin * BJ, J, BJ)
    for t in range(T):
        if AHEAD > 0:
            more = t + AHEAD + 1 < T
            p_d_ahead = prefetch_next(p_d_ahead, -stride_dt.to(tl.int64), more)
            if HAS_G_SPIKES:
                p_gs_ahead = prefetch_next(p_gs_ahead, -stride_st.to(tl.int64), more)
            if FUSED:
                p_z_ahead = prefetch_next(p_z_ahead, -stride_zt.to(tl.int64), t + AHEAD + 2 < T)
        b_slope = surrogate_derivative(b_derivative, b_theta, a, b, c, d, e, least, KIND)
        b_back = b_d_f
        b_g, b_d_s, b_d_f, b_d_threshold = neuron_reverse_step(
            b_g_spikes, b_g_potential, b_slope, b_d_s, b_d_f, b_decays, b_strengths,
            b_d_threshold, K, DETACH_RESET,
        )  # fmt: skip
        if FUSED:
            b_qs, b_to_decay, b_to_strength = feedback_gradient_reverse_step(
                b_g, tl.where(t + 1 < T, b_z_step, b_first), b_back, b_qs,
                b_to_decay, b_to_strength, b_decays, K,
            )  # fmt: skip
        b_g2 = tl.broadcast_to(b_g[:, None], [BJ, KG])
        m_more = m_o & (t + 1 < T)
        p_d -= stride_dt
        b_derivative = tl.load(p_d + o_o, mask=m_more, other=0.0)
        if HAS_G_SPIKES:
            p_gs -= stride_st
            b_g_spikes = tl.load(p_gs + o_o, mask=m_more, other=0.0)
        if HAS_G_POTENTIAL:
            p_gp -= stride_pt
            b_g_potential = tl.load(p_gp + o_o, mask=m_more, other=0.0)
        if FUSED:
            p_z -= stride_zt
            b_z_step = tl.load(p_z + o_o, mask=m_o & (t + 2 < T), other=0.0)
        if PROGRAMS == 1:
            tl.store(p_g + o_store, b_g2, mask=m_store)
            b_z = columns(b_g, KG, KK)
        else:
            publish(p_g + o_store, b_g2, m_store, RELAXED)
            b_z = columns(wait_for(p_g + o_all, o_all < J, True), KG, KK)
        p_g -= stride_gt
        b_sum, b_x = advance(b_w, b_r, b_x, b_z, BJ, KG, KK, HAS_G_TRACE)
        b_d_s = b_d_s + b_sum
    if PROGRAMS > 1:
        i_end = i_p + ((i_n + T) * (one - 1)).to(tl.int32)
        o_o = i_end * BJ + tl.arange(0, BJ)
        m_o = o_o < J
    tl.store(p_d_threshold + i_n * J + o_o, b_d_threshold, mask=m_o)
    tl.store(p_d_spike + i_n * J + o_o, b_d_s, mask=m_o)
    for k in tl.static_range(K):
        tl.store(p_d_feedback + o_feedback + k * stride_k + o_o, b_d_f[k], mask=m_o)
    if FUSED:
        store_feedback_gradient(
            p_to_f_decay, p_to_f_strength, p_feedback, i_n * (K * J) + o_o, o_feedback + o_o,
            stride_k, m_o, b_qs, b_to_decay, b_to_strength, b_strengths, J, K,
        )  # fmt: skip
    if not HAS_G_TRACE:
        b_d_trace = ()
        for p in tl.static_range(KK):
            b_d_trace = b_d_trace + (b_w[p] * b_r[p] * b_x[p],)
        b_x = b_d_trace
    store_tile(p_d_trace + i_n * (J * J), b_x, o_o, o_g, m_o, one, J, BJ, KG, KK, True)


@triton.jit(
    do_not_specialize=[
        "T", "B", "samples", "groups", "first_program", "one",
        "stride_sr", "stride_st", "stride_sb", "stride_pr", "stride_pt", "stride_pb",
        "stride_dr", "stride_dt", "stride_db", "stride_gr", "stride_gt", "stride_gb",
        "stride_zr", "stride_zt", "stride_zb",
    ]
)  # fmt: skip
def recurrent_scan_backward_kernel(
    p_g_spikes, p_g_potential, p_g_feedback, p_g_trace, p_derivative, p_weight, p_decay,
    p_f_decay, p_f_strength, p_g_v, p_d_threshold, p_d_feedback, p_d_spike, p_d_trace,
    p_spikes, p_feedback, p_spike, p_theta, p_to_f_decay, p_to_f_strength, a, b, c, d, e, least,
    T, B, samples, groups, first_program, one,
    stride_sr: tl.int64, stride_st: tl.int64, stride_sb: tl.int64,
    stride_pr: tl.int64, stride_pt: tl.int64, stride_pb: tl.int64,
    stride_dr: tl.int64, stride_dt: tl.int64, stride_db: tl.int64,
    stride_gr: tl.int64, stride_gt: tl.int64, stride_gb: tl.int64,
    stride_zr: tl.int64, stride_zt: tl.int64, stride_zb: tl.int64,
    J: tl.constexpr, K: tl.constexpr, HAS_G_SPIKES: tl.constexpr, HAS_G_POTENTIAL: tl.constexpr,
    HAS_G_FEEDBACK: tl.constexpr, HAS_G_TRACE: tl.constexpr, DETACH_RESET: tl.constexpr,
    FUSED: tl.constexpr, KIND: tl.constexpr, PROGRAMS: tl.constexpr, BJ: tl.constexpr,
    KG: tl.constexpr, KK: tl.constexpr, AHEAD: tl.constexpr, RELAXED: tl.constexpr,
):  # fmt: skip
    if PROGRAMS == 1:
        _reverse_sample(
            tl.program_id(0).to(tl.int64), 0,
            p_g_spikes, p_g_potential, p_g_feedback, p_g_trace, p_derivative, p_weight, p_decay,
            p_f_decay, p_f_strength, p_g_v, p_d_threshold, p_d_feedback, p_d_spike, p_d_trace,
            p_spikes, p_feedback, p_spike, p_theta, p_to_f_decay, p_to_f_strength,
            a, b, c, d, e, least, T, B, one,
            stride_sr, stride_st, stride_sb, stride_pr, stride_pt, stride_pb,
            stride_dr, stride_dt, stride_db, stride_gr, stride_gt, stride_gb,
            stride_zr, stride_zt, stride_zb,
            J, K, HAS_G_SPIKES, HAS_G_POTENTIAL, HAS_G_FEEDBACK, HAS_G_TRACE, DETACH_RESET,
            FUSED, KIND, PROGRAMS, BJ, KG, KK, AHEAD, RELAXED,
        )  # fmt: skip
    else:
        i = tl.program_id(0) + first_program
        for i_n in range(i.to(tl.int64) // PROGRAMS, samples, groups):
            _reverse_sample(
                i_n, i % PROGRAMS,
                p_g_spikes, p_g_potential, p_g_feedback, p_g_trace, p_derivative, p_weight,
                p_decay, p_f_decay, p_f_strength, p_g_v, p_d_threshold, p_d_feedback, p_d_spike,
                p_d_trace, p_spikes, p_feedback, p_spike, p_theta, p_to_f_decay, p_to_f_strength,
                a, b, c, d, e, least, T, B, one,
                stride_sr, stride_st, stride_sb, stride_pr, stride_pt, stride_pb,
                stride_dr, stride_dt, stride_db, stride_gr, stride_gt, stride_gb,
                stride_zr, stride_zt, stride_zb,
                J, K, HAS_G_SPIKES, HAS_G_POTENTIAL, HAS_G_FEEDBACK, HAS_G_TRACE, DETACH_RESET,
                FUSED, KIND, PROGRAMS, BJ, KG, KK, AHEAD, RELAXED,
            )  # fmt: skip


def backward_in_registers(
    tile: Tile,
    resident: int,
    g_spikes: Tensor | None,
    g_potential: Tensor | None,
    g_feedback: Tensor | None,
    g_trace: Tensor | None,
    derivative: Tensor,
    weight: Tensor,
    decay: Tensor,
    feedback_decay: Tensor,
    feedback_strength: Tensor,
    detach_reset: bool,
    fused: Fused | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """-> g_v, d_threshold of each sample [R, B, J], d_feedback, d_spike, d_trace."""
    derivative = rows(derivative)
    replicas, steps, batch, neurons = derivative.shape
    device = derivative.device
    currents = feedback_decay.shape[1]
    g_v = torch.empty(derivative.shape, device=device, dtype=torch.float32)
    d_threshold = torch.empty(replicas, batch, neurons, device=device, dtype=torch.float32)
    d_feedback = torch.empty(replicas, currents, batch, neurons, device=device, dtype=torch.float32)
    d_spike = torch.empty_like(d_threshold)
    d_trace = torch.empty(replicas, batch, neurons, neurons, device=device, dtype=torch.float32)
    if tile.programs > 1:
        await_all(g_v)
    decay = dense(decay)
    given_spikes = derivative if g_spikes is None else rows(g_spikes)
    given_potential = derivative if g_potential is None else rows(g_potential)
    arguments, constants = fused_arguments(fused, d_feedback)
    programs = programs_of(tile, resident, replicas * batch)
    launch(
        recurrent_scan_backward_kernel,
        programs.grid,
        {
            "p_g_spikes": given_spikes,
            "p_g_potential": given_potential,
            "p_g_feedback": decay if g_feedback is None else dense(g_feedback),
            "p_g_trace": decay if g_trace is None else dense(g_trace),
            "p_derivative": derivative,
            "p_weight": dense(weight),
            "p_decay": decay,
            "p_f_decay": dense(feedback_decay),
            "p_f_strength": dense(feedback_strength),
            "p_g_v": g_v,
            "p_d_threshold": d_threshold,
            "p_d_feedback": d_feedback,
            "p_d_spike": d_spike,
            "p_d_trace": d_trace,
            **arguments,
            "T": steps,
            "B": batch,
            **programs.arguments,
            **named_strides("s", given_spikes),
            **named_strides("p", given_potential),
            **named_strides("d", derivative),
            **named_strides("g", g_v),
        },
        {
            "J": neurons,
            "K": currents,
            "HAS_G_SPIKES": g_spikes is not None,
            "HAS_G_POTENTIAL": g_potential is not None,
            "HAS_G_FEEDBACK": g_feedback is not None,
            "HAS_G_TRACE": g_trace is not None,
            "DETACH_RESET": detach_reset,
            **constants,
            **tile.constants,
        },
        tile.num_warps,
        **programs.options,
    )
    return g_v, d_threshold, d_feedback, d_spike, d_trace
