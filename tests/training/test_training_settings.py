"""`hetsyn settings` lists every setting, and `hetsyn train --config` reads them from a file."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from hetsyn_triton.experiments.cli.commands import run
from hetsyn_triton.experiments.cli.configure import configured, notes
from hetsyn_triton.experiments.tasks import TASKS
from hetsyn_triton.experiments.training import ConfigError, TrainConfig, default_config
from hetsyn_triton.experiments.training.config import FIELDS


@pytest.mark.parametrize("width", [60, 80])
@pytest.mark.parametrize("task", TASKS)
def test_every_setting_is_listed(
    task: str, width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its default, in the form that --set takes, and with its meaning."""
    monkeypatch.setenv("COLUMNS", str(width))
    assert run(["settings", task]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(len(line) <= width and "…" not in line for line in lines)
    settings = [line.split()[0] for line in lines[2:] if not line.startswith(" ")]
    assert [setting.partition("=")[0] for setting in settings] == [
        *TASKS[task].options,
        *(name for name in FIELDS if name not in ("task", "options")),
    ]
    assert configured(task, {}, tuple(settings))[0] == default_config(task)
    text = " ".join(" ".join(lines).split())
    meanings = [option.meaning for option in TASKS[task].options.values()]
    meanings += [
        field.description or ""
        for name, field in TrainConfig.model_fields.items()
        if name not in ("task", "options")
    ]
    for meaning in meanings:
        assert meaning
        assert meaning in text


@pytest.mark.parametrize("task", TASKS)
def test_the_schema_has_the_defaults_of_the_task(
    task: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["settings", task, "--json"]) == 0
    schema = json.loads(capsys.readouterr().out)
    properties = schema["properties"]
    assert {n: p["default"] for n, p in properties.items()} == default_config(task).to_json()
    own = properties["options"]["properties"]
    assert {n: p["default"] for n, p in own.items()} == TASKS[task].default_options()
    assert all(p["description"] for p in (*properties.values(), *own.values()))
    assert properties["task"]["enum"] == list(TASKS)
    assert properties["lr"]["exclusiveMinimum"] == 0


def write(path: Path, values: Any) -> str:
    path.write_text(values if isinstance(values, str) else json.dumps(values))
    return str(path)


def test_config_json_repeats_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    more = ["--hidden", "8", "--epochs", "2", "--lr", "1", "--set", "hold=1", "--seed", "3"]
    assert run(["train", *more, "--out", str(first)]) == 0
    assert run(["train", "--config", str(first / "config.json"), "--out", str(second)]) == 0
    assert capsys.readouterr().err == ""  # no note on settings that are the task's defaults
    assert (first / "config.json").read_bytes() == (second / "config.json").read_bytes()
    weights = [
        torch.load(folder / "checkpoint.pt", weights_only=False)["model"]
        for folder in (first, second)
    ]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_the_command_overrides_the_file(tmp_path: Path) -> None:
    values = {"task": "delayed-match", "lr": 1, "hidden": [8, 4], "delay": 50, "threads": 10**4}
    file = write(tmp_path / "f.json", {**values, "options": {"cue_hz": 60}})
    given = {"hidden": "5", "threads": 1}
    config, changed = configured(None, given, ("delay=100", "seed=2"), file)
    assert config == default_config(
        "delayed-match",
        lr=1,
        hidden=(5,),
        threads=1,
        seed=2,
        options={"delay": 100, "cue_hz": 60},
    )
    assert changed == ["hidden", "threads", "seed", "delay", "lr"]
    file = write(tmp_path / "g.json", {"task": "digits", "lr": 1})
    assert configured("smnist", {}, (), file)[0] == default_config("smnist", lr=1)
    assert configured(None, {}, (), write(tmp_path / "h.json", {}))[0] == default_config()


def test_a_setting_of_the_file_without_effect_is_noted(tmp_path: Path) -> None:
    values = {"model": "homneu", "learn_decay": False, "adaptation": 0.05}  # 0.05 is the default
    file = write(tmp_path / "f.json", values)
    assert list(notes(*configured(None, {}, (), file))) == [
        "learn_decay has no effect: homneu does not learn time constants"
    ]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"lrr": 1}, "FILE: settings: expected one of task, .*got lrr \\(did you mean lr"),
        ({"lr": -1}, "FILE: lr: expected a positive number, got -1$"),
        ({"tau": 10**400}, "FILE: tau: expected positive time constants"),
        ({"hidden": "8,4"}, "FILE: hidden: expected 1 to 1000 positive integers"),
        ({"hold": 0}, "FILE: options.hold: expected an integer from 1 to 1000, got 0$"),
        ({"options": {"holdd": 1}}, "FILE: options: expected one of hold, .*mean hold"),
        ({"options": [1]}, "FILE: options: expected an object with settings of the task, got "),
        ({"options": {"hold": 1}, "hold": 2}, "FILE: options: expected hold once, got another"),
        ({"task": "smnst"}, "FILE: task: expected one of digits, .*did you mean smnist"),
        ({"task": ["digits"]}, "FILE: task: expected one of digits, .*got \\['digits'\\]"),
        ({"threads": 1000}, "FILE: threads: expected at most"),
        ([1, 2], "FILE: expected an object with settings, got list$"),
        ("{'lr': 1}", "config: expected a JSON file, got 'FILE' \\(Expecting property name"),
        ("[" * 100_000, "config: expected a JSON file, got 'FILE' \\("),
    ],
)
def test_bad_files(
    values: Any, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path / "f.json", values)
    with pytest.raises(ConfigError, match=message.replace("FILE", file)):
        configured(None, {}, (), file)
    assert run(["train", "--config", file]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_an_error_of_the_command_does_not_name_the_file(tmp_path: Path) -> None:
    file = write(tmp_path / "f.json", {"lr": 1})
    with pytest.raises(ConfigError, match=r"^lr: expected a positive number, got -2$"):
        configured(None, {"lr": -2}, (), file)
    with pytest.raises(ConfigError, match=r"^task: expected one of"):
        configured("smnst", {}, (), file)
