"""Make random arguments of every operator, as a layer passes them, on any device.

`Sizes` names an operator and its sizes; recurrent operators have I = J. The names and shapes of the
arguments are in tests/support/operators.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bench import registry
from hetsyn_triton.ops.surrogate import numbers_of
from hetsyn_triton.surrogates import MultiGaussian
from tests.support.operators import Size

Arguments = tuple[Any, ...]


@dataclass(frozen=True)
class Sizes:
    """One operator at one size."""

    name: str
    operator: str
    R: int
    T: int
    B: int
    I: int  # noqa: E741 - the field's letter
    J: int
    K: int = 1
    states: bool = False
    """With initial traces; in a backward operator, with the gradients of final states."""
    detach: bool = False
    """`detach_reset` of a backward scan."""

    @property
    def size(self) -> Size:
        """The sizes without the operator."""
        return Size(self.R, self.T, self.B, self.I, self.J, self.K)

    def arguments(self, device: torch.device | str, seed: int = 0) -> Arguments:
        """Make random tensors: 10 % spikes, decays of time constants from 5 to 20 steps."""
        device = torch.device(device)
        meta = device.type == "meta"
        generator = None if meta else torch.Generator(device).manual_seed(seed)
        table = registry.table_of(self.operator)

        def normal(shape: tuple[int, ...]) -> Tensor:
            return torch.randn(shape, device=device, generator=generator)

        def uniform(shape: tuple[int, ...]) -> Tensor:
            return torch.rand(shape, device=device, generator=generator)

        made: list[Any] = []
        for argument, letters in table.arguments.items():
            shape = self.size.shape(letters)
            if argument in table.optional and argument != "g_spikes" and not self.states:
                made.append(None)
            elif argument in ("z", "spikes"):
                made.append((uniform(shape) < 0.1).float())
            elif argument.endswith("decay"):
                made.append(torch.exp(-1.0 / (5.0 + 15.0 * uniform(shape))))
            elif argument == "weight":
                made.append(normal(shape) * shape[-1] ** -0.5)
            elif argument in ("threshold", "feedback_strength"):
                made.append(0.5 + uniform(shape))
            elif argument in ("feedback", "spike") or letters == "RBJ":
                made.append(torch.zeros(shape, device=device))
            elif argument in ("derivative", "trace"):
                made.append(uniform(shape))
            else:
                made.append(normal(shape))
        if self.operator == "surrogate":
            made += numbers_of(MultiGaussian(), torch.float32) or ()
        return *made, *([self.detach] if table.detachable else [])
