"""TIDIGITS: spoken digits, a corpus licensed by the Linguistic Data Consortium (LDC93S10)."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from .task import Recording, SpokenWords, audio_files

ADULTS = ("man", "woman")
SPLITS = ("train", "test")
NAME = re.compile(r"([1-9zo])([ab])", re.IGNORECASE)
LABELS = {"z": 0, **{str(digit): digit for digit in range(1, 10)}, "o": 10}


class TIDigits(SpokenWords):
    """Classify single digits of adults: 2,464 training and 2,486 test recordings, 11 classes.

    The files are the user's licensed copy in the folders of the corpus:
    {train,test}/{man,woman}/SPEAKER/NAME.wav at any depth, in upper or lower case. NAME is the
    spoken digits (1 to 9, z for zero, o for oh) and a or b for the first or second time. Children
    and longer sequences are left out. Classes 0 to 9 are zero to nine, class 10 is oh. Training and
    test have different speakers.
    """

    name = "tidigits"
    home = "tidigits"
    out_features = 11
    help = (
        "The task tidigits reads TIDIGITS from --data-dir, or from the folder tidigits in "
        "HETSYN_DATA. Folders are those of the corpus: train or test, then man or woman, then the "
        "speaker. The corpus is licensed by the Linguistic Data Consortium: "
        "https://catalog.ldc.upenn.edu/LDC93S10"
    )
    defaults: ClassVar[Mapping[str, Any]] = {
        **SpokenWords.defaults,
        "hidden": (64, 32),
        "weight_decay": 1e-2,
        "dropout": 0.5,
    }

    def recordings(self, folder: Path) -> list[Recording]:
        found = []
        for parts in audio_files(folder):
            split, who = (part.lower() for part in ("", "", "", *parts)[-4:-2])
            match = NAME.fullmatch(Path(parts[-1]).stem)
            if split in SPLITS and who in ADULTS and match:
                identity = "/".join((split, who, parts[-2], match[0])).lower()
                label = LABELS[match[1].lower()]
                found.append(Recording("/".join(parts), identity, label, split))
        return found
