"""A recurrent layer with one decay per neuron over a whole sequence, and its backward.

    c_j(t) = rho_j c_j(t-1) + u_j(t) + sum_k w_jk s_k(t-1),   V_j(t) = c_j(t) - sum_q F_qj(t)
    d_j(t) = g_j(t) + h_j(t) + rho_j d_j(t+1),   S_k(t-1) = sum_j w_jk d_j(t) + ...

with g = dL/dV and h the gradient of c. Neurons (F, s, g, S): `lib/neuron.py`. Then du = d,
dw_jk = sum d_j(t) s_k(t-1), drho = sum d(t) c(t-1), dc(0) = rho d(1).

| name | shape | meaning |
|---|---|---|
| o, s | - | output and summed neuron: j and k forward, k and j backward |
| i_n, i_p | - | sample of a replica, r B + b; program within the sample |
| BJ, KG, KK | - | rows o of a program; KG groups of KK summed neurons, KG KK >= J |
| b_w | KK x [BJ, KG] | weight of synapse (o, s = g KK + p) |
| b_z | KK x [KG] | s(t-1) forward, d(t) backward, of all neurons |
| o_store, m_store | [BJ, KG] | where the first lane of a row writes the row's value |

The tile, the order of the sum and the exchange between programs are those of `recurrent_scan`, with
a weight in place of weight, decay and trace. Above 1024 neurons a step is three launches and more:
`lib/weighted_sums.py`, then the kernels of neurons with T = 1; CUDA graphs can hold them.

Cost, per direction: R T B J^2 multiply-adds, and as many and three times for dw, which is a
parameter gradient with decay 0. HBM bytes 4 R T B J x 4 (u, s, V, c) forward, x 5 to 8 backward.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..surrogate_kinds import GIVEN
from .leaky_current import leaky_current
from .lib.add_partials import add_partials
from .lib.exchange import await_all, columns, publish, wait_for
from .lib.feedback_gradient import (
    Fused,
    feedback_gradient,
    feedback_gradient_reverse_step,
    fused_arguments,
    fused_if_allowed,
    fused_start,
    store_feedback_gradient,
)
from .lib.launch import dense, launch, named_strides, rows
from .lib.neuron import (
    load_per_feedback,
    neuron_reverse_step,
    neuron_step,
    surrogate_derivative,
)
from .lib.parameter_gradient import synaptic_parameter_gradient
from .lib.prefetch import lines_of_row, prefetch_next
from .lib.recurrent_tile import (
    Tile,
    load_tile,
    path,
    programs_at_once,
    programs_of,
    weighted_sum,
)
from .lib.weighted_sums import weighted_sums
from .spike_scan import launch_reverse, spike_scan
from .surrogate import surrogate


@triton.jit
def _forward_sample(
    i_n, i_p, p_drive, p_weight, p_decay, p_current, p_threshold, p_f_decay, p_f_strength,
    p_feedback, p_spike, p_spikes, p_potential, p_currents, p_last_feedback, T, B, one,
    stride_ur, stride_ut, stride_ub, stride_sr, stride_st, stride_sb,
    J: tl.constexpr, K: tl.constexpr, PROGRAMS: tl.constexpr,
    BJ: tl.constexpr, KG: tl.constexpr, KK: tl.constexpr, AHEAD: tl.constexpr,
    RELAXED: tl.constexpr,
):  # fmt: skip
    i_r = i_n // B
    i_b = i_n % B
    o_o = i_p * BJ + tl.arange(0, BJ)
    m_o = o_o < J
    o_g = tl.arange(0, KG)
    o_all = tl.arange(0, KG * KK)
    o_store = (o_o * one)[:, None] + 0 * o_g[None, :]
    m_store = m_o[:, None] & (o_g == 0)[None, :]
    p_w = p_weight + i_r * (J * J)
    b_w = load_tile(p_w, o_o, o_g, m_o, T >= 0, one, J, BJ, KG, KK, False)
    b_decay = tl.load(p_decay + i_r * J + o_o, mask=m_o, other=0.0)
    b_c = tl.load(p_current + i_n * J + o_o, mask=m_o, other=0.0)
    b_threshold = tl.load(p_threshold + i_r * J + o_o, mask=m_o, other=0.0)
    b_decays = load_per_feedback(p_f_decay + i_r * (K * J), J, o_o, m_o, K, True)
    b_strengths = load_per_feedback(p_f_strength + i_r * (K * J), J, o_o, m_o, K, True)
    o_feedback = (i_r * K * B + i_b) * J
    b_f = load_per_feedback(p_feedback + o_feedback, B.to(tl.int64) * J, o_o, m_o, K, True)
    b_s = tl.load(p_spike + i_n * J + o_o, mask=m_o, other=0.0)
    p_z = p_spike + i_n * J
    p_u = p_drive + i_r * stride_ur + i_b * stride_ub
    o_step = i_r * stride_sr + i_b * stride_sb
    p_s = p_spikes + o_step
    p_v = p_potential + o_step
    p_c = p_currents + o_step
    b_u = tl.load(p_u + o_o, mask=m_o & (T > 0), other=0.0)
    if AHEAD > 0:
        p_ahead = lines_of_row(p_u + tl.minimum(AHEAD, T - 1) * stride_ut, i_p * BJ, J, BJ)
    for t in range(T):
        if AHEAD > 0:
            p_ahead = prefetch_next(p_ahead, stride_ut.to(tl.int64), t + AHEAD + 1 < T)
        p_u += stride_ut
        # RELAXED: after the poll, which would otherwise wait for this load from device memory.
        if PROGRAMS == 1 or not RELAXED:
            b_ahead = tl.load(p_u + o_o, mask=m_o & (t + 1 < T), other=0.0)
        if PROGRAMS == 1:
            b_z = columns(b_s, KG, KK)
        else:
            b_z = columns(wait_for(p_z + o_all, o_all < J, t > 0), KG, KK)
            if RELAXED:
                b_ahead = tl.load(p_u + o_o, mask=m_o & (t + 1 < T), other=0.0)
        b_c = tl.fma(b_decay, b_c, b_u + weighted_sum(b_w, b_z, BJ, KG, KK))
        b_s, b_v, b_f = neuron_step(b_c, b_s, b_f, b_decays, b_strengths, b_threshold, K)
        if PROGRAMS == 1:
            tl.store(p_s + o_store, tl.broadcast_to(b_s[:, None], [BJ, KG]), mask=m_store)
        else:
            publish(p_s + o_store, tl.broadcast_to(b_s[:, None], [BJ, KG]), m_store, RELAXED)
        tl.store(p_v + o_store, tl.broadcast_to(b_v[:, None], [BJ, KG]), mask=m_store)
        tl.store(p_c + o_store, tl.broadcast_to(b_c[:, None], [BJ, KG]), mask=m_store)
        p_z = p_s
        p_s += stride_st
        p_v += stride_st
        p_c += stride_st
        b_u = b_ahead
    for k in tl.static_range(K):
        o_k = o_feedback + k * B.to(tl.int64) * J
        tl.store(p_last_feedback + o_k + o_o, b_f[k], mask=m_o)


@triton.jit(
    do_not_specialize=[
        "T", "B", "groups", "samples", "first_program", "one",
        "stride_ur", "stride_ut", "stride_ub", "stride_sr", "stride_st", "stride_sb",
    ]
)  # fmt: skip
def leaky_recurrent_scan_kernel(
    p_drive, p_weight, p_decay, p_current, p_threshold, p_f_decay, p_f_strength,
    p_feedback, p_spike, p_spikes, p_potential, p_currents, p_last_feedback,
    T, B, samples, groups, first_program, one,
    stride_ur: tl.int64, stride_ut: tl.int64, stride_ub: tl.int64,
    stride_sr: tl.int64, stride_st: tl.int64, stride_sb: tl.int64,
    J: tl.constexpr, K: tl.constexpr, PROGRAMS: tl.constexpr,
    BJ: tl.constexpr, KG: tl.constexpr, KK: tl.constexpr, AHEAD: tl.constexpr,
    RELAXED: tl.constexpr,
):  # fmt: skip
    """Strides u_ of the drive, s_ of spikes, potential and currents."""
    i = tl.program_id(0) + first_program
    for i_n in range(i.to(tl.int64) // PROGRAMS, samples, groups):
        _forward_sample(
            i_n, i % PROGRAMS,
            p_drive, p_weight, p_decay, p_current, p_threshold, p_f_decay, p_f_strength,
            p_feedback, p_spike, p_spikes, p_potential, p_currents, p_last_feedback, T, B, one,
            stride_ur, stride_ut, stride_ub, stride_sr, stride_st, stride_sb,
            J, K, PROGRAMS, BJ, KG, KK, AHEAD, RELAXED,
        )  # fmt: skip


@triton.jit
def _backward_sample(
    i_n, i_p, p_g_spikes, p_g_potential, p_g_feedback, p_g_currents, p_derivative, p_currents,
    p_weight, p_decay, p_current, p_f_decay, p_f_strength,
    p_g_v, p_d_drive, p_d_threshold, p_to_decay, p_d_current, p_d_feedback, p_d_spike,
    p_spikes, p_feedback, p_spike, p_theta, p_to_f_decay, p_to_f_strength, a, b, c, d, e, least,
    T, B, one,
    stride_sr, stride_st, stride_sb, stride_pr, stride_pt, stride_pb,
    stride_hr, stride_ht, stride_hb, stride_dr, stride_dt, stride_db,
    stride_cr, stride_ct, stride_cb, stride_gr, stride_gt, stride_gb,
    stride_zr, stride_zt, stride_zb,
    J: tl.constexpr, K: tl.constexpr, HAS_G_SPIKES: tl.constexpr, HAS_G_POTENTIAL: tl.constexpr,
    HAS_G_FEEDBACK: tl.constexpr, HAS_G_CURRENTS: tl.constexpr, DETACH_RESET: tl.constexpr,
    FUSED: tl.constexpr, KIND: tl.constexpr, PROGRAMS: tl.constexpr, BJ: tl.constexpr,
    KG: tl.constexpr, KK: tl.constexpr, AHEAD: tl.constexpr, RELAXED: tl.constexpr,
):  # fmt: skip
    i_r = i_n // B
    i_b = i_n % B
    o_o = i_p * BJ + tl.arange(0, BJ)
    m_o = o_o < J
    o_g = tl.arange(0, KG)
    o_all = tl.arange(0, KG * KK)
    o_store = (o_o * one)[:, None] + 0 * o_g[None, :]
    m_store = m_o[:, None] & (o_g == 0)[None, :]
    p_w = p_weight + i_r * (J * J)
    b_w = load_tile(p_w, o_o, o_g, m_o, T >= 0, one, J, BJ, KG, KK, True)
    b_decay = tl.load(p_decay + i_r * J + o_o, mask=m_o, other=0.0)
    b_begin = tl.load(p_current + i_n * J + o_o, mask=m_o, other=0.0)
    b_decays = load_per_feedback(p_f_decay + i_r * (K * J), J, o_o, m_o, K, True)
    b_strengths = load_per_feedback(p_f_strength + i_r * (K * J), J, o_o, m_o, K, True)
    stride_k = B.to(tl.int64) * J
    o_feedback = (i_r * K * B + i_b) * J
    b_d_f = load_per_feedback(p_g_feedback + o_feedback, stride_k, o_o, m_o, K, HAS_G_FEEDBACK)
    b_d_s = tl.zeros([BJ], tl.float32)
    b_d_threshold = tl.zeros([BJ], tl.float32)
    b_d = tl.zeros([BJ], tl.float32)  # d(t+1)
    b_to_decay = tl.zeros([BJ], tl.float32)
    b_theta, b_first, b_qs = fused_start(
        p_theta, p_spike, i_r * J + o_o, i_n * J + o_o, m_o, K, FUSED
    )
    b_to_f_decay = b_qs
    b_to_strength = b_qs
    last = (T - 1).to(tl.int64)
    p_e = p_derivative + i_r * stride_dr + i_b * stride_db + last * stride_dt
    p_gs = p_g_spikes + i_r * stride_sr + i_b * stride_sb + last * stride_st
    p_gp = p_g_potential + i_r * stride_pr + i_b * stride_pb + last * stride_pt
    p_h = p_g_currents + i_r * stride_hr + i_b * stride_hb + last * stride_ht
    p_c = p_currents + i_r * stride_cr + i_b * stride_cb + last * stride_ct
    p_z = p_spikes + i_r * stride_zr + i_b * stride_zb + (last - 1) * stride_zt  # s(t-1)
    o_step = i_r * stride_gr + i_b * stride_gb + last * stride_gt
    p_g = p_g_v + o_step
    p_u = p_d_drive + o_step
    if AHEAD > 0:
        far = tl.minimum(AHEAD, T - 1)
        p_e_ahead = lines_of_row(p_e - far * stride_dt, i_p * BJ, J, BJ)
        p_c_ahead = lines_of_row(p_c - far * stride_ct, i_p * BJ, J, BJ)
        p_gs_ahead = lines_of_row(p_gs - far * stride_st, i_p * BJ, J, BJ)
        p_z_ahead = lines_of_row(p_z - tl.minimum(AHEAD, T - 2) * stride_zt, i_p * BJ, J, BJ)
    for t in range(T):
        if AHEAD > 0:
            more = t + AHEAD + 1 < T
            p_e_ahead = prefetch_next(p_e_ahead, -stride_dt.to(tl.int64), more)
            p_c_ahead = prefetch_next(p_c_ahead, -stride_ct.to(tl.int64), more)
            if HAS_G_SPIKES:
                p_gs_ahead = prefetch_next(p_gs_ahead, -stride_st.to(tl.int64), more)
            if FUSED:
                p_z_ahead = prefetch_next(p_z_ahead, -stride_zt.to(tl.int64), t + AHEAD + 2 < T)
        b_derivative = tl.load(p_e + o_o, mask=m_o, other=0.0)
        b_g_spikes = 0.0
        b_g_potential = 0.0
        if HAS_G_SPIKES:
            b_g_spikes = tl.load(p_gs + o_o, mask=m_o, other=0.0)
        if HAS_G_POTENTIAL:
            b_g_potential = tl.load(p_gp + o_o, mask=m_o, other=0.0)
        p_c -= stride_ct
        b_before = tl.load(p_c + o_o, mask=m_o & (t + 1 < T), other=0.0)
        b_before = tl.where(t + 1 < T, b_before, b_begin)
        b_derivative = surrogate_derivative(b_derivative, b_theta, a, b, c, d, e, least, KIND)
        b_back = b_d_f
        b_g, b_d_s, b_d_f, b_d_threshold = neuron_reverse_step(
            b_g_spikes, b_g_potential, b_derivative, b_d_s, b_d_f, b_decays, b_strengths,
            b_d_threshold, K, DETACH_RESET,
        )  # fmt: skip
        if FUSED:
            b_s = tl.load(p_z + o_o, mask=m_o & (t + 1 < T), other=0.0)
            b_s = tl.where(t + 1 < T, b_s, b_first)
            p_z -= stride_zt
            b_qs, b_to_f_decay, b_to_strength = feedback_gradient_reverse_step(
                b_g, b_s, b_back, b_qs, b_to_f_decay, b_to_strength, b_decays, K
            )
        b_at_step = b_g
        if HAS_G_CURRENTS:
            b_at_step = b_g + tl.load(p_h + o_o, mask=m_o, other=0.0)
        b_d = tl.fma(b_decay, b_d, b_at_step)
        b_to_decay = tl.fma(b_d, b_before, b_to_decay)
        tl.store(p_g + o_store, tl.broadcast_to(b_g[:, None], [BJ, KG]), mask=m_store)
        b_d2 = tl.broadcast_to(b_d[:, None], [BJ, KG])
        if PROGRAMS == 1:
            tl.store(p_u + o_store, b_d2, mask=m_store)
            b_z = columns(b_d, KG, KK)
        else:
            publish(p_u + o_store, b_d2, m_store, RELAXED)
            b_z = columns(wait_for(p_u + o_all, o_all < J, True), KG, KK)
        b_d_s = b_d_s + weighted_sum(b_w, b_z, BJ, KG, KK)
        p_e -= stride_dt
        p_gs -= stride_st
        p_gp -= stride_pt
        p_h -= stride_ht
        p_g -= stride_gt
        p_u -= stride_gt
    tl.store(p_d_threshold + i_n * J + o_o, b_d_threshold, mask=m_o)
    tl.store(p_to_decay + i_n * J + o_o, b_to_decay, mask=m_o)
    tl.store(p_d_current + i_n * J + o_o, b_decay * b_d, mask=m_o)
    tl.store(p_d_spike + i_n * J + o_o, b_d_s, mask=m_o)
    for k in tl.static_range(K):
        tl.store(p_d_feedback + o_feedback + k * stride_k + o_o, b_d_f[k], mask=m_o)
    if FUSED:
        store_feedback_gradient(
            p_to_f_decay, p_to_f_strength, p_feedback, i_n * (K * J) + o_o, o_feedback + o_o,
            stride_k, m_o, b_qs, b_to_f_decay, b_to_strength, b_strengths, J, K,
        )  # fmt: skip


@triton.jit(
    do_not_specialize=[
        "T", "B", "samples", "groups", "first_program", "one",
        "stride_sr", "stride_st", "stride_sb", "stride_pr", "stride_pt", "stride_pb",
        "stride_hr", "stride_ht", "stride_hb", "stride_dr", "stride_dt", "stride_db",
        "stride_cr", "stride_ct", "stride_cb", "stride_gr", "stride_gt", "stride_gb",
        "stride_zr", "stride_zt", "stride_zb",
    ]
)  # fmt: skip
def leaky_recurrent_scan_backward_kernel(
    p_g_spikes, p_g_potential, p_g_feedback, p_g_currents, p_derivative, p_currents,
    p_weight, p_decay, p_current, p_f_decay, p_f_strength,
    p_g_v, p_d_drive, p_d_threshold, p_to_decay, p_d_current, p_d_feedback, p_d_spike,
    p_spikes, p_feedback, p_spike, p_theta, p_to_f_decay, p_to_f_strength, a, b, c, d, e, least,
    T, B, samples, groups, first_program, one,
    stride_sr: tl.int64, stride_st: tl.int64, stride_sb: tl.int64,
    stride_pr: tl.int64, stride_pt: tl.int64, stride_pb: tl.int64,
    stride_hr: tl.int64, stride_ht: tl.int64, stride_hb: tl.int64,
    stride_dr: tl.int64, stride_dt: tl.int64, stride_db: tl.int64,
    stride_cr: tl.int64, stride_ct: tl.int64, stride_cb: tl.int64,
    stride_gr: tl.int64, stride_gt: tl.int64, stride_gb: tl.int64,
    stride_zr: tl.int64, stride_zt: tl.int64, stride_zb: tl.int64,
    J: tl.constexpr, K: tl.constexpr, HAS_G_SPIKES: tl.constexpr, HAS_G_POTENTIAL: tl.constexpr,
    HAS_G_FEEDBACK: tl.constexpr, HAS_G_CURRENTS: tl.constexpr, DETACH_RESET: tl.constexpr,
    FUSED: tl.constexpr, KIND: tl.constexpr, PROGRAMS: tl.constexpr, BJ: tl.constexpr,
    KG: tl.constexpr, KK: tl.constexpr, AHEAD: tl.constexpr, RELAXED: tl.constexpr,
):  # fmt: skip
    """Strides s_ of g_spikes, p_ of g_potential, h_ of g_currents, d_ of the derivative, c_ of the
    currents, g_ of g_v and d_drive, z_ of spikes. FUSED: as in `lib/recurrent_reverse.py`."""
    i = tl.program_id(0) + first_program
    for i_n in range(i.to(tl.int64) // PROGRAMS, samples, groups):
        _backward_sample(
            i_n, i % PROGRAMS,
            p_g_spikes, p_g_potential, p_g_feedback, p_g_currents, p_derivative, p_currents,
            p_weight, p_decay, p_current, p_f_decay, p_f_strength,
            p_g_v, p_d_drive, p_d_threshold, p_to_decay, p_d_current, p_d_feedback, p_d_spike,
            p_spikes, p_feedback, p_spike, p_theta, p_to_f_decay, p_to_f_strength,
            a, b, c, d, e, least, T, B, one,
            stride_sr, stride_st, stride_sb, stride_pr, stride_pt, stride_pb,
            stride_hr, stride_ht, stride_hb, stride_dr, stride_dt, stride_db,
            stride_cr, stride_ct, stride_cb, stride_gr, stride_gt, stride_gb,
            stride_zr, stride_zt, stride_zb,
            J, K, HAS_G_SPIKES, HAS_G_POTENTIAL, HAS_G_FEEDBACK, HAS_G_CURRENTS, DETACH_RESET,
            FUSED, KIND, PROGRAMS, BJ, KG, KK, AHEAD, RELAXED,
        )  # fmt: skip


def forward_in_registers(
    tile: Tile,
    resident: int,
    drive: Tensor,
    weight: Tensor,
    decay: Tensor,
    current: Tensor,
    threshold: Tensor,
    feedback_decay: Tensor,
    feedback_strength: Tensor,
    feedback: Tensor,
    spike: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`leaky_recurrent_scan` with a given tile and number of programs that run at the same time."""
    drive = rows(drive)
    replicas, _, batch, neurons = drive.shape
    spikes, potential, currents = (
        torch.empty(drive.shape, device=drive.device, dtype=torch.float32) for _ in range(3)
    )
    last_feedback = torch.empty(feedback.shape, device=drive.device, dtype=torch.float32)
    if tile.programs > 1:
        await_all(spikes)
    programs = programs_of(tile, resident, replicas * batch)
    launch(
        leaky_recurrent_scan_kernel,
        programs.grid,
        {
            "p_drive": drive,
            "p_weight": dense(weight),
            "p_decay": dense(decay),
            "p_current": dense(current),
            "p_threshold": dense(threshold),
            "p_f_decay": dense(feedback_decay),
            "p_f_strength": dense(feedback_strength),
            "p_feedback": dense(feedback),
            "p_spike": dense(spike),
            "p_spikes": spikes,
            "p_potential": potential,
            "p_currents": currents,
            "p_last_feedback": last_feedback,
            "T": drive.shape[1],
            "B": batch,
            **programs.arguments,
            **named_strides("u", drive),
            **named_strides("s", spikes),
        },
        {"J": neurons, "K": feedback.shape[1], **tile.constants},
        tile.num_warps,
        **programs.options,
    )
    return spikes, potential, last_feedback, currents


def forward_by_steps(
    drive: Tensor,
    weight: Tensor,
    decay: Tensor,
    current: Tensor,
    threshold: Tensor,
    feedback_decay: Tensor,
    feedback_strength: Tensor,
    feedback: Tensor,
    spike: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`leaky_recurrent_scan` step by step -> spikes, V, final feedback, currents."""
    weight, spike, feedback = dense(weight), dense(spike), dense(feedback)
    spikes, potential, currents = (
        torch.empty(drive.shape, device=drive.device, dtype=torch.float32) for _ in range(3)
    )
    for t in range(drive.shape[1]):
        fed_back = drive[:, t] + weighted_sums(spike, weight, transposed=False)
        at_step = leaky_current(fed_back.unsqueeze(1), decay, current)
        neuron = (threshold, feedback_decay, feedback_strength, feedback, spike)
        now, v, feedback = spike_scan(at_step, *neuron)
        current, spike = at_step[:, 0], now[:, 0]
        spikes[:, t], potential[:, t], currents[:, t] = spike, v[:, 0], current
    return spikes, potential, feedback.clone(), currents


def leaky_recurrent_scan(
    drive: Tensor,
    weight: Tensor,
    decay: Tensor,
    current: Tensor,
    threshold: Tensor,
    feedback_decay: Tensor,
    feedback_strength: Tensor,
    feedback: Tensor,
    spike: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """-> spikes, V [R, T, B, J], final feedback [R, K, B, J], currents [R, T, B, J]."""
    neuron = (threshold, feedback_decay, feedback_strength, feedback, spike)
    resident = programs_at_once(drive.device)
    tile = path(drive.shape[3], resident)
    if tile is None:
        return forward_by_steps(drive, weight, decay, current, *neuron)
    return forward_in_registers(tile, resident, drive, weight, decay, current, *neuron)


def backward_in_registers(
    tile: Tile,
    resident: int,
    g_spikes: Tensor | None,
    g_potential: Tensor | None,
    g_feedback: Tensor | None,
    g_currents: Tensor | None,
    derivative: Tensor,
    currents: Tensor,
    weight: Tensor,
    decay: Tensor,
    current: Tensor,
    feedback_decay: Tensor,
    feedback_strength: Tensor,
    detach_reset: bool,
    fused: Fused | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """-> g_v, d_drive, of each sample d_threshold and d_decay [R, B, J], d_current, d_feedback,
    d_spike."""
    derivative, currents = rows(derivative), rows(currents)
    replicas, steps, batch, neurons = derivative.shape
    device = derivative.device
    g_v, d_drive = (
        torch.empty(derivative.shape, device=device, dtype=torch.float32) for _ in range(2)
    )
    d_threshold, to_decay, d_current, d_spike = (
        torch.empty(replicas, batch, neurons, device=device, dtype=torch.float32) for _ in range(4)
    )
    feedbacks = feedback_decay.shape[1]
    d_feedback = torch.empty(
        replicas, feedbacks, batch, neurons, device=device, dtype=torch.float32
    )
    if tile.programs > 1:
        await_all(d_drive)
    # What is absent is never read: any tensor stands in.
    seen = derivative if g_spikes is None else rows(g_spikes)
    potential = derivative if g_potential is None else rows(g_potential)
    own = derivative if g_currents is None else rows(g_currents)
    arguments, constants = fused_arguments(fused, d_feedback)
    programs = programs_of(tile, resident, replicas * batch)
    launch(
        leaky_recurrent_scan_backward_kernel,
        programs.grid,
        {
            "p_g_spikes": seen,
            "p_g_potential": potential,
            "p_g_feedback": d_feedback if g_feedback is None else dense(g_feedback),
            "p_g_currents": own,
            "p_derivative": derivative,
            "p_currents": currents,
            "p_weight": dense(weight),
            "p_decay": dense(decay),
            "p_current": dense(current),
            "p_f_decay": dense(feedback_decay),
            "p_f_strength": dense(feedback_strength),
            "p_g_v": g_v,
            "p_d_drive": d_drive,
            "p_d_threshold": d_threshold,
            "p_to_decay": to_decay,
            "p_d_current": d_current,
            "p_d_feedback": d_feedback,
            "p_d_spike": d_spike,
            **arguments,
            "T": steps,
            "B": batch,
            **programs.arguments,
            **named_strides("s", seen),
            **named_strides("p", potential),
            **named_strides("h", own),
            **named_strides("d", derivative),
            **named_strides("c", currents),
            **named_strides("g", g_v),
        },
        {
            "J": neurons,
            "K": feedbacks,
            "HAS_G_SPIKES": g_spikes is not None,
            "HAS_G_POTENTIAL": g_potential is not None,
            "HAS_G_FEEDBACK": g_feedback is not None,
            "HAS_G_CURRENTS": g_currents is not None,
            "DETACH_RESET": detach_reset,
            **constants,
            **tile.constants,
        },
        tile.num_warps,
        **programs.options,
    )
    return g_v, d_drive, d_threshold, to_decay, d_current, d_feedback, d_spike


def backward_by_steps(
    g_spikes: Tensor | None,
    g_potential: Tensor | None,
    g_feedback: Tensor | None,
    g_currents: Tensor | None,
    derivative: Tensor,
    currents: Tensor,
    weight: Tensor,
    decay: Tensor,
    current: Tensor,
    feedback_decay: Tensor,
    feedback_strength: Tensor,
    detach_reset: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """-> g_v, d_drive, of each sample d_threshold and d_decay [R, B, J], d_current, d_feedback,
    d_spike."""
    weight, derivative = dense(weight), rows(derivative)
    potential = None if g_potential is None else rows(g_potential)
    replicas, steps, batch, neurons = derivative.shape
    device = derivative.device
    g_v, d_drive = (
        torch.empty(derivative.shape, device=device, dtype=torch.float32) for _ in range(2)
    )
    d_spike, d_threshold, to_decay, after = (
        torch.zeros(replicas, batch, neurons, device=device, dtype=torch.float32) for _ in range(4)
    )
    shape = (replicas, feedback_decay.shape[1], batch, neurons)
    d_feedback = (
        torch.zeros(shape, device=device, dtype=torch.float32)
        if g_feedback is None
        else g_feedback.float()
    )
    for t in reversed(range(steps)):
        seen = d_spike if g_spikes is None else d_spike + g_spikes[:, t]
        at_step = g_v[:, t : t + 1]
        to_threshold, d_feedback, d_spike = launch_reverse(
            seen.unsqueeze(1),
            None if potential is None else potential[:, t : t + 1],
            d_feedback,
            derivative[:, t : t + 1],
            feedback_decay,
            feedback_strength,
            at_step,
            detach_reset,
        )
        d_threshold = d_threshold + to_threshold
        arriving = at_step if g_currents is None else at_step + g_currents[:, t : t + 1]
        after = leaky_current(arriving, decay, after)[:, 0]
        d_drive[:, t] = after
        before = currents[:, t - 1] if t else current
        to_decay = torch.addcmul(to_decay, after, before)
        d_spike = d_spike + weighted_sums(after, weight, transposed=True)
    d_current = decay.unsqueeze(1) * after
    return g_v, d_drive, d_threshold, to_decay, d_current, d_feedback.clone(), d_spike


def leaky_recurrent_scan_backward(
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
    feedback_decay: Tensor,
    feedback_strength: Tensor,
    feedback: Tensor,
    spike: Tensor,
    detach_reset: bool = False,
    threshold: Tensor | None = None,
    kind: str = GIVEN,
    numbers: Sequence[float] = (),
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """-> d_drive, d_weight, d_decay, d_current, d_threshold, d_feedback_decay, d_feedback_strength,
    d_feedback, d_spike.

    With a threshold and a surrogate, `derivative` is V, of which it makes ds/dV.
    """
    resident = programs_at_once(derivative.device)
    tile = path(derivative.shape[3], resident)
    if tile is None and threshold is not None:
        derivative = surrogate(derivative, threshold, kind, numbers)
    given = (g_spikes, g_potential, g_feedback, g_currents, derivative, currents)
    synapses = (weight, decay, current, feedback_decay, feedback_strength)
    fused = None
    if tile is None:
        swept = backward_by_steps(*given, *synapses, detach_reset)
    else:
        fused = fused_if_allowed(spikes, feedback, spike, threshold, kind, numbers)
        swept = backward_in_registers(tile, resident, *given, *synapses, detach_reset, fused)
    g_v, d_drive, d_threshold, to_decay, d_current, d_feedback, d_spike = swept
    before = torch.cat([spike.unsqueeze(1), spikes], 1)[:, : spikes.shape[1]]
    no_memory = torch.zeros_like(weight)
    d_weight, _ = synaptic_parameter_gradient(before, d_drive, None, weight, no_memory, None)
    d_f_decay, d_f_strength = feedback_gradient(
        g_v, g_feedback, spikes, feedback_decay, feedback_strength, feedback, spike, fused
    )
    neurons = d_threshold.shape[2]
    return (
        d_drive,
        d_weight,
        add_partials(to_decay, neurons),
        d_current,
        add_partials(d_threshold, neurons),
        d_f_decay,
        d_f_strength,
        d_feedback,
        d_spike,
    )
