"""The surrogate as an operator: within rounding of the class's own formula, and what it serves."""

import importlib.util
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from hetsyn_triton import HetSynLIF
from hetsyn_triton.kernels.surrogate_kinds import KINDS
from hetsyn_triton.ops import dispatch, surrogate as operator
from hetsyn_triton.reference import closed_form
from hetsyn_triton.surrogates import SURROGATES, MultiGaussian, Surrogate, Triangular
from tests.support.implementations import CLOSED_FORM, NUMBA, TRITON, Implementation
from tests.support.interpreter import on_kernels
from tests.support.surrogate_cases import BUILT_IN, potentials, rounding

SHAPES = [(1, 3, 2, 5), (2, 7, 5, 12), (3, 1, 1, 1), (1, 40, 3, 64), (2, 90, 11, 17), (2, 1, 1, 40)]
"""Rows shorter and longer than a vector; the fifth has two tasks a replica on the CPU, and the
second begins and ends within a row."""

ALL = pytest.mark.parametrize(
    "implementation", [pytest.param(i, id=i.name) for i in (CLOSED_FORM, NUMBA, TRITON)]
)


def derivative(
    kernels: Implementation, surrogate: Any, potential: Tensor, threshold: Tensor
) -> Tensor:
    """ds/dV of a built-in surrogate by the implementation itself."""
    given = operator.numbers_of(surrogate, potential.dtype)
    assert given is not None
    found: Tensor = kernels.find("surrogate")(potential, threshold, *given)
    assert found.shape == potential.shape
    assert found.dtype == potential.dtype
    return found


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("surrogate", BUILT_IN, ids=str)
@ALL
def test_within_rounding(
    implementation: Implementation, surrogate: Any, shape: tuple[int, int, int, int]
) -> None:
    """float32 against float64; float64 against PyTorch's, which rounds too."""
    for dtype in implementation.dtypes:
        potential, threshold = potentials(*shape, implementation.device, dtype)
        found = derivative(implementation, surrogate, potential, threshold)
        theta = threshold[:, None, None]
        u, theta = (potential - theta).double(), theta.double()
        exact = surrogate(u, theta)
        assert bool(exact.any())
        bound = rounding(surrogate, u, theta, exact, dtype)
        bound *= 2 if dtype == torch.float64 else 1
        assert bool(((found - exact).abs() <= bound).all())


@pytest.mark.parametrize("surrogate", BUILT_IN, ids=str)
@ALL
def test_what_is_not_finite(implementation: Implementation, surrogate: Any) -> None:
    """As in PyTorch: NaN stays NaN; infinitely far away the derivative is 0 but for its least."""
    for dtype in implementation.dtypes:
        potential = torch.tensor([math.nan, math.inf, -math.inf, 1.0], dtype=dtype)
        threshold = torch.ones(1, 4, dtype=dtype)
        theirs = surrogate(potential - 1, threshold[0])
        given = (t.to(implementation.device) for t in (potential.view(1, 1, 1, 4), threshold))
        found = derivative(implementation, surrogate, *given).flatten().cpu()
        assert found.isnan().tolist() == theirs.isnan().tolist() == [True, False, False, False]
        assert torch.allclose(found, theirs, rtol=1e-5, atol=1e-32, equal_nan=True)


@ALL
def test_empty(implementation: Implementation) -> None:
    for R, J, shape in ((2, 5, (2, 0, 3, 5)), (2, 0, (2, 4, 3, 0)), (0, 5, (0, 4, 3, 5))):
        none, threshold = (torch.ones(n, device=implementation.device) for n in (shape, (R, J)))
        assert derivative(implementation, Triangular(), none, threshold).shape == shape


@ALL
def test_strides(implementation: Implementation) -> None:
    potential, threshold = potentials(2, 6, 4, 8, implementation.device)
    plain = derivative(implementation, Triangular(), potential, threshold)
    strided = potential.transpose(1, 2).contiguous().transpose(1, 2)
    wide = threshold.repeat_interleave(2, 1)[:, ::2]
    assert torch.equal(derivative(implementation, Triangular(), strided, wide), plain)


@pytest.mark.parametrize("width", [1e-15, 1e15, 1e18])
@ALL
def test_widths_at_the_ends(implementation: Implementation, width: float) -> None:
    for dtype in implementation.dtypes:
        potential, threshold = potentials(1, 2, 2, 3, implementation.device, dtype)
        surrogate = MultiGaussian(width=width)
        found = derivative(implementation, surrogate, potential, threshold)
        theta = threshold[:, None, None]
        theirs = surrogate(potential - theta, theta)
        assert bool(found.isfinite().all())
        assert torch.allclose(found, theirs, rtol=1e-3, atol=1e-34)


# -- what the dispatcher asks the kernel for -------------------------------------------------------


@pytest.fixture(params=[pytest.param(k, id=k.name) for k in (NUMBA, TRITON)])
def kernels(request: pytest.FixtureRequest) -> Iterator[Implementation]:
    """The kernels of a device, registered. Interpreted ones take the place of the CPU's."""
    chosen: Implementation = request.param
    if chosen is TRITON:
        with on_kernels():
            yield chosen
    else:
        yield chosen


@pytest.fixture
def asked(kernels: Implementation, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The kinds that the dispatcher asks the kernel for."""
    found = []
    launcher = dispatch.Kernels.launcher
    own = kernels.find("surrogate")

    def noted(table: dispatch.Kernels, name: str) -> Callable[..., Any]:
        launch = launcher(table, name)
        if name != "surrogate":
            return launch
        assert launch is own

        def run(potential: Tensor, threshold: Tensor, kind: str, numbers: list[float]) -> Tensor:
            found.append(kind)
            result: Tensor = launch(potential, threshold, kind, numbers)
            return result

        return run

    monkeypatch.setattr(dispatch.Kernels, "launcher", noted)
    return found


def test_every_built_in_one(kernels: Implementation, asked: list[str]) -> None:
    for dtype in kernels.dtypes:
        asked.clear()
        potential, threshold = potentials(1, 2, 2, 3, kernels.device, dtype)
        for make in SURROGATES.values():
            operator.derivative(make(), potential, threshold)
        assert set(asked) == set(KINDS)
        assert len(asked) == len(SURROGATES)


@pytest.mark.parametrize("recurrent", [False, True])
def test_gradients_of_a_layer(
    recurrent: bool, kernels: Implementation, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The operator and the class's own formula give the same gradients but for rounding."""
    dtype = kernels.dtypes[-1]
    tolerance = 1e-12 if dtype == torch.float64 else 1e-4
    layer = HetSynLIF(
        6,
        5,
        recurrent=recurrent,
        surrogate=MultiGaussian(),
        generator=torch.Generator().manual_seed(1),
        device=kernels.device,
        dtype=dtype,
    )
    x = torch.rand(9, 3, 6, generator=torch.Generator().manual_seed(1)) < 0.5

    def gradients() -> list[Tensor]:
        output, _ = layer(x.to(kernels.device))
        return list(torch.autograd.grad(output.sum(), list(layer.parameters())))

    found = gradients()
    assert asked == ["multi_gaussian"]
    monkeypatch.setattr(operator, "numbers_of", lambda *given: None)
    expected = gradients()
    assert asked == ["multi_gaussian"]
    for a, b in zip(found, expected, strict=True):
        assert bool(b.any())
        assert torch.allclose(a, b, rtol=tolerance, atol=tolerance / 10 * float(b.abs().max()))


class Steeper(Triangular):
    """Another function than the one it is derived from."""

    def __call__(self, u: Tensor, threshold: Tensor) -> Tensor:
        return 2 * super().__call__(u, threshold)


def flat_top(u: Tensor, threshold: Tensor) -> Tensor:
    """One of the user's own."""
    return (u.abs() < 1).to(u.dtype)


@pytest.mark.parametrize("case", ["one's own", "derived", "another dtype"])
def test_what_pytorch_computes(case: str, kernels: Implementation, asked: list[str]) -> None:
    cases: dict[str, tuple[Surrogate, torch.dtype]] = {
        "one's own": (flat_top, torch.float32),
        "derived": (Steeper(), torch.float32),
        "another dtype": (
            Triangular(),
            torch.float64 if kernels is TRITON else torch.bfloat16,
        ),
    }
    surrogate, dtype = cases[case]
    potential, threshold = (t.to(dtype) for t in potentials(2, 3, 2, 5, kernels.device))
    found = operator.derivative(surrogate, potential, threshold)
    theta = threshold[:, None, None]
    assert asked == []
    assert torch.equal(found, surrogate(potential - theta, theta))


def operators_in(graph: torch.fx.Graph) -> list[str]:
    """The calls of a traced graph in order, as in `hetsyn_triton.surrogate.default`."""
    return [str(node.target) for node in graph.nodes if node.op == "call_function"]


class _Watching(Tensor):
    """A subclass that notes the operators PyTorch's dispatcher is called with."""

    seen: ClassVar[list[str]] = []

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if isinstance(func, torch._ops.OpOverload):
            cls.seen.append(str(func))
        return super().__torch_function__(func, types, args, kwargs)  # type: ignore[no-untyped-call]


def test_one_operator_under_a_trace_or_a_transform(
    kernels: Implementation, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tracing, vmap and tensor subclasses see a built-in surrogate as one call of the operator."""
    potential, threshold = potentials(1, 2, 2, 3, kernels.device)

    def derivative(v: Tensor, t: Tensor) -> Tensor:
        return operator.derivative(MultiGaussian(), v, t)

    expected = derivative(potential, threshold)
    traced = make_fx(derivative)(potential, threshold)
    assert operators_in(traced.graph) == ["hetsyn_triton.surrogate.default"]
    other = potential.flip(1)
    assert torch.equal(traced(other, threshold), derivative(other, threshold))
    for v, t in (
        (potential.as_subclass(_Watching), threshold),
        (potential, threshold.as_subclass(_Watching)),
    ):
        _Watching.seen.clear()
        assert torch.equal(derivative(v, t).as_subclass(Tensor), expected)
        assert _Watching.seen == ["hetsyn_triton.surrogate.default"]
    asked.clear()
    sets = torch.stack([potential, other, -potential])
    mapped = torch.func.vmap(derivative, (0, None))(sets, threshold)
    assert asked == ["multi_gaussian"]  # replicas of one launch
    for v, found in zip(sets, mapped, strict=True):
        assert torch.equal(found, derivative(v, threshold))
    asked.clear()
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert torch.equal(derivative(potential, threshold), expected)
    assert asked == ["multi_gaussian"]


@pytest.mark.parametrize("what", ["missing", "broken"])
def test_the_closed_form_without_the_compiler(
    what: str, kernels: Implementation, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is said where it is missing; where it is broken, `usable` warns."""
    key = "CUDA" if kernels is TRITON else "CPU"
    potential, threshold = potentials(1, 2, 2, 3, kernels.device)
    given = operator.numbers_of(MultiGaussian(), potential.dtype)
    assert given is not None
    expected = closed_form.surrogate(potential, threshold, *given)
    if what == "broken":
        monkeypatch.setattr(dispatch, "usable", lambda table: False)
        found = operator.derivative(MultiGaussian(), potential, threshold)
    else:
        there = importlib.util.find_spec
        packages = [table.package for table in dispatch.KERNELS]

        def without(name: str, package: str | None = None) -> Any:
            return None if name in packages else there(name, package)

        with _defined("hetsyn_triton_with", monkeypatch) as (_, keys):
            assert key in keys
        monkeypatch.setattr(importlib.util, "find_spec", without)
        monkeypatch.setattr(dispatch, "usable", lambda table: pytest.fail("warns"))
        with _defined("hetsyn_triton_without", monkeypatch) as (raw, keys):
            assert keys == set()
            found = raw(potential, threshold, *given)
    assert torch.equal(found, expected)
    assert asked == []


@contextmanager
def _defined(
    namespace: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Callable[..., Tensor], set[str]]]:
    """The operator as `define` makes it now, under another name, and the keys it has kernels for.

    An operator gets its kernels when the package is imported, so what is installed is looked up
    then.
    """
    with torch.library._scoped_library(namespace, "DEF") as library, monkeypatch.context() as patch:
        patch.setattr(dispatch, "NAMESPACE", namespace)
        patch.setattr(dispatch, "_LIBRARY", library)
        assert isinstance(operator.raw, torch._ops.OpOverload)
        schema = str(operator.raw._schema).removeprefix("hetsyn_triton::")
        raw = dispatch.define(schema, closed_form.surrogate, lambda v, *rest: v.new_empty(v.shape))
        yield raw, {key for key in ("CPU", "CUDA") if dispatch.has_kernel("surrogate", key)}
