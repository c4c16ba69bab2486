"""The command line: what it runs, what it says, and its exit codes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from hetsyn_triton.cli import main
from hetsyn_triton.cli.commands import run

SMALL = ["--hidden", "8", "--epochs", "1", "--threads", "1", "--set", "hold=1"]


def test_train_and_eval(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["train", *SMALL, "--model", "hetneu", "--feedforward", "--set", "warmup=0.1"]) == 0
    folder = Path("runs") / "digits-hetneu-s0"
    shown = capsys.readouterr().out
    for part in ("epoch 1/1: loss", "validation loss", "accuracy", "parameters", str(folder)):
        assert part in shown
    config = json.loads((folder / "config.json").read_text())
    assert config["hidden"] == [8]
    assert config["recurrent"] is False
    assert config["warmup"] == 0.1
    assert config["options"]["hold"] == 1

    assert run(["eval", str(folder), "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    summary = json.loads((folder / "summary.json").read_text())
    assert {name: values[name] for name in summary["test"]} == summary["test"]
    assert run(["eval", str(folder), "--split", "validation"]) == 0
    assert "accuracy" in capsys.readouterr().out

    assert run(["train", "--resume", str(folder), "--lr", "1"]) == 2
    assert "expected no setting beside it but --data-dir" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "cifar"], "task: expected one of digits"),
        (["train", "--model", "lstm"], "model: expected one of hetsyn"),
        (["train", "--backend", "fast"], "backend: expected one of auto"),
        (["train", "--surrogate", "step"], "surrogate: expected one of triangular"),
        (["train", "--backend", "triton"], "'triton' cannot run"),
        (["train", "--hidden", "many"], "hidden: expected positive integers"),
        (["train", "--epochs", "0"], "epochs: expected a positive integer, got 0"),
        (["train", "--epochs", "some"], "'some' is not a valid integer"),
        (["train", "--set", "hold"], "set: expected NAME=VALUE"),
        (["train", "--set", "speed=9"], "settings: expected task, model"),
        (["train", "--out", "/dev/null/run"], "out: expected a folder that can be written"),
        (["train", "smnist", "--data-dir", "nowhere"], "data_dir: expected a folder, got nowhere"),
        (["train", "--resume", "nowhere"], "run: expected a run folder"),
        (["eval", "nowhere"], "run: expected a run folder"),
        (["dance"], "No such command"),
    ],
)
def test_bad_input(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(arguments) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.rglob("*"))  # nothing was begun


def test_info(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["info"]) == 0
    shown = capsys.readouterr().out
    for part in (
        "torch",
        "numba",
        "on cpu",
        "recurrent_scan_backward",
        "not the reference loop",
    ):
        assert part in shown


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["train", "--help"]) == 0
    assert "hetsyn|homneu|homneu-adaptive|hetneu" in capsys.readouterr().out


def test_without_the_train_extra(tmp_path: Path) -> None:
    program = (
        "import sys; sys.modules['click'] = sys.modules['rich'] = None\n"
        "from hetsyn_triton.cli import main\nmain()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == (
        "hetsyn: the command hetsyn needs click, rich: pip install 'hetsyn-triton[train]'\n"
    )


@pytest.mark.parametrize("blocked", ["matplotlib", "sklearn"])
def test_without_part_of_the_train_extra(
    blocked: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, blocked, None)
    monkeypatch.setattr(sys, "argv", ["hetsyn", "train"])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 1
    assert f"needs {blocked}: pip install 'hetsyn-triton[train]'" in capsys.readouterr().err
    assert not list(tmp_path.rglob("*"))
