"""A run: its folder, its repetition bit for bit, its errors before and during work."""

import json
import math
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from hetsyn_triton.experiments.cli.commands import run as cli
from hetsyn_triton.experiments.tasks import task_class
from hetsyn_triton.experiments.training import (
    ConfigError,
    NonFiniteError,
    Reporter,
    Run,
    RunFolderError,
    TrainConfig,
    default_config,
    evaluate,
    load_run,
    resume,
    train,
)
from hetsyn_triton.experiments.training.checkpoint import read_checkpoint
from hetsyn_triton.experiments.training.measure import Means, measure_split, metrics_of
from hetsyn_triton.experiments.training.run_folder import free_folder
from hetsyn_triton.experiments.training.trainer import Trainer
from tests.support.layer_cases import first_layer

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
    assert summary["test_samples"] == 5 * 8
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
    assert not torch.equal(first_layer(other.network).weight, first_layer(first.network).weight)


def test_dropout_differs_from_step_to_step(
    louder: Louder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And is the same in a resumed run, which test_resume_repeats_an_interrupted_epoch shows."""
    masks: list[torch.Tensor] = []
    train_on = Trainer._train_on

    def noted(self: Trainer, batch: Any) -> None:
        train_on(self, batch)
        # The generator has gone on from the step's seed by as many numbers as in every step.
        masks.append(torch.rand(8))

    monkeypatch.setattr(Trainer, "_train_on", noted)
    train(louder(hidden=(6, 6), dropout=0.3), tmp_path / "run", pictures=False)
    assert len(masks) > 4
    assert len({tuple(mask.tolist()) for mask in masks}) == len(masks)


def test_the_checkpoint_is_written_before_the_metrics(
    louder: Louder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An epoch in metrics.jsonl is never trained again: killed between both, a run starts from the
    checkpoint and writes its history anew."""

    def stopped(path: Path, record: dict[str, Any]) -> None:
        raise KeyboardInterrupt

    place = "hetsyn_triton.experiments.training.trainer.append_json_line"
    with monkeypatch.context() as patch:
        patch.setattr(place, stopped)
        with pytest.raises(KeyboardInterrupt):
            train(louder(), tmp_path / "run", pictures=False)
    checkpoint = read_checkpoint(tmp_path / "run" / "checkpoint.pt", torch.device("cpu"))
    assert checkpoint.epoch == len(checkpoint.history) == 1
    assert untimed(tmp_path / "run") == []
    whole = train(louder(), tmp_path / "whole", pictures=False)
    resumed = resume(tmp_path / "run", pictures=False)
    assert untimed(resumed.path) == untimed(whole.path)


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
    monkeypatch.setattr("hetsyn_triton.experiments.training.trainer.CHECKPOINT_SECONDS", 0.0)
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


def test_an_interrupted_epoch_keeps_its_seconds(
    louder: Louder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock that is a second further at each look, the first epoch, interrupted twice, takes
    as long as the others."""
    clock = SimpleNamespace(monotonic=partial(next, count(0.0)))
    monkeypatch.setattr("hetsyn_triton.experiments.training.trainer.time", clock)
    monkeypatch.setattr("hetsyn_triton.experiments.training.trainer.CHECKPOINT_SECONDS", 0.0)
    train_on, batches = Trainer._train_on, 0

    def interrupted(self: Trainer, batch: Any) -> None:
        nonlocal batches
        batches += 1
        if batches in (3, 5):
            raise KeyboardInterrupt
        train_on(self, batch)

    monkeypatch.setattr(Trainer, "_train_on", interrupted)
    folder, places = tmp_path / "run", []
    calls: list[Callable[[], Run]] = [
        lambda: train(louder(), folder, pictures=False),
        lambda: resume(folder, pictures=False),
    ]
    for go_on in calls:
        with pytest.raises(KeyboardInterrupt):
            go_on()
        checkpoint = read_checkpoint(folder / "checkpoint.pt", torch.device("cpu"))
        places.append((checkpoint.epoch, checkpoint.batch, checkpoint.seconds))
    assert places == [(0, 2, 2.0), (0, 3, 3.0)]
    history = resume(folder, pictures=False).history
    assert [line["seconds"] for line in history] == [6.0] * len(history)


def test_resume_on_other_threads(
    louder: Louder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is asked for at the resume holds there, and is no other run."""
    monkeypatch.setattr("hetsyn_triton.experiments.training.trainer.CHECKPOINT_SECONDS", 0.0)
    config = louder(threads=2)
    whole = train(config, tmp_path / "whole", pictures=False)
    train_on, counts = Trainer._train_on, []

    def watched(self: Trainer, batch: Any) -> None:
        counts.append(torch.get_num_threads())
        if len(counts) == 7:
            raise KeyboardInterrupt
        train_on(self, batch)

    monkeypatch.setattr(Trainer, "_train_on", watched)
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "parts", pictures=False)
    parts = resume(tmp_path / "parts", device="cpu", threads=3, pictures=False)
    assert counts == [2] * 7 + [3] * (parts.epoch * 5 - 6)
    assert_same_weights(whole.network, parts.network)
    assert parts.config.threads == 3
    assert load_run(tmp_path / "parts").config.threads == 2  # the folder's own stays


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
    missing = default_config("smnist", data_dir=str(tmp_path / "none"))
    with pytest.raises(RunFolderError, match="out: expected"):  # before data is read
        train(missing, tmp_path / "full")
    for out in (tmp_path / "full" / "thesis.tex", tmp_path / "full" / "thesis.tex" / "run"):
        with pytest.raises(RunFolderError, match="out: expected a writable folder"):
            train(louder(), out)
    with pytest.raises(
        RunFolderError, match=r"run: expected a run folder that contains config.json, got"
    ):
        load_run(tmp_path)
    with pytest.raises(RunFolderError, match="run: expected a run folder"):
        resume(tmp_path / "full")


def test_unwritable_folder(louder: Louder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")  # root may write anywhere: stand in

    monkeypatch.setattr("tempfile.TemporaryFile", refused)
    with pytest.raises(RunFolderError, match=r"a writable folder, got .*run: Permission denied"):
        train(louder(), tmp_path / "run")


def test_nothing_is_left_of_a_run_that_cannot_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="triton"):
        train(default_config("digits", backend="triton"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_evaluate_names_the_splits(louder: Louder, mnist_dir: Path, tmp_path: Path) -> None:
    run = train(louder(epochs=1), tmp_path / "run", pictures=False)
    with pytest.raises(ConfigError, match=r"split: expected one of train, .*got 'exam'"):
        evaluate(run, "exam")
    config = default_config("smnist", data_dir=str(mnist_dir), hidden=(2,), epochs=1)
    run = train(config, tmp_path / "all", pictures=False)
    with pytest.raises(ConfigError, match=r"splits of this run, train, test, got 'validation'"):
        evaluate(run, "validation")


def test_a_score_that_is_not_measured_is_told(
    louder: Louder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task_class("louder"), "metrics", lambda *given: {"precision": 0.5})
    with pytest.raises(
        ConfigError, match=r"metrics: expected the score 'accuracy' of louder, got precision"
    ):
        train(louder(epochs=1), tmp_path / "run", pictures=False)


@pytest.mark.parametrize("clip", [None, 1.0])
@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_non_finite_stops_the_run(
    louder: Louder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    what: str,
    clip: float | None,
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
    named = "the loss is not finite" if what == "loss" else r"the gradient of \S+ is not finite"
    with pytest.raises(NonFiniteError, match=rf"{named} at step \d+ \(epoch \d, batch \d\)"):
        train(louder(clip=clip), tmp_path / "run", pictures=False)
    assert load_run(tmp_path / "run").epoch >= 1


@pytest.mark.parametrize("lr", [1e30, 1e38])
@pytest.mark.parametrize("changes", [{}, {"decay_parametrization": "sigmoid"}, {"model": "homneu"}])
def test_divergence_keeps_the_last_good_checkpoint(
    louder: Louder, tmp_path: Path, lr: float, changes: dict[str, Any]
) -> None:
    config = louder(lr=lr, schedule="constant", warmup=0.0, weight_decay=0.1, **changes)
    with pytest.raises(NonFiniteError, match=r"at step \d+ \(epoch \d, batch \d\)"):
        train(config, tmp_path / "run", pictures=False)
    assert load_run(tmp_path / "run").epoch == 0


@pytest.mark.parametrize("what", ["parameter", "moment", "overflow"])
def test_a_bad_step_is_named_and_not_saved(
    louder: Louder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setattr("hetsyn_triton.experiments.training.trainer.CHECKPOINT_SECONDS", 0.0)
    step = torch.optim.AdamW.step
    count = 0

    def spoilt(self: torch.optim.AdamW) -> None:
        nonlocal count
        count += 1
        bad = count in (8, 9)  # step 8, and again when the run is resumed
        if bad and what == "overflow":
            raise RuntimeError("value cannot be converted to type float without overflow")
        step(self)
        if bad:
            weight = self.param_groups[0]["params"][0]
            with torch.no_grad():
                (weight if what == "parameter" else self.state[weight]["exp_avg_sq"])[0] = math.inf

    monkeypatch.setattr(torch.optim.AdamW, "step", spoilt)
    named = {
        "parameter": "the parameter layers.0.weight is not finite",
        "moment": "the optimizer's exp_avg_sq of layers.0.weight is not finite",
        "overflow": "a factor of the optimizer is not finite",
    }[what]
    where = rf"{named} at step 8 \(epoch 2, batch 3\)"
    with pytest.raises(NonFiniteError, match=where):
        train(louder(), tmp_path / "run", pictures=False)
    with pytest.raises(NonFiniteError, match=where):
        resume(tmp_path / "run", pictures=False)
    checkpoint = read_checkpoint(tmp_path / "run" / "checkpoint.pt", torch.device("cpu"))
    assert (checkpoint.epoch, checkpoint.batch) == (1, 2)  # of the step before
    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    assert resume(tmp_path / "run", pictures=False).epoch == 4


def test_other_errors_of_the_optimizer_keep_their_name(
    louder: Louder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: torch.optim.AdamW) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(torch.optim.AdamW, "step", broken)
    with pytest.raises(RuntimeError, match="out of memory"):
        train(louder(), tmp_path / "run", pictures=False)


def test_a_metric_that_is_not_finite(
    louder: Louder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = type(Trainer(louder()).task)
    monkeypatch.setattr(kind, "metrics", lambda *_: {"accuracy": torch.tensor(math.nan)})
    message = r"the mean of accuracy over a batch is not finite at step 1 \(epoch 1, batch 1\)"
    with pytest.raises(NonFiniteError, match=message):
        train(louder(), tmp_path / "run", pictures=False)
    assert load_run(tmp_path / "run").epoch == 0


@pytest.mark.parametrize("what", ["loss", "metrics"])
@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_split_that_is_not_finite(
    louder: Louder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, split: str
) -> None:
    """It is named with the step it came after, the epoch before is kept, and the run goes on."""
    kind = type(Trainer(louder()).task)
    batches, measured, asked = kind.batches, getattr(kind, what), [""]

    def noting(self: Any, split: str, epoch: int = 0, start: int = 0) -> Any:
        asked.append(split)
        return batches(self, split, epoch, start)

    def spoilt(self: Any, *given: Any) -> Any:
        value = measured(self, *given)
        if asked[-1] != split or asked.count(split) < 2:
            return value
        return value * math.nan if what == "loss" else {"accuracy": torch.tensor(math.inf)}

    monkeypatch.setattr(kind, "batches", noting)
    monkeypatch.setattr(kind, what, spoilt)
    name = "loss over a batch is nan" if what == "loss" else "accuracy over a batch is inf"
    message = rf"the mean of {name} in split {split} after step 10 \(epoch 2\)"
    with pytest.raises(NonFiniteError, match=message):
        train(louder(), tmp_path / "run", pictures=False)
    assert load_run(tmp_path / "run").epoch == 1
    monkeypatch.setattr(kind, what, measured)
    assert resume(tmp_path / "run", pictures=False).epoch == 4


def gradients_of_a_step(config: TrainConfig) -> list[torch.Tensor]:
    trainer = Trainer(config)
    trainer._train_on(next(trainer.task.batches("train")))
    trainer.check()
    return [p.grad for p in trainer.network.parameters() if p.grad is not None]


def test_clipping(louder: Louder) -> None:
    whole = gradients_of_a_step(louder())
    norm = torch.nn.utils.get_total_norm(whole).item()
    clipped = gradients_of_a_step(louder(clip=norm / 4))
    assert torch.nn.utils.get_total_norm(clipped).item() == pytest.approx(norm / 4, rel=1e-4)
    for a, b in zip(whole, clipped, strict=True):
        assert torch.allclose(a / 4, b, rtol=1e-4, atol=0)
    for a, b in zip(whole, gradients_of_a_step(louder(clip=2 * norm)), strict=True):
        assert torch.equal(a, b)


def test_a_norm_that_overflows(louder: Louder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every gradient is finite and their norm is not: no step is made with gradients of 0."""
    kind = type(Trainer(louder()).task)
    loss = kind.loss
    monkeypatch.setattr(kind, "loss", lambda *given: loss(*given) * 1e25)
    message = r"the norm of all gradients is not finite at step 1 \(epoch 1, batch 1\)"
    with pytest.raises(NonFiniteError, match=message):
        gradients_of_a_step(louder(clip=1.0))


def test_a_metric_that_is_a_number(louder: Louder, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step on a GPU can read none, so none is allowed."""
    trainer = Trainer(louder())
    monkeypatch.setattr(type(trainer.task), "metrics", lambda *_: {"accuracy": 0.5})
    message = "metrics: expected a tensor with one element for 'accuracy' of louder, got float"
    with pytest.raises(ConfigError, match=message):
        trainer._train_on(next(trainer.task.batches("train")))


def test_rates_are_weighted_by_neurons(louder: Louder) -> None:
    task = Trainer(louder()).task
    busy, quiet = torch.ones(4, 2, 1), torch.zeros(4, 2, 3)
    for spikes, rate in (([busy, quiet], 0.25), ([quiet, busy], 0.25), ([busy], 1.0), ([], 0.0)):
        output, target = torch.zeros(4, 2, 2), torch.zeros(2, dtype=torch.long)
        assert metrics_of(task, output, spikes, target)["rate"] == rate


def test_means_are_weighted_by_samples() -> None:
    means = Means()
    assert means.values() == {}
    means.add({"loss": 1.0, "accuracy": 0.5}, 6)
    means.add({"loss": 4.0, "accuracy": 0.0}, 2)
    assert means.values() == {"loss": 1.75, "accuracy": 0.375}
    again = Means(means.sums)  # as a checkpoint keeps them
    again.add({"loss": 0.0, "accuracy": 1.0}, 2)
    assert again.values() == {"loss": pytest.approx(1.4), "accuracy": pytest.approx(0.5)}


def test_means_of_a_split_with_a_short_last_batch() -> None:
    config = default_config("digits", hidden=(8,), batch_size=100, options={"hold": 1})
    trainer = Trainer(config)
    values = measure_split(trainer.task, trainer.network, "test", "cpu")
    batches = list(trainer.task.batches("test"))
    sizes = [batch.target.shape[0] for batch in batches]
    assert len(set(sizes)) > 1
    trainer.network.eval()
    right = sum(
        int((trainer.network(batch.input)[0][-1].argmax(1) == batch.target).sum())
        for batch in batches
    )
    assert values["accuracy"] == pytest.approx(right / sum(sizes), abs=1e-12)


def test_learning_rates_of_the_steps(louder: Louder, tmp_path: Path) -> None:
    """20 steps, 4 of them warm-up: the optimizer's own rates, both groups."""
    rates: list[tuple[float, ...]] = []

    class Watching(Reporter):
        def stepped(self, epoch: int, done: int, means: dict[str, float]) -> None:
            rates.append(tuple(group["lr"] for group in trainer.optimizer.param_groups))

    trainer = Trainer(louder(lr=0.01, decay_lr=0.03, warmup=0.2, schedule="cosine"))
    trainer.fit(tmp_path, Watching())
    assert len(rates) == 20
    for step, scale in (
        (0, 0.25), (1, 0.5), (3, 1.0),  # rises
        (4, 1.0), (8, 0.5 + 0.5 * math.sqrt(0.5)), (12, 0.5),  # half a cosine
        (19, 0.5 * (1 + math.cos(math.pi * 15 / 16))),
    ):  # fmt: skip
        assert rates[step] == pytest.approx((0.01 * scale, 0.03 * scale)), step


@pytest.mark.full
@pytest.mark.timeout(1800)
def test_accuracy_on_digits(tmp_path: Path) -> None:
    """What `hetsyn train` reaches by default, on three seeds."""
    reached = []
    for seed in (0, 1, 2):
        folder = tmp_path / str(seed)
        assert cli(["train", "--seed", str(seed), "--out", str(folder)]) == 0
        reached.append(json.loads((folder / "summary.json").read_text())["test"]["accuracy"])
    assert sum(reached) / 3 >= 0.95, reached
