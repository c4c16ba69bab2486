"""What the Triton kernels promise of every operator beyond the contract of tests/operators."""

import pytest
import torch

from tests.support.implementations import TRITON
from tests.support.operators import OPERATORS, Size
from tests.support.tensors import same

pytestmark = pytest.mark.usefixtures("poisoned")

ALL = sorted(TRITON.operators - {"surrogate"})
TAKING_SPIKES = [n for n in ALL if {"z", "spikes"} & {*OPERATORS[n].arguments}]
SIZE = Size(R=1, T=3, B=1, I=18, J=6, K=2)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("operator", TAKING_SPIKES)
def test_types_of_spikes(operator: str, dtype: torch.dtype) -> None:
    given = TRITON.given(operator, SIZE)
    typed = {n: given[n].to(dtype) for n in ("z", "spikes", "spike") if n in given}
    assert same(TRITON(operator, given | typed), TRITON(operator, given))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("operator", ALL)
def test_half_precision_means_its_float32_numbers(operator: str, dtype: torch.dtype) -> None:
    given = TRITON.given(operator, SIZE, dtype)
    whole = {n: None if t is None else t.float() for n, t in given.items()}
    assert same(TRITON(operator, given), TRITON(operator, whole))
