"""The cache of encoded spikes: found again, never wrong, safe with many at once."""

import logging
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from hetsyn_triton.experiments.tasks import DataError
from hetsyn_triton.experiments.tasks.audio import cache
from hetsyn_triton.experiments.tasks.audio.cache import cache_folder, encoded
from hetsyn_triton.experiments.tasks.audio.crossings import CrossingEncoder
from hetsyn_triton.experiments.tasks.audio.reading import read_audio
from hetsyn_triton.experiments.tasks.events import Events
from tests.support.corpora import tone, write

NAMES = ["a.wav", "b.wav", "silent.wav", "deep/c.wav"]
ENCODER = CrossingEncoder()


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    folder = tmp_path / "corpus"
    for number, name in enumerate(NAMES):
        samples = np.zeros(400) if name.startswith("silent") else tone(number, 0)
        write(folder / name, samples)
    return folder


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were read, in their order."""
    done: list[Path] = []

    def counted(path: Path) -> tuple[np.ndarray, int]:
        done.append(path)
        return read_audio(path)

    monkeypatch.setattr(cache, "read_audio", counted)
    return done


def equal(a: Events, b: Events) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def kept(home: Path) -> list[Path]:
    return sorted((home / "hetsyn_triton" / "audio").iterdir())


def test_spikes_of_each_file_are_kept(corpus: Path, cache_home: Path, reads: list[Path]) -> None:
    events = encoded(corpus, NAMES, ENCODER)
    for number, name in enumerate(NAMES):
        wanted = ENCODER(*read_audio(corpus / name))
        found = events.take(torch.tensor([number]))
        assert np.array_equal(found.times, wanted.step)
        assert np.array_equal(found.channels, wanted.channel)
    assert events.starts[2] == events.starts[3]  # of silence
    assert len(kept(cache_home)) == 1
    assert equal(encoded(corpus, NAMES, ENCODER), events)
    assert reads == [corpus / name for name in NAMES]  # once


def test_what_changes_the_spikes_is_noticed(
    corpus: Path, cache_home: Path, reads: list[Path]
) -> None:
    first = encoded(corpus, NAMES, ENCODER)
    other = encoded(corpus, NAMES, CrossingEncoder(range_db=30))
    assert not equal(first, other)
    turned = encoded(corpus, NAMES[::-1], ENCODER)
    assert not equal(first, turned)
    write(corpus / "a.wav", tone(5, 1))  # as long as before
    assert not equal(encoded(corpus, NAMES, ENCODER), first)
    assert len(reads) == 4 * len(NAMES)
    assert len(kept(cache_home)) == 4


def test_content_decides_and_not_size_or_time(
    corpus: Path, tmp_path: Path, reads: list[Path]
) -> None:
    others = [tmp_path / name for name in ("same", "other")]
    for folder, number in zip(others, (0, 5), strict=True):
        write(folder / "a.wav", tone(number, 0))
    os.utime(others[0] / "a.wav", (1, 1))
    status = os.stat(corpus / "a.wav")
    os.utime(others[1] / "a.wav", ns=(status.st_atime_ns, status.st_mtime_ns))
    alike = os.stat(others[1] / "a.wav")
    assert (alike.st_size, alike.st_mtime_ns) == (status.st_size, status.st_mtime_ns)
    events = encoded(corpus, NAMES[:1], ENCODER)
    assert equal(encoded(others[0], NAMES[:1], ENCODER), events)
    assert len(reads) == 1
    assert not equal(encoded(others[1], NAMES[:1], ENCODER), events)


def test_a_file_changed_while_it_is_encoded_is_not_kept(
    corpus: Path, cache_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def changed_before(path: Path) -> tuple[np.ndarray, int]:
        if path.name == "a.wav":
            write(path, tone(5, 1))
        return read_audio(path)

    monkeypatch.setattr(cache, "read_audio", changed_before)
    events = encoded(corpus, NAMES, ENCODER)
    assert kept(cache_home) == []
    assert equal(encoded(corpus, NAMES, ENCODER), events)
    assert len(kept(cache_home)) == 1


def test_new_sources_make_new_spikes(
    corpus: Path, reads: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded(corpus, NAMES, ENCODER)
    monkeypatch.setattr(cache, "SOURCES", cache.SOURCES[1:])
    encoded(corpus, NAMES, ENCODER)
    assert len(reads) == 2 * len(NAMES)


@pytest.mark.parametrize("damage", ["empty", "cut", "bit"])
def test_a_damaged_file_is_made_anew(
    corpus: Path, cache_home: Path, reads: list[Path], damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    events = encoded(corpus, NAMES, ENCODER)
    (path,) = kept(cache_home)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    damaged: dict[str, bytes] = {
        "empty": b"",
        "cut": bytes(content[:-70]),
        "bit": bytes(content),
    }
    path.write_bytes(damaged[damage])
    with caplog.at_level(logging.WARNING, "hetsyn_triton"):
        assert equal(encoded(corpus, NAMES, ENCODER), events)
    assert f"{path} is damaged and will be replaced" in caplog.text
    assert equal(encoded(corpus, NAMES, ENCODER), events)
    assert len(reads) == 2 * len(NAMES)


def test_without_a_folder_to_write_in(
    corpus: Path, tmp_path: Path, reads: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert cache_folder() is None
    assert equal(encoded(corpus, NAMES, ENCODER), encoded(corpus, NAMES, ENCODER))
    assert len(reads) == 2 * len(NAMES)


def test_a_full_disk_is_no_error(
    corpus: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(cache, "write_atomically", full)
    assert len(encoded(corpus, NAMES, ENCODER).starts) == len(NAMES) + 1
    assert "cannot be cached" in caplog.text


def test_what_a_killed_writer_left_is_removed(corpus: Path, cache_home: Path) -> None:
    folder = cache_folder()
    assert folder is not None
    old, young = (folder / f".x.{name}.hetsyn-partial" for name in ("old", "young"))
    for path in (old, young):
        path.touch()
    os.utime(old, (1, 1))
    encoded(corpus, NAMES, ENCODER)
    assert not old.exists()
    assert young.exists()


PROCESS = """
import sys, time
from pathlib import Path
from hetsyn_triton.experiments.tasks.audio import CrossingEncoder, cache
folder, start, *names = sys.argv[1:]
while time.time() < float(start):
    pass
for _ in range(12):
    events = cache.encoded(Path(folder), names, CrossingEncoder())
    for path in cache.cache_folder().glob("*.spikes"):
        if int(sys.argv[2][-1]) % 2 == 0:
            path.unlink(missing_ok=True)
print(events.times.sum().item(), len(events.channels), events.starts.tolist())
"""


@pytest.mark.slow
def test_processes_at_once(corpus: Path, cache_home: Path) -> None:
    """They write, read and remove the same file over and over; each gets the same spikes."""
    start = f"{time.time() + 4:.3f}"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, str(corpus), start[:-1] + str(number), *NAMES],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(3)
    ]
    answers = {process.communicate(timeout=120) for process in processes}
    assert [process.returncode for process in processes] == [0, 0, 0]
    events = encoded(corpus, NAMES, ENCODER)
    shown = f"{events.times.sum().item()} {len(events.channels)} {events.starts.tolist()}\n"
    assert answers == {(shown, "")}


def test_bad_files_are_named(corpus: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.wav cannot be read"):
        encoded(corpus, ["gone.wav"], ENCODER)
    write(corpus / "slow.wav", tone(0, 0), 500)
    with pytest.raises(
        DataError, match=r"slow\.wav cannot be encoded: rate: expected more than 72"
    ):
        encoded(corpus, ["a.wav", "slow.wav"], ENCODER)
    (corpus / "b.wav").write_bytes(b"RIFF")
    with pytest.raises(DataError, match=r"b\.wav is truncated"):
        encoded(corpus, NAMES, ENCODER)
