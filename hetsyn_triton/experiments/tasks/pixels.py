"""Images read one pixel per time step, row by row or in a fixed random order."""

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from .classification import Classification, Samples
from .data_error import DataError
from .folders import data_folder
from .idx import read_idx
from .seeds import seeded_generator

ORDER_SEED = 784  # of the random pixel order, which is the same in every run
PARTS = ("train", "test")
HELD_OUT = "training images held out"
LIMIT = "images per split; 0: all (slow on a CPU: a step per pixel)"


class PixelByPixel(Classification):
    """Classify gray images as T = height x width steps of one analog input in [0, 1].

    A subclass returns in `files` the idx files of images and labels, and in `permuted` whether
    pixels are read in `pixel_order` instead of row by row. It has the options `validation`, the
    number of last training images that are held out, and `limit`, the number of images to keep per
    split (0: all).
    """

    reads_files = True
    split_options: ClassVar[frozenset[str]] = frozenset({"validation", "limit"})
    in_features = 1
    home: ClassVar[str | None] = None  # folder of the files in HETSYN_DATA
    help: ClassVar[str]  # where to get the files and where to put them
    defaults: ClassVar[Mapping[str, Any]] = {
        "hidden": (64, 64),
        "epochs": 150,
        "batch_size": 256,
        "optimizer": "adamw",
        "lr": 1e-3,
        "decay_lr": 2e-3,
        "weight_decay": 0.0,
        "schedule": "cosine",
        "warmup": 0.05,
        "readout": "spike-count",
        "surrogate": "multi-gaussian",
        "tau": "uniform(5,20)",
        "tau_reset": 20.0,
    }

    @property
    def permuted(self) -> bool:
        return False

    @abstractmethod
    def files(self, folder: Path, part: str) -> tuple[Path, Path]:
        """Return the files of images and of labels of "train" or "test" in `folder`."""

    def load(self) -> dict[str, Samples]:
        expected = "a folder of idx files, got none: give --data-dir DIR"
        folder = data_folder(self.data_dir, self.home, expected, self.help)
        splits = {part: self._read(folder, part) for part in PARTS}
        sizes = [tuple(splits[part].values.shape[1:]) for part in PARTS]
        if sizes[0] != sizes[1]:
            raise DataError(
                f"{folder}: expected test images of {sizes[0][0]} x {sizes[0][1]} pixels as in "
                f"training, got {sizes[1][0]} x {sizes[1][1]}"
            )
        held_out = self.option["validation"]
        train = splits["train"]
        if held_out >= len(train.labels):
            raise DataError(
                f"validation: expected 0 to {len(train.labels) - 1} training images, got {held_out}"
            )
        if held_out:
            splits["train"] = Samples(train.values[:-held_out], train.labels[:-held_out])
            splits["validation"] = Samples(train.values[-held_out:], train.labels[-held_out:])
        limit = self.option["limit"] or None
        return {name: Samples(*(tensor[:limit] for tensor in splits[name])) for name in splits}

    def _read(self, folder: Path, part: str) -> Samples:
        try:
            paths = self.files(folder, part)
        except DataError as error:
            raise DataError(f"{error}. {self.help}") from None
        images, labels = read_idx(paths[0], 3), read_idx(paths[1], 1)
        if len(images) != len(labels):
            raise DataError(
                f"{paths[1]}: expected a label for each of {len(images)} images in {paths[0]}, "
                f"got {len(labels)}"
            )
        last = self.out_features - 1
        if len(labels) == 0 or int(labels.max()) > last:
            found = f"one of {int(labels.max())}" if len(labels) else "none"
            raise DataError(
                f"{paths[1]}: expected one or more labels from 0 to {last}, got {found}"
            )
        return Samples(images, labels.long())

    def encode(self, values: Tensor) -> Tensor:
        pixels = values.flatten(1)
        if self.permuted:
            pixels = pixels[:, pixel_order(pixels.shape[1])]
        return (pixels.float() / 255).t().unsqueeze(2).contiguous()


def pixel_order(count: int) -> Tensor:
    """Return a permutation of `count` pixels that is the same in every run and for every seed."""
    return torch.randperm(count, generator=seeded_generator(ORDER_SEED, "pixels"))
