"""A feedforward layer in one launch: decay, accumulate, sum, threshold and reset.

    x(t) = r x(t-1) + z(t),   c_j(t) = sum_i w x_ji(t),   then threshold and feedback currents as in
    `spike_scan` (HetSyn, eqs. of I_ji, V_j, J_j)

One program owns BO neurons of one sample. It takes a chunk of time steps; inside the chunk it goes
through the inputs block by block, the state of a block in registers for the whole chunk, and adds
the block's sums to those of the blocks before, in place of V. States are parked in memory between
chunks. At the chunk's end all inputs are in, and the threshold follows.

| name | shape | meaning |
|---|---|---|
| z | [R, T, B, WIDTH] | input |
| w, r | [R, I, J] | weight and decay, input first |
| parked | [R, B, I, J] | state between chunks; at the start the initial trace, where there is one |
| last | [R, B, J, I] | final trace |
| spikes, potential | [R, T, B, J] | output; V holds the running sum until the threshold |
| feedback, spike | [R, K, B, J], [R, B, J] | initial feedback currents and spikes |
| feedback_last | [R, K, B, J] | feedback currents at the end of the last chunk done |
| CHUNK | - | time steps of a chunk, a run-time number |

Order of the sum: as in the synaptic current (`lib/synaptic_tile.py`), so both ways agree bit by
bit.

Cost: 2 R T B I J multiply-adds. Bytes between L2 and the multiprocessors, 4 R B times: T I for the
input, ceil(T / CHUNK) 4 I J for states and matrices, T J (2 ceil(I / 128) + 4) for sums, V and
spikes. Device memory: input, outputs, states parked and final. No partial sums.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from .lib.configs import Configuration, kept
from .lib.launch import dense, launch, named_strides, processors, quads, strides
from .lib.neuron import neuron_step
from .lib.synaptic_tile import first_features, load_matrix, load_state, steps_at_once, store_trace
from .spike_scan import spike_scan
from .synaptic_current import blocks_of, synaptic_current, tile, tile_of

CHUNK = 128


@triton.jit(
    do_not_specialize=[
        "T", "B", "CHUNK", "zero", "stride_zr", "stride_zt", "stride_zb",
        "stride_or", "stride_ot", "stride_ob",
    ]
)  # fmt: skip
def feedforward_scan_kernel(
    z, w, r, parked, last,
    threshold, feedback_decay, feedback_strength, feedback, spike,
    spikes, potential, feedback_last,
    T, B, CHUNK, zero,
    stride_zr: tl.int64, stride_zt: tl.int64, stride_zb: tl.int64,
    stride_or: tl.int64, stride_ot: tl.int64, stride_ob: tl.int64,
    S: tl.constexpr, O: tl.constexpr, WIDTH: tl.constexpr, K: tl.constexpr,
    GROUPS: tl.constexpr, BO: tl.constexpr, BS: tl.constexpr, STEPS: tl.constexpr,
    HAS_TRACE: tl.constexpr,
):  # fmt: skip
    """S inputs, O neurons. Strides of z count quads.

    `zero` is 0, which the compiler does not know: it recomputes offsets that hold it after a loop
    over time instead of keeping them on the stack. Eight groups, and a single block, spill less
    without it. Eight groups also spill less with offsets of V than with moving pointers.
    """
    MOVES: tl.constexpr = GROUPS < 8
    if not MOVES or S <= GROUPS * BS:
        zero = 0
    n = tl.program_id(0).to(tl.int64)  # the other axes of a grid end at 65535
    i_o = tl.program_id(1)
    i_r = n // B
    i_b = n % B
    o_o = i_o * BO + tl.arange(0, BO)
    m_o = o_o < O
    p_parked = parked + n * (S * O)
    stride_zt = stride_zt.to(tl.int64)  # the interpreter takes a small number for int32
    stride_ot = stride_ot.to(tl.int64)
    out_first = i_r * stride_or + i_b * stride_ob

    for t_first in range(0, T, CHUNK):
        t_end = tl.minimum(t_first + CHUNK, T)
        t_full = t_first + (t_end - t_first) // STEPS * STEPS
        for i_s in range(0, tl.cdiv(S, GROUPS * BS)):
            o_own, o_s0 = first_features(i_s, S, WIDTH, GROUPS, BS)
            b_w = load_matrix(w + i_r * (S * O), o_own, o_s0, o_o, m_o, S, O, BS)
            b_r = load_matrix(r + i_r * (S * O), o_own, o_s0, o_o, m_o, S, O, BS)
            given = HAS_TRACE or t_first > 0
            b_x = load_state(p_parked, o_own, o_s0, o_o, m_o, given, S, O, BS)
            o_z = o_s0[:, None] + tl.arange(0, 4)[None, :]
            p_z = z + (i_r * stride_zr + i_b * stride_zb + t_first * stride_zt) * 4
            for t in range(t_first, t_full, STEPS):
                b_sums, b_x = steps_at_once(
                    b_w, b_r, b_x, p_z, o_z, stride_zt * 4, GROUPS, BO, BS, STEPS, False
                )  # fmt: skip
                o_t = tl.arange(0, STEPS)
                if MOVES:
                    p_c = potential + out_first + t * stride_ot + o_t[None, :] * stride_ot
                    p_c += o_o[:, None]
                else:
                    p_c = potential + out_first + (t + o_t)[None, :] * stride_ot + o_o[:, None]
                b_c = tl.load(p_c, mask=m_o[:, None] & (i_s > 0), other=0.0) + b_sums[0]
                if GROUPS == 8:
                    b_c = b_c + b_sums[1]
                tl.store(p_c, b_c, mask=m_o[:, None])
                p_z += STEPS * stride_zt * 4
            p_left = potential + out_first + t_full * stride_ot
            o_left = o_o + t_full * zero * BO
            for t in range(t_full, t_end):
                b_sums, b_x = steps_at_once(
                    b_w, b_r, b_x, p_z, o_z, stride_zt * 4, GROUPS, BO, BS, 1, False
                )  # fmt: skip
                if MOVES:
                    p_c = p_left + o_left[:, None]
                    p_left += stride_ot
                else:
                    p_c = potential + out_first + t * stride_ot + o_o[:, None]
                b_c = tl.load(p_c, mask=m_o[:, None] & (i_s > 0), other=0.0) + b_sums[0]
                if GROUPS == 8:
                    b_c = b_c + b_sums[1]
                tl.store(p_c, b_c, mask=m_o[:, None])
                p_z += stride_zt * 4
            o_s0 = o_s0 + t_end * zero * 16
            if t_end < T:
                for k in tl.static_range(BS):
                    o_s = o_s0 + k
                    m = ((o_s >= o_own) & (o_s < S))[:, None] & m_o[None, :]
                    tl.store(
                        p_parked + o_s.to(tl.int64)[:, None] * O + o_o[None, :], b_x[k], mask=m
                    )
            else:
                store_trace(
                    last + n * (S * O), b_x, o_own, o_s0, o_o, m_o, S, O, GROUPS, BO, BS, False
                )  # fmt: skip
            tl.debug_barrier()  # sums and states written above are read by other threads below

        o_j = o_o
        if K == 1:
            o_j = (i_o + t_first * zero) * BO + tl.arange(0, BO)
        p_neuron = i_r * O + o_j
        p_state = n * O + o_j
        b_threshold = tl.load(threshold + p_neuron, mask=m_o, other=1.0)
        # In one loop: by `load_per_feedback`, one after the other, the layer of 64 outputs spills.
        b_decays = ()
        b_strengths = ()
        b_feedbacks = ()
        for k in tl.static_range(K):
            o_k = (i_r * K + k) * O + o_j
            o_f = ((i_r * K + k) * B + i_b) * O + o_j
            b_decays = b_decays + (tl.load(feedback_decay + o_k, mask=m_o, other=0.0),)
            b_strengths = b_strengths + (tl.load(feedback_strength + o_k, mask=m_o, other=0.0),)
            b_begin = tl.load(feedback + o_f, mask=m_o & (t_first == 0), other=0.0)
            b_went = tl.load(feedback_last + o_f, mask=m_o & (t_first > 0), other=0.0)
            b_feedbacks = b_feedbacks + (tl.where(t_first > 0, b_went, b_begin),)
        p_s = spikes + out_first + t_first * stride_ot
        p_v = potential + out_first + t_first * stride_ot
        b_begin = tl.load(spike + p_state, mask=m_o & (t_first == 0), other=0.0)
        b_went = tl.load(p_s - stride_ot + o_j, mask=m_o & (t_first > 0), other=0.0)
        b_spike = tl.where(t_first > 0, b_went, b_begin)
        b_next = tl.load(p_v + o_j, mask=m_o, other=0.0)
        for t in range(t_first, t_end):
            b_c = b_next  # one step ahead: the load is in flight while this step is computed
            b_next = tl.load(p_v + stride_ot + o_j, mask=m_o & (t + 1 < t_end), other=0.0)
            b_spike, b_v, b_feedbacks = neuron_step(
                b_c, b_spike, b_feedbacks, b_decays, b_strengths, b_threshold, K
            )
            tl.debug_barrier()  # other threads hold copies of a lane: all have read c(t+1)
            tl.store(p_s + o_j, b_spike, mask=m_o)
            tl.store(p_v + o_j, b_v, mask=m_o)
            p_s += stride_ot
            p_v += stride_ot
        for k in tl.static_range(K):
            o_f = ((i_r * K + k) * B + i_b) * O + o_j
            tl.store(feedback_last + o_f, b_feedbacks[k], mask=m_o)
        tl.debug_barrier()


@kept
def tile_of_layer(inputs: int, neurons: int) -> Configuration:
    """The tile of the fused kernel: as many groups of inputs as there are, up to eight, but four
    where eight would leave half a block empty.

    Two blocks of four groups, one after the other, add as one of eight: the order does not change.
    """
    return tile_of("feedforward_scan", inputs, neurons, 4 if 0 < inputs % 128 <= 64 else 8)


class Path(NamedTuple):
    """How a feedforward layer of some size runs, and the predicted times behind the choice."""

    name: str
    """`fused`: one launch. `split`: synaptic current, then spike scan."""
    fused_us: float
    split_us: float


# Cycles of a step, fitted to times on an H200 (bench/results/benchmark-NVIDIA-H200-*.json).
_FUSED_ALONE = (740.0, 300.0)
"""Fused, for each block of inputs and for the threshold: a program to a multiprocessor."""
_FUSED = (935.0, 1000.0)
"""The same with several programs on a multiprocessor."""
_SPLIT = 605.0
"""Split, for a block of inputs, with several programs on a multiprocessor."""
_SCAN = 120.0
"""A step of the spike scan, one dependent chain; not measured, it is short beside its launch."""
_CLOCK_HZ = 1.75e9
_HBM = 3.35e12  # bytes per second
_LAUNCH_US = 65.0
"""From Python. In a CUDA graph it is a few."""


@kept
def path(
    replicas: int, steps: int, batch: int, inputs: int, neurons: int, *, sms: int = 132
) -> Path:
    """Chooses by modelled time: whether one program per sample and block of neurons fills the GPU.

    The fused layer has no partial sums and one launch; the split form has ceil(I / 64) times as
    many programs. Both give the same bits, so the choice may depend on the batch. The model counts
    waves of programs over `sms` multiprocessors, with times measured at a few sizes.
    """
    samples = replicas * batch

    def waves(programs: int, warps: int) -> int:
        return -(-programs // (sms * max(1, 8 // warps)))

    fused_tile = tile_of_layer(inputs, neurons)
    blocks = blocks_of(fused_tile, inputs)
    programs = samples * -(-neurons // fused_tile.constants["BO"])
    per_block, per_step = _FUSED_ALONE if programs <= sms else _FUSED
    step_cycles = blocks * per_block + per_step
    cycles = waves(programs, fused_tile.num_warps) * steps * step_cycles
    parked = 8 * samples * inputs * neurons * max(0, -(-steps // CHUNK) - 1)
    fused = max(1e6 * cycles / _CLOCK_HZ, 1e6 * parked / _HBM) + _LAUNCH_US

    split_tile = tile(inputs, neurons)
    partials = blocks_of(split_tile, inputs)
    programs = samples * partials * -(-neurons // split_tile.constants["BO"])
    cycles = waves(programs, split_tile.num_warps) * steps * _SPLIT
    moved = 4 * samples * steps * neurons * (3 + (2 * partials + 1 if partials > 1 else 1))
    split = 1e6 * cycles / _CLOCK_HZ + 1e6 * moved / _HBM
    split += steps * _SCAN / _CLOCK_HZ * 1e6 + _LAUNCH_US * (3 if partials > 1 else 2)
    return Path("fused" if fused <= split else "split", fused, split)


def feedforward_scan(
    z: Tensor,
    weight: Tensor,
    decay: Tensor,
    trace: Tensor | None,
    threshold: Tensor,
    feedback_decay: Tensor,
    feedback_strength: Tensor,
    feedback: Tensor,
    spike: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """z [R, T, B, I], weight and decay [R, J, I], then as `spike_scan` -> spikes, V [R, T, B, J],
    final feedback [R, K, B, J], final trace [R, B, J, I]."""
    replicas, steps, batch, inputs = z.shape
    neuron = (threshold, feedback_decay, feedback_strength, feedback, spike)
    chosen = path(replicas, steps, batch, inputs, weight.shape[1], sms=processors(z.device))
    if steps == 0 or inputs == 0 or chosen.name == "split":
        current, last = synaptic_current(z, weight, decay, trace)
        spikes, potential, feedback_last = spike_scan(current, *neuron)
        return spikes, potential, feedback_last, last
    return fused(z, weight, decay, trace, *neuron)


def fused(
    z: Tensor,
    weight: Tensor,
    decay: Tensor,
    trace: Tensor | None,
    threshold: Tensor,
    feedback_decay: Tensor,
    feedback_strength: Tensor,
    feedback: Tensor,
    spike: Tensor,
    chunk: int = CHUNK,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`feedforward_scan` in one launch, whatever the size; T >= 1 and I >= 1."""
    replicas, steps, batch, inputs = z.shape
    neurons = weight.shape[1]
    chosen = tile_of_layer(inputs, neurons)
    z = quads(z, chosen.constants["BS"])
    weight, decay = (m.to(torch.float32).mT.contiguous() for m in (weight, decay))
    shape = (replicas, batch, inputs, neurons)
    if trace is not None:
        parked = trace.to(torch.float32).mT.clone(memory_format=torch.contiguous_format)
    else:
        parked = weight.new_empty(shape if steps > chunk else (1,))
    spikes = weight.new_empty(replicas, steps, batch, neurons)
    potential = torch.empty_like(spikes)
    last = weight.new_empty(replicas, batch, neurons, inputs)
    feedback = dense(feedback)
    feedback_last = torch.empty_like(feedback)
    r, t, b = strides(z)
    launch(
        feedforward_scan_kernel,
        (replicas * batch, -(-neurons // chosen.constants["BO"])),
        {
            "z": z,
            "w": weight,
            "r": decay,
            "parked": parked,
            "last": last,
            "threshold": dense(threshold),
            "feedback_decay": dense(feedback_decay),
            "feedback_strength": dense(feedback_strength),
            "feedback": feedback,
            "spike": dense(spike),
            "spikes": spikes,
            "potential": potential,
            "feedback_last": feedback_last,
            "T": steps,
            "B": batch,
            "CHUNK": chunk,
            "zero": 0,
            "stride_zr": r // 4,
            "stride_zt": t // 4,
            "stride_zb": b // 4,
            **named_strides("o", spikes),
        },
        {
            "S": inputs,
            "O": neurons,
            "WIDTH": z.shape[3],
            "K": feedback.shape[1],
            "HAS_TRACE": trace is not None,
            **chosen.constants,
        },
        chosen.num_warps,
    )
    return spikes, potential, feedback_last, last
