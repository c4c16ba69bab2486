"""Tasks that classify samples in memory."""

import math
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from .base import Batch, Task
from .readouts import READOUTS, SPIKING
from .seeds import seeded_generator


class Samples(NamedTuple):
    """`values` [n, ...] in the form that `encode` takes, and `labels` [n]."""

    values: Tensor
    labels: Tensor


class Classification(Task):
    """Classify with cross-entropy on `logits(output)`; the score is the accuracy.

    A subclass implements `load` and `encode`, and optionally `augment`. The setting `readout`, one
    of `READOUTS`, chooses how class scores are computed. It defaults to "mean" or the value in
    `defaults`; "spike-count" makes the output spiking. Training samples are shuffled in each epoch,
    and the last batch may be smaller.
    """

    scores_classes = True
    split_options: ClassVar[frozenset[str]] = frozenset({"validation"})
    first_step: ClassVar[int] = 0  # first step that counts in the class scores
    score: ClassVar[str | None] = "accuracy"
    drawn_metrics: ClassVar[tuple[str, ...]] = ("accuracy",)
    evaluation_batch_size: ClassVar[int] = 256
    _splits: dict[str, Samples] | None = None

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        if self.spiking_output:
            self.trace_label = "spike count"

    @property
    def spiking_output(self) -> bool:
        return self.readout in SPIKING

    @abstractmethod
    def load(self) -> dict[str, Samples]:
        """Return the samples of each split; "validation" may be missing."""

    @abstractmethod
    def encode(self, values: Tensor) -> Tensor:
        """Return `values` of B samples as network input [T, B, in_features]."""

    def augment(self, values: Tensor, generator: torch.Generator) -> Tensor:
        """Return randomly changed training `values` of B samples; no change by default."""
        return values

    def logits(self, output: Tensor) -> Tensor:
        """Return class scores [B, classes] of `output` [T, B, classes], as `readout` says."""
        if len(output) <= self.first_step:
            raise ValueError(
                f"output: expected more than {self.first_step} steps because {self.name} ignores "
                f"the first {self.first_step}, got {len(output)}"
            )
        return READOUTS[self.readout](output[self.first_step :])

    @property
    def splits(self) -> dict[str, Samples]:
        """The samples by split, loaded at the first use."""
        if self._splits is None:
            self._splits = self.load()
        return self._splits

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(len(self.splits["train"].labels) / self.batch_size)

    def batches(self, split: str, epoch: int = 0, start: int = 0) -> Iterator[Batch]:
        samples = self.splits.get(split)
        if samples is None:
            return
        count = len(samples.labels)
        if split == "train":
            size = self.batch_size
            order = torch.randperm(count, generator=seeded_generator(self.seed, "order", epoch))
        else:
            size = self.evaluation_batch_size
            order = torch.arange(count)
        for number in range(start, math.ceil(count / size)):
            chosen = order[number * size : (number + 1) * size]
            values = samples.values[chosen]
            if split == "train":
                values = self.augment(values, seeded_generator(self.seed, "augment", epoch, number))
            yield Batch(self.encode(values), samples.labels[chosen])

    def loss(self, output: Tensor, spikes: Sequence[Tensor], target: Tensor) -> Tensor:
        return torch.nn.functional.cross_entropy(self.logits(output), target)

    def metrics(
        self, output: Tensor, spikes: Sequence[Tensor], target: Tensor
    ) -> dict[str, Tensor]:
        correct = self.logits(output).argmax(1) == target
        return {"accuracy": correct.double().mean()}

    def sample(self) -> Batch:
        """Return the first test sample of class seed mod classes, or the first one."""
        samples = self.splits["test"]
        row = int((samples.labels == self.seed % self.out_features).int().argmax())
        return Batch(self.encode(samples.values[row : row + 1]), samples.labels[row : row + 1])

    def caption(self, output: Tensor, target: Tensor) -> str:
        found = int(self.logits(output).argmax(1))
        return f"{self.name}: class {int(target)}, predicted {found}"

    def trace(self, output: Tensor) -> Tensor:
        return output[:, 0].cumsum(0) if self.spiking_output else output[:, 0]

    def highlight(self, target: Tensor) -> int | None:
        return int(target)
