"""The operators without checks, called with the tensors of a neuron one by one, and the raw ones.

`hetsyn_triton.ops` gathers the five tensors in a `Neuron`. The tests name each of them, so that a
problem is a dictionary of tensors.
"""

from collections.abc import Callable
from typing import Any, TypeGuard

import torch
from torch import Tensor

from hetsyn_triton import ops
from hetsyn_triton.ops.neuron import Neuron
from hetsyn_triton.ops.surrogate import numbers_of
from hetsyn_triton.surrogates import ATan, MultiGaussian, Surrogate, Triangular
from tests.support.problems import SPIKING, Size, problem
from tests.support.surrogate_proofs import potentials

MODULES = (
    ops.synaptic_current,
    ops.leaky_current,
    ops.spike_scan,
    ops.feedforward_scan,
    ops.recurrent_scan,
    ops.leaky_recurrent_scan,
    ops.surrogate,
)


def is_raw(found: object) -> TypeGuard["torch._ops.OpOverload[..., Any]"]:
    """Whether an attribute of a module is an operator of PyTorch's dispatcher."""
    return isinstance(found, torch._ops.OpOverload)


RAW: dict[str, "torch._ops.OpOverload[..., Any]"] = {
    found._schema.name.removeprefix("hetsyn_triton::"): found
    for module in MODULES
    for found in vars(module).values()
    if is_raw(found)
}
"""`raw`, `raw_backward` and `raw_parameter_gradient` of every module, by the operator's name."""


def synaptic_current(
    z: Tensor, weight: Tensor, decay: Tensor, trace: Tensor | None, backend: str = "auto"
) -> tuple[Tensor, Tensor]:
    """z [R, T, B, I], weight and decay [R, J, I] -> current [R, T, B, J], final trace."""
    return ops.synaptic_current.run(z, weight, decay, trace, backend)


def leaky_current(drive: Tensor, decay: Tensor, current: Tensor, backend: str = "auto") -> Tensor:
    """drive [R, T, B, J], decay [R, J], current [R, B, J] -> current of every step."""
    return ops.leaky_current.run(drive, decay, current, backend)


def spike_scan(
    current: Tensor,
    threshold: Tensor,
    feedback_decay: Tensor,
    feedback_strength: Tensor,
    feedback: Tensor,
    spike: Tensor,
    surrogate: Surrogate,
    detach_reset: bool = False,
    backend: str = "auto",
) -> tuple[Tensor, Tensor, Tensor]:
    """current [R, T, B, J] and the neuron -> spikes, V, final feedback."""
    own = Neuron(threshold, feedback_decay, feedback_strength, feedback, spike)
    return ops.spike_scan.run(current, own, surrogate, detach_reset, backend)


def feedforward_scan(
    z: Tensor,
    weight: Tensor,
    decay: Tensor,
    trace: Tensor | None,
    threshold: Tensor,
    feedback_decay: Tensor,
    feedback_strength: Tensor,
    feedback: Tensor,
    spike: Tensor,
    surrogate: Surrogate,
    detach_reset: bool = False,
    backend: str = "auto",
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """z [R, T, B, I], synapses and neuron -> spikes, V, final feedback, final trace."""
    own = Neuron(threshold, feedback_decay, feedback_strength, feedback, spike)
    given = (z, weight, decay, trace, own)
    return ops.feedforward_scan.run(*given, surrogate, detach_reset, backend)


def recurrent_scan(
    current: Tensor,
    weight: Tensor,
    decay: Tensor,
    trace: Tensor | None,
    threshold: Tensor,
    feedback_decay: Tensor,
    feedback_strength: Tensor,
    feedback: Tensor,
    spike: Tensor,
    surrogate: Surrogate,
    detach_reset: bool = False,
    backend: str = "auto",
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """current [R, T, B, J], synapses [R, J, J], neuron -> spikes, V, final feedback and trace."""
    own = Neuron(threshold, feedback_decay, feedback_strength, feedback, spike)
    given = (current, weight, decay, trace, own)
    return ops.recurrent_scan.run(*given, surrogate, detach_reset, backend)


def leaky_recurrent_scan(
    drive: Tensor,
    weight: Tensor,
    decay: Tensor,
    current: Tensor,
    threshold: Tensor,
    feedback_decay: Tensor,
    feedback_strength: Tensor,
    feedback: Tensor,
    spike: Tensor,
    surrogate: Surrogate,
    detach_reset: bool = False,
    backend: str = "auto",
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """drive [R, T, B, J], weight [R, J, J], decay [R, J] and neuron -> spikes, V, final feedback,
    current of every step."""
    own = Neuron(threshold, feedback_decay, feedback_strength, feedback, spike)
    given = (drive, weight, decay, current, own)
    return ops.leaky_recurrent_scan.run(*given, surrogate, detach_reset, backend)


def call(operator: str, backend: str = "auto") -> Callable[..., tuple[Tensor, ...]]:
    """The operator with its optional arguments filled in; always returns a tuple."""
    function = globals()[operator]
    fixed: dict[str, Any] = {"backend": backend}
    if operator in SPIKING:
        fixed["surrogate"] = ATan()
    if operator in ("synaptic_current", "feedforward_scan", "recurrent_scan"):
        fixed["trace"] = None

    def run(**tensors: Tensor) -> tuple[Tensor, ...]:
        outputs = function(**(fixed | tensors))
        return outputs if isinstance(outputs, tuple) else (outputs,)

    return run


def assert_same(found: Any, expected: Any, tolerance: float = 1e-12) -> None:
    """Outputs and gradients as from `gradients`; spikes in the outputs must be equal, not close."""
    (outputs, grads), (want_outputs, want_grads) = found, expected
    pairs = list(zip(outputs, want_outputs, strict=True))
    pairs += [(grads[name], want) for name, want in want_grads.items()]
    for got, want in pairs:
        assert got.shape == want.shape
        torch.testing.assert_close(got, want, rtol=tolerance, atol=tolerance)


def surrogate_arguments(surrogate: Any, size: Size) -> tuple[Any, ...]:
    """Arguments of the operator `surrogate`: V [R, T, B, J], theta [R, J], kind and numbers."""
    given = numbers_of(surrogate, torch.float64)
    assert given is not None
    cpu = torch.device("cpu")
    return *potentials(size.R, size.T, size.B, size.J, cpu, torch.float64), *given


def raw_arguments(name: str, size: Size, optional: bool) -> tuple[Any, ...]:
    """Arguments of raw operator `name`; without `optional`, each that may be None is None."""
    if name == "surrogate":
        return surrogate_arguments(MultiGaussian() if optional else Triangular(), size)
    forward = name.removesuffix("_backward")
    if name == "synaptic_parameter_gradient":
        forward = "synaptic_current"
    tensors: dict[str, Any] = dict(problem(forward, size, states=optional))
    if not optional and forward in ("synaptic_current", "feedforward_scan", "recurrent_scan"):
        first = dict(list(tensors.items())[:3])
        tensors = first | {"trace": None} | tensors
    outputs = RAW[forward](**tensors)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    generator = torch.Generator().manual_seed(2)
    given = [torch.randn(o.shape, generator=generator, dtype=o.dtype) for o in outputs]
    g = given if optional else [None] * len(given)
    p = tensors
    if name == "synaptic_current_backward":
        return given[0], g[1], p["weight"], p["decay"]
    if name == "synaptic_parameter_gradient":
        return p["z"], given[0], g[1], p["weight"], p["decay"], p["trace"]
    if name == "leaky_current_backward":
        return given[0], outputs[0], p["decay"], p["current"]
    if name.endswith("_backward"):
        spikes, potential, *_ = outputs
        slope = ATan()(potential - 1, potential)
        neuron = [p[n] for n in ("feedback_decay", "feedback_strength", "feedback", "spike")]
        own = {
            "spike_scan": [],
            "recurrent_scan": [p.get("weight"), p.get("decay")],
            "leaky_recurrent_scan": [
                outputs[-1],
                p.get("weight"),
                p.get("decay"),
                p.get("current"),
            ],
        }[forward]
        return *g, slope, spikes, *own, *neuron, not optional
    return tuple(tensors.values())
