"""Gradients of the weights and decays of synapses: sums over samples and steps of traces that are
computed anew, so that nothing per step is ever stored.

Per replica, sample and synapse i -> j, for every step t:

    y = r y + x          x = r x + z_i(t)          dw += g_j(t) x          dr += g_j(t) y

with y = 0 and x = the given trace before the first step; y is dx/dr. In the end dr is multiplied by
the weight and, where the final trace has a gradient, sum_b g_trace y is added. These are the
equations of `reference/synaptic_current.py`; x enters y before z enters x, because the decay of
a step acts on what was there before the step.

Notation (R replicas, T steps, B samples, I inputs, J neurons; a group is ROWS samples):

    p_z, p_g            z [R, T, B, I], g [R, T, B, J] padded to quads; strides in units of 4 floats
    p_decay, p_weight   r, w [R, J, I]
    p_trace, p_g_trace  trace before the first step, gradient of the last [R, B, J, I]
    p_sum_w, p_sum_r    partial sums of g x, g y [R, P, I, J], one per program
    p_sum_last          partial sums of g_trace y [R, groups, I, J], one per group
    b_r, b_x, b_y, b_w, b_s    BI tiles [ROWS, BJ] each: r, x, y, sum of g x, sum of g y
    b_g, b_z            g of a step [ROWS, BJ]; z of a step, BI/4 tiles [ROWS, 4]
    o_n, o_j            row (sample) and neuron of an element

A program takes BI inputs, BJ neurons and `depth(B, I, J)` groups. A thread has one sample, four
neighboring neurons and all BI inputs, unrolled: 5 tiles of 4 BI floats in registers. The sums run
over a row's groups (last group first) and steps, then over the ROWS rows as (0+1)+(2+3), then over
the P programs, ascending. Only B, I and J decide that order; BI, BJ, UNROLL and the number of warps
may be tuned.

Arithmetic: 4 R T B I J multiply-adds. Device memory: z and g once, partial sums out and in. L2: g
once per block of inputs, z once per block of neurons.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launch import dense, launch, quads, steps_ahead, strides
from .prefetch import prefetch_next
from .tiles import quarter

ROWS = 4  # part of the order of the sums, as PARTIALS is: not to be tuned
PARTIALS = 2**22
UNROLL = 4  # steps whose loads are in flight together: they hide the latency of memory


@triton.jit
def add_rows(b_tile, BJ: tl.constexpr):
    """[4, BJ] -> [BJ]: (0 + 1) + (2 + 3), whatever the layout, unlike tl.sum."""
    b_0, b_1, b_2, b_3 = quarter(tl.trans(b_tile), BJ)
    return (b_0 + b_1) + (b_2 + b_3)


@triton.jit
def step(b_g, b_z, b_r, b_x, b_y, b_w, b_s, ROWS: tl.constexpr, BJ: tl.constexpr, BI: tl.constexpr):
    """x, y and both sums after one step."""
    n_x, n_y, n_w, n_s = (), (), (), ()
    for q in tl.static_range(BI // 4):
        b_four = quarter(b_z[q], ROWS)
        for e in tl.static_range(4):
            y = tl.fma(b_r[4 * q + e], b_y[4 * q + e], b_x[4 * q + e])
            z = tl.broadcast_to(b_four[e][:, None], [ROWS, BJ])
            x = tl.fma(b_r[4 * q + e], b_x[4 * q + e], z)
            n_w = n_w + (tl.fma(b_g, x, b_w[4 * q + e]),)
            n_s = n_s + (tl.fma(b_g, y, b_s[4 * q + e]),)
            n_x = n_x + (x,)
            n_y = n_y + (y,)
    return n_x, n_y, n_w, n_s


@triton.jit(
    do_not_specialize=["T", "B", "depth", "z_r4", "z_t4", "z_b4", "g_r4", "g_t4", "g_b4"],
)
def parameter_gradient_kernel(
    p_z,
    p_g,
    p_decay,
    p_trace,
    p_g_trace,
    p_sum_w,
    p_sum_r,
    p_sum_last,
    T: tl.int32,
    B: tl.int32,
    depth: tl.int32,
    z_r4: tl.int64,
    z_t4: tl.int64,
    z_b4: tl.int64,
    g_r4: tl.int64,
    g_t4: tl.int64,
    g_b4: tl.int64,
    I: tl.constexpr,
    J: tl.constexpr,
    HAS_TRACE: tl.constexpr,
    HAS_G_TRACE: tl.constexpr,
    ROWS: tl.constexpr,
    BJ: tl.constexpr,
    BI: tl.constexpr,
    UNROLL: tl.constexpr,
    AHEAD: tl.constexpr,
):
    # Neurons, then inputs, vary fastest: programs that run together share z and g.
    NJ: tl.constexpr = (J + BJ - 1) // BJ
    NI: tl.constexpr = (I + BI - 1) // BI
    J4: tl.constexpr = (J + 3) // 4 * 4
    I4: tl.constexpr = (I + 3) // 4 * 4
    i_j = tl.program_id(0) % NJ
    i_i = tl.program_id(0) // NJ % NI
    i_rp = tl.program_id(0) // (NJ * NI)
    groups = tl.cdiv(B, ROWS)
    programs = tl.cdiv(groups, depth)
    i_p = i_rp % programs
    i_r = (i_rp // programs).to(tl.int64)

    # The last block of inputs starts early enough to be whole; it stores none of its neighbor's.
    own = i_i * BI
    first = tl.minimum(own, I4 - BI)
    o_n = tl.arange(0, ROWS)
    o_j = i_j * BJ + tl.arange(0, BJ)
    o_ji = first + o_j[None, :].to(tl.int64) * I + 0 * o_n[:, None]
    m_j = (o_j < J)[None, :] & (o_n >= 0)[:, None]
    m_j4 = (o_j < J4)[None, :] & (o_n >= 0)[:, None]
    p_z += i_r * z_r4 * 4 + first
    p_g += i_r * g_r4 * 4
    p_decay += i_r * (I * J)

    # Zeros read in g's layout, which the tiles then keep through the loops.
    m_never = m_j4 & (T < 0)
    o_zero = o_n[:, None] * J4 + o_j[None, :]
    b_r, b_w, b_s = (), (), ()
    for k in tl.static_range(BI):
        b_r = b_r + (tl.load(p_decay + o_ji + k, mask=m_j & (first + k < I), other=0.0),)
        b_w = b_w + (tl.load(p_g + o_zero, mask=m_never, other=0.0),)
        b_s = b_s + (tl.load(p_g + o_zero, mask=m_never, other=0.0),)

    last_group = tl.minimum((i_p + 1) * depth, groups) - 1
    for back in range(last_group - i_p * depth + 1):
        i_group = last_group - back
        sample = i_group.to(tl.int64) * ROWS
        # Rows beyond the batch repeat its last sample; the launcher keeps these offsets small.
        o_b = tl.minimum(o_n, (B - 1 - sample).to(tl.int32))
        m_b = sample + o_n < B
        o_z = o_b[:, None] * (z_b4.to(tl.int32) * 4) + tl.arange(0, 4)[None, :]
        o_g = o_b[:, None] * (g_b4.to(tl.int32) * 4) + o_j[None, :]
        o_state = ((i_r * B + sample + o_b) * (I * J))[:, None] + o_ji
        b_x, b_y = (), ()
        for k in tl.static_range(BI):
            x = tl.load(p_g + o_zero, mask=m_never, other=0.0)
            if HAS_TRACE:
                x += tl.load(p_trace + o_state + k, mask=m_j & (first + k < I), other=0.0)
            b_x = b_x + (x,)
            b_y = b_y + (tl.load(p_g + o_zero, mask=m_never, other=0.0),)

        p_z_t = p_z + sample * (z_b4 * 4)
        p_g_t = p_g + sample * (g_b4 * 4)
        # The samples whose rows are prefetched, one address for every 16 neurons.
        o_row = tl.arange(0, ROWS * BJ // 16)
        o_sample = tl.minimum(o_row % ROWS, (B - 1 - sample).to(tl.int32)) * (g_b4.to(tl.int32) * 4)
        o_g_line = o_sample + tl.minimum(i_j * BJ + o_row // ROWS * 16, J4 - 1)
        o_z_line = o_b * (z_b4.to(tl.int32) * 4)
        far = tl.minimum(AHEAD, T - 1).to(tl.int64)
        p_g_line = p_g_t + far * (g_t4 * 4) + o_g_line
        p_z_line = p_z_t + far * (z_t4 * 4) + o_z_line
        for t in tl.range(0, T, loop_unroll_factor=UNROLL):
            if AHEAD > 0:
                more = t + AHEAD + 1 < T
                p_g_line = prefetch_next(p_g_line, g_t4.to(tl.int64) * 4, more)
                p_z_line = prefetch_next(p_z_line, z_t4.to(tl.int64) * 4, more)
            # A mask costs two instructions a step, even where it is always true.
            b_g = tl.load(p_g_t + o_g) if J4 % BJ == 0 else tl.load(p_g_t + o_g, mask=m_j4)
            b_z = ()
            for q in tl.static_range(BI // 4):
                b_z = b_z + (tl.load(p_z_t + o_z + 4 * q),)
            b_x, b_y, b_w, b_s = step(b_g, b_z, b_r, b_x, b_y, b_w, b_s, ROWS, BJ, BI)
            # The interpreter has 32 bits for what fits, whatever the signature says.
            p_z_t += z_t4.to(tl.int64) * 4
            p_g_t += g_t4.to(tl.int64) * 4

        # Only the last group has rows beyond the batch, and it came first: here their sums are
        # forgotten, even NaN, and no mask is needed above.
        n_w, n_s = (), ()
        for k in tl.static_range(BI):
            n_w = n_w + (tl.where(m_b[:, None], b_w[k], 0.0),)
            n_s = n_s + (tl.where(m_b[:, None], b_s[k], 0.0),)
            if HAS_G_TRACE:
                i = first + k
                m_state = m_j & m_b[:, None] & (i < I)
                b_last = tl.load(p_g_trace + o_state + k, mask=m_state, other=0.0) * b_y[k]
                b_last = add_rows(tl.where(m_state, b_last, 0.0), BJ)
                o_last = ((i_r * groups + i_group) * I + i) * J + o_j
                tl.store(p_sum_last + o_last, b_last, mask=(o_j < J) & (i >= own) & (i < I))
        b_w, b_s = n_w, n_s

    for k in tl.static_range(BI):
        i = first + k
        o_sum = (i_rp.to(tl.int64) * I + i) * J + o_j
        m_sum = (o_j < J) & (i >= own) & (i < I)
        tl.store(p_sum_w + o_sum, add_rows(b_w[k], BJ), mask=m_sum)
        tl.store(p_sum_r + o_sum, add_rows(b_s[k], BJ), mask=m_sum)


@triton.jit(do_not_specialize=["programs", "groups"])
def parameter_gradient_sum_kernel(
    p_sum_w,
    p_sum_r,
    p_sum_last,
    p_weight,
    p_dw,
    p_dr,
    programs: tl.int32,
    groups: tl.int32,
    I: tl.constexpr,
    J: tl.constexpr,
    HAS_G_TRACE: tl.constexpr,
    BI: tl.constexpr,
    BJ: tl.constexpr,
):
    """Adds partial sums [R, P, I, J], ascending, and turns them over: dw, dr [R, J, I]."""
    NJ: tl.constexpr = (J + BJ - 1) // BJ
    NI: tl.constexpr = (I + BI - 1) // BI
    i_j = tl.program_id(0) % NJ
    i_i = tl.program_id(0) // NJ % NI
    i_r = (tl.program_id(0) // (NJ * NI)).to(tl.int64)
    o_i = i_i * BI + tl.arange(0, BI)
    o_j = i_j * BJ + tl.arange(0, BJ)
    m_ij = (o_i < I)[:, None] & (o_j < J)[None, :]
    m_ji = (o_j < J)[:, None] & (o_i < I)[None, :]
    o_ij = o_i[:, None].to(tl.int64) * J + o_j[None, :]
    o_ji = i_r * (I * J) + o_j[:, None].to(tl.int64) * I + o_i[None, :]

    p_sum_w += i_r * programs * (I * J)
    p_sum_r += i_r * programs * (I * J)
    b_w = tl.load(p_sum_w + o_ij, mask=m_ij, other=0.0)
    b_s = tl.load(p_sum_r + o_ij, mask=m_ij, other=0.0)
    for _ in tl.range(1, programs, loop_unroll_factor=8):
        p_sum_w += I * J
        p_sum_r += I * J
        b_w += tl.load(p_sum_w + o_ij, mask=m_ij, other=0.0)
        b_s += tl.load(p_sum_r + o_ij, mask=m_ij, other=0.0)
    b_dr = tl.load(p_weight + o_ji, mask=m_ji, other=0.0) * tl.trans(b_s)
    if HAS_G_TRACE:
        p_sum_last += i_r * groups * (I * J)
        b_last = tl.load(p_sum_last + o_ij, mask=m_ij, other=0.0)
        for _ in tl.range(1, groups, loop_unroll_factor=8):
            p_sum_last += I * J
            b_last += tl.load(p_sum_last + o_ij, mask=m_ij, other=0.0)
        b_dr += tl.trans(b_last)
    tl.store(p_dw + o_ji, tl.trans(b_w), mask=m_ji)
    tl.store(p_dr + o_ji, b_dr, mask=m_ji)


def ceil_div(count: int, size: int) -> int:
    """Blocks of `size` that hold `count`."""
    return -(-count // size)


def depth(B: int, I: int, J: int) -> int:
    """Groups of ROWS samples that one program takes: the fewest for which the partial sums of a
    replica hold at most PARTIALS floats each of dw and dr. One group, and the widest grid, for
    small layers; few partial sums for large ones, whose blocks fill a GPU by themselves. The
    replicas have no part in it: each keeps its bits whatever is computed beside it."""
    return ceil_div(ceil_div(B, ROWS), max(PARTIALS // (I * J), 1))


def block(I: int, J: int) -> tuple[int, int]:
    """Inputs and neurons of a program: those that waste fewest lanes, of these the widest.

    A row of BJ neurons is BJ/32 threads' worth of four: one warp for every 32 neurons.
    """
    BJ = min((128, 64, 32), key=lambda width: ceil_div(J, width) * width)
    return 4 if I <= 4 else 8, BJ


def near(steps: Tensor, least: int = 4) -> Tensor:
    """`quads` whose samples are close enough for 32-bit offsets within a group."""
    steps = quads(steps, least)
    return steps if steps.stride(2) < 2**29 else steps.contiguous()


def synaptic_parameter_gradient(
    z: Tensor,
    g: Tensor,
    g_trace: Tensor | None,
    weight: Tensor,
    decay: Tensor,
    trace: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """As the operator `synaptic_parameter_gradient`: dw, dr [R, J, I]."""
    R, T, B, I = z.shape
    J = g.shape[3]
    if 0 in (R, T, B, I, J):
        nothing = torch.zeros(R, J, I, device=z.device, dtype=torch.float32)
        return nothing, nothing.clone()
    BI, BJ = block(I, J)
    z, g = near(z, least=BI), near(g)
    weight, decay = dense(weight), dense(decay)
    taken = depth(B, I, J)
    groups = ceil_div(B, ROWS)
    programs = ceil_div(groups, taken)

    def empty(*shape: int) -> Tensor:
        return torch.empty(shape, device=z.device, dtype=torch.float32)

    sum_w, sum_r = empty(R, programs, I, J), empty(R, programs, I, J)
    sum_last = sum_w if g_trace is None else empty(R, groups, I, J)
    z_r, z_t, z_b = strides(z)
    g_r, g_t, g_b = strides(g)
    launch(
        parameter_gradient_kernel,
        (ceil_div(J, BJ) * ceil_div(I, BI) * R * programs,),
        {
            "p_z": z,
            "p_g": g,
            "p_decay": decay,
            "p_trace": decay if trace is None else dense(trace),
            "p_g_trace": decay if g_trace is None else dense(g_trace),
            "p_sum_w": sum_w,
            "p_sum_r": sum_r,
            "p_sum_last": sum_last,
            "T": T,
            "B": B,
            "depth": taken,
            "z_r4": z_r // 4,
            "z_t4": z_t // 4,
            "z_b4": z_b // 4,
            "g_r4": g_r // 4,
            "g_t4": g_t // 4,
            "g_b4": g_b // 4,
        },
        {
            "I": I,
            "J": J,
            "HAS_TRACE": trace is not None,
            "HAS_G_TRACE": g_trace is not None,
            "ROWS": ROWS,
            "BJ": BJ,
            "BI": BI,
            "UNROLL": UNROLL,
            "AHEAD": steps_ahead(8),
        },
        BJ // 32,
    )
    dw, dr = empty(R, J, I), empty(R, J, I)
    launch(
        parameter_gradient_sum_kernel,
        (ceil_div(J, 32) * ceil_div(I, 16) * R,),
        {
            "p_sum_w": sum_w,
            "p_sum_r": sum_r,
            "p_sum_last": sum_last,
            "p_weight": weight,
            "p_dw": dw,
            "p_dr": dr,
            "programs": programs,
            "groups": groups,
        },
        {"I": I, "J": J, "HAS_G_TRACE": g_trace is not None, "BI": 16, "BJ": 32},
        4,
    )
    return dw, dr
