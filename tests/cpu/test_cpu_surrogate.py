"""The exponential of the CPU kernels, and the surrogates whose numbers they do not take."""

import math
from typing import Any, no_type_check

import numba
import numpy as np
import pytest
import torch
from torch import Tensor

from hetsyn_triton.kernels.cpu.lib.exponential import exp
from hetsyn_triton.kernels.cpu.lib.vectors import lanes, load, store
from hetsyn_triton.ops.dispatch import NUMBA, Kernels
from hetsyn_triton.ops.surrogate import derivative, numbers_of
from hetsyn_triton.surrogates import ATan, FastSigmoid, MultiGaussian, Sigmoid, Triangular
from tests.support.surrogate_cases import potentials

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


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The kinds that the kernel is asked for."""
    found = []
    run = Kernels.launcher(NUMBA, "surrogate")

    def noted(potential: Tensor, threshold: Tensor, kind: str, numbers: list[float]) -> Tensor:
        found.append(kind)
        result: Tensor = run(potential, threshold, kind, numbers)
        return result

    monkeypatch.setattr(Kernels, "launcher", lambda *_: noted)
    return found


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
    surrogate: Any, dtype: torch.dtype, asked: list[str]
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
    assert asked == []


def test_small_numbers_that_are_normal_are_the_kernels() -> None:
    assert numbers_of(MultiGaussian(width=1e-25), torch.float64) is not None
    small = MultiGaussian(scale=1e-300, height=1e-300)
    assert all(numbers_of(small, dtype) is not None for dtype in DTYPES)
    assert numbers_of(Triangular(width=1.2e-38), torch.float32) is not None


def test_thresholds_of_another_dtype_are_pytorchs(asked: list[str]) -> None:
    potential, threshold = potentials(1, 2, 2, 3, CPU)
    found = derivative(Triangular(), potential, threshold.double())
    theta = threshold.double()[:, None, None]
    assert asked == []
    assert torch.equal(found, Triangular()(potential - theta, theta).float())
