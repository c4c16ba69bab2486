"""`hetsyn results`: write docs/results.md from run and study folders."""

from pathlib import Path

import click

from hetsyn_triton.experiments.studies.results import collect
from hetsyn_triton.experiments.studies.results_page import write


def run(folders: tuple[str, ...], docs: str) -> int:
    """Copy the results of `folders` to docs/results/, then write docs/results.md."""
    for folder in folders:
        click.echo(f"Copied {folder} to {collect(Path(folder), Path(docs))}")
    click.echo(f"Wrote {write(Path(docs))}")
    return 0
