"""The registry's operators as calls of GPU kernels, for predictions and measurements.

`Case.run` calls the launcher, `record` catches what it would launch (meta tensors, shipped
configurations), `cost` counts what the operator has to do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor

from bench import registry
from bench.operators import Arguments, Sizes
from hetsyn_triton.kernels.gpu import (
    feedforward_scan,
    recurrent_scan,
    spike_scan,
    surrogate,
    synaptic_current,
)
from hetsyn_triton.kernels.gpu.lib import (
    add_partials,
    feedback_gradient,
    parameter_gradient,
    recurrent_step,
)
from hetsyn_triton.kernels.gpu.lib.configs import pinned
from hetsyn_triton.kernels.gpu.lib.launch import Cost, Launch, recording
from hetsyn_triton.kernels.gpu.lib.recurrent_tile import path
from hetsyn_triton.kernels.surrogate_kinds import KINDS

SMS = 132
"""Multiprocessors of an H100 or H200: what the recorded launches and their costs are made for."""


@dataclass(frozen=True)
class Case(Sizes):
    """One operator at one size, as a call of its GPU launcher."""

    def run(self, arguments: Arguments) -> Any:
        """The launcher's results."""
        return OPERATORS[self.operator].run(*arguments)

    def record(self) -> list[Launch]:
        """What `run` launches on an H100 or H200, as shipped; nothing runs."""
        arguments = self.arguments("meta")
        with pinned(), recording() as calls:
            self.run(arguments)
        return calls

    def cost(self) -> Cost:
        """Of all launches; initial states left out."""
        with pinned():
            return OPERATORS[self.operator].cost(self)

    @property
    def synapses(self) -> bool:
        """Whether the arithmetic floor is that of synapses; scans of neurons move bytes only."""
        return OPERATORS[self.operator].synapses

    @property
    def recurrent(self) -> bool:
        return self.operator.startswith("recurrent_scan")


class Operator(NamedTuple):
    """How an operator is run and counted."""

    run: Callable[..., Any]
    cost: Callable[[Case], Cost]
    synapses: bool = True


def total(*costs: Cost) -> Cost:
    """Of several launches."""
    return Cost(*(sum(parts) for parts in zip(*costs, strict=True)))


# -- what each operator costs ----------------------------------------------------------------------


def _split(
    z: Tensor, weight: Tensor, decay: Tensor, trace: Tensor | None, *neuron: Tensor
) -> tuple[Tensor, ...]:
    """The layer as two operators, whatever the size."""
    current, last = synaptic_current.synaptic_current(z, weight, decay, trace)
    return *spike_scan.spike_scan(current, *neuron), last


def _layer_cost(c: Case) -> Cost:
    chosen = feedforward_scan.path(c.R, c.T, c.B, c.I, c.J, sms=SMS)
    return _fused_cost(c) if chosen.name == "fused" else _split_cost(c)


def _fused_cost(c: Case) -> Cost:
    return feedforward_scan.cost(c.R, c.T, c.B, c.I, c.J)


def _split_cost(c: Case) -> Cost:
    return feedforward_scan.split_cost(c.R, c.T, c.B, c.I, c.J)


def _neuron_gradient_cost(c: Case) -> Cost:
    """Of what follows a reverse scan: gradients of the feedback, d_threshold over samples."""
    sums = add_partials.cost(c.R, c.B, c.J)
    return total(sums, feedback_gradient.cost(c.R, c.T, c.B, c.J, c.K))


def _scan_backward_cost(c: Case) -> Cost:
    given = 2 if c.states else 1
    scan = spike_scan.cost(c.R, c.T, c.B, c.J, c.K, backward=True, given=given)
    return total(scan, _neuron_gradient_cost(c))


def _recurrent_cost(c: Case) -> Cost:
    """c, s and V over time; w and r read by every sample; the last trace written."""
    return _recurrent_direction(c, steps=3)


def _recurrent_backward_cost(c: Case) -> Cost:
    """ds/dV, dL/ds (and dL/dV) and g over time, then as forward; the neurons' gradients count for
    their bytes, the floor is that of the synapses."""
    neurons = _neuron_gradient_cost(c)._replace(fma=0, executed=0)
    return total(_recurrent_direction(c, steps=4 if c.states else 3), neurons)


def _recurrent_direction(c: Case, steps: int) -> Cost:
    samples, square = c.R * c.B, c.J * c.J
    fma = 2 * samples * c.T * square
    tile = path(c.J, SMS)
    over_time = 4 * steps * samples * c.T * c.J
    matrices = 8 * c.R * square
    if tile is None:  # a launch per step, traces in device memory
        moved = over_time + 8 * samples * c.T * square
        return Cost(fma, fma, moved + matrices * c.T, moved + matrices * c.B * c.T)
    executed = 2 * samples * c.T * tile.KG * tile.KK * tile.programs * tile.BJ
    traces = 4 * samples * square
    exchange = 4 * samples * c.T * c.J * tile.programs if tile.programs > 1 else 0
    return Cost(
        fma=fma,
        executed=executed,
        hbm=over_time + traces + matrices,
        l2=over_time + traces + matrices * c.B + exchange,
    )


def _surrogate(kind: str) -> Operator:
    numbers = [1.0 for _ in KINDS[kind]]
    return Operator(
        lambda potential, threshold: surrogate.surrogate(potential, threshold, kind, numbers),
        lambda c: surrogate.cost(c.R, c.T, c.B, c.J),
        synapses=False,
    )


def _backward_by_steps(*given: Any) -> tuple[Tensor, ...]:
    backward: Callable[..., tuple[Tensor, ...]] = recurrent_step.backward_by_steps
    return backward(*given[:5], *given[6:10], given[12])


OPERATORS = {
    "synaptic_current": Operator(
        synaptic_current.synaptic_current,
        lambda c: synaptic_current.cost(c.R, c.T, c.B, c.I, c.J),
    ),
    "synaptic_current_backward": Operator(
        synaptic_current.synaptic_current_backward,
        lambda c: synaptic_current.cost(c.R, c.T, c.B, c.J, c.I),
    ),
    "synaptic_parameter_gradient": Operator(
        parameter_gradient.synaptic_parameter_gradient,
        lambda c: parameter_gradient.cost(c.R, c.T, c.B, c.I, c.J),
    ),
    "feedforward_scan": Operator(feedforward_scan.feedforward_scan, _layer_cost),
    "feedforward_scan_fused": Operator(feedforward_scan.fused, _fused_cost),
    "feedforward_scan_split": Operator(_split, _split_cost),
    "spike_scan": Operator(
        spike_scan.spike_scan,
        lambda c: spike_scan.cost(c.R, c.T, c.B, c.J, c.K),
        synapses=False,
    ),
    "spike_scan_backward": Operator(
        spike_scan.spike_scan_backward, _scan_backward_cost, synapses=False
    ),
    "recurrent_scan": Operator(recurrent_scan.recurrent_scan, _recurrent_cost),
    "recurrent_scan_backward": Operator(
        recurrent_scan.recurrent_scan_backward, _recurrent_backward_cost
    ),
    **{f"surrogate_{kind}": _surrogate(kind) for kind in KINDS},
    # What the launcher takes for J > 1024, and where a GPU cannot hold a sample's programs.
    "recurrent_scan_by_steps": Operator(recurrent_step.forward_by_steps, _recurrent_cost),
    "recurrent_scan_backward_by_steps": Operator(_backward_by_steps, _recurrent_backward_cost),
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
    """A case with the name its sizes give it."""
    name = f"{operator} {I}->{J} T{T} B{B}"
    name += f" R{R}" if R > 1 else ""
    name += f" K{K}" if K > 1 else ""
    name += " states" if states else ""
    name += " detach" if detach else ""
    return Case(name, operator, R, T, B, I, J, K, states, detach)


BENCHMARK = [case(o, I, J, T=T, B=B) for o, I, J, T, B in registry.operators()]  # noqa: E741
"""What predictions and measurements are published for."""
BY_NAME = {c.name: c for c in BENCHMARK}
