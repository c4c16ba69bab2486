"""Several steps of one block of synapses, or two, in one pass over the features they sum.

    a_s <- r_s a_s + z_s(t),   c(t) += w_s a_s      for t of the pass, s = 0, 1, ...

A trace is loaded and stored once for all steps of a pass, and a feature loaded once for both
blocks: the 32 multiply-adds of two blocks and eight steps take 14 loads, the 8 of one block and
four steps 7. Sums are those of a step alone, s ascending.
"""

from __future__ import annotations

from typing import Any

from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .compiling import inlined
from .vectors import Code, Vector, lanes


def passes(blocks: int, steps: int) -> Any:
    """Make a part of a kernel that continues from step t while `steps` are left.

    It returns the step where it ends. It reads z [T, n] and the rows of `weight` and `decay` at
    `rows`, the next block's `apart` behind. It advances the traces x [blocks, capacity, L] and adds
    to c [T, L] at `place`, the next block's `beyond` behind.
    """

    @intrinsic
    def nothing(_typing: Any, array: Any) -> Any:
        """Sums of 0, [blocks][steps]."""
        sums = types.UniTuple(Vector(array.dtype), blocks * steps)

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            zero = Code(context, builder, array.dtype).filled(0.0)
            return context.make_tuple(builder, sums, [zero] * sums.count)

        return sums(array), generate

    @intrinsic
    def advance(
        _typing: Any, sums: Any, z: Any, first: Any, n: Any, weight: Any, decay: Any, row: Any,
        apart: Any, x: Any, state: Any, capacity: Any,
    ) -> Any:  # fmt: skip
        """The sums after one feature: z at `first`, the next step's n behind; weight and decay of
        the first block at `row`, its trace at `state`."""

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            given, steps_of_z, first, n, weights, decays, row, apart, traces, state, capacity = (
                arguments
            )
            code = Code(context, builder, z.dtype)
            kinds = signature.args
            rows, states = [row], [state]
            for _ in range(1, blocks):
                rows.append(builder.add(rows[-1], apart))
                states.append(builder.add(states[-1], capacity))
            w = [code.load(code.at(kinds[4], weights, place)) for place in rows]
            r = [code.load(code.at(kinds[5], decays, place)) for place in rows]
            a = [code.load(code.at(kinds[8], traces, place)) for place in states]
            found = list(cgutils.unpack_tuple(builder, given, sums.count))
            for step in range(steps):
                joins = code.spread(code.at(kinds[1], steps_of_z, first))
                first = builder.add(first, n)
                a = [code.fma(r[b], a[b], joins) for b in range(blocks)]
                for b in range(blocks):
                    k = b * steps + step
                    found[k] = code.fma(w[b], a[b], found[k])
            for b in range(blocks):
                code.store(code.at(kinds[8], traces, states[b]), a[b])
            return context.make_tuple(builder, sums, found)

        whole = types.intp
        return sums(sums, z, whole, whole, weight, decay, whole, whole, x, whole, whole), generate

    @intrinsic
    def add_to(_typing: Any, c: Any, place: Any, beyond: Any, sums: Any) -> Any:
        """c at `place`, of the next block `beyond` behind, grows by the sums of each step."""

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            currents, place, beyond, given = arguments
            code = Code(context, builder, c.dtype)
            found = cgutils.unpack_tuple(builder, given, sums.count)
            for k, added in enumerate(found):
                where = code.at(signature.args[0], currents, place, k % steps * code.vector.lanes)
                code.store(where, builder.fadd(code.load(where), added))
                if k % steps == steps - 1:
                    place = builder.add(place, beyond)
            return context.get_dummy_value()

        return types.void(c, types.intp, types.intp, sums), generate

    @inlined
    def run(z, weight, decay, rows, apart, x, capacity, c, place, beyond, t, T, n):
        L = lanes(z)
        while t + steps <= T:
            sums = nothing(z)
            for s in range(n):
                sums = advance(
                    sums, z, t * n + s, n, weight, decay, rows + s * L, apart, x, s * L, capacity
                )
            add_to(c, place + t * L, beyond, sums)
            t += steps
        return t

    return run
