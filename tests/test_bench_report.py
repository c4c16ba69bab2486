"""Stored measurements, their tables, and the documents."""

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest

from bench import correctness, machines, records, registry, report, speed_tables, stored
from bench.registry import LOOP, OURS, Work

ROOT = Path(__file__).resolve().parents[1]


# -- what the documents say ------------------------------------------------------------------------


def test_the_documents_have_the_stored_figures() -> None:
    """`python -m bench.report` writes them."""
    speed = (ROOT / "docs" / "speed.md").read_text(encoding="utf-8")
    assert report.between(speed, report.SPEED) == report.sections(ROOT)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for marker in report.README:
        assert report.between(readme, marker) == report.readme_section(ROOT, marker)
    for file in stored.machines():
        assert (file.with_suffix("") / "table.csv").exists()


def test_rows_of_an_earlier_program_name_it() -> None:
    """Their peak is that of its run; its versions, commit and tests are stored with them."""
    results = [r for r in stored.machines().values() if "earlier" in r]
    for result in results:
        rates = {row["rate"] for row in result["rows"] if "rate" in row}
        assert rates == {result["earlier"]["rates"]["fma"]}
        assert result["earlier"]["tests"]["state"] == "passed"
        assert "measured the operators and the passes" in speed_tables.machine(result)
    for row in (row for result in results for row in result["rows"]):
        if "rate" in row and row["fma"]:
            assert stored.fraction(row, {}) == 1e3 * row["fma"] / row["rate"] / row["ms"]


def _passes(**machine: Any) -> dict[str, Any]:
    """Return a result with two passes of the README's table and recurrent synapses."""
    rows = []
    for work, times in (
        (registry.MAIN, {OURS: 25.04, LOOP: 400.0, "compiled": 350.0, "norse": 100.0,
                         "spikingjelly": 400.0, "nn.GRU": 50.0}),
        (registry.MORE_COMPARED[0], {OURS: 1.0, LOOP: 29.0}),
        (Work("synapses", 250, 8, 5, 5, True), {OURS: 1.0, LOOP: 3.0}),
    ):  # fmt: skip
        for name, ms in times.items():
            row: dict[str, Any] = {
                "group": work.name,
                "label": name,
                "contender": name,
                "work": vars(work),
            }
            row |= {"ms": ms, "low_ms": ms, "high_ms": ms, "check": "equal", "fma": 10**8}
            peak = {OURS: 12e6, LOOP: 696e6}.get(name)
            rows.append(row | ({"peak_bytes": peak} if peak else {}))
    machine = {"device": "A", "threads": 2, "torch": "2", "numba": "1", "date": "2026-01-01T0",
               "commit": "c", "changed": False, "python": "3"} | machine  # fmt: skip
    found = {"machine": machine, "set": "full", "missing": {}, "wrong": {}, "rows": rows}
    tests = {"state": "passed", "passed": 1}
    return found | {"memory": "m", "tests": tests, "rates": {"fma": 1e10}}


def test_the_readme_table() -> None:
    """It has times, ratios and memory, and no column without measurements."""
    result = _passes()
    assert speed_tables.summary(result) == [
        "- 16.0-29.0x faster than the eager loop, 14.0x faster than the loop with a compiled step,"
        " 3.99x faster than the fastest plain LIF layer (SpikingJelly, Norse).",
        "- 58.0x less peak memory than the eager loop.",
    ]
    assert speed_tables.passes(result) == [
        "| layer or network | this library | eager loop | compiled step | fastest plain LIF"
        " | nn.GRU | share of peak rate | peak memory | peak memory of the loop |",
        "|---|---|---|---|---|---|---|---|---|",
        "| 700->128 T250 B8 | 25.0 ms | 400 ms (16.0x) | 350 ms (14.0x) | 100 ms (3.99x), Norse"
        " | 50.0 ms (2.00x) | 39.9% | 12.0 MB | 696 MB |",
        "| 128->64 T250 B32 | 1.00 ms | 29.0 ms (29.0x) | not measured | not measured"
        " | not measured | 1000.0% | 12.0 MB | 696 MB |",
    ]


def test_the_readme_is_made_from_the_named_machine(tmp_path: Path) -> None:
    """The newest machine is not used; others have a sentence, and GPUs another table."""
    results = tmp_path / "bench" / "results"
    results.mkdir(parents=True)
    assert report.readme_section(tmp_path, "cpu-speed") == report.NOTHING_STORED
    named = f"benchmark-{report.README['cpu-speed']}.json"
    for file, machine in (
        (named, {}),
        ("benchmark-B.json", {"device": "B", "date": "2027-01-01"}),
        ("benchmark-C.json", {"device": "C", "cuda": "13", "triton": "3"}),
    ):
        (results / file).write_text(json.dumps(_passes(**machine)))
    said = report.readme_section(tmp_path, "cpu-speed")
    medians, other = said.split("\n\n")[-1].split("\n", 1)
    assert medians == (
        "Medians on A, 2 threads, float32, torch 2, Numba 1, 2026-01-01: [stored"
        f" file](bench/results/{named})."
    )
    assert other == (
        "[B, 2 threads](bench/results/benchmark-B.json): 16.0-29.0x faster than the eager loop,"
        " 14.0x faster than the loop with a compiled\nstep, 3.99x faster than the fastest plain LIF"
        " layer (SpikingJelly, Norse)."
    )
    assert report.readme_section(tmp_path, "gpu-speed") == report.NOTHING_STORED


# -- fits ------------------------------------------------------------------------------------------


def test_exponents_and_their_errors() -> None:
    """y = x^1 with the second of three points e times too high has residuals 1/3, -2/3, 1/3."""
    sizes, e = (1.0, math.e, math.e**2), math.e
    for power in (0.5, 1.0, 2.0):
        slope, error = stored.fit(sizes, [3.0 * s**power for s in sizes])
        assert (slope, error) == pytest.approx((power, 0), abs=1e-12)
    slope, error = stored.fit(sizes, [1, e * e, e * e])
    assert (slope, error) == pytest.approx((1, (2 / 3 / 2) ** 0.5))
    assert stored.fit(sizes[:2], sizes[:2])[1] is None
    assert stored.fit(sizes, [1, None, 2]) == stored.fit(sizes[:1], [1]) == (None, None)


@pytest.mark.parametrize(("slope", "reached"), [(0.89, False), (0.91, True), (1.11, False)])
def test_a_growth_reaches_its_target(slope: float, reached: bool) -> None:
    """The target exponent of time is 1, or 2 over recurrent neurons, to within 0.1."""
    sizes = [1, 2, 4]
    for axis, form, more in (("J", "feedforward", 0), ("J", "recurrent", 1), ("T", "recurrent", 0)):
        ms: list[float | None] = [n ** (slope + more) for n in sizes]
        assert stored.Growth(axis, form, sizes, ms, []).reached == reached
    assert stored.Growth("T", "feedforward", sizes, [1, None, 2], []).reached is None


def _result(**changes: Any) -> dict[str, Any]:
    row = {"group": "g", "label": "loop", "contender": "loop", "ms": 2.0, "low_ms": 1.9}
    row |= {"high_ms": 2.1, "check": "equal", "fma": 10**6, "work": {"kind": "layer"}}
    machine = {"device": "A", "threads": 2, "date": "d", "commit": "c", "changed": False}
    machine["sources"] = "a"
    found = {"set": "quick", "missing": {}, "wrong": {}, "rows": [row], "machine": machine}
    return found | {"tests": {"state": "passed"}, "rates": {"fma": 1e9}} | changes


def test_the_machine_in_words() -> None:
    """The record of a GPU has no load and no `denormals_zero`."""
    tests = {"state": "passed", "passed": 7}
    result = _result(memory="of the allocator", tests=tests)
    result["machine"] |= {"torch": "2", "python": "3", "triton": "3.6"}
    said = speed_tables.machine(result)
    assert "multiply-adds per second. 7 tests passed before the measurement." in said
    result["machine"] |= {"load_average": 0.25, "denormals_zero": True}
    said = speed_tables.machine(result)
    assert "second. Load at the start 0.2; subnormal numbers flushed to 0. 7 tests" in said


def test_refused_results() -> None:
    stored.check(_result())
    for changes, reason in (
        ({"set": "rehearse"}, "rehearsal"),
        ({"wrong": {"g, loop": "other spikes"}}, "other spikes"),
        ({"rows": []}, "nothing timed"),
        ({"tests": {"state": "failed"}}, "tests failed"),
        ({"tests": None}, "not run"),
        ({"tests": {"state": "partial"}}, "tests partial"),
        ({"tests": {"state": "passed", "sources": "b"}}, "ran on other sources"),
    ):
        with pytest.raises(records.Refused, match=reason):
            stored.check(_result(**changes))


def test_stored_and_tested_sources_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other or changed sources are refused before the tests run."""
    stored.check_same({"changed": False, "sources": "a", "commit": "d"}, "c", "a")
    monkeypatch.setattr(report, "tests_of", lambda _: pytest.fail("the tests were run"))
    file, result = tmp_path / "found.json", _result()
    for changes, reason in (({}, "differ"), ({"changed": True}, "uncommitted")):
        file.write_text(json.dumps(result | {"machine": result["machine"] | changes}))
        with pytest.raises(records.Refused, match=reason):
            report.store(file, tmp_path)


def test_the_digest_changes_with_kernels_tests_and_timing(tmp_path: Path) -> None:
    names = ["hetsyn_triton/kernels/cpu/a.py", "tests/cpu/test_a.py", "tests/support/a.py"]
    names.append("bench/baseline_loop.py")
    for name in names:
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("1")
    seen = {machines.sources(tmp_path)}
    for name in names:
        (tmp_path / name).write_text("2")
        seen.add(machines.sources(tmp_path))
    for name in ("tests/test_other.py", "bench/charts.py"):
        (tmp_path / name).write_text("")
        seen.add(machines.sources(tmp_path))
    assert len(seen) == 5
    assert "--slow" in correctness.GPU_TESTS
    assert "--slow" in correctness.CPU_TESTS
    for name in machines.MEASURING:
        assert (ROOT / "bench" / f"{name}.py").exists()


def test_two_files_are_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = _result(), _result()
    b["rows"] = [b["rows"][0] | {"ms": 4.0, "low_ms": 3.9, "high_ms": 4.1}]
    names = []
    for name, result in (("a", a), ("b", b)):
        names.append(str(tmp_path / f"{name}.json"))
        Path(names[-1]).write_text(json.dumps(result))
    assert report.main(["--compare", *names]) == 0
    assert re.search(r"g, loop +2\.00 +4\.00 +2\.00 +slower", capsys.readouterr().out)
    b["rows"][0] |= {"ms": 2.2, "low_ms": 2.19, "high_ms": 2.21}
    Path(names[1]).write_text(json.dumps(b))
    assert report.main(["--compare", *names]) == 0
    assert re.search(r"2\.20 +1\.10 +run-to-run variation", capsys.readouterr().out)
    assert report.main(["--compare", names[0], names[0]]) == 0
    said = capsys.readouterr().out
    assert "quartiles overlap" in said
    assert "WARNING" not in said
    assert report.main(["--compare", names[0], "no-such-file.json"]) == 1
    assert "no-such-file.json: no such file" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("other", "warning"),
    [
        ({"device": "B"}, "device differs: A and B"),
        ({"threads": 4}, "threads differs: 2 and 4"),
        ({"cores": 4}, "cores differs: 2 and 4"),
        ({"torch": "3"}, "torch differs: 2 and 3"),
        ({"numba": "2"}, "numba differs: 1 and 2"),
        ({"load_average": 2.0}, "load at the start differs: 0.2 and 2.0"),
        (None, "set differs: quick and full"),
    ],
)
def test_differences_are_warned_of(other: dict[str, Any] | None, warning: str) -> None:
    a = _result()
    a["machine"] |= {"cores": 2, "torch": "2", "numba": "1", "load_average": 0.2}
    b = a | ({"set": "full"} if other is None else {"machine": a["machine"] | other})
    assert report.unlike(a, a) == []
    assert f"WARNING: {warning}" in report.comparison(a, b)


def test_empty_columns_are_left_out() -> None:
    lines = [{"": "x", "a": "-", "b": "1"}, {"": "y", "a": "not measured", "b": "-"}]
    assert speed_tables.markdown(lines) == ["|  | b |", "|---|---|", "| x | 1 |", "| y | - |"]
    assert speed_tables.markdown([]) == []


def test_growth_of_stored_rows() -> None:
    rows = []
    for J in (256, 512, 1024):
        ms = (J / 256) ** 2
        work = {"kind": "layer", "J": J, "T": 1}
        rows.append({"group": "growth with J, recurrent", "work": work, "ms": ms, "peak_bytes": J})
    for N in (64, 128):
        for T in (100, 300):
            work = {"kind": "layer", "J": N, "T": T}
            peak = 1e6 + 12 * N * T
            rows.append({"group": registry.PER_STEP, "work": work, "peak_bytes": peak, "ms": 1.0})
    (one,) = stored.growths({"rows": rows})
    assert (one.axis, one.form, one.sizes) == ("J", "recurrent", [256, 512, 1024])
    assert "2.00 ± 0.00 | 2 ± 0.1 | yes | 1.00 ± 0.00 |" in "\n".join(
        speed_tables.growth({"rows": rows})
    )
    assert stored.per_step({"rows": rows}) == {64: 12 * 64, 128: 12 * 128}
    said = speed_tables.growth({"rows": rows})[-1]
    assert "N from 64 to 128: the memory of a time step grows as N^1.00." in said


def test_memory_that_is_not_measured() -> None:
    """The graph of a backward pass exists before it; checkpoints hide their inputs."""
    row = {"work": {"part": "both"}, "contender": registry.LOOP, "peak_bytes": 3, "saved_bytes": 2}
    assert (stored.peak(row), stored.kept(row)) == (3, 2)
    assert stored.peak(row | {"work": {"part": "backward"}}) is None
    assert stored.kept(row | {"contender": registry.CHECKPOINTED}) is None
