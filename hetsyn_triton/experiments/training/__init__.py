"""Train a network on a task, in a run folder that can be resumed and evaluated."""

from hetsyn_triton.experiments.extras import require_extra

require_extra("hetsyn_triton.training", "filelock", "pydantic")

from hetsyn_triton.graphed_step import NonFiniteError as NonFiniteError

from .config import TrainConfig, default_config
from .errors import CheckpointError, ConfigError, RanksError, RunFolderError
from .machine import environment
from .measure import format_metric
from .reporting import Reporter
from .runs import Run, evaluate, load_run, resume, train

__all__ = [
    "CheckpointError",
    "ConfigError",
    "NonFiniteError",
    "RanksError",
    "Reporter",
    "Run",
    "RunFolderError",
    "TrainConfig",
    "default_config",
    "environment",
    "evaluate",
    "format_metric",
    "load_run",
    "resume",
    "train",
]
