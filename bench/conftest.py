"""Fixtures and output of `pytest --benchmark`."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from bench import correctness, machines, peak, records, timing
from bench.benchmark_runner import Measurements, Plan, tape
from bench.registry import Entry

ENTRIES = pytest.StashKey[list[Entry]]()
BUSY = 1.0
"""Load average above which the cores count as busy."""


def pytest_collection_finish(session: pytest.Session) -> None:
    """Collect the selected entries; the contenders of a group are interleaved."""
    found = [item.callspec.params["entry"] for item in session.items if hasattr(item, "callspec")]
    session.config.stash[ENTRIES] = [entry for entry in found if isinstance(entry, Entry)]
    reporter: Any = session.config.pluginmanager.getplugin("terminalreporter")
    if reporter is not None:
        reporter.showfspath = False  # it would stand between the lines of the entries


def pytest_report_teststatus(report: pytest.TestReport) -> tuple[str, str, str] | None:
    """Print no dots, because each entry has its own line."""
    if report.when == "call" and report.outcome in ("passed", "skipped"):
        return (report.outcome, "", report.outcome.upper())
    return None


@pytest.fixture(scope="session")
def measurements(request: pytest.FixtureRequest) -> Iterator[Measurements]:
    config, begin = request.config, time.monotonic()
    option = config.getoption
    reporter: Any = config.pluginmanager.getplugin("terminalreporter")
    capture: Any = config.pluginmanager.getplugin("capturemanager")

    def say(line: str) -> None:
        with capture.global_and_fixture_disabled():
            reporter.ensure_newline()
            reporter.write_line(line)

    file: Path | None = option("benchmark_rows")

    def keep(row: records.Record) -> None:
        if file is not None:
            records.append(file, records.rounded(row))

    device = "cuda" if torch.cuda.is_available() else "cpu"
    rehearse = option("benchmark_rehearse")
    timed = not option("benchmark_disable") or option("benchmark_enable")
    timing.zero_denormals()
    machine = machines.of(device)
    machine["freed_memory_kept"] = device == "cpu" and timed and timing.keep_freed_memory(0)
    chosen = config.stash[ENTRIES]
    # The largest tape, and the one before it, which is still being freed.
    reserved = max((2 * tape(e.work, e.contender) for e in chosen), default=0) if timed else 0
    plan = Plan(
        device,
        torch.get_num_threads(),
        float(option("benchmark_max_time")),
        int(option("benchmark_min_rounds")),
        timed,
        option("benchmark_full") or rehearse,
        rehearse,
        min(reserved, 10 << 30) if device == "cpu" else 0,
    )
    about: records.Record = {
        "machine": machine,
        "set": next((s for s in ("full", "rehearse") if option(f"benchmark_{s}")), "quick"),
        "memory": "from a process for each call" if device == "cpu" else "of the allocator",
    }
    if option("benchmark_tested"):
        try:
            about["tests"] = correctness.earlier(option("benchmark_tested"), machine)
        except records.Refused as error:
            pytest.exit(f"--benchmark-tested: {error}", pytest.ExitCode.USAGE_ERROR)
    rates = [_fma_rate(machine, timed)]
    if file is not None:
        file.unlink(missing_ok=True)
    keep(about | {"rates": {"fma": rates[0]}})
    found = Measurements(plan, chosen, say, rates[0], keep, option("benchmark_end"))
    load = os.getloadavg()[0]
    busy = " (other processes are running: times are too long)" if load > BUSY and timed else ""
    say(f"{machine['device']}, {machine['threads']} threads, load {load:.1f}{busy}")
    if device == "cuda" or rehearse:
        found.warm(1 if rehearse else max(1, min(14, (os.cpu_count() or 2) - 2)))
    else:
        say("the first lines take minutes if kernels have not been compiled yet")
    yield found
    found.close()
    rates.append(_fma_rate(machine, timed))
    about = {"rates": {"fma": max(rates), "fma_each_time": rates}}
    keep(about | {"seconds": time.monotonic() - begin})


def _fma_rate(machine: records.Record, timed: bool) -> float:
    """Return the peak multiply-adds per second: from the data of a GPU, measured on a CPU."""
    if not timed:
        return 0.0
    return float(machine.get("fma_rate") or peak.fma_rate(1.0))
