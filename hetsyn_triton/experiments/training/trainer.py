"""The training loop."""

import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hetsyn_triton.experiments.files import append_json_line, write_json_lines
from hetsyn_triton.experiments.tasks import Batch
from hetsyn_triton.experiments.tasks.seeds import derived_seed
from hetsyn_triton.graphed_step import GraphedStep, NonFiniteError

from .ahead import on_device
from .build import build_network, build_optimizer, build_task
from .checkpoint import Checkpoint, save_checkpoint
from .config import TrainConfig
from .machine import provenance
from .measure import Means, measure, measure_split
from .parallel import ALONE, Ranks
from .reporting import Reporter
from .restore import (
    check_best,
    check_place,
    check_same_run,
    load_optimizer,
    load_weights,
    portable_state,
)
from .run_folder import CHECKPOINT, METRICS
from .schedule import lr_scale, scale_rates
from .selection import best_epoch

CHECKPOINT_SECONDS = 60.0  # between checkpoints in an epoch; each epoch also ends with one
READ_SECONDS = 0.1  # between reads of the measures on a GPU, which wait for all queued steps


class Trainer:
    """A run in progress: task, network, optimizer and position.

    Each of several `ranks` has a trainer; the first one writes and reports.
    """

    def __init__(self, config: TrainConfig, ranks: Ranks = ALONE) -> None:
        self.config = config = config.changed(device=ranks.device(config.device))
        self.ranks = ranks
        self.device = torch.device(config.device)
        self.task = build_task(config)
        self.steps_per_epoch = self.task.steps_per_epoch  # reads the data, which raises errors
        self.network = build_network(config, self.task)
        self.optimizer = build_optimizer(config, self.network)
        self.base_lrs = [float(group["lr"]) for group in self.optimizer.param_groups]
        self.train_step = GraphedStep(
            self.network,
            self._loss,
            self.optimizer,
            self._sample(),
            clip=config.clip,
            after_backward=partial(ranks.sum_gradients, self.network),
        )
        self.epoch = 0
        self.batch = 0
        self.means = Means()
        self.seconds = 0.0  # of the current epoch, including earlier processes
        self.history: list[dict[str, Any]] = []
        self.best: dict[str, Any] | None = None  # epoch and model of the best validation epoch
        self.sessions: list[dict[str, Any]] = []

    @property
    def step(self) -> int:
        """Number of optimizer steps so far."""
        return self.epoch * self.steps_per_epoch + self.batch

    @property
    def steps(self) -> int:
        """Number of optimizer steps of the whole run."""
        return self.config.epochs * self.steps_per_epoch

    def restore(self, path: Path, checkpoint: Checkpoint) -> None:
        """Continue from `checkpoint`, read from `path`; CheckpointError if it does not fit."""
        check_same_run(path, checkpoint, self.config)
        check_place(path, checkpoint, self.config.epochs, self.steps_per_epoch)
        check_best(path, checkpoint, self.task, self.network)
        load_weights(path, checkpoint.model, self.network)
        self.epoch, self.batch = checkpoint.epoch, checkpoint.batch
        self.train_step.steps = self.step
        load_optimizer(path, checkpoint.optimizer, self.step, self.optimizer)
        self.means = Means(checkpoint.sums)
        self.seconds = checkpoint.seconds
        self.history = checkpoint.history
        self.best = checkpoint.best
        self.sessions = checkpoint.sessions

    def save(self, folder: Path) -> None:
        """Write the checkpoint on the first rank."""
        if not self.ranks.first:
            return
        checkpoint = Checkpoint(
            config=self.config.to_json(),
            model=self.network.state_dict(),
            optimizer=portable_state(self.optimizer),
            epoch=self.epoch,
            batch=self.batch,
            sums=self.means.sums,
            history=self.history,
            best=self.best,
            sessions=self.sessions,
            seconds=self.seconds,
        )
        save_checkpoint(folder / CHECKPOINT, checkpoint)

    def fit(self, folder: Path, reporter: Reporter) -> None:
        """Train to the last epoch, writing checkpoints and metrics into `folder`."""
        self.save(folder)
        if self.ranks.first:
            write_json_lines(folder / METRICS, self.history)
        reporter.started(self.config, folder, self.steps, self.step)
        cuda = [self.device] if self.device.type == "cuda" else []
        if self.epoch < self.config.epochs:  # a complete run is only tested
            self.sessions.append({"step": self.step, **provenance(cuda)})
        with torch.random.fork_rng(cuda):  # dropout uses PyTorch's global generators
            while self.epoch < self.config.epochs:
                record = self._epoch(folder, reporter)
                self.save(folder)
                if self.ranks.first:
                    append_json_line(folder / METRICS, record)
                reporter.epoch_ended(record)

    def _epoch(self, folder: Path, reporter: Reporter) -> dict[str, Any]:
        read = saved = time.monotonic()
        began = saved - self.seconds
        self.network.train()
        batches = self.task.batches("train", self.epoch, self.batch)
        for batch in on_device(batches, self.device):
            self._train_on(batch)
            self.batch += 1
            now, last = time.monotonic(), self.batch == self.steps_per_epoch
            saves = now - saved > CHECKPOINT_SECONDS and not last
            if self.device.type == "cpu" or now - read > READ_SECONDS or saves or last:
                read = now
                self.check()
                reporter.stepped(self.epoch, self.step, self.means.values())
            if saves:
                saved = now
                self.seconds = saved - began
                self.save(folder)
        self.check()
        record: dict[str, Any] = {
            "epoch": self.epoch + 1,
            "step": self.step,
            "lr": self.base_lrs[0] * self._lr_scale(self.step - 1),
        }
        record.update({f"train_{name}": value for name, value in self.means.values().items()})
        where = f"after step {self.step} (epoch {self.epoch + 1})"
        self.ranks.check_alike(self.network, where)
        every = self.config.test_every
        tested = ("test",) if every and (self.epoch + 1) % every == 0 else ()
        for split in ("validation", *tested):
            values = measure_split(self.task, self.network, split, self.device, self.ranks, where)
            record.update({f"{split}_{name}": value for name, value in values.items()})
        record["seconds"] = round(time.monotonic() - began, 3)
        self.epoch, self.batch, self.means, self.seconds = self.epoch + 1, 0, Means(), 0.0
        self.history.append(record)
        if best_epoch(self.task, self.history, "validation") == self.epoch:
            weights = {n: value.detach().clone() for n, value in self.network.state_dict().items()}
            self.best = {"epoch": self.epoch, "model": weights}
        return record

    def _train_on(self, batch: Batch) -> None:
        scale_rates(self.optimizer, self.base_lrs, self._lr_scale(self.step))
        if self.config.dropout:
            other = () if self.ranks.first else (self.ranks.rank,)  # rank 0 as without ranks
            torch.manual_seed(derived_seed(self.config.seed, "dropout", self.step, *other))
        self.means.add(self.train_step(*batch), batch.input.shape[1])

    def check(self) -> None:
        """Wait for all steps; raise NonFiniteError, with its place, if one was not finite."""
        try:
            self.train_step.check()
        except NonFiniteError as error:
            epoch, batch = divmod((error.step or 1) - 1, self.steps_per_epoch)
            place = f"(epoch {epoch + 1}, batch {batch + 1})"
            raise NonFiniteError(f"{error} {place}") from None

    def _lr_scale(self, step: int) -> float:
        return lr_scale(self.config, step, self.steps_per_epoch)

    def _loss(
        self, network: nn.Module, values: Tensor, target: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return loss and metrics of a whole batch."""
        return measure(self.task, self.network, Batch(values, target), self.ranks)

    def _sample(self) -> Batch | None:
        """Return a batch of the usual size; None if steps cannot be captured on this device.

        Graphs cannot contain the communication of several ranks.
        """
        if self.device.type != "cuda" or self.ranks.size > 1:
            return None
        return next(self.task.batches("train")).to(self.device)
