"""Time constants and decays: r = exp(-dt / tau)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .initializers import Constant, Initializer, Normal, draw
from .validation import (
    check_positive,
    check_positive_number,
    check_shape,
    check_unit_interval,
    is_number,
)

TimeConstant = float | Initializer | Tensor
"""A number, a distribution to draw from, or a tensor of given time constants; in the unit of dt."""


def tau_to_decay(tau: Tensor | float, dt: float = 1.0) -> Tensor:
    """Return the decays per step, r = exp(-dt / tau).

    float32 has no numbers between 1 - 6e-8 and 1, so from tau = 1e7 steps on r is 1: the synapse
    never forgets.

    Args:
        tau: Time constants in the unit of `dt`, positive; infinity gives 1. A number gives a
            float64 tensor.
        dt: Length of a step. Default: 1.

    Raises:
        ValueError: If `tau` or `dt` is not positive.
        TypeError: If a type does not fit.

    Example:
        >>> tau_to_decay(torch.tensor([5.0, 20.0]))
        tensor([0.8187, 0.9512])
    """
    dt = check_positive_number("dt", dt)
    tau = _as_tensor("tau", tau)
    if not bool((tau > 0).all()):
        raise ValueError(f"tau: expected positive values, got a smallest of {tau.min().item():g}")
    return torch.exp(-dt / tau)


def decay_to_tau(decay: Tensor | float, dt: float = 1.0) -> Tensor:
    """Return the time constants, tau = -dt / ln(r).

    Args:
        decay: Decays in [0, 1]; 0 gives 0, and 1 gives infinity. A number gives a float64 tensor.
        dt: Length of a step. Default: 1.

    Raises:
        ValueError: If a decay is outside [0, 1], or `dt` is not positive.
        TypeError: If a type does not fit.

    Example:
        >>> decay_to_tau(torch.tensor([0.0, 0.5, 1.0]))
        tensor([0.0000, 1.4427,    inf])
    """
    dt = check_positive_number("dt", dt)
    decay = _as_tensor("decay", decay)
    check_unit_interval("decay", decay)
    return dt / torch.log(decay).abs()


def _as_tensor(name: str, value: Tensor | float) -> Tensor:
    if isinstance(value, Tensor):
        return value
    if not is_number(value):
        raise TypeError(f"{name}: expected a number or a tensor, got {type(value).__name__}")
    return torch.tensor(float(value), dtype=torch.float64, device="cpu")


def draw_tau(
    name: str, tau: TimeConstant, shape: Sequence[int], generator: torch.Generator | None = None
) -> Tensor:
    """Time constants of `shape`, float64 on the CPU, all positive.

    A normal distribution is drawn again wherever it gave a value that is not positive; any other
    source that does raises ValueError.
    """
    if is_number(tau):
        tau = Constant(check_positive_number(name, tau))
    if isinstance(tau, Tensor):
        drawn = tau.detach().to(device="cpu", dtype=torch.float64)
        drawn = drawn.expand(tuple(shape)) if drawn.dim() == 0 else drawn
        check_shape(name, drawn, shape, "one per decay")
    elif callable(tau):
        drawn = draw(name, tau, shape, generator)
    else:
        raise TypeError(
            f"{name}: expected a number, a distribution or a tensor, got {type(tau).__name__}"
        )
    if isinstance(tau, Normal):
        if tau.mean <= 0:
            raise ValueError(f"{name}: expected a normal distribution of positive mean, got {tau}")
        while (wrong := drawn <= 0).any():
            drawn[wrong] = tau((int(wrong.sum()),), generator)
    check_positive(name, drawn)
    return drawn
