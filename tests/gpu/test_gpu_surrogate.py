"""Surrogates in one pass on a GPU: within rounding of float64, and what is computed so at all."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from hetsyn_triton import HetSynLIF
from hetsyn_triton.kernels.gpu import surrogate as kernel
from hetsyn_triton.ops.dispatch import TRITON
from hetsyn_triton.surrogates import MultiGaussian, Triangular
from tests.support import surrogate_proofs as proofs
from tests.support.bounds import sparse


@pytest.mark.parametrize("shape", [(1, 3, 2, 5), (2, 7, 5, 12), (3, 1, 1, 1), (1, 40, 3, 64)])
@pytest.mark.parametrize("surrogate", proofs.BUILT_IN, ids=str)
def test_within_rounding(
    surrogate: Any, shape: tuple[int, int, int, int], device: torch.device
) -> None:
    given = proofs.potentials(*shape, device)
    found = proofs.derivative(kernel, surrogate, *given)
    proofs.is_within_rounding(surrogate, *given, found)


@pytest.mark.parametrize("surrogate", proofs.BUILT_IN, ids=str)
def test_what_is_not_finite(surrogate: Any, device: torch.device) -> None:
    proofs.keeps_what_is_not_finite(kernel, surrogate, device)


def test_no_elements_and_strides(device: torch.device) -> None:
    proofs.takes_no_elements_and_strides(kernel, device)


@pytest.mark.parametrize("width", [1e-15, 1e15, 1e18])
def test_widths_at_the_ends(width: float, device: torch.device) -> None:
    proofs.takes_widths_at_the_ends(kernel, width, device)


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


@pytest.fixture
def one_pass(on_kernels: torch.device, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The kinds that the kernel was asked for; where it is interpreted the CPU counts as a GPU."""
    return proofs.noting(kernel, monkeypatch)


def test_every_built_in_one(device: torch.device, one_pass: list[str]) -> None:
    proofs.every_built_in_one(one_pass, device)


@pytest.mark.parametrize(
    ("surrogate", "dtype"),
    [
        (proofs.flat_top, torch.float32),
        (proofs.Steeper(), torch.float32),
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
    proofs.pytorch_computes(surrogate, dtype, one_pass, device)


def test_gradients_of_a_layer(
    on_kernels: torch.device, one_pass: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = torch.Generator().manual_seed(1)
    layer = HetSynLIF(
        6, 5, recurrent=True, surrogate=MultiGaussian(), generator=generator, device=on_kernels
    )
    proofs.gradients_to_rounding(layer, one_pass, monkeypatch, 1e-4)


def test_one_operator_under_a_trace_or_a_transform(
    device: torch.device, one_pass: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    proofs.one_operator_under_a_trace_or_a_transform(one_pass, device, monkeypatch)


@pytest.mark.parametrize("what", ["missing", "broken"])
def test_the_closed_form_where_triton_is_not(
    what: str, device: torch.device, one_pass: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    proofs.closed_form_without_the_package(TRITON, what, one_pass, device, monkeypatch)
