"""Surrogates in one pass on the CPU: within rounding, and what is computed so at all."""

import math
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import pytest
import torch
from torch import Tensor

import surrogate_proofs as proofs
from hetsyn_triton import HetSynLIF
from hetsyn_triton.kernels.cpu import surrogate as kernel
from hetsyn_triton.kernels.cpu.exponential import exp
from hetsyn_triton.kernels.cpu.vectors import lanes, load, store
from hetsyn_triton.ops import in_one_pass
from hetsyn_triton.surrogates import MultiGaussian, Triangular

DTYPES = [torch.float32, torch.float64]
CPU = torch.device("cpu")


@numba.njit
def _exp(x, out):
    for n in range(0, x.size, lanes(x)):
        store(out, n, exp(load(x, n)))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_exponential(dtype: Any) -> None:
    """Within a unit in the last place of all normal results, against one with more digits."""
    limits = np.finfo(dtype)
    low, high = limits.minexp * math.log(2), limits.maxexp * math.log(2)
    draw = np.random.default_rng(0)
    x = np.concatenate(
        [draw.uniform(low, high, 1 << 18), draw.uniform(-1, 1, 1 << 18), [0.0, -0.0] * 8]
    ).astype(dtype)
    x = np.clip(x, np.nextafter(dtype(low), dtype(0)), np.nextafter(dtype(high), dtype(0)))
    found = np.empty_like(x)
    _exp(x, found)
    longer = np.float64 if dtype is np.float32 else np.longdouble
    if np.finfo(longer).nmant <= limits.nmant:
        pytest.skip("this machine has no longer number to compare with")
    exact = np.exp(x.astype(longer))
    assert float(np.max(np.abs(found - exact) / np.spacing(exact.astype(dtype)))) < 1


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_where_exponentials_end(dtype: Any) -> None:
    limits = np.finfo(dtype)
    least, most = math.log(limits.tiny), math.log(limits.max)
    beyond = [-math.inf, -1e30, least * (1 + 1e-6), math.nan, most * (1 + 1e-6), 1e30, math.inf, 0]
    x = np.array([*beyond, *beyond], dtype)
    found = np.empty_like(x)
    _exp(x, found)
    expected = np.array([0, 0, 0, math.nan, math.inf, math.inf, math.inf, 1] * 2, dtype)
    assert np.array_equal(found, expected, equal_nan=True)
    whole = np.dtype(f"u{x.itemsize}")
    nan = np.full(16, math.nan, dtype).view(whole) + np.arange(16, dtype=whole)  # low bits set
    _exp(nan.view(dtype), found)
    assert np.isnan(found).all()


SHAPES = [(1, 3, 2, 5), (2, 7, 5, 12), (3, 1, 1, 1), (1, 40, 3, 64), (2, 90, 11, 17), (2, 1, 1, 40)]
"""Rows shorter and longer than a vector; the fifth has two tasks a replica, and the second begins
and ends within a row."""


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("surrogate", proofs.BUILT_IN, ids=str)
def test_within_rounding(
    surrogate: Any,
    shape: tuple[int, int, int, int],
    dtype: torch.dtype,
    on_threads: Callable[[int], None],
) -> None:
    """And threads change no bit."""
    given = proofs.potentials(*shape, CPU, dtype)
    made = []
    for threads in (1, 2, 3):
        on_threads(threads)
        made.append(proofs.derivative(kernel, surrogate, *given))
    proofs.is_within_rounding(surrogate, *given, made[0])
    assert all(torch.equal(made[0], other) for other in made)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("surrogate", proofs.BUILT_IN, ids=str)
def test_what_is_not_finite(surrogate: Any, dtype: torch.dtype) -> None:
    proofs.keeps_what_is_not_finite(kernel, surrogate, CPU, dtype)


def test_no_elements_and_strides() -> None:
    proofs.takes_no_elements_and_strides(kernel, CPU)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [1e-15, 1e15, 1e22])
def test_widths_at_the_ends(width: float, dtype: torch.dtype) -> None:
    proofs.takes_widths_at_the_ends(kernel, width, CPU, dtype)


def test_numbers_beyond_the_dtype_are_pytorchs() -> None:
    for width in (1e-25, 1e-200):
        assert in_one_pass.numbers_of(MultiGaussian(width=width), torch.float32) is None
    assert in_one_pass.numbers_of(MultiGaussian(width=1e-25), torch.float64) is not None
    assert in_one_pass.numbers_of(MultiGaussian(width=1e-200), torch.float64) is None
    assert in_one_pass.numbers_of(Triangular(height=1e39), torch.float32) is None
    small = MultiGaussian(scale=1e-300, height=1e-300)
    assert all(in_one_pass.numbers_of(small, dtype) is not None for dtype in DTYPES)


@pytest.fixture
def one_pass(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The kinds that the kernel was asked for."""
    return proofs.noting(kernel, monkeypatch)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_built_in_one(dtype: torch.dtype, one_pass: list[str]) -> None:
    proofs.every_built_in_one(one_pass, CPU, dtype)


@pytest.mark.parametrize(
    ("surrogate", "dtype"),
    [
        (proofs.flat_top, torch.float32),
        (proofs.Steeper(), torch.float32),
        (Triangular(), torch.bfloat16),
    ],
    ids=["one's own", "derived", "bfloat16"],
)
def test_what_pytorch_computes(
    surrogate: Callable[[Tensor, Tensor], Tensor], dtype: torch.dtype, one_pass: list[str]
) -> None:
    proofs.pytorch_computes(surrogate, dtype, one_pass, CPU)


@pytest.mark.parametrize("recurrent", [False, True])
def test_gradients_of_a_layer(
    recurrent: bool, one_pass: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = torch.Generator().manual_seed(1)
    kind = {"recurrent": recurrent, "surrogate": MultiGaussian(), "dtype": torch.float64}
    layer = HetSynLIF(6, 5, generator=generator, **kind)
    proofs.gradients_to_rounding(layer, one_pass, monkeypatch, 1e-12)


def test_nothing_of_it_under_a_trace_or_a_transform(
    one_pass: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    proofs.nothing_under_a_trace_or_a_transform(one_pass, CPU, monkeypatch)


@pytest.mark.parametrize("what", ["missing", "broken"])
def test_pytorch_where_numba_is_not(
    what: str, one_pass: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    proofs.nothing_without_the_package(what, one_pass, CPU, monkeypatch)
