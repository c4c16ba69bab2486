"""The error of a data set that is not there or not whole."""


class DataError(RuntimeError):
    """A data file is missing, truncated or not what its name says."""
