"""What can go wrong in a run, told apart by what the user has to change."""


class ConfigError(ValueError):
    """A setting is unknown or not allowed."""


class RunFolderError(RuntimeError):
    """The run folder cannot be written, is not empty, is no run folder, or another run has it."""


class CheckpointError(RuntimeError):
    """A checkpoint is missing, damaged, or of another network or run."""


class NonFiniteError(ArithmeticError):
    """The loss, a gradient, or what an optimizer step made of them is NaN or infinite."""


class RanksError(RuntimeError):
    """Another process of a data-parallel run failed, or its parameters are other ones.

    `first` says whether this is raised on the first rank, which is the one to say so.
    """

    def __init__(self, message: str, first: bool) -> None:
        super().__init__(message)
        self.first = first
