"""The public names of `hetsyn_triton.experiments.tasks.options`."""

from hetsyn_triton.experiments.tasks.options import *
from hetsyn_triton.experiments.tasks.options import __all__ as __all__
