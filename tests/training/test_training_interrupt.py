"""Ctrl-C at any moment: one line, exit code 130, no traceback."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hetsyn_triton.experiments.cli import interrupts
from hetsyn_triton.experiments.cli.commands import run

# The command with a real SIGINT when a module of that name is about to be imported.
AT_IMPORT = """
import os, signal, sys
def hook(event, arguments):
    global moment
    if event == "import" and arguments[0] == moment:
        moment = None
        os.kill(os.getpid(), signal.SIGINT)
moment = sys.argv.pop(1)
sys.addaudithook(hook)
from hetsyn_triton.experiments.cli import main
main()
"""
TIMED = """
from hetsyn_triton.experiments.cli import main
import hetsyn_triton.experiments.cli.interrupts as interrupts
interrupts.install()
print("ready", flush=True)
main()
"""


def start(program: str, folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


@pytest.mark.parametrize(
    "moment",
    [
        "hetsyn_triton.experiments.extras",
        "click",
        "hetsyn_triton.experiments.cli.commands",
        "torch",
        "torch.nn",
        "torch.library",
        "hetsyn_triton.experiments.training",
        "rich.console",
    ],
)
def test_while_loading(moment: str, tmp_path: Path) -> None:
    process = start(AT_IMPORT, tmp_path, moment, "train", "--epochs", "1")
    out, error = process.communicate(timeout=120)
    assert (process.returncode, out, error) == (130, "", "Stopped.\n")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("moment", ["sklearn.datasets", "sklearn.utils._tags"])
def test_while_building(moment: str, tmp_path: Path) -> None:
    """The folder is named before and after, and nothing is in it."""
    process = start(AT_IMPORT, tmp_path, moment, "train", "--epochs", "1")
    out, error = process.communicate(timeout=120)
    assert process.returncode == 130, out + error
    assert out.endswith("in runs/digits-hetsyn-s0\n")
    assert error == "Stopped. No step was trained. To start again, repeat the command.\n"
    assert not list(tmp_path.rglob("config.json"))


@pytest.mark.parametrize("command", [["eval", "nowhere"], ["info"]])
def test_other_commands(command: list[str], tmp_path: Path) -> None:
    process = start(AT_IMPORT, tmp_path, "torch.nn.modules.linear", *command)
    out, error = process.communicate(timeout=120)
    assert (process.returncode, out, error) == (130, "", "Stopped.\n")


@pytest.mark.full
def test_at_many_moments(tmp_path: Path) -> None:
    moments = random.Random(0)
    for number in range(24):
        folder = tmp_path / str(number)
        folder.mkdir()
        process = start(TIMED, folder, "train", "--epochs", "500", "--set", "hold=1")
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(moments.uniform(0, 8))
        process.send_signal(signal.SIGINT)
        out, error = process.communicate(timeout=120)
        assert process.returncode == 130, out + error
        assert error.startswith("Stopped.")
        assert error.count("\n") == 1
        begun = list(folder.rglob("checkpoint.pt"))
        assert ("hetsyn train --resume" in error) == bool(begun)


def test_a_swallowed_interrupt_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """A library may answer Ctrl-C with another error, or with none."""
    monkeypatch.setattr(interrupts._now, "asked", False)
    monkeypatch.setattr(interrupts._now, "loading", False)
    interrupts.raise_if_asked()
    assert not interrupts.is_interrupt(RecursionError())
    with pytest.raises(KeyboardInterrupt):
        interrupts._on_interrupt(signal.SIGINT, None)
    assert interrupts.is_interrupt(RecursionError())
    with pytest.raises(KeyboardInterrupt):
        interrupts.raise_if_asked()


def test_the_next_command_begins_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a process that runs several, an interrupt ends the one it was meant for."""
    monkeypatch.setattr(interrupts._now, "asked", True)
    small = ["--hidden", "4", "--epochs", "1", "--set", "hold=1", "--threads", "1"]
    assert run(["train", *small, "--out", str(tmp_path / "run")]) == 0
