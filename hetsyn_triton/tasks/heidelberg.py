"""The files of the Spiking Heidelberg Digits, read through tonic.

The only file that imports tonic, which is under the GPL: it comes with the extra `data`.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from tonic.datasets.hsd import SHD as TonicSHD
from torch import Tensor

from .errors import DataError
from .events import Events
from .shd import CHANNELS, CLASSES


class Recordings(NamedTuple):
    """`events` of n samples, `labels` [n] and `speakers` [n]."""

    events: Events
    labels: Tensor
    speakers: Tensor


class SHD(TonicSHD):  # type: ignore[misc]
    """tonic's class, kept off the network. It bears the same name because tonic looks for the
    files in a folder called as the class is."""

    def download(self) -> None:
        """Nothing. tonic comes here where the archive of a file is gone, which it does not need."""


def read_shd(folder: Path, train: bool, path: Path, end_us: int) -> Recordings:
    """The events up to `end_us` microseconds of all samples of `path`, tonic's file in `folder`.

    tonic gives times in whole microseconds. DataError, naming the file, where it is truncated,
    lacks a part, or holds what no recording of this data set can.
    """
    times, channels, labels = [], [], []
    try:
        data = SHD(str(folder), train=train)
        speakers = torch.from_numpy(np.asarray(data.speaker).astype(np.int64))
        for number in range(len(data)):
            with np.errstate(invalid="ignore"):  # a time that is no number is found below
                events, label = data[number]
            _check(path, number, events, int(label))
            events = events[events["t"] <= end_us]
            times.append(events["t"].astype(np.int32))
            channels.append(events["x"].astype(np.int16))
            labels.append(int(label))
    except (OSError, KeyError, IndexError, TypeError, ValueError, RuntimeError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} is damaged, or not the file its name says: {error}") from error
    if not labels or len(speakers) != len(labels):
        raise DataError(f"{path}: expected samples, each with a speaker, got {len(labels)} samples")
    starts = torch.tensor([0] + [len(part) for part in times]).cumsum(0)
    return Recordings(
        Events(
            torch.from_numpy(np.concatenate(times)),
            torch.from_numpy(np.concatenate(channels)),
            starts,
        ),
        torch.tensor(labels),
        speakers,
    )


def _check(path: Path, number: int, events: np.ndarray, label: int) -> None:
    if not 0 <= label < CLASSES:
        raise DataError(f"{path}: sample {number} has label {label}, expected 0 to {CLASSES - 1}")
    last = CHANNELS - 1
    for name, what, most, allowed in (
        ("x", "channel", last, f"0 to {last}"), ("t", "time", np.inf, "at least 0"),
    ):  # fmt: skip
        values = events[name]
        if len(values) and (values.min() < 0 or values.max() > most):
            odd = values.min() if values.min() < 0 else values.max()
            raise DataError(
                f"{path}: sample {number} has an event with {what} {odd}, expected {allowed}"
            )
