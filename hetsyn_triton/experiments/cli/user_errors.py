"""User errors: reported in one line, exit code 2."""

from hetsyn_triton.experiments.tasks import DataError
from hetsyn_triton.experiments.training import (
    CheckpointError,
    ConfigError,
    RanksError,
    RunFolderError,
)

USER_ERRORS = (ConfigError, RunFolderError, CheckpointError, DataError, RanksError)


def reported_by_first_rank(error: BaseException) -> bool:
    """Return whether the first rank of a data-parallel run reports this error of another rank."""
    return isinstance(error, RanksError) and not error.first
