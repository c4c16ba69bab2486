"""A task as small as they come: two bursts on one of two groups of channels, the same or not."""

from collections.abc import Iterator
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from hetsyn_triton.experiments.tasks import TASKS, Classification, Option, Samples, register
from hetsyn_triton.experiments.tasks.options import integer, number
from hetsyn_triton.experiments.tasks.seeds import seeded_generator


class Echo(Classification):
    """Four channels, `delay` steps between the bursts, background of `noise_hz` per second."""

    name = "echo"
    in_features, out_features = 4, 2
    defaults: ClassVar[dict[str, Any]] = {
        "hidden": (6,),
        "epochs": 1,
        "batch_size": 8,
        "lr": 1e-2,
        "tau": "uniform(2,10)",
        "readout": "last",
        "threads": 1,
    }
    options: ClassVar[dict[str, Option]] = {
        "delay": integer(2, 0, 1000),
        "noise_hz": number(10.0, 0, 100),
    }

    def load(self) -> dict[str, Samples]:
        return {s: self._trials(n, s) for s, n in (("train", 24), ("validation", 8), ("test", 16))}

    def _trials(self, count: int, split: str) -> Samples:
        generator = seeded_generator(self.seed, split)
        sides = torch.arange(count) % 4
        noise = self.option["noise_hz"] / 1000
        steps = 6 + self.option["delay"]
        spikes = (torch.rand(count, steps, 4, generator=generator) < noise).float()
        for row, side in enumerate(sides.tolist()):
            spikes[row, :2, 2 * (side // 2)] = 1
            spikes[row, -2:, 2 * (side % 2)] = 1
        return Samples(spikes, (sides // 2 == sides % 2).long())

    def encode(self, values: Tensor) -> Tensor:
        return values.transpose(0, 1)


@pytest.fixture
def echo() -> Iterator[None]:
    """Makes the task known for one test."""
    register(Echo)
    yield
    del TASKS["echo"]
