"""Batches are made ahead for a device that is not the CPU; the meta device stands in for a GPU."""

import threading
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from pathlib import Path

import pytest
import torch

from hetsyn_triton.experiments.tasks import Batch
from hetsyn_triton.experiments.training import Reporter, TrainConfig, measure, trainer
from hetsyn_triton.experiments.training.ahead import on_device

Louder = Callable[..., TrainConfig]
SECONDS = 20.0


def batches(count: int) -> Iterator[Batch]:
    for number in range(count):
        yield Batch(torch.zeros(2, number, 1), torch.zeros(number))


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_all_batches_in_their_order(device: str) -> None:
    found = list(on_device(batches(5), device))
    assert [batch.input.shape[1] for batch in found] == [0, 1, 2, 3, 4]
    assert {t.device.type for batch in found for t in batch} == {device}
    assert list(on_device(batches(0), device)) == []


def test_the_next_is_made_meanwhile() -> None:
    made = threading.Event()

    def two() -> Iterator[Batch]:
        yield from batches(1)
        made.set()
        yield from batches(1)

    coming = on_device(two(), "meta")
    next(coming)
    assert made.wait(SECONDS)  # nobody has asked for the second


def test_a_cpu_makes_a_batch_when_it_is_asked_for() -> None:
    asked = []

    def noted() -> Iterator[Batch]:
        for batch in batches(3):
            asked.append(batch)
            yield batch

    coming = on_device(noted(), "cpu")
    for number in range(1, 4):
        next(coming)
        assert len(asked) == number


def test_made_in_a_thread_as_by_the_caller_and_moved_by_the_caller(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    setting = ContextVar("setting", default="no")
    makers, movers = [], []
    move = Batch.to

    def noted(self: Batch, device: torch.device | str) -> Batch:
        movers.append(threading.current_thread())
        return move(self, device)

    def seen() -> Iterator[Batch]:
        for batch in batches(3):
            makers.append((threading.current_thread(), torch.is_grad_enabled(), setting.get()))
            yield batch

    monkeypatch.setattr(Batch, "to", noted)
    setting.set("yes")
    with torch.no_grad():
        assert len(list(on_device(seen(), "meta"))) == 3
    me = threading.current_thread()
    assert movers == [me] * 3
    assert [maker[1:] for maker in makers] == [(False, "yes")] * 3
    assert me not in {thread for thread, *_ in makers}


def test_batches_on_another_device_are_refused() -> None:
    def elsewhere() -> Iterator[Batch]:
        yield next(batches(1)).to("meta")

    with pytest.raises(ValueError, match="batches: expected tensors on the CPU, got meta"):
        next(on_device(elsewhere(), "meta"))


def test_trainer_and_evaluation_use_it(louder: Louder, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def noted(batches: Iterator[Batch], device: torch.device | str) -> Iterator[Batch]:
        seen.append(str(device))
        return on_device(batches, device)

    monkeypatch.setattr(trainer, "on_device", noted)
    monkeypatch.setattr(measure, "on_device", noted)
    made = trainer.Trainer(louder(epochs=1))
    made._epoch(Path("unused"), Reporter())
    assert seen == ["cpu"] * 3  # training, validation, test


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_what_fails_while_a_batch_is_made_is_raised(device: str) -> None:
    def broken() -> Iterator[Batch]:
        yield from batches(1)
        raise OSError("the file is gone")

    coming = on_device(broken(), device)
    next(coming)
    with pytest.raises(OSError, match="the file is gone"):
        next(coming)


def test_no_thread_is_left_of_an_epoch_that_was_cut_off() -> None:
    coming = on_device(batches(9), "meta")
    next(coming)
    assert any(t.name.startswith("batches") for t in threading.enumerate())
    coming.close()  # type: ignore[attr-defined]
    assert not any(t.name.startswith("batches") for t in threading.enumerate())
