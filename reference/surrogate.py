"""The derivatives of the built-in surrogates, as `kernels/surrogate_kinds.py` defines them."""

from collections.abc import Sequence

import torch
from torch import Tensor


def surrogate(potential: Tensor, threshold: Tensor, kind: str, numbers: Sequence[float]) -> Tensor:
    """V [R, T, B, J] and theta [R, J] -> ds/dV [R, T, B, J]."""
    theta = threshold[:, None, None]
    u = potential - theta
    if kind == "triangular":
        height, width = numbers
        return height * (1 - u.abs() / (width * theta)).clamp(min=0)
    if kind == "multi_gaussian":
        height, fall, side_height, side_fall, mean, least = numbers
        sides = _bump(u - mean, side_height, side_fall, least)
        sides = sides + _bump(u + mean, side_height, side_fall, least)
        return _bump(u, height, fall, least) - sides
    if kind == "atan":
        height, slope = numbers
        return height / (1 + (slope * u) ** 2)
    if kind == "fast_sigmoid":
        (slope,) = numbers
        return 1 / (1 + slope * u.abs()) ** 2
    slope, least = numbers
    sigma = torch.sigmoid((-slope * u.abs()).clamp(min=least))
    return slope * sigma * (1 - sigma)


def _bump(u: Tensor, height: float, fall: float, least: float) -> Tensor:
    """exp(max(height - fall u^2, least)): no subnormal number, which a CPU computes slowly."""
    return torch.exp(torch.addcmul(u.new_full((), height), u, u, value=-fall).clamp(min=least))
