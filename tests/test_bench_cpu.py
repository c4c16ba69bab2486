"""The benchmark of the CPU: rehearsed, its arithmetic, what the README says of it, and that rivals
compute what the layers compute."""

import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bench import (
    cpu,
    cpu_memory,
    cpu_rows,
    cpu_table,
    growth,
    plain_lif,
    provenance,
    registry,
    report,
    stored,
    timing,
    workloads,
)
from hetsyn_triton import ops
from hetsyn_triton.experiments.studies import memory
from hetsyn_triton.surrogates import Triangular
from tests.support import unchecked

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "bench" / "results"
README = (ROOT / "README.md").read_text(encoding="utf-8")


def rehearse(*options: str) -> tuple[int, str]:
    """Exit status and output of a rehearsal."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.cpu", "--quick", "--threads", "1", *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.slow
def test_rehearsal(tmp_path: Path) -> None:
    """The whole way; nothing is written but where it was asked for."""
    before = {f: f.stat().st_mtime_ns for f in RESULTS.iterdir()}
    status, said = rehearse("--json", str(tmp_path / "cpu.json"))
    assert status == 0, said
    assert {f: f.stat().st_mtime_ns for f in RESULTS.iterdir()} == before
    result = json.loads((tmp_path / "cpu.json").read_text())
    assert result["rehearsal"]
    assert said.count("REHEARSAL") == 1
    machine = result["machine"]
    assert {"device", "cores", "torch", "numba", "date", "commit", "load_average"} <= machine.keys()
    assert machine["threads"] == 1
    assert machine["omp_num_threads"] == "1"
    parts = [(row["recurrent"], row["part"]) for row in result["layers"]]
    assert parts == [*((r, p) for r in (False, True) for p in ("gradients", "forward")),
                     (True, "step")]  # fmt: skip
    for row in result["layers"]:
        assert row["status"] == "measured", row
        assert row["low_ms"] <= row["ms"] <= row["high_ms"]
        assert row["rivals"]["loop"]["status"] == "measured"
        assert (row["part"] == "step") or set(registry.PLAIN) < row["rivals"].keys()
        for name, rival in row["rivals"].items():
            if machine["plain_missing"].get(name):
                assert rival["reason"] == machine["plain_missing"][name]
            else:
                assert rival["ratio"] == pytest.approx(rival["ms"] / row["ms"], rel=1e-3)
    assert {row["part"] for row in result["operators"]} == set(ops.OPERATORS)
    for row in result["operators"]:
        assert row["status"] == "measured", row
        assert ("gfma" in row) == (row["part"] in cpu_rows.FMA)
    assert {row["axis"] for row in result["growth"]} == set("TBIJ")
    (memory,) = result["memory"]
    for who in ("ours", "loop"):
        assert memory[who]["status"] == "measured", memory
        assert memory[who]["saved"] > 0
    assert result["rates"]["fma"] == max(result["rates"]["fma_each_time"]) > 1e8


def test_a_red_gate_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever is asked for; and nobody may say what the gate is."""
    file, red = tmp_path / "cpu.json", {"state": "red", "reason": "", "failures": [], "log": []}
    monkeypatch.setattr(cpu, "gate_of", lambda _: red)
    assert cpu.main(["--quick", "--threads", "1", "--json", str(file)]) == 1
    assert "nothing is timed" in capsys.readouterr().out
    assert not file.exists()
    for program in (cpu, report):
        with pytest.raises(SystemExit, match="2"):
            program.main(["--gate", "tests/test_options.py"])


def test_what_is_in_no_commit_is_not_stored(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(provenance, "said", lambda *_: "M a file")
    monkeypatch.setattr(cpu, "gate_of", lambda _: pytest.fail("the gate was run"))
    assert cpu.main([]) == 2
    assert "in no commit" in capsys.readouterr().out


def test_a_part_is_not_stored_as_if_it_were_all() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench.cpu", "--parts", "growth"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2
    assert "--json" in done.stdout


# -- what the README says --------------------------------------------------------------------------


def test_the_readme_says_what_is_stored() -> None:
    """`python -m bench.cpu --readme` brings it there."""
    assert cpu_table.between_markers(README) == cpu_table.readme_section(ROOT)


def test_what_is_stored_was_measured_in_full() -> None:
    for file in cpu_table.stored(ROOT):
        result = json.loads(file.read_text(encoding="utf-8"))
        assert not result["rehearsal"]
        assert result["gate"]["state"] == "green"
        assert not result["machine"]["changed"], "of which state of the code?"
        assert all(row["status"] == "measured" for row in result["layers"] + result["operators"])
        assert all(result[part] for part in ("layers", "operators", "growth", "memory"))


def test_the_readme_table() -> None:
    """Times, ratios and memory of a result, and what was not measured."""
    rival = {"status": "measured", "ms": 400.0, "ratio": 16.0}
    missing = {"status": "not measured", "reason": "not installed", "ratio": None}
    row = {"name": "700->128, B 8", "part": "gradients", "ms": 25.04}
    plain = {"spikingjelly": rival, "norse": rival | {"ms": 100.0, "ratio": 4.0}}
    row |= {"rivals": {"loop": rival, "compiled": rival, "snntorch": missing} | plain}
    result = {
        "machine": {
            "device": "A CPU", "instructions": "AVX2", "threads": 2, "cores": 4, "torch": "2",
            "numba": "1", "date": "2026-01-01T00:00", "commit": "0123456789abcdef",
        },
        "rates": {"fma": 100e9},
        "layers": [row, row | {"part": "forward", "ms": 1.0}],
        "memory": [
            {"name": "700->128, B 8", "ours": {"peak": 12e6}, "loop": {"peak": 700e6}},
            {"name": "9->9, B 8", "ours": {"peak": 1e6}, "loop": {"peak": 29e6}},
        ],
    }  # fmt: skip
    lines = cpu_table.readme_table(result, "bench/results/cpu-A.json").splitlines()
    assert lines[:3] == [
        "- 16x faster than the eager loop, 16x than with a compiled step, 4.0x than plain LIF"
        " (SpikingJelly, Norse).",
        "- 29-58x less peak memory than the eager loop.",
        "",
    ]
    assert lines[5:7] == [
        "| 700->128, B 8 | 25.0 ms | 400 ms (16.0x) | 400 ms (16.0x) | 100 ms (4.00x), Norse |"
        " 12.0 MB | 700 MB |",
        "",
    ]
    assert lines[8].endswith("[stored file](bench/results/cpu-A.json).")
    assert lines[-1] == "Not run for this table: snnTorch."
    said = cpu_table.elsewhere(result, "f.json")
    assert said.startswith("[A CPU (AVX2), 2 threads](f.json): 16x faster than the eager loop, ")
    assert said.endswith(" (SpikingJelly, Norse).")
    result["memory"] = [{"name": "700->128, B 8", "ours": {"peak": None}, "loop": {}}]
    assert "less peak memory" not in cpu_table.readme_table(result, "f.json")
    row["rivals"]["snntorch"] = rival
    assert "Not run" not in cpu_table.readme_table(result, "f.json")
    row["rivals"] = {"loop": rival, "compiled": rival, "norse": missing}
    assert "| not measured |" in cpu_table.readme_table(result, "f.json")
    assert "LIF" not in cpu_table.elsewhere(result, "f.json")


# -- arithmetic ------------------------------------------------------------------------------------


def test_exponents() -> None:
    sizes = (1, 2, 4, 8)
    for power in (0.0, 1.0, 2.0):
        assert growth.exponent(sizes, [3.0 * s**power for s in sizes]) == pytest.approx(power)
    slope = {"bytes_per_step": [4 * 8 * 3 * n * 2.0 for n in sizes]}
    found = growth.memory(sizes, 8, slope)
    assert found["exponent"] == pytest.approx(1.0)
    assert found["of_z_v_and_g"] == pytest.approx([2.0] * 4)
    assert growth.memory(sizes, 8, {"reason": "out of memory"})["exponent"] is None


def test_cpu_py_and_reports_fit_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measured by cpu.py and read from a file of `pytest --benchmark`; all points count."""
    sizes = registry.RECURRENT["J"]
    ms = {size: (size / 256) ** 2 for size in sizes}
    monkeypatch.setattr(cpu_rows, "our_layer", lambda T, B, inputs, J, recurrent: J)
    monkeypatch.setattr(
        growth,
        "interleaved",
        lambda runs, seconds: {n: timing.Timing(ms[J], 0, 0, 1, 1, None) for n, J in runs.items()},
    )

    def both() -> tuple[dict[str, Any], dict[str, Any]]:
        name = "growth with J, recurrent"
        rows = [{"group": name, "work": {"J": n}, "ms": ms[n]} for n in sizes]
        (read,) = stored.growths({"rows": rows})
        return growth.time_axis("J", sizes, True, 1.0), read

    measured, read = both()
    assert measured["exponent"] == pytest.approx(2)
    assert measured["exponent"] == read["time"]
    assert measured["wanted"] == read["wanted"] == 2
    ms[sizes[-1]] *= 3
    measured, read = both()
    assert measured["exponent"] == read["time"] > 2.1


def test_standard_error_and_aim() -> None:
    """Of y = x^1 with the middle of three points e times too high: residuals 1/3, -2/3, 1/3."""
    sizes, e = (1.0, math.e, math.e**2), math.e
    assert growth.standard_error(sizes, [1, e * e, e * e]) == pytest.approx((2 / 3 / 2) ** 0.5)
    assert growth.standard_error(sizes, [2 * s for s in sizes]) == pytest.approx(0, abs=1e-12)
    assert growth.standard_error(sizes[:2], sizes[:2]) is None
    assert growth.standard_error(sizes, [1, None, 2]) is None
    assert [growth.met(x, 1) for x in (0.89, 0.91, 1.09, 1.11, None)] == [
        False, True, True, False, None,
    ]  # fmt: skip


@pytest.mark.slow
def test_growth_that_the_system_does_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    """The call is made all the same, once, and timed."""

    def refused(*_: Any, **__: Any) -> int:
        raise PermissionError

    monkeypatch.setattr(Path, "write_text", refused)
    made: list[int] = []
    found, ms = timing.growth_and_ms(lambda: made.append(time.sleep(0.01) or 1))
    assert (found, made) == (None, [1])
    assert 10 <= ms < 1000
    monkeypatch.setattr(timing, "give_back_freed_memory", lambda: True)  # not in this process
    slope = cpu_memory.slope(1, 1, 2, 3)
    assert slope == {"peaks": [[None, None]], "bytes_per_step": None}
    assert growth.memory([3], 1, slope)["exponent"] is None


@pytest.mark.parametrize("operator", ops.OPERATORS)
def test_operators_are_fed_all_they_take(operator: str) -> None:
    """With other sizes everywhere, so that no two can be mixed up."""
    for contest in cpu_rows.operator_contests(5, [(2, 3, 4)]):
        if contest.part == operator:
            contest.runs[cpu_rows.OURS]()()
            per_step = 2 * 4 * (4 if "recurrent" in operator else 3)
            assert contest.fma == 5 * per_step * cpu_rows.FMA.get(operator, 0)
            assert contest.bytes > 0


def test_contenders_take_turns() -> None:
    seen: list[str] = []

    def slow() -> None:
        time.sleep(0.02)
        seen.append("slow")

    found = timing.interleaved({"slow": slow, "fast": lambda: seen.append("fast")}, 0.0, least=3)
    assert seen[4:] == ["slow", *["fast"] * 5] * 3
    assert found["slow"].repeats == 3
    assert found["slow"].ms >= 20 > found["fast"].ms
    assert found["slow"].low_ms <= found["slow"].ms <= found["slow"].high_ms


def test_kept_memory_counts_each_storage_once() -> None:
    """The product keeps w twice, the sine keeps the product."""
    w = torch.ones(10, requires_grad=True)
    assert memory.kept_for_backward(lambda: (w * w).sin().sum()) == 80
    assert memory.kept_for_backward(lambda: (w * w).sin().sum(), [w]) == 40


@pytest.mark.slow
def test_denormal_numbers_are_zero_on_every_thread() -> None:
    """What is stored is looked at, not assumed."""
    if not torch.set_flush_denormal(False):
        pytest.skip("this processor has no such mode")
    code = (
        "import torch\nfrom bench import machines, timing\n{}torch.set_num_threads(2)\n"
        "print(machines.cpu('')['denormals_zero'])"
    )
    for first, wanted in (("timing.zero_denormals()\n", "True\n"), ("", "False\n")):
        command = [sys.executable, "-c", code.format(first)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.stdout == wanted, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "code",
    [
        "cpu_memory.measured = zero\n"
        "print(cpu_memory.main(['first', 'layer', 'hetsyn', '2', '1', '3', '3']))",
        "apart.answer = zero\n"
        "work = dataclasses.asdict(apart.Work('layer', 2, 1, 3, 3, False, 'both'))\n"
        "print(*apart.serve([json.dumps((work, apart.OURS, False))], 1))",
    ],
    ids=["cpu_memory", "apart"],
)
def test_denormal_numbers_are_zero_where_memory_is_measured(code: str) -> None:
    """There the time of a first call is taken too."""
    if not torch.set_flush_denormal(False):
        pytest.skip("this processor has no such mode")
    before = (
        "import dataclasses, json\nfrom bench import apart, cpu_memory, machines\n"
        "zero = lambda *_: {'zero': machines.cpu('')['denormals_zero']}\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", before + code], cwd=ROOT, capture_output=True, text=True
    )
    assert done.stdout == "{'zero': True}\n", done.stderr


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")
def test_growth_is_seen_at_its_peak() -> None:
    """In a process of its own: what others freed there would not be grown again. Large, for the
    first call also brings in pages of code and starts threads, some 3 MB."""
    code = (
        "import torch\nfrom bench import timing\ntiming.give_back_freed_memory()\n"
        "print(timing.growth_and_ms(lambda: torch.ones(32 << 20).sum().item())[0])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert int(done.stdout) == pytest.approx(128 << 20, rel=0.1), done.stderr


# -- rivals compute what the layers compute --------------------------------------------------------


def test_the_loop_takes_the_same_training_step() -> None:
    """Network, loss, optimizer and clamp: the same parameters after two steps in float64."""
    sizes = (40, 12, 8, 3)  # as many inputs as it takes to make every layer spike
    x = workloads.spikes(40, 4, sizes[0], dtype=torch.float64)
    step, ours = workloads.our_network(workloads.network(sizes, torch.float64), x, sizes[-1])
    loop, theirs = workloads.loop_network(workloads.network(sizes, torch.float64), x, sizes[-1])
    begin = [p.detach().clone() for p in theirs]
    for _ in range(2):
        step()
        loop()
    assert all(not torch.equal(a, b) for a, b in zip(begin, theirs, strict=True))
    by_shape: dict[Any, list[Tensor]] = {}
    for p in ours:
        by_shape.setdefault(p.shape, []).append(p.detach())
    for p in theirs:
        same = [torch.allclose(p, q, rtol=1e-9, atol=1e-12) for q in by_shape[p.shape]]
        assert sum(same) == 1
    assert len(ours) == len(theirs)


@pytest.mark.parametrize("recurrent", [False, True], ids=["feedforward", "recurrent"])
@pytest.mark.parametrize("part", ["gradients", "forward"])
def test_the_loop_gives_the_layers_gradients(recurrent: bool, part: str) -> None:
    """As timed, float32: spikes, or gradients of z, w and r."""
    torch.manual_seed(0)
    ours = cpu_rows.our_layer(20, 3, 7, 5, recurrent, part)()
    torch.manual_seed(0)
    loop = cpu_rows.layer_loop(20, 3, 7, 5, recurrent, part)()
    if part == "forward":
        assert torch.equal(ours, loop)
        return
    assert len(ours) == len(loop) == (5 if recurrent else 3)
    torch.testing.assert_close(ours[0], loop[0], rtol=1e-4, atol=1e-5)
    for found in ours[1:]:  # parameters come in an order of their own
        assert any(
            found.shape == g.shape and torch.allclose(found, g, rtol=1e-3, atol=1e-4) for g in loop
        )


@pytest.mark.parametrize("recurrent", [False, True], ids=["feedforward", "recurrent"])
def test_the_plain_lif_is_the_layer_with_one_time_constant(recurrent: bool) -> None:
    """SpikingJelly's neuron is ours with equal decays and a reset that decays at once with the
    potential (strength rho theta)."""
    reason = plain_lif.missing("spikingjelly")
    if reason:
        pytest.skip(f"SpikingJelly: {reason}")
    torch.manual_seed(0)
    forward, weights = plain_lif.spikingjelly_layer(6, 5, recurrent, torch.float64)
    with torch.no_grad():
        for w in weights:
            w *= 3.0
        if recurrent:
            weights[1][:, :5] = torch.eye(5)
    z = (torch.rand(30, 2, 6) < 0.4).double().requires_grad_()
    found = forward(z)
    rho = torch.full((1, 1, 5), plain_lif.RHO, dtype=torch.float64)
    one, zeros = torch.ones(1, 5, dtype=torch.float64), torch.zeros(1, 2, 5, dtype=torch.float64)
    neuron = (one, rho, rho, zeros[None], zeros)
    synapses = weights[0][None], torch.full((1, 5, 6), plain_lif.RHO, dtype=torch.float64), None
    if recurrent:
        current, _ = unchecked.synaptic_current(z[None], *synapses)
        square = torch.full((1, 5, 5), plain_lif.RHO, dtype=torch.float64)
        fed_back = weights[1][:, 5:][None], square, None
        spikes, *_ = unchecked.recurrent_scan(current, *fed_back, *neuron, Triangular())
    else:
        spikes, *_ = unchecked.feedforward_scan(z[None], *synapses, *neuron, Triangular())
    assert found.any()
    assert torch.equal(found, spikes[0])
    g = torch.randn(found.shape, dtype=torch.float64)
    leaves = [z, weights[0]]
    theirs = torch.autograd.grad(found, leaves, g, retain_graph=True)
    expected = torch.autograd.grad(spikes[0], leaves, g)
    for got, want in zip(theirs, expected, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9)


def test_it_needs_no_gpu_compiler() -> None:
    """Nothing of the CPU's benchmark imports Triton."""
    code = "import sys, bench.cpu, bench.cpu_memory, bench.peak; print('triton' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout.strip() == "False", done.stderr
