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
    """A distribution: `initializer(shape, generator)` draws a float64 tensor on the CPU.

    Any function of this form serves as `tau` or `weight_init` of a layer. It should use
    `generator`, so that a seed decides what is drawn.

    Example:
        >>> def ones(shape, generator=None):
        ...     return torch.ones(shape, dtype=torch.float64)
        >>> isinstance(ones, Initializer)
        True
    """

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
    """The same value everywhere.

    Args:
        value: The value, finite.

    Raises:
        ValueError: If the value is not finite.
        TypeError: If it is not a number.

    Example:
        >>> Constant(3.0)((2,))
        tensor([3., 3.], dtype=torch.float64)
    """

    value: float

    def __call__(self, shape: Sequence[int], generator: torch.Generator | None = None) -> Tensor:
        return torch.full(tuple(shape), float(self.value), dtype=torch.float64, device="cpu")

    @property
    def mean(self) -> float:
        return self.value


@dataclass(frozen=True)
class Uniform(_Finite):
    """Uniform from `low` to `high`.

    Args:
        low: Lower end, finite.
        high: Upper end, finite, at least `low`.

    Raises:
        ValueError: If an end is not finite, or `low` is above `high`.
        TypeError: If an end is not a number.

    Example:
        >>> drawn = Uniform(5.0, 20.0)((4, 8))
        >>> drawn.shape, bool(((drawn >= 5) & (drawn <= 20)).all())
        (torch.Size([4, 8]), True)
    """

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
    """Normal distribution.

    As time constants, values that are not positive are drawn again.

    Args:
        mean: Mean, finite.
        std: Standard deviation, finite, at least 0.

    Raises:
        ValueError: If a value is not finite, or the deviation is negative.
        TypeError: If a value is not a number.

    Example:
        >>> Normal(100.0, 10.0)((4, 8)).shape
        torch.Size([4, 8])
    """

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
    """Uniform in the logarithm, from `low` to `high`.

    Args:
        low: Lower end, positive.
        high: Upper end, finite, at least `low`.

    Raises:
        ValueError: If an end is not finite or not positive, or `low` is above `high`.
        TypeError: If an end is not a number.

    Example:
        >>> round(LogUniform(2.0, 100.0).mean, 2)
        25.05
    """

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
    """Normal distribution with mean 0 and variance gain² / fan_in, where fan_in is the last axis.

    Args:
        gain: Factor of the standard deviation, finite. Default: 1, as in HetSyn.

    Raises:
        ValueError: If the gain is not finite.
        TypeError: If it is not a number.

    Example:
        >>> FanInNormal()((4, 8)).shape
        torch.Size([4, 8])
    """

    gain: float = 1.0

    def __call__(self, shape: Sequence[int], generator: torch.Generator | None = None) -> Tensor:
        return Normal(0.0, abs(self.gain) / math.sqrt(shape[-1]))(shape, generator)
