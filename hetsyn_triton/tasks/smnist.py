"""Sequential MNIST, one pixel per time step: row by row, and permuted.

The protocol is that of the HetSyn paper (arXiv 2508.11644), which does not say how a pixel enters
nor what the cross-entropy is taken on: here an analog value in [0, 1], and spike counts.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from .idx import find_idx
from .options import Option, integer
from .pixels import PixelByPixel

FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
HELP = (
    "S-MNIST reads the four MNIST idx files "
    f"({', '.join(name for pair in FILES.values() for name in pair)}; gzipped or not) from "
    "--data-dir, or from the folder mnist of the folder HETSYN_DATA names. They can be had from "
    "https://github.com/cvdfoundation/mnist"
)


class SequentialMNIST(PixelByPixel):
    """60,000 + 10,000 handwritten digits as 784 steps of one analog input in [0, 1].

    The class is the spike count of ten spiking outputs unless `readout` says else. `validation` is
    how many of the last training images are held out; `limit` keeps only that many of each split,
    0 all of them.
    """

    name = "smnist"
    out_features = 10
    home = "mnist"
    help = HELP
    options: ClassVar[Mapping[str, Option]] = {
        "validation": integer(0, 0, 59_999),
        "limit": integer(0, 0, 60_000),
    }

    def files(self, folder: Path, part: str) -> tuple[Path, Path]:
        images, labels = FILES[part]
        return find_idx(folder, images), find_idx(folder, labels)


class PermutedMNIST(SequentialMNIST):
    """Sequential MNIST with its pixels in one fixed random order, the same in every run."""

    name = "psmnist"

    @property
    def permuted(self) -> bool:
        return True
