"""The operators under PyTorch's transforms: compile, export, func.grad, vmap; what must raise."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.support.operators import DIFFERENTIABLE, SPIKING, Size
from tests.support.random_arguments import assert_same, call, gradients, problem
from tests.support.tensors import total

SIZE = Size(R=2, T=5, B=3, I=4, J=3, K=2)


@pytest.fixture
def fresh_dynamo() -> Iterator[None]:
    """Nothing compiled is left over from, or for, another test."""
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def loss_of(operator: str) -> Callable[..., Tensor]:
    """A fixed random linear function of all outputs."""

    def loss(**tensors: Tensor) -> Tensor:
        total = torch.zeros((), dtype=torch.float64)
        for index, o in enumerate(call(operator)(**tensors)):
            ramp = torch.linspace(-1, 2, o[0].numel(), dtype=o.dtype).reshape(o.shape[1:])
            total = total + (o * torch.cos(ramp + index)).sum()
        return total

    return loss


def functional_grad(operator: str, names: list[str]) -> Callable[..., tuple[Tensor, ...]]:
    """torch.func.grad of `loss_of` with respect to all of `names`, given in that order."""
    loss = loss_of(operator)

    def positional(*values: Tensor) -> Tensor:
        return loss(**dict(zip(names, values, strict=True)))

    return torch.func.grad(positional, argnums=tuple(range(len(names))))


def autograd(operator: str, tensors: dict[str, Tensor]) -> tuple[Tensor, ...]:
    leaves = {n: t.detach().clone().requires_grad_() for n, t in tensors.items()}
    return torch.autograd.grad(loss_of(operator)(**leaves), list(leaves.values()))


def assert_close(found: Any, expected: Any) -> None:
    for got, want in zip(found, expected, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)


# -- compile, export -------------------------------------------------------------------------------


@pytest.mark.usefixtures("fresh_dynamo")
@pytest.mark.parametrize("operator", DIFFERENTIABLE)
def test_compiled_without_graph_breaks(operator: str) -> None:
    """Outputs and all gradients of torch.compile(fullgraph=True) equal the eager ones."""
    tensors = problem(operator, SIZE)
    compiled = torch.compile(call(operator), fullgraph=True, backend="aot_eager")
    assert_same(gradients(compiled, tensors), gradients(call(operator), tensors))


@pytest.mark.usefixtures("fresh_dynamo")
@pytest.mark.parametrize("operator", ["synaptic_current", "recurrent_scan"])
def test_compiled_without_a_trace(operator: str) -> None:
    tensors = problem(operator, SIZE, states=False)
    compiled = torch.compile(call(operator), fullgraph=True, backend="aot_eager")
    assert_same(gradients(compiled, tensors), gradients(call(operator), tensors))


@pytest.mark.usefixtures("fresh_dynamo")
@pytest.mark.parametrize("learning", [False, True], ids=["constants", "no_grad"])
@pytest.mark.parametrize("operator", DIFFERENTIABLE)
def test_compiled_inference(operator: str, learning: bool) -> None:
    """Without gradients the compiler takes another way into an autograd.Function."""
    tensors = {n: t.requires_grad_(learning) for n, t in problem(operator, SIZE).items()}
    compiled = torch.compile(call(operator), fullgraph=True, backend="aot_eager")
    with torch.set_grad_enabled(not learning):
        assert_close(compiled(**tensors), call(operator)(**tensors))


@pytest.mark.usefixtures("fresh_dynamo")
def test_one_compilation_serves_every_length_and_batch() -> None:
    """T is a number at run time: the third length and batch size compile nothing new."""
    graphs = []

    def count(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(call("synaptic_current"), fullgraph=True, backend=count)
    for steps, batch in ((5, 3), (7, 4), (11, 6), (13, 9)):
        tensors = problem("synaptic_current", Size(T=steps, B=batch))
        assert_close(compiled(**tensors), call("synaptic_current")(**tensors))
    assert len(graphs) <= 2


@pytest.mark.parametrize("operator", DIFFERENTIABLE)
def test_exported(operator: str) -> None:
    """The exported program holds the raw operator and gives the same numbers."""

    class Module(torch.nn.Module):
        def forward(self, **tensors: Tensor) -> tuple[Tensor, ...]:
            return call(operator)(**tensors)

    tensors = problem(operator, SIZE)
    program = torch.export.export(Module(), (), tensors)
    assert f"hetsyn_triton.{operator}" in str(program.graph)
    other = problem(operator, SIZE, seed=5)
    assert_close(program.module()(**other), call(operator)(**other))


# -- torch.func ------------------------------------------------------------------------------------


@pytest.mark.parametrize("operator", DIFFERENTIABLE)
def test_functional_gradient(operator: str) -> None:
    tensors = problem(operator, SIZE)
    found = functional_grad(operator, list(tensors))(*tensors.values())
    assert_close(found, autograd(operator, tensors))


def stacked(operator: str, mapped: list[str], count: int = 3) -> tuple[dict[str, Tensor], list]:  # type: ignore[type-arg]
    """`count` problems that differ in `mapped` only: those stacked, and the problems one by one."""
    base = problem(operator, SIZE)
    sets = [problem(operator, SIZE, seed=s) for s in range(10, 10 + count)]
    singles = [base | {n: s[n] for n in mapped} for s in sets]
    return base | {n: torch.stack([s[n] for s in sets]) for n in mapped}, singles


PARAMETERS = {
    "synaptic_current": ["weight", "decay"],
    "leaky_current": ["decay"],
    "spike_scan": ["threshold", "feedback_strength"],
    "feedforward_scan": ["weight", "decay", "threshold"],
    "recurrent_scan": ["weight", "decay", "threshold"],
    "leaky_recurrent_scan": ["weight", "decay", "feedback_decay"],
}
MAPPED = [
    pytest.param(operator, kind, id=f"{operator}-{kind}")
    for operator in DIFFERENTIABLE
    for kind in ("everything", "parameters", "the rest")
]


def names_of(operator: str, kind: str) -> list[str]:
    names = list(problem(operator, SIZE))
    if kind == "everything":
        return names
    return [n for n in names if (n in PARAMETERS[operator]) == (kind == "parameters")]


@pytest.mark.parametrize(("operator", "kind"), MAPPED)
def test_vmap_is_a_loop(operator: str, kind: str) -> None:
    """Mapped over everything, over parameters only (inputs shared), or over the rest only."""
    mapped = names_of(operator, kind)
    tensors, singles = stacked(operator, mapped)
    names = list(tensors)

    def positional(*values: Tensor) -> tuple[Tensor, ...]:
        return call(operator)(**dict(zip(names, values, strict=True)))

    in_dims = tuple(0 if n in mapped else None for n in names)
    found = torch.func.vmap(positional, in_dims)(*tensors.values())
    each = [call(operator)(**single) for single in singles]
    assert_close(found, [torch.stack(o) for o in zip(*each, strict=True)])


@pytest.mark.parametrize(("operator", "kind"), MAPPED)
def test_vmap_of_the_gradient_is_a_loop(operator: str, kind: str) -> None:
    mapped = names_of(operator, kind)
    tensors, singles = stacked(operator, mapped)
    in_dims = tuple(0 if n in mapped else None for n in tensors)
    found = torch.func.vmap(functional_grad(operator, list(tensors)), in_dims)(*tensors.values())
    each = [autograd(operator, single) for single in singles]
    assert_close(found, [torch.stack(g) for g in zip(*each, strict=True)])


@pytest.mark.parametrize("operator", DIFFERENTIABLE)
def test_gradient_through_vmap(operator: str) -> None:
    """The other order: the loss is summed over a vmap, whose last dimension is the mapped one."""
    mapped = names_of(operator, "everything")
    tensors, singles = stacked(operator, mapped)
    names = list(tensors)
    last = [t.movedim(0, -1).contiguous().requires_grad_() for t in tensors.values()]

    def positional(*values: Tensor) -> Tensor:
        return loss_of(operator)(**dict(zip(names, values, strict=True)))

    total = torch.func.vmap(positional, in_dims=-1)(*last).sum()
    found = torch.autograd.grad(total, last)
    each = [autograd(operator, single) for single in singles]
    assert_close(found, [torch.stack(g, -1) for g in zip(*each, strict=True)])


@pytest.mark.parametrize("size", [Size(T=0), Size(B=0)], ids=["T = 0", "B = 0"])
@pytest.mark.parametrize("operator", DIFFERENTIABLE)
def test_vmap_over_empty_problems(operator: str, size: Size) -> None:
    tensors = problem(operator, size)
    names = list(tensors)
    pairs = [torch.stack([t, t]) for t in tensors.values()]

    def positional(*values: Tensor) -> tuple[Tensor, ...]:
        return call(operator)(**dict(zip(names, values, strict=True)))

    found = torch.func.vmap(positional)(*pairs)
    assert [o.shape[1:] for o in found] == [o.shape for o in call(operator)(**tensors)]
    gradient = torch.func.vmap(functional_grad(operator, names))(*pairs)
    assert [g.shape for g in gradient] == [p.shape for p in pairs]


def test_nested_vmap() -> None:
    tensors = problem("synaptic_current", Size(R=6, T=4))
    split = [t.unflatten(0, (3, 2)).unsqueeze(2) for t in tensors.values()]
    twice = torch.func.vmap(
        torch.func.vmap(lambda *a: call("synaptic_current")(**dict(zip(tensors, a, strict=True))))
    )
    found = [o.flatten(0, 2) for o in twice(*split)]
    assert_close(found, call("synaptic_current")(**tensors))


def test_raw_operators_have_the_rule_too() -> None:
    tensors = problem("recurrent_scan", Size(R=4))
    operator = torch.ops.hetsyn_triton.recurrent_scan.default
    found = torch.func.vmap(operator)(*(t.unflatten(0, (2, 2)) for t in tensors.values()))
    assert_close([o.flatten(0, 1) for o in found], operator(*tensors.values()))


def test_vmap_over_nothing_raises() -> None:
    tensors = problem("leaky_current", SIZE)
    none = [t.new_empty(0, *t.shape) for t in tensors.values()]
    with pytest.raises(ValueError, match="size 0"):
        torch.func.vmap(torch.ops.hetsyn_triton.leaky_current.default)(*none)
    with pytest.raises(ValueError, match="size 0"):
        torch.func.vmap(lambda *a: call("leaky_current")(**dict(zip(tensors, a, strict=True))))(
            *none
        )


# -- what is not defined raises --------------------------------------------------------------------


@pytest.mark.parametrize("linear", [True, False], ids=["linear loss", "square loss"])
@pytest.mark.parametrize("operator", DIFFERENTIABLE)
def test_the_gradient_of_a_gradient_raises(operator: str, linear: bool) -> None:
    """For a linear loss too, where the incoming gradient is a constant and zero looks plausible."""
    leaves = {n: t.requires_grad_() for n, t in problem(operator, SIZE).items()}
    outputs = call(operator)(**leaves)
    loss = total(o.sum() if linear else o.square().sum() for o in outputs)
    once = torch.autograd.grad(loss, list(leaves.values()), create_graph=True)
    with pytest.raises(RuntimeError, match="first derivatives only"):
        total(g.square().sum() for g in once).backward()


@pytest.mark.parametrize("operator", DIFFERENTIABLE)
def test_nested_functional_gradients_raise(operator: str) -> None:
    tensors = problem(operator, SIZE)
    once = functional_grad(operator, list(tensors))
    with pytest.raises(RuntimeError, match="first derivatives only"):
        torch.func.grad(lambda *a: sum(g.sum() for g in once(*a)))(*tensors.values())


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
@pytest.mark.parametrize("operator", DIFFERENTIABLE)
def test_forward_mode_raises(operator: str) -> None:
    tensors = problem(operator, SIZE)
    names = list(tensors)
    values = tuple(tensors.values())
    with pytest.raises(NotImplementedError, match="jvp"):
        torch.func.jvp(
            lambda *a: loss_of(operator)(**dict(zip(names, a, strict=True))),
            values,
            tuple(torch.ones_like(v) for v in values),
        )


@pytest.mark.parametrize("operator", SPIKING)
def test_the_reference_loop_has_second_derivatives(operator: str) -> None:
    """As the error of the operators says."""
    leaves = {n: t.requires_grad_() for n, t in problem(operator, SIZE).items()}
    outputs = call(operator, "reference")(**leaves)
    loss = total(o.square().sum() for o in outputs)
    once = torch.autograd.grad(loss, list(leaves.values()), create_graph=True)
    total(g.square().sum() for g in once).backward()
    assert all(leaf.grad is not None for leaf in leaves.values())
