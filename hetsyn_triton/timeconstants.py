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
    """Decay per step r = exp(-dt / tau) of time constants `tau`, in the unit of `dt`.

    A number gives a float64 tensor. ValueError unless tau and dt are positive (tau may be
    infinite: r = 1). float32 resolves no decay between 1 - 6e-8 and 1, so beyond tau = 1e7 steps
    r is 1: the synapse never forgets.
    """
    dt = check_positive_number("dt", dt)
    tau = _as_tensor("tau", tau)
    if not bool((tau > 0).all()):
        raise ValueError(f"tau: expected positive values, got a smallest of {tau.min().item():g}")
    return torch.exp(-dt / tau)


def decay_to_tau(decay: Tensor | float, dt: float = 1.0) -> Tensor:
    """Time constants tau = -dt / ln(r) of decays in [0, 1]: 0 for r = 0, infinite for r = 1."""
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
