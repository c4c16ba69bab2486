"""Cache of encoded spikes on disk, so that a corpus is encoded once.

The files are in `hetsyn_triton/audio` in `XDG_CACHE_HOME` or else `~/.cache`, and may be removed at
any time. A file name is a hash of the names and contents of the audio files, of the encoder's
settings, and of the source code that reads and encodes.

Any number of processes may read and write at once, because files are written atomically. Each file
has a checksum; a damaged file is replaced. If the folder is not writable, each process encodes the
corpus again and logs it.
"""

import hashlib
import io
import json
import logging
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from hetsyn_triton.experiments.files import partials, write_atomically
from hetsyn_triton.experiments.sealed import seal, unseal

from ..data_error import DataError
from ..data_files import open_data
from ..events import Events
from ..watching import tell
from .crossings import CrossingEncoder
from .reading import read_audio

logger = logging.getLogger("hetsyn_triton")

SOURCES = ("bands.py", "cache.py", "crossings.py", "headers.py", "reading.py")
"""Source files that spikes and file format depend on."""
STALE_SECONDS = 24 * 3600.0  # after which a partial file is from a killed process
SAID_AFTER_SECONDS = 1.0
HASHED_AT_ONCE = 2**20  # bytes


def encoded(folder: Path, names: Sequence[str], encoder: CrossingEncoder) -> Events:
    """Return the spikes of the files `names` in `folder`, in that order, cached if possible.

    `times` are step numbers.

    Raises:
        DataError: If a file cannot be read or encoded; the message names it.
    """
    place = cache_folder()
    if place is None:
        return _encode(folder, names, encoder, None)
    key = _key(folder, names, encoder)
    path = place / f"{key}.spikes"
    found = _read(path)
    if found is not None:
        return found
    events = _encode(folder, names, encoder, place)
    if _key(folder, names, encoder) == key:  # otherwise a file has changed meanwhile
        _write(path, events)
    return events


def cache_folder() -> Path | None:
    """Return the folder, created if necessary; None if it is not writable."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    folder = Path(home) / "hetsyn_triton" / "audio"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return folder if os.access(folder, os.W_OK | os.X_OK) else None


def _key(folder: Path, names: Sequence[str], encoder: CrossingEncoder) -> str:
    digest = hashlib.sha256(json.dumps(asdict(encoder), sort_keys=True).encode())
    for source in SOURCES:
        digest.update(Path(__file__).with_name(source).read_bytes())
    for name in names:
        content = hashlib.sha256()
        with open_data(folder / name) as (file, _):
            while part := file.read(HASHED_AT_ONCE):
                content.update(part)
        digest.update(f"\0{name}\0".encode() + content.digest())
    return digest.hexdigest()


def _encode(
    folder: Path, names: Sequence[str], encoder: CrossingEncoder, kept: Path | None
) -> Events:
    began, said = time.monotonic(), False
    steps, channels, starts = [], [], [0]
    for done, name in enumerate(names):
        tell("encoding audio files", done, len(names))
        audio, rate = read_audio(folder / name)
        try:
            spikes = encoder(audio, rate)
        except ValueError as error:
            raise DataError(f"{folder / name} cannot be encoded: {error}") from error
        steps.append(spikes.step)
        channels.append(spikes.channel.astype(np.int16))
        starts.append(starts[-1] + len(spikes.step))
        if not said and time.monotonic() - began > SAID_AFTER_SECONDS:
            where = f"once, cached in {kept}" if kept else "in every process: no cache folder"
            logger.warning("hetsyn_triton: encoding %d audio files (%s)", len(names), where)
            said = True
    tell("encoding audio files", len(names), len(names))
    return Events(
        torch.from_numpy(np.concatenate(steps)),
        torch.from_numpy(np.concatenate(channels)),
        torch.tensor(starts),
    )


def _read(path: Path) -> Events | None:
    """Return the contents of the file; None if it is missing or damaged."""
    try:
        with np.load(io.BytesIO(unseal(path.read_bytes())), allow_pickle=False) as arrays:
            found = Events(*(torch.from_numpy(arrays[name]) for name in Events._fields))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        logger.warning("hetsyn_triton: %s is damaged and will be replaced: %s", path, error)
        return None
    return found


def _write(path: Path, events: Events) -> None:
    content = io.BytesIO()
    np.savez(content, **{name: part.numpy() for name, part in events._asdict().items()})
    try:
        write_atomically(path, lambda file: file.write(seal(content.getvalue())))
    except OSError as error:  # such as a full disk
        logger.warning("hetsyn_triton: the encoded spikes cannot be cached in %s: %s", path, error)
    with suppress(OSError):
        for left in partials(path.parent):
            if time.time() - left.stat().st_mtime > STALE_SECONDS:
                left.unlink(missing_ok=True)
