"""The public names of `hetsyn_triton.experiments.tasks.audio`."""

from hetsyn_triton.experiments.tasks.audio import *
from hetsyn_triton.experiments.tasks.audio import __all__ as __all__
