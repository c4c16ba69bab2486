"""Surrogates in one pass on the CPU: within rounding, and what is computed so at all."""

import math
from collections.abc import Callable
from typing import Any, no_type_check

import numba
import numpy as np
import pytest
import torch
from torch import Tensor

from hetsyn_triton import HetSynLIF
from hetsyn_triton.kernels.cpu import surrogate as kernel
from hetsyn_triton.kernels.cpu.lib.exponential import exp
from hetsyn_triton.kernels.cpu.lib.vectors import lanes, load, store
from hetsyn_triton.ops.dispatch import NUMBA
from hetsyn_triton.ops.surrogate import derivative, numbers_of
from hetsyn_triton.surrogates import ATan, FastSigmoid, MultiGaussian, Sigmoid, Triangular
from tests.support import surrogate_proofs as proofs

DTYPES = [torch.float32, torch.float64]
CPU = torch.device("cpu")


@numba.njit
@no_type_check
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
@pytest.mark.parametrize("width", [1e-15, 1e15, 1e18])
def test_widths_at_the_ends(width: float, dtype: torch.dtype) -> None:
    proofs.takes_widths_at_the_ends(kernel, width, CPU, dtype)


@pytest.fixture
def one_pass(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The kinds that the kernel was asked for."""
    return proofs.noting(kernel, monkeypatch)


@pytest.mark.parametrize(
    ("surrogate", "dtype"),
    [
        (MultiGaussian(width=1e-25), torch.float32),
        (MultiGaussian(width=1e22), torch.float32),
        (Triangular(height=1e39), torch.float32),
        (Triangular(width=1e-40), torch.float32),
        (Triangular(width=1e-310), torch.float64),
        *((kind(slope=1e-40), torch.float32) for kind in (ATan, FastSigmoid, Sigmoid)),
    ],
    ids=str,
)
def test_numbers_that_are_not_normal_are_pytorchs(
    surrogate: Any, dtype: torch.dtype, one_pass: list[str]
) -> None:
    """Too large, which PyTorch refuses or makes infinite, or so small that in a kernel they are 0,
    and NaN where V is at the threshold or infinite."""
    potential = torch.tensor([1.0, math.inf, -math.inf, 0.5], dtype=dtype).view(1, 1, 1, 4)
    threshold = torch.ones(1, 4, dtype=dtype)
    try:
        theirs = surrogate(potential - 1, threshold)
    except (RuntimeError, ZeroDivisionError) as error:
        with pytest.raises(type(error)):
            derivative(surrogate, potential, threshold)
    else:
        found = derivative(surrogate, potential, threshold)
        assert torch.equal(found.isnan(), theirs.isnan())
        assert torch.equal(found.nan_to_num(), theirs.nan_to_num())
    assert one_pass == []


def test_small_numbers_that_are_normal_are_the_kernels() -> None:
    assert numbers_of(MultiGaussian(width=1e-25), torch.float64) is not None
    small = MultiGaussian(scale=1e-300, height=1e-300)
    assert all(numbers_of(small, dtype) is not None for dtype in DTYPES)
    assert numbers_of(Triangular(width=1.2e-38), torch.float32) is not None


def test_thresholds_of_another_dtype_are_pytorchs(one_pass: list[str]) -> None:
    potential, threshold = proofs.potentials(1, 2, 2, 3, CPU)
    found = derivative(Triangular(), potential, threshold.double())
    theta = threshold.double()[:, None, None]
    assert one_pass == []
    assert torch.equal(found, Triangular()(potential - theta, theta).float())


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
    kind: dict[str, Any] = {
        "recurrent": recurrent,
        "surrogate": MultiGaussian(),
        "dtype": torch.float64,
    }
    layer = HetSynLIF(6, 5, generator=generator, **kind)
    proofs.gradients_to_rounding(layer, one_pass, monkeypatch, 1e-12)


def test_one_operator_under_a_trace_or_a_transform(
    one_pass: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    proofs.one_operator_under_a_trace_or_a_transform(one_pass, CPU, monkeypatch)


@pytest.mark.parametrize("what", ["missing", "broken"])
def test_the_closed_form_where_numba_is_not(
    what: str, one_pass: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    proofs.closed_form_without_the_package(NUMBA, what, one_pass, CPU, monkeypatch)
