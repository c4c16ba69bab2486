"""idx files: read where whole, refused with a reason where not."""

import gzip
from pathlib import Path

import pytest
import torch

from hetsyn_triton.experiments.tasks import DataError, SequentialMNIST
from hetsyn_triton.experiments.tasks.idx import read_idx
from tests.support.idx_files import idx_bytes

VALUES = torch.arange(24).view(2, 3, 4)


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_read(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"file{suffix}"
    content = idx_bytes(VALUES)
    path.write_bytes(gzip.compress(content) if suffix else content)
    assert torch.equal(read_idx(path, 3), VALUES.to(torch.uint8))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\0\0", "truncated: its header needs 16 bytes, got 2"),
        (idx_bytes(VALUES)[:-1], r"truncated: its header \[2, 3, 4\] needs 40 bytes, got 39"),
        (idx_bytes(VALUES) + b"\0", r"too long: its header \[2, 3, 4\] needs 40 bytes, got 41"),
        (b"\0\0\x0d\3" + idx_bytes(VALUES)[4:], "magic 00000803, got 00000d03"),
        (idx_bytes(VALUES[0]) + b"\0" * 8, "magic 00000803, got 00000802"),
    ],
)
def test_broken(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_idx(path, 3)


def test_broken_gzip(tmp_path: Path) -> None:
    path = tmp_path / "file.gz"
    path.write_bytes(gzip.compress(idx_bytes(VALUES))[:-9])
    with pytest.raises(DataError, match="truncated or damaged"):
        read_idx(path, 3)
    path.write_bytes(idx_bytes(VALUES))
    with pytest.raises(DataError, match="not a gzip file"):
        read_idx(path, 3)


def load(folder: Path | None) -> None:
    SequentialMNIST(data_dir=folder).load()


def test_missing_files(mnist_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (mnist_dir / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(DataError, match=r"neither t10k-labels-idx1-ubyte nor .*--data-dir"):
        load(mnist_dir)
    with pytest.raises(DataError, match=r"data_dir: expected a folder, got .*nowhere"):
        load(tmp_path / "nowhere")
    monkeypatch.delenv("HETSYN_DATA", raising=False)
    with pytest.raises(DataError, match=r"data_dir: expected .* got none.*HETSYN_DATA"):
        load(None)
    monkeypatch.setenv("HETSYN_DATA", str(tmp_path))
    with pytest.raises(DataError, match="t10k-labels"):
        load(None)  # finds the folder mnist of HETSYN_DATA


def test_counts_that_disagree(mnist_dir: Path) -> None:
    path = mnist_dir / "t10k-labels-idx1-ubyte"
    path.write_bytes(idx_bytes(torch.arange(9)))
    with pytest.raises(DataError, match=r"a label for each of 20 images in .*, got 9$"):
        load(mnist_dir)
    path.write_bytes(idx_bytes(torch.full((20,), 11)))
    with pytest.raises(DataError, match="labels from 0 to 9"):
        load(mnist_dir)
