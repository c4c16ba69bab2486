"""Delayed match-to-sample: decide whether two cues, a long delay apart, match.

This is the second experiment of the HetSyn paper (arXiv 2508.11644). The paper does not specify the
step of the cross-entropy; here it is the last step, where the two readouts are compared.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from .base import Batch, Span
from .classification import Classification, Samples
from .options import Option, integer, number
from .rates import firing_rates, poisson_spikes, rate_penalty
from .seeds import seeded_generator

DT_MS = 5
SILENCE = 50 // DT_MS  # steps before the first cue
CUE = 100 // DT_MS  # steps of each cue
GROUP = 10  # channels of the left cue, of the right cue, and of the noise
LONGEST_MS = 20_000
RATE_HZ = 10.0
RATE_WEIGHT = 0.01
TRIALS = {"validation": 500, "test": 2000}  # a quarter for each pair of cues
WORDS = ("mismatch", "match")
DELAY = Option(
    800,
    lambda v: type(v) is int and 0 <= v <= LONGEST_MS and v % DT_MS == 0,
    f"a multiple of {DT_MS} from 0 to {LONGEST_MS}",
    "ms between the cues",
)


class DelayedMatch(Classification):
    """Classify 30 Poisson channels as "mismatch" (0) or "match" (1), in steps of 5 ms.

    After 50 ms of silence, the ten channels of the left or of the right cue fire at `cue_hz` for
    100 ms. After another `delay` ms, a second cue follows, and the trial ends with it (210 steps by
    default). The four pairs of cues are equally likely; equal cues match. Ten more channels fire at
    `noise_hz` all the time.

    Every training batch has new trials, and an epoch is `iterations` batches. 500 validation and
    2,000 test trials come from separate random streams.

    Metrics:
        accuracy: Fraction of correct trials.
        rate_hz: Mean firing rate of the hidden neurons in Hz.
    """

    name = "delayed-match"
    in_features = 3 * GROUP
    out_features = 2
    class_names = WORDS
    input_label = "channel"
    time_unit = "ms"
    step_label = f"steps of {DT_MS} ms"
    defaults: ClassVar[Mapping[str, Any]] = {
        "hidden": (100,),
        "epochs": 20,
        "batch_size": 32,
        "optimizer": "adam",
        "lr": 5e-3,
        "decay_lr": 5e-3,
        "schedule": "step",
        "step_every": 100,
        "step_factor": 0.8,
        "warmup": 0.0,
        "readout": "last",
        "surrogate": "triangular",
        "dt": float(DT_MS),
        "tau": "normal(40,4)",
        "tau_reset": 40.0,
        "tau_adaptation": 800.0,
        "adaptation": 0.15,
    }
    options: ClassVar[Mapping[str, Option]] = {
        "delay": DELAY,
        # at most a spike in every step
        "noise_hz": number(10.0, 0, 1000 / DT_MS, "rate of the noise channels in Hz"),
        "cue_hz": number(40.0, 0, 1000 / DT_MS, "rate of a cue in Hz"),
        "iterations": integer(50, 1, 1_000_000, "batches per epoch"),
    }

    @property
    def second_cue(self) -> int:
        """The first step of the second cue."""
        return SILENCE + CUE + int(self.option["delay"]) // DT_MS

    @property
    def steps_per_epoch(self) -> int:
        return int(self.option["iterations"])

    def load(self) -> dict[str, Samples]:
        return {
            split: self._trials(torch.arange(count) % 4, seeded_generator(self.seed, split))
            for split, count in TRIALS.items()
        }

    def batches(self, split: str, epoch: int = 0, start: int = 0) -> Iterator[Batch]:
        if split != "train":
            yield from super().batches(split, epoch, start)
            return
        for index in range(start, self.steps_per_epoch):
            generator = seeded_generator(self.seed, "trials", epoch, index)
            pairs = torch.randint(0, 4, (self.batch_size,), generator=generator)
            values, labels = self._trials(pairs, generator)
            yield Batch(self.encode(values), labels)

    def _trials(self, pairs: Tensor, generator: torch.Generator) -> Samples:
        """Return boolean spikes [n, T, 30] of trials with cues `pairs` [n], and whether they match.

        The pairs are left-left, left-right, right-left and right-right.
        """
        count, first, second = len(pairs), pairs // 2, pairs % 2
        spikes = torch.zeros(count, self.second_cue + CUE, self.in_features, dtype=torch.bool)
        for start, side in ((SILENCE, first), (self.second_cue, second)):
            shape = (count, CUE, GROUP)
            cue = poisson_spikes(shape, self.option["cue_hz"], DT_MS, generator).bool()
            shown = spikes[:, start : start + CUE, : 2 * GROUP].unflatten(2, (2, GROUP))
            shown[torch.arange(count), :, side] = cue
        shape = (count, spikes.shape[1], GROUP)
        noise = poisson_spikes(shape, self.option["noise_hz"], DT_MS, generator)
        spikes[:, :, 2 * GROUP :] = noise.bool()
        return Samples(spikes, (first == second).long())

    def encode(self, values: Tensor) -> Tensor:
        return values.transpose(0, 1).float()

    def loss(self, output: Tensor, spikes: Sequence[Tensor], target: Tensor) -> Tensor:
        penalty = rate_penalty(spikes, DT_MS, RATE_HZ)
        return super().loss(output, spikes, target) + RATE_WEIGHT * penalty

    def metrics(
        self, output: Tensor, spikes: Sequence[Tensor], target: Tensor
    ) -> dict[str, Tensor]:
        accuracy = super().metrics(output, spikes, target)
        return {**accuracy, "rate_hz": firing_rates(spikes, DT_MS).mean()}

    def caption(self, output: Tensor, target: Tensor) -> str:
        found = int(self.logits(output).argmax(1))
        return f"{self.name}: {WORDS[int(target)]}, predicted {WORDS[found]}"

    def spans(self) -> list[Span]:
        starts = (SILENCE, self.second_cue)
        return [Span(start, start + CUE, f"cue {n}") for n, start in enumerate(starts, 1)]
