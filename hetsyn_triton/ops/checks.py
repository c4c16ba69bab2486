"""Checks that the operators share. Shapes are [T, B, N], or [R, T, B, N] with a replica axis."""

from typing import Any, cast

import torch
from torch import Tensor

from hetsyn_triton import validation as check


def check_steps(name: str, value: Tensor) -> bool:
    """Return whether `value` has a replica axis; ValueError unless it is [T, B, N] or
    [R, T, B, N]."""
    check.check_tensor(name, value)
    if value.dim() not in (3, 4):
        raise ValueError(
            f"{name}: expected [T, B, N] or [R, T, B, N], got shape {tuple(value.shape)}"
        )
    return value.dim() == 4


def check_synapses(z: Tensor, weight: Tensor, decay: Tensor, trace: Tensor | None) -> bool:
    """Return whether z has a replica axis; raise unless all four fit together."""
    replicated = check_steps("z", z)
    check.check_tensor("weight", weight)
    check.check_parameter_dtype("weight", weight.dtype)
    if weight.dim() != 2 + replicated or weight.shape[-1] != z.shape[-1]:
        raise ValueError(
            f"weight: expected [{'R, ' * replicated}J, I] with I = {z.shape[-1]}, "
            f"got shape {tuple(weight.shape)}"
        )
    check.check_like("decay", decay, "weight", weight)
    check.check_shape("decay", decay, weight.shape, "as weight")
    check.check_device("z", z, "weight", weight)
    if replicated and weight.shape[0] != z.shape[0]:
        raise ValueError(
            f"weight: expected R = {z.shape[0]} replicas as the input has, got {weight.shape[0]}"
        )
    if trace is not None:
        check.check_like("trace", trace, "weight", weight)
        shape = (*z.shape[:-3], z.shape[-2], *weight.shape[-2:])
        check.check_shape("trace", trace, shape, axes("B, J, I", z))
    check.check_finite("weight", weight)
    check.check_unit_interval("decay", decay)
    return replicated


def check_square(name: str, value: Tensor, steps_name: str, steps: Tensor) -> None:
    """Raise unless `value` is a matrix [J, J] for steps [T, B, J]."""
    check.check_like(name, value, steps_name, steps)
    shape = (*steps.shape[:-3], steps.shape[-1], steps.shape[-1])
    check.check_shape(name, value, shape, axes("J, J", steps))


def per_neuron(name: str, value: Tensor | float, steps: Tensor) -> Tensor:
    """Return a number or a tensor [J] as a tensor [J], [R, J] with replicas."""
    shape = (*steps.shape[:-3], steps.shape[-1])
    if check.is_number(value):
        return torch.full(shape, float(value), dtype=steps.dtype, device=steps.device)
    value = cast(Tensor, value)
    check.check_like(name, value, "the input", steps)
    if value.dim() == 0:
        return value.expand(shape)
    check.check_shape(name, value, shape, axes("J", steps))
    return value


def initial(name: str, value: Tensor | None, steps: Tensor) -> Tensor:
    """Return a state [B, J], zeros for None."""
    shape = (*steps.shape[:-3], *steps.shape[-2:])
    if value is None:
        return steps.new_zeros(shape)
    check.check_like(name, value, "the input", steps)
    check.check_shape(name, value, shape, axes("B, J", steps))
    return value


def axes(names: str, steps: Tensor) -> str:
    """Return names of axes for messages, with R in front if `steps` has replicas."""
    return f"[{'R, ' * (steps.dim() == 4)}{names}]"


def replicate(replicated: bool, *tensors: Any) -> tuple[Any, ...]:
    """Add the replica axis R = 1 to tensors without one."""
    if replicated:
        return tensors
    return tuple([None if t is None else t.unsqueeze(0) for t in tensors])


def unreplicate(replicated: bool, *tensors: Tensor) -> tuple[Tensor, ...]:
    """Remove what `replicate` added."""
    return tensors if replicated else tuple([t.squeeze(0) for t in tensors])
