"""A tile of synapses in registers: how it is loaded, moved one step in time, summed and stored.

Shared by the synaptic current and the fused feedforward layer, so that both add in one order.

| name | shape | meaning |
|---|---|---|
| O, S | - | output and summed features: J and I forward, I and J backward in time |
| GROUPS, BS | - | groups of BS = 16 neighboring summed features in a tile (4 where S <= 4) |
| BO | - | outputs of a tile, on lanes, four neighbors to a thread |
| b_w, b_r, b_x | BS x [GROUPS, BO] | weight, decay and state of (s = s_0 + k, o), k = 0 .. BS-1 |
| o_s0 | [GROUPS] | first summed feature of each group |

**The order of the sum over S, part of the definition**: fused multiply-adds over 16 neighbors,
ascending; four such groups, ascending, give a block of 64; blocks are added ascending. No
tunable choice and no batch changes it.
"""

import triton
import triton.language as tl

from .tiles import quarter


@triton.jit
def first_features(
    i_s, S: tl.constexpr, WIDTH: tl.constexpr, GROUPS: tl.constexpr, BS: tl.constexpr
):
    """Own and loaded first feature of each group [GROUPS]: the last ones are moved back into range.

    WIDTH is the padded number of features of the input. What a moved group shares with the one
    before gets zero weight and decay, so that one offset serves all loads of a step.
    """
    o_own = i_s * (GROUPS * BS) + tl.arange(0, GROUPS) * BS
    return o_own, tl.minimum(o_own, WIDTH - BS)


@triton.jit
def load_matrix(
    p_matrix, o_own, o_s0, o_o, m_o,
    S: tl.constexpr, O: tl.constexpr, BS: tl.constexpr,
):  # fmt: skip
    """[S, O] -> BS tiles of weight or decay, zero outside and where a moved group repeats."""
    b_tiles = ()
    for k in tl.static_range(BS):
        o_s = o_s0 + k
        m = ((o_s >= o_own) & (o_s < S))[:, None] & m_o[None, :]
        b_tiles = b_tiles + (
            tl.load(p_matrix + o_s.to(tl.int64)[:, None] * O + o_o[None, :], mask=m, other=0.0),
        )
    return b_tiles


@triton.jit
def _trace_quad(
    o_own, o_s, o_o, m_o, S: tl.constexpr, O: tl.constexpr, TRANSPOSED: tl.constexpr
):  # fmt: skip
    """Offsets and mask [GROUPS, BO, 4] of four neighboring s in a trace [J, I]."""
    o_s4 = o_s[:, None] + tl.arange(0, 4)[None, :]
    m = ((o_s4 >= o_own[:, None]) & (o_s4 < S))[:, None, :] & m_o[None, :, None]
    if TRANSPOSED:
        return o_s4.to(tl.int64)[:, None, :] * O + o_o[None, :, None], m
    else:
        return o_o.to(tl.int64)[None, :, None] * S + o_s4[:, None, :], m


@triton.jit
def load_state(
    p_state, o_own, o_s0, o_o, m_o, given,
    S: tl.constexpr, O: tl.constexpr, BS: tl.constexpr,
):  # fmt: skip
    """[S, O] -> BS tiles of the state; zeros if `given` is false, which only the run time knows.

    The load makes the compiler give each thread four neighboring outputs. A state that started
    from tl.zeros gets one output per thread, and scalar loads.
    """
    b_tiles = ()
    for k in tl.static_range(BS):
        o_s = o_s0 + k
        m = ((o_s >= o_own) & (o_s < S))[:, None] & m_o[None, :] & given
        b_tiles = b_tiles + (
            tl.load(p_state + o_s.to(tl.int64)[:, None] * O + o_o[None, :], mask=m, other=0.0),
        )
    return b_tiles


@triton.jit
def store_trace(
    p_trace, b_x, o_own, o_s0, o_o, m_o,
    S: tl.constexpr, O: tl.constexpr, GROUPS: tl.constexpr, BO: tl.constexpr, BS: tl.constexpr,
    TRANSPOSED: tl.constexpr,
):  # fmt: skip
    """The state -> [J, I], four neighbors of S at a time."""
    for q in tl.static_range(BS // 4):
        o, m = _trace_quad(o_own, o_s0 + 4 * q, o_o, m_o, S, O, TRANSPOSED)
        b_even = tl.join(b_x[4 * q], b_x[4 * q + 2])
        b_odd = tl.join(b_x[4 * q + 1], b_x[4 * q + 3])
        b_quad = tl.reshape(tl.join(b_even, b_odd), [GROUPS, BO, 4])
        tl.store(p_trace + o, b_quad, mask=m)


@triton.jit
def advance(
    b_w, b_r, b_x, p_z, o_z,
    GROUPS: tl.constexpr, BO: tl.constexpr, BS: tl.constexpr, CARRY: tl.constexpr,
):  # fmt: skip
    """One time step: sums over the BS features of each group [GROUPS, BO], and the new state.

    x = r x + z, c = sum w x: two multiply-adds per synapse. CARRY is the rare form for a gradient
    that arrives on the final trace, where the weight cannot stay outside: the state y is the
    decayed adjoint, m = w z + y, c = sum m, y = r m.
    """
    b_sum = tl.zeros([GROUPS, BO], tl.float32)
    b_next = ()
    for q in tl.static_range(BS // 4):
        b_z = quarter(tl.load(p_z + o_z + 4 * q), GROUPS)
        for p in tl.static_range(4):
            b_zk = tl.broadcast_to(b_z[p][:, None], [GROUPS, BO])
            if CARRY:
                b_m = tl.fma(b_w[4 * q + p], b_zk, b_x[4 * q + p])
                b_sum = b_sum + b_m
                b_next = b_next + (b_r[4 * q + p] * b_m,)
            else:
                b_new = tl.fma(b_r[4 * q + p], b_x[4 * q + p], b_zk)
                b_sum = tl.fma(b_w[4 * q + p], b_new, b_sum)
                b_next = b_next + (b_new,)
    return b_sum, b_next


@triton.jit
def _block(b_groups):
    """[..., 2, 2], the higher bit of the group last -> the sum of four groups, ascending."""
    b_01, b_23 = tl.split(b_groups)
    b_0, b_1 = tl.split(b_01)
    b_2, b_3 = tl.split(b_23)
    return ((b_0 + b_1) + b_2) + b_3


@triton.jit
def sum_groups(b_tile, GROUPS: tl.constexpr, BO: tl.constexpr, STEPS: tl.constexpr):
    """[GROUPS, BO, STEPS] -> the sums of its blocks, ascending: one [BO, STEPS], two if GROUPS = 8.

    One trip through shared memory for all steps at once.
    """
    if GROUPS == 1:
        return (tl.reshape(b_tile, [BO, STEPS]),)
    elif GROUPS == 2:
        b_0, b_1 = tl.split(tl.permute(b_tile, [1, 2, 0]))
        return (b_0 + b_1,)
    elif GROUPS == 4:
        b_tile = tl.reshape(b_tile, [2, 2, BO, STEPS])
        return (_block(tl.permute(b_tile, [2, 3, 1, 0])),)
    else:
        b_tile = tl.reshape(b_tile, [2, 2, 2, BO, STEPS])
        b_low, b_high = tl.split(tl.permute(b_tile, [3, 4, 2, 1, 0]))
        return _block(b_low), _block(b_high)


@triton.jit
def steps_at_once(
    b_w, b_r, b_x, p_z, o_z, stride_zt,
    GROUPS: tl.constexpr, BO: tl.constexpr, BS: tl.constexpr, STEPS: tl.constexpr,
    CARRY: tl.constexpr,
):  # fmt: skip
    """1, 2 or 4 time steps: the sums of the tile's blocks [BO, STEPS], and the new state."""
    b_c, b_x = advance(b_w, b_r, b_x, p_z, o_z, GROUPS, BO, BS, CARRY)
    if STEPS == 2:
        b_1, b_x = advance(b_w, b_r, b_x, p_z + stride_zt, o_z, GROUPS, BO, BS, CARRY)
        b_c = tl.join(b_c, b_1)
    elif STEPS == 4:
        b_1, b_x = advance(b_w, b_r, b_x, p_z + stride_zt, o_z, GROUPS, BO, BS, CARRY)
        b_2, b_x = advance(b_w, b_r, b_x, p_z + 2 * stride_zt, o_z, GROUPS, BO, BS, CARRY)
        b_3, b_x = advance(b_w, b_r, b_x, p_z + 3 * stride_zt, o_z, GROUPS, BO, BS, CARRY)
        b_c = tl.join(tl.join(b_c, b_2), tl.join(b_1, b_3))
    b_c = tl.reshape(b_c, [GROUPS, BO, STEPS])
    return sum_groups(b_c, GROUPS, BO, STEPS), b_x
