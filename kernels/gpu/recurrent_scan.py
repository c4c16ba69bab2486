"""A recurrent layer over a whole sequence in one launch, and its reverse in time.

    x_jk(t) = r_jk x_jk(t-1) + s_k(t-1),  V_j(t) = c_j(t) + sum_k w_jk x_jk(t) - sum_q F_qj(t)
    l_jk(t) = g_j(t) + r_jk l_jk(t+1),    S_k(t-1) = sum_j w_jk l_jk(t) + ...

Neurons (F, s, g, S): `lib/neuron.py`. Both directions are one sum over rows of a state in
registers; the reverse takes w and r transposed. Where a gradient G arrives on the last trace w
cannot stay outside (no division by it): m = w g + y, S = sum m, y <- r m, y = G at the end, one
instruction more.

| name | shape | meaning |
|---|---|---|
| R, T, B, J, K | - | replicas, steps, samples, neurons, feedback currents |
| o, s | - | output and summed neuron: j and k forward, k and j in reverse |
| i_n, i_p | - | sample of a replica, r B + b; program within the sample |
| BJ, KG, KK | - | rows o of a program; KG groups of KK summed neurons, KG KK >= J |
| b_w, b_r, b_x | KK x [BJ, KG] | weight, decay, state (x, l or y) of synapse (o, s = g KK + p) |
| b_z | KK x [KG] | s(t-1) forward, g(t) in reverse, of all neurons |
| o_store, m_store | [BJ, KG] | where the first lane of a row writes the row's value |

One thread keeps KK synapses of one row in registers, 3 KK values, and the KG threads of a row are
neighbors in a warp. Up to 128 neurons one program is a sample, and z is taken apart in registers
and shared memory; above, PROGRAMS of them share a sample and meet once per step
(`lib/exchange.py`).

**The order of the sum, part of the definition**: chains of multiply-adds over even and over odd p,
ascending, added; then the KG groups by halves. KG and KK follow from J alone (`path`).

Cost, per direction: 2 R T B J^2 multiply-adds; (KG KK)(PROGRAMS BJ) instead of J^2 are executed.
HBM bytes 4 R T B J (c, s, V forward; s', g, dL/ds and dL/dV where given, reverse) x 3 to 4 and
8 R B J^2 for first and last traces; L2 bytes the same plus 8 R B J^2 for w and r, and
4 R T B J PROGRAMS of exchange. No other memory: nothing per synapse and step.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..surrogate_kinds import GIVEN
from .lib.add_partials import add_partials
from .lib.exchange import await_all, columns, publish, wait_for
from .lib.feedback_gradient import feedback_gradient, fused_if_allowed
from .lib.launch import dense, launch, named_strides, rows
from .lib.neuron import load_per_feedback, neuron_step
from .lib.prefetch import lines_of_row, prefetch_next
from .lib.recurrent_reverse import backward_in_registers
from .lib.recurrent_step import backward_by_steps, forward_by_steps
from .lib.recurrent_tile import (
    Tile,
    advance,
    load_tile,
    path,
    programs_at_once,
    programs_of,
    store_tile,
)
from .surrogate import surrogate


@triton.jit
def _forward_sample(
    i_n, i_p, p_current, p_weight, p_decay, p_first, p_threshold, p_f_decay, p_f_strength,
    p_feedback, p_spike, p_spikes, p_potential, p_last_feedback, p_last, T, B, one,
    stride_cr, stride_ct, stride_cb, stride_sr, stride_st, stride_sb,
    J: tl.constexpr, K: tl.constexpr, HAS_TRACE: tl.constexpr, PROGRAMS: tl.constexpr,
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
    p_r = p_decay + i_r * (J * J)
    b_r = load_tile(p_r, o_o, o_g, m_o, T >= 0, one, J, BJ, KG, KK, False)
    if HAS_TRACE:
        p_x = p_first + i_n * (J * J)
        b_x = load_tile(p_x, o_o, o_g, m_o, T >= 0, one, J, BJ, KG, KK, False)
    else:
        b_x = load_tile(p_r, o_o, o_g, m_o, T < 0, one, J, BJ, KG, KK, False)
    b_threshold = tl.load(p_threshold + i_r * J + o_o, mask=m_o, other=0.0)
    b_decays = load_per_feedback(p_f_decay + i_r * (K * J), J, o_o, m_o, K, True)
    b_strengths = load_per_feedback(p_f_strength + i_r * (K * J), J, o_o, m_o, K, True)
    o_feedback = (i_r * K * B + i_b) * J
    b_f = load_per_feedback(p_feedback + o_feedback, B.to(tl.int64) * J, o_o, m_o, K, True)
    b_s = tl.load(p_spike + i_n * J + o_o, mask=m_o, other=0.0)
    p_z = p_spike + i_n * J
    p_c = p_current + i_r * stride_cr + i_b * stride_cb
    p_s = p_spikes + i_r * stride_sr + i_b * stride_sb
    p_v = p_potential + i_r * stride_sr + i_b * stride_sb
    b_c = tl.load(p_c + o_o, mask=m_o & (T > 0), other=0.0)
    if AHEAD > 0:
        p_ahead = lines_of_row(p_c + tl.minimum(AHEAD, T - 1) * stride_ct, i_p * BJ, J, BJ)
    for t in range(T):
        if AHEAD > 0:
            p_ahead = prefetch_next(p_ahead, stride_ct.to(tl.int64), t + AHEAD + 1 < T)
        p_c += stride_ct
        # RELAXED: after the poll, which would otherwise wait for this load from device memory.
        if PROGRAMS == 1 or not RELAXED:
            b_ahead = tl.load(p_c + o_o, mask=m_o & (t + 1 < T), other=0.0)
        if PROGRAMS == 1:
            b_z = columns(b_s, KG, KK)
        else:
            b_z = columns(wait_for(p_z + o_all, o_all < J, t > 0), KG, KK)
            if RELAXED:
                b_ahead = tl.load(p_c + o_o, mask=m_o & (t + 1 < T), other=0.0)
        b_sum, b_x = advance(b_w, b_r, b_x, b_z, BJ, KG, KK, False)
        b_s, b_v, b_f = neuron_step(b_c + b_sum, b_s, b_f, b_decays, b_strengths, b_threshold, K)
        if PROGRAMS == 1:
            tl.store(p_s + o_store, tl.broadcast_to(b_s[:, None], [BJ, KG]), mask=m_store)
        else:
            publish(p_s + o_store, tl.broadcast_to(b_s[:, None], [BJ, KG]), m_store, RELAXED)
        tl.store(p_v + o_store, tl.broadcast_to(b_v[:, None], [BJ, KG]), mask=m_store)
        p_z = p_s
        p_s += stride_st
        p_v += stride_st
        b_c = b_ahead
    for k in tl.static_range(K):
        o_k = o_feedback + k * B.to(tl.int64) * J
        tl.store(p_last_feedback + o_k + o_o, b_f[k], mask=m_o)
    store_tile(p_last + i_n * (J * J), b_x, o_o, o_g, m_o, one, J, BJ, KG, KK, False)


@triton.jit(
    do_not_specialize=[
        "T", "B", "groups", "samples", "first_program", "one",
        "stride_cr", "stride_ct", "stride_cb", "stride_sr", "stride_st", "stride_sb",
    ]
)  # fmt: skip
def recurrent_scan_kernel(
    p_current, p_weight, p_decay, p_first, p_threshold, p_f_decay, p_f_strength,
    p_feedback, p_spike, p_spikes, p_potential, p_last_feedback, p_last,
    T, B, samples, groups, first_program, one,
    stride_cr: tl.int64, stride_ct: tl.int64, stride_cb: tl.int64,
    stride_sr: tl.int64, stride_st: tl.int64, stride_sb: tl.int64,
    J: tl.constexpr, K: tl.constexpr, HAS_TRACE: tl.constexpr, PROGRAMS: tl.constexpr,
    BJ: tl.constexpr, KG: tl.constexpr, KK: tl.constexpr, AHEAD: tl.constexpr,
    RELAXED: tl.constexpr,
):  # fmt: skip
    if PROGRAMS == 1:
        _forward_sample(
            tl.program_id(0).to(tl.int64), 0,
            p_current, p_weight, p_decay, p_first, p_threshold, p_f_decay, p_f_strength,
            p_feedback, p_spike, p_spikes, p_potential, p_last_feedback, p_last, T, B, one,
            stride_cr, stride_ct, stride_cb, stride_sr, stride_st, stride_sb,
            J, K, HAS_TRACE, PROGRAMS, BJ, KG, KK, AHEAD, RELAXED,
        )  # fmt: skip
    else:
        i = tl.program_id(0) + first_program
        for i_n in range(i.to(tl.int64) // PROGRAMS, samples, groups):
            _forward_sample(
                i_n, i % PROGRAMS,
                p_current, p_weight, p_decay, p_first, p_threshold, p_f_decay, p_f_strength,
                p_feedback, p_spike, p_spikes, p_potential, p_last_feedback, p_last, T, B, one,
                stride_cr, stride_ct, stride_cb, stride_sr, stride_st, stride_sb,
                J, K, HAS_TRACE, PROGRAMS, BJ, KG, KK, AHEAD, RELAXED,
            )  # fmt: skip


def forward_in_registers(
    tile: Tile,
    resident: int,
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
    """`recurrent_scan` with a given tile and number of programs that run at the same time."""
    current = rows(current)
    replicas, steps, batch, neurons = current.shape
    device = current.device
    spikes = torch.empty(current.shape, device=device, dtype=torch.float32)
    potentials = torch.empty(current.shape, device=device, dtype=torch.float32)
    last_feedback = torch.empty(feedback.shape, device=device, dtype=torch.float32)
    last_trace = torch.empty(replicas, batch, neurons, neurons, device=device, dtype=torch.float32)
    if tile.programs > 1:
        await_all(spikes)
    decay = dense(decay)
    programs = programs_of(tile, resident, replicas * batch)
    launch(
        recurrent_scan_kernel,
        programs.grid,
        {
            "p_current": current,
            "p_weight": dense(weight),
            "p_decay": decay,
            "p_first": decay if trace is None else dense(trace),
            "p_threshold": dense(threshold),
            "p_f_decay": dense(feedback_decay),
            "p_f_strength": dense(feedback_strength),
            "p_feedback": dense(feedback),
            "p_spike": dense(spike),
            "p_spikes": spikes,
            "p_potential": potentials,
            "p_last_feedback": last_feedback,
            "p_last": last_trace,
            "T": steps,
            "B": batch,
            **programs.arguments,
            **named_strides("c", current),
            **named_strides("s", spikes),
        },
        {
            "J": neurons,
            "K": feedback.shape[1],
            "HAS_TRACE": trace is not None,
            **tile.constants,
        },
        tile.num_warps,
        **programs.options,
    )
    return spikes, potentials, last_feedback, last_trace


def recurrent_scan(
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
    """-> spikes, V [R, T, B, J], final feedback [R, K, B, J], final trace [R, B, J, J]."""
    neuron = (threshold, feedback_decay, feedback_strength, feedback, spike)
    resident = programs_at_once(current.device)
    tile = path(current.shape[3], resident)
    if tile is None:
        return forward_by_steps(current, weight, decay, trace, *neuron)
    return forward_in_registers(tile, resident, current, weight, decay, trace, *neuron)


def recurrent_scan_backward(
    g_spikes: Tensor | None,
    g_potential: Tensor | None,
    g_feedback: Tensor | None,
    g_trace: Tensor | None,
    derivative: Tensor,
    spikes: Tensor,
    weight: Tensor,
    decay: Tensor,
    feedback_decay: Tensor,
    feedback_strength: Tensor,
    feedback: Tensor,
    spike: Tensor,
    detach_reset: bool = False,
    threshold: Tensor | None = None,
    kind: str = GIVEN,
    numbers: Sequence[float] = (),
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """-> d_current, d_threshold, d_feedback_decay, d_feedback_strength, d_feedback, d_spike,
    d_trace.

    With a threshold and a surrogate, `derivative` is V, of which it makes ds/dV.
    """
    resident = programs_at_once(derivative.device)
    tile = path(derivative.shape[3], resident)
    if tile is None and threshold is not None:
        derivative = surrogate(derivative, threshold, kind, numbers)
    given = (g_spikes, g_potential, g_feedback, g_trace, derivative)
    synapses = (weight, decay, feedback_decay, feedback_strength)
    fused = None
    if tile is None:
        swept = backward_by_steps(*given, *synapses, detach_reset)
    else:
        fused = fused_if_allowed(spikes, feedback, spike, threshold, kind, numbers)
        swept = backward_in_registers(tile, resident, *given, *synapses, detach_reset, fused)
    g_v, d_thresholds, d_feedback, d_spike, d_trace = swept
    d_decay, d_strength = feedback_gradient(
        g_v, g_feedback, spikes, feedback_decay, feedback_strength, feedback, spike, fused
    )
    d_threshold = add_partials(d_thresholds, d_thresholds.shape[2])
    return g_v, d_threshold, d_decay, d_strength, d_feedback, d_spike, d_trace
