"""The command line: what it runs, what it says, and its exit codes."""

import errno
import io
import json
import os
import re
import resource
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
import torch
from rich.console import Console

from hetsyn_triton.experiments.cli import main
from hetsyn_triton.experiments.cli.commands import cli, run
from hetsyn_triton.experiments.cli.configure import configured, notes
from hetsyn_triton.experiments.cli.progress import RichReporter
from hetsyn_triton.experiments.tasks import SPLITS, TASKS
from hetsyn_triton.experiments.tasks.audio.crossings import NORMALIZATIONS, SCALES
from hetsyn_triton.experiments.training import ConfigError, default_config, load_run
from hetsyn_triton.experiments.training.trainer import Trainer
from hetsyn_triton.modules import MODELS
from hetsyn_triton.ops.dispatch import BACKENDS
from hetsyn_triton.surrogates import SURROGATES

SMALL = ["--hidden", "8", "--epochs", "1", "--threads", "1", "--set", "hold=1"]


@pytest.mark.parametrize("seconds", [0.0, 3.5])
def test_compiling_is_told_where_there_was_some(
    seconds: float,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    so_far = iter((2.0, 2.0 + seconds))
    monkeypatch.setattr(
        "hetsyn_triton.experiments.training.runs.seconds_compiling", lambda: next(so_far)
    )
    assert run(["train", *SMALL, "--out", str(tmp_path / "run")]) == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["seconds_compiling"] == seconds
    told = "this process compiled CPU kernels for 3.5 s" in capsys.readouterr().out
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
    assert "resume: expected only --data-dir, --device, --threads with it" in told
    assert told.endswith("got --lr\n")
    assert run(["train", "--resume", str(folder), "--threads", "1", "--device", "cpu"]) == 0
    assert run(["train", "--resume", str(folder), "--threads", "0"]) == 2
    assert "threads: expected an integer from 1" in capsys.readouterr().err
    assert run(["train", "--resume", str(folder), "--device", "tpu"]) == 2
    assert "device: expected" in capsys.readouterr().err


def test_a_resumed_run_says_where_it_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("hetsyn_triton.experiments.training.trainer.CHECKPOINT_SECONDS", 0.0)
    train_on, folder = Trainer._train_on, str(tmp_path / "run")

    def interrupted(self: Trainer, batch: Any) -> None:
        if self.epoch == 1 and self.batch == 2:
            raise KeyboardInterrupt
        train_on(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_train_on", interrupted)
        assert run(["train", *SMALL, "--epochs", "2", "--out", folder]) == 130
    assert "Resuming" not in capsys.readouterr().out
    assert run(["train", "--resume", folder]) == 0
    steps = Trainer(load_run(folder).config).steps
    assert (
        f"Resuming after step {steps // 2 + 2} of {steps}, in epoch 2\n" in capsys.readouterr().out
    )
    assert run(["train", "--resume", folder]) == 0  # a complete run
    assert "Resuming" not in capsys.readouterr().out


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
        (["train", "--set", "hidden=[8, 0]"], "hidden: expected 1 to 1000 positive integers"),
        (["train", "--set", "hidden=[8.5]"], "hidden: expected 1 to 1000 positive integers"),
        (["train", "--set", "hold=0"], "options.hold: expected an integer from 1"),
        (
            ["train", "--set", "task=smnist"],
            "set: expected the task as an argument, as in",
        ),
        (["train", "--set", "options={}"], "set: expected settings of digits by name (hold=VAL"),
        (["train", "--set", "lr=1e-3", "--lr", "2"], "set: expected lr once"),
        (["train", "--set", "lr=1", "--set", "lr=2"], "set: expected lr once"),
        (["train", "--hidden", "8", "--set", "hidden=[8]"], "set: expected hidden once"),
        (["train", "--set", "hold=1", "--set", "hold=2"], "set: expected hold once"),
        (["train", "--threads", "100000"], "threads: expected at most"),
        (
            ["train", "--data-dir", "mnist"],
            "data_dir: expected no value because digits",
        ),
        (["train", "--data-dir", ""], "expected a folder's name, got ''"),
        (["train", "--out", ""], "expected a folder's name, got ''"),
        (["train", "--resume", ""], "expected a folder's name, got ''"),
        (["train", "--config", ""], "config: expected a JSON file, got '' ("),
        (["train", "--config", "nowhere"], "config: expected a JSON file, got 'nowhere' ("),
        (["train", "--resume", "nowhere", "--config", "f"], "run keeps its settings, got --config"),
        (["settings", "cifar"], "task: expected one of digits"),
        (["eval", ""], "expected a folder's name, got ''"),
        (["train", "--epochs", "0"], "epochs: expected a positive integer below 2^31, got 0"),
        (["train", "--epochs", "some"], "'some' is not a valid integer"),
        (["train", "--set", "hold"], "set: expected NAME=VALUE"),
        (["train", "--set", "speed=9"], "settings: expected one of task, model"),
        (["train", "--out", "/dev/null/run"], "out: expected a writable folder"),
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
        "on cpu with backend auto",
        "recurrent_scan_backward",
        "reference loop not used: ",
    ):
        assert part in shown


def help_of(
    command: str, width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> list[str]:
    """The lines of `hetsyn COMMAND --help` on a terminal of that width."""
    monkeypatch.setenv("COLUMNS", str(width))
    assert run([*command.split(), "--help"]) == 0
    return capsys.readouterr().out.splitlines()


def option_help(lines: list[str], option: str) -> str:
    """The help text of an option in one line."""
    (first,) = [n for n, line in enumerate(lines) if line.startswith(f"  {option} ")]
    column = len(lines[first]) - len(lines[first][2:].split("  ", 1)[1].lstrip())
    text = [lines[first][column:]]
    for line in lines[first + 1 :]:
        if line[:column].strip():
            break
        text.append(line[column:])
    return " ".join(text)


def named(text: str) -> list[str]:
    """The words after the first colon, which are names, without remarks in brackets."""
    names = re.sub(r" \([^)]*\)", "", text.partition(": ")[2]).partition(";")[0]
    return re.split(r",? or |, ", names.rstrip("."))


@pytest.mark.parametrize("width", [60, 80, 200])
def test_help_names_what_there_is(
    width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The names are written out there, so that help comes without PyTorch. None is broken."""
    lines = help_of("train", width, capsys, monkeypatch)
    for option, names in (
        ("--model", MODELS), ("--surrogate", SURROGATES), ("--backend", BACKENDS),
    ):  # fmt: skip
        assert named(option_help(lines, option)) == list(names)
    (tasks,) = re.findall(r"TASK is (.*?)\. ", " ".join(" ".join(lines).split()))
    assert named(f": {tasks}") == list(TASKS)
    lines = help_of("eval", width, capsys, monkeypatch)
    assert named(option_help(lines, "--split")) == list(SPLITS)
    lines = help_of("encode", width, capsys, monkeypatch)
    assert named(option_help(lines, "--scale")) == list(SCALES)
    (names,) = re.findall(r"NAME is (.*?)\. ", option_help(lines, "--normalization"))
    assert named(f": {names}") == list(NORMALIZATIONS)


COMMANDS = ["", "train", "eval", "encode", "study", "settings", "info"]


def test_every_command_is_in_the_list() -> None:
    assert sorted(cli.commands) == sorted(filter(None, COMMANDS))


@pytest.mark.parametrize("width", [60, 80])
@pytest.mark.parametrize("command", COMMANDS)
def test_help_fits_the_terminal(
    command: str, width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for line in help_of(command, width, capsys, monkeypatch):
        assert len(line) <= width, line


@pytest.mark.parametrize("width", [60, 80])
@pytest.mark.parametrize("command", ["", "train", "study"])
def test_help_has_three_examples_that_run(
    command: str, width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each on a line of its own; the names of options and studies in them exist."""
    lines = help_of(command, width, capsys, monkeypatch)
    start = lines.index("  Examples:")
    examples = lines[start + 1 : start + 4]
    assert all(line.startswith(f"    hetsyn {command}".rstrip()) for line in examples)
    assert lines[start + 4] == ""
    for line in examples:
        _, *words = line.split()
        chosen = cli.main(words, prog_name="hetsyn", standalone_mode=False)
        assert callable(chosen)  # click has accepted them; nothing has run yet


def sentences(text: str) -> list[str]:
    return re.split(r"(?<=[.;]) ", " ".join(text.replace("\b\n", "").split()))


def test_sentences_of_help_are_short() -> None:
    texts = [cli.help or ""]
    for command in cli.commands.values():
        texts += [command.help or "", command.short_help or ""]
        texts += [p.help or "" for p in command.params if isinstance(p, click.Option)]
    assert all(texts)
    for text in texts:
        for sentence in sentences(text.partition("Examples:")[0]):
            assert len(sentence.split()) <= 28, sentence


@pytest.mark.parametrize("width", [60, 80])
@pytest.mark.parametrize("task", ["digits", "pattern-generation"])
def test_columns_of_a_run_are_kept(
    task: str,
    width: int,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Tables of `train`, `eval` and `info` fit the terminal, with every measure and no ellipsis."""
    monkeypatch.setenv("COLUMNS", str(width))
    folder = str(tmp_path / "run")
    small = SMALL if task == "digits" else ["--hidden", "4", "--set", "iterations=1"]
    assert run(["train", task, *small, "--epochs", "1", "--out", folder]) == 0
    trained = capsys.readouterr().out
    assert run(["eval", folder]) == 0
    evaluated = capsys.readouterr().out
    for shown in (trained, evaluated):
        for line in shown.splitlines():
            assert "…" not in line
            assert len(line) <= width or line[0] not in "┏┃┡│└"
        for name in json.loads(Path(folder, "summary.json").read_text())["test"]:
            if (name, task) != ("rate", "pattern-generation"):  # it is shown as rate hz
                assert f"│ {name.replace('_', ' ')} " in shown
        assert shown.count("│ rate") == 1
    header = [line.split("┃")[1:-1] for line in trained.splitlines() if line[0] == "┃"]
    assert [" ".join(parts).split() for parts in zip(*header[:2], strict=True)] == [
        ["measure"], ["last", "epoch"], ["validation-", "selected"], ["test-", "selected"],
    ]  # fmt: skip
    assert [name.strip() for name in header[2]] == ["synapses", "before training", "after training"]
    summary = json.loads(Path(folder, "summary.json").read_text())
    for group, taus in summary["time_constant_quartiles"].items():
        values = [f"{value:.3g}" for when in ("before", "after") for value in taus[when]]
        line = next(line for line in trained.splitlines() if line.startswith(f"│ {group} "))
        assert re.findall(r"[\d.]+(?=[, ])", line.partition(group)[2]) == values
    assert run(["info"]) == 0
    assert all(len(line) <= width for line in capsys.readouterr().out.splitlines())


@pytest.mark.parametrize("width", [60, 80])
def test_the_progress_bar_fits_the_terminal(width: int) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, color_system=None, width=width)
    reporter, config = RichReporter(console), default_config("digits", epochs=150)
    reporter.started(config, Path("runs/digits"), 6000, 3000)
    test = {f"test_{name}": 0.5 for name in ("loss", "accuracy")}
    validation = {f"validation_{name}": 0.999 for name in ("loss", "accuracy")}
    reporter.epoch_ended({"epoch": 149, **test, **validation})
    reporter.stepped(149, 3001, {"loss": 12.34567, "accuracy": 1.0})
    assert reporter.bar is not None
    reporter.bar.refresh()
    shown = console.file.getvalue().splitlines()[-1]  # type: ignore[attr-defined]
    assert "epoch 150/150 ━" in shown
    assert "loss 12.3457, accuracy 100.0 %" in shown
    assert ("validation 99.9 %" in shown) == (width == 80)
    assert "…" not in shown
    reporter.close()


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["--version"], ["dance"]])
def test_help_loads_no_pytorch(arguments: list[str]) -> None:
    program = (
        "import sys; sys.modules['torch'] = sys.modules['numpy'] = None\n"
        "from hetsyn_triton.experiments.cli import main\nmain()"
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
                "learn_decay has no effect: homneu does not learn time constants",
                "frozen_fraction has no effect: homneu does not learn time constants",
            ],
        ),
        (["model=homneu-adaptive", "adaptation=0.1"], []),
        (
            ["adaptation=0.1"],
            ["adaptation has no effect: hetsyn does not adapt; only homneu-adaptive does"],
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
        "readout has no effect: pattern-generation has no class scores"
    ]


def test_a_note_does_not_stop_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["train", *SMALL, "--model", "homneu", "--set", "learn_decay=false"]) == 0
    shown = capsys.readouterr()
    assert shown.err == "hetsyn: learn_decay has no effect: homneu does not learn time constants\n"
    assert shown.out.count("in runs/digits-homneu-s0") == 1


def test_without_the_train_extra(tmp_path: Path) -> None:
    program = (
        "import sys; sys.modules['click'] = sys.modules['rich'] = None\n"
        "from hetsyn_triton.experiments.cli import main\nmain()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == (
        "hetsyn: the command hetsyn needs click, rich: run pip install -c constraints.txt -e "
        "'.[train]' in the checkout of hetsyn_triton\n"
    )


@pytest.mark.parametrize("blocked", ["matplotlib", "pydantic", "sklearn"])
def test_without_part_of_the_train_extra(
    blocked: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, blocked, None)
    monkeypatch.setattr(sys, "argv", ["hetsyn", "train"])
    monkeypatch.setattr(
        "hetsyn_triton.experiments.cli.interrupts.install", lambda: None
    )  # not in this process
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2
    said = capsys.readouterr().err
    assert f"needs {blocked}: run pip install -c constraints.txt -e '.[train]' in" in said
    assert not list(tmp_path.rglob("*"))


# -- errors of the system are one line, without a traceback ----------------------------------------

ERRORS: dict[str, tuple[BaseException, str]] = {
    "disk full": (OSError(errno.ENOSPC, "No space left on device", "a"), "a: No space left on"),
    "two files": (OSError(errno.EISDIR, "Is a directory", "a", None, "b"), "b: Is a directory"),
    "memory": (MemoryError(), "out of memory"),
    "memory of PyTorch": (
        RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes"),
        "out of memory: DefaultCPUAllocator: can't allocate memory: 9 bytes",
    ),
    "memory of a GPU": (torch.OutOfMemoryError("CUDA\nout of memory"), "out of memory: CUDA out"),
    "nested": (RecursionError("maximum recursion depth"), "the input is nested too deeply"),
    "long": (ConfigError("x" * 5000), "xxx ... xxx"),
}


@pytest.mark.parametrize("kind", ERRORS)
def test_errors_of_the_system(
    kind: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    error, line = ERRORS[kind]

    def fail(**given: Any) -> int:
        raise error

    monkeypatch.setattr("hetsyn_triton.experiments.cli.train.run", fail)
    assert run(["train"]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("hetsyn: ")
    assert line in told.err
    assert told.err.count("\n") == 1
    assert len(told.err) < 1100


def test_faults_of_the_program_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**given: Any) -> int:
        raise RuntimeError("a fault")

    monkeypatch.setattr("hetsyn_triton.experiments.cli.train.run", fail)
    with pytest.raises(RuntimeError, match="a fault"):
        run(["train"])


def command(*arguments: str, **options: Any) -> "subprocess.CompletedProcess[str]":
    """`hetsyn` as a program, by a shell that may bend its output."""
    program = shlex.join([sys.executable, "-m", "hetsyn_triton", *arguments])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(
        ["bash", "-c", f"set -o pipefail; {program} {options.pop('then', '')}"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**environment, **options.pop("env", {})},
        **options,
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_an_output_that_cannot_be_written() -> None:
    done = command("info", then="> /dev/full")
    assert (done.returncode, done.stderr) == (2, "hetsyn: output: No space left on device\n")
    done = command("info", then="| true")
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, "")


@pytest.mark.slow
def test_a_terminal_that_knows_no_umlauts(tmp_path: Path) -> None:
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}
    (tmp_path / "ümlaut").mkdir()
    done = command("train", *SMALL, "--out", "ümlaut/run", cwd=tmp_path, env=ascii_only)
    assert (done.returncode, done.stderr) == (0, "")
    assert "mlaut/run" in done.stdout
    assert (tmp_path / "ümlaut" / "run" / "summary.json").exists()


@pytest.mark.full
def test_a_file_that_grows_too_large(tmp_path: Path) -> None:
    """The summary is there before the first picture; nothing is half-written."""
    done = command("train", *SMALL, "--out", "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    largest = (tmp_path / "run" / "checkpoint.pt").stat().st_size
    pictures = {p.name for p in (tmp_path / "run").glob("*.png") if p.stat().st_size > largest}
    assert pictures
    limit = resource.RLIMIT_FSIZE, (largest + 512, largest + 512)
    done = command(
        "train",
        *SMALL,
        "--out",
        "less",
        cwd=tmp_path,
        preexec_fn=lambda: resource.setrlimit(*limit),
    )
    assert done.returncode == 2
    assert re.fullmatch(r"hetsyn: less/\w+\.png: File too large\n", done.stderr)
    left = {p.name for p in (tmp_path / "less").iterdir()}
    assert "summary.json" in left
    assert not left & pictures


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"dt": 1e308}, "dt: expected a positive number of at most 1e30, got 1e+308"),
        ({"hidden": [4] * 100_000}, "hidden: expected 1 to 1000 positive integers below 2^31"),
        ({"hidden": [600_000]}, "GB of memory, got one that needs 11,5"),
        ({"model": "x" * 5_000_000}, "model: expected one of hetsyn"),
        ({"task": ""}, "task: expected one of digits"),
    ],
    ids=["dt", "layers", "memory", "name", "task"],
)
def test_settings_that_cannot_work(
    change: dict[str, Any], expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "settings.json"
    file.write_text(json.dumps(change))
    assert run(["train", "--config", str(file), "--out", str(tmp_path / "run")]) == 2
    told = capsys.readouterr()
    assert expected in told.err
    assert told.err.count("\n") == 1
    assert len(told.err) < 1100
    assert not (tmp_path / "run").exists()


def test_what_is_no_regular_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A pipe may never end, and a device never does."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    deep = tmp_path / "deep.json"
    deep.write_text("[" * 200_000)
    for file, reason in (
        (pipe, "expected a regular file"),
        (Path("/dev/zero"), "expected a regular file"),
        (tmp_path, "Is a directory"),
        (deep, "it is nested too deeply"),
    ):
        assert run(["train", "--config", str(file)]) == 2
        told = capsys.readouterr().err
        assert told.startswith("hetsyn: config: expected a JSON file, got")
        assert reason in told
    folder = tmp_path / "run"
    assert run(["train", *SMALL, "--out", str(folder)]) == 0
    capsys.readouterr()
    for name, said in (("checkpoint.pt", "regular file"), ("config.json", "run folder that")):
        (folder / name).unlink()
        os.mkfifo(folder / name)
        assert run(["eval", str(folder)]) == 2
        assert said in capsys.readouterr().err
