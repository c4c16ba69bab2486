"""The trainer's steps on a GPU: which are captured, and that graphs change no bit."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from hetsyn_triton.experiments.tasks import Batch
from hetsyn_triton.experiments.training import Reporter, TrainConfig, default_config
from hetsyn_triton.experiments.training.parallel import ALONE, Ranks
from hetsyn_triton.experiments.training.restore import portable_state
from hetsyn_triton.experiments.training.trainer import Trainer
from hetsyn_triton.modules import MODELS

Louder = Callable[..., TrainConfig]


def test_what_is_captured(louder: Louder, monkeypatch: pytest.MonkeyPatch) -> None:
    """On one GPU, steps with as many samples as a first batch; a resumed run may begin smaller."""
    monkeypatch.setattr(Batch, "to", lambda batch, device: batch)
    trainer = Trainer(louder(batch_size=6))
    trainer.batch = 3
    gpu = torch.device("cuda", 0)
    for device, ranks, captured in (
        (gpu, ALONE, True),
        (gpu, Ranks(0, 2), False),
        (torch.device("cpu"), ALONE, False),
    ):
        trainer.device, trainer.ranks = device, ranks
        sample = trainer._sample()
        assert (sample is not None) is captured
        assert sample is None or sample.input.shape == (10, 6, 2)


def test_measures_are_read_now_and_then(louder: Louder, monkeypatch: pytest.MonkeyPatch) -> None:
    """A read on a GPU waits: there it is made after a while, and after the last step of an epoch.

    Means are those of all steps, whenever they are read.
    """
    monkeypatch.setattr(Batch, "to", lambda batch, device: batch)
    means: list[dict[str, float]] = []
    seen: list[int] = []

    class Watching(Reporter):
        def stepped(self, epoch: int, done: int, means: dict[str, float]) -> None:
            seen.append(done)

    for device, seconds, wanted in (
        ("cpu", 1e9, [1, 2, 3, 4, 5]),
        ("cuda", 1e9, [5]),
        ("cuda", 0.0, [1, 2, 3, 4, 5]),
    ):
        monkeypatch.setattr("hetsyn_triton.experiments.training.trainer.READ_SECONDS", seconds)
        trainer = Trainer(louder(epochs=1))
        seen.clear()
        trainer.device = torch.device(device)
        monkeypatch.setattr(Trainer, "save", lambda *_: None)
        monkeypatch.setattr(
            "hetsyn_triton.experiments.training.trainer.measure_split", lambda *_: {}
        )
        record = trainer._epoch(Path("unused"), Watching())
        assert seen == wanted
        means.append({name: value for name, value in record.items() if name != "seconds"})
    assert means[0] == means[1] == means[2]


def test_a_checkpoint_does_not_know_the_device(louder: Louder) -> None:
    """A GPU needs other settings of the optimizer; in the file they are those of a CPU."""
    trainer = Trainer(louder())
    trainer._train_on(next(trainer.task.batches("train")))
    wanted = trainer.optimizer.state_dict()
    for group in trainer.optimizer.param_groups:
        group["capturable"] = True
        group["lr"] = torch.tensor(group["lr"], dtype=torch.float64)
    found = portable_state(trainer.optimizer)
    assert found["param_groups"] == wanted["param_groups"]
    assert {type(group["lr"]) for group in found["param_groups"]} == {float}
    assert found["state"].keys() == wanted["state"].keys()


@pytest.mark.gpu
@pytest.mark.parametrize("readout", ["mean", "spike-count"])
@pytest.mark.parametrize("model", MODELS)
def test_training_is_the_same_to_the_last_bit(
    model: str, readout: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two epochs with dropout, clipping and a last batch that is smaller."""
    sample: Any = Trainer._sample
    weights = []
    for name, chosen in (("graphed", sample), ("plain", lambda self: None)):
        monkeypatch.setattr(Trainer, "_sample", chosen)
        config = default_config(
            "digits",
            model=model,
            readout=readout,
            device="cuda",
            hidden=(20, 12),
            dropout=0.3,
            epochs=2,
            batch_size=200,
            clip=1.0,
        )
        trainer = Trainer(config)
        samples = [batch.input.shape[1] for batch in trainer.task.batches("train")]
        assert len(samples) > 5
        assert samples[0] == 200 > samples[-1] > 0
        (tmp_path / name).mkdir()
        trainer.fit(tmp_path / name, Reporter())
        assert (trainer.train_step._graph is not None) is (name == "graphed")
        weights.append(trainer.network.state_dict())
    for key, value in weights[0].items():
        assert torch.equal(value, weights[1][key]), key
