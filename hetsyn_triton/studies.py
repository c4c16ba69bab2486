"""The public names of `hetsyn_triton.experiments.studies`."""

from .experiments.studies import *
from .experiments.studies import __all__ as __all__
