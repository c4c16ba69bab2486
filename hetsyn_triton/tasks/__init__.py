"""The public names of `hetsyn_triton.experiments.tasks`."""

from hetsyn_triton.experiments.tasks import *
from hetsyn_triton.experiments.tasks import __all__ as __all__
