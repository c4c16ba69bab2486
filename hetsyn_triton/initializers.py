"""Distributions to draw weights and time constants from, as small frozen dataclasses."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from .validation import (
    check_finite_number,
    check_not_negative,
    check_positive_number,
    check_shape,
    check_tensor,
)


@runtime_checkable
class Initializer(Protocol):
    """Draws a tensor: `initializer(shape, generator)` -> float64 tensor on the CPU."""

    def __call__(
        self, shape: Sequence[int], generator: torch.Generator | None = None
    ) -> Tensor: ...


def draw(
    name: str, initializer: object, shape: Sequence[int], generator: torch.Generator | None = None
) -> Tensor:
    """What `initializer` draws for argument `name`; errors for what is no initializer, for a class
    instead of an instance, and for a result of another shape."""
    if isinstance(initializer, type):
        raise TypeError(
            f"{name}: expected a distribution such as Constant(1.0), "
            f"got the class {initializer.__name__} itself"
        )
    if not isinstance(initializer, Initializer):
        raise TypeError(
            f"{name}: expected a distribution such as Constant(1.0), "
            f"got {type(initializer).__name__}"
        )
    drawn = initializer(shape, generator)
    check_tensor(name, drawn)
    check_shape(name, drawn, shape, "as asked for")
    return drawn


class _Finite:
    """All parameters are finite numbers."""

    def __post_init__(self) -> None:
        for field in fields(self):  # type: ignore[arg-type]
            check_finite_number(f"{type(self).__name__}.{field.name}", getattr(self, field.name))


def _ordered(name: str, low: float, high: float) -> None:
    if low > high:
        raise ValueError(f"{name}: expected low <= high, got low={low}, high={high}")


def _uniform(shape: Sequence[int], generator: torch.Generator | None) -> Tensor:
    # Drawn on the CPU in float64: the same seed gives the same network on every device and dtype.
    return torch.rand(tuple(shape), generator=generator, dtype=torch.float64, device="cpu")


@dataclass(frozen=True)
class Constant(_Finite):
    """The same value everywhere."""

    value: float

    def __call__(self, shape: Sequence[int], generator: torch.Generator | None = None) -> Tensor:
        return torch.full(tuple(shape), float(self.value), dtype=torch.float64, device="cpu")

    @property
    def mean(self) -> float:
        return self.value


@dataclass(frozen=True)
class Uniform(_Finite):
    """Uniform in [low, high]."""

    low: float
    high: float

    def __post_init__(self) -> None:
        super().__post_init__()
        _ordered("Uniform", self.low, self.high)

    def __call__(self, shape: Sequence[int], generator: torch.Generator | None = None) -> Tensor:
        return self.low + (self.high - self.low) * _uniform(shape, generator)

    @property
    def mean(self) -> float:
        return (self.low + self.high) / 2


@dataclass(frozen=True)
class Normal(_Finite):
    """Normal with mean `mean` and standard deviation `std`."""

    mean: float
    std: float

    def __post_init__(self) -> None:
        super().__post_init__()
        check_not_negative("Normal.std", self.std)

    def __call__(self, shape: Sequence[int], generator: torch.Generator | None = None) -> Tensor:
        drawn = torch.randn(tuple(shape), generator=generator, dtype=torch.float64, device="cpu")
        return self.mean + self.std * drawn


@dataclass(frozen=True)
class LogUniform(_Finite):
    """Uniform in the logarithm, between `low` and `high`, both positive."""

    low: float
    high: float

    def __post_init__(self) -> None:
        super().__post_init__()
        _ordered("LogUniform", self.low, self.high)
        check_positive_number("LogUniform.low", self.low)

    def __call__(self, shape: Sequence[int], generator: torch.Generator | None = None) -> Tensor:
        span = math.log(self.high / self.low)
        return self.low * torch.exp(span * _uniform(shape, generator))

    @property
    def mean(self) -> float:
        if self.low == self.high:
            return self.low
        return (self.high - self.low) / math.log(self.high / self.low)


@dataclass(frozen=True)
class FanInNormal(_Finite):
    """Normal with mean 0 and variance gain^2 / fan_in (HetSyn: gain 1); fan_in is the last axis."""

    gain: float = 1.0

    def __call__(self, shape: Sequence[int], generator: torch.Generator | None = None) -> Tensor:
        return Normal(0.0, abs(self.gain) / math.sqrt(shape[-1]))(shape, generator)
