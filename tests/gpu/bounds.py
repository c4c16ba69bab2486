"""A-priori rounding bounds: how far a correct float32 program may be from the float64 truth.

Every operator between two thresholds is linear, and a sum of products of its arguments. A program
that evaluates it in float32 with at most n roundings on the way of any term errs by at most
gamma_n times the same sum over absolute values, gamma_n = n u / (1 - n u), u = 2^-24 (Higham,
Accuracy and Stability of Numerical Algorithms, ch. 3). The sum over absolute values is the operator
itself, of the absolute values of its arguments, in float64.
"""

from pathlib import Path

import pytest
import torch
from torch import Tensor

UNIT = 2.0**-24


def gamma(roundings: int) -> float:
    """n u / (1 - n u)."""
    return roundings * UNIT / (1 - roundings * UNIT)


def assert_within(
    found: Tensor, exact: Tensor, magnitude: Tensor, roundings: int, what: str = ""
) -> float:
    """|found - exact| <= gamma_n magnitude everywhere; returns the largest share of it used."""
    assert found.shape == exact.shape == magnitude.shape, what
    assert not found.isnan().any(), f"{what}: NaN"
    if found.numel() == 0:
        return 0.0
    error = (found.double() - exact).abs()
    # Numbers below the smallest normal one round to a fixed grid.
    bound = gamma(roundings) * magnitude + roundings * torch.finfo(torch.float32).tiny
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
    bound = gamma(roundings) * (magnitude + theta.abs())
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
