"""PyTorch's number of threads during a block."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def on_threads(count: int | None) -> Iterator[None]:
    """Set PyTorch's number of threads to `count` while the block runs; None does not change it."""
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
