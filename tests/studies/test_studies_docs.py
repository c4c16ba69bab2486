"""The commands and options in docs/studies.md are those that run."""

import re
import shlex
from pathlib import Path

import pytest

from hetsyn_triton.experiments.cli import study as command
from hetsyn_triton.experiments.cli.commands import run
from hetsyn_triton.experiments.studies import STUDIES, StudyResult
from hetsyn_triton.experiments.studies.study_settings import make_settings

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/studies.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE)


def test_the_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (code,) = blocks("python")
    exec(compile(code, "docs/studies.md", "exec"), {"__name__": "page"})
    for path in (tmp_path / "runs/variants").iterdir():
        assert path.name.startswith(".") or f"`{path.name}" in PAGE


def test_the_commands(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each line's settings are allowed."""
    begun = []

    def settings_only(name, *, reporter, out, jobs, task, full, seeds, **changes):  # type: ignore[no-untyped-def]
        settings = make_settings(STUDIES[name], task=task, full=full, seeds=seeds, changes=changes)
        begun.append(name)
        return StudyResult(tmp_path, settings, [], [])

    monkeypatch.setattr(command, "run_study", settings_only)
    for line in blocks("bash")[0].splitlines():
        assert run(shlex.split(line)[1:]) == 0
    assert begun == list(STUDIES)


def test_every_study_and_setting_is_named() -> None:
    """In the table of studies, and in the table of options, which has no others."""
    options = PAGE.split("\n## Options\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `([\w-]+)` \| ([^|]*) \| [^|]+ \|$", options, re.MULTILINE)
    found = {(study, option) for study, names in rows for option in re.findall(r"`(\w+)`", names)}
    everywhere = ("models", "forms")
    assert all(f"`{option}`" in options for option in everywhere)
    assert found == {
        (name, option)
        for name, study in STUDIES.items()
        for option in study.options
        if option not in everywhere
    }
    for name in STUDIES:
        assert PAGE.count(f"\n| `{name}` | ") > options.count(f"\n| `{name}` | ")
