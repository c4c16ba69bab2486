"""What docs/tasks.md says of speech is what runs, and docs/training.md names its settings."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from hetsyn_triton.experiments.cli import train as command
from hetsyn_triton.experiments.cli.commands import run
from tests.support.corpora import tone, write

DOCS = Path(__file__).resolve().parents[2] / "docs"
TASKS_PAGE = (DOCS / "tasks.md").read_text(encoding="utf-8")
SPEECH = TASKS_PAGE.split("## Speech: fsdd, tidigits and ti46\n")[1].split("\n## ")[0]


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", SPEECH, flags=re.DOTALL | re.MULTILINE)


def test_the_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "7_jackson_32.wav", tone(7, 32))
    begun: list[dict[str, object]] = []
    monkeypatch.setattr(command, "train", lambda config, *_, **__: begun.append(config.options))
    for line in blocks("bash")[0].splitlines():
        assert run(shlex.split(line, comments=True)[1:]) == 0
    assert [options["speaker"] for options in begun] == [None, "theo"]
    assert (tmp_path / "seven.png").is_file()


def test_the_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "7_jackson_32.wav", tone(7, 32))
    names: dict[str, object] = {}
    exec(compile(blocks("python")[0], "docs/tasks.md", "exec"), names)
    assert names["spikes"].step.max() < 200  # type: ignore[attr-defined]


@pytest.mark.slow
def test_the_speed() -> None:
    """The command's CPU time for a minute: 100 times faster than real time, as the page says."""
    words = shlex.split(blocks("bash")[1].replace("\\\n", ""))
    assert words[0] == "python"
    done = subprocess.run([sys.executable, *words[1:]], capture_output=True, text=True, timeout=200)
    (milliseconds,) = re.findall(r"best of 5: (\S+) msec per loop", done.stdout)
    assert 60_000 / float(milliseconds) >= 100, done.stderr
