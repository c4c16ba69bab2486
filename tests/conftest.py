"""Options shared by all tests: `--slow` and `--full` for more of them, `--hunt` for other cases."""

from collections.abc import Iterator

import pytest
import torch
from hypothesis import settings

from tests.support.tensors import poisoned_memory

# One fixed set of examples, so that what fails fails again; no deadline: a first call may compile.
settings.register_profile("hetsyn", derandomize=True, deadline=None)
settings.load_profile("hetsyn")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="also run the tests marked slow")
    parser.addoption("--full", action="store_true", help="run all tests")
    parser.addoption(
        "--hunt", type=int, default=1, metavar="SEED", help="seed of random cases and of kills"
    )
    parser.addoption(
        "--times", type=int, default=1, metavar="N", help="N times as many kills and damaged files"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    full = config.getoption("--full")
    slow = full or config.getoption("--slow")
    skip_slow = pytest.mark.skip(reason="slow: run with --slow")
    skip_full = pytest.mark.skip(reason="very slow: run with --full")
    skip_gpu = pytest.mark.skip(reason="needs a CUDA device, none is visible")
    for item in items:
        if item.get_closest_marker("full") and not full:
            item.add_marker(skip_full)
        elif item.get_closest_marker("slow") and not slow:
            item.add_marker(skip_slow)
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(skip_gpu)


@pytest.fixture
def hunt(request: pytest.FixtureRequest) -> int:
    """The seed of random cases and moments of kills in tests marked full."""
    return int(request.config.getoption("--hunt"))


@pytest.fixture
def times(request: pytest.FixtureRequest) -> int:
    """How many times as many kills and damaged files there are; a hunt has ten times."""
    return int(request.config.getoption("--times"))


@pytest.fixture
def poisoned() -> Iterator[None]:
    """`poisoned_memory` for the length of a test."""
    with poisoned_memory():
        yield
