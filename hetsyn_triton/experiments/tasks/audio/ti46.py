"""TI46-Alpha: spoken letters, part of a corpus licensed by the Linguistic Data Consortium
(LDC93S9)."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from .task import Recording, SpokenWords, audio_files

NAME = re.compile(r"0([a-z])([fm][1-8])(se|s[1-8])(t.)", re.IGNORECASE)
TRAINING_SESSION = "se"


class TI46Alpha(SpokenWords):
    """Classify the letters A to Z, 26 classes: 4,142 training and 6,628 test recordings.

    The files are the user's licensed copy. A file name such as 0af1set0.wav, in upper or lower
    case, has four parts of two characters: the word (0A to 0Z for the letters), the speaker (f1 to
    f8, m1 to m8), the session and the token. Session "se" (enrollment) is the training set, and
    sessions s1 to s8 are the test set. Names are unique in the corpus, so folder names do not
    matter. Other words, the digits and commands of TI20, are left out.
    """

    name = "ti46"
    home = "ti46"
    out_features = 26
    help = (
        "The task ti46 reads TI46-Alpha from --data-dir, or from the folder ti46 in HETSYN_DATA. "
        "Files keep their original names such as 0af1set0.wav and may be in subfolders such as "
        "ti_alpha/train/f1. The corpus is licensed by the Linguistic Data Consortium: "
        "https://catalog.ldc.upenn.edu/LDC93S9"
    )
    defaults: ClassVar[Mapping[str, Any]] = {
        **SpokenWords.defaults,
        "hidden": (128, 128),
        "weight_decay": 4e-3,
        "dropout": 0.2,
    }

    def recordings(self, folder: Path) -> list[Recording]:
        found = []
        for parts in audio_files(folder):
            match = NAME.fullmatch(Path(parts[-1]).stem)
            if match is None:
                continue
            split = "train" if match[3].lower() == TRAINING_SESSION else "test"
            letter = ord(match[1].lower()) - ord("a")
            found.append(Recording("/".join(parts), match[0].lower(), letter, split))
        return found
