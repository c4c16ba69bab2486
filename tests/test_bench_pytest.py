"""`pytest --benchmark`: the option, the way through in tiny, who takes part and what they compute,
what is stored of it and what the documents say."""

import importlib.util
import inspect
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from bench import (
    contests,
    cpu_table,
    plain_lif,
    provenance,
    registry,
    replicas,
    report,
    rivals,
    stored,
    tables,
    workloads,
)
from bench.apart import Apart
from bench.registry import Entry, Work
from bench.turns import Plan, Turns, advance, measured_time, tape
from hetsyn_triton import HetSynLIF
from hetsyn_triton.surrogates import FastSigmoid

ROOT = Path(__file__).resolve().parents[1]
CPU = torch.device("cpu")
TINY = Work("layer", 4, 2, 5, 4)
needs_plugin = pytest.mark.skipif(
    importlib.util.find_spec("pytest_benchmark") is None,
    reason="pytest-benchmark is not installed: extra 'bench'",
)


WITHOUT = ("-p", "no:benchmark", "docs")
"""The plugin; a folder without tests of its own, so that only the options are looked at."""


def run_pytest(*options: str) -> tuple[int, str]:
    """Exit status and output."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout + done.stderr


# -- the option ------------------------------------------------------------------------------------


@pytest.mark.parametrize("more", [(), ("--benchmark-json", "none.json")], ids=["alone", "json"])
def test_without_the_plugin_the_extra_is_named(more: tuple[str, ...]) -> None:
    status, said = run_pytest(*WITHOUT, "--benchmark", *more)
    assert status == pytest.ExitCode.USAGE_ERROR
    assert "'.[bench]'" in said
    assert "unrecognized" not in said


def test_nothing_is_measured_without_the_option() -> None:
    status, said = run_pytest("-p", "no:benchmark", "bench/test_benchmark.py")
    assert status == pytest.ExitCode.INTERRUPTED
    assert "bench/ is measured with --benchmark" in said
    status, said = run_pytest(*WITHOUT, "--benchmark-full")
    assert status == pytest.ExitCode.USAGE_ERROR
    assert "--benchmark-full: goes with --benchmark" in said


@needs_plugin
@pytest.mark.full
@pytest.mark.timeout(600)
def test_the_way_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rehearsal of some entries: lines on the screen, the plugin's file, what is stored of it,
    tables, pictures and documents; a rehearsal itself is not stored."""
    file = tmp_path / "found.json"
    status, said = run_pytest(
        "--benchmark", "--benchmark-rehearse", "--benchmark-json", str(file),
        "--benchmark-max-time", "0.01", "--benchmark-min-rounds", "3",
        "-k", "4r or networks or current or growth-with-T or memory",
    )  # fmt: skip
    assert status == 0, said
    assert "graph           skipped: a CUDA graph needs a CUDA device" in said
    assert re.search(r"^  hetsyn_triton +[\d.]+ ms .* MB .* ms in fresh memory$", said, re.M)
    found = json.loads(file.read_text())
    ids = {b["param"] for b in found["benchmarks"]}
    assert "layer-5-4r-T4-B2-both-checkpointed" in ids
    assert "layer-5-4-T4-B2-both-loop" not in ids
    about = found["hetsyn"]
    assert about["set"] == "rehearse"
    assert about["wrong"] == {}
    assert about["memory"] == "from a process for each call"
    assert {"device", "cores", "torch", "numba", "date", "commit"} <= about["machine"].keys()
    for one in found["benchmarks"]:
        assert one["stats"]["rounds"] >= 3
        assert one["extra_info"].get("peak_bytes", 1) > 0
        assert one["extra_info"]["check"].startswith(("equal", "a plain LIF"))
        assert one["extra_info"]["fresh_ms"] > 0

    with pytest.raises(stored.Refused, match="rehearsal"):
        report.store(file, tmp_path)
    about["set"] = "quick"
    about["machine"]["changed"] = False
    file.write_text(json.dumps(found))
    _house(tmp_path)
    red = {"state": "red", "reason": "a proof failed", "passed": 9, "failures": ["a_proof"]}
    with monkeypatch.context() as patch:
        patch.setattr(report.gate, "run", lambda *_: red)
        assert report.main([str(file), "--root", str(tmp_path)]) == 1
    assert stored.files(tmp_path / "bench" / "results") == []
    green = {"state": "green", "reason": None, "passed": 9, "failures": []}
    with monkeypatch.context() as patch:
        patch.setattr(report.gate, "run", lambda *_: green)
        assert report.main([str(file), "--root", str(tmp_path)]) == 0
    (kept,) = stored.files(tmp_path / "bench" / "results")
    assert "node" not in kept.read_text(), "a host's name"
    pictures = {path.stem for path in kept.with_suffix("").glob("*.png")}
    assert pictures == {"speed-up", "floor", "memory", "growth", "error", "replicas"}
    text = (tmp_path / "docs" / "speed.md").read_text()
    assert cpu_table.between_markers(text, report.BEGIN, report.END) == report.sections(tmp_path)
    assert "layer 5->4r T4 B2 both" in text
    assert "Memory from a process for each call." in text
    lines = (kept.with_suffix("") / "table.csv").read_text().splitlines()
    assert len(lines) == 1 + len(found["benchmarks"])


def _house(root: Path) -> None:
    """Documents with their markers."""
    (root / "docs").mkdir()
    (root / "docs" / "speed.md").write_text(f"{report.BEGIN}\nold\n{report.END}\n")
    (root / "README.md").write_text(f"{cpu_table.BEGIN}\nold\n{cpu_table.END}\n")


# -- what the documents say ------------------------------------------------------------------------


def test_the_documents_say_what_is_stored() -> None:
    """`python -m bench.report` brings them there."""
    text = (ROOT / "docs" / "speed.md").read_text(encoding="utf-8")
    assert cpu_table.between_markers(text, report.BEGIN, report.END) == report.sections(ROOT)
    for file in stored.files():
        stored.check(stored.load(file))
        assert (file.with_suffix("") / "table.csv").exists()


def _result(**changes: Any) -> dict[str, Any]:
    row = {"group": "g", "label": "loop", "contender": "loop", "ms": 2.0, "low_ms": 1.9}
    row |= {"high_ms": 2.1, "check": "equal", "fma": 10**6, "work": {"kind": "layer"}}
    machine = {"device": "A", "threads": 2, "date": "d", "commit": "c", "changed": False}
    machine["sources"] = "a"
    found = {"set": "quick", "wrong": {}, "rows": [row], "machine": machine}
    return found | {"gate": {"state": "green"}, "rates": {"fma": 1e9}} | changes


def test_the_machine_in_words() -> None:
    """A GPU's record has no load of the cores, and no mode of theirs."""
    gate = {"state": "green", "passed": 7}
    result = _result(memory="of the allocator", gate=gate)
    result["machine"] |= {"torch": "2", "python": "3", "triton": "3.6"}
    said = tables.machine(result)
    assert "multiply-adds per second. 7 tests passed before the measurement." in said
    result["machine"] |= {"load_average": 0.25, "denormals_zero": True}
    said = tables.machine(result)
    assert "second. Load at the start 0.2; subnormal numbers flushed to 0. 7 tests" in said


def test_what_may_not_be_stored() -> None:
    stored.check(_result())
    for changes, reason in (
        ({"set": "rehearse"}, "rehearsal"),
        ({"wrong": {"g, loop": "other spikes"}}, "other spikes"),
        ({"rows": []}, "nothing timed"),
        ({"gate": {"state": "red"}}, "gate is red"),
        ({"gate": None}, "not run"),
        ({"gate": {"state": "partial"}}, "gate is partial"),
        ({"gate": {"state": "green", "sources": "b"}}, "proved other sources"),
    ):
        with pytest.raises(stored.Refused, match=reason):
            stored.check(_result(**changes))


@pytest.mark.parametrize(
    ("machine", "reason"),
    [
        ({"sources": "a", "commit": "d"}, None),
        ({"sources": "b", "commit": "c"}, "are others"),
        ({"commit": "c"}, None),
        ({"commit": "d"}, "are others"),
        ({"sources": "a", "commit": "c", "changed": True}, "in no commit"),
    ],
)
def test_what_is_stored_was_measured_of_what_is_proven(
    machine: dict[str, Any], reason: str | None
) -> None:
    """At commit c, with sources a."""
    machine = {"changed": False} | machine
    if reason is None:
        stored.check_same(machine, "c", "a")
    else:
        with pytest.raises(stored.Refused, match=reason):
            stored.check_same(machine, "c", "a")


def test_storing_asks_whether_it_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "found.json"
    file.write_text(json.dumps(_result(memory="a process for each call")))
    monkeypatch.setattr(report, "gate_of", lambda _: pytest.fail("the gate was run"))
    with pytest.raises(stored.Refused, match="are others"):
        report.store(file, tmp_path)


def test_the_digest_changes_with_kernels_proofs_and_timing(tmp_path: Path) -> None:
    names = ("hetsyn_triton/kernels/cpu/a.py", "tests/cpu/test_a.py", "tests/bounds.py")
    names += ("bench/rivals.py",)
    for name in names:
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("1")
    seen = {provenance.sources(tmp_path)}
    for name in names:
        (tmp_path / name).write_text("2")
        seen.add(provenance.sources(tmp_path))
    for name in ("tests/test_other.py", "bench/pictures.py"):
        (tmp_path / name).write_text("")
        seen.add(provenance.sources(tmp_path))
    assert len(seen) == 5
    for name in provenance.MEASURING:
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
    assert re.search(r"2\.20 +1\.10 +as two runs of one code", capsys.readouterr().out)
    assert report.main(["--compare", names[0], names[0]]) == 0
    said = capsys.readouterr().out
    assert "quartiles meet" in said
    assert "WARNING" not in said
    assert report.main(["--compare", names[0], "no-such-commit"]) == 1
    assert "neither a file nor a commit" in capsys.readouterr().out


def test_peaks_of_one_process_for_all_are_not_shown(tmp_path: Path) -> None:
    """As files have them from before `memory` said how it was taken."""
    found = _result()
    found["rows"][0]["peak_bytes"] = 5
    file = tmp_path / "found.json"
    file.write_text(json.dumps(found))
    assert "peak_bytes" not in stored.load(file)["rows"][0]
    file.write_text(json.dumps(found | {"memory": "a process for each call"}))
    assert stored.load(file)["rows"][0]["peak_bytes"] == 5


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
def test_what_is_not_alike_is_warned_of(other: dict[str, Any] | None, warning: str) -> None:
    a = _result()
    a["machine"] |= {"cores": 2, "torch": "2", "numba": "1", "load_average": 0.2}
    b = a | ({"set": "full"} if other is None else {"machine": a["machine"] | other})
    assert report.unlike(a, a) == []
    assert f"WARNING: {warning}" in report.comparison(a, b)


def test_columns_of_nothing_are_left_out() -> None:
    table = [["", "a", "b"], ["x", "-", "1"], ["y", "-", "-"]]
    assert tables.filled(table) == [["", "b"], ["x", "1"], ["y", "-"]]


def test_growth_of_what_is_stored() -> None:
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
    assert one["wanted"] == 2
    assert one["time"] == pytest.approx(2)
    assert one["met"]
    assert "| 2 ± 0.1 | yes |" in "\n".join(tables.growth({"rows": rows}))
    assert one["memory"] == pytest.approx(1)
    steps = stored.per_step({"rows": rows})
    assert steps is not None
    assert steps["bytes"] == [12 * 64, 12 * 128]
    assert steps["exponent"] == pytest.approx(1)


# -- who takes part --------------------------------------------------------------------------------


def test_plain_layers_are_made_alike() -> None:
    """Of whichever library, a layer takes the same arguments, with the same defaults."""
    _, *wanted = inspect.signature(plain_lif.MakeLayer.__call__).parameters.values()
    for make in plain_lif.LAYERS.values():
        assert list(inspect.signature(make).parameters.values()) == wanted


def test_entries_have_names_of_their_own() -> None:
    for chosen in (registry.entries(False), registry.entries(True), registry.rehearsed()):
        ids = [entry.id for entry in chosen]
        assert len(set(ids)) == len(ids)
        assert all(re.fullmatch(r"[\w-]+", name) for name in ids)
    quick, full = set(registry.entries(False)), set(registry.entries(True))
    assert quick - full <= {e for e in quick if e.work.kind == "replicas"}
    parts = {e.work.part for e in full if e.work.kind == "layer"}
    assert parts == set(registry.PARTS)


@pytest.mark.parametrize("part", registry.PARTS)
@pytest.mark.parametrize("recurrent", [False, True], ids=["feedforward", "recurrent"])
def test_everybody_computes_the_same(recurrent: bool, part: str) -> None:
    """In float32, exactly where sums are exact; and who does not is seen."""
    work = replace(TINY, I=40, J=12, recurrent=recurrent, part=part)
    for who in (*registry.BACKENDS, registry.LOOP, registry.CHECKPOINTED):
        assert contests.checked(work, who, CPU) == "equal"
    spikes = contests.problem(replace(work, T=6, part="forward"), CPU, exact=True)
    assert 0 < rivals.layer_loop(spikes.x, spikes.weights).mean() < 1


def test_who_computes_something_else_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(given: contests.Problem) -> contests.Made:
        weights = replace(given.weights, r=given.weights.r * 0.9)
        return contests._eager(replace(given, weights=weights))

    work = replace(TINY, I=40, J=12)
    monkeypatch.setitem(contests._LAYER, registry.LOOP, wrong)
    with pytest.raises(AssertionError):
        contests.checked(work, registry.LOOP, CPU)
    said: list[str] = []
    plan = Plan(CPU, 1, 0.0, 3, timed=False)
    pair = [Entry("g", who, work, who) for who in (registry.LOOP, registry.OURS, registry.GRAPH)]
    turns = Turns(plan, pair, said.append, 0.0)
    loop, ours, graph = (turns.of(entry) for entry in pair)
    assert loop.wrong
    assert not ours.wrong
    assert graph.missing == "a CUDA graph needs a CUDA device"
    assert any("WRONG" in line for line in said)


def test_a_tape_that_does_not_fit_is_left_out_with_the_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At all, or beside what this process keeps of its own turns."""
    work = replace(registry.MAIN, T=4, B=1, part="both")
    entry = Entry("g", registry.LOOP, work, registry.LOOP)
    one = tape(work, registry.LOOP)
    plan = Plan(CPU, 1, 0.0, 1)
    monkeypatch.setattr(Apart, "ask", lambda *_: {"peak": 5, "fresh_ms": 1.0})
    for free, missing, memory in (
        (1e9 + 3 * one, False, None),
        (1e9 + 2 * one, False, "not measured: needs about 1 GB, 1 GB are free"),
        (1e9 + one, True, None),
    ):
        monkeypatch.setattr("bench.turns._free_bytes", lambda _, free=free: free)
        found = Turns(plan, [entry], lambda _: None, 0.0).of(entry)
        assert bool(found.missing) == missing
        assert missing or found.info.get("memory") == memory


def _other_decays(monkeypatch: pytest.MonkeyPatch) -> None:
    way = rivals.network_loop

    def wrong(x: torch.Tensor, weights: Any, compile: Any) -> torch.Tensor:
        return way(x, [replace(w, r=w.r * 0.9) for w in weights], compile)

    monkeypatch.setattr(rivals, "network_loop", wrong)


def _no_clamp(monkeypatch: pytest.MonkeyPatch) -> None:
    step = workloads._step
    monkeypatch.setattr(workloads, "_step", lambda *given: step(*given[:-1], lambda: None))


@pytest.mark.parametrize("spoil", [None, _other_decays, _no_clamp], ids=["right", "r", "clamp"])
def test_a_network_is_checked_by_its_training_step(
    monkeypatch: pytest.MonkeyPatch, spoil: Callable[[pytest.MonkeyPatch], None] | None
) -> None:
    work = Work("network", 4, 2, 40, 3, part="step", hidden=(12, 8))
    for who in (registry.OURS, registry.LOOP, registry.CHECKPOINTED):
        assert contests.checked(work, who, CPU) == "equal"
    if spoil is not None:
        spoil(monkeypatch)
        with pytest.raises(AssertionError):
            contests.checked(work, registry.LOOP, CPU)


def test_closed_forms_are_closed_forms() -> None:
    """No kernel is called, in either direction."""
    called: list[str] = []
    from hetsyn_triton.ops import dispatch

    launcher = dispatch.Kernels.launcher
    made = contests.make(TINY, registry.CLOSED, CPU)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            dispatch.Kernels,
            "launcher",
            lambda self, name: called.append(name) or launcher(self, name),
        )
        made.run()
        assert called == []
        contests.make(TINY, registry.OURS, CPU).run()
        assert called


def test_memory_that_a_figure_would_not_show() -> None:
    """A backward alone has its tape before; autograd does not see what checkpoints hold."""
    row = {"work": {"part": "both"}, "contender": registry.LOOP, "peak_bytes": 3, "saved_bytes": 2}
    assert (stored.peak(row), stored.kept(row)) == (3, 2)
    assert stored.peak(row | {"work": {"part": "backward"}}) is None
    assert stored.kept(row | {"contender": registry.CHECKPOINTED}) is None


def test_the_checkpointed_network_takes_the_same_training_step() -> None:
    sizes = (40, 12, 8, 3)
    x = workloads.spikes(40, 4, sizes[0], dtype=torch.float64)
    networks = [workloads.network(sizes, torch.float64) for _ in range(2)]
    ways = (rivals.network_loop, rivals.checkpointed_network_loop)
    made = [
        workloads.loop_network(net, x, sizes[-1], loop=way)
        for net, way in zip(networks, ways, strict=True)
    ]
    for step, _ in made:
        step()
    for a, b in zip(made[0][1], made[1][1], strict=True):
        torch.testing.assert_close(a, b)


def test_small_networks_train_the_same_together() -> None:
    replicas.check(replace(registry.REPLICAS[0], R=2, T=40, B=3), CPU)


def test_the_clock_stands_still_but_for_what_was_measured() -> None:
    begin = measured_time()
    assert measured_time() == begin
    advance(0.25)
    assert measured_time() == begin + 0.25


# -- plain LIF layers ------------------------------------------------------------------------------


def _compared(library: str, recurrent: bool) -> tuple[torch.Tensor, Any, Any]:
    """Their spikes of an input, their weights, and the input."""
    reason = plain_lif.missing(library)
    if reason:
        pytest.skip(f"{library}: {reason}")
    torch.manual_seed(0)
    forward, weights = plain_lif.LAYERS[library](6, 5, recurrent)
    with torch.no_grad():
        weights[0] *= 3.0
    z = (torch.rand(30, 2, 6) < 0.4).float().requires_grad_()
    return forward(z), weights, z


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("recurrent", [False, True], ids=["feedforward", "recurrent"])
def test_snntorch_is_the_layer_with_one_time_constant(recurrent: bool) -> None:
    """And with its surrogate, and no gradient through the reset."""
    found, weights, z = _compared("snntorch", recurrent)
    layer = HetSynLIF(
        6, 5, recurrent=recurrent, tau_reset=20.0, detach_reset=True,
        surrogate=FastSigmoid(plain_lif.SLOPE),
    )  # fmt: skip
    with torch.no_grad():
        layer.weight.copy_(weights[0])
        layer.decay.raw.fill_(plain_lif.RHO)
        if recurrent:
            layer.recurrent_weight.copy_(weights[1])
            layer.recurrent_decay.raw.fill_(plain_lif.RHO)
    spikes, _ = layer(z)
    assert found.any()
    assert torch.equal(found, spikes)
    g = torch.randn(found.shape)
    theirs = torch.autograd.grad(found, [z, weights[0]], g)
    expected = torch.autograd.grad(spikes, [z, layer.weight], g)
    for got, want in zip(theirs, expected, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-4)


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("recurrent", [False, True], ids=["feedforward", "recurrent"])
def test_norse_is_the_neuron_that_its_docstring_says(recurrent: bool) -> None:
    """The potential times 1 - rho: step by step from the equations, spikes and gradient."""
    found, weights, z = _compared("norse", recurrent)
    u, s, spikes = torch.zeros(2, 5), torch.zeros(2, 5), []
    for z_t in z:
        current = z_t @ weights[0].T + (s @ weights[1].T if recurrent else 0.0)
        h = plain_lif.RHO * u + current
        s = (h > 1).float()
        u = h - s
        spikes.append(s)
    assert found.any()
    assert torch.equal(found, torch.stack(spikes))
    (gradient,) = torch.autograd.grad(found.sum(), [weights[0]])
    assert gradient.abs().sum() > 0
