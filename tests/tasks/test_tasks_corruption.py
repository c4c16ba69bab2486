"""Random damage to every file that is read: an error that names the file, or values.

Never another exception, a hang, or much memory. A file of its own, because it is about all formats
at once. `--times 10 --hunt SEED` has ten times as many, and others.
"""

import gzip
import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hetsyn_triton.experiments.studies.study_folder import read_json
from hetsyn_triton.experiments.tasks import DataError
from hetsyn_triton.experiments.tasks.audio.reading import read_audio
from hetsyn_triton.experiments.tasks.heidelberg import read_shd
from hetsyn_triton.experiments.tasks.idx import read_idx
from hetsyn_triton.experiments.training import (
    CheckpointError,
    ConfigError,
    RunFolderError,
    TrainConfig,
    default_config,
    train,
)
from hetsyn_triton.experiments.training.checkpoint import read_checkpoint
from tests.support.corpora import tone, write
from tests.support.heidelberg_files import write_heidelberg
from tests.support.idx_files import idx_bytes
from tests.support.limits import peak_bytes, within

SECONDS = 5.0
MEGABYTES = 100


@dataclass(frozen=True)
class Format:
    """How a whole file is made and read, and the errors of a damaged one."""

    make: Callable[[Path], object]
    read: Callable[[Path], Any]
    errors: type[Exception] = DataError
    sealed: bool = False
    """Whether any damage at all has to show."""


def images() -> bytes:
    generator = torch.Generator().manual_seed(0)
    return idx_bytes(torch.randint(0, 256, (30, 7, 5), generator=generator).byte())


def sound(format: str) -> Format:
    return Format(lambda path: write(path, tone(3, 1), format=format), read_audio)


def read_heidelberg(path: Path) -> None:
    """As tonic finds it."""
    place = path.parent / "SHD" / "shd_train.h5"
    place.parent.mkdir(exist_ok=True)
    place.write_bytes(path.read_bytes())
    try:
        read_shd(path.parent, True, place, end_us=10**6, channels=700, classes=20)
    except DataError as error:
        raise DataError(str(error).replace(place.name, path.name)) from error


def shd(path: Path) -> None:
    generator = np.random.default_rng(0)
    counts = generator.integers(5, 40, 20)
    times = [np.sort(generator.random(n)).astype(np.float32) for n in counts]
    write_heidelberg(path, times, [generator.integers(0, 700, n) for n in counts])


def checkpoint(path: Path) -> None:
    config = default_config("digits", hidden=(4,), epochs=1, options={"hold": 1})
    run = train(config, path.with_name(f"{path.name}-run"), pictures=False)
    path.write_bytes((run.path / "checkpoint.pt").read_bytes())


FORMATS = {
    "idx": Format(lambda path: path.write_bytes(images()), lambda path: read_idx(path, 3)),
    "idx.gz": Format(
        lambda path: path.write_bytes(gzip.compress(images())), lambda path: read_idx(path, 3)
    ),
    **{name.lower(): sound(name) for name in ("WAV", "FLAC", "NIST", "AIFF", "AU", "W64")},
    "shd": Format(shd, read_heidelberg),
    "config": Format(
        lambda path: path.write_text(json.dumps(default_config("digits").to_json())),
        TrainConfig.load,
        ConfigError,
    ),
    "cell": Format(
        lambda path: path.write_text(json.dumps({"rows": [{"accuracy": 0.5}] * 20})),
        read_json,
        RunFolderError,
    ),
    "checkpoint": Format(
        checkpoint,
        lambda path: read_checkpoint(path, torch.device("cpu")),
        CheckpointError,
        sealed=True,
    ),
}


def damaged(content: bytes, chance: random.Random) -> bytes:
    """One to three of: flipped bits, bytes of any value or all ones, a part gone, doubled, cut."""
    found = bytearray(content)
    for _ in range(chance.randint(1, 3)):
        # Half of the time in the header, where sizes are.
        most = min(len(found), 200) if chance.random() < 0.5 else len(found)
        if most == 0:
            break
        at = chance.randrange(most)
        length = chance.randint(1, 16)
        kind = chance.randrange(6)
        if kind == 0:
            found[at] ^= 1 << chance.randrange(8)
        elif kind == 1:
            found[at : at + length] = chance.randbytes(len(found[at : at + length]))
        elif kind == 2:
            found[at : at + length] = b"\xff" * len(found[at : at + length])
        elif kind == 3:
            del found[at : at + length]
        elif kind == 4:
            found[at:at] = found[at : at + length]
        else:
            del found[chance.randrange(len(found)) :]
    return bytes(found)


@pytest.mark.parametrize("name", FORMATS)
def test_a_whole_file_is_read(name: str, tmp_path: Path) -> None:
    """What the damage is done to."""
    path = tmp_path / f"file.{name}"
    FORMATS[name].make(path)
    FORMATS[name].read(path)


@pytest.mark.full
@pytest.mark.timeout(3600)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("name", FORMATS)
def test_damaged_files(name: str, tmp_path: Path, hunt: int, times: int) -> None:
    form, path = FORMATS[name], tmp_path / f"file.{name}"
    form.make(path)
    whole = path.read_bytes()
    chance = random.Random(f"{name} {hunt}")
    refused = 0
    for _ in range(40 * times):
        content = damaged(whole, chance)
        path.write_bytes(content)
        said = ""

        def read() -> None:
            nonlocal said
            try:
                form.read(path)
            except form.errors as error:
                said = str(error)

        with within(SECONDS):
            peak = peak_bytes(read)
        assert peak < MEGABYTES << 20
        if said:
            assert path.name in said
            refused += 1
        else:
            assert not form.sealed or content == whole
    assert refused > 0
