"""`pytest --benchmark`: run the benchmarks in bench/ instead of the tests."""

import argparse
import time
from pathlib import Path
from typing import Any

import pytest

BENCH = Path(__file__).parent / "bench"
EXTRA = (
    "--benchmark needs pytest-benchmark, which is not installed. The extra `bench` has it:"
    " pip install -c constraints.txt -e '.[bench]'"
)
OPTIONS = {
    "full": "with --benchmark: all sizes, not the quick set",
    "rehearse": "with --benchmark: tiny sizes, for tests of the benchmark; not stored",
}
FILES = {
    "rows": "with --benchmark: write each row after its group; bench.report reads the file",
    "tested": "with --benchmark: result of `python -m bench.correctness` on this device",
}


class _Refused(argparse.Action):
    """Name the missing plugin before pytest rejects the plugin's options."""

    def __call__(self, *_: Any) -> None:
        raise pytest.UsageError(EXTRA)


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    group = parser.getgroup("benchmarks of this repository")
    about = "run the benchmarks in bench/ instead of the tests"
    if pluginmanager.hasplugin("benchmark"):
        group.addoption("--benchmark", action="store_true", help=about)
    else:
        refused: Any = _Refused
        group.addoption("--benchmark", action=refused, nargs=0, default=False, help=about)
    for option, about in OPTIONS.items():
        group.addoption(f"--benchmark-{option}", action="store_true", help=about)
    about = "with --benchmark: time limit in seconds; the rest is skipped"
    group.addoption("--benchmark-budget", type=float, metavar="S", help=about)
    for option, about in FILES.items():
        group.addoption(f"--benchmark-{option}", type=Path, metavar="FILE", help=about)


def pytest_configure(config: pytest.Config) -> None:
    if not config.getoption("benchmark"):
        for option in (*OPTIONS, "budget", *FILES):
            if config.getoption(f"benchmark_{option}"):
                raise pytest.UsageError(f"--benchmark-{option} needs --benchmark")
        return
    config.option.benchmark_end = time.monotonic() + (config.getoption("benchmark_budget") or 1e9)
    # Warnings of pytest-benchmark (nothing saved, another machine) are not errors.
    warning = "pytest_benchmark.logger.PytestBenchmarkWarning"
    config.addinivalue_line("filterwarnings", f"default::{warning}")
    if config.args_source == config.ArgsSource.TESTPATHS:
        config.args = [str(BENCH)]


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Ignore bench/ without --benchmark, and everything else with it."""
    inside = collection_path == BENCH or BENCH in collection_path.parents
    if collection_path.is_file() and inside != config.getoption("benchmark"):
        return True
    return None
