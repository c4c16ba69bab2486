"""fsdd, tidigits and ti46: which file is what, batches, learning, errors that help."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from hetsyn_triton.experiments.tasks import TASKS, DataError, SpokenDigits, TI46Alpha, TIDigits
from hetsyn_triton.experiments.tasks.audio import CrossingEncoder, read_audio
from hetsyn_triton.experiments.tasks.audio.task import SpokenWords, audio_files
from hetsyn_triton.experiments.training import ConfigError, default_config
from hetsyn_triton.experiments.training.trainer import Trainer
from tests.support.corpora import make_fsdd, make_ti46, make_tidigits, tone, write
from tests.support.limits import within


def sizes(task: SpokenWords) -> dict[str, int]:
    return {name: len(part.labels) for name, part in task.splits.items()}


def names_of(task: SpokenWords, folder: Path, split: str) -> list[str]:
    return [part.name for part in task.recordings(folder) if part.split == split]


def test_fsdd_official_split(tmp_path: Path) -> None:
    folder = make_fsdd(tmp_path)
    task = SpokenDigits(data_dir=folder)
    assert sizes(task) == {"train": 60, "test": 100}
    for split, numbers in (("train", {5, 6, 7}), ("test", set(range(5)))):
        found = [Path(name).stem.split("_") for name in names_of(task, folder, split)]
        assert {int(number) for _, _, number in found} == numbers
        assert {speaker for _, speaker, _ in found} == {"ann", "bob"}
        labels = task.splits[split].labels.tolist()
        assert [int(digit) for digit, _, _ in found] == labels
    assert sizes(SpokenDigits(data_dir=folder / "recordings")) == sizes(task)


def test_fsdd_without_a_speaker(tmp_path: Path) -> None:
    folder = make_fsdd(tmp_path)
    for speaker in ("bob", 1):
        task = SpokenDigits(data_dir=folder, speaker=speaker)
        assert sizes(task) == {"train": 80, "test": 80}
        assert all("_bob_" in name for name in names_of(task, folder, "test"))
        assert all("_ann_" in name for name in names_of(task, folder, "train"))
    for wrong in ("carl", 2):
        with pytest.raises(DataError, match=r"speaker: expected one of ann, bob, or 0 to 1, got"):
            SpokenDigits(data_dir=folder, speaker=wrong).load()


def test_validation_is_held_out_of_training_alone(tmp_path: Path) -> None:
    folder = make_fsdd(tmp_path)
    task, whole = SpokenDigits(data_dir=folder, validation=0.34), SpokenDigits(data_dir=folder)
    assert sizes(task) == {"train": 40, "validation": 20, "test": 100}
    rows = [set(task.splits[name].values.tolist()) for name in ("train", "validation", "test")]
    assert rows[0] | rows[1] == set(whole.splits["train"].values.tolist())
    assert not rows[0] & rows[1]
    assert torch.equal(task.splits["test"].values, whole.splits["test"].values)
    counts = torch.bincount(task.splits["validation"].labels)
    assert counts.tolist() == [2] * 10


def test_batches_are_the_spikes(tmp_path: Path) -> None:
    folder = make_fsdd(tmp_path)
    task = SpokenDigits(data_dir=folder, steps=50, range_db=30)
    batch = next(task.batches("test"))
    assert batch.input.shape == (50, 64, 500)
    name = names_of(task, folder, "test")[7]
    spikes = task.encoder()(*read_audio(folder / name))
    assert task.encoder().steps == 50
    assert batch.input[:, 7].sum() == len(spikes.step)
    assert batch.input[spikes.step, 7, spikes.channel].eq(1).all()
    again = next(SpokenDigits(data_dir=folder, steps=50, range_db=30).batches("test"))
    assert torch.equal(batch.input, again.input)  # this time from the cache
    assert task.sample().target.tolist() == [0]


@pytest.mark.parametrize("upper", [False, True])
def test_tidigits_layout(tmp_path: Path, upper: bool) -> None:
    folder = make_tidigits(tmp_path, upper)
    task = TIDigits(data_dir=folder)
    assert sizes(task) == {"train": 44, "test": 44}  # 2 adults, 11 digits, twice each
    for split in ("train", "test"):
        assert torch.bincount(task.splits[split].labels).tolist() == [4] * 11
    by_word = {Path(part.name).stem.lower()[0]: part.label for part in task.recordings(folder)}
    assert by_word == {"z": 0, "o": 10, **{str(digit): digit for digit in range(1, 10)}}
    assert next(task.batches("test")).input.sum() > 0


def test_ti46_layout(tmp_path: Path) -> None:
    folder = make_ti46(tmp_path)
    task = TI46Alpha(data_dir=folder)
    assert sizes(task) == {"train": 12, "test": 6}
    assert {Path(part.name).stem[:2]: part.label for part in task.recordings(folder)} == {
        "0a": 0,
        "0b": 1,
        "0z": 25,
    }
    assert all("/train/" in name for name in names_of(task, folder, "train"))
    assert all("/test/" in name for name in names_of(task, folder, "test"))
    assert sizes(TI46Alpha(data_dir=folder / "ti46" / "ti_alpha")) == sizes(task)


@pytest.mark.parametrize(
    ("task", "folder", "original", "copy"),
    [
        (SpokenDigits, make_fsdd, "recordings/3_ann_2.wav", "other/3_ann_2.wav"),
        (
            TIDigits,
            make_tidigits,
            "disc_4.1.1/tidigits/train/man/ae/3a.wav",
            "disc_4.1.1/tidigits/train/man/ae/3a.sph",
        ),
        (TI46Alpha, make_ti46, "ti46/ti_alpha/train/f1/0af1set0.wav", "ti46/0AF1SET0.WAV"),
    ],
)
def test_a_recording_that_is_there_twice(
    tmp_path: Path, task: type[SpokenWords], folder: Any, original: str, copy: str
) -> None:
    folder(tmp_path)
    (tmp_path / copy).parent.mkdir(exist_ok=True)
    shutil.copy(tmp_path / original, tmp_path / copy)
    with pytest.raises(DataError, match="contains one recording twice: ") as error:
        task(data_dir=tmp_path).load()
    assert original in str(error.value)
    assert copy in str(error.value)


def test_folders_are_visited_once(tmp_path: Path) -> None:
    """By their own paths, whatever links there are, and links of links in a loop."""
    folder = tmp_path / "corpus"
    for name in ("1.wav", "deep/2.wav", "deep/er/3.wav"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    own = [("1.wav",), ("deep", "2.wav"), ("deep", "er", "3.wav")]
    (folder / "a").symlink_to(".")
    (folder / "b").symlink_to(".")
    (folder / "c").symlink_to("d")
    (folder / "d").symlink_to("c")
    (folder / "all").symlink_to("deep/er")
    with within(5):
        assert list(audio_files(folder)) == own
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "4.wav").touch()
    (tmp_path / "other" / "back").symlink_to(folder)
    for name in ("z", "y"):
        (folder / name).symlink_to(tmp_path / "other")
    with within(5):
        assert list(audio_files(folder)) == [*own, ("y", "4.wav")]
        (tmp_path / "link").symlink_to(folder)
        assert list(audio_files(tmp_path / "link")) == [*own, ("y", "4.wav")]


def test_a_folder_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "closed").mkdir()
    listed = os.scandir

    def scandir(path: Any) -> Any:
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(DataError, match=r"closed cannot be read: .*Permission denied"):
        list(audio_files(tmp_path))


def test_leftovers_are_passed_over(tmp_path: Path) -> None:
    folder = make_fsdd(tmp_path)
    before = sizes(SpokenDigits(data_dir=folder))
    for name in ("._3_ann_2.wav", "3_ann_2.wav.part"):
        (folder / "recordings" / name).write_bytes(b"Mac OS X")
    assert sizes(SpokenDigits(data_dir=folder)) == before


def test_a_pipe_among_recordings(tmp_path: Path) -> None:
    folder = make_fsdd(tmp_path)
    os.mkfifo(folder / "recordings" / "3_carl_2.wav")
    with within(5), pytest.raises(DataError, match=r"3_carl_2.wav: expected a regular file, got"):
        SpokenDigits(data_dir=folder).load()


@pytest.mark.parametrize(
    ("name", "where"),
    [("fsdd", "Jakobovski"), ("tidigits", "LDC93S10"), ("ti46", "LDC93S9")],
)
def test_a_missing_corpus(
    tmp_path: Path, name: str, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HETSYN_DATA", raising=False)
    task = TASKS[name]
    with pytest.raises(DataError, match=f"data_dir: expected the folder of the corpus.*{where}"):
        task().steps_per_epoch  # noqa: B018
    monkeypatch.setenv("HETSYN_DATA", str(tmp_path))
    with pytest.raises(DataError, match=f"expected a folder, got .*{name}.*{where}"):
        task().steps_per_epoch  # noqa: B018
    with pytest.raises(DataError, match=f"expected recordings of the train set, got none.*{where}"):
        task(data_dir=tmp_path).steps_per_epoch  # noqa: B018
    (tmp_path / name).mkdir()
    with pytest.raises(DataError, match="expected recordings of the train set, got none"):
        task().steps_per_epoch  # noqa: B018


def test_a_name_that_is_none_of_fsdd(tmp_path: Path) -> None:
    write(tmp_path / "seven.wav", tone(7, 0))
    with pytest.raises(DataError, match=r"seven.wav: expected a name such as 7_jackson_32.wav"):
        SpokenDigits(data_dir=tmp_path).load()


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("hop_ms", 0, "a number from 1 to 1000"),
        ("steps", 11, "an integer from 12 to 100000"),
        ("normalization", "all", "one of utterance, band, none"),
        ("scale", True, "one of log, linear"),
        ("range_db", "50", "a number from 1 to 1000"),
        ("validation", 0.9, "0 or a number from 0.01 to 0.7"),
        ("speaker", -1, "a speaker's name or number, or null"),
    ],
)
def test_wrong_options(option: str, value: Any, expected: str) -> None:
    with pytest.raises(ValueError, match=f"options.{option}: expected {expected}, got"):
        SpokenDigits(**{option: value})


def test_the_earlier_spelling_names_the_present_one() -> None:
    old = {"normalisation": "band"}
    with pytest.raises(ConfigError, match=r"got 'normalisation' \(did you mean normalization\?\)"):
        default_config("fsdd", options=old)
    with pytest.raises(TypeError, match="normalisation"):
        CrossingEncoder(**old)  # type: ignore[arg-type]


def test_stored_runs_have_the_present_options() -> None:
    root = Path(__file__).resolve().parents[2]
    stored = sorted((root / "docs/results/json").glob("run-fsdd-*.json"))
    assert stored
    for path in stored:
        options = json.loads(path.read_text())["config"]["options"]
        assert set(options) == set(TASKS["fsdd"].options), path.name


@pytest.mark.parametrize(
    ("name", "make", "hidden", "weight_decay", "dropout"),
    [
        ("fsdd", make_fsdd, (64, 32), 1e-2, 0.5),
        ("tidigits", make_tidigits, (64, 32), 1e-2, 0.5),
        ("ti46", make_ti46, (128, 128), 4e-3, 0.2),
    ],
)
def test_protocol_and_learning(
    tmp_path: Path, name: str, make: Any, hidden: Any, weight_decay: float, dropout: float
) -> None:
    config = default_config(name)
    assert (config.hidden, config.weight_decay, config.dropout) == (hidden, weight_decay, dropout)
    assert (config.epochs, config.batch_size, config.recurrent) == (50, 32, True)
    assert (config.lr, config.decay_lr, config.optimizer) == (2e-3, 4e-3, "adamw")
    assert (config.readout, config.surrogate) == ("summed-softmax", "multi-gaussian")
    assert (config.tau, config.tau_reset) == ("uniform(5,20)", 20)
    of_the_protocol = {"horizon": 40, "schedule_unit": "epoch", "warmup": 0.05}
    of_fsdd = {"horizon": None, "schedule_unit": "batch", "warmup": 0.05}
    schedule = {field: getattr(config, field) for field in of_fsdd}
    assert schedule == (of_fsdd if name == "fsdd" else of_the_protocol)
    assert config.options["steps"] == (100 if name == "fsdd" else 200)
    changes = {"hidden": (16,), "epochs": 12, "batch_size": 20, "lr": 1e-2, "threads": 1}
    changes |= {"horizon": None, "schedule_unit": "batch"}
    small = {"data_dir": str(make(tmp_path)), "options": {"steps": 40}}
    trainer = Trainer(default_config(name, **changes, **small))
    losses = []
    for epoch in range(12):
        before = dict(trainer.means.sums)
        for batch in trainer.task.batches("train", epoch):
            trainer._train_on(batch)
            trainer.batch += 1
        gone = [trainer.means.sums[key] - before.get(key, 0.0) for key in ("loss", "samples")]
        losses.append(gone[0] / gone[1])
    assert sum(losses[-4:]) < 0.9 * sum(losses[:4]), losses


@pytest.mark.skipif("HETSYN_DATA" not in os.environ, reason="needs real speech: set HETSYN_DATA")
def test_real_fsdd() -> None:
    task = SpokenDigits(validation=0.1)
    assert sizes(task) == {"train": 2430, "validation": 270, "test": 300}
    assert sizes(SpokenDigits(speaker="theo")) == {"train": 2500, "test": 500}
    counts = task.events.starts.diff()
    assert counts.min() > 50
    assert int(task.events.times.max()) < 200
