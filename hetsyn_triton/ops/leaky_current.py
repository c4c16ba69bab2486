"""Leaky current, one decay per neuron: c(t) = rho c(t-1) + u(t)."""

from typing import Any, cast

import torch
from torch import Tensor

from hetsyn_triton import validation as check
from hetsyn_triton.reference import closed_form, loop

from . import checks, neuron
from .autograd import once, vmap_over_replicas
from .dispatch import define, full_precision, like, resolve

raw = define(
    "leaky_current(Tensor drive, Tensor decay, Tensor current) -> Tensor",
    closed_form.leaky_current,
    lambda drive, decay, current: drive.new_empty(drive.shape),
)

raw_backward = define(
    "leaky_current_backward(Tensor g, Tensor currents, Tensor decay, Tensor current)"
    " -> (Tensor, Tensor, Tensor)",
    closed_form.leaky_current_backward,
    lambda g, currents, decay, current: like(g, decay, current),
)


def leaky_current(
    drive: Tensor, decay: Tensor | float, current: Tensor | None = None, *, backend: str = "auto"
) -> tuple[Tensor, Tensor]:
    """Integrate a drive with one decay per neuron: c(t) = rho c(t-1) + u(t).

    Args:
        drive: Input u of each neuron, [T, B, J] or [R, T, B, J], float32 or float64.
        decay: Decay factors rho in [0, 1]: a number, [J] or [R, J].
        current: Current c(0), [B, J]. Default: zeros.
        backend: "auto", "triton", "cpu" or "reference".

    Returns:
        The current of each step, [T, B, J], and the last one, [B, J].

    Raises:
        ValueError: If a shape, device or value does not fit.
        TypeError: If a type or dtype does not fit.
        BackendUnavailableError: If `backend` cannot run here.

    Example:
        >>> currents, last = leaky_current(torch.ones(3, 1, 1), 0.5)
        >>> currents.flatten()
        tensor([1.0000, 1.5000, 1.7500])
    """
    replicated = checks.check_steps("drive", drive)
    check.check_parameter_dtype("drive", drive.dtype)
    decay = checks.per_neuron("decay", decay, drive)
    current = checks.initial("current", current, drive)
    check.check_unit_interval("decay", decay)
    u, rho, before = checks.replicate(replicated, drive, decay, current)
    (currents,) = checks.unreplicate(replicated, run(u, rho, before, backend))
    return currents, neuron.last(currents, current)


def run(drive: Tensor, decay: Tensor, current: Tensor, backend: str) -> Tensor:
    """`leaky_current` without checks and last step; every tensor has the replica axis."""
    with full_precision(drive.device):
        if resolve(backend, drive.device, "leaky_current", drive.dtype) == "reference":
            return loop.leaky_current(drive, decay, current)
        return cast(Tensor, LeakyCurrent.apply(drive, decay, current))  # type: ignore[no-untyped-call]


@vmap_over_replicas
class LeakyCurrent(torch.autograd.Function):
    """(drive, decay, current) -> current of every step."""

    @staticmethod
    def forward(drive: Tensor, decay: Tensor, current: Tensor) -> Any:
        return raw(drive, decay, current)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        _, decay, current = inputs
        ctx.save_for_backward(output, decay, current)

    @staticmethod
    @once
    def backward(ctx: Any, g: Tensor) -> Any:
        return raw_backward(g, *ctx.saved_tensors)
