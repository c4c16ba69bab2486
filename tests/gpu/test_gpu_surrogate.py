"""Surrogates in one pass: within rounding of float64, and what is computed so at all."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from bounds import sparse
from hetsyn_triton import HetSynLIF, surrogates
from hetsyn_triton.kernels.gpu import surrogate as kernel
from hetsyn_triton.kernels.surrogate_kinds import KINDS
from hetsyn_triton.ops import between, in_one_pass
from hetsyn_triton.ops.kernels import TRITON
from hetsyn_triton.surrogates import MultiGaussian, Triangular
from surrogate_proofs import BUILT_IN, potentials, rounding


@pytest.mark.parametrize("shape", [(1, 3, 2, 5), (2, 7, 5, 12), (3, 1, 1, 1), (1, 40, 3, 64)])
@pytest.mark.parametrize("surrogate", BUILT_IN, ids=str)
def test_within_rounding(
    surrogate: Any, shape: tuple[int, int, int, int], device: torch.device
) -> None:
    potential, threshold = potentials(*shape, device)
    kind, numbers = in_one_pass.numbers_of(surrogate, torch.float32) or ("", ())
    found = kernel.derivative(kind, numbers, potential, threshold)
    assert found.shape == potential.shape
    assert found.dtype == torch.float32
    theta = threshold[:, None, None]
    u, theta = (potential - theta).double(), theta.double()
    exact = surrogate(u, theta)
    assert bool(exact.any())
    assert bool(
        ((found - exact).abs() <= rounding(surrogate, u, theta, exact, torch.float32)).all()
    )


@pytest.mark.parametrize("surrogate", BUILT_IN, ids=str)
def test_what_is_not_finite(surrogate: Any, device: torch.device) -> None:
    """As in PyTorch: NaN stays NaN; infinitely far away the derivative is 0 but for its least."""
    potential = torch.tensor([math.nan, math.inf, -math.inf, 1.0], device=device).view(1, 1, 1, 4)
    threshold = torch.ones(1, 4, device=device)
    kind, numbers = in_one_pass.numbers_of(surrogate, torch.float32) or ("", ())
    found = kernel.derivative(kind, numbers, potential, threshold).flatten()
    theirs = surrogate(potential.cpu() - 1, torch.ones(4)).flatten()
    assert found.isnan().tolist() == theirs.isnan().tolist() == [True, False, False, False]
    assert torch.allclose(found.cpu(), theirs, rtol=1e-5, atol=1e-32, equal_nan=True)


def test_no_elements_and_strides(device: torch.device) -> None:
    kind, numbers = in_one_pass.numbers_of(Triangular(), torch.float32) or ("", ())
    assert kernel.derivative(
        kind, numbers, torch.zeros(2, 0, 3, 5, device=device), torch.ones(2, 5, device=device)
    ).shape == (2, 0, 3, 5)
    potential, threshold = potentials(2, 6, 4, 8, device)
    plain = kernel.derivative(kind, numbers, potential, threshold)
    strided = potential.transpose(1, 2).contiguous().transpose(1, 2)
    assert torch.equal(kernel.derivative(kind, numbers, strided, threshold), plain)


def test_offsets_beyond_32_bits(device: torch.device, tmp_path: Path) -> None:
    """More than 2^31 potentials: only the last program is run."""
    neurons = 2**29 + 4
    memory = sparse(11 * neurons, device, tmp_path)
    potential, found = memory[: 10 * neurons].view(2, 1, 1, 5, neurons)
    threshold = memory[10 * neurons :].view(1, neurons)
    potential[0, 0, -1, -4:] = torch.tensor([1.0, 2.0, 4.0, 0.5], device=device)
    threshold[0, -4:] = 1.0
    programs = -(-5 * neurons // 512)
    kernel.launch_surrogate("fast_sigmoid", (1.0,), potential, threshold, found, first=programs - 1)
    exact = torch.tensor([1.0, 1 / 4, 1 / 16, 4 / 9], device=device)
    assert torch.allclose(found[0, 0, -1, -4:], exact, rtol=1e-6, atol=0)
    assert kernel.cost(1, 1, 5, neurons).hbm == 40 * neurons


def test_widths_at_the_ends(device: torch.device) -> None:
    potential, threshold = potentials(1, 2, 2, 3, device)
    for width in (1e-15, 1e15, 1e22):
        surrogate = MultiGaussian(width=width)
        kind, numbers = in_one_pass.numbers_of(surrogate, torch.float32) or ("", ())
        found = kernel.derivative(kind, numbers, potential, threshold)
        theta = threshold[:, None, None]
        theirs = surrogate(potential - theta, theta)
        assert bool(found.isfinite().all())
        assert torch.allclose(found, theirs, rtol=1e-3, atol=1e-34)


class Steeper(Triangular):
    """Another function than the one it is derived from."""

    def __call__(self, u: Tensor, threshold: Tensor) -> Tensor:
        return 2 * super().__call__(u, threshold)


@pytest.fixture
def one_pass(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The kinds that the kernel was asked for; where it is interpreted the CPU counts as a GPU."""
    asked = []
    compute = kernel.derivative

    def noted(kind: str, *arguments: Any) -> Tensor:
        asked.append(kind)
        return compute(kind, *arguments)

    monkeypatch.setattr(kernel, "derivative", noted)
    monkeypatch.setattr(in_one_pass, "KERNELS", (replace(TRITON, device=device.type),))
    return asked


def test_every_built_in_one(device: torch.device, one_pass: list[str]) -> None:
    potential, threshold = potentials(1, 2, 2, 3, device)
    for make in surrogates.SURROGATES.values():
        between.derivative(make(), potential, threshold)
    assert set(one_pass) == set(KINDS)
    assert len(one_pass) == len(surrogates.SURROGATES)


@pytest.mark.parametrize(
    ("surrogate", "dtype"),
    [
        (lambda u, threshold: (u.abs() < 1).to(u.dtype), torch.float32),
        (Steeper(), torch.float32),
        (Triangular(), torch.float64),
    ],
    ids=["one's own", "derived", "float64"],
)
def test_what_pytorch_computes(
    surrogate: Callable[[Tensor, Tensor], Tensor],
    dtype: torch.dtype,
    device: torch.device,
    one_pass: list[str],
) -> None:
    potential, threshold = (t.to(dtype) for t in potentials(2, 3, 2, 5, device))
    found = between.derivative(surrogate, potential, threshold)
    theta = threshold[:, None, None]
    assert one_pass == []
    assert torch.equal(found, surrogate(potential - theta, theta))


def test_gradients_of_a_layer(
    on_kernels: torch.device, one_pass: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the kernel and without, to rounding; under a transform PyTorch computes."""
    generator = torch.Generator().manual_seed(1)
    layer = HetSynLIF(
        6, 5, recurrent=True, surrogate=MultiGaussian(), generator=generator, device=on_kernels
    )
    x = (torch.rand(9, 3, 6, generator=generator) < 0.5).float().to(on_kernels)

    def gradients() -> list[Tensor]:
        return list(torch.autograd.grad(layer(x)[0].sum(), list(layer.parameters())))

    found = gradients()
    assert one_pass == ["multi_gaussian"]
    monkeypatch.setattr(in_one_pass, "derivative", lambda *given: None)
    for a, b in zip(found, gradients(), strict=True):
        assert bool(b.any())
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-5 * float(b.abs().max()))


class Marked(Tensor):
    """A subclass sees PyTorch's operations, not what a kernel does."""


def test_nothing_of_it_under_a_trace(
    device: torch.device, one_pass: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    potential, threshold = potentials(1, 2, 2, 3, device)
    traced = make_fx(lambda v, t: between.derivative(MultiGaussian(), v, t))(potential, threshold)
    assert "exp" in traced.code
    for v, t in (
        (potential.as_subclass(Marked), threshold),
        (potential, threshold.as_subclass(Marked)),
    ):
        assert in_one_pass.derivative(MultiGaussian(), v, t) is None
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert in_one_pass.derivative(MultiGaussian(), potential, threshold) is None
    assert one_pass == []


@pytest.mark.parametrize("what", ["missing", "broken"])
def test_pytorch_where_triton_is_not(
    what: str, device: torch.device, one_pass: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    potential, threshold = potentials(1, 2, 2, 3, device)
    if what == "missing":
        monkeypatch.setattr(in_one_pass.importlib.util, "find_spec", lambda name: None)
        monkeypatch.setattr(in_one_pass, "usable", lambda kernels: pytest.fail("warns"))
    else:
        monkeypatch.setattr(in_one_pass, "usable", lambda kernels: False)
    assert in_one_pass.derivative(MultiGaussian(), potential, threshold) is None
    assert one_pass == []


def test_nothing_of_it_under_a_transform(device: torch.device, one_pass: list[str]) -> None:
    potential, threshold = potentials(1, 2, 2, 3, device)
    found = torch.func.vmap(lambda v: between.derivative(MultiGaussian(), v[None], threshold)[0])(
        potential
    )
    assert one_pass == []
    assert torch.allclose(found, between.derivative(MultiGaussian(), potential, threshold))
    assert one_pass == ["multi_gaussian"]
