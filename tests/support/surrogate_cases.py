"""Surrogates of every built-in kind, potentials for them, and their rounding bound."""

import math
from typing import Any

import torch
from torch import Tensor

from hetsyn_triton.surrogates import (
    ATan,
    FastSigmoid,
    MultiGaussian,
    Sigmoid,
    Triangular,
    least_exponent,
)

BUILT_IN: list[Any] = [
    Triangular(),
    Triangular(height=0.3, width=2.5),
    MultiGaussian(),
    MultiGaussian(scale=1.3, height=0.4, width=0.2, ratio=3.0),
    ATan(),
    ATan(slope=7.0),
    FastSigmoid(),
    FastSigmoid(slope=90.0),
    Sigmoid(),
    Sigmoid(slope=30.0),
]


def potentials(
    R: int,
    T: int,
    B: int,
    J: int,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
) -> tuple[Tensor, Tensor]:
    """V and theta: most near each other, some far away, some equal."""
    generator = torch.Generator().manual_seed(R + T + B + J)
    threshold = 0.5 + torch.rand(R, J, generator=generator, dtype=dtype)
    far = torch.randn(R, T, B, J, generator=generator, dtype=dtype)
    far *= 10.0 ** torch.randint(-3, 3, far.shape, generator=generator)
    potential = threshold[:, None, None] + far * (torch.rand(far.shape, generator=generator) < 0.9)
    return potential.to(device), threshold.to(device)


def rounding(surrogate: Any, u: Tensor, theta: Tensor, exact: Tensor, dtype: torch.dtype) -> Tensor:
    """What `dtype` may be off by: a few units of each term, of an exponential by its exponent."""
    eps, least = torch.finfo(dtype).eps, math.exp(least_exponent(dtype))
    if isinstance(surrogate, Triangular):
        return 8 * eps * surrogate.height * (1 + u.abs() / (surrogate.width * theta))
    if isinstance(surrogate, MultiGaussian):
        s, off = surrogate, torch.zeros_like(u)
        for mean, width, factor in (
            (0.0, s.width, s.scale * (1 + s.height)),
            (s.width, s.ratio * s.width, s.scale * s.height),
            (-s.width, s.ratio * s.width, s.scale * s.height),
        ):
            height = factor / (width * math.sqrt(2 * math.pi))
            fall = (u - mean) ** 2 / (2 * width**2)
            off += height * (-fall).exp() * (8 + 8 * (fall + abs(math.log(height)))) * eps
        return off + 3 * least
    exponent = surrogate.slope * u.abs() if isinstance(surrogate, Sigmoid) else 0 * u
    return exact.abs() * (16 + 8 * exponent) * eps + 200 * least
