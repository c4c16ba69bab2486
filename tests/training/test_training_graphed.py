"""A training step replayed from CUDA graphs is the step as it is."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hetsyn_triton.experiments.tasks import Batch
from hetsyn_triton.experiments.training import (
    Reporter,
    TrainConfig,
    default_config,
    trainer as trainer_module,
)
from hetsyn_triton.experiments.training.graphed import GraphedNetwork, passes
from hetsyn_triton.experiments.training.measure import measure, run_network
from hetsyn_triton.experiments.training.parallel import ALONE, Ranks
from hetsyn_triton.experiments.training.trainer import Trainer
from hetsyn_triton.modules import MODELS, SpikingNetwork

Louder = Callable[..., TrainConfig]


def gradients(trainer: Trainer, batch: Batch, run: Any) -> list[Tensor]:
    """Of one batch, drawn alike each time."""
    trainer.network.zero_grad(set_to_none=True)
    torch.manual_seed(5)
    loss, _ = measure(trainer.task, trainer.network, batch, run=run)
    loss.backward()
    found = [p.grad for p in trainer.network.parameters() if p.grad is not None]
    assert len(found) == len(list(trainer.network.parameters()))
    return [loss.detach(), *(g.clone() for g in found)]


def cut(batch: Batch, samples: int) -> Batch:
    return Batch(batch.input[:, :samples], batch.target[:samples])


def test_only_batches_of_the_captured_shape_are_replayed(
    louder: Louder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Captures and replays stood in for: which batch goes where, and what comes back."""
    replayed: list[int] = []
    samples_of_captures: list[Tensor] = []

    def capture(module: nn.Module, inputs: tuple[Tensor, ...], **options: Any) -> Any:
        assert options == {"allow_unused_input": True}
        samples_of_captures.append(inputs[0])
        assert sum(p.numel() for p in module.parameters()) > 0  # the graphs differentiate by them
        shape = inputs[0].shape

        def replay(values: Tensor) -> tuple[Tensor, ...]:
            assert values.shape == shape
            replayed.append(len(values))
            result: tuple[Tensor, ...] = module(values)
            return result

        module(inputs[0])  # draws dropout, and must not draw it from the run's numbers
        return replay

    monkeypatch.setattr(torch.cuda, "make_graphed_callables", capture)
    fork = torch.random.fork_rng
    monkeypatch.setattr(torch.random, "fork_rng", lambda devices: fork([]))
    trainer = Trainer(louder(batch_size=6, dropout=0.5, hidden=(12, 12)))
    run = GraphedNetwork(trainer._whole_batch)
    for samples, times in ((4, 0), (6, 1), (6, 2), (4, 2), (6, 3)):
        batch = cut(next(iter(trainer.task.batches("train"))), samples)
        found, wanted = (gradients(trainer, batch, r) for r in (run, run_network))
        assert len(replayed) == times
        for a, b in zip(found, wanted, strict=True):
            assert torch.equal(a, b)
    (sample,) = samples_of_captures
    assert sample.shape == (10, 6, 2)
    kept = sample.clone()
    silence = trainer._whole_batch().zero_()
    assert torch.equal(sample, kept)  # memory of its own
    other = Trainer(louder(batch_size=6, hidden=(7,))).network
    for network in (other, trainer.network.eval()):
        assert torch.equal(run(network, silence)[0], run_network(network, silence)[0])
    assert len(replayed) == 3


def test_who_has_graphs() -> None:
    def sample() -> Tensor:
        return torch.zeros(2, 3, 4)

    gpu, cpu = torch.device("cuda", 0), torch.device("cpu")
    assert isinstance(passes(gpu, ALONE, sample), GraphedNetwork)
    assert passes(gpu, Ranks(0, 2), sample) is run_network
    assert passes(cpu, ALONE, sample) is run_network


def test_the_trainer_trains_by_them(louder: Louder, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def noted(network: SpikingNetwork, values: Tensor) -> tuple[Tensor, list[Tensor]]:
        calls.append(values.shape[1])
        return run_network(network, values)

    monkeypatch.setattr(trainer_module, "passes", lambda *given: noted)
    trainer = Trainer(louder(batch_size=6))
    trainer._train_on(next(trainer.task.batches("train")))
    assert calls == [6]


@pytest.mark.gpu
@pytest.mark.parametrize("readout", ["mean", "spike-count"])
@pytest.mark.parametrize("model", MODELS)
def test_training_is_the_same_to_the_last_bit(
    model: str, readout: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two epochs with dropout, clipping and a last batch that is smaller."""
    weights = []
    for name, chosen in (("graphed", passes), ("plain", lambda *_: run_network)):
        monkeypatch.setattr(trainer_module, "passes", chosen)
        config = default_config(
            "digits",
            model=model,
            readout=readout,
            device="cuda",
            hidden=(20, 12),
            dropout=0.3,
            epochs=2,
            batch_size=400,
            clip=1.0,
        )
        trainer = Trainer(config)
        samples = [batch.input.shape[1] for batch in trainer.task.batches("train")]
        assert samples[0] == 400 > samples[-1] > 0
        (tmp_path / name).mkdir()
        trainer.fit(tmp_path / name, Reporter())
        assert isinstance(trainer.run, GraphedNetwork) is (name == "graphed")
        weights.append(trainer.network.state_dict())
    for key, value in weights[0].items():
        assert torch.equal(value, weights[1][key]), key
