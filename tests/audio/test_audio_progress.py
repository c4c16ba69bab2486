"""Encoding a corpus for the first time shows how far it is."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from hetsyn_triton.experiments.cli.progress import RichReporter
from hetsyn_triton.experiments.tasks.watching import tell
from hetsyn_triton.experiments.training import Reporter, TrainConfig, default_config, resume, train
from tests.support.corpora import make_fsdd


class Heard(Reporter):
    """Keeps what it is told of the data."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, int, int]] = []

    def preparing(self, what: str, done: int, total: int) -> None:
        self.lines.append((what, done, total))


@pytest.fixture
def config(tmp_path: Path) -> TrainConfig:
    folder = str(make_fsdd(tmp_path))
    return default_config(
        "fsdd", hidden=(4,), epochs=1, data_dir=folder, threads=1, options={"steps": 20}
    )


def test_a_reporter_hears_of_each_file_once(
    config: TrainConfig, cache_home: Path, tmp_path: Path
) -> None:
    first, second, third = Heard(), Heard(), Heard()
    train(config, tmp_path / "first", reporter=first, pictures=False)
    files = len(list(Path(config.data_dir or "").rglob("*.wav")))
    assert first.lines == [("encoding audio files", n, files) for n in range(files + 1)]
    train(config, tmp_path / "second", reporter=second, pictures=False)
    assert second.lines == []  # read from the cache
    for kept in (cache_home / "hetsyn_triton" / "audio").iterdir():
        kept.unlink()
    resume(tmp_path / "first", reporter=third, pictures=False)
    assert third.lines == first.lines
    tell("nobody hears this", 0, 1)
    assert third.lines == first.lines


def test_a_bar_on_a_terminal() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, color_system=None, width=100)
    reporter = RichReporter(console)
    for done in range(5):
        reporter.preparing("encoding audio files", done, 5)
    assert reporter.bar is not None
    reporter.bar.refresh()
    assert "encoding audio files 4/5" in console.file.getvalue()  # type: ignore[attr-defined]
    reporter.preparing("encoding audio files", 5, 5)
    assert reporter.bar is None  # the place is free for the bar of the training


def test_no_bar_elsewhere() -> None:
    console = Console(file=io.StringIO())
    reporter = RichReporter(console)
    reporter.preparing("encoding audio files", 1, 2)
    assert reporter.bar is None
    assert console.file.getvalue() == ""  # type: ignore[attr-defined]
