"""What the proofs of surrogates in one pass share, on the CPU and on a GPU: `kernel` is the module
of one of them."""

import math
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from hetsyn_triton import HetSynLIF
from hetsyn_triton.kernels.surrogate_kinds import KINDS
from hetsyn_triton.ops import between, in_one_pass
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
    given = in_one_pass.numbers_of(surrogate, potential.dtype)
    assert given is not None
    found: Tensor = kernel.derivative(*given, potential, threshold)
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
    """The kinds that the kernel is asked for from here on."""
    asked = []
    compute = kernel.derivative

    def noted(kind: str, *arguments: Any) -> Tensor:
        asked.append(kind)
        found: Tensor = compute(kind, *arguments)
        return found

    monkeypatch.setattr(kernel, "derivative", noted)
    return asked


def every_built_in_one(
    one_pass: list[str], device: torch.device, dtype: torch.dtype = torch.float32
) -> None:
    potential, threshold = potentials(1, 2, 2, 3, device, dtype)
    for make in SURROGATES.values():
        between.derivative(make(), potential, threshold)
    assert set(one_pass) == set(KINDS)
    assert len(one_pass) == len(SURROGATES)


def gradients_to_rounding(
    layer: HetSynLIF,
    one_pass: list[str],
    monkeypatch: pytest.MonkeyPatch,
    tolerance: float,
) -> None:
    """Of a layer with 6 inputs and `MultiGaussian`, with the kernel and without."""
    x = torch.rand(9, 3, 6, generator=torch.Generator().manual_seed(1)) < 0.5

    def gradients() -> list[Tensor]:
        output, _ = layer(x.to(layer.weight.device))
        return list(torch.autograd.grad(output.sum(), list(layer.parameters())))

    found = gradients()
    assert one_pass == ["multi_gaussian"]
    monkeypatch.setattr(in_one_pass, "derivative", lambda *given: None)
    for a, b in zip(found, gradients(), strict=True):
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
    found = between.derivative(surrogate, potential, threshold)
    theta = threshold[:, None, None]
    assert one_pass == []
    assert torch.equal(found, surrogate(potential - theta, theta))


class _Marked(Tensor):
    """A subclass sees PyTorch's operations, not what a kernel does."""


def nothing_under_a_trace_or_a_transform(
    one_pass: list[str], device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    potential, threshold = potentials(1, 2, 2, 3, device)
    traced = make_fx(lambda v, t: between.derivative(MultiGaussian(), v, t))(potential, threshold)
    assert "exp" in traced.code
    for v, t in (
        (potential.as_subclass(_Marked), threshold),
        (potential, threshold.as_subclass(_Marked)),
    ):
        assert in_one_pass.derivative(MultiGaussian(), v, t) is None
    mapped = torch.func.vmap(lambda v: between.derivative(MultiGaussian(), v[None], threshold)[0])
    found = mapped(potential)
    assert one_pass == []
    assert torch.allclose(found, between.derivative(MultiGaussian(), potential, threshold))
    assert one_pass == ["multi_gaussian"]
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert in_one_pass.derivative(MultiGaussian(), potential, threshold) is None
    assert one_pass == ["multi_gaussian"]


def nothing_without_the_package(
    what: str, one_pass: list[str], device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`what`: "missing", of which nothing is said, or "broken"."""
    potential, threshold = potentials(1, 2, 2, 3, device)
    if what == "missing":
        monkeypatch.setattr(in_one_pass.importlib.util, "find_spec", lambda name: None)
        monkeypatch.setattr(in_one_pass, "usable", lambda kernels: pytest.fail("warns"))
    else:
        monkeypatch.setattr(in_one_pass, "usable", lambda kernels: False)
    assert in_one_pass.derivative(MultiGaussian(), potential, threshold) is None
    assert one_pass == []
