"""Names, options and sizes in docs/tasks.md are those of the tasks."""

import re
from pathlib import Path

import pytest

from hetsyn_triton.experiments.tasks import TASKS
from hetsyn_triton.experiments.tasks.shd import CHANNELS, STEPS

PAGE = (Path(__file__).resolve().parents[2] / "docs/tasks.md").read_text(encoding="utf-8")
SYNTHETIC = ["pattern-generation", "delayed-match", "multi-timescale-xor"]
NAMES = ["digits", "smnist", "psmnist", "idx", *SYNTHETIC, "shd"]


def test_every_task_is_named() -> None:
    assert set(NAMES) <= set(TASKS)
    for name in TASKS:
        assert f"`{name}`" in PAGE


@pytest.mark.parametrize("name", NAMES)
def test_every_setting_is_named(name: str) -> None:
    (section,) = re.findall(rf"^## (?:\w+ and )?{name}\b.*?(?=^## |\Z)", PAGE, re.M | re.S)
    for option in TASKS[name].options:
        assert f"`{option}" in section


SPEECH = ["fsdd", "tidigits", "ti46"]


@pytest.mark.parametrize("name", ["digits", *SYNTHETIC, "shd", *SPEECH])
def test_sizes(name: str) -> None:
    """Steps and channels of the table are those of a batch."""
    row = rf"^\| `{name}` \|.*\| (\d+), (\d+) \| (\S+) \|"
    steps, channels, outputs = re.findall(row, PAGE, re.M)[0]
    if outputs.isdecimal():
        assert int(outputs) == TASKS[name].out_features
    if name in SPEECH:
        task = TASKS[name]
        assert (int(steps), int(channels)) == (task.options["steps"].default, task.in_features)
    elif name == "shd":
        assert (int(steps), int(channels)) == (STEPS, CHANNELS)
    else:
        batch = next(TASKS[name]().batches("test"))
        assert (int(steps), int(channels)) == (batch.input.shape[0], batch.input.shape[2])
