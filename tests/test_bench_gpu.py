"""The benchmark of the GPU, rehearsed on the CPU: its arithmetic, its file, its gate."""

import gc
import json
import os
import subprocess
import sys
import weakref
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from bench import cpu_table, gate, gpu_table, records, rivals, timing
from hetsyn_triton import HetSynLIF, HetSynReadout, Normal
from hetsyn_triton.surrogates import Triangular
from tests.support import unchecked

ROOT = Path(__file__).resolve().parents[1]


def rehearse(folder: Path, *options: str) -> tuple[int, str, dict[str, Any]]:
    """Exit status, output and the file of a rehearsal."""
    command = [sys.executable, "-m", "bench.gpu", "--rehearse", "--seconds", "0.01", "--out"]
    done = subprocess.run(
        [*command, str(folder), *options],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "HETSYN_TUNED": str(folder / "tuned.json")},
        capture_output=True,
        text=True,
    )
    file = folder / "gpu-rehearsal.json"
    assert file.exists(), done.stdout + done.stderr
    return done.returncode, done.stdout, json.loads(file.read_text())


@pytest.mark.slow
def test_rehearsal(tmp_path: Path) -> None:
    """The whole way: gate, warm-up, layers, a network and one kernel; rivals, file, table."""
    only = "network|6->4|^spike_scan .* spike_scan$"
    status, said, result = rehearse(tmp_path, "--tune", "--only", only)
    assert status == 0
    assert result["rehearsal"]
    assert result["gate"]["state"] == "green"
    assert result["gate"]["passed"] >= 1
    assert {"device", "torch", "triton", "python", "date", "commit"} <= result["machine"].keys()
    assert len(result["rows"]) == 5
    for row in result["rows"]:
        assert row["status"] == "measured", row
        assert row["low_ms"] <= row["ms"] <= row["high_ms"]
        assert row["repeats"] >= 3
        assert row["fraction"] is None  # a CPU has no floor here
        for rival in row["rivals"].values():
            assert rival["status"] == "measured", rival
            assert rival["ratio"] == pytest.approx(rival["ms"] / row["ms"], rel=1e-3)
    kinds = {row["part"]: set(row["rivals"]) for row in result["rows"]}
    assert kinds["step"] == kinds["both"] == set(rivals.RIVALS)
    # As they came, line by line, for the case that the end is never reached.
    lines = [json.loads(line) for line in (tmp_path / "gpu.jsonl").read_text().splitlines()]
    assert [line["name"] for line in lines[2:]] == [row["name"] for row in result["rows"]]
    assert list(result["tuned"]["winners"]) == ["spike_scan/few"]
    assert not (tmp_path / "tuned.json").exists()
    assert result["tuned"]["failed"] == {}
    text = (tmp_path / "gpu-rehearsal.txt").read_text()
    assert text.strip() in said
    assert text.startswith("REHEARSAL")


@pytest.mark.slow
def test_a_gate_cut_off_says_what_had_ended(tmp_path: Path) -> None:
    """A machine lent for minutes is given back before a long gate ends."""
    file = tmp_path / "test_slow.py"
    file.write_text(
        "import time\nimport pytest\n"
        "def test_right():\n    pass\n"
        "def test_wrong():\n    assert 1 == 2\n"
        "def test_skipped():\n    pytest.skip('PASSED test_slow.py::none')\n"
        "@pytest.mark.parametrize('n', range(3))\n"
        "def test_endless(n):\n    time.sleep(100)\n"
    )
    found = gate.run([str(file)], tmp_path / "out", 12, workers=2)
    counts = {name: found[name] for name in ("state", "passed", "failed", "skipped")}
    assert counts == {"state": "red", "passed": 1, "failed": 1, "skipped": 1}
    assert [name.split("::")[-1].split()[0] for name in found["failures"]] == ["test_wrong"]
    assert found["reason"] == "did not end within 12 s"
    log = tmp_path / "one-process.log"
    log.write_text("a.py::b PASSED [ 1%]\na.py::c[1] FAILED [ 2%]\na.py::d\nSKIPPED: 3\n")
    found = gate._counts_so_far(log)
    assert found == {"passed": 1, "failed": 1, "skipped": 0, "failures": ["a.py::c[1]"]}


def test_a_red_gate_refuses(tmp_path: Path) -> None:
    status, said, result = rehearse(
        tmp_path, "--only", "6->4.*forward", "--gate", "tests/none_such.py"
    )
    assert status == 1
    assert "nothing is timed" in said
    assert result["gate"]["state"] == "red"
    assert [row["status"] for row in result["rows"]] == ["not measured"]
    assert "not measured" in (tmp_path / "gpu-rehearsal.txt").read_text()


@pytest.mark.slow
def test_a_red_gate_is_shouted_about_where_it_is_overridden(tmp_path: Path) -> None:
    """A gate without a single test is red too. With no time left each row says so."""
    status, said, result = rehearse(
        tmp_path, "--ungated", "--budget", "9", "--only", "6->4.*forward",
        "--gate", "tests/test_bench_gpu.py", "-k", "no_such_test",
    )  # fmt: skip
    assert status == 0
    assert "THE GATE IS RED" in said
    assert result["gate"]["state"] == "red"
    (row,) = result["rows"]
    assert row["reason"] == "out of time"
    assert row["rivals"]["loop"]["status"] == "not measured"


@pytest.mark.slow
def test_rows_after_a_lost_gpu_are_timed_by_another_process(tmp_path: Path) -> None:
    """Here the GPU is lost after the first row; a process that ends at once costs one row."""
    code = (
        "import sys\nsys.argv += ['--rehearse']\n"
        "from bench import gpu\n"
        "gpu.lost = lambda device: True\n"
        "gpu.gate_of = lambda *_: dict("
        "state='green', reason=None, passed=1, failed=0, skipped=0, failures=[])\n"
        "gpu.warm_all = lambda *_: dict(seconds=0.0)\n"
        "run = gpu.subprocess.run\n"
        "ends = iter([['-c', '0'], None])\n"
        "def other(command, **more):\n"
        "    end = next(ends) if '--after' in command else None\n"
        "    return run(command[:1] + (end or command[1:]), **more)\n"
        "gpu.subprocess.run = other\n"
        "gpu.main(['--rehearse', '--seconds', '0.01', '--only', '6->4', '--out', sys.argv[1]])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads((tmp_path / "gpu-rehearsal.json").read_text())["rows"]
    assert [row["status"] for row in rows] == ["measured", "not measured", "measured"]
    assert [row["part"] for row in rows] == ["both", "forward", "backward"]
    assert rows[1]["reason"] == "its process ended"


@pytest.mark.slow
def test_some_proofs_are_not_the_gate() -> None:
    """Chosen ones that pass are partial; only all of them are green."""
    code = (
        "from bench import gpu\n"
        "gpu.gate.run = lambda *_: {'state': 'green', 'reason': None}\n"
        "for more in ([], ['--gate', 'tests/test_options.py']):\n"
        "    print(gpu.gate_of(gpu.arguments_of(more), {})['state'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.split() == ["green", "partial"], done.stderr


@pytest.mark.slow
def test_the_gate_of_an_earlier_call(tmp_path: Path) -> None:
    """It counts where it was green, on the same GPU and of the same sources."""
    code = (
        "import sys, json\n"
        "from bench import gpu\n"
        "machine = {'device': 'A', 'sources': '1'}\n"
        "print(gpu.gate_of(gpu.arguments_of(['--proven', sys.argv[1]]), machine))\n"
    )

    def found(state: str, **machine: str) -> subprocess.CompletedProcess[str]:
        earlier = {"device": "A", "sources": "1", "date": "then"} | machine
        gate = {"state": state, "passed": 3, "failed": 0}
        file = tmp_path / "earlier.json"
        file.write_text(json.dumps({"machine": earlier, "gate": gate}))
        command = [sys.executable, "-c", code, str(file)]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    told = found("green")
    assert told.stdout.strip() == str(
        {"state": "green", "passed": 3, "failed": 0, "date": "then"}
    ), told.stderr
    for told, said in (
        (found("partial"), "expected a green gate, got partial"),
        (found("green", device="B"), "expected device A, got B"),
        (found("green", sources="2"), "expected sources 1, got 2"),
    ):
        assert told.returncode == 1
        assert said in told.stderr
        assert told.stdout == ""


def test_ratios_and_fractions() -> None:
    record = {
        "ms": 2.0,
        "fma": 3 * 10**9,
        "predicted": {"in_waves": 0.5},
        "rivals": {"loop": {"ms": 50.0}, "graph": {"reason": "does not fit"}},
    }
    found = records.derive(record, 6e12)
    assert found["floor_ms"] == pytest.approx(0.5)
    assert found["fraction"] == pytest.approx(0.25)
    assert found["of_predicted"] == pytest.approx(0.5)
    assert found["rivals"]["loop"]["ratio"] == pytest.approx(25.0)
    assert found["rivals"]["graph"] == {"reason": "does not fit", "ratio": None}
    missing = records.derive({"ms": None, "fma": 10}, 6e12)
    assert missing["fraction"] is None
    assert records.derive({"ms": 1.0, "fma": 0}, 6e12)["fraction"] is None


def test_the_readme_says_what_is_stored() -> None:
    """`python -m bench.gpu --readme` brings it there."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    said = cpu_table.between_markers(readme, gpu_table.BEGIN, gpu_table.END)
    assert said == gpu_table.readme_section(ROOT)


def test_the_readme_table(tmp_path: Path) -> None:
    """Columns of what was measured of anybody; the newest file; kernels and parts left out."""

    def row(name: str, part: str, **more: Any) -> dict[str, Any]:
        rivals = {"loop": {"ms": 50.0, "ratio": 25.0}, "compiled": {"ms": None, "ratio": None}}
        given = {"ms": 2.0, "fraction": 0.25, "peak_bytes": 3e6, "rivals": rivals, **more}
        return {"name": name, "part": part, **given}

    alone = {"loop": {"ms": 9.0, "ratio": 3.0}}
    rows = [
        row("recurrent synapses 5 T9 B8", "both", J=5),
        row("recurrent synapses 50 T9 B8", "both", J=50, rivals=alone),
        row("layer 7->5 T9 B8", "both", in_a_graph={"ms": 1.5}),
        row("layer 7->5 T9 B8", "forward"),
        row("network 7-5-2", "step", rivals={"graph": {"ms": 6.0, "ratio": 3.0}}),
        row("layer 9->5 T9 B8", "both", ms=None),
        row("synaptic_current 7->5", "synaptic_current"),
    ]
    machine = {"device": "A", "driver": "1", "torch": "2", "triton": "3", "fma_rate": 3e13}
    machine["changed"] = True
    folder = tmp_path / "bench" / "results"
    folder.mkdir(parents=True)
    assert gpu_table.readme_section(tmp_path) == gpu_table.NOTHING_STORED
    for name, date in (("gpu-A.json", "2026-02-01"), ("gpu-B.json", "2026-01-01")):
        result = {
            "machine": machine | {"date": date, "commit": "abc"},
            "gate": {"passed": 4, "failed": 0},
            "rows": rows,
        }
        (folder / name).write_text(json.dumps(result))
    lines = gpu_table.readme_section(tmp_path).splitlines()
    assert lines[:5] == [
        "- 25x faster than the eager loop, 3.0x than the loop in a graph.",
        "- 25.0% of the peak multiply-add rate.",
        "- Recurrent synapses alone, 5 to 50 neurons: 3.0-25x faster than the eager loop.",
        "",
        "| forward and backward | this library | in a CUDA graph | eager loop"
        " | loop in a graph | of the peak | peak memory |",
    ]
    assert lines[6:9] == [
        "| 7->5 T9 B8 | 2.00 ms | 1.50 ms | 50.0 ms (25.0x) | not measured | 25.0% | 3.00 MB |",
        "| network 7-5-2 | 2.00 ms | not measured | not measured | 6.00 ms (3.00x)"
        " | 25.0% | 3.00 MB |",
        "",
    ]
    assert lines[9:11] == [
        "Medians on A, torch 2, Triton 3, 2026-02-01:",
        "[stored file](bench/results/gpu-A.json). The peak is 30e12 multiply-adds/s.",
    ]
    assert lines[11] == "Also: [bench/results/gpu-B.json](bench/results/gpu-B.json)."


def test_what_breaks_is_recorded_and_costs_nothing_else() -> None:
    code = (
        "from bench.gpu import Clock, attempt\n"
        "def broken(): raise RuntimeError('no kernel image')\n"
        "print(attempt(Clock(60), broken)['reason'])\n"
        "print(attempt(Clock(1), broken)['reason'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.splitlines() == ["RuntimeError: no kernel image", "out of time"]


@pytest.mark.gpu
def test_a_captured_call_keeps_what_it_reads() -> None:
    """A graph has addresses, not tensors: inputs let go of are an illegal access."""
    x = torch.ones(1000, device="cuda")
    kept = weakref.ref(x)
    replay = rivals.in_a_graph(lambda x=x: x + 1)
    del x
    gc.collect()
    assert kept() is not None
    assert bool((replay() == 2).all())


def test_a_captured_call_keeps_what_it_reads_without_a_gpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The same with capture and replay stood in for."""

    class Graph:
        def replay(self) -> None:
            pass

    cuda = torch.cuda
    monkeypatch.setattr(cuda, "is_available", lambda: True)
    monkeypatch.setattr(cuda, "Stream", lambda: SimpleNamespace(wait_stream=lambda other: None))
    monkeypatch.setattr(cuda, "current_stream", cuda.Stream)
    monkeypatch.setattr(cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setattr(cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(cuda, "graph", lambda graph: nullcontext())
    x = torch.ones(3)
    kept = weakref.ref(x)
    replay = rivals.in_a_graph(lambda x=x: x + 1)
    del x
    gc.collect()
    assert kept() is not None
    assert replay().tolist() == [2, 2, 2]


def test_median_and_sets() -> None:
    assert timing.sets_for(1 << 20) == timing.MOST_SETS
    assert timing.sets_for(50 << 20) == 3
    assert timing.sets_for(1 << 30) == 1
    seen: list[int] = []
    calls = [timing.Call(lambda k=k: seen.append(k)) for k in range(3)]  # type: ignore[misc]
    found = timing.measure(calls, torch.device("cpu"), seconds=1e-9)
    assert found.repeats == 3
    assert seen[-3:] == [0, 1, 2]
    assert found.low_ms <= found.ms <= found.high_ms


@pytest.mark.parametrize("recurrent", [False, True], ids=["feedforward", "recurrent"])
def test_the_loop_computes_what_the_layers_compute(recurrent: bool) -> None:
    """Spikes and gradients: the comparison is between equals."""
    generator = torch.Generator().manual_seed(0)
    more = {"recurrent_weight_init": Normal(0.0, 0.3)} if recurrent else {}
    layer = HetSynLIF(
        6, 5, recurrent=recurrent, weight_init=Normal(0.2, 0.5), dtype=torch.float64,
        generator=generator, **more,
    )  # fmt: skip
    x = (torch.rand(12, 3, 6, generator=generator) < 0.4).double().requires_grad_()
    spikes, _ = layer(x)
    g = torch.randn(spikes.shape, generator=generator, dtype=torch.float64)
    expected = torch.autograd.grad(spikes, [x, *layer.parameters()], g)
    pair = None
    if recurrent:
        pair = tuple(
            t.detach().requires_grad_() for t in (layer.recurrent_weight, layer.recurrent_decay())
        )
    w, r = (t.detach().requires_grad_() for t in (layer.weight, layer.decay()))
    weights = rivals.Weights(w, r, pair)
    found = rivals.layer_loop(x, weights)
    assert spikes.any()
    assert torch.equal(found, spikes)
    leaves = {"weight": w, "decay.raw": r}
    if pair:
        leaves |= {"recurrent_weight": pair[0], "recurrent_decay.raw": pair[1]}
    dx, *grads = torch.autograd.grad(found, [x, *leaves.values()], g)
    torch.testing.assert_close(dx, expected[0])
    named = dict(zip(dict(layer.named_parameters()), expected[1:], strict=True))
    for name, got in zip(leaves, grads, strict=True):
        torch.testing.assert_close(got, named[name], rtol=1e-6, atol=1e-6)
    readout = HetSynReadout(6, 5, dtype=torch.float64, generator=generator)
    last = rivals.Weights(readout.weight, readout.decay(), spiking=False)
    torch.testing.assert_close(rivals.network_loop(x, [last]), readout(x)[0])


def test_the_recurrent_loop_computes_what_the_operator_computes() -> None:
    generator = torch.Generator().manual_seed(1)
    c = torch.randn(9, 2, 5, generator=generator, dtype=torch.float64)
    w = torch.randn(5, 5, generator=generator, dtype=torch.float64)
    r = torch.rand(5, 5, generator=generator, dtype=torch.float64)
    one, zeros = c.new_ones(1, 5), c.new_zeros(1, 2, 5)
    neuron = (one, rivals.KAPPA * one[None], one[None], zeros[None], zeros)
    spikes, *_ = unchecked.recurrent_scan(c[None], w[None], r[None], None, *neuron, Triangular())
    assert torch.equal(rivals.recurrent_loop(c, rivals.Weights(w, r)), spikes[0])
