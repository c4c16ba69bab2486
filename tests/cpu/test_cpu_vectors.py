"""The vectors that CPU kernels are written with, one operation at a time, against NumPy."""

import ctypes
import mmap
import sys
from fractions import Fraction
from typing import Any, no_type_check

import numba
import numpy as np
import pytest
import torch

from hetsyn_triton.kernels.cpu.lib.arrays import packed, padded
from hetsyn_triton.kernels.cpu.lib.rows import aligned
from hetsyn_triton.kernels.cpu.lib.vectors import (
    BYTES,
    above,
    add,
    div,
    filled,
    fma,
    lanes,
    lanes_of,
    load,
    load_first,
    magnitude,
    mul,
    no_less,
    prefetch,
    spread,
    store,
    store_first,
    sub,
)

DTYPES = [np.float32, np.float64]


@numba.njit
@no_type_check
def _pairs(a, b, out):
    """out [7, n]: a + b, a - b, a b, a > b, a / b, |a|, a but no less than b."""
    n = a.size
    for i in range(0, n, lanes(a)):
        x, y = load(a, i), load(b, i)
        store(out, i, add(x, y))
        store(out, n + i, sub(x, y))
        store(out, 2 * n + i, mul(x, y))
        store(out, 3 * n + i, above(x, y))
        store(out, 4 * n + i, div(x, y))
        store(out, 5 * n + i, magnitude(x))
        store(out, 6 * n + i, no_less(x, y))


@numba.njit
@no_type_check
def _fma(a, b, c, out):
    for i in range(0, a.size, lanes(a)):
        store(out, i, fma(load(a, i), load(b, i), load(c, i)))


@numba.njit
@no_type_check
def _mul_add(a, b, c, out):
    for i in range(0, a.size, lanes(a)):
        store(out, i, add(mul(load(a, i), load(b, i)), load(c, i)))


@numba.njit
@no_type_check
def _places(source, first, out):
    """One vector each from source[first]: loaded, spread, filled with 3 and with -0.5."""
    store(out, 1, load(source, first))
    store(out, 1 + lanes(out), spread(source, first))
    store(out, 1 + 2 * lanes(out), filled(out, 3))
    store(out, 1 + 3 * lanes(out), filled(out, -0.5))
    return lanes(out)


def special(dtype: Any) -> tuple[np.ndarray, np.ndarray]:
    """All pairs of numbers at which comparisons and arithmetic go wrong, in whole vectors."""
    limits = np.finfo(dtype)
    one = dtype(1)
    numbers = [0.0, -0.0, 1.0, -1.0, np.nextafter(one, dtype(2)), np.nextafter(one, dtype(0))]
    numbers += [np.inf, -np.inf, np.nan, limits.max, -limits.max, limits.tiny, -limits.tiny]
    numbers += [limits.smallest_subnormal, -limits.smallest_subnormal, limits.tiny / 2, 0.1, -3.5]
    a, b = (m.ravel() for m in np.meshgrid(*[np.array(numbers, dtype)] * 2))
    missing = -len(a) % lanes_of(a.itemsize)
    return np.pad(a, (0, missing)), np.pad(b, (0, missing))


def bits(array: np.ndarray) -> np.ndarray:
    """Its bits, of which those of a NaN do not matter."""
    plain = np.where(np.isnan(array), array.dtype.type(np.nan), array)
    return plain.view(f"u{array.itemsize}")


def rounded(exact: Fraction, dtype: Any) -> Any:
    """The nearest number of `dtype`, of two the one with the even last bit."""
    near = dtype(float(exact))
    around = (np.nextafter(near, dtype(-np.inf)), near, np.nextafter(near, dtype(np.inf)))
    last_bit = f"u{near.itemsize}"
    return min(around, key=lambda x: (abs(Fraction(float(x)) - exact), int(x.view(last_bit)) % 2))


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_vector_is_64_bytes(dtype: Any) -> None:
    count = lanes_of(np.dtype(dtype).itemsize)
    assert count * np.dtype(dtype).itemsize == BYTES == 64
    source = np.arange(40, dtype=dtype)
    for first in (0, 1, 7, 40 - count):
        out = np.full(2 + 4 * count, np.nan, dtype)
        assert _places(source, first, out) == count
        rows = out[1:-1].reshape(4, count)
        assert np.array_equal(rows[0], source[first : first + count])
        assert (rows[1] == source[first]).all()
        assert (rows[2] == 3).all()
        assert (rows[3] == -0.5).all()
        # And not one element beside it.
        assert np.isnan(out[[0, -1]]).all()


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy's, of infinity less infinity, 1 / 0
@pytest.mark.parametrize("dtype", DTYPES)
def test_arithmetic_and_comparison(dtype: Any) -> None:
    a, b = special(dtype)
    draw = np.random.default_rng(0)
    for x, y in ((a, b), (draw.normal(size=64).astype(dtype), draw.normal(size=64).astype(dtype))):
        out = np.full((7, x.size), np.nan, dtype)
        _pairs(x, y, out.reshape(-1))
        expected = (
            x + y, x - y, x * y, (x > y).astype(dtype), x / y, np.abs(x), np.where(x < y, y, x),
        )  # fmt: skip
        for got, want in zip(out, expected, strict=True):
            assert np.array_equal(bits(got), bits(want))


@pytest.mark.parametrize("dtype", DTYPES)
def test_above_is_strict_and_false_for_nan(dtype: Any) -> None:
    count = lanes_of(np.dtype(dtype).itemsize)
    small, nan = np.finfo(dtype).smallest_subnormal, dtype(np.nan)
    for a, b, want in (
        (0.0, -0.0, 0), (-0.0, 0.0, 0), (1.0, 1.0, 0), (np.inf, np.inf, 0), (small, 0.0, 1),
        (0.0, small, 0), (-0.0, -small, 1), (nan, 0.0, 0), (0.0, nan, 0), (nan, nan, 0),
        (np.inf, nan, 0), (1.0, -np.inf, 1),
    ):  # fmt: skip
        out = np.full((7, count), np.nan, dtype)
        _pairs(np.full(count, a, dtype), np.full(count, b, dtype), out.reshape(-1))
        assert np.array_equal(bits(out[3]), bits(np.full(count, want, dtype))), (a, b)


def cancelling(dtype: Any) -> tuple[np.ndarray, ...]:
    """a, b, c of which c cancels most of a b: what a product's own rounding loses is left."""
    draw = np.random.default_rng(1)
    a, b = (draw.normal(size=512).astype(dtype) for _ in range(2))
    c = -(a * b)
    c[::2] = draw.normal(size=256)
    c[1::8] *= dtype(0.5)
    # Far apart: the double rounding of a sum made in a wider type shows at halves of the last bit.
    a[:64], b[:64] = 1 + np.finfo(dtype).eps, 1 - np.finfo(dtype).eps
    c[:32], c[32:64] = np.finfo(dtype).eps / 2, -1
    return a, b, c


@pytest.mark.parametrize("dtype", DTYPES)
def test_fma_rounds_once(dtype: Any) -> None:
    """Against exact rational arithmetic, rounded to the nearest; a product apart is another."""
    a, b, c = cancelling(dtype)
    out, apart = np.empty_like(a), np.empty_like(a)
    _fma(a, b, c, out)
    exact = [
        Fraction(float(x)) * Fraction(float(y)) + Fraction(float(w))
        for x, y, w in zip(a, b, c, strict=True)
    ]
    assert np.array_equal(out, np.array([rounded(e, dtype) for e in exact], dtype))
    _mul_add(a, b, c, apart)
    assert np.array_equal(apart, a * b + c)
    assert (apart != out).sum() > 100


@pytest.mark.parametrize("dtype", DTYPES)
def test_fma_beyond_the_numbers(dtype: Any) -> None:
    """Its product may overflow where the sum does not; infinity and NaN go through."""
    count = lanes_of(np.dtype(dtype).itemsize)
    large = np.finfo(dtype).max
    for a, b, c, want in (
        (large, 2.0, -large, large), (large, 2.0, 0.0, np.inf), (np.inf, 0.0, 1.0, np.nan),
        (np.inf, 1.0, -np.inf, np.nan), (0.0, -1.0, 0.0, 0.0), (0.0, -1.0, -0.0, -0.0),
        (np.nan, 0.0, 0.0, np.nan),
    ):  # fmt: skip
        out = np.empty(count, dtype)
        _fma(*(np.full(count, x, dtype) for x in (a, b, c)), out)
        assert np.array_equal(bits(out), bits(np.full(count, want, dtype))), (a, b, c)


@pytest.mark.parametrize("dtype", DTYPES)
def test_small_numbers_are_not_flushed(dtype: Any) -> None:
    """By the functions themselves: it is `threads.run` that makes them 0 inside a kernel."""
    count = lanes_of(np.dtype(dtype).itemsize)
    small = np.finfo(dtype).smallest_subnormal
    out = np.empty(count, dtype)
    _fma(*(np.full(count, x, dtype) for x in (small, 3.0, small)), out)
    assert (out == 4 * small).all()
    assert (out > 0).all()


@numba.njit
@no_type_check
def _address_of_room(count, like):
    return aligned(count, like).ctypes.data


@numba.njit
@no_type_check
def _first(source, first, used, target, place, whole):
    store(whole, 0, load_first(source, first, used))
    store_first(target, place, used, load(whole, 0))


def _before_a_wall(count: int, dtype: Any) -> np.ndarray:
    """Memory for `count` numbers, after which no address may be read or written."""
    page = mmap.PAGESIZE
    memory = np.frombuffer(mmap.mmap(-1, 2 * page), dtype)
    wall = ctypes.c_void_p(memory.ctypes.data + page)
    assert ctypes.CDLL(None, use_errno=True).mprotect(wall, ctypes.c_size_t(page), 0) == 0
    return memory[page // memory.itemsize - count : page // memory.itemsize]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mprotect as Linux has it")
@pytest.mark.parametrize("dtype", DTYPES)
def test_first_lanes(dtype: Any) -> None:
    """Only they are read and written: what comes after them need not exist."""
    L = lanes_of(np.dtype(dtype).itemsize)
    for used in range(L + 1):
        source = _before_a_wall(used + 2, dtype)
        source[:] = np.arange(used + 2) + 1
        target = _before_a_wall(used + 1, dtype)
        target[:] = -1
        whole = np.full(L, np.nan, dtype)
        _first(source, 2, used, target, 1, whole)
        assert np.array_equal(whole, [*range(3, used + 3), *[0] * (L - used)])
        assert np.array_equal(target, [-1, *range(3, used + 3)])
        longer = np.full(L + 2, -1, dtype)
        _first(source, 2, used, longer, 1, whole)
        assert np.array_equal(longer, [-1, *range(3, used + 3), *[-1] * (L - used + 1)])


@numba.njit
@no_type_check
def _sum_reading_ahead(values):
    total = 0.0
    for i in range(values.size):
        prefetch(values, i + (1 << 40))  # far outside the array
        total += values[i]
    return total


@pytest.mark.parametrize("dtype", DTYPES)
def test_room_begins_with_a_cache_line(dtype: Any) -> None:
    """Whatever lies before it; of matrices and neurons' parameters too."""
    for count in range(1, 40):
        kept = np.empty(count, dtype)  # moves what is given next
        assert _address_of_room(count, kept) % BYTES == 0
        made = torch.from_numpy(kept).view(1, 1, count)
        assert packed(made).ctypes.data % BYTES == 0
        assert padded(made).ctypes.data % BYTES == 0


def test_what_is_asked_for_need_not_exist() -> None:
    assert _sum_reading_ahead(np.ones(100)) == 100
