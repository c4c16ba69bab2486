"""A real kill at any moment, and `--resume`, end with the weights of a run never interrupted."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch

from hetsyn_triton.training import default_config, load_run, train

SETTINGS = {"hidden": (8, 8), "dropout": 0.2, "epochs": 6, "threads": 1}
OPTIONS = {"hold": 1, "validation": 0.1}
# Many checkpoints inside an epoch, so that a kill also falls into the writing of one.
PROGRAM = """
import sys
import hetsyn_triton.training.trainer as trainer
from hetsyn_triton.cli import main
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


def test_kill_and_resume(tmp_path: Path) -> None:
    config = default_config("digits", **SETTINGS, options=OPTIONS)
    whole = train(config, tmp_path / "whole", pictures=False)
    folder = tmp_path / "killed"
    first = ["train", "digits", "--hidden", "8,8", "--epochs", "6", "--threads", "1"]
    first += ["--dropout", "0.2", "--set", "hold=1", "--out", str(folder)]
    moments = random.Random(1)
    for arguments in (first, *[["train", "--resume", str(folder)]] * 2):
        process = start(*arguments)
        wait_for_new_checkpoint(process, folder / "checkpoint.pt")
        time.sleep(moments.uniform(0.2, 0.7))
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL, "finished before the kill"
    assert load_run(folder).epoch < 6
    process = start("train", "--resume", str(folder))
    _, errors = process.communicate()
    assert process.returncode == 0, errors.decode()
    resumed = load_run(folder)
    assert resumed.epoch == 6
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, resumed.network.state_dict()[name]), name
    lines = [
        [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
        for path in (whole.path, folder)
    ]
    for a, b in zip(*lines, strict=True):
        assert a | {"seconds": 0} == b | {"seconds": 0}
    assert not list(folder.glob(".*"))


def test_interrupt_says_how_to_go_on(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    process = start("train", "--hidden", "8", "--epochs", "50", "--out", str(folder))
    wait_for_new_checkpoint(process, folder / "checkpoint.pt")
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    assert process.returncode == 130
    assert f"hetsyn train --resume {folder}" in errors.decode()
    assert load_run(folder).epoch < 50
