"""Loss and metrics of a batch, and their means over a split."""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import chain, islice

import torch
from torch import Tensor

from hetsyn_triton.modules import SpikingNetwork
from hetsyn_triton.tasks import Batch, Task

from .ahead import on_device
from .errors import ConfigError, NonFiniteError
from .parallel import ALONE, Ranks


class Means:
    """Running means of named values, weighted by how many samples each batch has."""

    def __init__(self, sums: Mapping[str, float] | None = None) -> None:
        self.sums: dict[str, float] = dict(sums or {})

    def add(self, values: Mapping[str, float], samples: int, where: str = "") -> None:
        """Count the means of one batch; NonFiniteError, naming it and `where`, for one that is not
        finite."""
        for name, value in {**values, "samples": 1.0}.items():
            if not math.isfinite(value):
                raise NonFiniteError(f"the mean of {name} over a batch is {value} {where}".strip())
            self.sums[name] = self.sums.get(name, 0.0) + float(value) * samples

    @property
    def samples(self) -> int:
        """How many samples are counted."""
        return int(self.sums.get("samples", 0))

    def values(self) -> dict[str, float]:
        """The means so far; empty before the first batch."""
        samples = self.sums.get("samples")
        if samples is None:
            return {}
        return {name: total / samples for name, total in self.sums.items() if name != "samples"}


Run = Callable[[SpikingNetwork, Tensor], tuple[Tensor, list[Tensor]]]
"""What gives output and hidden spikes of a network, as `run_network`."""


def run_network(network: SpikingNetwork, values: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Output [T, B, out] and the spikes [T, B, J] of each hidden layer."""
    output, _, spikes = network(values, return_spikes=True)
    return output, spikes if network.readout is not None else spikes[:-1]


def measure(
    task: Task,
    network: SpikingNetwork,
    batch: Batch,
    ranks: Ranks = ALONE,
    run: Run = run_network,
    then: Callable[[Tensor], None] = lambda loss: None,
) -> tuple[Tensor, dict[str, float]]:
    """Loss and metrics of `batch`, among them "rate", the spikes per hidden neuron and step.

    Each of `ranks` computes its own samples; loss and metrics are those of the whole batch. `then`
    is called with the loss before metrics are read, for which a GPU has to end what is queued.
    """
    samples = batch.input.shape[1]
    output, spikes = run(network, batch.input[:, ranks.own(samples)])
    output = ranks.whole(output, samples)
    spikes = [ranks.whole(layer, samples, spikes=True) for layer in spikes]
    loss = task.loss(output, spikes, batch.target)
    then(loss)
    return loss, metrics_of(task, output, spikes, batch.target)


def metrics_of(
    task: Task, output: Tensor, spikes: Sequence[Tensor], target: Tensor
) -> dict[str, float]:
    """The task's metrics, and "rate", of an output [T, B, out] and the hidden spikes."""
    with torch.no_grad():
        quiet = [layer.detach() for layer in spikes]
        metrics = task.metrics(output.detach(), quiet, target)
        if task.score is not None and task.score not in metrics:
            raise ConfigError(
                f"metrics: expected of {task.name} its score {task.score!r} among them, "
                f"got {', '.join(metrics) or 'none'}"
            )
        sizes = [layer.shape[-1] for layer in quiet]
        # read together: on a GPU each reading waits
        rates = torch.stack([layer.mean() for layer in quiet]).tolist() if quiet else []
        rate = sum(r * size for r, size in zip(rates, sizes, strict=True)) / max(1, sum(sizes))
    return {**metrics, "rate": rate}


def measure_split(
    task: Task,
    network: SpikingNetwork,
    split: str,
    device: torch.device | str,
    ranks: Ranks = ALONE,
    where: str = "",
) -> dict[str, float]:
    """The means of `split_means`, by name; empty where the task has no such split."""
    return split_means(task, network, split, device, ranks, where).values()


def split_means(
    task: Task,
    network: SpikingNetwork,
    split: str,
    device: torch.device | str,
    ranks: Ranks = ALONE,
    where: str = "",
) -> Means:
    """Means over a whole split in evaluation mode; of no sample where the task has no such split.

    `ranks` share the batches; the means are those of one process, bit for bit. NonFiniteError names
    what is not finite, and `where`.
    """
    results: list[tuple[int, int, dict[str, float]]] = []  # place, samples, means
    training = network.training
    network.eval()
    try:
        with torch.no_grad():
            own = islice(task.batches(split), ranks.rank, None, ranks.size)
            for number, batch in enumerate(on_device(own, device)):
                loss, metrics = measure(task, network, batch)
                values = {"loss": loss.item(), **metrics}
                place = ranks.rank + number * ranks.size
                results.append((place, batch.input.shape[1], values))
    finally:
        network.train(training)
    means = Means()
    for _, samples, values in sorted(chain.from_iterable(ranks.gather(results))):
        means.add(values, samples, f"of {split} {where}")
    return means


def format_metric(name: str, value: float) -> str:
    """A fraction called accuracy in per cent, anything else with four digits."""
    return f"{100 * value:.2f} %" if name.endswith("accuracy") else f"{value:.4g}"
