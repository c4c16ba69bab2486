"""`hetsyn settings`: list the settings of a task, or print their JSON schema."""

import json
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from hetsyn_triton.experiments.tasks import task_class
from hetsyn_triton.experiments.training import TrainConfig, default_config

TITLE = "Settings of {task}, for --set and --config:"


def run(task: str, as_json: bool) -> int:
    """Print every setting of `task` with default and meaning."""
    config = default_config(task)
    if as_json:
        click.echo(json.dumps(schema(config), indent=2))
        return 0
    options = task_class(task).options
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("name=default", no_wrap=True)
    table.add_column("meaning")
    for name, option in options.items():
        table.add_row(*map(Text, (_setting(name, option.default), option.meaning)))
    for name, value in config:
        if name not in ("task", "options"):
            meaning = TrainConfig.model_fields[name].description or ""
            table.add_row(*map(Text, (_setting(name, value), meaning)))
    console = Console()
    console.print(Text(TITLE.format(task=task)))
    console.print(table)
    return 0


def schema(config: TrainConfig) -> dict[str, Any]:
    """Return the JSON schema of settings whose defaults are those in `config`."""
    found = TrainConfig.model_json_schema()
    found["description"] = f"Settings of hetsyn train {config.task}."
    del found["required"]  # a file may leave out settings
    properties = found["properties"]
    for name, value in config.to_json().items():
        properties[name]["default"] = value
    properties["options"] |= {
        "additionalProperties": False,
        "properties": {
            name: {"default": option.default, "description": f"{option.meaning}: {option.expected}"}
            for name, option in task_class(config.task).options.items()
        },
    }
    return found


def _setting(name: str, value: Any) -> str:
    """Return NAME=VALUE as --set takes it."""
    if name == "hidden":
        return f"{name}={','.join(map(str, value))}"
    return f"{name}={value if isinstance(value, str) else json.dumps(value)}"
