"""Three results of a run, by how the epoch was chosen, and the weights they are of."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from hetsyn_triton.experiments.cli.commands import run as cli
from hetsyn_triton.experiments.tasks import TASKS, Digits, PatternGeneration, task_class
from hetsyn_triton.experiments.training import (
    ConfigError,
    Run,
    TrainConfig,
    default_config,
    evaluate,
    load_run,
    resume,
    train,
)
from hetsyn_triton.experiments.training.selection import best_epoch, why_no_validation
from hetsyn_triton.experiments.training.trainer import Trainer
from tests.support.layer_cases import first_layer

Louder = Callable[..., TrainConfig]
# the last epoch is not the best
WILD = {"seed": 3, "lr": 0.05, "epochs": 5, "schedule": "constant", "warmup": 0.0}


def chosen(path: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((path / "summary.json").read_text())["selection"]
    return values


def measures(line: dict[str, Any], split: str) -> dict[str, float]:
    return {n.removeprefix(f"{split}_"): v for n, v in line.items() if n.startswith(f"{split}_")}


def test_best_epoch_by_hand() -> None:
    lines: list[dict[str, Any]] = [
        {"epoch": 1, "test_accuracy": 0.5, "test_loss": 3.0, "test_mse": 3.0},
        {"epoch": 2},
        {"epoch": 3, "test_accuracy": 0.7, "test_loss": 1.0, "test_mse": 1.0},
        {"epoch": 4, "test_accuracy": 0.7, "test_loss": 2.0, "test_mse": 1.0},
    ]
    assert best_epoch(Digits(), lines, "test") == 3  # the first of equals
    assert best_epoch(PatternGeneration(), lines, "test") == 3  # the smallest error
    assert best_epoch(Digits(), lines, "validation") is None

    class Unscored(Digits):
        score = None

    assert best_epoch(Unscored(), [*lines, {"epoch": 5, "test_loss": 0.5}], "test") == 5


@pytest.fixture
def run(louder: Louder, tmp_path: Path) -> Run:
    return train(louder(**WILD), tmp_path / "run", pictures=False)


def test_three_results(run: Run) -> None:
    found = chosen(run.path)
    accuracies = [line["validation_accuracy"] for line in run.history]
    best = 1 + accuracies.index(max(accuracies))
    assert best < 5  # else the test shows nothing
    assert found["last"] == {"epoch": 5, "test": evaluate(run)}
    assert found["validation"]["epoch"] == best
    line = run.history[best - 1]
    assert found["validation"]["validation"] == measures(line, "validation")
    assert found["validation"]["test"] == measures(line, "test")  # the weights of that epoch
    tests = [line["test_accuracy"] for line in run.history]
    assert found["test"]["epoch"] == 1 + tests.index(max(tests))
    assert found["test"]["of"] == 5
    assert found["test"]["test"]["accuracy"] == max(tests)


def test_weights_of_the_best_epoch(run: Run) -> None:
    last, best = load_run(run.path), load_run(run.path, weights="validation")
    found = chosen(run.path)["validation"]
    assert (last.epoch, best.epoch) == (5, found["epoch"])
    assert evaluate(best) == found["test"]
    assert evaluate(best, "validation") == found["validation"]
    assert not torch.equal(first_layer(last.network).weight, first_layer(best.network).weight)
    with pytest.raises(ConfigError, match="weights: expected one of last, validation, got 'test'"):
        load_run(run.path, weights="test")


def test_the_best_epoch_survives_an_interruption(
    run: Run, louder: Louder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hetsyn_triton.experiments.training.trainer.CHECKPOINT_SECONDS", 0.0)
    train_on = Trainer._train_on

    def interrupted(self: Trainer, batch: Any) -> None:
        if self.step == 5 * chosen(run.path)["validation"]["epoch"] + 2:
            raise KeyboardInterrupt
        train_on(self, batch)

    monkeypatch.setattr(Trainer, "_train_on", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(louder(**WILD), tmp_path / "parts", pictures=False)
    monkeypatch.setattr(Trainer, "_train_on", train_on)
    resume(tmp_path / "parts", pictures=False)
    assert chosen(tmp_path / "parts") == chosen(run.path)


@pytest.mark.parametrize(("every", "tested"), [(2, [2, 4]), (3, [3]), (0, []), (9, [])])
def test_how_often_the_test_is_measured(
    louder: Louder, tmp_path: Path, every: int, tested: list[int]
) -> None:
    run = train(louder(test_every=every), tmp_path / "run", pictures=every in (0, 2))
    assert [line["epoch"] for line in run.history if "test_loss" in line] == tested
    assert all("validation_loss" in line for line in run.history)
    found = chosen(run.path)
    assert found["last"]["test"] == evaluate(run)
    assert found["validation"]["test"] == evaluate(load_run(run.path, weights="validation"))
    assert (found["test"] or {"of": 0})["of"] == len(tested)


def test_nothing_held_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--hidden", "4", "--epochs", "2", "--threads", "1", "--set", "hold=1"]
    out = ["--set", "validation=0", "--set", "test_every=0", "--out", str(tmp_path / "run")]
    assert cli(["train", *small, *out]) == 0
    shown = capsys.readouterr().out
    rows = [line for line in shown.splitlines() if line.startswith(("│", "┃"))]
    assert rows
    assert not any("selected" in row for row in rows)
    why = (
        "No validation-selected result: no samples were held out of training. To hold samples out, "
        "use --set validation=N (N: 0 or a number from 0.01 to 0.7)"
    )
    assert why in shown.splitlines()
    assert json.loads((tmp_path / "run/summary.json").read_text())["no_validation"] == why
    assert "epoch 1/2: loss" in shown
    found = chosen(tmp_path / "run")
    assert (found["validation"], found["test"]) == (None, None)
    assert cli(["eval", str(tmp_path / "run"), "--weights", "validation"]) == 2
    assert (
        "weights: expected last because this run has no measurement on held-out samples"
        in capsys.readouterr().err
    )


def test_a_task_that_cannot_hold_out() -> None:
    """No setting is named that the task does not have."""
    why = why_no_validation(PatternGeneration(), {"validation": None})
    assert why == "No validation-selected result: no samples were held out of training"


def test_results_are_labelled(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--hidden", "4", "--epochs", "2", "--threads", "1", "--set", "hold=1"]
    assert cli(["train", *small, "--out", str(tmp_path / "run")]) == 0
    out = capsys.readouterr().out
    shown = " ".join(out.replace("│", " ").replace("┃", " ").split())
    for label in (
        "validation- test- measure last epoch selected selected",
        "epoch 2 ",
        "test-selected: the best of all test measurements (2)",
    ):
        assert label in shown
    assert "not a held-out result" in shown
    assert "No validation-selected result" not in shown
    assert json.loads((tmp_path / "run/summary.json").read_text())["no_validation"] is None
    assert cli(["eval", str(tmp_path / "run"), "--weights", "validation", "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    found = chosen(tmp_path / "run")["validation"]
    assert values["epoch"] == found["epoch"]
    assert {name: values[name] for name in found["test"]} == found["test"]


def test_other_options_at_test(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "run"
    config = default_config(
        "pattern-generation", hidden=(5,), epochs=1, options={"iterations": 1, "noise_hz": 2.0}
    )
    run = train(config, path, pictures=False)
    noisy = load_run(path, options={"noise_hz": 80.0})
    assert noisy.config.options == {**config.options, "noise_hz": 80.0}
    assert noisy.task.option["noise_hz"] == 80.0
    values = evaluate(noisy)
    assert values["rate_hz"] > 1.5 * evaluate(run)["rate_hz"]  # the same weights, more input
    assert evaluate(load_run(path, options={})) == evaluate(run)
    assert load_run(path).config == config  # the folder is as it was

    assert cli(["eval", str(path), "--set", "noise_hz=80", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert {name: shown[name] for name in values} == values
    assert shown["options"]["noise_hz"] == 80
    assert cli(["eval", str(path), "--set", "noise_hz=80"]) == 0
    assert "noise_hz=80" in capsys.readouterr().out
    for more, message in (
        (["noise_hz=-1"], "options.noise_hz: expected a number from 0 to 1000, got -1"),
        (["lr=1"], "options: expected one of noise_hz, iterations, curves for pattern-generation"),
        (["noise_hz"], "set: expected NAME=VALUE, got 'noise_hz'"),
        (["noise_hz=1", "noise_hz=2"], "set: expected noise_hz once"),
        (["curves=3"], "options: expected values with out_features 1 as in training, got 3"),
    ):
        given = [part for text in more for part in ("--set", text)]
        assert cli(["eval", str(path), *given]) == 2
        assert message in capsys.readouterr().err


def test_what_was_trained_on_is_not_held_out_afterwards(mnist_dir: Path, tmp_path: Path) -> None:
    """Options that say which samples are where are those of the training."""
    path, options = tmp_path / "run", {"validation": 4}
    config = default_config(
        "smnist", data_dir=str(mnist_dir), hidden=(2,), epochs=1, options=options
    )
    run = train(config, path, pictures=False)
    for name, value in (("validation", 8), ("limit", 20)):
        with pytest.raises(
            ConfigError,
            match=rf"options.{name}: expected [04] as in training because it decides which ",
        ):
            load_run(path, options={name: value})
    assert evaluate(load_run(path, options={"validation": 4, "limit": 0})) == evaluate(run)
    assert "speaker" in task_class("fsdd").split_options
    for name in TASKS:
        task = task_class(name)
        assert task.split_options >= {"validation", "limit", "speaker"} & task.options.keys(), name
