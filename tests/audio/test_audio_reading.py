"""Audio files: what can be read is read, what cannot is named."""

import os
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile

from hetsyn_triton.experiments.tasks import DataError
from hetsyn_triton.experiments.tasks.audio import read_audio
from hetsyn_triton.experiments.tasks.audio.reading import CHECKED, COUNTED
from tests.support.corpora import write
from tests.support.limits import peak_bytes, within

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


@pytest.mark.parametrize("format", CHECKED + COUNTED)
def test_every_format_is_read_whole_or_not_at_all(tmp_path: Path, format: str) -> None:
    channels = 1 if format in ("HTK", "SVX") else 2
    noise = np.random.default_rng(0).normal(size=(40_001, channels)) / 6
    path = tmp_path / "a.audio"
    soundfile.write(path, noise, 16000, format=format)
    whole = soundfile.SoundFile(path).read(dtype="float32", always_2d=True)
    samples, rate = read_audio(path)
    assert rate == 16000
    assert np.array_equal(samples, whole.mean(axis=1))
    content = path.read_bytes()
    for kept in (0.3, 0.5, 0.9, 0.999):
        path.write_bytes(content[: int(kept * len(content))])
        with pytest.raises(DataError, match=r"a\.audio (is truncated|cannot be read as audio)"):
            read_audio(path)


@pytest.mark.parametrize("format", ["RF64", "W64", "WAV", "AU"])
def test_big_and_little_endian(tmp_path: Path, format: str) -> None:
    for endian in ("BIG", "LITTLE") if format in ("WAV", "AU") else ("FILE",):
        path = tmp_path / "a.audio"
        soundfile.write(path, SAMPLES, 8000, format=format, subtype="PCM_16", endian=endian)
        assert np.array_equal(read_audio(path)[0], SAMPLES.astype(np.float32))
        path.write_bytes(path.read_bytes()[:-2])
        with pytest.raises(DataError, match=r"expected 14\d\d bytes of samples .*, got 1[34]\d\d"):
            read_audio(path)


@pytest.mark.parametrize("format", ["PVF", "IRCAM", "PAF", "VOC", "SDS"])
def test_formats_whose_length_cannot_be_checked(tmp_path: Path, format: str) -> None:
    path = write(tmp_path / "a.audio", SAMPLES, 8000, format)
    with pytest.raises(DataError, match=rf"a.audio: expected one of .*FLAC.*, got {format}: "):
        read_audio(path)


def test_mp3_with_and_without_its_number_of_samples(tmp_path: Path) -> None:
    """Without it, libsndfile returns a third of this noise, and truncated files are not noticed."""
    path = tmp_path / "a.mp3"
    noise = np.random.default_rng(0).normal(size=40_000) / 6
    soundfile.write(path, noise, 44100)
    samples, _ = read_audio(path)
    content = path.read_bytes()
    tagged = b"ID3\3\0\0\0\0\2\7" + bytes(263) + content
    path.write_bytes(tagged)
    assert np.array_equal(read_audio(path)[0], samples)
    path.write_bytes(tagged[:-500])
    with pytest.raises(DataError, match=r"a.mp3 is truncated: \d+ of 40000 samples"):
        read_audio(path)
    path.write_bytes(content[content.index(b"\xff\xfb", 100) :])
    with pytest.raises(DataError, match=r"a.mp3: expected .*\(MP3 with .*\), got MP3: its length"):
        read_audio(path)


def test_formats_that_libsndfile_cannot_seek_in(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, SAMPLES, 8000, subtype="GSM610")
    expected = soundfile.SoundFile(path).read(5000, dtype="float32")
    assert len(expected) > 700
    assert np.array_equal(read_audio(path)[0], expected)


@pytest.mark.parametrize("promised", [2**36 - 1, 2**24, 701, 0])
def test_a_flac_that_promises_other_samples(tmp_path: Path, promised: int) -> None:
    """0 says that the number is unknown, so that nobody notices a truncated file."""
    path = write(tmp_path / "a.flac", SAMPLES, 8000, "FLAC")
    content = bytearray(path.read_bytes())
    packed = int.from_bytes(content[18:26], "big")  # rate, channels, bits, 36 bits of samples
    assert packed % 2**36 == 700
    content[18:26] = (packed - 700 + promised).to_bytes(8, "big")
    path.write_bytes(content)

    def read() -> None:
        with pytest.raises(DataError, match=r"a.flac is truncated"):
            read_audio(path)

    assert peak_bytes(read) < 10e6


def test_a_flac_of_much_silence(tmp_path: Path) -> None:
    """It has more samples than are read in one piece: 5 million in 20 kB."""
    path = tmp_path / "a.flac"
    sound = np.zeros(5_000_000, np.int16)
    sound[::999_999] = 16384
    soundfile.write(path, sound, 8000)
    assert path.stat().st_size < 60_000
    assert np.array_equal(read_audio(path)[0], sound / np.float32(32768))


@pytest.mark.parametrize("number", [b"1000", b"512", b"9" * 15, b"9" * 22, b"-1024", b"many", b""])
def test_a_sphere_header_of_another_length(tmp_path: Path, number: bytes) -> None:
    path = write(tmp_path / "a.sph", SAMPLES, 20000, "NIST")
    content = path.read_bytes()
    path.write_bytes(content.replace(b"   1024\n", number + b"\n", 1))
    expected = f"a.sph: expected a header of 1024 to 65536 bytes, .*, got b'{number.decode()}'"
    with pytest.raises(DataError, match=expected):
        read_audio(path)


@pytest.mark.parametrize("number", ["9" * 15, "9" * 22])
def test_a_sphere_header_that_promises_more(tmp_path: Path, number: str) -> None:
    path = write(tmp_path / "a.sph", SAMPLES, 20000, "NIST")
    content = path.read_bytes()
    header = content[:1024].replace(b"sample_count -i 700", f"sample_count -i {number}".encode())
    path.write_bytes(header[:1024] + content[1024:])
    expected = f"a.sph is truncated: expected {2 * int(number)} bytes of samples .*, got 1400"
    with pytest.raises(DataError, match=expected):
        read_audio(path)


@pytest.mark.parametrize("start", [b"RIFF", b"RIFX", b"RF64", b"riff", b"FORM", b"caff"])
def test_a_header_followed_by_zeros(tmp_path: Path, start: bytes) -> None:
    """1 GB of them: they are not walked through."""
    path = tmp_path / "a.wav"
    path.write_bytes(start)
    os.truncate(path, 2**30)
    with within(2), pytest.raises(DataError, match=r"a.wav(: expected samples| is damaged)"):
        read_audio(path)


def test_a_chunk_of_negative_length(tmp_path: Path) -> None:
    path = tmp_path / "a.caf"
    path.write_bytes(b"caff\0\1\0\0" + b"desc" + struct.pack(">q", -12) + bytes(100))
    with within(2), pytest.raises(DataError, match=r"the length of its chunk b'desc' is too small"):
        read_audio(path)


@pytest.mark.parametrize("name", ["pipe", "zeros"])
def test_a_pipe_or_a_device(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zeros").symlink_to("/dev/zero")
    with within(5), pytest.raises(DataError, match=f"{name}: expected a regular file, got a"):
        read_audio(tmp_path / name)


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


@pytest.mark.parametrize(("format", "place"), [("WAV", 40), ("AU", 8)])
def test_unknown_length(tmp_path: Path, format: str, place: int) -> None:
    """As written to a pipe: the length in the header is the largest there is."""
    path = write(tmp_path / "a.wav", SAMPLES, 8000, format)
    content = bytearray(path.read_bytes())
    content[place : place + 4] = struct.pack("<I", 0xFFFFFFFF)
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
