"""Audio files: what can be read is read, what cannot is named."""

import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile

from hetsyn_triton.experiments.tasks import DataError
from hetsyn_triton.experiments.tasks.audio import read_audio
from tests.support.corpora import write

SAMPLES = np.round(np.sin(np.arange(700) / 9) * 20000) / 32768


@pytest.mark.parametrize(("format", "suffix"), [("WAV", "wav"), ("FLAC", "flac"), ("NIST", "sph")])
def test_formats(tmp_path: Path, format: str, suffix: str) -> None:
    path = write(tmp_path / f"a.{suffix}", SAMPLES, 12500, format)
    if format == "NIST":
        assert path.read_bytes().startswith(b"NIST_1A\n")
    samples, rate = read_audio(path)
    assert rate == 12500
    assert samples.dtype == np.float32
    assert np.array_equal(samples, SAMPLES.astype(np.float32))


def test_sphere_in_the_name_of_a_wav(tmp_path: Path) -> None:
    """As the corpora are distributed."""
    samples, rate = read_audio(str(write(tmp_path / "1A.WAV", SAMPLES, 20000, "NIST")))
    assert (len(samples), rate) == (700, 20000)


def test_channels_are_averaged(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", np.stack([SAMPLES, SAMPLES / 2], axis=1))
    assert read_audio(path)[0] == pytest.approx(0.75 * SAMPLES, abs=1e-4)


def test_no_sample(tmp_path: Path) -> None:
    assert read_audio(write(tmp_path / "a.wav", SAMPLES[:0]))[0].shape == (0,)


@pytest.mark.parametrize("format", ["WAV", "FLAC", "NIST"])
@pytest.mark.parametrize("kept", [0.0, 0.02, 0.1, 0.5, 0.95])
def test_truncated(tmp_path: Path, format: str, kept: float) -> None:
    path = write(tmp_path / "cut.audio", SAMPLES, 8000, format)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(DataError, match=r"cut\.audio "):
        read_audio(path)


def test_compressed_sphere(tmp_path: Path) -> None:
    path = write(tmp_path / "z9a.wav", SAMPLES, 20000, "NIST")
    content = path.read_bytes()
    coding = b"sample_coding -s26 pcm,embedded-shorten-v1.09\n"
    header = content[:1024].replace(b"end_head\n", coding + b"end_head\n")
    path.write_bytes(header[:1024] + content[1024:])
    expected = r"z9a.wav has compressed samples \(pcm,embedded-shorten-v1.09\): .*sph2pipe -f wav"
    with pytest.raises(DataError, match=expected):
        read_audio(path)


def test_sphere_without_a_count(tmp_path: Path) -> None:
    path = write(tmp_path / "a.sph", SAMPLES, 20000, "NIST")
    path.write_bytes(path.read_bytes().replace(b"sample_count", b"simple_count"))
    with pytest.raises(DataError, match=r"a.sph is damaged: its header has no number of samples"):
        read_audio(path)


def test_other_than_audio(tmp_path: Path) -> None:
    (tmp_path / "notes.wav").write_text("no audio")
    with pytest.raises(DataError, match=r"notes.wav cannot be read as audio"):
        read_audio(tmp_path / "notes.wav")
    with pytest.raises(DataError, match=r"gone.wav cannot be read"):
        read_audio(tmp_path / "gone.wav")
    with pytest.raises(DataError, match=r"cannot be read"):
        read_audio(tmp_path)


def test_values_that_are_not_finite(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.array([0.0, np.nan]), 8000, subtype="FLOAT")
    with pytest.raises(DataError, match=r"a.wav is damaged: some of its samples are not finite"):
        read_audio(tmp_path / "a.wav")


def test_a_wav_of_unknown_length(tmp_path: Path) -> None:
    """As written to a pipe: the length in the header is the largest there is."""
    path = write(tmp_path / "a.wav", SAMPLES)
    content = bytearray(path.read_bytes())
    content[40:44] = struct.pack("<I", 0xFFFFFFFF)
    path.write_bytes(content)
    assert len(read_audio(path)[0]) == 700


def test_a_chunk_of_odd_length(tmp_path: Path) -> None:
    """A byte of padding follows it, which its length does not count."""
    path = write(tmp_path / "a.wav", SAMPLES)
    content = path.read_bytes()
    odd = b"note" + struct.pack("<I", 3) + b"abc\0"
    size = struct.pack("<I", len(content) + len(odd) - 8)
    path.write_bytes(content[:4] + size + content[8:36] + odd + content[36:])
    assert np.array_equal(read_audio(path)[0], SAMPLES.astype(np.float32))
