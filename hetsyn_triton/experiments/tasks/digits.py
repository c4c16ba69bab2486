"""The handwritten digits of scikit-learn, row by row."""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from hetsyn_triton.experiments.extras import require_extra

from .classification import Classification, Samples
from .options import Option, integer, is_real, number

SPLIT_SEED = 1797  # the test set is the same in every run
GRAY_LEVELS = 16.0
TEST_PART = 0.2
VALIDATION = Option(  # below 0.01, no image is held out; above 0.7, none is left for training
    0.1,
    lambda v: is_real(v) and (v == 0 or 0.01 <= v <= 0.7),
    "0 or a number from 0.01 to 0.7",
    "fraction held out of training",
)


class Digits(Classification):
    """Classify 1,797 images of 8 x 8 gray levels, shown as 8 rows of 8 analog inputs in [0, 1].

    Each row lasts `hold` steps, and the readout after the last row gives the class. A fifth of each
    digit is the test set, and a fraction `validation` of each digit is held out of training. Both
    are the same for every seed. In training, the fraction `shift` of the images is shifted by up to
    one pixel in each direction.
    """

    name = "digits"
    input_label = "pixel column"
    in_features = 8
    out_features = 10
    defaults: ClassVar[Mapping[str, Any]] = {
        "hidden": (64,),
        "epochs": 30,
        "batch_size": 32,
        "lr": 1e-2,
        "tau": "uniform(2,10)",
        "readout": "last",
        "threads": 1,  # more threads do not help small tensors, and are slow on a busy machine
    }
    options: ClassVar[Mapping[str, Option]] = {
        "hold": integer(3, 1, 1000, "steps per image row"),
        "shift": number(0.5, 0, 1, "fraction of the training images that is shifted"),
        "validation": VALIDATION,
    }

    def load(self) -> dict[str, Samples]:
        require_extra("the digits data set", "sklearn")
        from sklearn.datasets import load_digits

        data = load_digits()
        values = torch.from_numpy(data.images / GRAY_LEVELS).float()
        labels = torch.from_numpy(data.target).long()
        parts = stratified_split(data.target, (TEST_PART, self.option["validation"]))
        names = ("test", "validation", "train")
        return {
            name: Samples(values[rows], labels[rows])
            for name, rows in zip(names, parts, strict=True)
            if len(rows)
        }

    def augment(self, values: Tensor, generator: torch.Generator) -> Tensor:
        return shifted(values, self.option["shift"], generator)

    def encode(self, values: Tensor) -> Tensor:
        return values.transpose(0, 1).repeat_interleave(self.option["hold"], dim=0)


def shifted(images: Tensor, part: float, generator: torch.Generator) -> Tensor:
    """Shift a fraction `part` of `images` [B, H, W] by -1, 0 or 1 pixel along each axis.

    New pixels at the border are 0.
    """
    count, height, width = images.shape
    offset = torch.randint(0, 3, (2, count, 1), generator=generator)
    offset[:, torch.rand(count, generator=generator) >= part] = 1
    framed = torch.nn.functional.pad(images, (1, 1, 1, 1))
    rows, columns = offset[0] + torch.arange(height), offset[1] + torch.arange(width)
    return framed[torch.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]


def stratified_split(labels: np.ndarray, fractions: tuple[float, ...]) -> list[Tensor]:
    """Return the indices of one part per fraction, then the remaining ones.

    Each part has the same (rounded) fraction of every class. The parts depend only on `labels`.
    """
    generator = np.random.default_rng(SPLIT_SEED)
    parts: list[list[np.ndarray]] = [[] for _ in range(len(fractions) + 1)]
    for label in np.unique(labels):
        rows = generator.permutation(np.flatnonzero(labels == label))
        ends = np.cumsum([round(len(rows) * fraction) for fraction in fractions])
        for part, rows_of_part in zip(parts, np.split(rows, ends), strict=True):
            part.append(rows_of_part)
    return [torch.from_numpy(np.sort(np.concatenate(part))) for part in parts]
