"""Errors of a run, by what the user has to change."""


class ConfigError(ValueError):
    """A setting is unknown or not allowed."""


class RunFolderError(RuntimeError):
    """A run folder is not writable, not empty, not a run folder, or used by another process."""


class CheckpointError(RuntimeError):
    """A checkpoint is missing, damaged, or belongs to another network or run."""


class RanksError(RuntimeError):
    """Another process of a data-parallel run failed, or its parameters differ.

    `first` is True on the first rank, which reports the error.
    """

    def __init__(self, message: str, first: bool) -> None:
        super().__init__(message)
        self.first = first
