"""Loss and metrics of a batch, their means over a split, and how measures are shown."""

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, islice

import torch
from torch import Tensor

from hetsyn_triton.experiments.tasks import Batch, Task
from hetsyn_triton.graphed_step import NonFiniteError
from hetsyn_triton.modules import SpikingNetwork

from .ahead import on_device
from .errors import ConfigError
from .parallel import ALONE, Ranks

Numbers = Mapping[str, float | Tensor]
"""Numbers by name, some of them as tensors with one element, which stay on their device."""


class Means:
    """Running means of named values, weighted by the samples of each batch."""

    def __init__(self, sums: Mapping[str, float] | None = None) -> None:
        self._sums: dict[str, float | Tensor] = dict(sums or {})

    def add(self, values: Numbers, samples: int, where: str = "") -> None:
        """Add the means of one batch.

        Tensors are added in float64 on their device, without a check.

        Raises:
            NonFiniteError: If a number is not finite; the message names it, and `where`.
        """
        for name, value in {**values, "samples": 1.0}.items():
            if isinstance(value, Tensor):
                value = value.double()
            elif not math.isfinite(value):
                raise NonFiniteError(f"the mean of {name} over a batch is {value} {where}".strip())
            self._sums[name] = self._sums.get(name, 0.0) + value * samples

    @property
    def sums(self) -> dict[str, float]:
        """The sums so far, read from their device."""
        return read_numbers(self._sums)

    @property
    def samples(self) -> int:
        """Number of samples so far."""
        return int(self._sums.get("samples", 0))

    def values(self) -> dict[str, float]:
        """Return the means so far; empty before the first batch."""
        sums = self.sums
        samples = sums.pop("samples", None)
        return {} if samples is None else {name: total / samples for name, total in sums.items()}


def read_numbers(values: Numbers) -> dict[str, float]:
    """Return numbers; tensors are read together, because each read on a GPU waits."""
    tensors = {name: value for name, value in values.items() if isinstance(value, Tensor)}
    found = torch.stack([t.double() for t in tensors.values()]).tolist() if tensors else []
    return {n: float(v) for n, v in {**values, **dict(zip(tensors, found, strict=True))}.items()}


def run_network(network: SpikingNetwork, values: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Return the output [T, B, out] and the spikes [T, B, J] of each hidden layer."""
    output, _, spikes = network(values, return_spikes=True)
    return output, spikes if network.readout is not None else spikes[:-1]


def measure(
    task: Task,
    network: SpikingNetwork,
    batch: Batch,
    ranks: Ranks = ALONE,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return loss and metrics of `batch`, on its device.

    The metric "rate" is the mean number of spikes per hidden neuron and step. Each of `ranks`
    computes its own samples; loss and metrics are those of the whole batch.
    """
    samples = batch.input.shape[1]
    output, spikes = run_network(network, batch.input[:, ranks.own(samples)])
    output = ranks.whole(output, samples)
    spikes = [ranks.whole(layer, samples, spikes=True) for layer in spikes]
    loss = task.loss(output, spikes, batch.target)
    return loss, metrics_of(task, output, spikes, batch.target)


def metrics_of(
    task: Task, output: Tensor, spikes: Sequence[Tensor], target: Tensor
) -> dict[str, Tensor]:
    """Return the task's metrics and "rate" of an output [T, B, out] and the hidden spikes."""
    with torch.no_grad():
        quiet = [layer.detach() for layer in spikes]
        metrics = task.metrics(output.detach(), quiet, target)
        if task.score is not None and task.score not in metrics:
            raise ConfigError(
                f"metrics: expected the score {task.score!r} of {task.name}, "
                f"got {', '.join(metrics) or 'none'}"
            )
        for name, value in metrics.items():
            if not isinstance(value, Tensor):
                raise ConfigError(
                    f"metrics: expected a tensor with one element for {name!r} of {task.name}, "
                    f"got {type(value).__name__}"
                )
        spikes_per_step = output.new_zeros((), dtype=torch.float64)
        for layer in quiet:
            spikes_per_step = spikes_per_step + layer.mean().double() * layer.shape[-1]
        neurons = sum(layer.shape[-1] for layer in quiet)
    return {**metrics, "rate": spikes_per_step / max(1, neurons)}


def measure_split(
    task: Task,
    network: SpikingNetwork,
    split: str,
    device: torch.device | str,
    ranks: Ranks = ALONE,
    where: str = "",
) -> dict[str, float]:
    """Return the means of `split_means` by name; empty if the task has no such split."""
    return split_means(task, network, split, device, ranks, where).values()


def split_means(
    task: Task,
    network: SpikingNetwork,
    split: str,
    device: torch.device | str,
    ranks: Ranks = ALONE,
    where: str = "",
) -> Means:
    """Return means over a whole split in evaluation mode, without samples if it does not exist.

    `ranks` share the batches; the means are bit-identical to those of one process.

    Raises:
        NonFiniteError: If a mean is not finite; the message names it, and `where`.
    """
    results: list[tuple[int, int, dict[str, float]]] = []  # place, samples, means
    training = network.training
    network.eval()
    try:
        with torch.no_grad():
            own = islice(task.batches(split), ranks.rank, None, ranks.size)
            for number, batch in enumerate(on_device(own, device)):
                loss, metrics = measure(task, network, batch)
                values = read_numbers({"loss": loss, **metrics})
                place = ranks.rank + number * ranks.size
                results.append((place, batch.input.shape[1], values))
    finally:
        network.train(training)
    means = Means()
    for _, samples, values in sorted(chain.from_iterable(ranks.gather(results))):
        means.add(values, samples, f"in split {split} {where}")
    return means


def shown_name(name: str) -> str:
    """Return the name of a measure as tables and pictures show it, such as "rate hz".

    It is the key of the measure with spaces, so each measure has the same name everywhere.
    """
    return name.replace("_validation_selected", " validation-selected").replace("_", " ")


def shown_measures(names: Iterable[str]) -> list[str]:
    """Return the measures that tables show: `rate`, per step, is left out beside `rate_hz`."""
    names = list(names)
    return [name for name in names if name != "rate" or "rate_hz" not in names]


def format_metric(name: str, value: float) -> str:
    """Format an accuracy in percent and any other measure with four digits."""
    return f"{100 * value:.2f} %" if name.endswith("accuracy") else f"{value:.4g}"
