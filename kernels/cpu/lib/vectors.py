"""Vectors of 64 bytes in Numba: 16 float32 or 8 float64, one per lane of a kernel.

LLVM's vectors, loaded, stored and combined as the kernel says: what is a vector and what stays in a
register is not left to the loop vectoriser, and neither is the order of a sum. A machine with
narrower registers takes two or four for one vector; the result is the same on all of them.

Arrays are flat and contiguous, indices count elements and are neither wrapped nor checked.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.registry import cpu_target
from numba.extending import intrinsic, models, register_model

BYTES = 64
"""Of a vector: the widest registers there are. On AVX2, two registers keep both pipes busy."""


_triple, _processor, _features = cpu_target.target_context.codegen().magic_tuple()
"""What Numba compiles for."""

WIDE = "+avx512f" in _features.split(",")
"""Whether there are 32 registers of BYTES. Numba keeps compiled code by the processor's features,
of which this is one."""


def lanes_of(itemsize: int) -> int:
    """Lanes of a vector of elements of `itemsize` bytes."""
    return BYTES // itemsize


class Vector(types.Type):
    """The Numba type of a vector of float32 or float64."""

    def __init__(self, dtype: types.Float) -> None:
        self.dtype = dtype
        self.lanes = lanes_of(dtype.bitwidth // 8)
        super().__init__(name=f"Vector({dtype} x {self.lanes})")


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, vector: Vector) -> None:
        element = manager.lookup(vector.dtype).get_value_type()
        super().__init__(manager, vector, ir.VectorType(element, vector.lanes))


def _address(context: Any, builder: Any, array: Any, value: Any, index: Any) -> Any:
    return builder.gep(context.make_array(array)(context, builder, value).data, [index])


def _spread(builder: Any, kind: ir.VectorType, scalar: Any) -> Any:
    index = ir.IntType(32)
    undefined = ir.Constant(kind, ir.Undefined)
    first = builder.insert_element(undefined, scalar, ir.Constant(index, 0))
    zeros = ir.Constant(ir.VectorType(index, kind.count), [0] * kind.count)
    return builder.shuffle_vector(first, undefined, zeros)


@intrinsic
def lanes(_typing: Any, array: Any) -> Any:
    """Elements of `array` in one vector, a constant of the compiled kernel."""
    count = lanes_of(array.dtype.bitwidth // 8)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return context.get_constant(types.intp, count)

    return types.intp(array), generate


class Code:
    """Writes what an intrinsic does with vectors of one dtype: `at` is an address in an array."""

    def __init__(self, context: Any, builder: Any, dtype: types.Float) -> None:
        self.context, self.builder = context, builder
        self.bits = dtype.bitwidth
        self.vector = Vector(dtype)
        self.kind = context.get_value_type(self.vector)

    def at(self, array: Any, value: Any, index: Any, more: int = 0) -> Any:
        """The address of value[index + more]; `array`: its Numba type."""
        if more:
            index = self.builder.add(index, ir.Constant(index.type, more))
        return _address(self.context, self.builder, array, value, index)

    def load(self, address: Any) -> Any:
        where = self.builder.bitcast(address, self.kind.as_pointer())
        return self.builder.load(where, align=self.bits // 8)

    def store(self, address: Any, vector: Any) -> None:
        where = self.builder.bitcast(address, self.kind.as_pointer())
        self.builder.store(vector, where, align=self.bits // 8)

    def spread(self, address: Any) -> Any:
        return _spread(self.builder, self.kind, self.builder.load(address))

    def filled(self, number: float) -> Any:
        return ir.Constant(self.kind, [number] * self.vector.lanes)

    def fma(self, a: Any, b: Any, c: Any) -> Any:
        return self._call("fma", a, b, c)

    def magnitude(self, a: Any) -> Any:
        return self._call("fabs", a)

    def _call(self, name: str, *arguments: Any) -> Any:
        operation = ir.FunctionType(self.kind, [self.kind] * len(arguments))
        named = f"llvm.{name}.v{self.vector.lanes}f{self.bits}"
        function = cgutils.get_or_insert_function(self.builder.module, operation, named)
        return self.builder.call(function, arguments)


@intrinsic
def load(_typing: Any, array: Any, index: Any) -> Any:
    """The vector that begins at `array[index]`."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        code = Code(context, builder, array.dtype)
        return code.load(code.at(signature.args[0], *arguments))

    return Vector(array.dtype)(array, types.intp), generate


@intrinsic
def store(_typing: Any, array: Any, index: Any, vector: Any) -> Any:
    """`array[index : index + lanes] = vector`."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        code = Code(context, builder, array.dtype)
        code.store(code.at(signature.args[0], *arguments[:2]), arguments[2])
        return context.get_dummy_value()

    return types.void(array, types.intp, vector), generate


def _masked(context: Any, builder: Any, array: Any, what: str, given: Any, vector: Any) -> Any:
    """LLVM's masked load or store of the first lanes. `given`: the array, of type `array`, an index
    and the number of lanes; `vector`: what a store writes, None of a load."""
    values, index, used = given
    made, bits = Vector(array.dtype), array.dtype.bitwidth
    kind, number, count = context.get_value_type(made), ir.IntType(32), ir.IntType(64)
    each = ir.VectorType(count, made.lanes)
    lane = ir.Constant(each, [ir.Constant(count, l) for l in range(made.lanes)])
    mask = builder.icmp_signed("<", lane, _spread(builder, each, used))
    address = _address(context, builder, array, values, index)
    place = [builder.bitcast(address, kind.as_pointer()), number(bits // 8), mask]
    zeros = ir.Constant(kind, [0.0] * made.lanes)
    result, arguments = kind, [*place, zeros]
    if vector is not None:
        result, arguments = ir.VoidType(), [vector, *place]
    name = f"llvm.masked.{what}.v{made.lanes}f{bits}.p0v{made.lanes}f{bits}"
    operation = ir.FunctionType(result, [argument.type for argument in arguments])
    function = cgutils.get_or_insert_function(builder.module, operation, name)
    return builder.call(function, arguments)


@intrinsic
def load_first(_typing: Any, array: Any, index: Any, used: Any) -> Any:
    """The first `used` lanes from `array[index]` on, zeros after them, which are not read."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _masked(context, builder, signature.args[0], "load", arguments, None)

    return Vector(array.dtype)(array, types.intp, types.intp), generate


@intrinsic
def store_first(_typing: Any, array: Any, index: Any, used: Any, vector: Any) -> Any:
    """The first `used` lanes to `array[index]` on; what lies after them is not written."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        *given, lanes_given = arguments
        _masked(context, builder, signature.args[0], "store", given, lanes_given)
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, vector), generate


@intrinsic
def prefetch(_typing: Any, array: Any, index: Any) -> Any:
    """Asks for the cache line of `array[index]`, which need not exist, to be read soon."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        operation = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        function = cgutils.get_or_insert_function(builder.module, operation, "llvm.prefetch.p0i8")
        address = _address(context, builder, signature.args[0], *arguments)
        read, keep, data = (ir.Constant(number, n) for n in (0, 3, 1))
        builder.call(function, [builder.bitcast(address, byte), read, keep, data])
        return context.get_dummy_value()

    return types.void(array, types.intp), generate


@intrinsic
def spread(_typing: Any, array: Any, index: Any) -> Any:
    """A vector of which every lane is `array[index]`."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        code = Code(context, builder, array.dtype)
        return code.spread(code.at(signature.args[0], *arguments))

    return Vector(array.dtype)(array, types.intp), generate


@intrinsic
def filled(_typing: Any, array: Any, value: Any) -> Any:
    """A vector of `array`'s dtype of which every lane is the number `value`."""
    vector = Vector(array.dtype)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        scalar = context.cast(builder, arguments[1], signature.args[1], array.dtype)
        return _spread(builder, context.get_value_type(vector), scalar)

    return vector(array, value), generate


@intrinsic
def fma(_typing: Any, a: Any, b: Any, c: Any) -> Any:
    """a b + c, rounded once."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return Code(context, builder, a.dtype).fma(*arguments)

    return a(a, a, a), generate


@intrinsic
def add(_typing: Any, a: Any, b: Any) -> Any:
    """a + b."""
    return a(a, a), lambda context, builder, signature, ab: builder.fadd(*ab)


@intrinsic
def sub(_typing: Any, a: Any, b: Any) -> Any:
    """a - b."""
    return a(a, a), lambda context, builder, signature, ab: builder.fsub(*ab)


@intrinsic
def mul(_typing: Any, a: Any, b: Any) -> Any:
    """a b, never fused with what is added to it."""
    return a(a, a), lambda context, builder, signature, ab: builder.fmul(*ab)


@intrinsic
def above(_typing: Any, a: Any, b: Any) -> Any:
    """1 where a > b, else 0; 0 where one of them is NaN."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = context.get_value_type(a)
        one = ir.Constant(kind, [1.0] * a.lanes)
        zero = ir.Constant(kind, [0.0] * a.lanes)
        return builder.select(builder.fcmp_ordered(">", *arguments), one, zero)

    return a(a, a), generate


@intrinsic
def div(_typing: Any, a: Any, b: Any) -> Any:
    """a / b."""
    return a(a, a), lambda context, builder, signature, ab: builder.fdiv(*ab)


@intrinsic
def magnitude(_typing: Any, a: Any) -> Any:
    """|a|."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return Code(context, builder, a.dtype).magnitude(*arguments)

    return a(a), generate


@intrinsic
def no_less(_typing: Any, a: Any, least: Any) -> Any:
    """`least` where a < least, else a, which may be NaN."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        given, limit = arguments
        return builder.select(builder.fcmp_ordered("<", given, limit), limit, given)

    return a(a, a), generate


@intrinsic
def transpose(_typing: Any, source: Any, first: Any, target: Any) -> Any:
    """As many vectors as one has lanes, from source[first] on, transposed to the beginning of
    `target`."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        given, index, made = arguments
        code = Code(context, builder, source.dtype)
        count = code.vector.lanes
        rows = [
            code.load(code.at(signature.args[0], given, index, row * count)) for row in range(count)
        ]
        number = ir.IntType(32)
        apart = 1
        while apart < count:  # swaps what lies across the diagonal of every square of 2 apart
            upper = [l - apart + count if l & apart else l for l in range(count)]
            lower = [l + count if l & apart else l + apart for l in range(count)]
            masks = [ir.Constant(ir.VectorType(number, count), m) for m in (upper, lower)]
            for row in range(count):
                if not row & apart:
                    pair = rows[row], rows[row + apart]
                    rows[row], rows[row + apart] = (
                        builder.shuffle_vector(*pair, mask) for mask in masks
                    )
            apart *= 2
        for row, vector in enumerate(rows):
            place = ir.Constant(ir.IntType(64), row * count)
            code.store(code.at(signature.args[2], made, place), vector)
        return context.get_dummy_value()

    return types.void(source, types.intp, target), generate
