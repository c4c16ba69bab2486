"""What `pytest --benchmark` runs: a test for every contender of every work in the registry."""

from typing import Any

import pytest

from bench.registry import Entry, entries, rehearsed
from bench.turns import Turns, advance, measured_time

# Other libraries warn of what is none of this repository's.
pytestmark = [pytest.mark.filterwarnings("default"), pytest.mark.timeout(3600)]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    option = metafunc.config.getoption
    if not option("benchmark"):
        raise pytest.UsageError("bench/ is measured with --benchmark")
    chosen = rehearsed() if option("benchmark_rehearse") else entries(option("benchmark_full"))
    metafunc.parametrize("entry", chosen, ids=[e.id for e in chosen])


@pytest.mark.benchmark(timer=measured_time)
def test_benchmark(entry: Entry, turns: Turns, benchmark: Any) -> None:
    """Skipped, with the reason, where this machine cannot; failed where the result is wrong."""
    found = turns.of(entry)
    if found.missing:
        pytest.skip(found.missing)
    assert not found.wrong, found.wrong
    benchmark.group = entry.group
    benchmark.extra_info |= found.info
    times = iter(found.seconds or [0.0])
    benchmark.pedantic(lambda: advance(next(times)), rounds=max(1, len(found.seconds)))
