"""What the proofs of the CPU kernels share."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from hetsyn_triton.kernels.cpu import threads


@pytest.fixture
def on_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    """Sets the number of threads for the length of a test; the smallest problem is spread over
    them."""
    before = torch.get_num_threads()
    monkeypatch.setattr(threads, "GRAIN", 1)
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that a launcher allocates and does not write shows as NaN."""
    plain = torch.empty

    def filled(*arguments: Any, **options: Any) -> Tensor:
        made = plain(*arguments, **options)
        return made.fill_(torch.nan) if made.is_floating_point() else made

    monkeypatch.setattr(torch, "empty", filled)
