"""The error of a missing or damaged data set."""


class DataError(RuntimeError):
    """A data file is missing, damaged, or not the expected file."""
