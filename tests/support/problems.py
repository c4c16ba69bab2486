"""Random problems for the operators, in float64 unless asked otherwise, and their gradients by any
implementation."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from tests.support.tensors import total

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Size:
    """R replicas, T steps, B samples, I inputs, J neurons, K feedback currents."""

    R: int = 1
    T: int = 7
    B: int = 3
    I: int = 4  # noqa: E741 - the field's letter
    J: int = 5
    K: int = 2


SIZES = [
    Size(),
    Size(R=3),
    Size(T=1, K=1),
    Size(B=1, I=1),
    Size(J=1, T=13),
    Size(R=2, T=5, B=2, I=7, J=3, K=3),
    Size(T=31, B=5, I=11, J=6, K=1),
]


def decays(shape: tuple[int, ...], generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """Uniform in [0, 1] with about a tenth of exact zeros and a tenth of exact ones."""
    r = torch.rand(shape, generator=generator, dtype=dtype)
    kind = torch.rand(shape, generator=generator)
    r[kind < 0.1] = 0.0
    r[kind > 0.9] = 1.0
    return r


def problem(
    operator: str,
    size: Size,
    seed: int = 0,
    *,
    analog: bool = False,
    states: bool = True,
    dtype: torch.dtype = torch.float64,
) -> Tensors:
    """The tensors of one operator by the names of their arguments.

    `analog` inputs are normal numbers instead of spikes; without `states` every initial state is
    zero (traces: absent).
    """
    generator = torch.Generator().manual_seed(seed)
    R, T, B, I, J, K = size.R, size.T, size.B, size.I, size.J, size.K  # noqa: E741

    def normal(*shape: int, scale: float = 1.0) -> Tensor:
        return scale * torch.randn(shape, generator=generator, dtype=dtype)

    def spikes(*shape: int) -> Tensor:
        if analog:
            return normal(*shape)
        return (torch.rand(shape, generator=generator) < 0.4).to(dtype)

    def state(*shape: int) -> Tensor:
        return normal(*shape) if states else torch.zeros(shape, dtype=dtype)

    def r(*shape: int) -> Tensor:
        return decays(shape, generator, dtype)

    neurons = {
        "threshold": 0.3 + torch.rand(R, J, generator=generator, dtype=dtype),
        "feedback_decay": r(R, K, J),
        "feedback_strength": normal(R, K, J),
        "feedback": state(R, K, B, J),
        "spike": spikes(R, B, J) if states else torch.zeros(R, B, J, dtype=dtype),
    }
    if operator in ("synaptic_current", "feedforward_scan"):
        made = {"z": spikes(R, T, B, I), "weight": normal(R, J, I), "decay": r(R, J, I)}
        made |= {"trace": normal(R, B, J, I)} if states else {}
        return made if operator == "synaptic_current" else made | neurons
    if operator == "leaky_current":
        return {"drive": normal(R, T, B, J), "decay": r(R, J), "current": state(R, B, J)}
    if operator == "spike_scan":
        return {"current": normal(R, T, B, J)} | neurons
    if operator == "recurrent_scan":
        made = {
            "current": normal(R, T, B, J),
            "weight": normal(R, J, J, scale=J**-0.5),
            "decay": r(R, J, J),
        }
        return made | ({"trace": normal(R, B, J, J)} if states else {}) | neurons
    if operator == "leaky_recurrent_scan":
        made = {
            "drive": normal(R, T, B, J),
            "weight": normal(R, J, J, scale=J**-0.5),
            "decay": r(R, J),
            "current": state(R, B, J),
        }
        return made | neurons
    raise ValueError(operator)


OPERATORS = [
    "synaptic_current",
    "leaky_current",
    "spike_scan",
    "feedforward_scan",
    "recurrent_scan",
    "leaky_recurrent_scan",
]
SPIKING = OPERATORS[2:]


def gradients(
    call: Callable[..., tuple[Tensor, ...]], tensors: Tensors, seed: int = 1
) -> tuple[tuple[Tensor, ...], Tensors]:
    """Outputs of `call(**tensors)` and the gradients of a random linear function of all of them, by
    argument."""
    leaves = {name: t.detach().clone().requires_grad_() for name, t in tensors.items()}
    outputs = call(**leaves)
    generator = torch.Generator().manual_seed(seed)
    loss = total(
        (o * torch.randn(o.shape, generator=generator, dtype=o.dtype).to(o.device)).sum()
        for o in outputs
    )
    found = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
    filled = {
        name: torch.zeros_like(leaf) if g is None else g
        for (name, leaf), g in zip(leaves.items(), found, strict=True)
    }
    return tuple(o.detach() for o in outputs), filled
