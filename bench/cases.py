"""Calls of GPU kernels at given sizes, to measure, tune or compile them.

`Case.run` calls the launcher; `record` returns what it would launch, with meta tensors and shipped
configurations. There are three lists of cases:

- `BENCHMARK`: the sizes that `pytest --benchmark` measures.
- `ONE`: every kernel at least once, in its smallest tile if possible.
- `EVERY`: every tile of every size class and every flag that the shipped defaults can select. The
  sizes depend on the functions `tile`, `block` and `path` in `kernels/gpu`; a test compares them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from bench import registry
from bench.operator_arguments import Arguments, Sizes
from hetsyn_triton.kernels.gpu import (
    feedforward_scan,
    leaky_recurrent_scan,
    spike_scan,
    surrogate,
    synaptic_current,
)
from hetsyn_triton.kernels.gpu.lib import recurrent_step
from hetsyn_triton.kernels.gpu.lib.configs import pinned
from hetsyn_triton.kernels.gpu.lib.launch import Launch, recording
from hetsyn_triton.kernels.surrogate_kinds import KINDS
from hetsyn_triton.ops.dispatch import COMPOSED, TRITON
from hetsyn_triton.ops.surrogate import numbers_of
from hetsyn_triton.surrogates import MultiGaussian


@dataclass(frozen=True)
class Case(Sizes):
    """A call of an operator's GPU launcher at one size."""

    def run(self, arguments: Arguments) -> Any:
        """Call the launcher; return its results."""
        return OPERATORS[self.operator](*arguments)

    def record(self) -> list[Launch]:
        """Return what `run` launches on an H100 or H200, without running it."""
        arguments = self.arguments("meta")
        with pinned(), recording() as calls:
            self.run(arguments)
        return calls


def _split(
    z: Tensor, weight: Tensor, decay: Tensor, trace: Tensor | None, *neuron: Tensor
) -> tuple[Tensor, ...]:
    """Run the layer as two operators at any size."""
    current, last = synaptic_current.synaptic_current(z, weight, decay, trace)
    return *spike_scan.spike_scan(current, *neuron), last


def _backward_by_steps(*given: Any) -> tuple[Tensor, ...]:
    backward: Callable[..., tuple[Tensor, ...]] = recurrent_step.backward_by_steps
    return backward(*given[:5], *given[6:10], given[12])


def _leaky_backward_by_steps(*given: Any) -> tuple[Tensor, ...]:
    backward: Callable[..., tuple[Tensor, ...]] = leaky_recurrent_scan.backward_by_steps
    return backward(*given[:5], *given[6:12], given[14])


def _on_trial(backward: str, *given: Any) -> Any:
    """Run a backward scan that computes its surrogate and the gradients of feedback currents."""
    threshold = given[-5][:, 0]  # feedback strengths [R, K, J]: those of the reset
    kind, numbers = numbers_of(MultiGaussian(), torch.float32) or ("", ())
    return TRITON.launcher(backward)(*given, threshold, kind, numbers)


def _surrogate(kind: str, potential: Tensor, threshold: Tensor) -> Tensor:
    return surrogate.surrogate(potential, threshold, kind, [1.0 for _ in KINDS[kind]])


BACKWARD_SCANS = tuple(sorted(n for n in TRITON.operators if n.endswith("scan_backward")))

OPERATORS: dict[str, Callable[..., Any]] = {
    **{name: TRITON.launcher(name) for name in TRITON.operators - {*COMPOSED}},
    "feedforward_scan_fused": feedforward_scan.fused,
    "feedforward_scan_split": _split,
    **{f"surrogate_{kind}": partial(_surrogate, kind) for kind in KINDS},
    **{f"{name}_on_trial": partial(_on_trial, name) for name in BACKWARD_SCANS},
    # The launchers use these for J > 1024, or if a GPU cannot hold a sample's programs.
    "recurrent_scan_by_steps": recurrent_step.forward_by_steps,
    "recurrent_scan_backward_by_steps": _backward_by_steps,
    "leaky_recurrent_scan_by_steps": leaky_recurrent_scan.forward_by_steps,
    "leaky_recurrent_scan_backward_by_steps": _leaky_backward_by_steps,
}


def case(
    operator: str,
    I: int,  # noqa: E741
    J: int,
    *,
    T: int = 250,
    B: int = 256,
    R: int = 1,
    K: int = 1,
    states: bool = False,
    detach: bool = False,
) -> Case:
    """Make a case, named by its sizes."""
    name = f"{operator} {I}->{J} T{T} B{B}"
    name += f" R{R}" if R > 1 else ""
    name += f" K{K}" if K > 1 else ""
    name += " states" if states else ""
    name += " detach" if detach else ""
    return Case(name, operator, R, T, B, I, J, K, states, detach)


# -- lists of cases --------------------------------------------------------------------------------

BENCHMARK = [case(o, I, J, T=T, B=B) for o, I, J, T, B in registry.operators()]  # noqa: E741

ONE = [
    case("synaptic_current", 4, 32),
    case("synaptic_parameter_gradient", 4, 32),
    case("feedforward_scan_fused", 4, 32),
    case("spike_scan", 16, 16, B=32),
    case("spike_scan_backward", 16, 16, B=32),
    *(case(f"surrogate_{kind}", 16, 16, B=32) for kind in KINDS),
    *(case(f"{name}_on_trial", 16, 16, B=32) for name in BACKWARD_SCANS),
    case("recurrent_scan", 16, 16, B=32),
    case("recurrent_scan_backward", 16, 16, B=32),
    case("recurrent_scan_by_steps", 16, 16, B=2, T=2),
    case("recurrent_scan_backward_by_steps", 16, 16, B=2, T=2),
    case("leaky_current", 16, 16, B=32),
    case("leaky_current_backward", 16, 16, B=32),
    case("leaky_recurrent_scan", 16, 16, B=32),
    case("leaky_recurrent_scan_backward", 16, 16, B=32),
    case("leaky_recurrent_scan_by_steps", 16, 16, B=2, T=2),
    case("leaky_recurrent_scan_backward_by_steps", 16, 16, B=2, T=2),
]

_SUMMED = (4, 16, 32, 64, 128, 700)  # one of each depth, one with partial sums
_WIDTHS = (32, 64, 128)
_NEURONS = (16, 32, 64, 128, 256, 512, 1024, 1040)  # the recurrent scan's classes; then by steps
_EITHER = (False, True)


def _synaptic() -> list[Case]:
    found = []
    for o in _WIDTHS:
        both = o == 128
        for s in _SUMMED:
            forward, backward = (_EITHER, _EITHER) if both else ((False,), (True,))
            found += [case("synaptic_current", s, o, states=given) for given in forward]
            found += [case("synaptic_current_backward", o, s, states=given) for given in backward]
            found += [
                case("feedforward_scan_fused", s, o, K=K, states=K == 2)
                for K in ((1, 2) if both else (1,))
            ]
        found += [
            case("synaptic_parameter_gradient", inputs, o, states=given)
            for inputs in (4, 700)
            for given in _EITHER
        ]
    return found


def _scans() -> list[Case]:
    # Odd sizes use the narrow sum of d_threshold over samples.
    found = [case("spike_scan_backward", 13, 13, B=7)]
    for B in (32, 2048):  # few and many lanes
        for K in (1, 2):
            found.append(case("spike_scan", 128, 128, B=B, K=K))
            found += [
                case("spike_scan_backward", 128, 128, B=B, K=K, states=given, detach=detach)
                for given in _EITHER
                for detach in _EITHER
            ]
    return found


def _recurrent() -> list[Case]:
    found = []
    for neurons in _NEURONS:
        for K in (1, 2):
            T = 250 if neurons <= 1024 else 2
            given: dict[str, Any] = {"B": 32, "K": K, "states": K == 2, "T": T}
            for o in ("recurrent_scan", "leaky_recurrent_scan"):
                found.append(case(o, neurons, neurons, **given))
                found.append(case(f"{o}_backward", neurons, neurons, **given, detach=K == 2))
    return found


def _leaky() -> list[Case]:
    """Few and many lanes."""
    both = ("leaky_current", "leaky_current_backward")
    return [case(o, 128, 128, B=B) for o in both for B in (32, 2048)]


def _surrogates() -> list[Case]:
    """Loads of four neurons and of one."""
    return [case(f"surrogate_{kind}", J, J) for kind in KINDS for J in (16, 13)]


EVERY = _synaptic() + _scans() + _recurrent() + _leaky() + _surrogates()
SETS = {"benchmark": BENCHMARK, "one": ONE, "every": EVERY}
