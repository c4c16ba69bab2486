"""Loss and metrics of a batch, and their means over a split."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from hetsyn_triton.modules import SpikingNetwork
from hetsyn_triton.tasks import Batch, Task

from .errors import NonFiniteError


class Means:
    """Running means of named values, weighted by how many samples each batch has."""

    def __init__(self, sums: Mapping[str, float] | None = None) -> None:
        self.sums: dict[str, float] = dict(sums or {})

    def add(self, values: Mapping[str, float], samples: int) -> None:
        """Count the means of one batch; NonFiniteError, naming it, for one that is not finite."""
        for name, value in {**values, "samples": 1.0}.items():
            if not math.isfinite(value):
                raise NonFiniteError(f"the mean of {name} over a batch is {value}")
            self.sums[name] = self.sums.get(name, 0.0) + float(value) * samples

    def values(self) -> dict[str, float]:
        """The means so far; empty before the first batch."""
        samples = self.sums.get("samples")
        if samples is None:
            return {}
        return {name: total / samples for name, total in self.sums.items() if name != "samples"}


def run_network(network: SpikingNetwork, values: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Output [T, B, out] and the spikes [T, B, J] of each hidden layer."""
    output, _, spikes = network(values, return_spikes=True)
    return output, spikes if network.readout is not None else spikes[:-1]


def measure(task: Task, network: SpikingNetwork, batch: Batch) -> tuple[Tensor, dict[str, float]]:
    """Loss and metrics of `batch`, among them "rate", the spikes per hidden neuron and step."""
    output, spikes = run_network(network, batch.input)
    loss = task.loss(output, spikes, batch.target)
    with torch.no_grad():
        quiet = [layer.detach() for layer in spikes]
        metrics = task.metrics(output.detach(), quiet, batch.target)
        neurons = sum(layer.shape[-1] for layer in quiet)
        rate = sum(layer.mean().item() * layer.shape[-1] for layer in quiet) / max(1, neurons)
    return loss, {**metrics, "rate": rate}


def measure_split(
    task: Task, network: SpikingNetwork, split: str, device: torch.device | str
) -> dict[str, float]:
    """Means over a whole split in evaluation mode; empty where the task has no such split."""
    means = Means()
    training = network.training
    network.eval()
    try:
        with torch.no_grad():
            for batch in task.batches(split):
                moved = Batch(batch.input.to(device), batch.target.to(device))
                loss, metrics = measure(task, network, moved)
                if not math.isfinite(loss.item()):
                    raise NonFiniteError(f"the {split} loss is {loss.item()}")
                means.add({"loss": loss.item(), **metrics}, moved.input.shape[1])
    finally:
        network.train(training)
    return means.values()


def format_metric(name: str, value: float) -> str:
    """A fraction called accuracy in per cent, anything else with four digits."""
    return f"{100 * value:.2f} %" if name.endswith("accuracy") else f"{value:.4g}"
