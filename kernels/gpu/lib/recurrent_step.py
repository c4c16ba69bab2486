"""A recurrent layer of any size: one launch per time step, traces in global memory.

Forward, reading s(t-1) of all neurons, and in reverse, reading what came back from step t+1:

    x_jk <- r_jk x_jk + s_k(t-1),  V_j(t) = c_j(t) + sum_k w_jk x_jk - sum_q F_qj(t)
    m_jk = w_jk g_j(t) + y_jk,  S_k(t-1) = sum_j m_jk + ...,  y_jk <- r_jk m_jk

Neurons: `neuron`. The form with m needs no division by w where a gradient arrives on the last
trace (y starts from it), and leaves the gradient of the first trace in y.

| name | shape | meaning |
|---|---|---|
| i_n, B | - | sample of a replica, r B + b; samples of a replica |
| J, K | - | neurons, feedback currents |
| p_x, p_y | [R, B, J, J] | x and y, updated in place: each word by one thread per launch |
| b_x, b_w, b_r | [BJ, BK] | a block: neurons j down, presynaptic k across, adjacent in memory |
| p_before | [R, B, J] or a step of spikes | s(t-1) |
| p_in, p_out | [R, B, J] | S of this step and of the step before it, in two buffers by turns |
| p_feedback, p_d_feedback | [R, K, B, J] | F and its gradient, updated in place |

Forward, a program owns BJ neurons and walks over k; in reverse it owns BK presynaptic neurons and
walks over j, computing g_j(t) of all neurons anew (one multiply-add each) instead of waiting for
whoever owns them. Lanes run along k both ways. Sums: chains over blocks, then the block's tree.

Cost of a step: 2 R B J^2 multiply-adds; HBM bytes 8 R B J^2 (traces in and out) + 8 R J^2 (w and
r, once if they stay in the L2 cache); L2 bytes 16 R B J^2. So 0.25 multiply-adds per byte of HBM:
bound by memory. No allocation and no synchronisation between steps: CUDA graphs can hold them.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launch import dense, launch, named_strides, rows
from .neuron import load_per_feedback, neuron_reverse_step, neuron_step

_FORWARD = {"BJ": 8, "BK": 128}
_REVERSE = {"BJ": 32, "BK": 32}
_WARPS = 4


@triton.jit(
    do_not_specialize=[
        "t", "B", "stride_cr", "stride_ct", "stride_cb", "stride_sr", "stride_st", "stride_sb",
    ]
)  # fmt: skip
def recurrent_step_kernel(
    p_current, p_weight, p_decay, p_threshold, p_f_decay, p_f_strength, p_spike,
    p_spikes, p_potential, p_feedback, p_x, t, B,
    stride_cr: tl.int64, stride_ct: tl.int64, stride_cb: tl.int64,
    stride_sr: tl.int64, stride_st: tl.int64, stride_sb: tl.int64,
    J: tl.constexpr, K: tl.constexpr, BJ: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    BLOCKS: tl.constexpr = (J + BJ - 1) // BJ
    i_n = (tl.program_id(0) // BLOCKS).to(tl.int64)
    i_r = i_n // B
    i_b = i_n % B
    o_j = tl.program_id(0) % BLOCKS * BJ + tl.arange(0, BJ)
    m_j = o_j < J
    step = tl.cast(t, tl.int64)
    o_step = i_r * stride_sr + i_b * stride_sb + step * stride_st
    p_before = p_spike + i_n * J if t == 0 else p_spikes + (o_step - stride_st)
    p_c = p_current + i_r * stride_cr + i_b * stride_cb + step * stride_ct
    b_c = tl.load(p_c + o_j, mask=m_j, other=0.0)
    b_s = tl.load(p_before + o_j, mask=m_j, other=0.0)
    b_threshold = tl.load(p_threshold + i_r * J + o_j, mask=m_j, other=0.0)
    b_decays = load_per_feedback(p_f_decay + i_r * (K * J), J, o_j, m_j, K, True)
    b_strengths = load_per_feedback(p_f_strength + i_r * (K * J), J, o_j, m_j, K, True)
    stride_k = tl.cast(B, tl.int64) * J
    o_feedback = (i_r * K * B + i_b) * J
    b_f = load_per_feedback(p_feedback + o_feedback, stride_k, o_j, m_j, K, True)

    b_sum = tl.zeros([BJ, BK], tl.float32)
    for k_0 in range(0, J, BK):
        o_k = k_0 + tl.arange(0, BK)
        m = m_j[:, None] & (o_k < J)[None, :]
        o = o_j.to(tl.int64)[:, None] * J + o_k[None, :]
        b_z = tl.load(p_before + o_k, mask=o_k < J, other=0.0)
        b_w = tl.load(p_weight + i_r * J * J + o, mask=m, other=0.0)
        b_r = tl.load(p_decay + i_r * J * J + o, mask=m, other=0.0)
        b_x = tl.load(p_x + i_n * J * J + o, mask=m, other=0.0)
        b_x = tl.fma(b_r, b_x, tl.broadcast_to(b_z[None, :], [BJ, BK]))
        tl.store(p_x + i_n * J * J + o, b_x, mask=m)
        b_sum = tl.fma(b_w, b_x, b_sum)
    b_s, b_v, b_f = neuron_step(
        b_c + tl.sum(b_sum, axis=1), b_s, b_f, b_decays, b_strengths, b_threshold, K
    )
    # What is written in place may have been read by other threads too.
    tl.debug_barrier()
    tl.store(p_spikes + o_step + o_j, b_s, mask=m_j)
    tl.store(p_potential + o_step + o_j, b_v, mask=m_j)
    for k in tl.static_range(K):
        tl.store(p_feedback + o_feedback + k * stride_k + o_j, b_f[k], mask=m_j)


@triton.jit(
    do_not_specialize=[
        "t", "B", "stride_sr", "stride_st", "stride_sb", "stride_pr", "stride_pt", "stride_pb",
        "stride_dr", "stride_dt", "stride_db", "stride_gr", "stride_gt", "stride_gb",
    ]
)  # fmt: skip
def recurrent_step_backward_kernel(
    p_g_spikes, p_g_potential, p_derivative, p_weight, p_decay, p_f_decay, p_f_strength,
    p_g_v, p_d_threshold, p_d_feedback, p_y, p_in, p_out, t, B,
    stride_sr: tl.int64, stride_st: tl.int64, stride_sb: tl.int64,
    stride_pr: tl.int64, stride_pt: tl.int64, stride_pb: tl.int64,
    stride_dr: tl.int64, stride_dt: tl.int64, stride_db: tl.int64,
    stride_gr: tl.int64, stride_gt: tl.int64, stride_gb: tl.int64,
    J: tl.constexpr, K: tl.constexpr, HAS_G_SPIKES: tl.constexpr, HAS_G_POTENTIAL: tl.constexpr,
    DETACH_RESET: tl.constexpr, BJ: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    BLOCKS: tl.constexpr = (J + BK - 1) // BK
    i_n = (tl.program_id(0) // BLOCKS).to(tl.int64)
    i_r = i_n // B
    i_b = i_n % B
    o_k = tl.program_id(0) % BLOCKS * BK + tl.arange(0, BK)
    m_k = o_k < J
    step = tl.cast(t, tl.int64)
    p_d = p_derivative + i_r * stride_dr + i_b * stride_db + step * stride_dt
    p_gs = p_g_spikes + i_r * stride_sr + i_b * stride_sb + step * stride_st
    p_gp = p_g_potential + i_r * stride_pr + i_b * stride_pb + step * stride_pt
    p_back = p_in + i_n * J

    b_sum = tl.zeros([BJ, BK], tl.float32)
    for j_0 in range(0, J, BJ):
        o_j = j_0 + tl.arange(0, BJ)
        m_j = o_j < J
        b_seen = tl.load(p_back + o_j, mask=m_j, other=0.0)
        b_g = tl.zeros([BJ], tl.float32)
        if HAS_G_SPIKES:
            b_seen = b_seen + tl.load(p_gs + o_j, mask=m_j, other=0.0)
        if HAS_G_POTENTIAL:
            b_g = tl.load(p_gp + o_j, mask=m_j, other=0.0)
        b_g = tl.fma(tl.load(p_d + o_j, mask=m_j, other=0.0), b_seen, b_g)
        m = m_j[:, None] & m_k[None, :]
        o = o_j.to(tl.int64)[:, None] * J + o_k[None, :]
        b_w = tl.load(p_weight + i_r * J * J + o, mask=m, other=0.0)
        b_r = tl.load(p_decay + i_r * J * J + o, mask=m, other=0.0)
        b_y = tl.load(p_y + i_n * J * J + o, mask=m, other=0.0)
        b_m = tl.fma(b_w, tl.broadcast_to(b_g[:, None], [BJ, BK]), b_y)
        tl.store(p_y + i_n * J * J + o, b_r * b_m, mask=m)
        b_sum = b_sum + b_m

    b_g_spikes = 0.0
    b_g_potential = 0.0
    if HAS_G_SPIKES:
        b_g_spikes = tl.load(p_gs + o_k, mask=m_k, other=0.0)
    if HAS_G_POTENTIAL:
        b_g_potential = tl.load(p_gp + o_k, mask=m_k, other=0.0)
    b_derivative = tl.load(p_d + o_k, mask=m_k, other=0.0)
    b_d_s = tl.load(p_back + o_k, mask=m_k, other=0.0)
    stride_k = tl.cast(B, tl.int64) * J
    o_feedback = (i_r * K * B + i_b) * J
    b_d_f = load_per_feedback(p_d_feedback + o_feedback, stride_k, o_k, m_k, K, True)
    b_decays = load_per_feedback(p_f_decay + i_r * (K * J), J, o_k, m_k, K, True)
    b_strengths = load_per_feedback(p_f_strength + i_r * (K * J), J, o_k, m_k, K, True)
    b_d_threshold = tl.load(p_d_threshold + i_n * J + o_k, mask=m_k, other=0.0)
    b_g_v, b_d_s, b_d_f, b_d_threshold = neuron_reverse_step(
        b_g_spikes, b_g_potential, b_derivative, b_d_s, b_d_f, b_decays, b_strengths,
        b_d_threshold, K, DETACH_RESET,
    )  # fmt: skip
    # What is written in place may have been read by other threads too.
    tl.debug_barrier()
    o_step = i_r * stride_gr + i_b * stride_gb + step * stride_gt
    tl.store(p_g_v + o_step + o_k, b_g_v, mask=m_k)
    tl.store(p_d_threshold + i_n * J + o_k, b_d_threshold, mask=m_k)
    tl.store(p_out + i_n * J + o_k, b_d_s + tl.sum(b_sum, axis=0), mask=m_k)
    for k in tl.static_range(K):
        tl.store(p_d_feedback + o_feedback + k * stride_k + o_k, b_d_f[k], mask=m_k)


def _state(first: Tensor | None, shape: tuple[int, ...], device: torch.device) -> Tensor:
    """A buffer of its own with the given values, zeros if none are given."""
    if first is None:
        return torch.zeros(shape, device=device, dtype=torch.float32)
    return torch.empty(shape, device=device, dtype=torch.float32).copy_(first)


def forward_by_steps(
    current: Tensor,
    weight: Tensor,
    decay: Tensor,
    trace: Tensor | None,
    threshold: Tensor,
    feedback_decay: Tensor,
    feedback_strength: Tensor,
    feedback: Tensor,
    spike: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`recurrent_scan` in T launches -> spikes, V, final feedback, final trace."""
    current = rows(current)
    replicas, steps, batch, neurons = current.shape
    device = current.device
    spikes = torch.empty(current.shape, device=device, dtype=torch.float32)
    potentials = torch.empty(current.shape, device=device, dtype=torch.float32)
    last_feedback = _state(feedback, tuple(feedback.shape), device)
    last_trace = _state(trace, (replicas, batch, neurons, neurons), device)
    arguments = {
        "p_current": current,
        "p_weight": dense(weight),
        "p_decay": dense(decay),
        "p_threshold": dense(threshold),
        "p_f_decay": dense(feedback_decay),
        "p_f_strength": dense(feedback_strength),
        "p_spike": dense(spike),
        "p_spikes": spikes,
        "p_potential": potentials,
        "p_feedback": last_feedback,
        "p_x": last_trace,
        "B": batch,
        **named_strides("c", current),
        **named_strides("s", spikes),
    }
    constants = {"J": neurons, "K": feedback.shape[1], **_FORWARD}
    grid = (replicas * batch * -(-neurons // _FORWARD["BJ"]),)
    for t in range(steps):
        launch(recurrent_step_kernel, grid, arguments | {"t": t}, constants, _WARPS)
    return spikes, potentials, last_feedback, last_trace


def backward_by_steps(
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
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The reverse scan in T launches -> g_v, d_threshold of each sample [R, B, J], d_feedback,
    d_spike, d_trace."""
    derivative = rows(derivative)
    replicas, steps, batch, neurons = derivative.shape
    device = derivative.device
    currents = feedback_decay.shape[1]
    g_v = torch.empty(derivative.shape, device=device, dtype=torch.float32)
    d_threshold = torch.zeros(replicas, batch, neurons, device=device, dtype=torch.float32)
    d_feedback = _state(g_feedback, (replicas, currents, batch, neurons), device)
    d_trace = _state(g_trace, (replicas, batch, neurons, neurons), device)
    back, back_next = torch.zeros_like(d_threshold), torch.empty_like(d_threshold)
    given_spikes = derivative if g_spikes is None else rows(g_spikes)
    given_potential = derivative if g_potential is None else rows(g_potential)
    arguments = {
        "p_g_spikes": given_spikes,
        "p_g_potential": given_potential,
        "p_derivative": derivative,
        "p_weight": dense(weight),
        "p_decay": dense(decay),
        "p_f_decay": dense(feedback_decay),
        "p_f_strength": dense(feedback_strength),
        "p_g_v": g_v,
        "p_d_threshold": d_threshold,
        "p_d_feedback": d_feedback,
        "p_y": d_trace,
        "B": batch,
        **named_strides("s", given_spikes),
        **named_strides("p", given_potential),
        **named_strides("d", derivative),
        **named_strides("g", g_v),
    }
    constants = {
        "J": neurons,
        "K": currents,
        "HAS_G_SPIKES": g_spikes is not None,
        "HAS_G_POTENTIAL": g_potential is not None,
        "DETACH_RESET": detach_reset,
        **_REVERSE,
    }
    grid = (replicas * batch * -(-neurons // _REVERSE["BK"]),)
    for t in reversed(range(steps)):
        moving = {"t": t, "p_in": back, "p_out": back_next}
        launch(recurrent_step_backward_kernel, grid, arguments | moving, constants, _WARPS)
        back, back_next = back_next, back
    return g_v, d_threshold, d_feedback, back, d_trace
