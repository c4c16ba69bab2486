"""A-priori rounding bounds: how far a correct float32 program may be from the float64 truth.

Every operator between two thresholds is linear, and a sum of products of its arguments. A program
that evaluates it in float32 with at most n roundings on the way of any term errs by at most
gamma_n times the same sum over absolute values, gamma_n = n u / (1 - n u), u = 2^-24 (Higham,
Accuracy and Stability of Numerical Algorithms, ch. 3). The sum over absolute values is the operator
itself, of the absolute values of its arguments, in float64.

A program that runs in float64 has no finer truth beside it: there the bound is 1e-12 of the sum
over absolute values, whatever n.
"""

from pathlib import Path

import pytest
import torch
from torch import Tensor

UNIT = 2.0**-24


DOUBLE = 1e-12


def gamma(roundings: int) -> float:
    """n u / (1 - n u)."""
    return roundings * UNIT / (1 - roundings * UNIT)


def relative_bound(dtype: torch.dtype, roundings: int) -> float:
    """The share of the sum over absolute values that a result of `dtype` may be off."""
    return DOUBLE if dtype == torch.float64 else gamma(roundings)


def assert_within(
    found: Tensor, exact: Tensor, magnitude: Tensor, roundings: int, what: str = ""
) -> float:
    """|found - exact| <= gamma_n magnitude everywhere (float64: 1e-12 of it); returns the largest
    share of the bound used."""
    assert found.shape == exact.shape == magnitude.shape, what
    assert not found.isnan().any(), f"{what}: NaN"
    if found.numel() == 0:
        return 0.0
    error = (found.double() - exact).abs()
    # Numbers below the smallest normal one round to a fixed grid, in the CPU kernels to 0.
    grid = roundings * torch.finfo(found.dtype).tiny
    bound = relative_bound(found.dtype, roundings) * magnitude + grid
    share = (error / bound).max().item()
    assert share <= 1.0, f"{what}: error is {share:.3g} times the bound"
    return share


def assert_spikes_follow(
    spikes: Tensor, potential: Tensor, magnitude: Tensor, threshold: Tensor, roundings: int
) -> None:
    """Each spike equals (V > theta) for the exact V, but where V is within rounding of theta.

    potential (exact, teacher-forced) and magnitude [R, T, B, J], threshold [R, J].
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
