"""idx files: read where whole, refused with a reason where not."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from hetsyn_triton.experiments.tasks import DataError, SequentialMNIST
from hetsyn_triton.experiments.tasks.idx import read_idx
from tests.support.idx_files import idx_bytes
from tests.support.limits import peak_bytes

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
        (idx_bytes(VALUES) + b"\0", r"too long: its header \[2, 3, 4\] needs 40 bytes, got more"),
        (b"\0\0\x0d\3" + idx_bytes(VALUES)[4:], "magic 00000803, .*, got 00000d03"),
        (idx_bytes(VALUES[0]) + b"\0" * 8, "magic 00000803, .*, got 00000802"),
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


@pytest.mark.parametrize("sizes", [(2**31, 2**31, 4), (2**31, 2**31, 2), (2**16, 2**16, 2**16)])
def test_a_header_whose_sizes_wrap(tmp_path: Path, sizes: tuple[int, ...]) -> None:
    """Their product is 2^64, 2^63 and 2^48 bytes."""
    path = tmp_path / "file"
    content = struct.pack(">I3I", 0x803, *sizes)
    needed = 16 + sizes[0] * sizes[1] * sizes[2]
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"file is truncated: .* needs {needed} bytes, got 16"):
        read_idx(path, 3)
    packed = tmp_path / "file.gz"
    packed.write_bytes(gzip.compress(content))
    with pytest.raises(DataError, match=rf"file.gz is truncated: .* needs {needed} bytes, got"):
        read_idx(packed, 3)


def test_a_gzip_file_of_much_more_than_its_header_says(tmp_path: Path) -> None:
    """64 KB that unpack to 64 MB: unpacked up to the first byte too many."""
    path = tmp_path / "bomb.gz"
    path.write_bytes(gzip.compress(idx_bytes(VALUES) + bytes(2**26)))
    assert path.stat().st_size < 70_000

    def read() -> None:
        with pytest.raises(DataError, match=r"bomb.gz is too long: .* needs 40 bytes, got more"):
            read_idx(path, 3)

    assert peak_bytes(read) < 4e6
    path.write_bytes(gzip.compress(struct.pack(">I3I", 0x803, 2**10, 2**10, 2**10) + bytes(2**26)))

    def read_less() -> None:
        with pytest.raises(DataError, match=r"bomb.gz is truncated: .* needs 1073741840 bytes"):
            read_idx(path, 3)

    assert peak_bytes(read_less) < 4e6


def test_memory_is_that_of_the_values(tmp_path: Path) -> None:
    path = tmp_path / "file.gz"
    path.write_bytes(gzip.compress(struct.pack(">I3I", 0x803, 2**8, 2**8, 2**8) + bytes(2**24)))
    assert 2**24 <= peak_bytes(lambda: read_idx(path, 3)) < 1.5 * 2**24


@pytest.mark.parametrize(("code", "dtype"), [(9, ">i1"), (11, ">i2"), (12, ">i4")])
def test_other_integers(tmp_path: Path, code: int, dtype: str) -> None:
    """Read where uint8 holds them; qmnist has labels of 4 bytes."""
    path = tmp_path / "file"

    def write(*values: int) -> None:
        stored = np.array(values).astype(dtype).tobytes()
        path.write_bytes(struct.pack(">I", code << 8 | 1) + struct.pack(">I", len(values)) + stored)

    largest = min(255, np.iinfo(dtype).max)
    write(0, 7, largest)
    found = read_idx(path, 1)
    assert found.dtype == torch.uint8
    assert found.tolist() == [0, 7, largest]
    write()
    assert read_idx(path, 1).tolist() == []
    for odd in (-1, np.iinfo(dtype).min, 256, np.iinfo(dtype).max)[: 2 if largest < 255 else 4]:
        write(3, odd, 7)
        with pytest.raises(DataError, match=rf"file: expected values from 0 to 255, got {odd}$"):
            read_idx(path, 1)
    write(3, 7)
    path.write_bytes(path.read_bytes()[:-1])
    size = np.dtype(dtype).itemsize
    with pytest.raises(DataError, match=rf"needs {8 + 2 * size} bytes, got {7 + 2 * size}"):
        read_idx(path, 1)


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
