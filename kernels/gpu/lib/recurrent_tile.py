"""The synapses of a recurrent layer in registers: which tile, loaded, advanced, summed and stored.

| name | shape | meaning |
|---|---|---|
| o, s | - | output and summed neuron: j and k forward, k and j in reverse (TRANSPOSED) |
| BJ, KG, KK | - | rows o of a program; KG groups of KK summed neurons, KG KK >= J |
| b_w, b_r, b_x | KK x [BJ, KG] | weight, decay, state of synapse (o, s = g KK + p), p = 0 .. KK-1 |
| b_z | KK x [KG] | what every synapse of a summed neuron receives |

One thread keeps KK synapses of one row, 3 KK values, and the KG threads of a row are neighbors in
a warp. **The order of the sum, part of the definition**: chains of multiply-adds over even and over
odd p, ascending; the two added; then the KG groups by halves. KG and KK follow from J alone.

Cost of a step: 2 KK multiply-adds per thread, no memory.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import torch
import triton
import triton.language as tl

from ... import trial
from .launch import processors, steps_ahead


class Tile(NamedTuple):
    """How a sample lies in registers."""

    programs: int
    BJ: int
    KG: int
    KK: int
    num_warps: int

    @property
    def constants(self) -> dict[str, int]:
        return {
            "PROGRAMS": self.programs,
            "BJ": self.BJ,
            "KG": self.KG,
            "KK": self.KK,
            "AHEAD": steps_ahead(8),
            "RELAXED": trial.allowed() and steps_ahead(1) > 0,
        }


# Largest J, rows, groups, neurons of a group, warps. 192 of 255 registers hold the state at KK 64;
# at KK 32 three or four programs share a multiprocessor.
_CLASSES = (
    (16, 16, 2, 8, 1),
    (32, 32, 1, 32, 1),
    (64, 64, 2, 32, 4),
    (128, 128, 2, 64, 8),
    (256, 64, 4, 64, 8),
    (512, 32, 8, 64, 8),
    (1024, 16, 16, 64, 8),
)


@cache
def path(neurons: int, resident: int) -> Tile | None:
    """The registers of one program, of several that meet each step, or None: a launch per step.

    By J and the device, never by the batch, because the order of the sum depends on it. `resident`
    programs can run at the same time, one per multiprocessor at 255 registers a thread; a device
    that cannot hold all programs of one sample takes the steps, whose order is another.
    """
    for largest, rows_of_program, groups, width, warps in _CLASSES:
        if neurons <= largest:
            programs = -(-neurons // rows_of_program)
            if programs > max(resident, 1):
                return None
            return Tile(programs, rows_of_program, groups, width, warps)
    return None


def programs_at_once(device: torch.device) -> int:
    """Programs that run at the same time. On the CPU (interpreted) they run one by one."""
    return 1 if device.type == "cpu" else processors(device)


class Programs(NamedTuple):
    """Who runs which sample: no result depends on it."""

    grid: tuple[int]
    arguments: dict[str, int]
    options: dict[str, bool]


def programs_of(tile: Tile, resident: int, samples: int) -> Programs:
    groups = samples
    options = {}
    if tile.programs > 1:
        # Readers wait for programs of their group: all must be resident, which a cooperative
        # launch guarantees or refuses.
        groups = min(samples, resident // tile.programs)
        options = {"launch_cooperative_grid": True}
    counts = {"samples": samples, "groups": groups, "first_program": 0, "one": 1}
    return Programs((groups * tile.programs,), counts, options)


@triton.jit
def _quad(o_o, o_s, m_o, J: tl.constexpr):
    """Offsets and mask [BJ, KG, 4] of four neighboring s of a row in a matrix [J, J]."""
    o_s4 = o_s[:, None] + tl.arange(0, 4)[None, :]
    m = m_o[:, None, None] & (o_s4 < J)[None, :, :]
    return o_o[:, None, None] * J + o_s4[None, :, :], m


@triton.jit
def _column(o_o, o_s, m_o, one, J: tl.constexpr, TRANSPOSED: tl.constexpr):
    """Offsets and mask [BJ, KG] of one s of each group of a row in a matrix [J, J].

    `one` is 1, but not for the compiler: knowing what is adjacent in memory it would choose another
    layout for the tile, with the KG groups of a row in different warps.
    """
    m = m_o[:, None] & (o_s < J)[None, :]
    if TRANSPOSED:
        return o_s[None, :] * J + (o_o * one)[:, None], m
    else:
        return (o_o * J)[:, None] + (o_s * one)[None, :], m


@triton.jit
def load_tile(
    p_matrix, o_o, o_g, m_o, present, one,
    J: tl.constexpr, BJ: tl.constexpr, KG: tl.constexpr, KK: tl.constexpr,
    TRANSPOSED: tl.constexpr,
):  # fmt: skip
    """[J, J] -> KK tiles [BJ, KG], zeros outside, and everywhere if not `present`."""
    b_tiles = ()
    if TRANSPOSED or J % 4 != 0:
        for p in tl.static_range(KK):
            o, m = _column(o_o, o_g * KK + p, m_o, one, J, TRANSPOSED)
            b_tiles = b_tiles + (tl.load(p_matrix + o, mask=m & present, other=0.0),)
    else:
        for q in tl.static_range(KK // 4):
            o, m = _quad(o_o, o_g * KK + 4 * q, m_o, J)
            b_quad = tl.load(p_matrix + o, mask=m & present, other=0.0)
            b_even, b_odd = tl.split(tl.reshape(b_quad, [BJ, KG, 2, 2]))
            b_0, b_2 = tl.split(b_even)
            b_1, b_3 = tl.split(b_odd)
            b_tiles = b_tiles + (b_0, b_1, b_2, b_3)
    return b_tiles


@triton.jit
def store_tile(
    p_matrix, b_tiles, o_o, o_g, m_o, one,
    J: tl.constexpr, BJ: tl.constexpr, KG: tl.constexpr, KK: tl.constexpr,
    TRANSPOSED: tl.constexpr,
):  # fmt: skip
    """KK tiles [BJ, KG] -> [J, J]."""
    if TRANSPOSED or J % 4 != 0:
        for p in tl.static_range(KK):
            o, m = _column(o_o, o_g * KK + p, m_o, one, J, TRANSPOSED)
            tl.store(p_matrix + o, b_tiles[p], mask=m)
    else:
        for q in tl.static_range(KK // 4):
            o, m = _quad(o_o, o_g * KK + 4 * q, m_o, J)
            b_even = tl.join(b_tiles[4 * q], b_tiles[4 * q + 2])
            b_odd = tl.join(b_tiles[4 * q + 1], b_tiles[4 * q + 3])
            b_quad = tl.reshape(tl.join(b_even, b_odd), [BJ, KG, 4])
            tl.store(p_matrix + o, b_quad, mask=m)


@triton.jit
def advance(
    b_w, b_r, b_x, b_z,
    BJ: tl.constexpr, KG: tl.constexpr, KK: tl.constexpr, CARRY: tl.constexpr,
):  # fmt: skip
    """One time step of the traces: sum over s of each row [BJ], and the new state."""
    b_even = tl.zeros([BJ, KG], tl.float32)
    b_odd = tl.zeros([BJ, KG], tl.float32)
    b_next = ()
    for p in tl.static_range(KK):
        b_zp = tl.broadcast_to(b_z[p][None, :], [BJ, KG])
        if CARRY:
            b_m = tl.fma(b_w[p], b_zp, b_x[p])
            b_next = b_next + (b_r[p] * b_m,)
            if p % 2 == 0:
                b_even = b_even + b_m
            else:
                b_odd = b_odd + b_m
        else:
            b_new = tl.fma(b_r[p], b_x[p], b_zp)
            b_next = b_next + (b_new,)
            if p % 2 == 0:
                b_even = tl.fma(b_w[p], b_new, b_even)
            else:
                b_odd = tl.fma(b_w[p], b_new, b_odd)
    return tl.sum(b_even + b_odd, axis=1), b_next


@triton.jit
def weighted_sum(b_w, b_z, BJ: tl.constexpr, KG: tl.constexpr, KK: tl.constexpr):
    """Sum over s of each row [BJ], without a state: the order is that of `advance`."""
    b_even = tl.zeros([BJ, KG], tl.float32)
    b_odd = tl.zeros([BJ, KG], tl.float32)
    for p in tl.static_range(KK):
        b_zp = tl.broadcast_to(b_z[p][None, :], [BJ, KG])
        if p % 2 == 0:
            b_even = tl.fma(b_w[p], b_zp, b_even)
        else:
            b_odd = tl.fma(b_w[p], b_zp, b_odd)
    return tl.sum(b_even + b_odd, axis=1)
