"""Options shared by all tests: `--full` for the slow proofs, skips that say why."""

from collections.abc import Iterator

import pytest
import torch
from hypothesis import settings

from tests.support.tensors import poisoned_memory

# One fixed set of examples, so that a red run is red again; no deadline: a first call may compile.
settings.register_profile("hetsyn", derandomize=True, deadline=None)
settings.load_profile("hetsyn")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full", action="store_true", help="also run the tests marked full")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    skip_full = pytest.mark.skip(reason="slow proof: run with --full")
    skip_gpu = pytest.mark.skip(reason="needs a CUDA device, none is visible")
    for item in items:
        if "full" in item.keywords and not config.getoption("--full"):
            item.add_marker(skip_full)
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(skip_gpu)


@pytest.fixture
def poisoned() -> Iterator[None]:
    """`poisoned_memory` for the length of a test."""
    with poisoned_memory():
        yield
