"""Whether training is still in the numbers: loss, gradients, parameters, optimizer state."""

import math
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from .errors import NonFiniteError


def check_gradients(loss: Tensor, network: nn.Module, where: str) -> None:
    """NonFiniteError, naming the tensor and `where`, unless loss and gradients are finite."""
    if not math.isfinite(loss.item()):
        raise NonFiniteError(f"the loss is {loss.item()} {where}")
    gradients = ((n, p.grad) for n, p in network.named_parameters() if p.grad is not None)
    name = first_non_finite(gradients)
    if name is not None:
        raise NonFiniteError(f"the gradient of {name} is not finite {where}")


def clip_gradients(network: nn.Module, most: float, where: str) -> None:
    """Scale all gradients so that their common norm is at most `most`.

    NonFiniteError, naming `where`, where the norm itself overflows.
    """
    norm = torch.nn.utils.clip_grad_norm_(network.parameters(), most)
    if not math.isfinite(norm.item()):
        raise NonFiniteError(f"the norm of all gradients is {norm.item()} {where}")


def step_checked(optimizer: torch.optim.Optimizer, network: nn.Module, where: str) -> None:
    """One step of `optimizer`; NonFiniteError, naming the tensor and `where`, if it overflows."""
    take_step(optimizer, where)
    name = first_non_finite(network.named_parameters())
    if name is not None:
        raise NonFiniteError(f"the parameter {name} is not finite {where}")
    name = first_non_finite(optimizer_state(optimizer, network))
    if name is not None:
        raise NonFiniteError(f"the optimizer's {name} is not finite {where}")


def take_step(optimizer: torch.optim.Optimizer, where: str) -> None:
    """One step of `optimizer`; NonFiniteError, naming `where`, if one of its factors overflows."""
    try:
        optimizer.step()
    except (OverflowError, RuntimeError) as error:
        if "overflow" not in str(error):
            raise
        raise NonFiniteError(f"the optimizer overflows {where}: {error}") from error


def first_non_finite(tensors: Iterable[tuple[str, Tensor]]) -> str | None:
    """The name of the first tensor with a NaN or an infinity in it."""
    named = [(name, value.detach()) for name, value in tensors if value.is_floating_point()]
    # the largest magnitude is finite exactly where every value is; one number to wait for
    largest = torch.nn.utils.get_total_norm([value for _, value in named], norm_type=math.inf)
    if math.isfinite(largest.item()):
        return None
    return next((name for name, value in named if not bool(value.isfinite().all())), None)


def optimizer_state(
    optimizer: torch.optim.Optimizer, network: nn.Module
) -> Iterator[tuple[str, Tensor]]:
    """What `optimizer` keeps of each parameter, in the parameter's shape, with names."""
    for name, parameter in network.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                yield f"{key} of {name}", value
