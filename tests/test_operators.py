"""The operators as PyTorch sees them: schemas and fakes, replicas, strides, empty sizes, memory.

tests/operators and test_closed_forms test the numbers; here the same numbers must come out of
every way to call them.
"""

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from hetsyn_triton import ops
from hetsyn_triton.ops.dispatch import COMPOSED
from hetsyn_triton.reference import closed_form
from hetsyn_triton.surrogates import SURROGATES, MultiGaussian
from tests.support.operators import DIFFERENTIABLE, OPERATORS, SPIKING, Size
from tests.support.random_arguments import (
    RAW,
    SIZES,
    Tensors,
    as_tuple,
    assert_same,
    call,
    composed_arguments,
    gradients,
    problem,
    raw_arguments,
    surrogate_arguments,
)
from tests.support.surrogate_cases import BUILT_IN
from tests.support.tensors import strided, total

SIZE = Size(R=2, T=6, B=3, I=4, J=5, K=2)


# -- schemas, fakes --------------------------------------------------------------------------------


CASES = {
    "one replica, none given, transposed": (Size(R=1, T=3), False, "reversed"),
    "three replicas, all given, gaps": (Size(R=3, T=3), True, "gaps"),
}


def test_every_raw_operator_is_listed() -> None:
    defined = {
        name.removeprefix("hetsyn_triton::").removesuffix(".default")
        for name in torch._C._dispatch_get_all_op_names()
        if name.startswith("hetsyn_triton::")
    }
    assert defined == {*ops.OPERATORS, *COMPOSED} == set(RAW)


@pytest.mark.parametrize("name", ops.OPERATORS)
def test_the_table_is_the_schema(name: str) -> None:
    """Names, order and optional arguments in tests/support/operators.py are those of PyTorch's."""
    schema, table = RAW[name]._schema, OPERATORS[name]
    tensors = {a.name: a.type for a in schema.arguments if "Tensor" in str(a.type)}
    assert list(tensors) == list(table.arguments)
    assert {n for n, kind in tensors.items() if "Optional" in str(kind)} == set(table.optional)
    assert len(schema.returns) == len(table.results)
    assert table.detachable is any(a.name == "detach_reset" for a in schema.arguments)
    given = raw_arguments(name, SIZE, True)
    for tensor, letters in zip(given, table.arguments.values(), strict=False):
        assert tensor.shape == SIZE.shape(letters)
    results = as_tuple(RAW[name](*given))
    assert [t.shape for t in results] == [SIZE.shape(s) for s in table.results.values()]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", RAW)
def test_opcheck(name: str, case: str) -> None:
    """Schema (nothing mutated or aliased), fake tensors, dynamic shapes under AOT dispatch."""
    size, optional, strides = CASES[case]
    arguments = raw_arguments(name, size, optional)
    arguments = tuple(strided(a, strides) if isinstance(a, Tensor) else a for a in arguments)
    results = torch.library.opcheck(RAW[name], arguments)
    assert set(results.values()) == {"SUCCESS"}


@pytest.mark.parametrize("strides", ["reversed", "gaps"])
@pytest.mark.parametrize("name", RAW)
def test_raw_outputs_are_contiguous_and_independent_of_strides(name: str, strides: str) -> None:
    arguments = raw_arguments(name, SIZE, True)
    expected = RAW[name](*arguments)
    moved = [strided(a, strides) if isinstance(a, Tensor) else a for a in arguments]
    found = RAW[name](*moved)
    for got, want in zip(
        *(o if isinstance(o, tuple) else (o,) for o in (found, expected)), strict=True
    ):
        assert got.is_contiguous()
        torch.testing.assert_close(got, want, rtol=1e-13, atol=1e-13)


# -- the derivatives of built-in surrogates --------------------------------------------------------


@pytest.mark.parametrize("kind", SURROGATES)
def test_opcheck_of_every_surrogate(kind: str) -> None:
    arguments = surrogate_arguments(SURROGATES[kind](), Size(R=2, T=3))
    results = torch.library.opcheck(RAW["surrogate"], arguments)
    assert set(results.values()) == {"SUCCESS"}


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("surrogate", BUILT_IN, ids=str)
def test_surrogates_are_the_classes_own_formula(surrogate: Any, size: Size) -> None:
    """The closed form against the class called with u and theta, the kernel against the closed
    form."""
    potential, threshold, *given = surrogate_arguments(surrogate, size)
    theta = threshold[:, None, None]
    expected = closed_form.surrogate(potential, threshold, *given)
    formula = surrogate(potential - theta, theta)
    torch.testing.assert_close(expected, formula, rtol=1e-12, atol=1e-12)
    found = RAW["surrogate"](potential, threshold, *given)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("surrogate", BUILT_IN, ids=str)
def test_surrogates_of_replicas_are_independent(surrogate: Any) -> None:
    potential, threshold, *given = surrogate_arguments(surrogate, Size(R=3, T=6))
    together = RAW["surrogate"](potential, threshold, *given)
    for k in range(3):
        alone = RAW["surrogate"](potential[k : k + 1], threshold[k : k + 1], *given)
        torch.testing.assert_close(alone, together[k : k + 1], rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("size", [Size(R=2, T=0), Size(R=2, B=0)], ids=["T = 0", "B = 0"])
def test_surrogates_of_no_potentials(size: Size) -> None:
    potential, *rest = surrogate_arguments(MultiGaussian(), size)
    assert RAW["surrogate"](potential, *rest).shape == potential.shape


@pytest.mark.parametrize("surrogate", BUILT_IN, ids=str)
@pytest.mark.parametrize("name", COMPOSED)
def test_a_surrogate_and_then_a_backward(name: str, surrogate: Any) -> None:
    """Where no kernel is both, not one bit differs from the two operators one after the other."""
    size = Size(R=2, T=3)
    arguments = composed_arguments(name, size, surrogate)
    plain = name.replace("_surrogate_backward", "_backward")
    place = [*OPERATORS[plain].arguments].index("derivative")
    given, (threshold, *kind) = [*arguments[:-3]], arguments[-3:]
    given[place] = RAW["surrogate"](given[place], threshold, *kind)
    expected = RAW[plain](*given)
    for found, want in zip(RAW[name](*arguments), expected, strict=True):
        assert torch.equal(found, want)
    mapped = [t.unsqueeze(0) if isinstance(t, Tensor) else t for t in arguments]
    dims = tuple(0 if isinstance(t, Tensor) else None for t in arguments)
    for found, want in zip(torch.func.vmap(RAW[name], dims)(*mapped), expected, strict=True):
        assert torch.equal(found[0], want)


# -- replicas, strides, sizes ----------------------------------------------------------------------


@pytest.mark.parametrize("operator", DIFFERENTIABLE)
def test_replicas_are_independent(operator: str) -> None:
    """R = 3 in one call equals three calls with R = 1."""
    tensors = problem(operator, Size(R=3, T=6))
    outputs, grads = gradients(call(operator), tensors)
    weights = torch.Generator().manual_seed(1)
    scale = [torch.randn(o.shape, generator=weights, dtype=o.dtype) for o in outputs]
    for k in range(3):
        leaves = {n: t[k : k + 1].clone().requires_grad_() for n, t in tensors.items()}
        single = call(operator)(**leaves)
        loss = total((o * w[k : k + 1]).sum() for o, w in zip(single, scale, strict=True))
        found = torch.autograd.grad(loss, list(leaves.values()))
        expected = [o[k : k + 1] for o in outputs], {n: g[k : k + 1] for n, g in grads.items()}
        assert_same((single, dict(zip(leaves, found, strict=True))), expected)


@pytest.mark.parametrize("strides", ["reversed", "gaps"])
@pytest.mark.parametrize("operator", DIFFERENTIABLE)
def test_non_contiguous_inputs_and_gradients(operator: str, strides: str) -> None:
    tensors = problem(operator, SIZE)
    expected = gradients(call(operator), tensors)

    def on_strided(**leaves: Tensor) -> tuple[Tensor, ...]:
        outputs = call(operator)(**{n: strided(t, strides) for n, t in leaves.items()})
        # The gradient reaches the operator under the strides of this copy, reversed.
        return tuple(strided(o, strides) for o in outputs)

    assert_same(gradients(on_strided, tensors), expected)


@pytest.mark.parametrize("operator", DIFFERENTIABLE)
def test_expanded_gradients(operator: str) -> None:
    """The gradient of a plain sum has strides of zero."""
    leaves = {n: t.requires_grad_() for n, t in problem(operator, SIZE).items()}
    outputs = call(operator)(**leaves)
    summed = torch.autograd.grad(total(o.sum() for o in outputs), list(leaves.values()))
    outputs = call(operator)(**leaves)
    ones = [torch.ones_like(o) for o in outputs]
    dense = torch.autograd.grad(outputs, list(leaves.values()), ones)
    for got, want in zip(summed, dense, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("empty", ["T", "B"])
@pytest.mark.parametrize("operator", DIFFERENTIABLE)
@pytest.mark.parametrize("states", [True, False], ids=["states", "zero"])
@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_no_steps_and_no_samples(operator: str, empty: str, states: bool, backend: str) -> None:
    """T = 0: outputs without steps, final states equal initial ones. B = 0: zero gradients."""
    size = Size(R=2, B=0) if empty == "B" else Size(R=2, T=0)
    tensors = problem(operator, size, states=states)
    outputs = call(operator, backend)(**tensors)
    full = call(operator, backend)(**problem(operator, Size(R=2), states=states))
    axes = {"T": 7, "B": 3}
    for got, filled in zip(outputs, full, strict=True):
        dropped = [0 if n == axes[empty] else n for n in filled.shape]
        assert list(got.shape) == dropped
    _, grads = gradients(call(operator, backend), tensors)
    if empty == "B":
        assert not any(g.count_nonzero() for g in grads.values())
    if empty == "T":
        finals = {"synaptic_current": ["trace"], "spike_scan": ["feedback"]}
        finals["recurrent_scan"] = finals["feedforward_scan"] = ["feedback", "trace"]
        for name in finals.get(operator, []):
            index = {"trace": -1, "feedback": 2}[name]
            if name in tensors:
                assert torch.equal(outputs[index], tensors[name])
                assert grads[name].count_nonzero() == grads[name].numel()


# -- states ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [0, 1, 6])
@pytest.mark.parametrize("operator", DIFFERENTIABLE)
def test_inputs_and_states_are_never_written_to_nor_returned(operator: str, steps: int) -> None:
    """After forward and backward every argument is as it was, and no output shares its memory."""
    tensors = problem(operator, Size(R=2, T=steps))
    before = {n: (t._version, t.clone()) for n, t in tensors.items()}
    leaves = {n: t.requires_grad_() for n, t in tensors.items()}
    outputs = call(operator)(**leaves)
    found = torch.autograd.grad(total(o.square().sum() for o in outputs), list(leaves.values()))
    for name, t in leaves.items():
        version, values = before[name]
        assert t._version == version, name
        assert torch.equal(t, values), name
    memory = {t.untyped_storage().data_ptr() for t in leaves.values() if t.numel()}
    made = [o.untyped_storage().data_ptr() for o in (*outputs, *found) if o.numel()]
    assert not memory.intersection(made)
    assert len(set(made)) == len(made)


@pytest.mark.parametrize("operator", DIFFERENTIABLE)
def test_chunks_in_time_are_one_call(operator: str) -> None:
    """Bit for bit, spikes included, when the final states of a chunk start the next: float64."""
    tensors = problem(operator, Size(R=2, T=13, B=3, I=5, J=4))
    whole = call(operator)(**tensors)
    steps = {"drive"} if "leaky" in operator else {"z", "current"}
    carried, chunks = dict(tensors), []
    for start, stop in ((0, 5), (5, 6), (6, 13)):
        here = {n: t[:, start:stop] if n in steps else t for n, t in carried.items()}
        outputs = call(operator)(**here)
        chunks.append(outputs)
        if operator == "leaky_current":
            carried["current"] = outputs[0][:, -1]
        if operator == "leaky_recurrent_scan":
            carried["current"] = outputs[3][:, -1]
        if operator in ("synaptic_current", "feedforward_scan", "recurrent_scan"):
            carried["trace"] = outputs[-1]
        if operator in SPIKING:
            carried |= {"spike": outputs[0][:, -1], "feedback": outputs[2]}
    for index, want in enumerate(whole):
        over_time = want.ndim == 4 and want.shape[1] == 13
        parts = [c[index] for c in chunks]
        assert torch.equal(torch.cat(parts, 1) if over_time else parts[-1], want)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("operator", DIFFERENTIABLE)
def test_repeated_calls_are_bit_equal(operator: str, dtype: torch.dtype) -> None:
    tensors = problem(operator, Size(R=2, T=20, B=7, I=9, J=6), dtype=dtype)
    outputs, grads = gradients(call(operator), tensors)
    for _ in range(3):
        again, grads_again = gradients(call(operator), tensors)
        assert all(map(torch.equal, outputs, again))
        assert all(torch.equal(grads[n], grads_again[n]) for n in grads)
        assert all(o.dtype == dtype for o in (*again, *grads_again.values()))


def float32_errors(operator: str, backend: str, seed: int) -> dict[str, float]:
    """RMS error against float64 of every output and gradient, at equal spikes."""
    single = problem(operator, Size(R=2, T=20, B=4, I=16, J=8), seed, dtype=torch.float32)
    true, true_grads = gradients(call(operator), {n: t.double() for n, t in single.items()})
    leaves = {n: t.clone().requires_grad_() for n, t in single.items()}
    outputs = call(operator, backend)(**leaves)
    if operator in SPIKING:
        assert torch.equal(outputs[0].double(), true[0])
    generator = torch.Generator().manual_seed(1)
    weights = [torch.randn(o.shape, generator=generator, dtype=torch.float64) for o in outputs]
    grads = torch.autograd.grad(outputs, list(leaves.values()), [w.float() for w in weights])
    pairs = [(f"output {i}", o, w) for i, (o, w) in enumerate(zip(outputs, true, strict=True))]
    pairs += [(n, g, true_grads[n]) for n, g in zip(leaves, grads, strict=True)]
    return {n: (o.double() - w).square().mean().sqrt().item() for n, o, w in pairs}


@pytest.mark.parametrize("operator", DIFFERENTIABLE)
def test_float32_error_is_that_of_the_plain_loop(operator: str) -> None:
    """At most twice the error of the reference loop, geometric mean over five problems."""
    seeds = range(5)
    own = [float32_errors(operator, "auto", seed) for seed in seeds]
    plain = [float32_errors(operator, "reference", seed) for seed in seeds]
    for name in own[0]:
        allowed = [e[name] for e in plain]
        if not any(allowed):
            assert not any(e[name] for e in own), name
            continue
        ratios = [e[name] / a for e, a in zip(own, allowed, strict=True)]
        assert math.prod(ratios) ** (1 / len(ratios)) <= 2, f"{name}: {ratios}"


# -- cost ------------------------------------------------------------------------------------------


def saved_bytes(operator: str, tensors: Tensors, backend: str) -> int:
    """Bytes of distinct memory that autograd keeps for the backward pass."""
    kept: dict[int, int] = {}

    def pack(t: Tensor) -> Tensor:
        storage = t.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return t

    leaves = {n: t.requires_grad_() for n, t in tensors.items()}
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        outputs = call(operator, backend)(**leaves)
    del outputs
    return sum(kept.values())


@pytest.mark.parametrize("operator", ["synaptic_current", "recurrent_scan"])
@pytest.mark.parametrize("states", [True, False], ids=["states", "zero"])
def test_nothing_of_the_size_of_all_traces_is_kept(operator: str, states: bool) -> None:
    """O(T B (I + J)) and the states; the reference loop keeps T B J I, so the test can fail."""
    size = Size(R=1, T=128, B=4, I=40, J=40)
    tensors = problem(operator, size, states=states)
    all_traces = 8 * size.T * size.B * size.J * size.I
    given = sum(8 * t.numel() for t in tensors.values())
    allowed = given + 3 * 8 * size.T * size.B * size.J
    assert allowed < all_traces / 8
    assert saved_bytes(operator, tensors, "auto") <= allowed
    assert saved_bytes(operator, tensors, "reference") >= all_traces


class Count(TorchDispatchMode):
    """Counts calls of the package's operators while active."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: dict[str, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "hetsyn_triton":
            name = func._schema.name.removeprefix("hetsyn_triton::")
            self.calls[name] = self.calls.get(name, 0) + 1
        return func(*args, **(kwargs or {}))


SYNAPTIC = {
    ("z",): {"synaptic_current_backward"},
    ("trace",): {"synaptic_current_backward"},
    ("weight",): {"synaptic_parameter_gradient"},
    ("decay",): {"synaptic_parameter_gradient"},
    ("weight", "decay"): {"synaptic_parameter_gradient"},
    ("z", "weight"): {"synaptic_current_backward", "synaptic_parameter_gradient"},
}
SCAN = {"surrogate", "recurrent_scan_backward"}
RECURRENT = {
    ("current",): SCAN,
    ("spike", "feedback", "trace"): SCAN,
    ("weight",): {*SCAN, "synaptic_parameter_gradient"},
    ("decay",): {*SCAN, "synaptic_parameter_gradient"},
}
WANTED = [("synaptic_current", *case) for case in SYNAPTIC.items()]
WANTED += [("recurrent_scan", *case) for case in RECURRENT.items()]


@pytest.mark.parametrize(("operator", "wanted", "expected"), WANTED)
def test_no_gradient_is_computed_that_nobody_wants(
    operator: str, wanted: tuple[str, ...], expected: set[str]
) -> None:
    tensors = problem(operator, SIZE)
    full = gradients(call(operator), tensors)[1]
    for name in wanted:
        tensors[name].requires_grad_()
    outputs = call(operator)(**tensors)
    generator = torch.Generator().manual_seed(1)
    weights = [torch.randn(o.shape, generator=generator, dtype=o.dtype) for o in outputs]
    with Count() as counted:
        torch.autograd.backward(outputs, weights)
    assert counted.calls == dict.fromkeys(expected, 1)
    for name in wanted:
        torch.testing.assert_close(tensors[name].grad, full[name], rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("operator", DIFFERENTIABLE)
def test_each_output_alone(operator: str) -> None:
    """A loss of one output (the other gradients absent) equals one with zeros for the others."""
    tensors = problem(operator, SIZE)
    leaves = {n: t.requires_grad_() for n, t in tensors.items()}
    count = len(call(operator)(**leaves))
    for index in range(count):
        outputs = call(operator)(**leaves)
        generator = torch.Generator().manual_seed(1)
        w = torch.randn(outputs[index].shape, generator=generator, dtype=torch.float64)
        alone = torch.autograd.grad((outputs[index] * w).sum(), list(leaves.values()))
        outputs = call(operator)(**leaves)
        g = [w if i == index else torch.zeros_like(o) for i, o in enumerate(outputs)]
        beside = torch.autograd.grad(outputs, list(leaves.values()), g)
        for got, want in zip(alone, beside, strict=True):
            torch.testing.assert_close(got, want, rtol=1e-13, atol=1e-13)
