"""Synaptic current with one decay per synapse, forward in time and, transposed, backward in time.

    x(t) = r x(t-1) + z(t),   c_o(t) = sum_s w x_so(t)                    (HetSyn, eq. of I_ji)
    l(t) = g(t) + r l(t+1),   dL/dz_i(t) = sum_j w_ji l_ji(t)             (its adjoint: the same)

One kernel serves both. Forward the outputs o are the neurons j and the sum runs over the inputs i;
backward the other way round, with time reversed by a negative step.

| name | shape | meaning |
|---|---|---|
| z | [R, T, B, WIDTH] | what drives the synapses: inputs, or gradients of the current |
| w, r | [R, S, O] | weight and decay, summed feature first |
| first | [R, B, S, O] | initial state: traces, or gradients of the final traces |
| last | [R, B, J, I] | final state: traces, or gradients of the initial traces |
| out | [P, R, T, B, O] | sums over each program's own features; P = 1 is the result |
| i_o, i_s, n | - | block of outputs, block of summed features, replica and sample |

The state of a tile stays in registers over the whole sequence. Sums over the groups of a tile cross
the warps through shared memory, four steps at a time. Programs along S leave partial sums, added
in ascending order afterwards. The order of all sums: `lib/synaptic_tile.py`.

Cost, with P = S / 64 programs along S (one where S <= 128): 2 R T B S O multiply-adds; HBM and
L2 bytes 4 R T B (S + O + 2 P O [P > 1]) and the final state 4 R B S O.
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from ..parallel_in_time import allowed
from .lib.add_partials import add_partials
from .lib.configs import Configuration, configuration, kept
from .lib.launch import dense, launch, processors, quads, steps_ahead, strides
from .lib.parameter_gradient import synaptic_parameter_gradient as synaptic_parameter_gradient
from .lib.prefetch import prefetch_steps
from .lib.synaptic_tile import (
    first_features,
    load_matrix,
    load_state,
    steps_at_once,
    store_trace,
)
from .lib.time_chunks import chunks, run_in_chunks


@triton.jit(
    do_not_specialize=[
        "T", "B", "start_z", "stride_zr", "stride_zt", "stride_zb",
        "start_out", "stride_op", "stride_or", "stride_ot", "stride_ob",
    ]
)  # fmt: skip
def synaptic_current_kernel(
    z, w, r, first, out, last,
    T, B,
    start_z: tl.int64, stride_zr: tl.int64, stride_zt: tl.int64, stride_zb: tl.int64,
    start_out: tl.int64, stride_op: tl.int64, stride_or: tl.int64, stride_ot: tl.int64,
    stride_ob: tl.int64,
    S: tl.constexpr, O: tl.constexpr, WIDTH: tl.constexpr,
    GROUPS: tl.constexpr, BO: tl.constexpr, BS: tl.constexpr, STEPS: tl.constexpr,
    TRANSPOSED: tl.constexpr, HAS_FIRST: tl.constexpr, CARRY: tl.constexpr,
    SCALED: tl.constexpr, AHEAD: tl.constexpr,
):  # fmt: skip
    """Strides of z count quads: the compiler sees 16-byte alignment and nothing is specialized.

    start is the offset of the first step to be taken: backward in time the last, strides negative.
    """
    n = tl.program_id(0).to(tl.int64)  # the other axes of a grid end at 65535
    i_o = tl.program_id(1)
    i_s = tl.program_id(2)
    i_r = n // B
    i_b = n % B
    o_o = i_o * BO + tl.arange(0, BO)
    m_o = o_o < O
    o_own, o_s0 = first_features(i_s, S, WIDTH, GROUPS, BS)

    b_w = load_matrix(w + i_r * (S * O), o_own, o_s0, o_o, m_o, S, O, BS)
    b_r = load_matrix(r + i_r * (S * O), o_own, o_s0, o_o, m_o, S, O, BS)
    given = HAS_FIRST or T < 0
    b_x = load_state(first + n * (S * O), o_own, o_s0, o_o, m_o, given, S, O, BS)

    o_z = o_s0[:, None] + tl.arange(0, 4)[None, :]
    p_z = z + (i_r * stride_zr + i_b * stride_zb + start_z) * 4
    step_z = stride_zt.to(tl.int64) * 4
    step_out = stride_ot.to(tl.int64)
    p_out = out + i_s * stride_op + i_r * stride_or + i_b * stride_ob + start_out
    full = T // STEPS * STEPS
    for t in range(0, full, STEPS):
        if AHEAD > 0:
            o_first = i_s * (GROUPS * BS)
            prefetch_steps(p_z, step_z, T - 1 - t, o_first, WIDTH, GROUPS * BS, STEPS, AHEAD)
        b_sums, b_x = steps_at_once(
            b_w, b_r, b_x, p_z, o_z, step_z, GROUPS, BO, BS, STEPS, CARRY
        )  # fmt: skip
        b_c = b_sums[0]
        if GROUPS == 8:
            b_c = b_c + b_sums[1]
        o_t = t + tl.arange(0, STEPS)
        tl.store(p_out + o_t[None, :] * step_out + o_o[:, None], b_c, mask=m_o[:, None])
        p_z += STEPS * step_z
    for t in range(full, T):
        b_sums, b_x = steps_at_once(b_w, b_r, b_x, p_z, o_z, step_z, GROUPS, BO, BS, 1, CARRY)
        b_c = b_sums[0]
        if GROUPS == 8:
            b_c = b_c + b_sums[1]
        tl.store(p_out + t * step_out + o_o[:, None], b_c, mask=m_o[:, None])
        p_z += step_z

    if SCALED:  # dL/dx(0) = w r l(1)
        b_scaled = ()
        for k in tl.static_range(BS):
            b_scaled = b_scaled + (b_w[k] * b_r[k] * b_x[k],)
        b_x = b_scaled
    store_trace(last + n * (S * O), b_x, o_own, o_s0, o_o, m_o, S, O, GROUPS, BO, BS, TRANSPOSED)


@kept
def tile_of(kernel: str, summed: int, outputs: int, several: int) -> Configuration:
    """The tile of synapses for S summed and O output features; see `lib/configs.py`.

    GROUPS and BS follow from S alone, they order the sum; `several` groups where S takes more than
    one block. The block of outputs is free: the widest of those that waste fewest lanes is first.
    """
    depth = 4 if summed <= 4 else 16
    groups = next((g for g in (1, 2, 4, 8) if g * depth >= summed), several)

    def candidate(width: int) -> Configuration:
        warps = max(1, groups * width // 128)
        constants = {"GROUPS": groups, "BO": width, "BS": depth, "STEPS": 4 if width == 128 else 2}
        return Configuration(f"outputs{width}", constants, warps)

    widths = sorted((128, 64, 32), key=lambda width: (-(-outputs // width) * width, -width))
    return configuration(kernel, f"S{groups * depth}_O{widths[0]}", [candidate(w) for w in widths])


def blocks_of(chosen: Configuration, summed: int) -> int:
    """Blocks of summed features in tiles of this kind."""
    return -(-summed // (chosen.constants["GROUPS"] * chosen.constants["BS"]))


def tile(summed: int, outputs: int) -> Configuration:
    """The tile of this kernel: 64 summed features to a program where there are more than 128."""
    return tile_of("synaptic_current", summed, outputs, 4)


def _run(
    z: Tensor,
    weight: Tensor,
    decay: Tensor,
    first: Tensor | None,
    *,
    transposed: bool,
    carry: bool = False,
    scaled: bool = False,
) -> tuple[Tensor, Tensor]:
    """weight and decay [R, S, O], first [R, B, S, O] -> out [R, T, B, O], last [R, B, J, I]."""
    replicas, steps, batch, _ = z.shape
    _, summed, outputs = weight.shape
    chosen = tile(summed, outputs)
    blocks = blocks_of(chosen, summed)
    z = quads(z, chosen.constants["BS"])
    out = weight.new_empty(blocks, replicas, steps, batch, outputs)
    state = (summed, outputs) if transposed else (outputs, summed)
    last = weight.new_empty(replicas, batch, *state)
    launch_tiles(z, weight, decay, first, out, last, chosen, transposed, carry, scaled)
    if blocks == 1:
        return out[0], last
    partials = out.view(1, blocks, replicas * steps * batch * outputs)
    return add_partials(partials, outputs).view(out.shape[1:]), last


def _chunks(z: Tensor, summed: int, outputs: int) -> int:
    """Into how many chunks of time to cut (`lib/time_chunks.py`); 1 unless that was asked for."""
    if not allowed():
        return 1
    replicas, steps, batch, _ = z.shape
    chosen = tile(summed, outputs)
    blocks = blocks_of(chosen, summed)
    programs = replicas * batch * blocks * -(-outputs // chosen.constants["BO"])
    return chunks(steps, programs, processors(z.device))


def launch_tiles(
    z: Tensor,
    weight: Tensor,
    decay: Tensor,
    first: Tensor | None,
    out: Tensor,
    last: Tensor,
    chosen: Configuration,
    transposed: bool = False,
    carry: bool = False,
    scaled: bool = False,
) -> None:
    """The kernel itself, on tensors of any strides over blocks, replicas, time and samples."""
    blocks, replicas, steps, batch, outputs = out.shape
    r, t, b = strides(z)
    p, out_r, out_t, out_b, _ = out.stride()
    launch(
        synaptic_current_kernel,
        (replicas * batch, -(-outputs // chosen.constants["BO"]), blocks),
        {
            "z": z,
            "w": weight,
            "r": decay,
            "first": weight if first is None else first,
            "out": out,
            "last": last,
            "T": steps,
            "B": batch,
            "start_z": (steps - 1) * t // 4 if transposed else 0,
            "stride_zr": r // 4,
            "stride_zt": -t // 4 if transposed else t // 4,
            "stride_zb": b // 4,
            "start_out": (steps - 1) * out_t if transposed else 0,
            "stride_op": p,
            "stride_or": out_r,
            "stride_ot": -out_t if transposed else out_t,
            "stride_ob": out_b,
        },
        {
            "S": weight.shape[1],
            "O": outputs,
            "WIDTH": z.shape[3],
            "TRANSPOSED": transposed,
            "HAS_FIRST": first is not None,
            "CARRY": carry,
            "SCALED": scaled,
            "AHEAD": steps_ahead(16),
            **chosen.constants,
        },
        chosen.num_warps,
    )


def synaptic_current(
    z: Tensor, weight: Tensor, decay: Tensor, trace: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """z [R, T, B, I], weight and decay [R, J, I], trace [R, B, J, I] -> current [R, T, B, J], final
    trace [R, B, J, I]."""
    # Lanes run along the outputs: in the natural [J, I] each load of a weight would touch 32 lines.
    weight, decay = (dense(m.mT) for m in (weight, decay))
    first = None if trace is None else dense(trace.mT)
    count = _chunks(z, *weight.shape[1:])
    if count == 1:
        return _run(z, weight, decay, first, transposed=False)

    def run(*arguments: Any) -> tuple[Tensor, Tensor]:
        current, last = _run(*arguments, transposed=False)
        return current, dense(last.mT)

    current, last = run_in_chunks(run, z, weight, decay, first, count, backward=False)
    return current, dense(last.mT)


def synaptic_current_backward(
    g: Tensor, g_trace: Tensor | None, weight: Tensor, decay: Tensor
) -> tuple[Tensor, Tensor]:
    """g [R, T, B, J], g_trace [R, B, J, I] (of the final trace) -> dz [R, T, B, I], d_trace [R, B,
    J, I] (of the initial one)."""
    weight, decay = dense(weight), dense(decay)
    if g_trace is not None:
        return _run(g, weight, decay, dense(g_trace), transposed=True, carry=True)
    count = _chunks(g, *weight.shape[1:])
    if count == 1:
        return _run(g, weight, decay, None, transposed=True, scaled=True)

    def run(*arguments: Any) -> tuple[Tensor, Tensor]:
        return _run(*arguments, transposed=True)

    dz, last = run_in_chunks(run, g, weight, decay, None, count, backward=True)
    return dz, (weight * decay).unsqueeze(1) * last
