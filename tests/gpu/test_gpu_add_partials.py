"""Partial sums: the chain of float32 additions in ascending order, bit by bit."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from hetsyn_triton.kernels.gpu.lib import add_partials as module
from hetsyn_triton.kernels.gpu.lib.add_partials import add_partials, launch_sum
from hetsyn_triton.kernels.gpu.lib.launch import recording
from tests.support.bounds import sparse

pytestmark = pytest.mark.usefixtures("poisoned")

SHAPES = [
    (1, 2, 1),
    (3, 5, 1),
    (1, 8, 128),
    (2, 33, 37),
    (1, 67, 132),
    (5, 3, 4),
    (1, 9, 2000),
    (3, 4, 667),
]


def chain(partials: Tensor) -> Tensor:
    total = partials[:, 0].clone()
    for p in range(1, partials.shape[1]):
        total = total + partials[:, p]
    return total


@pytest.mark.parametrize("small", [0, 1 << 16], ids=["wide", "narrow"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_is_the_ascending_chain(
    shape: tuple[int, int, int], small: int, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_SMALL", small)
    partials = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(device)
    before = partials.clone()
    found = add_partials(partials)
    assert found.is_contiguous()
    assert torch.equal(found, chain(partials))
    assert torch.equal(partials, before)
    assert torch.equal(add_partials(partials), found)


def test_order_is_seen(device: torch.device) -> None:
    """Large, small, minus large: any other order keeps the small one."""
    partials = torch.tensor([1e8, 1.0, -1e8]).view(1, 3, 1).to(device)
    assert add_partials(partials).item() == 0.0
    assert add_partials(partials[:, [0, 2, 1]].contiguous()).item() == 1.0


@pytest.mark.parametrize("elements", [3, 5000])
def test_special_numbers(elements: int, device: torch.device) -> None:
    partials = torch.full((1, 3, elements), -0.0, device=device)
    assert torch.signbit(add_partials(partials)).all()
    partials[0, 1, 1] = torch.inf
    partials[0, 2, 2] = torch.nan
    found = add_partials(partials)[0]
    assert found[1].isinf()
    assert found[2].isnan()
    assert not found[0].isnan()


@pytest.mark.parametrize("shape", [(0, 3, 4), (2, 0, 4), (2, 3, 0), (2, 1, 4)], ids=str)
def test_empty_and_single(shape: tuple[int, int, int], device: torch.device) -> None:
    partials = torch.ones(shape, device=device)
    assert torch.equal(add_partials(partials), partials.sum(1))


@pytest.mark.parametrize("width", [1, 4])
@pytest.mark.parametrize("unrolled", [1, 2, 8, 32])
def test_no_configuration_changes_a_bit(unrolled: int, width: int, device: torch.device) -> None:
    partials = torch.randn(2, 11, 52, generator=torch.Generator().manual_seed(1)).to(device)
    total = torch.empty(2, 52, device=device)
    launch_sum(partials, total, 11, 52, 2, width=width, threads=32, unrolled=unrolled)
    assert torch.equal(total, chain(partials))


def test_offsets_beyond_32_bits(device: torch.device, tmp_path: Path) -> None:
    """Two partials more than 2^31 apart, and a total as long: only the last program is run."""
    elements = 2**31 + 4
    memory = sparse(3 * elements, device, tmp_path)
    partials, total = memory[: 2 * elements], memory[2 * elements :]
    partials[elements - 4 : elements] = 1.5
    partials[-4:] = torch.arange(4.0, device=device)
    programs = -(-elements // 128)
    launch_sum(partials, total, 2, elements, 1, width=4, threads=32, unrolled=8, first=programs - 1)
    assert torch.equal(total[-4:], 1.5 + torch.arange(4.0, device=device))


def test_launches_without_reading(device: torch.device) -> None:
    with recording() as calls:
        for samples in (1000, 1001, 1003):  # whatever T and B, one kernel for a size of features
            add_partials(torch.empty(1, 7, 66 * samples, device="meta"), 66)
            add_partials(torch.empty(1, 7, 68 * samples, device="meta"), 68)
        add_partials(torch.empty(1, 7, 60, device="meta"), 60)
    assert [c.constants["WIDTH"] for c in calls] == [1, 4] * 3 + [1]
