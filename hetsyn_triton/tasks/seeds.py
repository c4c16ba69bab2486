"""The public names of `hetsyn_triton.experiments.tasks.seeds`."""

from hetsyn_triton.experiments.tasks.seeds import *
from hetsyn_triton.experiments.tasks.seeds import __all__ as __all__
