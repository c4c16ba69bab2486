"""Class scores: by hand, with a network of the right kind, from the steps that count."""

from pathlib import Path
from typing import Any

import pytest
import torch

from hetsyn_triton.experiments.tasks import Digits, SequentialMNIST
from hetsyn_triton.experiments.tasks.readouts import READOUTS
from hetsyn_triton.experiments.training import default_config
from hetsyn_triton.experiments.training.build import build_network, build_task
from hetsyn_triton.experiments.training.measure import measure

OUTPUT = torch.tensor([[[0.0, 2.0]], [[4.0, 0.0]], [[1.0, 1.0]]])  # 3 steps, 1 sample, 2 classes


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mean", [5 / 3, 1.0]),
        ("last", [1.0, 1.0]),
        ("summed-softmax", [0.1192029 + 0.9820138 + 0.5, 0.8807971 + 0.0179862 + 0.5]),
        ("spike-count", [5.0, 3.0]),
    ],
)
def test_scores_by_hand(name: str, expected: list[float]) -> None:
    assert READOUTS[name](OUTPUT)[0].tolist() == pytest.approx(expected)
    assert Digits(readout=name).logits(OUTPUT)[0].tolist() == pytest.approx(expected)


def test_loss_on_the_summed_softmax() -> None:
    """The cross-entropy takes the sum over steps for logits."""
    scores = OUTPUT.double().softmax(2).sum(0)[0]
    expected = scores.exp().sum().log() - scores[1]
    loss = Digits(readout="summed-softmax").loss(OUTPUT.double(), [], torch.tensor([1]))
    assert loss.item() == pytest.approx(expected.item())


def test_every_readout_has_its_row() -> None:
    assert list(READOUTS) == ["mean", "last", "summed-softmax", "spike-count"]


def test_steps_that_do_not_count() -> None:
    class Late(Digits):
        first_step = 2

    late = Late(readout="mean")
    assert late.logits(OUTPUT).tolist() == [[1.0, 1.0]]
    assert Late(readout="spike-count").logits(OUTPUT).tolist() == [[1.0, 1.0]]
    with pytest.raises(ValueError, match=r"output: expected more than 2 steps because .* got 2"):
        late.logits(OUTPUT[:2])


@pytest.mark.parametrize("name", list(READOUTS))
@pytest.mark.parametrize("task", ["digits", "smnist"])
def test_the_network_fits(task: str, name: str, mnist_dir: Path) -> None:
    """A last spiking layer for what counts spikes, a readout without threshold for the others."""
    settings: dict[str, Any] = {"data_dir": str(mnist_dir)} if task == "smnist" else {}
    config = default_config(task, readout=name, hidden=(5,), batch_size=4, **settings)
    built = build_task(config)
    network = build_network(config, built)
    assert (network.readout is None) == (name == "spike-count")
    assert len(network.layers) == (2 if name == "spike-count" else 1)
    loss, metrics = measure(built, network, next(built.batches("train")))
    loss.backward()
    assert loss.isfinite()
    assert {"accuracy", "rate"} == metrics.keys()


def test_defaults_of_the_tasks() -> None:
    assert default_config("digits").readout == Digits().readout == "last"
    assert default_config("smnist").readout == SequentialMNIST().readout == "spike-count"
    assert SequentialMNIST().trace_label == "spike count"
    assert SequentialMNIST(readout="mean").trace_label == Digits().trace_label == "readout"
    counts = SequentialMNIST().trace(torch.ones(4, 1, 10))
    assert counts[:, 0].tolist() == [1, 2, 3, 4]
    assert Digits().trace(OUTPUT).equal(OUTPUT[:, 0])
    with pytest.raises(ValueError, match=r"readout: expected one of mean, .*got 'first'"):
        Digits(readout="first")
