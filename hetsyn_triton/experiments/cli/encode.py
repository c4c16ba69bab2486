"""`hetsyn encode`: draw and count the spikes of an audio file."""

from pathlib import Path
from typing import Any

import click

from hetsyn_triton.experiments.extras import require_extra
from hetsyn_triton.experiments.tasks.audio import CrossingEncoder, read_audio
from hetsyn_triton.experiments.training import ConfigError


def run(file: str, out: str, **settings: Any) -> int:
    """Encode `file`, draw it to `out` and print the number of spikes."""
    require_extra("hetsyn encode", "matplotlib")
    from hetsyn_triton.experiments.tasks.audio.picture import draw_encoding

    path = Path(out)
    if path.suffix.lower() != ".png":
        raise ConfigError(f"out: expected a file name that ends in .png, got {out!r}")
    if not path.parent.is_dir():
        raise ConfigError(f"out: expected a file in an existing folder, got {out!r}")
    given = {name: value for name, value in settings.items() if value is not None}
    try:
        encoder = CrossingEncoder(**given)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    audio, rate = read_audio(file)
    try:
        spikes = draw_encoding(audio, rate, encoder, Path(file).name, path)
    except ValueError as error:
        raise ConfigError(f"{file} cannot be encoded: {error}") from error
    except OSError as error:
        raise ConfigError(f"out: {path} cannot be written: {error}") from error
    channels = len(set(spikes.channel.tolist()))
    click.echo(
        f"{len(audio) / rate:.3f} s at {rate} Hz: {len(spikes.step)} spikes in {channels} channels"
    )
    click.echo(f"Picture: {path}")
    return 0
