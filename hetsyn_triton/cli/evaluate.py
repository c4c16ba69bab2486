"""`hetsyn eval`: loss and metrics of a run."""

import json

import click
from rich.console import Console

from hetsyn_triton.training import evaluate, load_run

from .progress import metrics_table


def run(
    run_folder: str, split: str, data_dir: str | None, device: str | None, as_json: bool
) -> int:
    """Print the measures of the last checkpoint in `run_folder` on `split`."""
    found = load_run(run_folder, data_dir=data_dir, device=device)
    values = evaluate(found, split)
    if as_json:
        click.echo(json.dumps({"split": split, "epoch": found.epoch, **values}))
        return 0
    title = f"{found.config.task}, {found.config.model}, {split}, after epoch {found.epoch}"
    Console().print(metrics_table(title, values))
    return 0
