"""A-priori rounding bounds: how far a correct program may be from the float64 truth.

Every operator between two thresholds is linear, and a sum of products of its arguments. A program
that evaluates it with at most n roundings on the way of any term errs by at most gamma_n times the
same sum over absolute values. gamma_n = n u / (1 - n u), and u = 2^-24 for float32, 2^-53 for
float64 (Higham, Accuracy and Stability of Numerical Algorithms, ch. 3). The sum over absolute
values is the operator itself, of the absolute values of its arguments, in float64.

The truth of a float64 program rounds as much as the program, so the bound is twice as large there.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

UNIT = {torch.float32: 2.0**-24, torch.float64: 2.0**-53}
"""The relative error of one rounding."""


def gamma(roundings: Any, dtype: torch.dtype = torch.float32) -> Any:
    """n u / (1 - n u), of a number or a tensor of numbers."""
    error = roundings * UNIT[dtype]
    return error / (1 - error)


def relative_bound(dtype: torch.dtype, roundings: Any) -> Any:
    """The share of the sum over absolute values that a result of `dtype` may be off."""
    return (2 if dtype == torch.float64 else 1) * gamma(roundings, dtype)


def assert_within(
    found: Tensor, exact: Tensor, magnitude: Tensor, roundings: int, what: str = ""
) -> float:
    """Assert that `found` is within its bound everywhere; return the largest share of it used."""
    assert found.shape == exact.shape == magnitude.shape, what
    assert not found.isnan().any(), f"{what}: NaN"
    if found.numel() == 0:
        return 0.0
    error = (found.double() - exact).abs()
    # Subnormal numbers round to a fixed grid, in the CPU kernels to 0.
    grid = roundings * torch.finfo(found.dtype).tiny
    bound = relative_bound(found.dtype, roundings) * magnitude + grid
    share: float = (error / bound).max().item()
    assert share <= 1.0, f"{what}: error is {share:.3g} times the bound"
    return share


def assert_spikes_follow(
    spikes: Tensor, potential: Tensor, magnitude: Tensor, threshold: Tensor, roundings: Any
) -> None:
    """Each spike equals (V > theta) for the exact V, but where V is within rounding of theta.

    potential (exact, teacher-forced) and magnitude [R, T, B, J], threshold [R, J], roundings a
    number or [T, 1, 1].
    """
    theta = threshold.double()[:, None, None]
    margin = (potential - theta).abs()
    flipped = spikes.bool() != (potential > theta)
    bound = relative_bound(spikes.dtype, roundings) * (magnitude + theta.abs())
    wrong = flipped & (margin > bound)
    assert not wrong.any(), f"{int(wrong.sum())} spikes differ, margin {margin[wrong].max():.3g}"
    assert bool(((spikes == 0) | (spikes == 1)).all())


def sparse(elements: int, device: torch.device, folder: Path) -> Tensor:
    """float32 memory of which only the touched pages exist: for strides beyond 32 bits.

    On the CPU a file with holes; a GPU has to hold it all, and the test is skipped where it cannot.
    """
    if device.type == "cpu":
        return torch.from_file(str(folder / "sparse"), shared=True, size=elements)
    if torch.cuda.mem_get_info()[0] < 4.5 * elements:
        pytest.skip(f"needs {4.5 * elements / 1e9:.0f} GB of free device memory")
    return torch.empty(elements, device=device)
