"""The errors a user can mend: told in one line, exit code 2."""

from hetsyn_triton.tasks import DataError
from hetsyn_triton.training import CheckpointError, ConfigError, RanksError, RunFolderError

USER_ERRORS = (ConfigError, RunFolderError, CheckpointError, DataError, RanksError)


def told_by_another(error: BaseException) -> bool:
    """Whether this is another rank than the first of a data-parallel run, and that one says it."""
    return isinstance(error, RanksError) and not error.first
