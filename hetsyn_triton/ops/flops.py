"""Formulas for `torch.utils.flop_counter`: a multiply-add is two operations.

A file of its own, because all operators share it. Importing the counter imports Triton, so formulas
are registered once somebody else has imported it: when this package is imported, or when a layer is
made.
"""

import sys
from collections.abc import Callable
from typing import Any

import torch

from .dispatch import NAMESPACE

_PER_SYNAPSE = {
    "synaptic_current": 2,
    "synaptic_current_backward": 2,
    "synaptic_parameter_gradient": 4,
    "feedforward_scan": 2,
    "recurrent_scan": 2,
    "recurrent_scan_backward": 2,
    "recurrent_scan_surrogate_backward": 2,
    "leaky_recurrent_scan": 1,
    "leaky_recurrent_scan_backward": 2,
    "leaky_recurrent_scan_surrogate_backward": 2,
}
"""Multiply-adds of each synapse, sample and step. Work without synapses is not counted."""
_OVER_TIME = ("z", "drive", "derivative", "potential", "g", "current")
"""Names of the argument [R, T, B, N]: the first that an operator has."""


def register_flops() -> None:
    """Register the formulas, once, if `torch.utils.flop_counter` is imported."""
    counter = sys.modules.get("torch.utils.flop_counter")
    if counter is None or counter.flop_registry.keys() & {_packet("synaptic_current")}:
        return
    for name, multiply_adds in _PER_SYNAPSE.items():
        counter.register_flop_formula(_packet(name))(_formula(name, 2 * multiply_adds))


def _packet(name: str) -> Any:
    return getattr(getattr(torch.ops, NAMESPACE), name)


def _formula(name: str, per_synapse: int) -> Callable[..., int]:
    names = [argument.name for argument in _packet(name).default._schema.arguments]
    steps = next(names.index(n) for n in _OVER_TIME if n in names)
    weight = names.index("weight")

    def flops(*shapes: Any, **unused: Any) -> int:
        R, T, B, _ = shapes[steps]
        _, J, I = shapes[weight]  # noqa: E741 - the field's letter
        return per_synapse * int(R * T * B * J * I)

    return flops
