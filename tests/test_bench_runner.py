"""The benchmark measures interleaved, in other processes, within a budget and after the tests."""

import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from bench import benchmark_runner, correctness, machines, records, registry, report, stored, timing
from bench.benchmark_runner import Measurements, Plan, tape
from bench.isolated import Isolated, plausible
from bench.plain_lif import Missing
from bench.processes import Worker
from bench.registry import CLOSED, LOOP, OURS, Entry, Work
from bench.test_benchmark import advance, measured_time

ROOT = Path(__file__).resolve().parents[1]
PLAN = Plan("cpu", 1, 0.0, 3, rehearse=True)
TINY = Work("layer", 4, 2, 5, 4)
PAGES = 64 * 4096
"""The error of Linux's counters on two cores."""
WITHOUT = ("-p", "no:benchmark", "docs")
"""Options that disable the plugin, and a folder without tests."""
needs_plugin = pytest.mark.skipif(
    importlib.util.find_spec("pytest_benchmark") is None,
    reason="pytest-benchmark is not installed: extra 'bench'",
)
needs_proc = pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc"
)


def run(code: str, *arguments: str) -> str:
    """Return what a new process prints."""
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


# -- pytest --benchmark ----------------------------------------------------------------------------


def run_pytest(*options: str) -> tuple[int, str]:
    """Return exit status and output."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("more", [(), ("--benchmark-json", "none.json")], ids=["alone", "json"])
def test_without_the_plugin_the_extra_is_named(more: tuple[str, ...]) -> None:
    status, said = run_pytest(*WITHOUT, "--benchmark", *more)
    assert status == pytest.ExitCode.USAGE_ERROR
    assert "'.[bench]'" in said
    assert "unrecognized" not in said


def test_nothing_is_measured_without_the_option() -> None:
    status, said = run_pytest("-p", "no:benchmark", "bench/test_benchmark.py")
    assert status == pytest.ExitCode.INTERRUPTED
    assert "bench/ needs --benchmark" in said
    status, said = run_pytest(*WITHOUT, "--benchmark-full")
    assert status == pytest.ExitCode.USAGE_ERROR
    assert "--benchmark-full needs --benchmark" in said


REHEARSAL = ("--benchmark", "--benchmark-rehearse", "--benchmark-max-time=0.01",
             "--benchmark-min-rounds=3")  # fmt: skip


@needs_plugin
@pytest.mark.full
@pytest.mark.timeout(600)
def test_a_rehearsal_from_measurement_to_documents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rehearsal of every entry writes lines, rows, stored files, tables, charts and documents.

    A rehearsal itself is not stored."""
    file = tmp_path / "rows.jsonl"
    status, said = run_pytest(*REHEARSAL, f"--benchmark-rows={file}")
    assert status == 0, said
    assert "warmed up in " in said
    lines = records.lines(file)
    assert {"device", "cores", "torch", "freed_memory_kept", "date"} <= lines[0]["machine"].keys()
    assert lines[-1]["rates"]["fma"] >= lines[0]["rates"]["fma"] > 1e8
    found = stored.load(file)
    assert found["wrong"] == {}
    assert set(found["missing"].values()) <= {
        f"not installed: No module named '{name}'" for name in registry.PLAIN
    }
    assert len(found["rows"]) + len(found["missing"]) == len(registry.rehearsed())
    for row in found["rows"]:
        assert row["rounds"] >= 3
        assert row["low_ms"] <= row["ms"] <= row["high_ms"]
        assert row.get("peak_bytes", 1) > 0
        operator = bool(row["work"]["operator"])
        assert ("fresh_ms" in row) != operator
        assert not (operator and row["contender"] == OURS) or row["bytes"] > 0
    firsts = {row["contender"] for row in found["rows"] if "first_ms" in row}
    assert firsts == {OURS, LOOP}

    with pytest.raises(records.Refused, match="rehearsal"):
        report.store(file, tmp_path)
    lines[0] |= {"set": "quick", "machine": lines[0]["machine"] | {"changed": False}}
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "docs").mkdir()
    for name, markers in (("docs/speed.md", [report.SPEED]), ("README.md", report.README)):
        text = "".join(f"<!-- {marker} -->\nold\n<!-- /{marker} -->\n" for marker in markers)
        (tmp_path / name).write_text(text)
    results = tmp_path / "bench" / "results"
    for state, status in (("failed", 1), ("passed", 0)):
        tests_found = {"state": state, "reason": "", "passed": 9, "failures": ["a_test"]}
        with monkeypatch.context() as patch:
            patch.setattr(correctness, "run", lambda *_, found=tests_found: found)
            assert report.main([str(file), "--root", str(tmp_path)]) == status
        assert len(stored.files(results)) == (state == "passed")
    (kept,) = stored.files(results)
    assert "node" not in kept.read_text(), "a host's name"
    drawn = {path.stem for path in kept.with_suffix("").glob("*.png")}
    assert {"growth", "error", "replicas"} <= drawn
    text = (tmp_path / "docs" / "speed.md").read_text()
    assert report.between(text, report.SPEED) == report.sections(tmp_path)
    for said in ("layer 5->4r T4 B2 both", "nn.LSTM", "### Fixed cost of a call", "first call"):
        assert said in text
    rows = (kept.with_suffix("") / "table.csv").read_text().splitlines()
    assert len(rows) == 1 + len(found["rows"])


@needs_plugin
@pytest.mark.slow
def test_a_budget_and_the_tests_of_an_earlier_call(tmp_path: Path) -> None:
    """Entries beyond the budget are skipped, and their rows are written."""
    file, tested = tmp_path / "rows.jsonl", tmp_path / "tests.json"
    options = (
        *REHEARSAL,
        f"--benchmark-rows={file}",
        "--benchmark-budget",
        "5",
        "-k",
        "current-5-4-T16",
    )
    status, said = run_pytest(*options)
    assert status == 0, said
    found = stored.load(file)
    assert found["rows"] == []
    assert found["missing"] == dict.fromkeys(
        [f"current 5->4 T16 B2 forward, {name}" for name in (OURS, CLOSED, LOOP)], "out of time"
    )
    machine = found["machine"]
    for state, status in (("passed", 0), ("failed", 4)):
        tests = {"state": state, "passed": 3, "failed": 0}
        tested.write_text(json.dumps({"machine": machine, "tests": tests}))
        ended, said = run_pytest(*options, f"--benchmark-tested={tested}")
        assert ended == status, said
        if state == "passed":
            assert stored.load(file)["tests"]["sources"] == machine["sources"]
    assert "expected tests that passed, got failed" in said


def entries(*contenders: str, group: str = "g") -> list[Entry]:
    return [Entry(group, name, TINY, name) for name in contenders]


def _loses_the_gpu(seen: Path, group: Any, plan: Plan) -> dict[str, Any]:
    """Act as `measured` in a process that has lost its GPU, if it is the first."""
    gone = not seen.exists()
    seen.touch()

    def measure(group: list[Entry], plan: Plan) -> list[records.Record]:
        if gone:
            raise RuntimeError("CUDA error: illegal access")
        return [benchmark_runner._row(e) | {"ms": 1.0, "check": "equal"} for e in group]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(benchmark_runner, "measure", measure)
        patch.setattr(benchmark_runner, "lost", lambda device: gone)
        return measured(group, plan)


measured = benchmark_runner.measured


@pytest.mark.slow
def test_a_lost_gpu_costs_one_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process of the first group loses its GPU; a new one measures the second."""
    monkeypatch.setattr(benchmark_runner, "measured", partial(_loses_the_gpu, tmp_path / "seen"))
    monkeypatch.setattr(benchmark_runner, "memory", lambda *_: {})
    said: list[str] = []
    rows: list[records.Record] = []
    group = [*entries(OURS, LOOP, group="first"), *entries(OURS, group="second")]
    taken = Measurements(PLAN, group, said.append, 0.0, rows.append)
    found = [taken.of(entry) for entry in group]
    taken.close()
    reason = "the GPU was lost: RuntimeError: CUDA error: illegal access"
    assert [row.get("missing") for row in found] == [reason, reason, None]
    assert found == rows
    assert any("a new one measures the next group" in line for line in said)


def _ends_or_sleeps(seconds: float) -> dict[str, Any]:
    if seconds < 0:
        sys.exit(3)
    time.sleep(seconds)
    return {"threads": os.environ["OMP_NUM_THREADS"]}


def test_a_process_that_ends_or_takes_too_long_loses_one_result() -> None:
    worker = Worker(time.sleep, 0, threads=7)
    calls = [(0.0, None), (-1.0, None), (0.0, 60.0), (100.0, 0.5), (0.0, None)]
    found = [worker.call(_ends_or_sleeps, slept, seconds=limit) for slept, limit in calls]
    assert worker.close() == 0
    right = {"threads": "7"}
    ended = {"reason": "its process ended with 3"}
    assert found == [right, ended, right, {"reason": "out of time"}, right]


def test_a_group_is_measured_after_its_check() -> None:
    """Rows have times, and memory from another process; a failing contender leaves others timed."""
    calls = iter(range(3))

    def breaks() -> None:
        if next(calls) == 2:
            raise RuntimeError("an illegal access")

    seen: list[str] = []
    runs = {"breaks": [breaks], "works": [lambda: seen.append("a"), lambda: seen.append("b")]}
    found, broken = timing.interleaved(runs, 0.0, least=3)
    assert list(found) == ["works"]
    assert len(found["works"]) >= 3
    assert str(broken["breaks"]) == "an illegal access"
    assert seen[:4] == ["a", "b"] * 2
    group = entries(OURS, LOOP)
    taken = Measurements(PLAN, group, lambda line: None)
    rows = [taken.of(entry) for entry in group]
    taken.close()
    for entry, row in zip(group, rows, strict=True):
        assert row["check"] == "equal"
        assert row["low_ms"] <= row["ms"] <= row["high_ms"]
        assert len(taken.times[entry]) == row["rounds"] >= 3
        assert row["fresh_ms"] > 0
    assert "ms in fresh memory" in benchmark_runner.line(rows[0], 1e9)


@pytest.mark.slow
def test_every_candidate_of_a_kernel_is_tried(tmp_path: Path) -> None:
    code = (
        "import torch\nfrom bench import cases, tuning\n"
        "chosen = [cases.case('spike_scan', 3, 3, T=2, B=1), cases.case('none', 1, 1)]\n"
        "print(tuning.tune_all(chosen, torch.device('cpu')))\n"
    )
    os_environment = os.environ | {"TRITON_INTERPRET": "1"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, env=os_environment, capture_output=True, text=True)
    first, broken, best = done.stdout.splitlines()
    assert first.startswith("spike_scan/few: "), done.stderr
    assert " ms, " in first
    assert broken.startswith("none 1->1 T250 B256: KeyError")
    assert "'spike_scan/few'" in best


# -- processes, memory, tests before storing -------------------------------------------------------


def test_contenders_are_interleaved() -> None:
    seen: list[str] = []

    def slow() -> None:
        time.sleep(0.02)
        seen.append("slow")

    runs = {"slow": [slow], "fast": [lambda: seen.append("fast")]}
    found, broken = timing.interleaved(runs, 0.0, least=3)
    assert broken == {}
    assert seen[4:] == ["slow", *["fast"] * 5] * 3
    assert len(found["slow"]) == 3
    assert min(found["slow"]) >= 20 > sorted(found["fast"])[7]


@pytest.mark.slow
def test_subnormal_numbers_are_zero_on_every_thread() -> None:
    """`denormals_zero` is measured, not assumed."""
    if not torch.set_flush_denormal(False):
        pytest.skip("this processor has no such mode")
    code = (
        "import torch\nfrom bench import machines, timing\n{}torch.set_num_threads(2)\n"
        "print(machines.cpu()['denormals_zero'])"
    )
    for first, expected in (("timing.zero_denormals()\n", "True\n"), ("", "False\n")):
        assert run(code.format(first)) == expected


def _denormals_are_zero(work: Work, contender: str) -> dict[str, Any]:
    return {"zero": machines.cpu()["denormals_zero"]}


@pytest.mark.slow
def test_subnormal_numbers_are_zero_where_memory_is_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not torch.set_flush_denormal(False):
        pytest.skip("this processor has no such mode")
    monkeypatch.setattr("bench.isolated.first_call_of", _denormals_are_zero)
    workers = Isolated(1)
    assert workers.first_call(TINY, OURS) == {"zero": True}
    workers.close()


@needs_proc
def test_growth_is_seen_at_its_peak() -> None:
    """A new process has no freed memory to reuse. 128 MB exceed the 3 MB that a first call adds."""
    code = (
        "import torch\nfrom bench import timing\n"
        "print(timing.growth_and_ms(lambda: torch.ones(32 << 20).sum().item())[0])"
    )
    assert int(run(code)) == pytest.approx(128 << 20, rel=0.1)


def test_it_needs_no_gpu_compiler() -> None:
    """The benchmark of a CPU does not import Triton."""
    code = "import sys, bench.conftest, bench.peak; print('triton' in sys.modules)"
    assert run(code) == "False\n"


@pytest.mark.slow
def test_growth_that_the_system_does_not_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """The call still runs once and is timed."""

    def refused(*_: Any, **__: Any) -> int:
        raise PermissionError

    monkeypatch.setattr(Path, "write_text", refused)
    made: list[int] = []

    def call() -> None:
        time.sleep(0.01)
        made.append(1)

    found, ms = timing.growth_and_ms(call)
    assert (found, made) == (None, [1])
    assert 10 <= ms < 1000
    assert plausible(found, 5) == {"peak": None, "no_peak": "the system does not report it"}
    assert plausible(4096, 4000) == {"peak": 4096}
    reason = plausible(0, 1_024_000)["no_peak"]
    assert reason == "a growth of 0 bytes is less than the 1024000 of the results"


@pytest.mark.slow
def test_the_tests_are_counted_and_end_in_time(tmp_path: Path) -> None:
    """Tests that take too long are stopped."""
    file = tmp_path / "test_slow.py"
    file.write_text(
        "import time\nimport pytest\n"
        "def test_right():\n    pass\n"
        "def test_wrong():\n    assert 1 == 2\n"
        "def test_skipped():\n    pytest.skip('not here')\n"
        "def test_endless():\n    time.sleep(100)\n"
    )
    found = correctness.run([str(file), "-k", "not endless"], tmp_path / "out", 60, workers=1)
    counts = {name: found[name] for name in ("state", "passed", "failed", "skipped")}
    assert counts == {"state": "failed", "passed": 1, "failed": 1, "skipped": 1}
    assert "test_wrong: assert 1 == 2" in found["failures"][0]
    found = correctness.run([str(file), "-k", "right"], tmp_path / "out", 60, workers=2)
    assert (found["state"], found["passed"]) == ("passed", 1)
    found = correctness.run([str(file)], tmp_path / "out", 12, workers=1)
    assert found["state"] == "failed"
    assert found["reason"] == "did not end within 12 s; tests.log has the tests that ended"
    assert "test_wrong FAILED" in (tmp_path / "out" / "tests.log").read_text()


def test_a_tape_that_does_not_fit_is_skipped_with_the_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It does not fit alone, or not beside the memory of the measuring process."""
    work = registry.Work("layer", 4, 1, 700, 128)
    one, workers = tape(work, LOOP), Isolated(1)
    monkeypatch.setattr(workers, "memory", lambda *_: {"peak": 5, "fresh_ms": 1.0})
    loop, graph = (Entry("g", name, work, name) for name in (LOOP, registry.GRAPH))
    for free, missing, reason in (
        (1e9 + 3 * one, False, None),
        (1e9 + 2 * one, False, "not measured: needs about 1 GB, 1 GB are free"),
        (1e9 + one, True, None),
    ):
        monkeypatch.setattr(benchmark_runner, "_free_bytes", lambda _, free=free: free)
        (row,) = benchmark_runner.measure([loop], Plan("cpu", 1, 0.0, 1))
        assert ("missing" in row) == missing
        assert missing or benchmark_runner.memory(loop, PLAN, workers).get("memory") == reason
    monkeypatch.setattr(benchmark_runner, "_free_bytes", lambda _: 1e9 + 2 * one)
    with pytest.raises(Missing, match="needs about"):
        benchmark_runner.fits(graph, PLAN)  # its own tape, and that of an eager contender
    monkeypatch.setattr(benchmark_runner, "_free_bytes", lambda _: 1e9 + 3 * one)
    benchmark_runner.fits(graph, PLAN)


def test_sets_of_inputs_are_larger_than_a_cache() -> None:
    assert timing.sets_for(1 << 20) == timing.MOST_SETS
    assert timing.sets_for(50 << 20) == 3
    assert timing.sets_for(1 << 30) == 1


def test_the_tests_as_a_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The result is accepted if the tests passed on the same device and sources."""
    file = tmp_path / "tests.json"
    for state, status in (("failed", 1), ("passed", 0)):
        found = {"state": state, "reason": None, "passed": 3, "failed": 0, "failures": ["a_test"]}
        monkeypatch.setattr(correctness, "run", lambda *_, found=found: found)
        assert correctness.main([str(file)]) == status
    machine = json.loads(file.read_text())["machine"]
    counts = correctness.earlier(file, machine)
    assert (counts["state"], counts["sources"]) == ("passed", machine["sources"])
    for name, other in (("device", "B"), ("sources", "2")):
        with pytest.raises(records.Refused, match=f"expected {name} {other}, got "):
            correctness.earlier(file, machine | {name: other})
    file.write_text(file.read_text().replace('"state": "passed"', '"state": "failed"'))
    with pytest.raises(records.Refused, match="expected tests that passed, got failed"):
        correctness.earlier(file, machine)


def test_only_measured_times_move_the_clock() -> None:
    begin = measured_time()
    assert measured_time() == begin
    advance(0.25)
    assert measured_time() == begin + 0.25


@pytest.fixture(scope="module")
def isolated() -> Iterator[Isolated]:
    workers = Isolated(1)
    yield workers
    workers.close()


@pytest.mark.slow
@needs_proc
def test_growth_does_not_depend_on_earlier_measurements(isolated: Isolated) -> None:
    work = registry.CURRENT
    first, *_, third = (isolated.memory(work, name, False)["peak"] for name in (LOOP, CLOSED, LOOP))
    assert third == pytest.approx(first, abs=PAGES)
    steps_and_their_stack = 2 * 4 * work.T * work.B * work.J
    assert min(first, third) > steps_and_their_stack - PAGES


@needs_proc
@pytest.mark.parametrize("part", registry.PARTS)
def test_growth_is_at_least_the_size_of_the_results(isolated: Isolated, part: str) -> None:
    """Results are spikes [T, B, J], or gradients of input and weights; growth is near both."""
    work = Work("layer", 250, 8, 300, 64, part=part)
    found = isolated.memory(work, OURS, False)
    outputs = 4 * work.T * work.B * work.J
    returned = outputs if part == "forward" else 4 * work.T * work.B * work.I
    assert returned <= found["peak"] < 6 * (outputs + 4 * work.T * work.B * work.I)


@pytest.mark.slow
def test_a_failing_contender_leaves_other_results(isolated: Isolated) -> None:
    assert "unknown" in isolated.memory(TINY, "unknown", False)["reason"]
    assert isolated.memory(TINY, OURS, True)["saved"] > 0
    assert isolated.first_call(TINY, OURS).keys() == {"first_ms"}
