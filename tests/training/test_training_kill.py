"""A real kill at any moment, and `--resume`, end with the weights of a run never interrupted."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from hetsyn_triton.experiments.cli.commands import run
from hetsyn_triton.experiments.training import default_config, load_run, train
from hetsyn_triton.experiments.training.trainer import Trainer

SETTINGS: dict[str, Any] = {"hidden": (8, 8), "dropout": 0.2, "epochs": 4, "threads": 1}
# Many checkpoints inside an epoch, so that a kill also falls into the writing of one.
PROGRAM = """
import sys
import hetsyn_triton.experiments.training.trainer as trainer
from hetsyn_triton.experiments.cli import main
trainer.CHECKPOINT_SECONDS = 0.02
main()
"""


def start(*arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def wait_for_new_checkpoint(process: subprocess.Popen[bytes], path: Path) -> None:
    def stamp() -> int:
        return path.stat().st_mtime_ns if path.exists() else 0

    before = stamp()
    while stamp() == before:
        assert process.poll() is None, process.communicate()[1].decode()
        time.sleep(0.005)


def assert_kills_leave_no_trace(tmp_path: Path, kills: int, seed: int) -> None:
    config = default_config("digits", **SETTINGS, options={"hold": 1})
    whole = train(config, tmp_path / "whole", pictures=False)
    folder = tmp_path / "killed"
    first = ["train", "digits", "--hidden", "8,8", "--epochs", "4", "--threads", "1"]
    first += ["--dropout", "0.2", "--set", "hold=1", "--out", str(folder)]
    moments = random.Random(seed)
    for arguments in (first, *[["train", "--resume", str(folder)]] * (kills - 1)):
        process = start(*arguments)
        wait_for_new_checkpoint(process, folder / "checkpoint.pt")
        time.sleep(moments.uniform(0.0, 1.2 / kills))
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL, "finished before the kill"
    assert load_run(folder).epoch < 4
    assert run(["train", "--resume", str(folder)]) == 0
    resumed = load_run(folder)
    assert resumed.epoch == 4
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, resumed.network.state_dict()[name]), name
    lines = [
        [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
        for path in (whole.path, folder)
    ]
    for a, b in zip(*lines, strict=True):
        assert a | {"seconds": 0} == b | {"seconds": 0}
    assert not list(folder.glob(".*"))


def test_kill_and_resume(tmp_path: Path) -> None:
    assert_kills_leave_no_trace(tmp_path, 1, seed=1)


@pytest.mark.full
@pytest.mark.timeout(3600)
def test_many_kills(tmp_path: Path, hunt: int, times: int) -> None:
    for part in range(times):
        folder = tmp_path / str(part)
        folder.mkdir()
        assert_kills_leave_no_trace(folder, 5, seed=1000 * hunt + part)


@pytest.fixture
def answered_interrupts() -> Iterator[None]:
    """Ctrl-C raises, also where the tests were started in the background, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_interrupt_says_how_to_go_on(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    answered_interrupts: None,
) -> None:
    train_on = Trainer._train_on

    def interrupted(self: Trainer, batch: Any) -> None:
        if self.step == 50:
            signal.raise_signal(signal.SIGINT)
        train_on(self, batch)

    monkeypatch.setattr(Trainer, "_train_on", interrupted)
    folder = tmp_path / "run"
    arguments = ["--hidden", "8", "--epochs", "3", "--set", "hold=1", "--threads", "1"]
    assert run(["train", *arguments, "--out", str(folder)]) == 130
    assert f"hetsyn train --resume {folder}" in capsys.readouterr().err
    assert load_run(folder).epoch == 1
