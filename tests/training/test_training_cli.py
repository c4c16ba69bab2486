"""The command line: what it runs, what it says, and its exit codes."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hetsyn_triton.cli import main
from hetsyn_triton.cli.commands import run
from hetsyn_triton.cli.settings import configured, notes
from hetsyn_triton.modules import MODELS
from hetsyn_triton.ops.backends import BACKENDS
from hetsyn_triton.surrogates import SURROGATES
from hetsyn_triton.tasks import SPLITS, TASKS
from hetsyn_triton.training import load_run
from hetsyn_triton.training.trainer import Trainer

SMALL = ["--hidden", "8", "--epochs", "1", "--threads", "1", "--set", "hold=1"]


@pytest.mark.parametrize("seconds", [0.0, 3.5])
def test_compiling_is_told_where_there_was_some(
    seconds: float,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    so_far = iter((2.0, 2.0 + seconds))
    monkeypatch.setattr("hetsyn_triton.training.runs.seconds_compiling", lambda: next(so_far))
    assert run(["train", *SMALL, "--out", str(tmp_path / "run")]) == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["seconds_compiling"] == seconds
    told = "compiling CPU kernels took 3.5 s of this process" in capsys.readouterr().out
    assert told == (seconds > 0)


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
    told = capsys.readouterr().err
    assert "resume: expected no setting beside it but --data-dir, --device, --threads" in told
    assert told.endswith("got --lr\n")
    assert run(["train", "--resume", str(folder), "--threads", "1", "--device", "cpu"]) == 0
    assert run(["train", "--resume", str(folder), "--threads", "0"]) == 2
    assert "threads: expected an integer from 1" in capsys.readouterr().err
    assert run(["train", "--resume", str(folder), "--device", "tpu"]) == 2
    assert "device: expected" in capsys.readouterr().err


def test_a_resumed_run_says_where_it_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("hetsyn_triton.training.trainer.CHECKPOINT_SECONDS", 0.0)
    train_on, folder = Trainer._train_on, str(tmp_path / "run")

    def interrupted(self: Trainer, batch: Any) -> None:
        if self.epoch == 1 and self.batch == 2:
            raise KeyboardInterrupt
        train_on(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_train_on", interrupted)
        assert run(["train", *SMALL, "--epochs", "2", "--out", folder]) == 130
    assert "Going on" not in capsys.readouterr().out
    assert run(["train", "--resume", folder]) == 0
    steps = Trainer(load_run(folder).config).steps
    assert (
        f"Going on after step {steps // 2 + 2} of {steps}, in epoch 2\n" in capsys.readouterr().out
    )
    assert run(["train", "--resume", folder]) == 0  # a complete run
    assert "Going on" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "cifar"], "task: expected one of digits"),
        (["train", "--model", "lstm"], "model: expected one of hetsyn"),
        (["train", "--backend", "fast"], "backend: expected one of auto"),
        (["train", "--surrogate", "step"], "surrogate: expected one of triangular"),
        (["train", "--backend", "triton"], "'triton' cannot run"),
        (["train", "--hidden", "many"], "hidden: expected positive integers"),
        (["train", "--hidden", "8,"], "hidden: expected positive integers"),
        (["train", "--set", "hidden=[8, 0]"], "hidden: expected one or more positive integers"),
        (["train", "--set", "hidden=[8.5]"], "hidden: expected one or more positive integers"),
        (["train", "--set", "hold=0"], "options.hold: expected an integer from 1"),
        (["train", "--set", "task=smnist"], "set: expected the task as in hetsyn train smnist"),
        (["train", "--set", "options={}"], "set: expected digits's own settings by name, hold=VAL"),
        (["train", "--set", "lr=1e-3", "--lr", "2"], "set: expected lr once"),
        (["train", "--set", "lr=1", "--set", "lr=2"], "set: expected lr once"),
        (["train", "--hidden", "8", "--set", "hidden=[8]"], "set: expected hidden once"),
        (["train", "--set", "hold=1", "--set", "hold=2"], "set: expected hold once"),
        (["train", "--threads", "100000"], "threads: expected at most"),
        (["train", "--data-dir", "mnist"], "data_dir: expected none, for digits reads no files"),
        (["train", "--data-dir", ""], "expected a folder's name, got ''"),
        (["train", "--out", ""], "expected a folder's name, got ''"),
        (["train", "--resume", ""], "expected a folder's name, got ''"),
        (["eval", ""], "expected a folder's name, got ''"),
        (["train", "--epochs", "0"], "epochs: expected a positive integer below 2^31, got 0"),
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


def test_help_names_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    """The names are written out there, so that help comes without PyTorch."""
    assert run(["train", "--help"]) == 0
    shown = "".join(capsys.readouterr().out.split())
    for names in (MODELS, SURROGATES, BACKENDS):
        assert "|".join(names) in shown
    for task in TASKS:
        assert task in shown
    assert run(["eval", "--help"]) == 0
    assert "|".join(SPLITS) in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["--version"], ["dance"]])
def test_help_loads_no_pytorch(arguments: list[str]) -> None:
    program = (
        "import sys; sys.modules['torch'] = sys.modules['numpy'] = None\n"
        "from hetsyn_triton.cli import main\nmain()"
    )
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True)
    assert done.returncode == (2 if arguments == ["dance"] else 0), done.stderr


@pytest.mark.parametrize("hidden", ["8,4", "[8, 4]", " [8,4]", "8, 4"])
def test_hidden_sizes_in_both_forms(hidden: str) -> None:
    for given, more in (({"hidden": hidden}, ()), ({}, (f"hidden={hidden}",))):
        config, names = configured("digits", given, more)
        assert config.hidden == (8, 4)
        assert names == ["hidden"]


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (["model=hetsyn", "frozen_fraction=0.5", "decay_lr=0.1", "hold=1"], []),
        (
            ["model=homneu", "learn_decay=false", "frozen_fraction=0.5", "tau=5"],
            [
                "learn_decay has no effect: homneu learns no time constants",
                "frozen_fraction has no effect: homneu learns no time constants",
            ],
        ),
        (["model=homneu-adaptive", "adaptation=0.1"], []),
        (
            ["adaptation=0.1"],
            ["adaptation has no effect: hetsyn does not adapt, homneu-adaptive does"],
        ),
        (
            ["learn_decay=false", "decay_lr=0.1"],
            ["decay_lr has no effect: learn_decay is false"],
        ),
        (["step_every=5"], ["step_every has no effect: the schedule is cosine"]),
        (["step_every=5", "schedule=step"], []),
        (["readout=mean"], []),
    ],
)
def test_settings_without_effect_are_told(more: list[str], expected: list[str]) -> None:
    """One set of settings serves all models; what changes nothing is named, not refused."""
    assert list(notes(*configured("digits", {}, tuple(more)))) == expected


def test_readout_without_classes_is_told() -> None:
    assert list(notes(*configured("pattern-generation", {}, ("readout=last",)))) == [
        "readout has no effect: pattern-generation makes no class scores with it"
    ]


def test_a_note_does_not_stop_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["train", *SMALL, "--model", "homneu", "--set", "learn_decay=false"]) == 0
    shown = capsys.readouterr()
    assert shown.err == "hetsyn: learn_decay has no effect: homneu learns no time constants\n"
    assert shown.out.count("into runs/digits-homneu-s0") == 1


def test_without_the_train_extra(tmp_path: Path) -> None:
    program = (
        "import sys; sys.modules['click'] = sys.modules['rich'] = None\n"
        "from hetsyn_triton.cli import main\nmain()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 2
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
    monkeypatch.setattr("hetsyn_triton.cli.interrupts.install", lambda: None)  # not in this process
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2
    assert f"needs {blocked}: pip install 'hetsyn-triton[train]'" in capsys.readouterr().err
    assert not list(tmp_path.rglob("*"))
