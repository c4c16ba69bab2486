"""The tests of `pytest --benchmark`: one for every contender of every work in the registry.

pytest-benchmark times these tests with `measured_time`, a clock that only `advance` moves. Each
round advances it by a time that was measured before, interleaved with the other contenders.
pytest-benchmark's statistics and options therefore apply to these times.
"""

from typing import Any

import pytest
import torch

from bench.benchmark_runner import Measurements
from bench.registry import Entry, entries, rehearsed

# Warnings of other libraries are not errors here.
pytestmark = [pytest.mark.filterwarnings("default"), pytest.mark.timeout(3600)]

_now = 0.0


def measured_time() -> float:
    """Return the seconds measured so far."""
    return _now


def advance(seconds: float) -> None:
    global _now
    _now += seconds


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    option = metafunc.config.getoption
    if not option("benchmark"):
        raise pytest.UsageError("bench/ needs --benchmark")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    full = option("benchmark_full")
    chosen = rehearsed() if option("benchmark_rehearse") else entries(full, device)
    metafunc.parametrize("entry", chosen, ids=[e.id for e in chosen])


@pytest.mark.benchmark(timer=measured_time)
def test_benchmark(entry: Entry, measurements: Measurements, benchmark: Any) -> None:
    """Skip a contender that cannot run on this machine; fail if its result is wrong."""
    row = measurements.of(entry)
    if "missing" in row:
        pytest.skip(row["missing"])
    assert "wrong" not in row, row["wrong"]
    benchmark.group = entry.group
    benchmark.extra_info |= row
    seconds = [ms / 1e3 for ms in measurements.times[entry]] or [0.0]
    times = iter(seconds)
    benchmark.pedantic(lambda: advance(next(times)), rounds=len(seconds))
