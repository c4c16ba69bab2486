"""What the tests of the CPU kernels share."""

from collections.abc import Callable, Iterator

import pytest
import torch

from hetsyn_triton.kernels.cpu.lib import threads


@pytest.fixture
def on_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    """Sets the number of threads for the length of a test; the smallest problem is spread over
    them."""
    before = torch.get_num_threads()
    monkeypatch.setattr(threads, "GRAIN", 1)
    yield torch.set_num_threads
    torch.set_num_threads(before)
