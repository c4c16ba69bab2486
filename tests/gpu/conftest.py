"""The tests of the Triton kernels: on a GPU where one is visible, else under the interpreter."""

from collections.abc import Iterator

import pytest
import torch

from tests.support import interpreter


@pytest.fixture
def device() -> torch.device:
    """Where the kernels of this run live."""
    return interpreter.DEVICE


@pytest.fixture
def on_kernels() -> Iterator[torch.device]:
    """A device on which operators are kernels."""
    with interpreter.on_kernels() as device:
        yield device
