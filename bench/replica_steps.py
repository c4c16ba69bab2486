"""Training steps of many small networks, sequential or together through the replica axis.

The networks have one shape and differ in the seed. Both contenders start with the same weights and
get the same batches of the delayed-match task, so their weights stay bit-identical (`check`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from bench.registry import TOGETHER, Work
from hetsyn_triton import GraphedStep, SpikingNetwork
from hetsyn_triton.experiments.studies.replicas import Replicas
from hetsyn_triton.experiments.tasks import Batch, Task
from hetsyn_triton.experiments.training import TrainConfig, default_config
from hetsyn_triton.experiments.training.build import build_network, build_optimizer, build_task
from hetsyn_triton.experiments.training.measure import measure

TASK = "delayed-match"


def configs(work: Work, device: torch.device) -> list[TrainConfig]:
    """Return a configuration for each of R seeds."""
    given: dict[str, Any] = {"hidden": (work.J,), "recurrent": work.recurrent}
    given |= {"batch_size": work.B, "device": str(device)}
    return [default_config(TASK, seed=seed, **given) for seed in range(work.R)]


def batches(work: Work, device: torch.device) -> list[Batch]:
    """Return the first T steps of the first batch of each seed."""
    found = [next(iter(build_task(c).batches("train", 0))) for c in configs(work, device)]
    return [Batch(b.input[: work.T].to(device), b.target.to(device)) for b in found]


def together(work: Work, device: torch.device) -> tuple[Replicas, Callable[[], Any]]:
    trained, given = Replicas(configs(work, device)), batches(work, device)
    return trained, lambda: trained.train_on(given)


def one_by_one(work: Work, device: torch.device) -> tuple[list[SpikingNetwork], Callable[[], Any]]:
    """Make the steps of `hetsyn train`, without its log and checkpoints."""
    networks, steps = [], []
    for config, batch in zip(configs(work, device), batches(work, device), strict=True):
        task = build_task(config)
        network = build_network(config, task).train()
        networks.append(network)
        optimizer = build_optimizer(config, network)
        step = GraphedStep(network, partial(_loss, task), optimizer, None)
        steps.append(partial(step, *batch))

    def run() -> None:
        for step in steps:
            step()

    return networks, run


def _loss(task: Task, network: nn.Module, values: Tensor, target: Tensor) -> Any:
    return measure(task, cast(SpikingNetwork, network), Batch(values, target))


def training(work: Work, name: str, device: torch.device) -> tuple[Callable[[], Any], list[Tensor]]:
    """Return a training step of all networks, and their parameters."""
    if name == TOGETHER:
        trained, run = together(work, device)
        return run, list(trained.network.parameters())
    networks, run = one_by_one(work, device)
    return run, [p for network in networks for p in network.parameters()]


def check(work: Work, device: torch.device, steps: int = 2) -> None:
    """Raise AssertionError unless training together and sequentially gives the same weights."""
    trained, all_at_once = together(work, device)
    networks, sequential = one_by_one(work, device)
    for _ in range(steps):
        all_at_once()
        sequential()
    for replica, network in enumerate(networks):
        found = trained.weights(replica)
        for name, value in network.state_dict().items():
            assert torch.equal(found[name], value), f"replica {replica}: {name} differs"
