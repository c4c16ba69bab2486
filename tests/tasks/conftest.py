"""Small files of the formats the data sets come in."""

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.heidelberg_files import CLASSES, write_heidelberg
from tests.support.idx_files import idx_bytes


@pytest.fixture
def images(tmp_path: Path) -> Callable[..., Path]:
    """Writes four idx files of images as bright as their label; gives their folder."""

    def write(
        name: str,
        size: tuple[int, int] = (5, 5),
        classes: int = 10,
        prefix: str = "",
        test: str = "t10k",
    ) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        generator = torch.Generator().manual_seed(0)
        for part, count, packed in (("train", 40, True), (test, 20, False)):
            labels = torch.arange(count) % classes
            noise = torch.randint(0, 20, (count, *size), generator=generator)
            bright = noise + 225 // (classes - 1) * labels[:, None, None]
            for kind, values in (("images-idx3", bright), ("labels-idx1", labels)):
                path = folder / f"{prefix}{part}-{kind}-ubyte{'.gz' if packed else ''}"
                content = idx_bytes(values)
                path.write_bytes(gzip.compress(content) if packed else content)
        return folder

    return write


@pytest.fixture
def heidelberg(tmp_path: Path) -> Path:
    """A folder with SHD/shd_train.h5 and SHD/shd_test.h5 of 80 and 40 samples.

    A sample of class k has 300 to 500 spikes from 0 to 1.2 s, nine in ten of them in the 35
    channels from 35 k on.
    """
    generator = np.random.default_rng(0)
    for part, count in (("train", 80), ("test", 40)):
        times, units = [], []
        for number in range(count):
            spikes = int(generator.integers(300, 500))
            times.append(np.sort(generator.random(spikes) * 1.2))
            own = number % CLASSES * 35 + generator.integers(0, 35, spikes)
            units.append(np.where(generator.random(spikes) < 0.9, own, 699))
        write_heidelberg(tmp_path / "SHD" / f"shd_{part}.h5", times, units)
    return tmp_path
