"""Sequential MNIST, one pixel per time step: row by row, and permuted.

The protocol is that of the HetSyn paper (arXiv 2508.11644). The paper does not specify input and
class scores; here they are an analog value in [0, 1] and spike counts.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from .idx import find_idx
from .options import Option, integer
from .pixels import HELD_OUT, LIMIT, PixelByPixel

FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
HELP = (
    "The task reads four idx files of MNIST "
    f"({', '.join(name for pair in FILES.values() for name in pair)}; they may be gzipped) from "
    "--data-dir, or from the folder mnist in HETSYN_DATA. Download them from "
    "https://github.com/cvdfoundation/mnist"
)


class SequentialMNIST(PixelByPixel):
    """Classify 60,000 + 10,000 handwritten digits as 784 steps of one analog input in [0, 1].

    By default, class scores are the spike counts of ten spiking outputs. `validation` is the number
    of last training images that are held out. `limit` is the number of images to keep per split
    (0: all).
    """

    name = "smnist"
    out_features = 10
    home = "mnist"
    help = HELP
    options: ClassVar[Mapping[str, Option]] = {
        "validation": integer(0, 0, 59_999, HELD_OUT),
        "limit": integer(0, 0, 60_000, LIMIT),
    }

    def files(self, folder: Path, part: str) -> tuple[Path, Path]:
        images, labels = FILES[part]
        return find_idx(folder, images), find_idx(folder, labels)


class PermutedMNIST(SequentialMNIST):
    """Sequential MNIST with the pixels in a fixed random order, the same in every run."""

    name = "psmnist"

    @property
    def permuted(self) -> bool:
        return True
