"""Read the files of the Spiking Heidelberg Digits with tonic.

Only this file imports tonic, which has the GPL and comes with the extra `data`.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from tonic.datasets.hsd import SHD as TonicSHD
from torch import Tensor

from .data_error import DataError
from .events import Events


class Recordings(NamedTuple):
    """`events` of n samples, `labels` [n] and `speakers` [n]."""

    events: Events
    labels: Tensor
    speakers: Tensor


class SHD(TonicSHD):  # type: ignore[misc]
    """The class of tonic without downloads; tonic expects the files in a folder of its name."""

    def download(self) -> None:
        """Do nothing. tonic calls this if the archive of a file is missing, which is not needed."""


def read_shd(
    folder: Path, train: bool, path: Path, *, end_us: int, channels: int, classes: int
) -> Recordings:
    """Read all samples of `path`, with events up to `end_us` microseconds.

    `path` is the file that tonic reads from `folder`. Times are whole microseconds. `channels` and
    `classes` are how many there are.

    Raises:
        DataError: If the file is truncated, lacks a part, or has impossible values.
    """
    times, units, labels = [], [], []
    try:
        data = SHD(str(folder), train=train)
        speakers = torch.from_numpy(np.asarray(data.speaker).astype(np.int64))
        for number in range(len(data)):
            with np.errstate(invalid="ignore"):  # NaN in times is found below
                events, label = data[number]
            _check(f"{path}: sample {number}", events, int(label), channels, classes)
            events = events[events["t"] <= end_us]
            times.append(events["t"].astype(np.int32))
            units.append(events["x"].astype(np.int16))
            labels.append(int(label))
    except (OSError, KeyError, IndexError, TypeError, ValueError, RuntimeError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} is damaged or not a file of SHD: {error}") from error
    if not labels or len(speakers) != len(labels):
        raise DataError(f"{path}: expected a speaker for each sample, got {len(labels)} samples")
    starts = torch.tensor([0] + [len(part) for part in times]).cumsum(0)
    return Recordings(
        Events(
            torch.from_numpy(np.concatenate(times)),
            torch.from_numpy(np.concatenate(units)),
            starts,
        ),
        torch.tensor(labels),
        speakers,
    )


def _check(where: str, events: np.ndarray, label: int, channels: int, classes: int) -> None:
    if not 0 <= label < classes:
        raise DataError(f"{where}: expected label 0 to {classes - 1}, got {label}")
    last = channels - 1
    for name, most, allowed in (
        ("x", last, f"channels from 0 to {last}"), ("t", np.inf, "times of at least 0"),
    ):  # fmt: skip
        values = events[name]
        if len(values) and (values.min() < 0 or values.max() > most):
            odd = values.min() if values.min() < 0 else values.max()
            raise DataError(f"{where}: expected {allowed}, got {odd}")
