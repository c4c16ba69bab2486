"""Train R networks of one shape together, one per seed, as replicas of one network.

The time of a small network is mostly overhead, so R networks cost little more than one. Their
parameters are stacked along a first axis R. The network runs under `torch.func.vmap`, which every
operator folds into its own replica axis, and one optimizer steps the stack.

The optimizer works element by element, so replicas do not affect each other. A replica whose values
are no longer finite is removed, and the others train as before. HetSyn networks are bit-identical
to networks trained one after the other on as many threads without dropout. Dropout draws other
spikes than for a single network. Models with a decay per neuron differ by the rounding of PyTorch's
batched matrix products.
"""

import copy
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hetsyn_triton.experiments.tasks import Batch, Task
from hetsyn_triton.experiments.tasks.seeds import derived_seed
from hetsyn_triton.experiments.training import (
    CheckpointError,
    ConfigError,
    NonFiniteError,
    TrainConfig,
)
from hetsyn_triton.experiments.training.build import build_network, build_optimizer, build_task
from hetsyn_triton.experiments.training.checkpoint import save_values
from hetsyn_triton.experiments.training.machine import provenance
from hetsyn_triton.experiments.training.measure import Means, metrics_of, read_numbers
from hetsyn_triton.experiments.training.restore import (
    check_same_settings,
    load_optimizer,
    load_weights,
)
from hetsyn_triton.experiments.training.schedule import lr_scale, scale_rates
from hetsyn_triton.experiments.training.torch_threads import on_threads
from hetsyn_triton.experiments.training.trainer import CHECKPOINT_SECONDS
from hetsyn_triton.graphed_step import optimizer_state, overflows
from hetsyn_triton.modules import SpikingNetwork
from hetsyn_triton.optim import clamp_decays_

from .replica_checkpoint import FORMAT, read


class Replicas:
    """R networks whose configurations differ only in the seed, and their training.

    Attributes:
        network: Stacked parameters and buffers [R, ...]. It cannot be called.
        diverged: Where each replica diverged that did. It stays in the stack with parameters of 0,
            because random numbers and rounding of the others depend on R.
        threads: PyTorch's number of threads for training and measuring, by default the current
            one. A checkpoint stores it.
        seconds_before: Training time of the checkpoint that the replicas resumed from.
        environments: Machine, versions and date of each process that trained them.
    """

    def __init__(self, configs: Sequence[TrainConfig], threads: int | None = None) -> None:
        _check(configs)
        self.configs = list(configs)
        self.config = configs[0]
        self.device = torch.device(self.config.device)
        self.tasks: list[Task] = [build_task(config) for config in configs]
        networks = [build_network(c, t) for c, t in zip(configs, self.tasks, strict=True)]
        self.template = networks[0]
        self.network = stacked(networks)
        self.steps_per_epoch = self.tasks[0].steps_per_epoch
        self.optimizer = build_optimizer(self.config, self.network)
        self.base_lrs = [float(group["lr"]) for group in self.optimizer.param_groups]
        self.step = 0
        self.diverged: dict[int, str] = {}
        self.seconds_before = 0.0
        self.environments: list[dict[str, Any]] = []
        self.threads = torch.get_num_threads() if threads is None else threads

    def __len__(self) -> int:
        return len(self.tasks)

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole training."""
        return self.config.epochs * self.steps_per_epoch

    def fit(self, checkpoint: Path | None = None) -> None:
        """Train to the last epoch, or until the last replica diverges.

        If the file `checkpoint` exists, training resumes from it. The file is written every
        CHECKPOINT_SECONDS and at the end. A resumed training uses as many threads as before, so it
        gives the same result, bit for bit on the same machine.
        """
        if checkpoint is not None:
            self._restore(checkpoint)
        began = saved = time.monotonic()
        cuda = [self.device] if self.device.type == "cuda" else []
        with on_threads(self.threads), torch.random.fork_rng(cuda):
            if self.step < self.steps and len(self.diverged) < len(self):
                self.environments.append(provenance(cuda))
            for batches in self._training():
                if len(self.diverged) == len(self):
                    break
                self.train_on(batches)
                if checkpoint is not None and time.monotonic() - saved > CHECKPOINT_SECONDS:
                    saved = time.monotonic()
                    self._save(checkpoint, saved - began)
        if checkpoint is not None:
            self._save(checkpoint, time.monotonic() - began)

    def _save(self, path: Path, seconds: float) -> None:
        """Write a checkpoint to `path` atomically; this process has trained for `seconds`.

        Learning rate and random numbers are functions of seed and step, so they have no state.
        """
        values = {
            "configs": [config.to_json() for config in self.configs],
            "model": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "diverged": self.diverged,
            "threads": self.threads,
            "seconds": self.seconds_before + seconds,
            "environments": self.environments,
        }
        save_values(path, FORMAT, values)

    def _restore(self, path: Path) -> None:
        """Go on from the checkpoint in `path`, if there is one that is not damaged.

        The replicas use as many threads as when it was written, unless their settings name a
        number.

        Raises:
            CheckpointError: If the checkpoint belongs to other networks; the message names what
                differs.
        """
        values = read(path, count=len(self), steps=self.steps)
        if values is None:
            return
        try:
            for stored, config in zip(values["configs"], self.configs, strict=True):
                check_same_settings(path, stored, config)
            load_weights(path, values["model"], self.network)
            load_optimizer(path, values["optimizer"], values["step"], self.optimizer)
        except CheckpointError as error:
            raise CheckpointError(f"{error}. Name another study folder with --out") from error
        self.step, self.diverged = values["step"], values["diverged"]
        if self.config.threads is None:
            self.threads = values.get("threads", self.threads)
        self.seconds_before = values.get("seconds", 0.0)
        self.environments = values.get("environments", [{}])

    def train_on(self, batches: Sequence[Batch]) -> list[dict[str, float]]:
        """Make one optimizer step on a batch of each replica.

        Returns:
            Loss and metrics of each replica; empty for those that diverged.
        """
        scale = lr_scale(self.config, self.step, self.steps_per_epoch)
        scale_rates(self.optimizer, self.base_lrs, scale)
        if self.config.dropout:
            torch.manual_seed(derived_seed(self.config.seed, "dropout", self.step))
        self.template.train()
        self.optimizer.zero_grad(set_to_none=True)
        where = f"at step {self.step + 1}"
        losses, values = self._measured(batches, lambda losses: losses.sum().backward())
        parameters = list(self.network.named_parameters())
        gradients = [(n, p.grad) for n, p in parameters if p.grad is not None]
        self._check([("loss", losses.detach())], "the {} is not finite " + where)
        self._check(gradients, "the gradient of {} is not finite " + where)
        for replica in self.diverged:
            for _, gradient in gradients:
                gradient[replica] = 0
        try:
            self.optimizer.step()
        except (OverflowError, RuntimeError) as error:
            if not overflows(error):
                raise
            for replica in self._left():  # all share the factors
                self._take_out(replica, f"a factor of the optimizer is not finite {where}")
        self._check(parameters, "the parameter {} is not finite " + where)
        state = list(optimizer_state(self.optimizer, self.network))
        self._check(state, "the optimizer's {} is not finite " + where)
        clamp_decays_(self.network)
        self.step += 1
        return [{} if replica in self.diverged else v for replica, v in enumerate(values)]

    def measure_split(self, split: str) -> list[dict[str, float]]:
        """Return means of loss and metrics over a split for each replica.

        Empty if the task has no such split, or if the replica diverged, in training or here.
        """
        means = [Means() for _ in self.tasks]
        self.template.eval()
        with on_threads(self.threads), torch.no_grad():
            for batches in self._batches(split):
                _, values = self._measured(batches)
                for replica in self._left():
                    samples = batches[replica].input.shape[1]
                    try:
                        means[replica].add(values[replica], samples, f"in split {split}")
                    except NonFiniteError as error:
                        self._take_out(replica, str(error))
        return [
            {} if replica in self.diverged else mean.values() for replica, mean in enumerate(means)
        ]

    def weights(self, replica: int) -> dict[str, Tensor]:
        """Return the state of one replica as that of a single network; 0 if it diverged."""
        state = self.network.state_dict()
        return {name: value[replica].clone() for name, value in state.items()}

    def _left(self) -> list[int]:
        """Return the replicas that have not diverged."""
        return [replica for replica in range(len(self)) if replica not in self.diverged]

    def _check(self, tensors: Sequence[tuple[str, Tensor]], message: str) -> None:
        """Remove each replica with NaN or infinity in its part of the named `tensors` [R, ...]."""
        if _first_non_finite(tensors) is None:  # usually only one number is read
            return
        for replica in self._left():
            name = _first_non_finite((name, value[replica]) for name, value in tensors)
            if name is not None:
                self._take_out(replica, message.format(name))

    @torch.no_grad()
    def _take_out(self, replica: int, reason: str) -> None:
        """Set parameters and moments of a replica to 0; they stay 0 without gradients."""
        self.diverged[replica] = reason
        for parameter in self.network.parameters():
            parameter[replica] = 0
        for _, value in optimizer_state(self.optimizer, self.network):
            value[replica] = 0

    def _measured(
        self, batches: Sequence[Batch], then: Callable[[Tensor], None] = lambda losses: None
    ) -> tuple[Tensor, list[dict[str, float]]]:
        """Return losses [R], and values of each replica, read after `then` as in `measure`."""
        inputs = torch.stack([batch.input for batch in batches])
        output, spikes = self._outputs(inputs)
        of_each = [
            (task, (output[replica], [layer[replica] for layer in spikes], batch.target))
            for replica, (task, batch) in enumerate(zip(self.tasks, batches, strict=True))
        ]
        losses = torch.stack([task.loss(*given) for task, given in of_each])
        then(losses)
        values = [
            {"loss": loss, **read_numbers(metrics_of(task, *given))}
            for loss, (task, given) in zip(losses.tolist(), of_each, strict=True)
        ]
        return losses, values

    def _outputs(self, inputs: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return outputs [R, T, B, out] and hidden spikes [R, T, B, J] of inputs [R, T, B, in]."""

        def one(tensors: dict[str, Tensor], values: Tensor) -> tuple[Tensor, list[Tensor]]:
            output, _, spikes = torch.func.functional_call(
                self.template, tensors, (values,), {"return_spikes": True}
            )
            return output, spikes if self.template.readout is not None else spikes[:-1]

        tensors = dict(self.network.named_parameters()) | dict(self.network.named_buffers())
        outputs: Any = torch.func.vmap(one, randomness="different")(tensors, inputs)
        return outputs  # type: ignore[no-any-return]

    def _training(self) -> Iterator[list[Batch]]:
        """Yield the remaining training batches of all epochs."""
        first, start = divmod(self.step, self.steps_per_epoch)
        for epoch in range(first, self.config.epochs):
            yield from self._batches("train", epoch, start if epoch == first else 0)

    def _batches(self, split: str, epoch: int = 0, start: int = 0) -> Iterator[list[Batch]]:
        """Yield one batch of each replica at a time, from number `start` on."""
        each = (task.batches(split, epoch, start) for task in self.tasks)
        for batches in zip(*each, strict=True):
            yield [batch.to(self.device) for batch in batches]


def stacked(networks: Sequence[SpikingNetwork]) -> SpikingNetwork:
    """Return a network with the parameters and buffers of `networks`, stacked [R, ...].

    It provides names, and parameters for an optimizer and `clamp_decays_`. It cannot be called.
    """
    whole = copy.deepcopy(networks[0])
    for name, module in whole.named_modules():
        others = [network.get_submodule(name) for network in networks]
        for key, parameter in module.named_parameters(recurse=False):
            values = torch.stack([getattr(other, key).detach() for other in others])
            setattr(module, key, nn.Parameter(values, requires_grad=parameter.requires_grad))
        for key, _ in module.named_buffers(recurse=False):
            setattr(module, key, torch.stack([getattr(other, key) for other in others]))
    return whole


def _first_non_finite(tensors: Iterable[tuple[str, Tensor]]) -> str | None:
    """Return the name of the first tensor with NaN or infinity, or None."""
    named = [(name, value.detach()) for name, value in tensors if value.is_floating_point()]
    # The largest magnitude is finite if and only if every value is. This reads one number.
    largest = nn.utils.get_total_norm([value for _, value in named], norm_type=math.inf)
    if math.isfinite(largest.item()):
        return None
    return next((name for name, value in named if not bool(value.isfinite().all())), None)


def _check(configs: Sequence[TrainConfig]) -> None:
    if not configs:
        raise ConfigError("configs: expected at least one network, got none")
    first = configs[0].to_json()
    others = [config.to_json() for config in configs[1:]]
    differ = [n for n in first if n != "seed" and any(o[n] != first[n] for o in others)]
    if differ:
        raise ConfigError(
            "configs: expected settings that differ only in the seed, got networks with different "
            f"{', '.join(differ)}"
        )
    if configs[0].clip is not None:
        raise ConfigError(
            "clip: expected no value because networks trained together share one gradient norm, "
            f"got {configs[0].clip!r}"
        )
