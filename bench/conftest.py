"""What `pytest --benchmark` sets up, shows and adds to the files of pytest-benchmark."""

import os
import time
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from bench import machines, timing
from bench.registry import Entry
from bench.turns import Plan, Turns, tape

ENTRIES = pytest.StashKey[list[Entry]]()
FOUND = pytest.StashKey[dict[str, Any]]()
BUSY = 1.0
"""Load beyond which the cores are not quiet; this program itself has just begun."""


def pytest_collection_finish(session: pytest.Session) -> None:
    """Who takes turns: what is selected."""
    found = [item.callspec.params["entry"] for item in session.items if hasattr(item, "callspec")]
    session.config.stash[ENTRIES] = [entry for entry in found if isinstance(entry, Entry)]
    reporter: Any = session.config.pluginmanager.getplugin("terminalreporter")
    if reporter is not None:
        reporter.showfspath = False  # of one file, between the lines of the entries


def pytest_report_teststatus(report: pytest.TestReport) -> tuple[str, str, str] | None:
    """No dots: each entry has a line."""
    if report.when == "call" and report.outcome in ("passed", "skipped"):
        return (report.outcome, "", report.outcome.upper())
    return None


@pytest.fixture(scope="session")
def turns(request: pytest.FixtureRequest) -> Iterator[Turns]:
    config, begin = request.config, time.monotonic()
    reporter: Any = config.pluginmanager.getplugin("terminalreporter")
    capture: Any = config.pluginmanager.getplugin("capturemanager")

    def say(line: str) -> None:
        with capture.global_and_fixture_disabled():
            reporter.ensure_newline()
            reporter.write_line(line)

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    timed = not config.getoption("benchmark_disable") or config.getoption("benchmark_enable")
    plan = Plan(
        device,
        torch.get_num_threads(),
        float(config.getoption("benchmark_max_time")),
        int(config.getoption("benchmark_min_rounds")),
        timed,
        config.getoption("benchmark_full") or config.getoption("benchmark_rehearse"),
    )
    timing.zero_denormals()
    machine = machines.gpu(device, "") if device.type == "cuda" else machines.cpu("")
    chosen = config.stash[ENTRIES]
    if device.type == "cpu" and timed:
        # Room for the largest tape, and for the one before that is still being given back.
        room = max((2 * tape(entry.work, entry.contender) for entry in chosen), default=0)
        machine["freed_memory_kept"] = timing.keep_freed_memory(min(room, 10 << 30))
    which = next((s for s in ("full", "rehearse") if config.getoption(f"benchmark_{s}")), "quick")
    memory = "from a process for each call" if device.type == "cpu" else "of the allocator"
    found = config.stash[FOUND] = {"machine": machine, "set": which, "memory": memory}
    rates = [_fma_rate(machine, timed)]
    turns = Turns(plan, chosen, say, rates[0])
    load = os.getloadavg()[0]
    busy = " - others compute too: times are too long" if load > BUSY and timed else ""
    say(f"{machine['device']}, {machine['threads']} threads, load {load:.1f}{busy}")
    say("what was never called here is compiled first, and kept: first lines then take minutes")
    yield turns
    turns.close()
    rates.append(_fma_rate(machine, timed))
    found["rates"] = {"fma": max(rates), "fma_each_time": rates}
    found["wrong"] = {e.group + ", " + e.label: m.wrong for e, m in turns.found.items() if m.wrong}
    found["missing"] = {
        e.group + ", " + e.label: m.missing for e, m in turns.found.items() if m.missing
    }
    found["seconds"] = time.monotonic() - begin


def _fma_rate(machine: dict[str, Any], timed: bool) -> float:
    """Multiply-adds a second at most: of a GPU by its data, of a CPU measured."""
    if not timed:
        return 0.0
    if machine.get("fma_rate"):
        return float(machine["fma_rate"])
    from bench import peak

    return peak.fma_rate(1.0)


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_update_json(config: pytest.Config, output_json: dict[str, Any]) -> None:
    output_json["hetsyn"] = config.stash.get(FOUND, {})
