"""Multi-timescale XOR: keep one signal for the whole trial, and forget the other each time."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from .base import Batch, Span, Task
from .options import Option, integer, number
from .seeds import seeded_generator

GROUP = 20  # channels of each signal
ON = 10  # steps that a signal lasts
OFF = 5  # silent steps before each signal 2
SHOWN = 6  # how often signal 2 is shown
STEPS = ON + SHOWN * (OFF + ON)
RATES = torch.tensor([0.2, 0.6])  # probability of a spike per channel and step: low, high
EVALUATION = {"validation": 2, "test": 8}  # batches of EVALUATION_SIZE trials
EVALUATION_SIZE = 256
NO_LABEL = -100  # target of the steps that do not count, as in torch's cross_entropy


class MultiTimescaleXOR(Task):
    """Two groups of 20 channels in, the XOR of two signals out, at every step of the second.

    Signal 1 fills the first 10 of 100 steps. Then signal 2 is shown six times, each time after 5
    silent steps, for 10 steps and with a new value. A signal is low or high: each of its channels
    spikes with probability 0.2 or 0.6 per step. All channels also spike with probability `noise`
    per step. The label at each step of a signal 2 is the XOR of signal 1 and this signal 2; the
    other steps have none. Loss (cross-entropy) and accuracy are means over the labeled steps.

    An epoch is `iterations` batches of new trials. 512 validation and 2,048 test trials are the
    same in every epoch.

    References:
        Zheng et al. 2024, Nature Communications 15, 277 (DH-SNN), on temporal heterogeneity.
    """

    name = "multi-timescale-xor"
    in_features = 2 * GROUP
    out_features = 2
    score: ClassVar[str | None] = "accuracy"
    drawn_metrics: ClassVar[tuple[str, ...]] = ("accuracy",)
    input_label = "channel"
    trace_label = "probability of 1"
    defaults: ClassVar[Mapping[str, Any]] = {
        "hidden": (32,),
        "recurrent": False,
        "epochs": 16,
        "batch_size": 64,
        "lr": 5e-3,
        "clip": 1.0,
        "tau": "log-uniform(2,100)",
        "tau_readout": "log-uniform(2,20)",
        "threads": 1,  # small networks: more threads gain little
    }
    options: ClassVar[Mapping[str, Option]] = {
        "iterations": integer(50, 1, 1_000_000, "batches per epoch"),
        "noise": number(0.01, 0, 1, "probability of a noise spike per channel and step"),
    }

    @property
    def steps_per_epoch(self) -> int:
        return int(self.option["iterations"])

    def batches(self, split: str, epoch: int = 0, start: int = 0) -> Iterator[Batch]:
        train = split == "train"
        count = self.steps_per_epoch if train else EVALUATION.get(split, 0)
        for index in range(start, count):
            stream = (split, epoch, index) if train else (split, index)
            size = self.batch_size if train else EVALUATION_SIZE
            yield self._trials(size, seeded_generator(self.seed, *stream))

    def _trials(self, size: int, generator: torch.Generator) -> Batch:
        first = torch.randint(0, 2, (size,), generator=generator)
        second = torch.randint(0, 2, (SHOWN, size), generator=generator)
        rate = torch.zeros(STEPS, size, self.in_features)
        target = torch.full((size, STEPS), NO_LABEL)
        rate[:ON, :, :GROUP] = RATES[first].unsqueeze(1)
        for value, (start, stop, _) in zip(second, self.spans()[1:], strict=True):
            rate[start:stop, :, GROUP:] = RATES[value].unsqueeze(1)
            target[:, start:stop] = (first ^ value).unsqueeze(1)
        probability = 1 - (1 - rate) * (1 - self.option["noise"])  # by the signal or by noise
        spikes = torch.rand(rate.shape, generator=generator) < probability
        return Batch(spikes.float(), target)

    def loss(self, output: Tensor, spikes: Sequence[Tensor], target: Tensor) -> Tensor:
        scores = output.permute(1, 2, 0)
        return torch.nn.functional.cross_entropy(scores, target, ignore_index=NO_LABEL)

    def metrics(
        self, output: Tensor, spikes: Sequence[Tensor], target: Tensor
    ) -> dict[str, Tensor]:
        labeled = target != NO_LABEL
        correct = (target == output.argmax(2).T) & labeled
        return {"accuracy": correct.sum().double() / labeled.sum()}

    def caption(self, output: Tensor, target: Tensor) -> str:
        accuracy = self.metrics(output, [], target)["accuracy"]
        return f"{self.name}: {100 * accuracy:.0f} % of the labeled steps correct"

    def trace(self, output: Tensor) -> Tensor:
        return output[:, 0].softmax(1)[:, 1:]

    def wanted(self, target: Tensor) -> Tensor | None:
        return target[0].float().masked_fill(target[0] == NO_LABEL, torch.nan).unsqueeze(1)

    def spans(self) -> list[Span]:
        """Signal 1, then each signal 2."""
        starts = range(ON + OFF, STEPS, ON + OFF)
        return [Span(0, ON, "signal 1"), *(Span(at, at + ON, "signal 2") for at in starts)]
