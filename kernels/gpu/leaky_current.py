"""The leaky current, one decay per neuron, and its gradients.

    c_j(t) = rho_j c_j(t-1) + u_j(t)
    du(t) = g(t) + rho du(t+1),   drho = sum_bt du(t) c(t-1),   dc(0) = rho du(1)

| name | shape | meaning |
|---|---|---|
| drive, result | [R, T, B, J] | u and c |
| g, d_drive | [R, T, B, J] | gradients of c and u |
| decay | [R, J] | rho |
| current, d_current | [R, B, J] | c(0) and its gradient |
| to_decay | [R, B, J] | the sum of each sample for drho, added over B afterwards |

One thread per neuron and sample (`lib/lanes.py`). Order of the sum for drho: all steps of a sample
descending, then samples ascending.

Cost: R T B J multiply-adds forward, twice as many backward. HBM and L2 bytes: 8 R T B J forward,
12 R T B J backward, and the states.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .lib.add_partials import add_partials
from .lib.lanes import lane_configuration, lane_grid, lanes_of_program, load_chunk
from .lib.launch import dense, launch, named_strides, rows


@triton.jit(
    do_not_specialize=[
        "T", "B", "stride_ur", "stride_ut", "stride_ub", "stride_or", "stride_ot", "stride_ob",
    ]
)  # fmt: skip
def leaky_current_kernel(
    drive, decay, current, result, T, B,
    stride_ur: tl.int64, stride_ut: tl.int64, stride_ub: tl.int64,
    stride_or: tl.int64, stride_ot: tl.int64, stride_ob: tl.int64,
    J: tl.constexpr, LANES: tl.constexpr, U: tl.constexpr,
):  # fmt: skip
    """Strides u_ of the drive, o_ of the result."""
    i_r, o_l, m_l = lanes_of_program(B, J, LANES)
    o_b = o_l // J
    o_j = o_l % J
    step_u = stride_ut.to(tl.int64)
    p_u = drive + i_r * stride_ur + o_b * stride_ub + o_j
    p_o = result + i_r * stride_or + o_b * stride_ob + o_j
    b_decay = tl.load(decay + i_r * J + o_j, mask=m_l, other=0.0)
    b_c = tl.load(current + i_r * (B.to(tl.int64) * J) + o_l, mask=m_l, other=0.0)
    b_next = load_chunk(p_u, T, m_l, step_u, U, True)
    for i in range(T // U):
        b_us = b_next
        p_u += U * step_u
        b_next = load_chunk(p_u, T - (i + 1) * U, m_l, step_u, U, True)
        for u in tl.static_range(U):
            b_c = tl.fma(b_decay, b_c, b_us[u])
            tl.store(p_o, b_c, mask=m_l)
            p_o += stride_ot
    for u in tl.static_range(U - 1):  # a last chunk that is not full
        if u < T % U:
            b_c = tl.fma(b_decay, b_c, b_next[u])
            tl.store(p_o, b_c, mask=m_l)
            p_o += stride_ot


@triton.jit(
    do_not_specialize=[
        "T", "B", "stride_gr", "stride_gt", "stride_gb", "stride_cr", "stride_ct", "stride_cb",
        "stride_or", "stride_ot", "stride_ob",
    ]
)  # fmt: skip
def leaky_current_backward_kernel(
    g, result, decay, current, d_drive, to_decay, d_current, T, B,
    stride_gr: tl.int64, stride_gt: tl.int64, stride_gb: tl.int64,
    stride_cr: tl.int64, stride_ct: tl.int64, stride_cb: tl.int64,
    stride_or: tl.int64, stride_ot: tl.int64, stride_ob: tl.int64,
    J: tl.constexpr, LANES: tl.constexpr, U: tl.constexpr,
):  # fmt: skip
    """Strides g_ of g, c_ of the result, o_ of d_drive. At step t the result of t-1 is read."""
    i_r, o_l, m_l = lanes_of_program(B, J, LANES)
    o_b = o_l // J
    o_j = o_l % J
    o_lane = i_r * (B.to(tl.int64) * J) + o_l
    step_g = -stride_gt.to(tl.int64)
    step_c = -stride_ct.to(tl.int64)
    p_g = g + i_r * stride_gr + o_b * stride_gb + o_j - (T - 1) * step_g
    p_c = result + i_r * stride_cr + o_b * stride_cb + o_j - (T - 2) * step_c
    p_o = d_drive + i_r * stride_or + o_b * stride_ob + o_j + (T - 1) * stride_ot.to(tl.int64)
    b_decay = tl.load(decay + i_r * J + o_j, mask=m_l, other=0.0)
    b_begin = tl.load(current + o_lane, mask=m_l, other=0.0)
    b_after = tl.zeros([LANES], tl.float32)  # du(t+1)
    b_sum = tl.zeros([LANES], tl.float32)
    b_next_g = load_chunk(p_g, T, m_l, step_g, U, True)
    b_next_c = load_chunk(p_c, T - 1, m_l, step_c, U, True)
    for i in range(T // U):
        b_gs = b_next_g
        b_cs = b_next_c
        p_g += U * step_g
        p_c += U * step_c
        left = T - (i + 1) * U
        b_next_g = load_chunk(p_g, left, m_l, step_g, U, True)
        b_next_c = load_chunk(p_c, left - 1, m_l, step_c, U, True)
        for u in tl.static_range(U):
            b_after = tl.fma(b_decay, b_after, b_gs[u])
            b_before = tl.where(left + U - 1 - u > 0, b_cs[u], b_begin)
            b_sum = tl.fma(b_after, b_before, b_sum)
            tl.store(p_o, b_after, mask=m_l)
            p_o -= stride_ot
    for u in tl.static_range(U - 1):  # a last chunk that is not full
        if u < T % U:
            b_after = tl.fma(b_decay, b_after, b_next_g[u])
            b_before = tl.where(T % U - 1 - u > 0, b_next_c[u], b_begin)
            b_sum = tl.fma(b_after, b_before, b_sum)
            tl.store(p_o, b_after, mask=m_l)
            p_o -= stride_ot
    tl.store(to_decay + o_lane, b_sum, mask=m_l)
    tl.store(d_current + o_lane, b_decay * b_after, mask=m_l)


def leaky_current(drive: Tensor, decay: Tensor, current: Tensor) -> Tensor:
    """drive [R, T, B, J], decay [R, J], current [R, B, J] -> current of every step."""
    drive = rows(drive)
    replicas, steps, batch, neurons = drive.shape
    result = torch.empty(drive.shape, device=drive.device, dtype=torch.float32)
    chosen = lane_configuration("leaky_current", replicas * batch * neurons)
    launch(
        leaky_current_kernel,
        lane_grid(replicas, batch * neurons, chosen),
        {
            "drive": drive,
            "decay": dense(decay),
            "current": dense(current),
            "result": result,
            "T": steps,
            "B": batch,
            **named_strides("u", drive),
            **named_strides("o", result),
        },
        {"J": neurons, **chosen.constants},
        chosen.num_warps,
    )
    return result


def leaky_current_backward(
    g: Tensor, currents: Tensor, decay: Tensor, current: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """g and currents [R, T, B, J], decay [R, J], current [R, B, J] -> d_drive [R, T, B, J], d_decay
    [R, J], d_current [R, B, J]."""
    g, currents = rows(g), rows(currents)
    replicas, steps, batch, neurons = g.shape
    d_drive = torch.empty(g.shape, device=g.device, dtype=torch.float32)
    to_decay, d_current = (
        torch.empty(current.shape, device=g.device, dtype=torch.float32) for _ in range(2)
    )
    chosen = lane_configuration("leaky_current_backward", replicas * batch * neurons)
    launch(
        leaky_current_backward_kernel,
        lane_grid(replicas, batch * neurons, chosen),
        {
            "g": g,
            "result": currents,
            "decay": dense(decay),
            "current": dense(current),
            "d_drive": d_drive,
            "to_decay": to_decay,
            "d_current": d_current,
            "T": steps,
            "B": batch,
            **named_strides("g", g),
            **named_strides("c", currents),
            **named_strides("o", d_drive),
        },
        {"J": neurons, **chosen.constants},
        chosen.num_warps,
    )
    return d_drive, add_partials(to_decay, neurons), d_current
