"""Errors that are no faults of the program: reported in one line, exit code 2."""

import sys

from hetsyn_triton.experiments.tasks import DataError
from hetsyn_triton.experiments.training import (
    CheckpointError,
    ConfigError,
    RanksError,
    RunFolderError,
)

USER_ERRORS = (ConfigError, RunFolderError, CheckpointError, DataError, RanksError)
LONGEST = 1000
"""Characters of a line; of a longer one the middle is left out."""


def reported_by_first_rank(error: BaseException) -> bool:
    """Return whether the first rank of a data-parallel run reports this error of another rank."""
    return isinstance(error, RanksError) and not error.first


def in_words(error: BaseException) -> str | None:
    """Return the line for a user's error, or for one of the system; None for any other."""
    if isinstance(error, USER_ERRORS):
        line = str(error)
    elif isinstance(error, OSError):
        place = error.filename2 or error.filename or "output"  # files have names
        line = f"{place}: {error.strerror or error}"
    elif isinstance(error, MemoryError) or _is_out_of_memory(error):
        line = f"out of memory: {error}" if str(error) else "out of memory"
    elif isinstance(error, RecursionError):
        line = "the input is nested too deeply"
    else:
        return None
    line = " ".join(line.split())
    return line if len(line) <= LONGEST else f"{line[: LONGEST // 2]} ... {line[-LONGEST // 4 :]}"


def _is_out_of_memory(error: BaseException) -> bool:
    """Return whether PyTorch could not get memory, on a CPU or a GPU."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
