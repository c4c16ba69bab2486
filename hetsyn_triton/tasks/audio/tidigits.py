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
    """Isolated digits of adults: 2,464 to train with, 2,486 to test with, 11 classes.

    The user's licensed copy, in the folders of the corpus: anything, then
    {train,test}/{man,woman}/SPEAKER/NAME.wav, in upper or lower case, on one disc or several. A
    name is the digits spoken (1 to 9, z for zero, o for oh) and a or b, the first or second time.
    Read are the names of one digit; children and longer sequences are left out. Classes 0 to 9 are
    zero to nine, class 10 is oh. Speakers of training and test differ.
    """

    name = "tidigits"
    home = "tidigits"
    out_features = 11
    help = (
        "TIDIGITS is read from --data-dir, or from the folder tidigits of the folder HETSYN_DATA "
        "names, with the corpus's own folders train and test, man and woman, one for each speaker, "
        "below it. It is licensed by the Linguistic Data Consortium: "
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
