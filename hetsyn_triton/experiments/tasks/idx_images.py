"""Any data set of gray images in idx files, one pixel per time step."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from .data_error import DataError
from .data_files import is_data_file
from .options import Option, integer
from .pixels import HELD_OUT, LIMIT, PixelByPixel

WORDS = {"train": ("train",), "test": ("test", "t10k")}  # a file name contains one
KINDS = ("images", "labels")
MOST = 100_000_000
HELP = (
    "The task idx reads four idx files of integers from 0 to 255 in --data-dir; they may be "
    "gzipped. Their names contain train or test (or t10k), and images or labels, as in "
    "train-images-idx3-ubyte or emnist-letters-test-labels-idx1-ubyte.gz. Examples are "
    "Fashion-MNIST (https://github.com/zalandoresearch/fashion-mnist), KMNIST "
    "(https://github.com/rois-codh/kmnist) and EMNIST "
    "(https://www.nist.gov/itl/products-and-services/emnist-dataset)"
)


class IdxImages(PixelByPixel):
    """Classify images of any size in idx files, such as Fashion-MNIST or EMNIST.

    The files are found by name, and an image has one step per pixel. `classes` is the number of
    classes; labels start at 0. `permuted` reads the pixels in a fixed random order, as psmnist
    does. Protocol and settings are those of S-MNIST.
    """

    name = "idx"
    help = HELP
    options: ClassVar[Mapping[str, Option]] = {
        "classes": integer(10, 2, 256, "number of classes"),
        "permuted": Option(
            False,
            lambda v: isinstance(v, bool),
            "true or false",
            "whether the pixels are in a fixed random order",
        ),
        "validation": integer(0, 0, MOST, HELD_OUT),
        "limit": integer(0, 0, MOST, LIMIT),
    }

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.out_features = self.option["classes"]

    @property
    def permuted(self) -> bool:
        return bool(self.option["permuted"])

    def files(self, folder: Path, part: str) -> tuple[Path, Path]:
        images, labels = (self._file(folder, part, kind) for kind in KINDS)
        return images, labels

    @staticmethod
    def _file(folder: Path, part: str, kind: str) -> Path:
        """Return the only file of that part and kind; a file that is not gzipped comes first.

        Files that macOS or a download has left are passed over.
        """
        found = {
            path.name.removesuffix(".gz"): path
            for path in sorted(folder.iterdir(), reverse=True)  # name.gz before name
            if is_data_file(path)
            and kind in path.name
            and any(word in path.name for word in WORDS[part])
        }
        if len(found) != 1:
            what = ", ".join(sorted(found)) or "none"
            words = " or ".join(WORDS[part])
            raise DataError(f"{folder}: expected one file of {words} {kind}, got {what}")
        (path,) = found.values()
        return path
