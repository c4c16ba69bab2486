"""`hetsyn encode`: a picture of a recording and its spikes."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from hetsyn_triton.experiments.cli.commands import run
from hetsyn_triton.experiments.tasks.audio import CrossingEncoder, read_audio
from hetsyn_triton.experiments.tasks.audio.picture import draw_encoding
from tests.support.corpora import tone, write


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, out = write(tmp_path / "seven.wav", tone(7, 0)), tmp_path / "seven.png"
    assert run(["encode", str(file), "--out", str(out)]) == 0
    spikes = CrossingEncoder()(*read_audio(file))
    shown = capsys.readouterr().out
    assert f"0.300 s at 8000 Hz: {len(spikes.step)} spikes in " in shown
    assert str(out) in shown
    picture = imread(out)
    assert picture.shape[0] > 1000
    assert picture[..., :3].std() > 0.05
    command = ["encode", str(file), "--out", str(out), "--steps", "10", "--scale", "linear"]
    assert run(command) == 0
    few = CrossingEncoder(steps=10, scale="linear")(*read_audio(file))
    assert f": {len(few.step)} spikes in" in capsys.readouterr().out
    assert run(["encode", str(file), "--out", str(out), "--normalization", "band"]) == 0
    by_band = CrossingEncoder(normalization="band")(*read_audio(file))
    assert len(by_band.step) != len(spikes.step)
    assert f": {len(by_band.step)} spikes in" in capsys.readouterr().out


@pytest.mark.parametrize("samples", [0, 1, 4000, 16001])
def test_any_length(tmp_path: Path, samples: int) -> None:
    for audio in (np.zeros(samples), np.random.default_rng(0).normal(size=samples)):
        encoder = CrossingEncoder()
        spikes = draw_encoding(audio, 8000, encoder, "title", tmp_path / "a.png")
        assert np.array_equal(spikes.channel, encoder(audio, 8000).channel)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["FILE", "--out", "a.jpg"], "out: expected a file name that ends in .png, got 'a.jpg'"),
        (["FILE", "--out", "gone/a.png"], "out: expected a file in an existing folder, got"),
        (["FILE", "--out", "a.png", "--hop-ms", "0"], "hop_ms: expected a positive"),
        (["FILE", "--out", "a.png", "--scale", "x"], "scale: expected one of log, linear, got 'x'"),
        (["gone.wav", "--out", "a.png"], "gone.wav cannot be read"),
        (["slow.wav", "--out", "a.png"], "slow.wav cannot be encoded: rate: expected more than"),
    ],
)
def test_what_is_wrong_is_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a.wav", tone(0, 0))
    write(tmp_path / "slow.wav", tone(0, 0), 500)
    assert run(["encode", *(part.replace("FILE", "a.wav") for part in arguments)]) == 2
    shown = capsys.readouterr().err
    assert message in shown
    assert shown.count("\n") == 1
    assert not (tmp_path / "a.png").exists()
