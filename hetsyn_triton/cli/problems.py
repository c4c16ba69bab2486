"""The errors a user can mend: told in one line, exit code 2."""

from hetsyn_triton.tasks import DataError
from hetsyn_triton.training import CheckpointError, ConfigError, RunFolderError

USER_ERRORS = (ConfigError, RunFolderError, CheckpointError, DataError)
