"""What docs/training.md shows is what runs."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch

from hetsyn_triton.experiments.cli import train as command
from hetsyn_triton.experiments.cli.commands import run
from hetsyn_triton.experiments.tasks import TASKS
from hetsyn_triton.experiments.training import (
    default_config,
    evaluate,
    field_types,
    load_run,
    train,
)

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/training.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE)


def execute(code: str) -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": "page"}
    exec(compile(code, "docs/training.md", "exec"), names)
    return names


def test_the_functions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = execute(blocks("python")[0])
    assert names["decays"].shape == (16, 8)
    for path in names["run"].path.iterdir():
        assert path.name.startswith(".") or f"`{path.name}`" in PAGE


def test_a_task_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(TASKS, "which-first", raising=False)
    code = blocks("python")[1]
    assert len([line for line in code.splitlines() if line.strip()]) < 40
    trained = execute(code)["run"]
    assert evaluate(load_run(trained.path))["accuracy"] > 0.9
    with pytest.raises(ValueError, match=r"options.length: expected an integer from 2 to 1000"):
        default_config("which-first", options={"length": 1})
    del TASKS["which-first"]  # for good: monkeypatch would put it back


def test_a_loop_of_ones_own() -> None:
    names = execute(blocks("python")[2])
    assert names["step"].steps == 5
    assert names["measures"]["loss"] > 0


@pytest.mark.full
@pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning")  # inductor's own
def test_a_compiled_network() -> None:
    """With the network of the block before (needs a C++ compiler)."""
    torch._dynamo.reset()
    names = execute("".join(blocks("python")[2:4]))
    assert names["output"].shape == (25, 32, 10)
    torch._dynamo.reset()


def test_the_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each line is accepted, as far as the moment training would begin."""
    monkeypatch.chdir(tmp_path)
    begun: list[str] = []
    monkeypatch.setattr(command, "train", lambda config, *_, **__: begun.append(config.task))
    for line in blocks("bash")[0].splitlines():
        assert run(shlex.split(line, comments=True)[1:]) == 0
    assert begun == [
        *("digits", "multi-timescale-xor", "pattern-generation", "delayed-match", "smnist"),
        *("idx", "digits"),
    ]


def test_resume_and_evaluate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each line runs, on a run in the folder that the page names."""
    monkeypatch.chdir(tmp_path)
    small = default_config("digits", epochs=1, hidden=(8,), options={"hold": 1})
    train(small, "runs/digits-hetsyn-s0", pictures=False)
    (block,) = [code for code in blocks("bash") if "--resume" in code]
    for line in block.splitlines():
        assert run(shlex.split(line)[1:]) == 0


def test_the_commands_for_several_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What torchrun is given is accepted; that it trains is in test_training_parallel.py."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(field_types, "_device_is_here", lambda device: True)
    begun: list[str] = []
    monkeypatch.setattr(command, "train", lambda config, *_, **__: begun.append(config.task))
    (block,) = [code for code in blocks("bash") if code.startswith("torchrun ")]
    for line in block.splitlines():
        launched, _, arguments = line.partition(" -m hetsyn_triton ")
        assert launched == "torchrun --nproc-per-node 2"
        assert run(shlex.split(arguments)) == 0
    assert begun == ["digits", "shd"]


def test_tasks_that_hold_nothing_out_are_named() -> None:
    (sentence,) = re.findall(r"By default (.*?) hold nothing out", PAGE, flags=re.DOTALL)
    names = re.findall(r"`([\w-]+)`", sentence)
    assert names == [
        name
        for name, task in TASKS.items()
        if "validation" in task.options and not task.options["validation"].default
    ]


def test_settings_and_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each line is accepted, with the example of a file."""
    monkeypatch.chdir(tmp_path)
    (example,) = re.findall(r"such as `(\{.*?\})`", PAGE)
    Path("settings.json").write_text(example)
    begun: list[Any] = []
    monkeypatch.setattr(command, "train", lambda config, *_, **__: begun.append(config))
    for line in blocks("bash")[1].splitlines():
        assert run(shlex.split(line, comments=True)[1:]) == 0
    (config,) = begun
    assert (config.task, config.options["hold"], config.lr) == ("digits", 5, 2e-3)
