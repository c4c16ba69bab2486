"""The base class of tasks on speech recordings: files, spikes and settings."""

import os
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from ..classification import Classification, Samples
from ..data_error import DataError
from ..data_files import is_leftover
from ..digits import VALIDATION, stratified_split
from ..events import Events, bin_events
from ..folders import data_folder
from ..options import Option, choice, integer, number
from ..shd import SpikingHeidelbergDigits
from .cache import encoded
from .crossings import CHANNELS, NORMALIZATIONS, SCALES, CrossingEncoder

FIRST_STEP = SpikingHeidelbergDigits.first_step
SUFFIXES = (".wav", ".flac", ".sph")


class Recording(NamedTuple):
    """One audio file.

    Attributes:
        name: Path in the folder of the corpus.
        identity: Identifies the recording in the corpus.
        label: Class.
        split: "train" or "test".
    """

    name: str
    identity: str
    label: int
    split: str


def encoder_options(**changes: Any) -> dict[str, Option]:
    """Return the encoder's settings as options, some with new defaults, and `validation`."""
    default = CrossingEncoder(**changes)
    return {
        "hop_ms": number(default.hop_ms, 1, 1000, "length of a step in ms"),
        "steps": integer(default.steps, FIRST_STEP + 1, 100_000, "number of steps"),
        "normalization": choice(
            default.normalization,
            NORMALIZATIONS,
            "level 1: maximum of the utterance, maximum of each band, or none",
        ),
        "scale": choice(default.scale, SCALES, "scale of the levels: log or linear"),
        "range_db": number(default.range_db, 1, 1000, "range of a log scale in dB"),
        "validation": VALIDATION._replace(default=0.0),  # the published splits hold out no samples
    }


class SpokenWords(Classification):
    """Classify recordings of single words, as spikes of the threshold-crossing encoder.

    A subclass returns its files in `recordings`. `hop_ms`, `steps`, `normalization`, `scale` and
    `range_db` are settings of `CrossingEncoder`. `validation` is the fraction of each class that is
    held out of training. Spikes are cached on disk (`cache`) and binned when a batch is used.
    """

    reads_files = True
    in_features = CHANNELS
    input_label = "channel"
    first_step = FIRST_STEP
    evaluation_batch_size = SpikingHeidelbergDigits.evaluation_batch_size
    defaults: ClassVar[Mapping[str, Any]] = {
        **SpikingHeidelbergDigits.defaults,  # as the paper says for settings that it does not list
        "epochs": 50,
        "decay_weight_decay": None,
    }
    options: ClassVar[Mapping[str, Option]] = encoder_options()
    home: ClassVar[str]  # folder of the corpus in HETSYN_DATA
    help: ClassVar[str]  # where to get the corpus and where to put it
    events: Events
    """The spikes of all recordings; set when `splits` are loaded."""

    @abstractmethod
    def recordings(self, folder: Path) -> list[Recording]:
        """Return the recordings in `folder`, in an order that depends only on their names."""

    def load(self) -> dict[str, Samples]:
        expected = "the folder of the corpus, got none"
        folder = data_folder(self.data_dir, self.home, expected, self.help)
        found = self.recordings(folder)
        for split in ("train", "test"):
            if not any(recording.split == split for recording in found):
                raise DataError(
                    f"{folder}: expected recordings of the {split} set, got none. {self.help}"
                )
        _check_once(folder, found)
        self.events = encoded(folder, [recording.name for recording in found], self.encoder())
        labels = torch.tensor([recording.label for recording in found])
        train = torch.tensor([recording.split == "train" for recording in found])
        rows = train.nonzero()[:, 0]
        held_out, left = stratified_split(labels[rows].numpy(), (self.option["validation"],))
        parts = {
            "train": rows[left],
            "validation": rows[held_out],
            "test": (~train).nonzero()[:, 0],
        }
        return {name: Samples(part, labels[part]) for name, part in parts.items() if len(part)}

    def encoder(self) -> CrossingEncoder:
        """Return the encoder with the task's settings."""
        option = self.option
        return CrossingEncoder(
            hop_ms=option["hop_ms"],
            steps=option["steps"],
            normalization=option["normalization"],
            scale=option["scale"],
            range_db=option["range_db"],
        )

    def encode(self, values: Tensor) -> Tensor:
        return bin_events(self.events.take(values), self.option["steps"], CHANNELS, 1, "plain")


def _check_once(folder: Path, recordings: list[Recording]) -> None:
    """Raise DataError if a recording exists twice, such as a converted copy of it."""
    names: dict[str, str] = {}
    for recording in recordings:
        other = names.setdefault(recording.identity, recording.name)
        if other != recording.name:
            raise DataError(f"{folder} contains one recording twice: {other} and {recording.name}")


def audio_files(folder: Path) -> Iterator[tuple[str, ...]]:
    """Yield the path parts in `folder` of each audio file at any depth, sorted.

    Each folder is visited once, by its own path if it has one in `folder`, otherwise by a link.
    Files that macOS or a download has left (`is_leftover`) are passed over.

    Raises:
        DataError: If a folder cannot be read.
    """
    names, seen, places = [], set(), [folder]
    while places:
        links = []
        for top in places:
            for place, folders, files in os.walk(top, onerror=_unreadable):
                status = os.stat(place)
                if (status.st_dev, status.st_ino) in seen:
                    folders.clear()
                    continue
                seen.add((status.st_dev, status.st_ino))
                links += [link for name in folders if (link := Path(place, name)).is_symlink()]
                for file in files:
                    if Path(file).suffix.lower() in SUFFIXES and not is_leftover(file):
                        names.append(Path(place, file).relative_to(folder).parts)
        places = sorted(links)
    yield from sorted(names)


def _unreadable(error: OSError) -> None:
    raise DataError(f"{error.filename} cannot be read: {error}") from error
