"""What computes the operators, each under one interface: closed form, Numba, Triton, a GPU."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from hetsyn_triton import trial_kernels
from hetsyn_triton.ops import dispatch
from hetsyn_triton.reference import closed_form
from tests.support.interpreter import DEVICE, INTERPRETED
from tests.support.operators import OPERATORS, Size
from tests.support.random_arguments import as_tuple, problem
from tests.support.tensors import Named

Call = Callable[..., Any]

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Implementation:
    """One way to compute some operators."""

    name: str
    find: Callable[[str], Call]
    operators: frozenset[str]
    dtypes: tuple[torch.dtype, ...] = (torch.float32, torch.float64)
    device: torch.device = CPU
    slow: bool = False
    """Takes the small sizes only."""

    def given(
        self, operator: str, size: Size, dtype: torch.dtype = torch.float32, **options: Any
    ) -> Named:
        """Random arguments on its device, those of `problem` with its options."""
        made = problem(operator, size, **options)
        return {
            name: made[name].to(self.device, dtype) if name in made else None
            for name in OPERATORS[operator].arguments
        }

    def __call__(
        self, operator: str, given: Named, detach_reset: bool = False
    ) -> tuple[Tensor, ...]:
        """Results of the operator for the arguments by name."""
        table = OPERATORS[operator]
        arguments = [given.get(name) for name in table.arguments]
        return as_tuple(self.find(operator)(*arguments, *([detach_reset] * table.detachable)))


def _by_steps(operator: str) -> Call:
    """A recurrent scan of layers whose synapses do not fit into registers."""
    from hetsyn_triton.kernels.gpu import leaky_recurrent_scan, recurrent_scan

    module = leaky_recurrent_scan if operator.startswith("leaky") else recurrent_scan

    def run(*arguments: Any) -> Any:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "path", lambda *_: None)
            return getattr(module, operator)(*arguments)

    return run


def _on_trial(operator: str) -> Call:
    """The launcher inside `trial_kernels()`."""
    launcher = dispatch.TRITON.launcher(operator)

    def run(*arguments: Any) -> Any:
        with trial_kernels():
            return launcher(*arguments)

    return run


def _layer(path: str) -> Callable[[str], Call]:
    """The feedforward layer in one launch ("fused") or in two ("split")."""

    def find(operator: str) -> Call:
        from hetsyn_triton.kernels.gpu import feedforward_scan as module

        def run(*arguments: Any) -> Any:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(module, "path", lambda *a, **k: module.Path(path, 1.0, 1.0))
                return module.feedforward_scan(*arguments)

        return run

    return find


def _triton(name: str, find: Callable[[str], Call], operators: frozenset[str]) -> Implementation:
    device = "interpreter" if INTERPRETED else "GPU"
    return Implementation(
        f"{name}, {device}", find, operators, (torch.float32,), DEVICE, slow=INTERPRETED
    )


CLOSED_FORM = Implementation(
    "eager", lambda o: dispatch.in_closed_form(getattr(closed_form, o)), frozenset(OPERATORS)
)
NUMBA = Implementation("Numba", dispatch.NUMBA.launcher, dispatch.NUMBA.operators)
TRITON = _triton(
    "Triton", dispatch.TRITON.launcher, dispatch.TRITON.operators - {*dispatch.COMPOSED}
)
TRITON_FUSED = _triton("Triton fused", _layer("fused"), frozenset({"feedforward_scan"}))
TRITON_SPLIT = _triton("Triton split", _layer("split"), frozenset({"feedforward_scan"}))
TRITON_BY_STEPS = _triton(
    "Triton by steps",
    _by_steps,
    frozenset(n for n in TRITON.operators if "recurrent_scan" in n),
)
TRITON_ON_TRIAL = _triton(
    "Triton on trial",
    _on_trial,
    frozenset(n for n in TRITON.operators if not INTERPRETED or n.endswith("scan_backward")),
)
"""Backward scans with the gradients of feedback currents; on a GPU also relaxed stores and the
short way of a launch, which the interpreter cannot run."""
KERNELS: tuple[Implementation, ...] = (
    NUMBA,
    TRITON,
    TRITON_FUSED,
    TRITON_SPLIT,
    TRITON_BY_STEPS,
    TRITON_ON_TRIAL,
)
IMPLEMENTATIONS = (CLOSED_FORM, *KERNELS)
