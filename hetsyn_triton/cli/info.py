"""`hetsyn info`: versions, devices, and who computes what."""

import click
import torch

from hetsyn_triton.ops.backends import backend_info
from hetsyn_triton.training import environment


def run() -> int:
    """Print them."""
    for name, value in environment().items():
        click.echo(f"{name:14} {'not installed' if value is None else value}")
    click.echo(f"{'cuda devices':14} {torch.cuda.device_count() or 'none'}")
    _print_operators("cpu")
    for index in range(torch.cuda.device_count()):
        click.echo(f"\ncuda:{index} is {torch.cuda.get_device_name(index)}")
        _print_operators(f"cuda:{index}")
    return 0


def _print_operators(device: str) -> None:
    """Operators on `device` by the implementation `auto` chooses, and why it is no other."""
    click.echo(f"\non {device}, where backend is auto:")
    groups: dict[tuple[str, tuple[tuple[str, str], ...]], list[str]] = {}
    for info in backend_info(device).operators:
        groups.setdefault((info.chosen, tuple(info.others.items())), []).append(info.operator)
    for (chosen, others), operators in groups.items():
        names = click.wrap_text(", ".join(operators), 90, "      ", "      ")
        click.echo(f"  {chosen} runs\n{names}")
        for other, reason in others:
            click.echo(f"    not the {other}: {reason}")
