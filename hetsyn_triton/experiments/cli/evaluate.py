"""`hetsyn eval`: print loss and metrics of a run."""

import json
from typing import Any

import click
from rich.console import Console
from rich.text import Text

from hetsyn_triton.experiments.training import ConfigError, evaluate, load_run

from .configure import named_value
from .progress import metrics_table


def run(
    run_folder: str,
    split: str,
    data_dir: str | None,
    device: str | None,
    weights: str,
    more: tuple[str, ...],
    as_json: bool,
) -> int:
    """Print the measures on `split` of the run in `run_folder`."""
    options = dict[str, Any]()
    for text in more:
        name, value = named_value(text)
        if name in options:
            raise ConfigError(f"set: expected {name} once, got another value in {text!r}")
        options[name] = value
    found = load_run(run_folder, data_dir=data_dir, device=device, options=options, weights=weights)
    values = evaluate(found, split)
    if as_json:
        about = {"split": split, "epoch": found.epoch, "options": found.config.options}
        click.echo(json.dumps({**about, **values}))
        return 0
    title = f"{found.config.task}, {found.config.model}: {split} after epoch {found.epoch}"
    title += "".join(f", {text}" for text in more)
    console = Console()
    console.print(Text(title), soft_wrap=True)
    console.print(metrics_table(values))
    return 0
