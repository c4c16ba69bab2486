"""Surrogate gradients: what stands for ds/dV in the backward pass of a spike.

A surrogate is any function of (u, threshold), u = V - threshold, that returns the derivative in the
shape of u; the operators take its result as data. `threshold` broadcasts against u. One that has an
attribute `elementwise = True` promises that an element follows from its own u and threshold alone:
on a CPU it is then shared out over the kernels' threads and goes through the cache piece by piece,
any other is computed by one thread. Those here promise it, and a kernel computes them in one pass,
except in half precision, under a transform, with numbers beyond the dtype, or without Numba or
Triton. They are small frozen dataclasses, so that they compare, print and pickle.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import ClassVar

import torch
from torch import Tensor

from .validation import check_choice, check_positive_number

Surrogate = Callable[[Tensor, Tensor], Tensor]
_LEAST_DEVIATION = 1e-150


def least_exponent(dtype: torch.dtype) -> int:
    """Where exponents end: e to it is 1.8e-35 in float32, and a thousandth of that a normal number.

    A neuron far from its threshold would have PyTorch compute smaller ones, which takes a CPU up to
    170 times as long and can be seen in no gradient: kernels/README.md. (Half precision is computed
    in float32.)
    """
    computed = torch.float64 if dtype == torch.float64 else torch.float32
    return math.ceil(math.log(torch.finfo(computed).tiny)) + 7


class _Positive:
    """All parameters of a surrogate are positive and finite."""

    def __post_init__(self) -> None:
        for field in fields(self):  # type: ignore[arg-type]
            check_positive_number(f"{type(self).__name__}.{field.name}", getattr(self, field.name))


@dataclass(frozen=True)
class Triangular(_Positive):
    """height * max(0, 1 - |u| / (width * threshold)).

    Args:
        height: Derivative at the threshold, positive. Default: 1.
        width: Distance from the threshold where it is 0, in units of the threshold. Default: 1.

    Source:
        Bellec et al. 2018; the synthetic tasks of HetSyn.

    Example:
        >>> Triangular()(torch.tensor([-0.5, 0.0, 2.0]), torch.tensor(1.0))
        tensor([0.5000, 1.0000, 0.0000])
    """

    elementwise: ClassVar[bool] = True

    height: float = 1.0
    width: float = 1.0

    def __call__(self, u: Tensor, threshold: Tensor) -> Tensor:
        return self.height * (1 - u.abs() / (self.width * threshold)).clamp(min=0)


@dataclass(frozen=True)
class MultiGaussian(_Positive):
    """A Gaussian with two negative side lobes.

        scale * [(1 + height) N(u; 0, width) - height N(u; width, ratio width)
                 - height N(u; -width, ratio width)]

    Args:
        scale: Factor of the whole, positive. Default: 0.5.
        height: Height of the side lobes, positive. Default: 0.15.
        width: Standard deviation of the middle one, positive. Default: 0.5.
        ratio: How much wider the side lobes are, positive. Default: 6.

    Source:
        Yin et al. 2021; the data sets of HetSyn.

    Example:
        >>> MultiGaussian()(torch.tensor([0.0]), torch.tensor(1.0))
        tensor([0.4391])
    """

    elementwise: ClassVar[bool] = True

    scale: float = 0.5
    height: float = 0.15
    width: float = 0.5
    ratio: float = 6.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, deviation in (("width", self.width), ("ratio * width", self.ratio * self.width)):
            if not _LEAST_DEVIATION <= deviation <= 1 / _LEAST_DEVIATION:
                raise ValueError(
                    f"MultiGaussian.{name}: expected {_LEAST_DEVIATION} to {1 / _LEAST_DEVIATION},"
                    f" whose squares float64 can hold, got {deviation}"
                )

    def __call__(self, u: Tensor, threshold: Tensor) -> Tensor:
        least = least_exponent(u.dtype)

        def bump(mean: float, deviation: float, factor: float) -> Tensor:
            """factor N(u; mean, deviation), in few operations: each goes over all of u."""
            moved = u - mean if mean else u
            # A tensor's logarithm: of a number that it traces, torch.compile can make none.
            height = (u.new_ones(()) * (factor / (deviation * math.sqrt(2 * math.pi)))).log()
            inside = torch.addcmul(height, moved, moved, value=-0.5 / deviation**2)
            return torch.exp(inside.clamp(min=least))

        wide, side = self.ratio * self.width, self.scale * self.height
        sides = bump(self.width, wide, side) + bump(-self.width, wide, side)
        return bump(0.0, self.width, self.scale * (1 + self.height)) - sides


@dataclass(frozen=True)
class ATan(_Positive):
    """(slope / 2) / (1 + (pi slope u / 2)²).

    Args:
        slope: Steepness, positive. Default: 2.

    Source:
        Fang et al. 2021.

    Example:
        >>> ATan()(torch.tensor([0.0]), torch.tensor(1.0))
        tensor([1.])
    """

    elementwise: ClassVar[bool] = True

    slope: float = 2.0

    def __call__(self, u: Tensor, threshold: Tensor) -> Tensor:
        return (self.slope / 2) / (1 + (math.pi * self.slope / 2 * u) ** 2)


@dataclass(frozen=True)
class FastSigmoid(_Positive):
    """1 / (1 + slope |u|)², the derivative of the fast sigmoid.

    Args:
        slope: Steepness, positive. Default: 10.

    Source:
        Zenke and Ganguli 2018, who call learning with it SuperSpike.

    Example:
        >>> FastSigmoid()(torch.tensor([0.0, 0.1]), torch.tensor(1.0))
        tensor([1.0000, 0.2500])
    """

    elementwise: ClassVar[bool] = True

    slope: float = 10.0

    def __call__(self, u: Tensor, threshold: Tensor) -> Tensor:
        return 1 / (1 + self.slope * u.abs()) ** 2


SuperSpike = FastSigmoid
"""The name Zenke and Ganguli gave to learning with `FastSigmoid`."""


@dataclass(frozen=True)
class Sigmoid(_Positive):
    """slope sigma(slope u) (1 - sigma(slope u)), the derivative of the logistic function.

    Args:
        slope: Steepness, positive. Default: 4.

    Example:
        >>> Sigmoid()(torch.tensor([0.0]), torch.tensor(1.0))
        tensor([1.])
    """

    elementwise: ClassVar[bool] = True

    slope: float = 4.0

    def __call__(self, u: Tensor, threshold: Tensor) -> Tensor:
        # Of the side where sigma is small: 1 - sigma would round on the other.
        sigma = torch.sigmoid((-self.slope * u.abs()).clamp(min=least_exponent(u.dtype)))
        return self.slope * sigma * (1 - sigma)


SURROGATES: dict[str, Callable[[], Surrogate]] = {
    "triangular": Triangular,
    "multi-gaussian": MultiGaussian,
    "atan": ATan,
    "fast-sigmoid": FastSigmoid,
    "superspike": SuperSpike,
    "sigmoid": Sigmoid,
}


def surrogate_by_name(name: str) -> Surrogate:
    """Return a surrogate with its default parameters.

    Args:
        name: One of `SURROGATES`.

    Raises:
        ValueError: If there is no such name; the message lists all.

    Example:
        >>> surrogate_by_name("atan")
        ATan(slope=2.0)
    """
    check_choice("surrogate", name, tuple(SURROGATES))
    return SURROGATES[name]()
