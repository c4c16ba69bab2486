"""The public names of `hetsyn_triton.experiments.training`."""

from .experiments.training import *
from .experiments.training import __all__ as __all__
