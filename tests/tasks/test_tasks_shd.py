"""Spiking Heidelberg Digits: read through tonic, binned as described, never fetched."""

import os
import shutil
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from hetsyn_triton.experiments.extras import MissingExtraError
from hetsyn_triton.experiments.tasks import DataError, SpikingHeidelbergDigits
from hetsyn_triton.experiments.tasks.events import Events, bin_events, joined
from hetsyn_triton.experiments.training import default_config
from hetsyn_triton.experiments.training.build import build_network, build_task
from tests.support.heidelberg_files import CLASSES, write_heidelberg
from tests.support.learning import assert_falls, losses
from tests.support.limits import within


def events(*samples: list[tuple[int, int]]) -> Events:
    """Events of samples given as (time in microseconds, channel)."""
    flat = [event for sample in samples for event in sample]
    return Events(
        torch.tensor([time for time, _ in flat], dtype=torch.int32),
        torch.tensor([channel for _, channel in flat], dtype=torch.int16),
        torch.tensor([0, *(len(sample) for sample in samples)]).cumsum(0),
    )


def ones(shown: torch.Tensor) -> set[tuple[int, ...]]:
    assert shown.unique().tolist() in ([0], [0, 1])
    return {tuple(place) for place in shown.nonzero().tolist()}


def test_plain_binning() -> None:
    """Step k holds [4k, 4k + 4) ms; what is later is not shown; two spikes are one."""
    first = [(0, 0), (3999, 1), (4000, 1), (4001, 1), (19_999, 2), (20_000, 2), (2**31 - 1, 0)]
    second = [(11_999, 2), (8000, 0), (9000, 0)]
    shown = bin_events(events(first, [], second), 5, 3, 4000, "plain")
    assert shown.shape == (5, 3, 3)
    assert ones(shown) == {(0, 0, 0), (0, 0, 1), (1, 0, 1), (4, 0, 2), (2, 2, 2), (2, 2, 0)}


def test_official_binning() -> None:
    """Step k holds (4k - 4, 4k] ms, and the channels are in reverse order."""
    first = [(0, 0), (1, 1), (4000, 1), (4001, 1), (16_000, 2), (16_001, 2)]
    shown = bin_events(events(first), 5, 3, 4000, "official")
    assert ones(shown) == {(0, 0, 2), (1, 0, 1), (2, 0, 1), (4, 0, 0)}


def test_binnings_of_many_spikes_by_comparison() -> None:
    """Both against their descriptions, with intervals compared one by one."""
    generator = np.random.default_rng(1)
    times, channels = generator.integers(0, 60, 200) * 1000, generator.integers(0, 7, 200)
    sample = [(int(t), int(c)) for t, c in zip(times, channels, strict=True)]
    plain = bin_events(events(sample), 12, 7, 4000, "plain")
    official = bin_events(events(sample), 12, 7, 4000, "official")
    for k in range(12):
        for channel in range(7):
            own = times[channels == channel] / 1000
            assert plain[k, 0, channel] == ((4 * k <= own) & (own < 4 * (k + 1))).any()
            assert official[k, 0, 6 - channel] == ((4 * (k - 1) < own) & (own <= 4 * k)).any()


def test_taken_and_joined_events() -> None:
    one, other = events([(1, 1), (2, 2)], [], [(3, 3)]), events([(4, 4)])
    whole = joined([one, other])
    assert whole.starts.tolist() == [0, 2, 2, 3, 4]
    taken = whole.take(torch.tensor([3, 0, 1, 0]))
    assert taken.times.tolist() == [4, 1, 2, 1, 2]
    assert taken.channels.tolist() == [4, 1, 2, 1, 2]
    assert taken.starts.tolist() == [0, 1, 3, 3, 5]
    assert whole.take(torch.tensor([1])).times.shape == (0,)


def test_missing_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("train", "test"):
        write_heidelberg(tmp_path / "SHD" / f"shd_{name}.h5", [[0.1]], [[1]])
    monkeypatch.setitem(sys.modules, "tonic", None)
    with pytest.raises(
        MissingExtraError,
        match=r"SHD needs tonic: run pip install -c constraints.txt -e '.\[data\]'",
    ):
        SpikingHeidelbergDigits(data_dir=tmp_path).load()


def test_missing_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is missing, where it goes and where it can be had, before anything is read."""
    help = r"--data-dir.*HETSYN_DATA.*https://zenkelab\.org"
    monkeypatch.delenv("HETSYN_DATA", raising=False)
    with pytest.raises(DataError, match=f"data_dir: expected a folder.* got none.*{help}"):
        SpikingHeidelbergDigits().load()
    with pytest.raises(DataError, match=f"data_dir: expected a folder, got .*nowhere.*{help}"):
        SpikingHeidelbergDigits(data_dir=tmp_path / "nowhere").load()
    monkeypatch.setenv("HETSYN_DATA", str(tmp_path))
    with pytest.raises(DataError, match=rf"SHD/shd_train\.h5 does not exist.*{help}"):
        SpikingHeidelbergDigits().load()
    write_heidelberg(tmp_path / "SHD" / "shd_train.h5", [[0.1]], [[1]])
    with pytest.raises(DataError, match=r"SHD/shd_test\.h5 does not exist"):
        SpikingHeidelbergDigits().load()


def test_defaults_are_the_protocol() -> None:
    config = default_config("shd")
    assert (config.hidden, config.recurrent) == ((128, 64), True)
    assert (config.epochs, config.batch_size, config.dropout) == (100, 32, 0.2)
    assert (config.optimizer, config.lr, config.decay_lr) == ("adamw", 2e-3, 4e-3)
    assert (config.weight_decay, config.decay_weight_decay) == (4e-3, 4e-3)
    assert (config.schedule, config.schedule_unit) == ("cosine", "epoch")
    assert (config.warmup, config.horizon) == (0.05, 40)
    assert (config.readout, config.surrogate) == ("summed-softmax", "multi-gaussian")
    assert (config.dt, config.tau, config.tau_reset) == (1.0, "uniform(5,20)", 20.0)
    assert (config.tau_adaptation, config.adaptation) == (100.0, 0.05)
    assert SpikingHeidelbergDigits.first_step == 11
    network = build_network(config, build_task(config))
    assert sum(p.numel() for p in network.parameters()) == 2 * 119_552


@pytest.fixture
def tonic() -> None:
    """Skips a test where the extra `data` is not installed."""
    pytest.importorskip("tonic", reason="reads through tonic: install the extra data")


def stored(folder: Path, part: str) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The times in seconds and the units of all samples, as the file has them."""
    with h5py.File(folder / "SHD" / f"shd_{part}.h5") as file:
        return list(file["spikes/times"][()]), list(file["spikes/units"][()])


@pytest.mark.usefixtures("tonic")
@pytest.mark.parametrize("archive", [True, False])
def test_read_through_tonic(
    heidelberg: Path, archive: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every spike of the first second in its bin, whether or not the archive is still there."""
    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: pytest.fail("network"))
    for part in ("train", "test") if archive else ():
        (heidelberg / "SHD" / f"shd_{part}.h5.zip").touch()
    before = sorted(path.name for path in (heidelberg / "SHD").iterdir())
    for binning in ("plain", "official"):
        task = SpikingHeidelbergDigits(data_dir=heidelberg, binning=binning, batch_size=16)
        assert task.steps_per_epoch == 5
        batch = next(task.batches("test"))
        assert batch.input.shape == (250, 40, 700)
        assert torch.equal(batch.target, torch.arange(40) % CLASSES)
        expected = torch.zeros(250, 40, 700)
        for row, (times, units) in enumerate(zip(*stored(heidelberg, "test"), strict=True)):
            microseconds = (times.astype(np.float64) * 1e6).astype(int)
            for time, unit in zip(microseconds, units.astype(int), strict=True):
                step = time // 4000 if binning == "plain" else -(-time // 4000)
                if step < 250:
                    expected[step, row, unit if binning == "plain" else 699 - unit] = 1
        assert torch.equal(batch.input, expected)
    assert before == sorted(path.name for path in (heidelberg / "SHD").iterdir())


@pytest.mark.usefixtures("tonic")
def test_training_batches(heidelberg: Path) -> None:
    """All samples once an epoch, in an order of seed and epoch, each with its own label."""
    task = SpikingHeidelbergDigits(data_dir=heidelberg, batch_size=32, seed=3)
    labels = []
    for batch in task.batches("train", epoch=1):
        labels.append(batch.target)
        for row, label in enumerate(batch.target.tolist()):
            own = batch.input[:, row, 35 * label : 35 * label + 35].sum()
            assert own > 0.7 * batch.input[:, row, :699].sum()
    assert torch.cat(labels).bincount().tolist() == [4] * CLASSES
    again = next(task.batches("train", epoch=1, start=2))
    assert torch.equal(again.target, labels[2])
    assert not torch.equal(next(task.batches("train", epoch=2)).target, labels[0])


@pytest.mark.usefixtures("tonic")
def test_validation(heidelberg: Path) -> None:
    """A part of every class, or two speakers, and nothing of either in training."""
    for validation, count in ((0.0, 0), (0.25, 20), ("speakers", 40)):
        task = SpikingHeidelbergDigits(data_dir=heidelberg, validation=validation)
        rows = {name: part.values for name, part in task.splits.items()}
        held_out = rows.get("validation", torch.empty(0).long())
        assert len(held_out) == count
        both = torch.cat([rows["train"], held_out]).sort().values
        assert torch.equal(both, torch.arange(80))
        assert torch.equal(rows["test"], torch.arange(80, 120))
        if count:
            labels = task.splits["validation"].labels
            assert labels.bincount().tolist() == [count // 20] * 20
    assert held_out.tolist() == list(range(40, 80))  # speakers 2 and 3 of 0 to 3
    few = heidelberg / "few"
    few.mkdir()
    write_heidelberg(few / "SHD" / "shd_train.h5", [[0.1]] * 40, [[1]] * 40)
    shutil.copy(heidelberg / "SHD" / "shd_test.h5", few / "SHD")
    with pytest.raises(DataError, match=r"validation: expected more than 2 speakers .* got 2"):
        SpikingHeidelbergDigits(data_dir=few, validation="speakers").load()


CLAIMED = {"shape": (800_000_000,), "dtype": "u2", "chunks": (1000,)}
STORED: dict[str, tuple[str, dict[str, Any]]] = {
    "speakers": ("extra/speaker", {"data": np.zeros(39, np.uint16)}),
    "million speakers": ("extra/speaker", CLAIMED),
    "million labels": ("labels", CLAIMED),
    "no labels": ("labels", {"data": np.zeros(0, np.uint16)}),
    "million keys": ("extra/keys", {"shape": (10**8,), "dtype": "S100", "chunks": (1000,)}),
    "key table": ("extra/keys", {"data": np.full((4, 5), b"seven")}),
    "text labels": ("labels", {"data": ["seven"] * 40}),
    "large chunks": (
        "labels",
        {"shape": (40,), "dtype": "u2", "maxshape": (None,), "chunks": (2**30,)},
    ),
    "group": ("labels/of", {"data": np.zeros(40, np.uint16)}),
    "float speakers": ("extra/speaker", {"data": np.zeros(40)}),
    "float units": ("spikes/units", {"shape": (40,), "dtype": h5py.vlen_dtype(np.float32)}),
    "integer times": ("spikes/times", {"shape": (40,), "dtype": h5py.vlen_dtype(np.int32)}),
    "one time each": ("spikes/times", {"data": np.zeros(40, np.float32)}),
}
"""Parts that the file has instead of its own; a dataset in chunks takes no space unless written."""


@pytest.mark.usefixtures("tonic")
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("cut", "is damaged or not a file of SHD"),
        ("text", "is damaged or not a file of SHD"),
        ("extra/speaker", "is damaged or not a file of SHD"),
        ("spikes/units", "is damaged or not a file of SHD"),
        ("lengths", "is damaged or not a file of SHD"),
        ("label", "sample 3: expected label 0 to 19, got 20"),
        ("channel", "sample 2: expected channels from 0 to 699, got 700"),
        ("time", r"sample 1: expected times from 0 to 60 s, got -0\.5$"),
        ("no number", "sample 1: expected times from 0 to 60 s, got nan$"),
        ("infinity", "sample 1: expected times from 0 to 60 s, got inf$"),
        ("milliseconds", "sample 0: expected times from 0 to 60 s, got "),
        ("speakers", r"extra/speaker: expected shape \[40\] as of labels, got \[39\]"),
        (
            "million speakers",
            r"extra/speaker: expected shape \[40\] as of labels, got \[800000000\]",
        ),
        ("million labels", r"expected 1 to \d+ samples in \d+ bytes, got 800000000"),
        ("no labels", r"expected 1 to \d+ samples in \d+ bytes, got 0"),
        ("million samples", r"expected 1 to \d+ samples in \d+ bytes, got 30000"),
        (
            "million keys",
            r"extra/keys: expected values that fit in the \d+ bytes .*, got 10000000000",
        ),
        ("key table", r"extra/keys: expected a list of names, got shape \[4, 5\]"),
        ("text labels", "labels: expected integers, got text"),
        ("large chunks", r"labels: expected chunks of at most 1048576 values, got \(1073741824,\)"),
        ("group", "is damaged or not a file of SHD: 'Group' object"),
        ("float speakers", "extra/speaker: expected integers, got float64"),
        ("float units", "spikes/units: expected integers, got float32"),
        ("integer times", "spikes/times: expected floating point, got int32"),
        ("one time each", "spikes/times: expected floating point, got float32"),
    ],
)
def test_damaged_file(heidelberg: Path, damage: str, message: str) -> None:
    path = heidelberg / "SHD" / "shd_test.h5"
    if damage == "cut":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif damage == "text":
        path.write_text("<html>not found</html>")
    else:
        with h5py.File(path, "r+") as file:
            if damage in file:
                del file[damage]
            elif damage == "lengths":
                file["spikes/times"][0] = np.zeros(3, np.float16)
                file["spikes/units"][0] = np.zeros(5, np.uint16)
            elif damage == "label":
                file["labels"][3] = 20
            elif damage == "milliseconds":
                for row in range(40):
                    file["spikes/times"][row] = file["spikes/times"][row] * 1000
            elif damage == "million samples":
                for name in ("labels", "extra/speaker", "spikes/times", "spikes/units"):
                    dtype = file[name].dtype
                    del file[name]
                    file.create_dataset(name, (30_000,), dtype, chunks=(100,))
            elif damage in STORED:
                name, stored = STORED[damage]
                del file["labels" if damage == "group" else name]
                file.create_dataset(name, **stored)
            else:
                name, row, value = {
                    "channel": ("units", 2, 700),
                    "time": ("times", 1, -0.5),
                    "no number": ("times", 1, np.nan),
                    "infinity": ("times", 1, np.inf),
                }[damage]
                values = file[f"spikes/{name}"][row]
                values[4] = value
                file[f"spikes/{name}"][row] = values
    with pytest.raises(DataError, match=rf"SHD/shd_test\.h5.*{message}"):
        SpikingHeidelbergDigits(data_dir=heidelberg).load()


def change_length(path: Path, length: int) -> None:
    """Let the file say that sample 7 has `length` times."""
    with h5py.File(path) as file:
        place = file["spikes/times"].id.get_offset() + 7 * 16
    content = bytearray(path.read_bytes())
    content[place : place + 4] = length.to_bytes(4, "little")
    path.write_bytes(content)


@pytest.mark.usefixtures("tonic")
@pytest.mark.parametrize("length", [2**32 - 1, 2**31, 2**18])
def test_a_length_that_does_not_fit_in_the_file(heidelberg: Path, length: int) -> None:
    """HDF5 would allocate two and four bytes for each of them first."""
    path = heidelberg / "SHD" / "shd_test.h5"
    change_length(path, length)
    with pytest.raises(DataError, match=r"test.h5: spikes/times: expected values that fit in the"):
        SpikingHeidelbergDigits(data_dir=heidelberg).load()


@pytest.mark.usefixtures("tonic")
def test_a_length_that_is_not_that_of_the_values(heidelberg: Path) -> None:
    path = heidelberg / "SHD" / "shd_test.h5"
    change_length(path, 1000)
    with pytest.raises(DataError, match=r"shd_test.h5 is damaged or not a file of SHD: .*size"):
        SpikingHeidelbergDigits(data_dir=heidelberg).load()


@pytest.mark.parametrize("kind", ["f2", ">f4", "u2"])
@pytest.mark.parametrize(
    "stored",
    [
        {},
        {"chunks": (5,), "maxshape": (None,)},
        {"chunks": (64,), "maxshape": (None,), "compression": "gzip", "shuffle": True},
    ],
)
def test_lengths_of_rows(tmp_path: Path, kind: str, stored: dict[str, Any]) -> None:
    """As the file states them, in every way to store them; rows that were not written are empty."""
    from hetsyn_triton.experiments.tasks.row_lengths import row_lengths

    lengths = [3, 0, 200, *range(20)]
    with h5py.File(tmp_path / "file", "w", userblock_size=512) as file:
        rows = file.create_dataset("rows", (40,), h5py.vlen_dtype(np.dtype(kind)), **stored)
        for row, length in enumerate(lengths):
            rows[row] = np.ones(length, kind)
    with open(tmp_path / "file", "rb") as content, h5py.File(tmp_path / "file") as file:
        found = row_lengths(file["rows"], content)
    assert found.tolist() == lengths + [0] * (40 - len(lengths))


def test_rows_that_are_elsewhere(tmp_path: Path) -> None:
    from hetsyn_triton.experiments.tasks.row_lengths import row_lengths

    with h5py.File(tmp_path / "file", "w") as file:
        layout = h5py.VirtualLayout((40,), h5py.vlen_dtype(np.float16))
        file.create_virtual_dataset("far/rows", layout)
    with (
        open(tmp_path / "file", "rb") as content,
        h5py.File(tmp_path / "file") as file,
        pytest.raises(DataError, match=r"file: far/rows: expected rows in one piece or in chunks"),
    ):
        row_lengths(file["far/rows"], content)


@pytest.mark.parametrize("size", [0, 255, 2**63])
def test_a_heap_that_hdf5_never_leaves(heidelberg: Path, size: int) -> None:
    """After an object of a wrong size, HDF5 reads the size of the next one from any bytes."""
    from hetsyn_triton.experiments.tasks.row_lengths import row_lengths

    path = heidelberg / "SHD" / "shd_test.h5"
    content = bytearray(path.read_bytes())
    heap = content.index(b"GCOL")
    assert content[heap + 16] == 1  # the number of the first object, whose size follows
    content[heap + 24 : heap + 32] = size.to_bytes(8, "little")
    content[heap + 32 : heap + 32 + 256] = bytes(256)
    path.write_bytes(content)
    with (
        open(path, "rb") as stored,
        h5py.File(path) as file,
        pytest.raises(DataError, match=f"test.h5: spikes/times: expected a heap at byte {heap}"),
    ):
        row_lengths(file["spikes/times"], stored)


@pytest.mark.usefixtures("tonic")
def test_names_of_any_length(heidelberg: Path) -> None:
    """Names of classes may be text of any length; its lengths are checked, too."""
    path = heidelberg / "SHD" / "shd_test.h5"
    with h5py.File(path, "r+") as file:
        del file["extra/keys"]
        file["extra/keys"] = ["zero", "one"]
        place = file["extra/keys"].id.get_offset()
    assert len(SpikingHeidelbergDigits(data_dir=heidelberg).splits["test"].labels) == 40
    content = bytearray(path.read_bytes())
    content[place + 3] = 255
    path.write_bytes(content)
    with pytest.raises(
        DataError, match=r"extra/keys: expected values that fit in the .* 4278190\d"
    ):
        SpikingHeidelbergDigits(data_dir=heidelberg).load()


@pytest.mark.usefixtures("tonic")
def test_a_pipe_or_a_device_as_a_file(heidelberg: Path) -> None:
    path = heidelberg / "SHD" / "shd_test.h5"
    path.unlink()
    os.mkfifo(path)
    for found in ("a FIFO", "a device"):
        with within(5), pytest.raises(DataError, match=f"h5: expected a regular file, got {found}"):
            SpikingHeidelbergDigits(data_dir=heidelberg).load()
        path.unlink()
        path.symlink_to("/dev/zero")


@pytest.mark.usefixtures("tonic")
def test_is_learned(heidelberg: Path) -> None:
    config = default_config(
        "shd", data_dir=str(heidelberg), hidden=(30,), lr=1e-2, batch_size=16, threads=1
    )
    assert_falls(losses(config, 15))
