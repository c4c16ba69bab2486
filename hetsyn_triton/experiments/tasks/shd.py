"""Spiking Heidelberg Digits: spoken digits as the spikes of 700 cochlear channels.

The data set is from Cramer et al. (arXiv 1910.07407), the protocol from the HetSyn paper (arXiv
2508.11644). The paper computes decays with a step of 1 although a bin is 4 ms wide. Its time
constants of 5 to 20 are therefore steps, or 20 to 80 ms.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from hetsyn_triton.experiments.extras import INSTALL, require_extra

from .classification import Classification, Samples
from .data_error import DataError
from .digits import VALIDATION, stratified_split
from .events import BINNINGS, Events, bin_events, joined
from .folders import data_folder
from .options import Option, choice

CHANNELS = 700
CLASSES = 20
STEPS = 250
BIN_US = 4000
FILES = {"train": "shd_train.h5", "test": "shd_test.h5"}
HELD_OUT_SPEAKERS = 2
HELP = (
    f"The task shd reads the unpacked files {' and '.join(FILES.values())} in the folder SHD of "
    "--data-dir, or of the folder in HETSYN_DATA. Download them from "
    "https://zenkelab.org/resources/spiking-heidelberg-datasets-shd/. The reader is tonic: "
    f"run {INSTALL.format(extra='data')}"
)


class SpikingHeidelbergDigits(Classification):
    """Classify 8,156 + 2,264 recordings of the digits 0 to 9 in English and German, 20 classes.

    The first 1,000 ms become 250 binary steps of 4 ms. With `binning` "plain", step k has the times
    [4k, 4k + 4) ms. With "official", it has (4k - 4, 4k] ms, and the channels are reversed.
    `validation` is the fraction of each class that is held out, or "speakers" to hold out the two
    speakers with the highest numbers. Memory holds only the spikes; each batch is binned on use.
    """

    name = "shd"
    reads_files = True
    in_features = CHANNELS
    out_features = CLASSES
    input_label = "channel"
    first_step = 11  # the class scores sum over steps from here on
    evaluation_batch_size = 64  # 45 MB of input
    defaults: ClassVar[Mapping[str, Any]] = {
        "hidden": (128, 64),
        "epochs": 100,
        "batch_size": 32,
        "optimizer": "adamw",
        "lr": 2e-3,
        "decay_lr": 4e-3,
        "weight_decay": 4e-3,
        "decay_weight_decay": 4e-3,
        "dropout": 0.2,
        "schedule": "cosine",
        "horizon": 40,
        "schedule_unit": "epoch",
        "warmup": 0.05,
        "readout": "summed-softmax",
        "surrogate": "multi-gaussian",
        "tau": "uniform(5,20)",
        "tau_reset": 20.0,
        "tau_adaptation": 100.0,
        "adaptation": 0.05,
    }
    options: ClassVar[Mapping[str, Option]] = {
        "binning": choice("plain", BINNINGS, "times of a step: plain or official"),
        "validation": Option(
            0.0,
            lambda v: v == "speakers" or VALIDATION.allows(v),
            f'{VALIDATION.expected}, or "speakers"',
            "fraction held out of training; speakers: the two with the highest numbers",
        ),
    }
    events: Events
    """The spikes of all recordings, training before test; set when `splits` are loaded."""

    def load(self) -> dict[str, Samples]:
        # HETSYN_DATA, like --data-dir, is the folder that contains SHD.
        folder = data_folder(self.data_dir, "", "a folder that contains SHD, got none", HELP)
        paths = {split: folder / "SHD" / name for split, name in FILES.items()}
        for path in paths.values():
            if not path.exists():
                raise DataError(f"{path} does not exist. {HELP}")
        require_extra("the data set SHD", "tonic", extra="data")
        from .heidelberg import read_shd

        wanted = {"end_us": STEPS * BIN_US, "channels": CHANNELS, "classes": CLASSES}
        train = read_shd(folder, True, paths["train"], **wanted)
        test = read_shd(folder, False, paths["test"], **wanted)
        self.events = joined([train.events, test.events])
        held_out, left = self._held_out(train.labels, train.speakers)
        rows = torch.arange(len(train.labels) + len(test.labels))
        splits = {
            "train": Samples(left, train.labels[left]),
            "test": Samples(rows[len(train.labels) :], test.labels),
        }
        if len(held_out):
            splits["validation"] = Samples(held_out, train.labels[held_out])
        return splits

    def _held_out(self, labels: Tensor, speakers: Tensor) -> tuple[Tensor, Tensor]:
        """Return the rows of the training set that are held out, and the remaining rows."""
        if self.option["validation"] != "speakers":
            held_out, left = stratified_split(labels.numpy(), (self.option["validation"],))
            return held_out, left
        known = speakers.unique()
        if len(known) <= HELD_OUT_SPEAKERS:
            raise DataError(
                f"validation: expected more than {HELD_OUT_SPEAKERS} speakers in the training set "
                f"to hold out {HELD_OUT_SPEAKERS}, got {len(known)}"
            )
        chosen = torch.isin(speakers, known[-HELD_OUT_SPEAKERS:])
        return chosen.nonzero()[:, 0], (~chosen).nonzero()[:, 0]

    def encode(self, values: Tensor) -> Tensor:
        return bin_events(self.events.take(values), STEPS, CHANNELS, BIN_US, self.option["binning"])
