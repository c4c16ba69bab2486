"""`hetsyn info`: print versions, devices and the backend of each operator."""

from shutil import get_terminal_size

import click
import torch

from hetsyn_triton.experiments.training import environment
from hetsyn_triton.ops.dispatch import backend_info

WIDEST = 100


def run() -> int:
    """Print versions, devices and the backend of each operator."""
    for name, value in environment().items():
        click.echo(f"{name:14} {'not installed' if value is None else value}")
    click.echo(f"{'cuda devices':14} {torch.cuda.device_count() or 'none'}")
    _print_operators("cpu")
    for index in range(torch.cuda.device_count()):
        click.echo(f"\ncuda:{index}: {torch.cuda.get_device_name(index)}")
        _print_operators(f"cuda:{index}")
    return 0


def _print_operators(device: str) -> None:
    """Print which implementation `auto` chooses on `device`, and why it does not choose others."""
    click.echo(f"\non {device} with backend auto:")
    groups: dict[tuple[str, tuple[tuple[str, str], ...]], list[str]] = {}
    for info in backend_info(device).operators:
        groups.setdefault((info.chosen, tuple(info.others.items())), []).append(info.operator)
    for (chosen, others), operators in groups.items():
        click.echo(f"  {chosen}:")
        _print_wrapped(", ".join(operators))
        for other, reason in others:
            _print_wrapped(f"{other} not used: {reason}")


def _print_wrapped(text: str) -> None:
    width = min(WIDEST, get_terminal_size().columns)
    click.echo(click.wrap_text(text, width, " " * 4, " " * 6))
