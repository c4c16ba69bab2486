"""A small task of one's own, small idx files, and configurations that train in a moment."""

import gzip
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from hetsyn_triton.experiments.tasks import TASKS, Batch, Option, Task, register
from hetsyn_triton.experiments.tasks.options import integer
from hetsyn_triton.experiments.tasks.seeds import seeded_generator
from hetsyn_triton.experiments.training import TrainConfig, default_config
from tests.support.idx_files import idx_bytes


class Louder(Task):
    """Which of two channels is louder: a whole task in a few lines."""

    name = "louder"
    score = "accuracy"
    drawn_metrics = ("accuracy",)
    in_features = 2
    out_features = 2
    defaults: ClassVar[dict[str, Any]] = {"hidden": (12,), "epochs": 4, "batch_size": 8, "lr": 1e-2}
    options: ClassVar[dict[str, Option]] = {"batches": integer(5, 1, 100)}

    @property
    def steps_per_epoch(self) -> int:
        return int(self.option["batches"])

    def batches(self, split: str, epoch: int = 0, start: int = 0) -> Iterator[Batch]:
        for number in range(start, self.steps_per_epoch):
            generator = seeded_generator(self.seed, split, epoch, number)
            loudness = torch.rand(self.batch_size, 2, generator=generator)
            yield Batch(loudness.expand(10, -1, -1), loudness.argmax(1))

    def loss(self, output: Tensor, spikes: Sequence[Tensor], target: Tensor) -> Tensor:
        return torch.nn.functional.cross_entropy(output.mean(0), target)

    def metrics(
        self, output: Tensor, spikes: Sequence[Tensor], target: Tensor
    ) -> dict[str, Tensor]:
        return {"accuracy": (output.mean(0).argmax(1) == target).double().mean()}


@pytest.fixture
def louder() -> Iterator[Callable[..., TrainConfig]]:
    """Makes the task known for one test; gives what makes its configuration."""
    register(Louder)
    yield lambda **changes: default_config("louder", **{"threads": 1, **changes})
    del TASKS["louder"]


@pytest.fixture
def mnist_dir(tmp_path: Path) -> Path:
    """Four small idx files, half of them gzipped: 5 x 5 images, as bright as their label."""
    folder = tmp_path / "mnist"
    folder.mkdir()
    generator = torch.Generator().manual_seed(0)
    for name, count, packed in (("train", 40, True), ("t10k", 20, False)):
        labels = torch.arange(count) % 10
        noise = torch.randint(0, 20, (count, 5, 5), generator=generator)
        images = noise + 25 * labels[:, None, None]
        for kind, values in (("images-idx3", images), ("labels-idx1", labels)):
            content = idx_bytes(values)
            path = folder / f"{name}-{kind}-ubyte{'.gz' if packed else ''}"
            path.write_bytes(gzip.compress(content) if packed else content)
    return folder
