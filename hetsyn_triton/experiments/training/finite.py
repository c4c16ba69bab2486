"""Check that loss, gradients, parameters and optimizer state are finite.

Each check reads one number, because a read on a GPU waits for all queued work.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain

import torch
from torch import Tensor, nn

from .errors import NonFiniteError


def check_gradients(
    loss: Tensor, network: nn.Module, where: str, clip: float | None = None
) -> None:
    """Check that loss and gradients are finite, and clip the gradients.

    Args:
        loss: The loss.
        network: The network with its gradients.
        where: Place in the training, for the message.
        clip: Maximum of the common norm of all gradients. Defaults to no clipping.

    Raises:
        NonFiniteError: If the loss, a gradient or the norm is not finite; the message names it.
    """
    if not math.isfinite(loss.item()):
        raise NonFiniteError(f"the loss is {loss.item()} {where}")
    gradients = {n: p.grad for n, p in network.named_parameters() if p.grad is not None}
    if clip is None:
        _check_each(gradients, where)
        return
    norm = torch.nn.utils.get_total_norm(gradients.values())
    size = norm.item()
    if not math.isfinite(size):  # otherwise every gradient is finite
        _check_each(gradients, where)
        raise NonFiniteError(f"the norm of all gradients is {size} {where}")
    torch.nn.utils.clip_grads_with_norm_(network.parameters(), clip, norm)


def _check_each(gradients: Mapping[str, Tensor], where: str) -> None:
    name = first_non_finite(gradients.items())
    if name is not None:
        raise NonFiniteError(f"the gradient of {name} is not finite {where}")


def step_checked(optimizer: torch.optim.Optimizer, network: nn.Module, where: str) -> None:
    """Make one step of `optimizer`; NonFiniteError names a tensor that is not finite after it."""
    take_step(optimizer, where)
    parameters = ((f"parameter {name}", value) for name, value in network.named_parameters())
    state = ((f"optimizer's {name}", value) for name, value in optimizer_state(optimizer, network))
    name = first_non_finite(chain(parameters, state))
    if name is not None:
        raise NonFiniteError(f"the {name} is not finite {where}")


def take_step(optimizer: torch.optim.Optimizer, where: str) -> None:
    """Make one step of `optimizer`; NonFiniteError if one of its factors overflows."""
    try:
        optimizer.step()
    except (OverflowError, RuntimeError) as error:
        if "overflow" not in str(error):
            raise
        raise NonFiniteError(f"the optimizer overflows {where}: {error}") from error


def first_non_finite(tensors: Iterable[tuple[str, Tensor]]) -> str | None:
    """Return the name of the first tensor with NaN or infinity, or None."""
    named = [(name, value.detach()) for name, value in tensors if value.is_floating_point()]
    # the largest magnitude is finite if and only if every value is; this reads one number
    largest = torch.nn.utils.get_total_norm([value for _, value in named], norm_type=math.inf)
    if math.isfinite(largest.item()):
        return None
    return next((name for name, value in named if not bool(value.isfinite().all())), None)


def optimizer_state(
    optimizer: torch.optim.Optimizer, network: nn.Module
) -> Iterator[tuple[str, Tensor]]:
    """Yield the optimizer state that has the shape of a parameter, with names."""
    for name, parameter in network.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                yield f"{key} of {name}", value
