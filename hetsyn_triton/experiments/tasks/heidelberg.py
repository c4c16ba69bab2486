"""Read the files of the Spiking Heidelberg Digits with tonic.

Only this file imports tonic, which has the GPL and comes with the extra `data`. tonic believes what
a file says of itself, so the file is checked first.
"""

import math
from pathlib import Path
from typing import BinaryIO, NamedTuple

import h5py
import numpy as np
import torch
from tonic.datasets.hsd import SHD as TonicSHD
from torch import Tensor

from .data_error import DataError
from .data_files import open_data
from .events import Events
from .row_lengths import row_lengths

PARTS = {"labels": "integers", "extra/speaker": "integers"}
ROWS = {"spikes/times": "floating point", "spikes/units": "integers"}
"""Parts of a file with a value or a row of values for each sample, and the type of the values."""
KINDS = {"integers": "iu", "floating point": "f"}
KEYS = "extra/keys"  # the names of the classes, which tonic reads, too
REFERENCES = 32  # bytes of a sample without spikes
MOST_CHUNK = 2**20  # values of a part that HDF5 reads at once
LONGEST_S = 60.0  # larger times are not in seconds


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

    `path` is the file that tonic reads from `folder`. Times in it are seconds; those returned are
    whole microseconds. `channels` and `classes` are how many there are.

    Raises:
        DataError: If the file is truncated, lacks a part, says that it has more values than fit in
            it, or has impossible values.
    """
    times, units, labels = [], [], []
    with open_data(path) as (file, size):
        try:
            with h5py.File(path, "r") as stored:
                _check_parts(path, stored, file, size)
                data = SHD(str(folder), train=train)
                speakers = torch.from_numpy(np.asarray(data.speaker).astype(np.int64))
                for number, seconds in enumerate(stored["spikes/times"]):
                    where = f"{path}: sample {number}"
                    _check_times(where, seconds)
                    events, label = data[number]
                    _check(where, events, int(label), channels, classes)
                    events = events[events["t"] <= end_us]
                    times.append(events["t"].astype(np.int32))
                    units.append(events["x"].astype(np.int16))
                    labels.append(int(label))
        except (OSError, LookupError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"{path} is damaged or not a file of SHD: {error}") from error
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


def _check_parts(path: Path, stored: h5py.File, file: BinaryIO, size: int) -> None:
    """Check types and numbers of all values before any are read."""
    count = len(stored["labels"])
    if not 0 < count * REFERENCES <= size:
        raise DataError(
            f"{path}: expected 1 to {size // REFERENCES} samples in {size} bytes, got {count}"
        )
    for name in (*PARTS, *ROWS, KEYS):
        chunks = stored[name].chunks or (0,)
        if math.prod(chunks) > MOST_CHUNK:
            raise DataError(
                f"{path}: {name}: expected chunks of at most {MOST_CHUNK} values, got {chunks}"
            )
    for name, expected in (PARTS | ROWS).items():
        part = stored[name]
        dtype = h5py.check_vlen_dtype(part.dtype) if name in ROWS else part.dtype
        if getattr(dtype, "kind", "O") not in KINDS[expected]:
            found = "text" if h5py.check_string_dtype(part.dtype) else dtype or part.dtype
            raise DataError(f"{path}: {name}: expected {expected}, got {found}")
        if part.shape != (count,):
            raise DataError(
                f"{path}: {name}: expected shape [{count}] as of labels, got {list(part.shape)}"
            )
        if name in ROWS:
            _check_fits(path, part, int(row_lengths(part, file).sum()) * dtype.itemsize, size)
    keys = stored[KEYS]
    if len(keys.shape) != 1:
        raise DataError(f"{path}: {KEYS}: expected a list of names, got shape {list(keys.shape)}")
    _check_fits(path, keys, keys.size * keys.dtype.itemsize, size)
    if keys.dtype.kind == "O":  # text of any length
        _check_fits(path, keys, int(row_lengths(keys, file).sum()), size)


def _check_fits(path: Path, part: h5py.Dataset, wanted: int, size: int) -> None:
    if wanted > size:
        raise DataError(
            f"{path}: {part.name[1:]}: expected values that fit in the {size} bytes of the file, "
            f"got {wanted} bytes"
        )


def _check_times(where: str, seconds: np.ndarray) -> None:
    possible = (seconds >= 0) & (seconds <= LONGEST_S)  # false for NaN
    if not possible.all():
        raise DataError(
            f"{where}: expected times from 0 to {LONGEST_S:g} s, got {seconds[~possible][0]}"
        )


def _check(where: str, events: np.ndarray, label: int, channels: int, classes: int) -> None:
    if not 0 <= label < classes:
        raise DataError(f"{where}: expected label 0 to {classes - 1}, got {label}")
    values = events["x"]
    if len(values) and (values.min() < 0 or values.max() >= channels):
        odd = values.min() if values.min() < 0 else values.max()
        raise DataError(f"{where}: expected channels from 0 to {channels - 1}, got {odd}")
