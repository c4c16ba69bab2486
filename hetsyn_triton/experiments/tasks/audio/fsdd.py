"""Free Spoken Digit Dataset: an open alternative to the licensed corpora of the HetSyn paper."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from ..data_error import DataError
from ..options import Option
from .task import Recording, SpokenWords, audio_files, encoder_options

TEST_RECORDINGS = range(5)  # of each speaker and digit, in the official split
NAME = re.compile(r"([0-9])_([a-z0-9]+)_([0-9]+)", re.IGNORECASE)


class SpokenDigits(SpokenWords):
    """Classify 3,000 recordings of the digits 0 to 9 at 8 kHz: 6 speakers, 50 of each digit.

    Files are named DIGIT_SPEAKER_NUMBER.wav. The default is the official split: numbers 0 to 4 are
    the test set (300), and the others the training set (2,700), so all speakers are in both.
    `speaker`, a name or its number from 0 in alphabetical order, tests on that speaker and trains
    on all others.
    """

    name = "fsdd"
    home = "fsdd"
    out_features = 10
    help = (
        "The task fsdd reads the Free Spoken Digit Dataset, or its folder recordings, from "
        "--data-dir or from the folder fsdd in HETSYN_DATA. Download it from "
        "https://github.com/Jakobovski/free-spoken-digit-dataset"
    )
    defaults: ClassVar[Mapping[str, Any]] = {
        **SpokenWords.defaults,
        "horizon": None,  # batches of the whole run, because the paper has no fsdd
        "schedule_unit": "batch",
        "hidden": (64, 32),
        "weight_decay": 1e-2,
        "dropout": 0.5,
    }
    split_options: ClassVar[frozenset[str]] = frozenset({"validation", "speaker"})
    options: ClassVar[Mapping[str, Option]] = {
        **encoder_options(steps=100),  # 1 s: 99 % of the recordings are shorter
        "speaker": Option(
            None,
            lambda v: v is None or (isinstance(v, str) and v != "") or (type(v) is int and v >= 0),
            "a speaker's name or number, or null",
            "test on this speaker, train on the others; null: the published split",
        ),
    }

    def recordings(self, folder: Path) -> list[Recording]:
        named = []
        for parts in audio_files(folder):
            match = NAME.fullmatch(Path(parts[-1]).stem)
            if match is None:
                raise DataError(
                    f"{folder.joinpath(*parts)}: expected a name such as 7_jackson_32.wav. "
                    f"{self.help}"
                )
            named.append(("/".join(parts), int(match[1]), match[2].lower(), int(match[3])))
        left_out = self._left_out(sorted({speaker for _, _, speaker, _ in named}))
        found = []
        for name, digit, speaker, number in named:
            tested = number in TEST_RECORDINGS if left_out is None else speaker == left_out
            identity = f"{digit}_{speaker}_{number}"
            found.append(Recording(name, identity, digit, "test" if tested else "train"))
        return found

    def _left_out(self, speakers: list[str]) -> str | None:
        wanted = self.option["speaker"]
        if wanted is None or not speakers:
            return None
        if isinstance(wanted, int) and wanted < len(speakers):
            return speakers[wanted]
        if wanted in speakers:
            return str(wanted)
        raise DataError(
            f"speaker: expected one of {', '.join(speakers)}, or 0 to {len(speakers) - 1}, "
            f"got {wanted!r}"
        )
