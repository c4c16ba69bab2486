"""Random arguments of every operator, and its calls without checks."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeGuard

import torch
from torch import Tensor

from hetsyn_triton import ops
from hetsyn_triton.ops.dispatch import COMPOSED
from hetsyn_triton.ops.neuron import Neuron
from hetsyn_triton.ops.surrogate import numbers_of
from hetsyn_triton.surrogates import ATan, MultiGaussian, Surrogate, Triangular
from tests.support.operators import NEURON, OPERATORS, Size
from tests.support.surrogate_cases import potentials
from tests.support.tensors import Named, narrow

Tensors = dict[str, Tensor]

SIZES = [
    Size(),
    Size(R=3),
    Size(T=1, K=1),
    Size(B=1, I=1),
    Size(J=1, T=13),
    Size(R=2, T=5, B=2, I=7, J=3, K=3),
    Size(T=31, B=5, I=11, J=6, K=1),
]

STATES = ("trace", "feedback", "spike")


# -- arguments -------------------------------------------------------------------------------------


def problem(
    operator: str,
    size: Size,
    seed: int = 0,
    *,
    analog: bool = False,
    states: bool = True,
    dtype: torch.dtype = torch.float64,
) -> Tensors:
    """The tensor arguments of any operator by name.

    `analog` inputs and spikes before the first step are normal numbers instead of spikes. Without
    `states` every initial state is zero and optional traces are left out.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=dtype)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, dtype=dtype)

    made: Tensors = {}
    for name, letters in OPERATORS[operator].arguments.items():
        shape = size.shape(letters)
        state = name in STATES or (name == "current" and "T" not in letters)
        if state and not states:
            if not letters.endswith("?"):
                made[name] = torch.zeros(shape, dtype=dtype)
        elif name in ("z", "spike", "spikes"):
            numbers = analog and name != "spikes"
            made[name] = normal(*shape) if numbers else (uniform(*shape) < 0.4).to(dtype)
        elif name.endswith("decay"):
            made[name] = decays(shape, generator, dtype)
        elif name == "threshold":
            made[name] = 0.3 + uniform(*shape)
        elif name == "weight":
            # As strong for any number of inputs; recurrent ones do not grow from step to step.
            scale = 1.0 if letters == "RJJ" else 2.0
            made[name] = scale * max(1, shape[-1]) ** -0.5 * normal(*shape)
        elif name == "derivative":
            made[name] = 0.5 * normal(*shape).abs()
        else:
            made[name] = normal(*shape)
    return made


def decays(shape: tuple[int, ...], generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """Uniform in [0, 1] with about a tenth of exact zeros and a tenth of exact ones."""
    r = torch.rand(shape, generator=generator, dtype=dtype)
    kind = torch.rand(shape, generator=generator)
    r[kind < 0.1] = 0.0
    r[kind > 0.9] = 1.0
    return r


def surrogate_arguments(surrogate: Any, size: Size) -> tuple[Any, ...]:
    """Arguments of the operator `surrogate`: V [R, T, B, J], theta [R, J], kind and numbers."""
    given = numbers_of(surrogate, torch.float64)
    assert given is not None
    cpu = torch.device("cpu")
    return *potentials(size.R, size.T, size.B, size.J, cpu, torch.float64), *given


def raw_arguments(operator: str, size: Size, optional: bool) -> tuple[Any, ...]:
    """All arguments in the schema's order; without `optional` each that may be None is None."""
    surrogate = MultiGaussian() if optional else Triangular()
    if operator == "surrogate":
        return surrogate_arguments(surrogate, size)
    if operator in COMPOSED:
        return composed_arguments(operator, size, surrogate, optional)
    table = OPERATORS[operator]
    made: dict[str, Any] = dict(problem(operator, size))
    if not optional:
        made |= dict.fromkeys(table.optional)
    return *made.values(), *([not optional] if table.detachable else [])


def composed_arguments(
    operator: str, size: Size, surrogate: Any, optional: bool = True
) -> tuple[Any, ...]:
    """Arguments of one of `COMPOSED`: those of the backward, with V in place of ds/dV, then
    threshold, kind and numbers."""
    plain = operator.replace("_surrogate_backward", "_backward")
    potential, *rest = surrogate_arguments(surrogate, size)
    given = [*raw_arguments(plain, size, optional)]
    given[[*OPERATORS[plain].arguments].index("derivative")] = potential
    return *given, *rest


# -- calls -----------------------------------------------------------------------------------------


def is_raw(found: object) -> TypeGuard["torch._ops.OpOverload[..., Any]"]:
    """Whether an attribute of a module is an operator of PyTorch's dispatcher."""
    return isinstance(found, torch._ops.OpOverload)


MODULES = (
    ops.synaptic_current,
    ops.leaky_current,
    ops.spike_scan,
    ops.feedforward_scan,
    ops.recurrent_scan,
    ops.leaky_recurrent_scan,
    ops.surrogate,
)

RAW: dict[str, "torch._ops.OpOverload[..., Any]"] = {
    found._schema.name.removeprefix("hetsyn_triton::"): found
    for module in MODULES
    for found in vars(module).values()
    if is_raw(found)
}
"""`raw`, `raw_backward` and `raw_parameter_gradient` of every module, by the operator's name."""


def as_tuple(outputs: Any) -> tuple[Tensor, ...]:
    """One tensor, or several, as a tuple."""
    return outputs if isinstance(outputs, tuple) else (outputs,)


def apply(
    operator: str,
    *given: Tensor | None,
    surrogate: Surrogate = ATan(),  # noqa: B008 - frozen
    detach_reset: bool = False,
    backend: str = "auto",
    **named: Any,
) -> tuple[Tensor, ...]:
    """A differentiable operator without checks, of the table's arguments in order or by name."""
    table = OPERATORS[operator]
    arguments = dict(zip(table.arguments, given, strict=False)) | named
    arguments = {name: arguments.get(name) for name in table.arguments} | arguments
    options: list[Any] = [backend]
    if table.spiking:
        own = Neuron(*(arguments.pop(name) for name in NEURON))
        options = [own, surrogate, detach_reset, backend]
    return as_tuple(getattr(ops, operator).run(*arguments.values(), *options))


def call(operator: str, backend: str = "auto") -> Callable[..., tuple[Tensor, ...]]:
    """`apply` of one operator."""
    return lambda **tensors: apply(operator, backend=backend, **tensors)


def gradients(
    call: Callable[..., tuple[Tensor, ...]], tensors: Tensors, seed: int = 1
) -> tuple[tuple[Tensor, ...], Tensors]:
    """Outputs of `call(**tensors)` and the gradients of a random linear function of all of them, by
    argument."""
    leaves = {name: t.detach().clone().requires_grad_() for name, t in tensors.items()}
    outputs = call(**leaves)
    generator = torch.Generator().manual_seed(seed)
    g = [torch.randn(o.shape, generator=generator, dtype=o.dtype).to(o.device) for o in outputs]
    return tuple(o.detach() for o in outputs), vjp(outputs, g, leaves)


def vjp(
    outputs: Sequence[Tensor], g: Sequence[Tensor | None], leaves: Mapping[str, Tensor]
) -> Tensors:
    """Gradients of the leaves by name for the gradients g of the outputs, None where none arrives;
    zeros where nothing reaches a leaf."""
    pairs = [(o, d) for o, d in zip(outputs, g, strict=True) if d is not None and o.requires_grad]
    found: Sequence[Tensor | None] = [None] * len(leaves)
    if pairs:
        reached, arriving = zip(*pairs, strict=True)
        found = torch.autograd.grad(reached, [*leaves.values()], arriving, allow_unused=True)
    return {
        name: torch.zeros_like(leaf) if d is None else d
        for (name, leaf), d in zip(leaves.items(), found, strict=True)
    }


# -- forward and backward --------------------------------------------------------------------------


@dataclass(frozen=True)
class Problem:
    """Everything that the outputs and gradients of a differentiable operator depend on.

    `given` has the arguments by name, the gradients "g_" of the results, and ds/dV as "derivative".
    """

    operator: str
    size: Size
    given: Named
    detach_reset: bool

    def changed(self, change: Callable[[Tensor], Tensor]) -> "Problem":
        """With other tensors in the place of all."""
        return replace(
            self, given={n: None if t is None else change(t) for n, t in self.given.items()}
        )

    def to(self, device: torch.device) -> "Problem":
        """On another device."""
        return self.changed(lambda t: t.to(device))

    def sample(self, b: int) -> "Problem":
        """Sample b alone."""
        table = OPERATORS[self.operator]
        letters = {f"g_{name}": axes for name, axes in table.results.items()}
        letters |= {"derivative": "RTBJ", **table.arguments}
        given = narrow(letters, self.given, "B", b, 1)
        return replace(self, size=replace(self.size, B=1), given=given)

    def run(self) -> Tensors:
        """Results of the operator by name, gradients "d_" of the arguments that are there."""
        table = OPERATORS[self.operator]
        arguments = {name: self.given[name] for name in table.arguments}
        leaves: Named = {
            name: t.detach().requires_grad_() for name, t in arguments.items() if t is not None
        }
        options: dict[str, Any] = {}
        if table.spiking:
            options["surrogate"] = lambda *_: self.given["derivative"]
            options["detach_reset"] = self.detach_reset
        outputs = apply(self.operator, **leaves, **options)
        gradients = vjp(outputs, [self.given[f"g_{name}"] for name in table.results], leaves)
        results = dict(zip(table.results, (t.detach() for t in outputs), strict=True))
        return results | {f"d_{name}": d for name, d in gradients.items()}


def draw(
    operator: str,
    size: Size,
    seed: int,
    kind: int | None = None,
    dtype: torch.dtype = torch.float32,
) -> Problem:
    """A problem with states and gradients present or absent, as `kind` has it (default: seed).

    Equal kinds and features compile the same kernels.
    """
    choice = random.Random(seed if kind is None else kind)
    table = OPERATORS[operator]
    drawn = problem(operator, size, seed, states=choice.random() < 0.6, dtype=dtype)
    # Contracting: terms that grow from step to step would make every bound empty, and end as NaN.
    if operator.endswith("recurrent_scan"):
        drawn["weight"] = drawn["weight"] * (0.5 / size.J**0.5)
    if "feedback_strength" in drawn:
        drawn["feedback_strength"] = drawn["feedback_strength"].abs().clamp(max=1) / max(1, size.K)
    given: Named = {name: drawn.get(name) for name in table.arguments}
    generator = torch.Generator().manual_seed(seed + 1)

    def normal(letters: str) -> Tensor:
        return torch.randn(size.shape(letters), generator=generator, dtype=dtype)

    _, *others = table.results
    absent = {name for name in others if choice.random() < 0.3}
    for name, letters in table.results.items():
        given[f"g_{name}"] = None if name in absent else normal(letters)
    given["derivative"] = normal("RTBJ").abs().clamp(max=1) * 0.5
    return Problem(operator, size, given, choice.random() < 0.2)


def assert_sample_alone(given: Problem, whole: Tensors, b: int) -> None:
    """Every bit of sample b is there when it is computed alone."""
    table = OPERATORS[given.operator]
    letters = table.results | {f"d_{name}": axes for name, axes in table.arguments.items()}
    expected = narrow(letters, whole, "B", b, 1)
    for name, t in given.sample(b).run().items():
        assert "B" not in letters[name] or torch.equal(t, expected[name]), name


def assert_same(found: Any, expected: Any, tolerance: float = 1e-12) -> None:
    """Outputs and gradients as from `gradients`; spikes in the outputs must be equal, not close."""
    (outputs, grads), (want_outputs, want_grads) = found, expected
    pairs = list(zip(outputs, want_outputs, strict=True))
    pairs += [(grads[name], want) for name, want in want_grads.items()]
    for got, want in pairs:
        assert got.shape == want.shape
        torch.testing.assert_close(got, want, rtol=tolerance, atol=tolerance)
