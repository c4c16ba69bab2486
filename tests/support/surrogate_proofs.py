"""What the proofs of surrogates in one pass share, on the CPU and on a GPU: `kernel` is the module
of one of them."""

import importlib.util
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from hetsyn_triton import HetSynLIF
from hetsyn_triton.kernels.surrogate_kinds import KINDS
from hetsyn_triton.ops import dispatch, surrogate as operator
from hetsyn_triton.reference import closed_form
from hetsyn_triton.surrogates import (
    SURROGATES,
    ATan,
    FastSigmoid,
    MultiGaussian,
    Sigmoid,
    Triangular,
    least_exponent,
)

BUILT_IN: list[Any] = [
    Triangular(),
    Triangular(height=0.3, width=2.5),
    MultiGaussian(),
    MultiGaussian(scale=1.3, height=0.4, width=0.2, ratio=3.0),
    ATan(),
    ATan(slope=7.0),
    FastSigmoid(),
    FastSigmoid(slope=90.0),
    Sigmoid(),
    Sigmoid(slope=30.0),
]


def potentials(
    R: int,
    T: int,
    B: int,
    J: int,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
) -> tuple[Tensor, Tensor]:
    """V and theta: most near each other, some far away, some equal."""
    generator = torch.Generator().manual_seed(R + T + B + J)
    threshold = 0.5 + torch.rand(R, J, generator=generator, dtype=dtype)
    far = torch.randn(R, T, B, J, generator=generator, dtype=dtype)
    far *= 10.0 ** torch.randint(-3, 3, far.shape, generator=generator)
    potential = threshold[:, None, None] + far * (torch.rand(far.shape, generator=generator) < 0.9)
    return potential.to(device), threshold.to(device)


def rounding(surrogate: Any, u: Tensor, theta: Tensor, exact: Tensor, dtype: torch.dtype) -> Tensor:
    """What `dtype` may be off by: a few units of each term, of an exponential by its exponent."""
    eps, least = torch.finfo(dtype).eps, math.exp(least_exponent(dtype))
    if isinstance(surrogate, Triangular):
        return 8 * eps * surrogate.height * (1 + u.abs() / (surrogate.width * theta))
    if isinstance(surrogate, MultiGaussian):
        s, off = surrogate, torch.zeros_like(u)
        for mean, width, factor in (
            (0.0, s.width, s.scale * (1 + s.height)),
            (s.width, s.ratio * s.width, s.scale * s.height),
            (-s.width, s.ratio * s.width, s.scale * s.height),
        ):
            height = factor / (width * math.sqrt(2 * math.pi))
            fall = (u - mean) ** 2 / (2 * width**2)
            off += height * (-fall).exp() * (8 + 8 * (fall + abs(math.log(height)))) * eps
        return off + 3 * least
    exponent = surrogate.slope * u.abs() if isinstance(surrogate, Sigmoid) else 0 * u
    return exact.abs() * (16 + 8 * exponent) * eps + 200 * least


def derivative(kernel: ModuleType, surrogate: Any, potential: Tensor, threshold: Tensor) -> Tensor:
    """ds/dV of a built-in surrogate by the kernel itself."""
    given = operator.numbers_of(surrogate, potential.dtype)
    assert given is not None
    found: Tensor = kernel.surrogate(potential, threshold, *given)
    assert found.shape == potential.shape
    assert found.dtype == potential.dtype
    return found


def is_within_rounding(surrogate: Any, potential: Tensor, threshold: Tensor, found: Tensor) -> None:
    """Of float32 against float64; of that against PyTorch's, which rounds too."""
    theta = threshold[:, None, None]
    u, theta = (potential - theta).double(), theta.double()
    exact = surrogate(u, theta)
    assert bool(exact.any())
    bound = rounding(surrogate, u, theta, exact, potential.dtype)
    bound *= 2 if potential.dtype == torch.float64 else 1
    assert bool(((found - exact).abs() <= bound).all())


def keeps_what_is_not_finite(
    kernel: ModuleType, surrogate: Any, device: torch.device, dtype: torch.dtype = torch.float32
) -> None:
    """As in PyTorch: NaN stays NaN; infinitely far away the derivative is 0 but for its least."""
    potential = torch.tensor([math.nan, math.inf, -math.inf, 1.0], dtype=dtype, device=device)
    threshold = torch.ones(1, 4, dtype=dtype, device=device)
    found = derivative(kernel, surrogate, potential.view(1, 1, 1, 4), threshold).flatten()
    theirs = surrogate(potential.cpu() - 1, threshold[0].cpu())
    assert found.isnan().tolist() == theirs.isnan().tolist() == [True, False, False, False]
    assert torch.allclose(found.cpu(), theirs, rtol=1e-5, atol=1e-32, equal_nan=True)


def takes_no_elements_and_strides(kernel: ModuleType, device: torch.device) -> None:
    for R, J, shape in ((2, 5, (2, 0, 3, 5)), (2, 0, (2, 4, 3, 0)), (0, 5, (0, 4, 3, 5))):
        none, threshold = torch.zeros(shape, device=device), torch.ones(R, J, device=device)
        assert derivative(kernel, Triangular(), none, threshold).shape == shape
    potential, threshold = potentials(2, 6, 4, 8, device)
    plain = derivative(kernel, Triangular(), potential, threshold)
    strided = potential.transpose(1, 2).contiguous().transpose(1, 2)
    wide = threshold.repeat_interleave(2, 1)[:, ::2]
    assert torch.equal(derivative(kernel, Triangular(), strided, wide), plain)


def takes_widths_at_the_ends(
    kernel: ModuleType, width: float, device: torch.device, dtype: torch.dtype = torch.float32
) -> None:
    potential, threshold = potentials(1, 2, 2, 3, device, dtype)
    surrogate = MultiGaussian(width=width)
    found = derivative(kernel, surrogate, potential, threshold)
    theta = threshold[:, None, None]
    theirs = surrogate(potential - theta, theta)
    assert bool(found.isfinite().all())
    assert torch.allclose(found, theirs, rtol=1e-3, atol=1e-34)


# -- who is asked ----------------------------------------------------------------------------------


def noting(kernel: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The kinds that the dispatcher asks the kernel for from here on."""
    asked = []
    launcher = dispatch.Kernels.launcher

    def noted(kernels: dispatch.Kernels, name: str) -> Callable[..., Any]:
        launch = launcher(kernels, name)
        if name != "surrogate":
            return launch
        assert launch is kernel.surrogate

        def run(potential: Tensor, threshold: Tensor, kind: str, numbers: list[float]) -> Tensor:
            asked.append(kind)
            found: Tensor = launch(potential, threshold, kind, numbers)
            return found

        return run

    monkeypatch.setattr(dispatch.Kernels, "launcher", noted)
    return asked


def every_built_in_one(
    one_pass: list[str], device: torch.device, dtype: torch.dtype = torch.float32
) -> None:
    potential, threshold = potentials(1, 2, 2, 3, device, dtype)
    for make in SURROGATES.values():
        operator.derivative(make(), potential, threshold)
    assert set(one_pass) == set(KINDS)
    assert len(one_pass) == len(SURROGATES)


def gradients_to_rounding(
    layer: HetSynLIF,
    one_pass: list[str],
    monkeypatch: pytest.MonkeyPatch,
    tolerance: float,
) -> None:
    """Of a layer with 6 inputs and `MultiGaussian`: the operator and the class's own formula."""
    x = torch.rand(9, 3, 6, generator=torch.Generator().manual_seed(1)) < 0.5

    def gradients() -> list[Tensor]:
        output, _ = layer(x.to(layer.weight.device))
        return list(torch.autograd.grad(output.sum(), list(layer.parameters())))

    found = gradients()
    assert one_pass == ["multi_gaussian"]
    monkeypatch.setattr(operator, "numbers_of", lambda *given: None)
    expected = gradients()
    assert one_pass == ["multi_gaussian"]
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


def pytorch_computes(
    surrogate: Callable[[Tensor, Tensor], Tensor],
    dtype: torch.dtype,
    one_pass: list[str],
    device: torch.device,
) -> None:
    potential, threshold = (t.to(dtype) for t in potentials(2, 3, 2, 5, device))
    found = operator.derivative(surrogate, potential, threshold)
    theta = threshold[:, None, None]
    assert one_pass == []
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


def one_operator_under_a_trace_or_a_transform(
    one_pass: list[str], device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A built-in surrogate is one call of the operator, whoever looks at it."""
    potential, threshold = potentials(1, 2, 2, 3, device)

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
    one_pass.clear()
    sets = torch.stack([potential, other, -potential])
    mapped = torch.func.vmap(derivative, (0, None))(sets, threshold)
    assert one_pass == ["multi_gaussian"]  # replicas of one launch
    for v, found in zip(sets, mapped, strict=True):
        assert torch.equal(found, derivative(v, threshold))
    one_pass.clear()
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert torch.equal(derivative(potential, threshold), expected)
    assert one_pass == ["multi_gaussian"]


def closed_form_without_the_package(
    kernels: dispatch.Kernels,
    what: str,
    one_pass: list[str],
    device: torch.device,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`what`: "missing", of which nothing is said, or "broken"."""
    potential, threshold = potentials(1, 2, 2, 3, device)
    given = operator.numbers_of(MultiGaussian(), potential.dtype)
    assert given is not None
    expected = closed_form.surrogate(potential, threshold, *given)
    if what == "broken":
        monkeypatch.setattr(dispatch, "usable", lambda kernels: False)
        found = operator.derivative(MultiGaussian(), potential, threshold)
    else:
        there = importlib.util.find_spec
        packages = [kernels.package for kernels in dispatch.KERNELS]

        def without(name: str, package: str | None = None) -> Any:
            return None if name in packages else there(name, package)

        with _defined("hetsyn_triton_with", monkeypatch) as (_, keys):
            assert kernels.key in keys
        monkeypatch.setattr(importlib.util, "find_spec", without)
        monkeypatch.setattr(dispatch, "usable", lambda kernels: pytest.fail("warns"))
        with _defined("hetsyn_triton_without", monkeypatch) as (raw, keys):
            assert keys == set()
            found = raw(potential, threshold, *given)
    assert torch.equal(found, expected)
    assert one_pass == []


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
