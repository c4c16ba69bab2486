"""Data files: regular files are opened, and everything else is refused at once."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from hetsyn_triton.experiments.tasks import DataError, IdxImages, SequentialMNIST
from hetsyn_triton.experiments.tasks.data_files import is_leftover, open_data
from hetsyn_triton.experiments.tasks.idx import read_idx
from tests.support.limits import within


def message(path: Path) -> str:
    with within(5), pytest.raises(DataError) as caught, open_data(path):
        pass
    return str(caught.value)


def test_a_regular_file_and_a_link_to_one(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    (tmp_path / "link").symlink_to("file")
    for name in ("file", "link"):
        with open_data(tmp_path / name) as (file, size):
            assert (file.read(), size) == (b"12345", 5)


def test_what_is_no_regular_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert message(tmp_path / "pipe") == f"{tmp_path}/pipe: expected a regular file, got a FIFO"
    (tmp_path / "zeros").symlink_to("/dev/zero")
    assert message(tmp_path / "zeros").endswith("zeros: expected a regular file, got a device")
    assert f"{tmp_path} cannot be read" in message(tmp_path)
    assert "gone cannot be read" in message(tmp_path / "gone")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        assert "socket cannot be read" in message(tmp_path / "socket")


def test_an_error_of_reading_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="file cannot be read: the disk"):  # noqa: SIM117
        with open_data(tmp_path / "file"):
            raise OSError("the disk")


@pytest.mark.parametrize("name", ["file", "file.gz"])
def test_idx_of_a_pipe(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    with within(5), pytest.raises(DataError, match=f"{name}: expected a regular file, got a FIFO"):
        read_idx(tmp_path / name, 3)


@pytest.mark.parametrize("task", [SequentialMNIST, IdxImages])
def test_a_pipe_in_the_place_of_labels(
    images: Callable[..., Path], task: type[SequentialMNIST] | type[IdxImages]
) -> None:
    folder = images("mnist")
    (folder / "t10k-labels-idx1-ubyte").unlink()
    os.mkfifo(folder / "t10k-labels-idx1-ubyte")
    with within(5), pytest.raises(DataError, match=r"t10k-labels\S*: expected a regular file, got"):
        task(data_dir=folder).load()


def test_leftovers(images: Callable[..., Path]) -> None:
    assert is_leftover("._a.wav")
    assert is_leftover("a.wav.part")
    assert not any(is_leftover(name) for name in ("a.wav", ".a.wav", "_a.wav", "a.part.wav"))
    folder = images("fashion")
    before = IdxImages(data_dir=folder).splits["test"]
    for name in ("._t10k-images-idx3-ubyte", "t10k-images-idx3-ubyte.gz.part"):
        (folder / name).write_bytes(b"Mac OS X")
    assert IdxImages(data_dir=folder).splits["test"].values.equal(before.values)


def test_a_folder_of_the_name_of_its_file(images: Callable[..., Path]) -> None:
    """Some archives unpack to NAME/NAME; the file beside the folder is read."""
    folder = images("mnist")
    (folder / "train-images-idx3-ubyte").mkdir()
    for task in (SequentialMNIST, IdxImages):
        assert len(task(data_dir=folder).splits["train"].labels) == 40
