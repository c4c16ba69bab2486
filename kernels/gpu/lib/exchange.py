"""How the values of one step reach every row of a recurrent layer, inside and between programs.

`columns` serves a program that holds all neurons of its sample. Where several programs share a
sample they meet once per step in global memory, with **self-validating words**: before the launch
every word of the exchange buffer holds SENTINEL, a bit pattern that no published value has. Each
word has one writer and changes once, from SENTINEL to its value, in one 32-bit relaxed write; a
reader loads the words themselves, again and again, until none is SENTINEL. What it then holds is
what it needs. No flag, no fence and no order between words: a word says by itself that it is valid.
(Relaxed atomic writes and volatile loads, which are relaxed too, may race by the memory model.)

SENTINEL is a quiet NaN with a payload of its own: arithmetic on the GPU makes 0x7fffffff, PyTorch's
NaN is 0x7fc00000. A value that is NaN is published as 0x7fc00000 whatever its payload, so data
with SENTINEL in it cannot make a reader wait for ever.

Readers wait only for programs that run at the same time: the launch must be cooperative.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

SENTINEL = tl.constexpr(0x7FC05AFE)
_QUIET_NAN = tl.constexpr(0x7FC00000)


def await_all(buffer: Tensor) -> Tensor:
    """Marks every word of a float32 buffer as not yet published; returns it."""
    buffer.view(torch.int32).fill_(SENTINEL.value)
    return buffer


@triton.jit
def columns(b_values, KG: tl.constexpr, KK: tl.constexpr):
    """[KG * KK] -> KK vectors [KG]: vector p holds elements p, KK + p, 2 KK + p ...

    The compiler makes it one store to shared memory, a barrier and 16-byte loads.
    """
    b_parts = (tl.reshape(b_values, [KG, KK]),)
    for level in tl.static_range(10):
        if 2**level < KK:
            b_low = ()
            b_high = ()
            for i in tl.static_range(2**level):
                b_pairs = tl.reshape(b_parts[i], [KG, KK // 2 ** (level + 1), 2])
                b_even, b_odd = tl.split(b_pairs)
                b_low = b_low + (b_even,)
                b_high = b_high + (b_odd,)
            b_parts = b_low + b_high
    b_columns = ()
    for p in tl.static_range(KK):
        b_columns = b_columns + (tl.reshape(b_parts[p], [KG]),)
    return b_columns


@triton.jit
def publish(p_values, b_values, m, RELAXED: tl.constexpr):
    """Writes float32 words, each once, for every program of the sample to see.

    RELAXED: by a store, which unlike an exchange returns nothing that a step would wait for.
    """
    b_bits = b_values.to(tl.int32, bitcast=True)
    b_bits = tl.where(b_values != b_values, _QUIET_NAN, b_bits)
    p_bits = p_values.to(tl.pointer_type(tl.int32), bitcast=True)
    if RELAXED:
        tl.inline_asm_elementwise(
            "{ .reg .pred p; setp.ne.b32 p, $3, 0;"
            " @p st.relaxed.gpu.global.b32 [$1], $2; mov.b32 $0, 0; }",
            "=r,l,r,r",
            [p_bits, b_bits, m.to(tl.int32)],
            dtype=tl.int32,
            is_pure=False,
            pack=1,
        )
    else:
        tl.atomic_xchg(p_bits, b_bits, mask=m, sem="relaxed", scope="gpu")


@triton.jit
def wait_for(p_values, m, expected):
    """The published words; where not `expected` (a scalar) they are read as they are, at once."""
    p_bits = p_values.to(tl.pointer_type(tl.int32), bitcast=True)
    b_bits = tl.load(p_bits, mask=m, other=0, volatile=True)
    while (tl.max((b_bits == SENTINEL).to(tl.int32), axis=0) > 0) & expected:
        b_bits = tl.load(p_bits, mask=m, other=0, volatile=True)
    return b_bits.to(tl.float32, bitcast=True)
