"""Sums of the CPU kernels over neurons: weights of leaky synapses, samples, feedback currents."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from hetsyn_triton.kernels.cpu.lib.neurons_reverse import feedback_gradients
from hetsyn_triton.kernels.cpu.lib.sums import sum_in_order
from hetsyn_triton.kernels.cpu.lib.weight_gradient import weight_gradient
from hetsyn_triton.reference.lib.steps import previous_steps
from tests.support.implementations import NUMBA

pytestmark = pytest.mark.usefixtures("poisoned")


@pytest.mark.parametrize("steps", [1, 31, 32, 33, 65])
@pytest.mark.parametrize("neurons", [1, 4, 15, 16, 63, 64, 65, 130])
@pytest.mark.parametrize("dtype", NUMBA.dtypes, ids=str)
def test_weight_gradient_in_parts_and_spans(
    neurons: int, steps: int, dtype: torch.dtype, on_threads: Callable[[int], None]
) -> None:
    """Every way of sharing what is read makes the same sums; whole numbers make them exact."""
    generator = torch.Generator().manual_seed(0)

    def numbers(*shape: int) -> torch.Tensor:
        return torch.randint(-3, 4, shape, generator=generator).to(dtype)

    du, s = numbers(2, steps, 3, neurons), numbers(2, steps, 3, neurons)
    spike = numbers(2, 3, neurons)
    wanted = torch.einsum("rtbj,rtbi->rji", du, previous_steps(s, spike))
    for count in (1, 3, 7, 100):
        on_threads(count)
        found = weight_gradient(du, s, spike)
        assert found.is_contiguous()
        assert torch.equal(found, wanted), count


def test_a_sum_ascends() -> None:
    parts = torch.tensor([1.0, 2.0**24, 1.0, -(2.0**24)]).view(1, 4, 1)
    assert sum_in_order(parts).item() == 0.0  # 2 descending, 1 in pairs
    assert torch.equal(sum_in_order(torch.ones(3, 0, 5)), torch.zeros(3, 5))
    wide = torch.randn(2, 9, 33, generator=torch.Generator().manual_seed(0))
    total = torch.zeros(2, 33)
    for part in wide.unbind(1):
        total = total + part
    assert torch.equal(sum_in_order(wide.mT.contiguous().mT), total)


def test_gradients_of_the_feedback_on_paper() -> None:
    """F(2) = r (r F + k s0) + k s1; g at step 2 alone, with F subtracted in V."""
    r, k, start, s0, s1 = 0.5, 3.0, 7.0, -0.25, 1.0

    def of(number: float, *shape: int) -> Tensor:
        return torch.full(shape, number)

    g = torch.tensor([0.0, 2.0]).view(1, 2, 1, 1)
    spikes = torch.tensor([s1, 1.0]).view(1, 2, 1, 1)
    d_decay, d_strength = feedback_gradients(
        g, None, spikes, of(r, 1, 1, 1), of(k, 1, 1, 1), of(start, 1, 1, 1, 1), of(s0, 1, 1, 1)
    )
    assert d_decay.item() == -2 * (2 * r * start + k * s0)
    assert d_strength.item() == -2 * (r * s0 + s1)
