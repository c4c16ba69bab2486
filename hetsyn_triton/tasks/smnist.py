"""Sequential MNIST: one pixel per time step, row by row."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from .classification import Classification, Samples
from .errors import DataError
from .idx import find_idx, read_idx
from .options import Option, integer

HELP = (
    "S-MNIST reads the four MNIST idx files ({files}; gzipped or not) from --data-dir, or from "
    "the folder mnist of the folder HETSYN_DATA names. They can be had from "
    "https://github.com/cvdfoundation/mnist"
)
FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}


class SequentialMNIST(Classification):
    """60,000 + 10,000 handwritten digits as 784 steps of one analog input in [0, 1].

    The class is the spike count of ten spiking outputs unless `readout` says else. `validation` is
    how many of the last training images are held out; `limit` keeps only that many of each split,
    0 all of them.
    """

    name = "smnist"
    reads_files = True
    in_features = 1
    out_features = 10
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
    options: ClassVar[Mapping[str, Option]] = {
        "validation": integer(0, 0, 59_999),
        "limit": integer(0, 0, 60_000),
    }

    def load(self) -> dict[str, Samples]:
        folder = self.folder()
        splits = {split: self._read(folder, split) for split in FILES}
        held_out = self.option["validation"]
        train = splits["train"]
        if held_out >= len(train.labels):  # these files may hold fewer images than MNIST
            raise DataError(
                f"validation: expected 0 to {len(train.labels) - 1} training images, got {held_out}"
            )
        if held_out:
            splits["train"] = Samples(train.values[:-held_out], train.labels[:-held_out])
            splits["validation"] = Samples(train.values[-held_out:], train.labels[-held_out:])
        limit = self.option["limit"] or None
        return {name: Samples(*(tensor[:limit] for tensor in splits[name])) for name in splits}

    def folder(self) -> Path:
        """Where the files are: `data_dir`, or mnist in HETSYN_DATA."""
        folder = self.data_dir
        if folder is None and os.environ.get("HETSYN_DATA"):
            folder = Path(os.environ["HETSYN_DATA"]) / "mnist"
        if folder is None:
            raise DataError(f"data_dir: expected a folder of MNIST files, got none. {_help()}")
        if not folder.is_dir():
            raise DataError(f"data_dir: expected a folder, got {folder}. {_help()}")
        return folder

    @staticmethod
    def _read(folder: Path, split: str) -> Samples:
        names = FILES[split]
        try:
            paths = [find_idx(folder, name) for name in names]
        except DataError as error:
            raise DataError(f"{error}. {_help()}") from None
        images, labels = read_idx(paths[0], 3), read_idx(paths[1], 1)
        if len(images) != len(labels):
            raise DataError(
                f"{paths[0]} holds {len(images)} images, {paths[1]} holds {len(labels)} labels"
            )
        if len(labels) == 0 or int(labels.max()) > 9:
            raise DataError(f"{paths[1]}: expected one or more labels from 0 to 9")
        return Samples(images, labels.long())

    def encode(self, values: Tensor) -> Tensor:
        return (values.flatten(1).float() / 255).t().unsqueeze(2).contiguous()


def _help() -> str:
    return HELP.format(files=", ".join(name for pair in FILES.values() for name in pair))
