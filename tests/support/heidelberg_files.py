"""Files of the Spiking Heidelberg Digits as the tests need them."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np

CLASSES = 20


def write_heidelberg(path: Path, times: list[Any], units: list[Any]) -> None:
    """A file of that format: sample n is of class n mod 20 and of speaker n div 20."""
    path.parent.mkdir(exist_ok=True)
    number = np.arange(len(times))
    with h5py.File(path, "w") as file:
        for name, values, kind in (("times", times, np.float16), ("units", units, np.uint16)):
            stored = file.create_dataset(f"spikes/{name}", number.shape, h5py.vlen_dtype(kind))
            for row, value in enumerate(values):
                stored[row] = np.asarray(value, kind)
        file["labels"] = (number % CLASSES).astype(np.uint16)
        file["extra/keys"] = [f"digit {label}".encode() for label in range(CLASSES)]
        file["extra/speaker"] = (number // CLASSES).astype(np.uint16)
