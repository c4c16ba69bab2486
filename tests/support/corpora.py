"""Small corpora in the layouts of the real ones: tones that rise with the class."""

from pathlib import Path

import numpy as np
import soundfile


def tone(label: int, number: int, rate: int = 8000, seconds: float = 0.3) -> np.ndarray:
    """A tone of 500 Hz and 250 Hz more for each class, with a little noise, that swells."""
    time = np.arange(int(seconds * rate)) / rate
    noise = np.random.default_rng((label, number)).normal(size=len(time))
    swell = np.sin(np.pi * time / seconds)
    return 0.5 * swell * np.sin(2 * np.pi * (500 + 250 * label) * time) + 0.002 * noise


def write(path: Path, samples: np.ndarray, rate: int = 8000, format: str = "WAV") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate, format=format, subtype="PCM_16")
    return path


def make_fsdd(folder: Path, speakers: tuple[str, ...] = ("ann", "bob"), numbers: int = 8) -> Path:
    for digit in range(10):
        for place, speaker in enumerate(speakers):
            for number in range(numbers):
                name = f"recordings/{digit}_{speaker}_{number}.wav"
                write(folder / name, tone(digit, 100 * place + number))
    return folder


def make_tidigits(folder: Path, upper: bool = False) -> Path:
    """Two speakers of each split, NIST SPHERE at 20 kHz, with children and sequences beside."""
    names = [f"{digit}{time}" for digit in "z123456789o" for time in "ab"] + ["z9a", "13579b"]
    for split, who in (
        ("train", "man/ae"),
        ("train", "woman/ac"),
        ("test", "man/ah"),
        ("test", "woman/af"),
        ("train", "boy/am"),
    ):
        disc = "disc_4.1.1" if split == "train" else "disc_4.2.1"
        for number, name in enumerate(names):
            path = f"{disc}/tidigits/{split}/{who}/{name}.wav"
            label = "z123456789o".index(name[0])
            samples = tone(label, number, 20000, 0.2)
            write(folder / (path.upper() if upper else path), samples, 20000, "NIST")
    return folder


def make_ti46(folder: Path) -> Path:
    """Two speakers, three letters and a digit, in the layout of the disc, at 12.5 kHz."""
    for speaker in ("f1", "m8"):
        for word in ("0a", "0b", "0z", "07", "go"):
            part = "ti_alpha" if word in ("0a", "0b", "0z") else "ti20"
            for split, token in (("train", "set0"), ("train", "set9"), ("test", "s1t0")):
                path = folder / f"ti46/{part}/{split}/{speaker}/{word}{speaker}{token}.wav"
                write(path, tone(ord(word[1]) % 9, len(token), 12500, 0.2), 12500, "NIST")
    return folder
