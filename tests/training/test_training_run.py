"""A run: its folder, its repetition bit for bit, its errors before and during work."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from hetsyn_triton.training import (
    CheckpointError,
    ConfigError,
    NonFiniteError,
    RunFolderError,
    TrainConfig,
    default_config,
    evaluate,
    load_run,
    resume,
    train,
)
from hetsyn_triton.training.folder import free_folder
from hetsyn_triton.training.trainer import Trainer

Louder = Callable[..., TrainConfig]


def untimed(path: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl without the seconds."""
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "seconds"} for line in lines]


def assert_same_weights(a: torch.nn.Module, b: torch.nn.Module) -> None:
    for (name, value), other in zip(a.state_dict().items(), b.state_dict().values(), strict=True):
        assert torch.equal(value, other), name


def test_run_folder_and_loading(louder: Louder, tmp_path: Path) -> None:
    run = train(louder(), tmp_path / "run")
    names = {path.name for path in run.path.iterdir()}
    assert names == {
        "config.json",
        "metrics.jsonl",
        "summary.json",
        "checkpoint.pt",
        "learning_curve.png",
        "sample.png",
        "time_constants.png",
    }
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in run.path.glob("*.png"))
    lines = untimed(run.path)
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4]
    assert lines[-1]["train_loss"] < lines[0]["train_loss"]
    summary = json.loads((run.path / "summary.json").read_text())
    assert summary["epochs"] == 4
    assert summary["environment"]["torch"] == torch.__version__
    loaded = load_run(run.path)
    assert loaded.config == run.config
    assert loaded.epoch == 4
    assert_same_weights(loaded.network, run.network)
    assert evaluate(loaded) == evaluate(run.path) == summary["test"]
    assert evaluate(loaded, "validation")["accuracy"] > 0.5


def test_repeats_bit_for_bit(louder: Louder, tmp_path: Path) -> None:
    config = louder(hidden=(6, 6), dropout=0.3)
    torch.manual_seed(1)
    first = train(config, tmp_path / "a", pictures=False)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    second = train(config, tmp_path / "b", pictures=False)
    assert torch.equal(torch.get_rng_state(), state)  # the caller's generator is left alone
    assert_same_weights(first.network, second.network)
    assert untimed(first.path) == untimed(second.path)
    other = train(louder(hidden=(6, 6), dropout=0.3, seed=1), tmp_path / "c", pictures=False)
    assert not torch.equal(other.network.layers[0].weight, first.network.layers[0].weight)


@pytest.mark.parametrize("model", ["homneu", "hetneu"])
@pytest.mark.parametrize("changes", [{}, {"decay_parametrization": "sigmoid", "recurrent": False}])
def test_pictures_of_other_models(
    louder: Louder, tmp_path: Path, model: str, changes: dict[str, Any]
) -> None:
    train(louder(model=model, epochs=1, **changes), tmp_path / "run")
    assert (tmp_path / "run" / "time_constants.png").exists()


def test_pictures_of_a_long_sample(tmp_path: Path) -> None:
    config = default_config(
        "pattern-generation", hidden=(5,), epochs=1, model="homneu", options={"iterations": 1}
    )
    run = train(config, tmp_path / "run")
    assert {"mse", "distance", "rate_hz"} <= evaluate(run).keys()


def test_resume_repeats_an_interrupted_epoch(
    louder: Louder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted between any two batches, a run ends as if it never was."""
    monkeypatch.setattr("hetsyn_triton.training.trainer.CHECKPOINT_SECONDS", 0.0)
    config = louder(dropout=0.3, hidden=(6, 6))
    whole = train(config, tmp_path / "whole", pictures=False)
    train_on = Trainer._train_on
    count = 0

    def interrupted(self: Trainer, batch: Any) -> None:
        nonlocal count
        count += 1
        if count % 7 == 0:
            raise KeyboardInterrupt
        train_on(self, batch)

    monkeypatch.setattr(Trainer, "_train_on", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "parts", pictures=False)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            resume(tmp_path / "parts", pictures=False)
    parts = resume(tmp_path / "parts", pictures=False)
    assert_same_weights(whole.network, parts.network)
    assert untimed(whole.path) == untimed(parts.path)
    again = resume(tmp_path / "parts", pictures=False)  # a complete run stays as it is
    assert_same_weights(whole.network, again.network)


def test_metrics_follow_the_checkpoint(louder: Louder, tmp_path: Path) -> None:
    run = train(louder(), tmp_path / "run", pictures=False)
    lines = untimed(run.path)
    with open(run.path / "metrics.jsonl", "a") as file:
        file.write('{"epoch": 5, "tra')  # what a kill in the middle of writing leaves
    resume(run.path, pictures=False)
    assert untimed(run.path) == lines


def test_default_folder(louder: Louder, tmp_path: Path) -> None:
    config = louder()
    assert free_folder(config, tmp_path).name == "louder-hetsyn-s0"
    (tmp_path / "louder-hetsyn-s0").mkdir()
    (tmp_path / "louder-hetsyn-s0-2").mkdir()
    assert free_folder(config, tmp_path).name == "louder-hetsyn-s0-3"


def test_bad_run_folder(louder: Louder, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("")
    with pytest.raises(RunFolderError, match=r"out: expected an empty or new folder, got .*full"):
        train(louder(), tmp_path / "full")
    for out in (tmp_path / "full" / "thesis.tex", tmp_path / "full" / "thesis.tex" / "run"):
        with pytest.raises(RunFolderError, match="out: expected a folder that can be written"):
            train(louder(), out)
    with pytest.raises(RunFolderError, match=r"run: expected a run folder, with config.json"):
        load_run(tmp_path)
    with pytest.raises(RunFolderError, match="run: expected a run folder"):
        resume(tmp_path / "full")


def test_unwritable_folder(louder: Louder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")  # root may write anywhere: stand in

    monkeypatch.setattr("tempfile.TemporaryFile", refused)
    with pytest.raises(RunFolderError, match=r"can be written, got .*run: Permission denied"):
        train(louder(), tmp_path / "run")


def test_nothing_is_left_of_a_run_that_cannot_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="triton"):
        train(default_config("digits", backend="triton"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_evaluate_names_the_splits(louder: Louder, tmp_path: Path) -> None:
    run = train(louder(epochs=1), tmp_path / "run", pictures=False)
    with pytest.raises(ConfigError, match=r"split: expected one of train, .*got 'exam'"):
        evaluate(run, "exam")


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_non_finite_stops_the_run(
    louder: Louder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    loss = type(Trainer(louder()).task).loss

    def spoilt(self: Any, output: torch.Tensor, spikes: Any, target: torch.Tensor) -> torch.Tensor:
        value = loss(self, output, spikes, target)
        self.calls = getattr(self, "calls", 0) + 1
        if not torch.is_grad_enabled() or self.calls < 9:
            return value
        # sqrt has a finite value and an infinite slope at 0
        return value * math.nan if what == "loss" else value + (output.sum() * 0).abs().sqrt()

    monkeypatch.setattr(type(Trainer(louder()).task), "loss", spoilt)
    named = "the loss is nan" if what == "loss" else r"the gradient of \S+ is not finite"
    with pytest.raises(NonFiniteError, match=rf"{named} at step \d+ \(epoch \d, batch \d\)"):
        train(louder(), tmp_path / "run", pictures=False)
    assert load_run(tmp_path / "run").epoch >= 1


def test_truncated_checkpoint(louder: Louder, tmp_path: Path) -> None:
    run = train(louder(epochs=1), tmp_path / "run", pictures=False)
    path = run.path / "checkpoint.pt"
    content = path.read_bytes()
    for length in (0, 10, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(CheckpointError, match=r"checkpoint.pt is truncated or no checkpoint"):
            load_run(run.path)
        with pytest.raises(CheckpointError, match="truncated"):
            resume(run.path)
    path.unlink()
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        load_run(run.path)
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        resume(run.path)


def test_checkpoint_that_would_run_code(louder: Louder, tmp_path: Path) -> None:
    run = train(louder(epochs=1), tmp_path / "run", pictures=False)
    torch.save({"format": 1, "model": Path("x")}, run.path / "checkpoint.pt")
    with pytest.raises(CheckpointError, match="no checkpoint"):
        load_run(run.path)
    torch.save({"format": 99}, run.path / "checkpoint.pt")
    with pytest.raises(CheckpointError, match="expected a checkpoint of format 1, got 99"):
        load_run(run.path)


def test_checkpoint_of_another_architecture(louder: Louder, tmp_path: Path) -> None:
    small = train(louder(epochs=1), tmp_path / "small", pictures=False)
    big = train(louder(epochs=1, hidden=(20,)), tmp_path / "big", pictures=False)
    (small.path / "checkpoint.pt").write_bytes((big.path / "checkpoint.pt").read_bytes())
    for read in (load_run, resume):
        with pytest.raises(
            CheckpointError, match=r"another run: hidden is \[20\] in the checkpoint and \[12\]"
        ):
            read(small.path)
    content = torch.load(big.path / "checkpoint.pt", weights_only=True)
    content["config"] = small.config.to_json()
    torch.save(content, small.path / "checkpoint.pt")
    with pytest.raises(
        CheckpointError,
        match=r"another architecture: .*\(20, 20\) in .* and \(12, 12\) in",
    ):
        load_run(small.path)
