"""Networks trained together are the networks trained one after the other."""

import contextlib
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from hetsyn_triton.experiments.studies import replicas
from hetsyn_triton.experiments.studies.replica_checkpoint import FORMAT
from hetsyn_triton.experiments.studies.replicas import Replicas, stacked
from hetsyn_triton.experiments.tasks import Batch
from hetsyn_triton.experiments.training import (
    CheckpointError,
    ConfigError,
    TrainConfig,
    default_config,
    train,
)
from hetsyn_triton.experiments.training.build import build_network, build_task
from hetsyn_triton.experiments.training.checkpoint import read_values, save_values
from hetsyn_triton.modules import MODELS
from tests.support.layer_cases import first_layer

pytestmark = pytest.mark.usefixtures("echo")
SEEDS = (0, 3, 7)


def configs(**changes: Any) -> list[TrainConfig]:
    return [default_config("echo", **{"seed": seed, **changes}) for seed in SEEDS]


@pytest.mark.parametrize("recurrent", [True, False], ids=["recurrent", "feedforward"])
@pytest.mark.parametrize("model", MODELS)
def test_the_same_as_one_after_the_other(model: str, recurrent: bool, tmp_path: Path) -> None:
    """Two epochs with weight decay and a schedule: weights and test measures, bit for bit where the
    operators promise it."""
    chosen = configs(model=model, recurrent=recurrent, epochs=2, weight_decay=0.01)
    together = Replicas(chosen)
    together.fit()
    tests = together.measure_split("test")
    assert together.step == 6
    for replica, config in enumerate(chosen):
        alone = train(config, tmp_path / str(config.seed), pictures=False)
        found, wanted = together.weights(replica), alone.network.state_dict()
        assert list(found) == list(wanted)
        for name, value in wanted.items():
            if model == "hetsyn":
                assert torch.equal(found[name], value), name
            else:
                torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-5)
        expected = alone.history[-1]
        validation = together.measure_split("validation")[replica]
        tolerance = 0 if model == "hetsyn" else 1e-4
        assert validation["loss"] == pytest.approx(expected["validation_loss"], rel=tolerance)
        assert tests[replica].keys() == {"loss", "accuracy", "rate"}


def test_losses_of_the_first_step() -> None:
    """And the gradients: an optimizer step moves every replica's weights, not only the first's."""
    together = Replicas(configs())
    before = [together.weights(replica) for replica in range(3)]
    values = together.train_on(next(together._batches("train")))
    assert len({value["loss"] for value in values}) == 3
    for replica in range(3):
        changed = together.weights(replica)
        assert not torch.equal(before[replica]["layers.0.weight"], changed["layers.0.weight"])


def test_decays_stay_decays_and_frozen_ones_stay() -> None:
    together = Replicas(configs(lr=0.5, frozen_fraction=0.5))
    together.fit()
    decay = first_layer(together.network).decay
    assert decay.raw.shape == (3, 6, 4)
    assert ((decay.raw >= 0) & (decay.raw <= 1)).all()
    assert decay.frozen is not None
    assert decay.frozen_value is not None
    frozen = decay.frozen.bool()
    assert torch.equal(decay()[frozen], decay.frozen_value[frozen])


def test_dropout_differs_between_replicas() -> None:
    """The same network and data in both places, yet other spikes are dropped."""
    together = Replicas(configs(hidden=(20, 20), dropout=0.5, tau=1000.0)[:2])
    for tensor in (*together.network.parameters(), *together.network.buffers()):
        tensor.data[1] = tensor.data[0]
    batch = next(together._batches("train"))[0]
    first, second = together.train_on([batch, batch])
    assert first["loss"] != second["loss"]


def test_spiking_outputs() -> None:
    together = Replicas(configs(readout="spike-count"))
    together.fit()
    assert all(0 <= test["accuracy"] <= 1 for test in together.measure_split("test"))


def test_stacking_keeps_names_and_what_learns() -> None:
    chosen = configs(model="hetsyn")
    networks = [build_network(config, build_task(config)) for config in chosen]
    whole = stacked(networks)
    for name, parameter in whole.named_parameters():
        assert parameter.shape == (3, *networks[0].get_parameter(name).shape)
        assert parameter.requires_grad
        assert torch.equal(parameter[1], networks[1].get_parameter(name))
    assert dict(whole.named_buffers()).keys() == dict(networks[0].named_buffers()).keys()


def test_what_cannot_be_trained_together() -> None:
    with pytest.raises(ConfigError, match="at least one network"):
        Replicas([])
    with pytest.raises(ConfigError, match=r"only in the seed, got networks with different lr$"):
        Replicas([default_config("echo"), default_config("echo", seed=1, lr=0.5)])
    with pytest.raises(
        ConfigError, match="clip: expected no value because networks trained together share"
    ):
        Replicas(configs(clip=1.0))


Change = Callable[[Tensor], Tensor]
Then = Callable[[Tensor], None]
Losing = Callable[[Replicas, int, Change], None]


@pytest.fixture
def losing(monkeypatch: pytest.MonkeyPatch) -> Losing:
    """Changes the second replica's loss at a step (from 0)."""

    def lose(together: Replicas, step: int, change: Change) -> None:
        measured = together._measured

        def changed(batches: Sequence[Batch], then: Then = lambda losses: None) -> Any:
            if together.step != step or not together.template.training:
                return measured(batches, then)
            made = []

            def then_changed(losses: Tensor) -> None:
                first, second, *others = losses
                made.append(torch.stack([first, change(second), *others]))
                then(made[0])

            _, values = measured(batches, then_changed)
            return made[0], values

        monkeypatch.setattr(together, "_measured", changed)

    return lose


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda loss: loss * math.nan, "the loss is not finite at step 3"),
        (lambda loss: loss + math.inf, "the loss is not finite at step 3"),
        # 0 * inf on the way back
        (lambda loss: loss + (0 * loss).sqrt(), "the gradient of layers.0.weight is not finite"),
        (lambda loss: loss * 1e25, "the optimizer's exp_avg_sq of layers.0.weight is not finite"),
    ],
    ids=["nan", "infinity", "gradient", "moment"],
)
@pytest.mark.parametrize("model", MODELS)
def test_a_diverged_replica_is_taken_out_and_changes_no_other(
    model: str, change: Change, reason: str, losing: Losing
) -> None:
    chosen = configs(model=model, epochs=2, weight_decay=0.01, dropout=0.2)
    whole, broken = Replicas(chosen), Replicas(chosen)
    whole.fit()
    losing(broken, 2, change)
    broken.fit()
    assert list(broken.diverged) == [1]
    assert broken.diverged[1].startswith(reason)
    assert broken.diverged[1].endswith(" at step 3")
    assert broken.step == whole.step == 6
    expected, found = whole.measure_split("test"), broken.measure_split("test")
    assert found == [expected[0], {}, expected[2]]
    for replica in (0, 2):
        wanted = whole.weights(replica)
        for name, value in broken.weights(replica).items():
            assert torch.equal(value, wanted[name]), name
    for parameter in broken.network.parameters():
        assert not parameter[1].any()


@pytest.mark.parametrize("model", MODELS)
def test_the_others_are_those_of_a_run_without_the_diverged_one(model: str, losing: Losing) -> None:
    chosen = configs(model=model, epochs=2)
    broken, others = Replicas(chosen), Replicas([chosen[0], chosen[2]])
    losing(broken, 2, lambda loss: loss * math.nan)
    for together in (broken, others):
        together.fit()
    assert list(broken.diverged) == [1]
    for replica, other in ((0, 0), (2, 1)):
        wanted = others.weights(other)
        for name, value in broken.weights(replica).items():
            assert torch.equal(value, wanted[name]), name


def test_parameters_that_leave_the_numbers() -> None:
    together = Replicas(configs())

    def overflow(*_: Any) -> None:
        first_layer(together.network).weight.data[2, 0, 0] = math.inf

    together.optimizer.register_step_post_hook(overflow)
    first, _, last = together.train_on(next(together._batches("train")))
    assert together.diverged == {2: "the parameter layers.0.weight is not finite at step 1"}
    assert first["loss"] > 0
    assert last == {}


def test_a_network_may_diverge_on_the_test_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    together = Replicas(configs())
    measured = together._measured

    def lost(batches: Sequence[Batch]) -> Any:
        losses, values = measured(batches)
        values[0]["loss"] = math.inf
        return losses, values

    monkeypatch.setattr(together, "_measured", lost)
    first, *others = together.measure_split("test")
    assert first == {}
    assert all(other["accuracy"] >= 0 for other in others)
    assert together.diverged == {0: "the mean of loss over a batch is inf in split test"}


@pytest.mark.parametrize("stop", [0, 2, 4, 6])
@pytest.mark.parametrize("model", MODELS)
def test_going_on_from_a_checkpoint_is_never_having_stopped(
    model: str, stop: int, tmp_path: Path, losing: Losing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the middle of an epoch, at its end, before and after the second network diverges."""
    chosen = configs(
        model=model, epochs=2, dropout=0.2, weight_decay=0.01, schedule="cosine", warmup=0.2
    )
    whole = Replicas(chosen)
    losing(whole, 2, lambda loss: loss * math.nan)
    whole.fit()
    path = tmp_path / "networks.pt"
    monkeypatch.setattr(replicas, "CHECKPOINT_SECONDS", -1.0)
    cut = Replicas(chosen)
    losing(cut, 2, lambda loss: loss * math.nan)
    step = cut.train_on

    def stopping(batches: Sequence[Batch]) -> Any:
        if cut.step == stop:
            raise KeyboardInterrupt
        return step(batches)

    monkeypatch.setattr(cut, "train_on", stopping)
    with pytest.raises(KeyboardInterrupt) if stop < 6 else contextlib.nullcontext():
        cut.fit(path)
    assert path.exists() == (stop > 0)
    again, made = Replicas(chosen), []
    losing(again, 2, lambda loss: loss * math.nan)
    step_again = again.train_on

    def counting(batches: Sequence[Batch]) -> Any:
        made.append(again.step)
        return step_again(batches)

    monkeypatch.setattr(again, "train_on", counting)
    again.fit(path)
    assert made == list(range(stop, 6))
    assert again.diverged == whole.diverged
    for replica in range(3):
        wanted = whole.weights(replica)
        for name, value in again.weights(replica).items():
            assert torch.equal(value, wanted[name]), name
    assert again.measure_split("test") == whole.measure_split("test")
    assert (again.seconds_before > 0) == (stop > 0)  # of the process that stopped
    assert read_values(path, FORMAT, torch.device("cpu"))["seconds"] > again.seconds_before
    assert [path.name for path in tmp_path.iterdir()] == ["networks.pt"]


def test_the_threads_are_those_of_the_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In training and in what is measured after it, unless the settings ask for others; those of
    the process are left as they are."""
    path, used, before = tmp_path / "networks.pt", [], torch.get_num_threads()
    measured = Replicas._measured

    def counting(self: Replicas, *given: Any) -> Any:
        used.append(torch.get_num_threads())
        return measured(self, *given)

    monkeypatch.setattr(Replicas, "_measured", counting)
    first = Replicas(configs(), threads=3)
    first.fit(path)
    assert used == [3] * first.step
    used.clear()
    for asked, of_before, threads in ((None, False, 3), (2, False, 2), (None, True, 2)):
        values = read_values(path, FORMAT, torch.device("cpu"))
        if of_before:
            del values["threads"]
        save_values(path, FORMAT, values)
        again = Replicas(configs(epochs=1, threads=asked), threads=2)
        again.fit(path)
        again.measure_split("test")
        assert set(used) == {threads}
        used.clear()
    assert Replicas(configs()).threads == before == torch.get_num_threads()


def test_a_damaged_checkpoint_is_kept_aside(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "networks.pt"
    first = Replicas(configs())
    first.fit(path)
    content = path.read_bytes()
    values = read_values(path, FORMAT, torch.device("cpu"))
    kept = []
    for damage in (
        content[:-100],
        b"nothing",
        {**values, "step": 4},
        {**values, "step": 3.0},
        {**values, "configs": values["configs"][:2]},
        {**values, "diverged": {3: "at step 1"}},
        {**values, "threads": 0},
        {**values, "seconds": -1.0},
        {name: value for name, value in values.items() if name != "model"},
    ):
        if isinstance(damage, bytes):
            path.write_bytes(damage)
        else:
            save_values(path, FORMAT, damage)
        kept.append(path.read_bytes())
        caplog.clear()
        again = Replicas(configs())
        again.fit(path)
        (record,) = caplog.records
        assert f"{path} is " in record.getMessage()
        assert "its work is repeated" in record.getMessage()
        assert torch.equal(again.weights(1)["layers.0.weight"], first.weights(1)["layers.0.weight"])
    names = ["networks.pt.damaged", *(f"networks.pt.damaged-{n}" for n in range(2, len(kept) + 1))]
    assert [(tmp_path / name).read_bytes() for name in names] == kept


def test_a_checkpoint_of_other_networks_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "networks.pt"
    Replicas(configs()).fit(path)
    for other, message in (
        (
            configs(lr=0.5),
            r"networks.pt belongs to another run: lr is 0.01 in .*another study folder",
        ),
        ([config.changed(seed=9 + n) for n, config in enumerate(configs())], "seed is 0 in the"),
    ):
        with pytest.raises(CheckpointError, match=message):
            Replicas(other).fit(path)
    values = read_values(path, FORMAT, torch.device("cpu"))
    del values["model"]["layers.0.weight"]
    save_values(path, FORMAT, values)
    with pytest.raises(CheckpointError, match=r"another architecture: layers.0.weight is missing"):
        Replicas(configs()).fit(path)
    save_values(path, FORMAT, {**values, "model": Replicas(configs()).network.state_dict(),
                               "optimizer": {"state": {}, "param_groups": []}})  # fmt: skip
    with pytest.raises(CheckpointError, match="the optimizer state does not fit"):
        Replicas(configs()).fit(path)


def test_training_ends_where_all_diverged() -> None:
    together = Replicas(configs(lr=1e38))
    together.fit()
    assert together.step == 1
    assert list(together.diverged) == [0, 1, 2]
    assert all(
        "a factor of the optimizer is not finite at step 1" in said
        for said in together.diverged.values()
    )
    assert together.measure_split("test") == [{}, {}, {}]
