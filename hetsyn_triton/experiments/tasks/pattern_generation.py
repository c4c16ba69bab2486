"""Pattern generation: turn a recurring burst of input spikes into a smooth curve.

This is the first experiment of the HetSyn paper (arXiv 2508.11644).
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any, ClassVar

import torch
from torch import Tensor

from .base import Batch, Span, Task
from .options import Option, integer, number
from .rates import firing_rates, poisson_spikes, rate_penalty
from .seeds import seeded_generator

DT_MS = 1.0
STEPS = 2000
SEGMENT = 500  # steps of the frozen burst
STARTS = (0, 750, 1500)  # three presentations, 250 ms apart
SEGMENT_HZ = 10.0
BASE_HZ = 0.5
COSINES = 5
RATE_HZ = 10.0
RATE_WEIGHT = 0.01
TEST_DRAWS = 10


class PatternGeneration(Task):
    """Turn 100 Poisson channels into one curve of 2 s.

    A frozen segment of 500 ms at 10 Hz is shown three times. Every trial adds new background noise
    of `noise_hz`. The curve is a sum of five cosines of 0.5 to 2.5 Hz, scaled to [-1, 1]. The seed
    determines segment and curve. An epoch is `iterations` batches. `curves` is the number of curves
    and outputs.

    Metrics:
        mse: Mean squared error between output and target curve.
        distance: Difference of the output between presentations (`normalized_distance`).
        rate_hz: Mean firing rate of the hidden neurons in Hz.
    """

    name = "pattern-generation"
    in_features = 100
    score: ClassVar[str | None] = "mse"
    score_falls = True
    drawn_metrics: ClassVar[tuple[str, ...]] = ("mse", "distance")
    time_unit = "ms"
    defaults: ClassVar[Mapping[str, Any]] = {
        "hidden": (100,),
        "epochs": 20,
        "batch_size": 1,
        "optimizer": "adam",
        "lr": 1e-3,
        "decay_lr": 1e-3,
        "schedule": "step",
        "warmup": 0.0,
        "surrogate": "triangular",
        "tau": "normal(20,5)",
        "tau_reset": 20.0,
        "tau_adaptation": 500.0,
        "adaptation": 0.01,
        "threads": 1,  # one sample cannot be divided
    }
    options: ClassVar[Mapping[str, Option]] = {
        # at most a spike in every step
        "noise_hz": number(2.0, 0, 1000 / DT_MS, "background rate in Hz"),
        "iterations": integer(50, 1, 1_000_000, "batches per epoch"),
        "curves": integer(1, 1, 1000, "number of outputs"),
    }

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.out_features = self.option["curves"]
        generator = seeded_generator(self.seed, "pattern")
        self.segment = poisson_spikes((SEGMENT, self.in_features), SEGMENT_HZ, DT_MS, generator)
        self.curve = torch.stack([_curve(generator) for _ in range(self.out_features)], dim=1)

    @property
    def steps_per_epoch(self) -> int:
        return int(self.option["iterations"])

    def batches(self, split: str, epoch: int = 0, start: int = 0) -> Iterator[Batch]:
        if split == "train":
            for number in range(start, self.steps_per_epoch):
                stream = ("noise", epoch, number)
                yield self._batch(self.batch_size, seeded_generator(self.seed, *stream))
        elif start == 0:
            yield self._batch(TEST_DRAWS, seeded_generator(self.seed, "noise", split))

    def _batch(self, size: int, generator: torch.Generator) -> Batch:
        noise_hz = self.option["noise_hz"]
        spikes = poisson_spikes((STEPS, size, self.in_features), noise_hz, DT_MS, generator)
        for first in STARTS:
            shown = spikes[first : first + SEGMENT]
            torch.maximum(shown, self.segment.unsqueeze(1), out=shown)
        return Batch(spikes, self.curve.expand(size, STEPS, self.out_features))

    def loss(self, output: Tensor, spikes: Sequence[Tensor], target: Tensor) -> Tensor:
        error = torch.nn.functional.mse_loss(output, target.transpose(0, 1))
        return error + RATE_WEIGHT * rate_penalty(spikes, DT_MS, RATE_HZ)

    def metrics(
        self, output: Tensor, spikes: Sequence[Tensor], target: Tensor
    ) -> dict[str, Tensor]:
        wanted = target.transpose(0, 1)
        return {
            "mse": torch.nn.functional.mse_loss(output, wanted),
            "distance": normalized_distance(output, wanted),
            "rate_hz": firing_rates(spikes, DT_MS).mean(),
        }

    def caption(self, output: Tensor, target: Tensor) -> str:
        values = self.metrics(output, [output.new_zeros(1, 1, 1)], target)
        return f"{self.name}: mse {values['mse']:.3f}"

    def wanted(self, target: Tensor) -> Tensor | None:
        return target[0]

    def spans(self) -> list[Span]:
        return [Span(first, first + SEGMENT, "segment") for first in STARTS]


def normalized_distance(output: Tensor, target: Tensor) -> Tensor:
    """Return the difference of the output between two presentations, relative to the target.

    This is MSE(output_a, output_b) / MSE(target_a, target_b) for `output` and `target` [T, B, out],
    averaged over the three pairs of presentations. 1 is ideal; 0 means that every presentation
    gives the same curve.
    """
    ratios = []
    for a, b in combinations(STARTS, 2):
        moved = [curve[a : a + SEGMENT] - curve[b : b + SEGMENT] for curve in (output, target)]
        ratios.append(moved[0].square().mean() / moved[1].square().mean())
    return torch.stack(ratios).mean()


def _curve(generator: torch.Generator) -> Tensor:
    amplitude = torch.rand(COSINES, generator=generator)
    phase = 2 * torch.pi * torch.rand(COSINES, generator=generator)
    hertz = BASE_HZ * torch.arange(1, COSINES + 1)
    seconds = torch.arange(STEPS) * (DT_MS / 1000)
    curve = (amplitude * torch.cos(2 * torch.pi * hertz * seconds[:, None] + phase)).sum(1)
    return 2 * (curve - curve.min()) / (curve.max() - curve.min()) - 1
