"""Distributions to draw weights and time constants from, as small frozen dataclasses."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor


@runtime_checkable
class Initializer(Protocol):
    """Draws a tensor: `initializer(shape, generator)` -> float64 tensor on the CPU."""

    def __call__(
        self, shape: Sequence[int], generator: torch.Generator | None = None
    ) -> Tensor: ...


class _Finite:
    """All parameters are finite numbers."""

    def __post_init__(self) -> None:
        for field in fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if not isinstance(value, (int, float)) or not math.isfinite(value):
                raise ValueError(
                    f"{type(self).__name__}.{field.name}: expected a finite number, got {value!r}"
                )


def _ordered(name: str, low: float, high: float) -> None:
    if low > high:
        raise ValueError(f"{name}: expected low <= high, got low={low}, high={high}")


def _uniform(shape: Sequence[int], generator: torch.Generator | None) -> Tensor:
    # Drawn on the CPU in float64: the same seed gives the same network on every device and dtype.
    return torch.rand(tuple(shape), generator=generator, dtype=torch.float64)


@dataclass(frozen=True)
class Constant(_Finite):
    """The same value everywhere."""

    value: float

    def __call__(self, shape: Sequence[int], generator: torch.Generator | None = None) -> Tensor:
        return torch.full(tuple(shape), float(self.value), dtype=torch.float64)

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
        if self.std < 0:
            raise ValueError(f"Normal.std: expected a number >= 0, got {self.std!r}")

    def __call__(self, shape: Sequence[int], generator: torch.Generator | None = None) -> Tensor:
        drawn = torch.randn(tuple(shape), generator=generator, dtype=torch.float64)
        return self.mean + self.std * drawn


@dataclass(frozen=True)
class LogUniform(_Finite):
    """Uniform in the logarithm, between `low` and `high`, both positive."""

    low: float
    high: float

    def __post_init__(self) -> None:
        super().__post_init__()
        _ordered("LogUniform", self.low, self.high)
        if self.low <= 0:
            raise ValueError(f"LogUniform.low: expected a positive number, got {self.low!r}")

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
