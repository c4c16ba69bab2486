"""Two processes under torchrun: the same gradients and the same run as one, and one end for all."""

import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from hetsyn_triton.experiments.training import ConfigError, evaluate, load_run, train
from hetsyn_triton.experiments.training.parallel import ALONE, Ranks
from tests.training.parallel_program import CASES, PLAIN, RUN, gradients

PROGRAM = Path(__file__).with_name("parallel_program.py")


LAUNCHER = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def torchrun(
    *arguments: str, folder: Path, expected: int = 0
) -> "subprocess.CompletedProcess[str]":
    done = subprocess.run(
        [sys.executable, *LAUNCHER, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == expected, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes left: gradients, dropout, runs, and how they ended."""
    folder = tmp_path_factory.mktemp("parallel")
    done = torchrun(str(PROGRAM), str(folder), folder=folder, expected=1)
    (folder / "errors.txt").write_text(done.stderr)
    return folder


@pytest.mark.parametrize("name", CASES)
def test_gradients_are_those_of_one_process(both: Path, name: str) -> None:
    """Also with uneven parts, with none, and for a loss that is no mean over samples."""
    alone = gradients(CASES[name])
    for rank in range(2):
        found = torch.load(both / f"gradients-{rank}.pt")[name]
        assert found["loss"] == pytest.approx(alone["loss"], rel=1e-12)
        assert found["metrics"] == pytest.approx(alone["metrics"], rel=1e-12)
        assert found["gradients"].keys() == alone["gradients"].keys()
        for parameter, expected in alone["gradients"].items():
            got = found["gradients"][parameter]
            bound = 1e-12 * expected.abs().max().item()
            assert (got - expected).abs().max().item() <= bound, parameter
            assert expected.abs().max() > 0, parameter


def test_dropout_differs_between_ranks_and_repeats(both: Path) -> None:
    first, second = (torch.load(both / f"mask-{rank}.pt") for rank in range(2))
    assert not torch.equal(first, second)
    weights = [torch.load(both / f"weights-{rank}.pt") for rank in range(2)]
    for name, value in load_run(both / "whole").network.state_dict().items():
        for other in weights:  # interrupted and resumed, on both ranks
            assert torch.equal(value, other[name]), name


def test_a_run_is_that_of_one_process(both: Path, tmp_path: Path) -> None:
    """With the whole batch's gradient clipped, not each process's part of it."""
    alone = train(PLAIN.config(), tmp_path / "alone", pictures=False)
    run = load_run(both / "plain")
    assert run.config == alone.config
    for name, value in alone.network.state_dict().items():
        assert torch.allclose(value, run.network.state_dict()[name], atol=1e-5), name
    summary = json.loads((both / "plain" / "summary.json").read_text())
    assert summary["processes"] == 2
    of_one = json.loads((alone.path / "summary.json").read_text())
    assert summary["test_samples"] == of_one["test_samples"] > 0
    assert evaluate(run) == summary["test"]  # the batches are shared, the means are the same bits
    assert not list((both / "plain").glob(".*"))


def test_metrics_of_the_parts_are_those_of_the_whole(both: Path) -> None:
    lines = [
        [json.loads(line) for line in (both / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("whole", "parts")
    ]
    assert len(lines[0]) == RUN.config().epochs
    for a, b in zip(*lines, strict=True):
        assert a | {"seconds": 0} == b | {"seconds": 0}


def test_one_fails_all_end(both: Path) -> None:
    assert "rank 1 is lost" in (both / "errors.txt").read_text()
    told = [(both / f"told-{rank}.txt").read_text().splitlines() for rank in range(2)]
    drifted = "the ranks have different values of layers.0.weight now"
    assert told[0] == [
        "RanksError: rank 1 of 2: DataError: file lost",
        "DataError: disk full",
        drifted,
    ]
    assert told[1] == [
        "RanksError: rank 1 of 2: DataError: file lost",
        "RanksError: rank 0 of 2: DataError: disk full",
        drifted,
    ]
    assert not list(both.glob("done-*"))
    assert load_run(both / "run").epoch == 0


def test_parts() -> None:
    for size in (1, 2, 3, 7):
        for samples in (0, 1, 5, 7, 32):
            rows: list[int] = []
            for rank in range(size):
                own = Ranks(rank, size).own(samples)
                rows += range(samples)[own]
                assert own.stop - own.start == Ranks(rank, size).parts(samples)[rank]
            assert rows == list(range(samples))
    assert ALONE.parts(5) == [5]


def test_devices_of_the_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert Ranks(3, 4).device("cuda") == "cuda:1"
    assert Ranks(3, 4).device("cpu") == "cpu"
    assert ALONE.device("cuda:1") == "cuda:1"
    with pytest.raises(
        ConfigError, match=r"device: expected cuda because each rank uses its own GPU, got cuda:1"
    ):
        Ranks(1, 2).device("cuda:1")
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(ConfigError, match="device: expected a GPU for each rank, got 2 on this"):
        Ranks(2, 3).device("cuda")


KILLED = """
import os, random, signal, sys, threading
import hetsyn_triton.experiments.training.trainer as trainer
from hetsyn_triton.experiments.cli import main
trainer.CHECKPOINT_SECONDS = 0.02
rank, seconds = int(os.environ["DIES"]), float(os.environ["AFTER"])
if int(os.environ["RANK"]) == rank:
    started = trainer.Trainer.fit
    def fit(self, *given):  # the moment counts from the first step
        threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGKILL)).start()
        return started(self, *given)
    trainer.Trainer.fit = fit
main()
"""


@pytest.mark.full
@pytest.mark.timeout(3600)
def test_a_rank_is_killed(
    tmp_path: Path, hunt: int, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All ranks end, and `--resume` ends with the weights of a run that was never interrupted."""
    program = tmp_path / "killed.py"
    program.write_text(KILLED)
    settings = ["--hidden", "6", "--epochs", "6", "--set", "hold=1", "--threads", "1"]
    torchrun("-m", "hetsyn_triton", "train", *settings, "--out", "whole", folder=tmp_path)
    whole = load_run(tmp_path / "whole")
    moments = random.Random(hunt)
    for part in range(times):
        out = f"killed{part}"
        monkeypatch.setenv("DIES", str(moments.randrange(2)))
        monkeypatch.setenv("AFTER", str(moments.uniform(0.05, 1.0)))
        torchrun(str(program), "train", *settings, "--out", out, folder=tmp_path, expected=1)
        assert load_run(tmp_path / out).epoch < 6
        torchrun("-m", "hetsyn_triton", "train", "--resume", out, folder=tmp_path)
        found = load_run(tmp_path / out)
        for name, value in whole.network.state_dict().items():
            assert torch.equal(value, found.network.state_dict()[name]), name


@pytest.mark.full
def test_the_command(tmp_path: Path) -> None:
    command = ["-m", "hetsyn_triton", "train"]
    small = ["--hidden", "6", "--epochs", "2", "--set", "hold=1", "--out", "run"]
    done = torchrun(*command, *small, folder=tmp_path)
    assert done.stdout.count(", in run\n") == done.stdout.count("Run folder: run\n") == 1
    assert len(list((tmp_path / "run").glob("*.png"))) == 3
    done = torchrun(*command, "--resume", "run", folder=tmp_path)
    assert done.stdout.count("Run folder: run\n") == 1
    done = torchrun(*command, *small, folder=tmp_path, expected=1)
    assert done.stderr.count("hetsyn: out: expected an empty or new folder, got run") == 1
    done = torchrun(*command, "--set", "hold=0", folder=tmp_path, expected=1)
    assert done.stderr.count("hetsyn: options.hold: expected an integer") == 1
    done = torchrun(*command, *small[:-1], "bad", "--set", "lr=1e30", folder=tmp_path, expected=1)
    assert len(re.findall(r"hetsyn: .* is not finite at step \d \(epoch 1", done.stderr)) == 1
