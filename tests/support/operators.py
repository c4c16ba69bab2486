"""Every operator of PyTorch's dispatcher: arguments, results, shapes and cost.

The contract in tests/operators, random problems and the benchmark read this one table. A shape is a
word of letters: R replicas, T steps, B samples, I inputs, J neurons, K feedback currents. "RTBJ" is
a tensor [R, T, B, J]. "RBJI?" may be None. This module imports nothing but Python.
"""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Size:
    """R replicas, T steps, B samples, I inputs, J neurons, K feedback currents."""

    R: int = 1
    T: int = 7
    B: int = 3
    I: int = 4  # noqa: E741 - the field's letter
    J: int = 5
    K: int = 2

    def shape(self, letters: str) -> tuple[int, ...]:
        """Return the shape that `letters` stand for."""
        return tuple([getattr(self, letter) for letter in letters.removesuffix("?")])


@dataclass(frozen=True)
class Operator:
    """One operator.

    Attributes:
        arguments: Letters of every tensor argument by name, in the schema's order.
        results: Letters of every result by name. A backward's are "d_" and the argument's name.
        forward: The forward operator that a backward belongs to; of a forward its own name.
        roundings: The most roundings on the way of any term of any result.
        detachable: Whether `detach_reset` is the last argument.
        multiply_adds: Multiply-adds of each synapse, sample and step, and the letters whose product
            is their number. Scans of neurons without synapses have none.
    """

    arguments: dict[str, str]
    results: dict[str, str]
    forward: str
    roundings: Callable[[Size], int]
    detachable: bool = False
    multiply_adds: tuple[int, str] = (0, "")

    @property
    def optional(self) -> tuple[str, ...]:
        """Names of the arguments that may be None."""
        return tuple(name for name, letters in self.arguments.items() if letters.endswith("?"))

    @property
    def spiking(self) -> bool:
        """Whether the results have spikes, which the threshold decides."""
        return "spikes" in self.results

    @property
    def backward(self) -> bool:
        """Whether the results are gradients."""
        return next(iter(self.results)).startswith("d_")


NEURON = {
    "threshold": "RJ",
    "feedback_decay": "RKJ",
    "feedback_strength": "RKJ",
    "feedback": "RKBJ",
    "spike": "RBJ",
}
_FEEDBACK = {name: letters for name, letters in NEURON.items() if name != "threshold"}
_D_NEURON = {f"d_{name}": letters for name, letters in NEURON.items()}
_SYNAPSES = {"weight": "RJI", "decay": "RJI"}
_RECURRENT = {"weight": "RJJ", "decay": "RJJ"}
_LEAKY = {"weight": "RJJ", "decay": "RJ", "current": "RBJ"}
_SPIKES = {"spikes": "RTBJ", "potential": "RTBJ", "feedback": "RKBJ"}
_G_SPIKES = {"g_spikes": "RTBJ?", "g_potential": "RTBJ?", "g_feedback": "RKBJ?"}
_GIVEN = {"derivative": "RTBJ", "spikes": "RTBJ"}


def _forward(size: Size) -> int:
    """Return two for each step of a recurrence, the sums over features and feedbacks, the ends."""
    return 2 * size.T + size.I + size.J + size.K + 12


def _recurrent_forward(size: Size) -> int:
    return 2 * size.T + size.J + size.K + 12


def _summed(size: Size) -> int:
    """Return those of a sum over steps and samples in any order, beside those of two traces."""
    return 2 * size.T + size.T * size.B + 4


def _neurons_backward(size: Size) -> int:
    return (size.K + 7) * size.T + size.B + 4


def _recurrent_backward(size: Size) -> int:
    """Return those of a term through the sum over neurons in every step, then over samples."""
    return (size.T + 1) * (size.J + size.K + 16) + size.T * size.B + 4


OPERATORS = {
    "synaptic_current": Operator(
        {"z": "RTBI", **_SYNAPSES, "trace": "RBJI?"},
        {"current": "RTBJ", "trace": "RBJI"},
        "synaptic_current",
        _forward,
        multiply_adds=(2, "RTBJI"),
    ),
    "synaptic_current_backward": Operator(
        {"g": "RTBJ", "g_trace": "RBJI?", **_SYNAPSES},
        {"d_z": "RTBI", "d_trace": "RBJI"},
        "synaptic_current",
        _forward,
        multiply_adds=(2, "RTBJI"),
    ),
    "synaptic_parameter_gradient": Operator(
        {"z": "RTBI", "g": "RTBJ", "g_trace": "RBJI?", **_SYNAPSES, "trace": "RBJI?"},
        {"d_weight": "RJI", "d_decay": "RJI"},
        "synaptic_current",
        _summed,
        multiply_adds=(4, "RTBJI"),
    ),
    "leaky_current": Operator(
        {"drive": "RTBJ", "decay": "RJ", "current": "RBJ"},
        {"currents": "RTBJ"},
        "leaky_current",
        lambda size: size.T + 1,
    ),
    "leaky_current_backward": Operator(
        {"g": "RTBJ", "currents": "RTBJ", "decay": "RJ", "current": "RBJ"},
        {"d_drive": "RTBJ", "d_decay": "RJ", "d_current": "RBJ"},
        "leaky_current",
        _summed,
    ),
    "spike_scan": Operator(
        {"current": "RTBJ", **NEURON},
        _SPIKES,
        "spike_scan",
        lambda size: 2 * size.T + size.K + 2,
    ),
    "spike_scan_backward": Operator(
        {**_G_SPIKES, **_GIVEN, **_FEEDBACK},
        {"d_current": "RTBJ", **_D_NEURON},
        "spike_scan",
        _neurons_backward,
        detachable=True,
    ),
    "feedforward_scan": Operator(
        {"z": "RTBI", **_SYNAPSES, "trace": "RBJI?", **NEURON},
        {**_SPIKES, "trace": "RBJI"},
        "feedforward_scan",
        _forward,
        multiply_adds=(2, "RTBJI"),
    ),
    "recurrent_scan": Operator(
        {"current": "RTBJ", **_RECURRENT, "trace": "RBJJ?", **NEURON},
        {**_SPIKES, "trace": "RBJJ"},
        "recurrent_scan",
        _recurrent_forward,
        multiply_adds=(2, "RTBJJ"),
    ),
    "recurrent_scan_backward": Operator(
        {**_G_SPIKES, "g_trace": "RBJJ?", **_GIVEN, **_RECURRENT, **_FEEDBACK},
        {"d_current": "RTBJ", **_D_NEURON, "d_trace": "RBJJ"},
        "recurrent_scan",
        _recurrent_backward,
        detachable=True,
        multiply_adds=(2, "RTBJJ"),
    ),
    "leaky_recurrent_scan": Operator(
        {"drive": "RTBJ", **_LEAKY, **NEURON},
        {**_SPIKES, "currents": "RTBJ"},
        "leaky_recurrent_scan",
        _recurrent_forward,
        multiply_adds=(1, "RTBJJ"),
    ),
    "leaky_recurrent_scan_backward": Operator(
        {
            **_G_SPIKES, "g_currents": "RTBJ?", **_GIVEN, "currents": "RTBJ", **_LEAKY, **_FEEDBACK,
        },
        {"d_drive": "RTBJ", "d_weight": "RJJ", "d_decay": "RJ", "d_current": "RBJ", **_D_NEURON},
        "leaky_recurrent_scan",
        _recurrent_backward,
        detachable=True,
        multiply_adds=(2, "RTBJJ"),
    ),
    "surrogate": Operator(
        {"potential": "RTBJ", "threshold": "RJ"},
        {"derivative": "RTBJ"},
        "surrogate",
        lambda size: 16,
    ),
}  # fmt: skip
"""By name. `surrogate` also takes the kind and its numbers."""

DIFFERENTIABLE = tuple(
    name for name, operator in OPERATORS.items() if operator.forward == name != "surrogate"
)
"""The operators that autograd knows."""

SPIKING = tuple(name for name in DIFFERENTIABLE if OPERATORS[name].spiking)
