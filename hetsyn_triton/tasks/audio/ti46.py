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
    """The letters A to Z, 26 classes: 4,142 recordings to train with, 6,628 to test with.

    The user's licensed copy. A file's name says what it holds, as the corpus's own description
    has it: two characters for the word (0A to 0Z for the letters), two for the speaker (f1 to f8,
    m1 to m8), two for the session ("se" of enrolment, to train with; s1 to s8, to test with), two
    for the token, as in 0af1set0.wav, in upper or lower case. Names are unique in the corpus, so
    the folders above (ti46/ti_alpha/train/f1 and the like) say nothing more, and files of other
    words, the digits and commands of TI20, are left out.
    """

    name = "ti46"
    home = "ti46"
    out_features = 26
    help = (
        "TI46-Alpha is read from --data-dir, or from the folder ti46 of the folder HETSYN_DATA "
        "names: files with the corpus's own names such as 0af1set0.wav, in any folders below it, "
        "as in ti_alpha/train/f1. It is licensed by the Linguistic Data Consortium: "
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
