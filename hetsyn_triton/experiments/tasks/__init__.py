"""The tasks a network can be trained on, by name."""

from hetsyn_triton.validation import check_choice

from .audio import SpokenDigits, TI46Alpha, TIDigits
from .base import SPLITS, Batch, Span, Task
from .classification import Classification, Samples
from .data_error import DataError
from .delayed_match import DelayedMatch
from .digits import Digits
from .idx_images import IdxImages
from .multi_timescale_xor import MultiTimescaleXOR
from .options import Option
from .pattern_generation import PatternGeneration
from .shd import SpikingHeidelbergDigits
from .smnist import PermutedMNIST, SequentialMNIST

__all__ = [
    "SPLITS",
    "TASKS",
    "Batch",
    "Classification",
    "DataError",
    "DelayedMatch",
    "Digits",
    "IdxImages",
    "MultiTimescaleXOR",
    "Option",
    "PatternGeneration",
    "PermutedMNIST",
    "Samples",
    "SequentialMNIST",
    "Span",
    "SpikingHeidelbergDigits",
    "SpokenDigits",
    "TI46Alpha",
    "TIDigits",
    "Task",
    "register",
    "task_class",
]

TASKS: dict[str, type[Task]] = {
    task.name: task
    for task in (
        Digits,
        SequentialMNIST,
        PermutedMNIST,
        IdxImages,
        PatternGeneration,
        DelayedMatch,
        MultiTimescaleXOR,
        SpikingHeidelbergDigits,
        SpokenDigits,
        TIDigits,
        TI46Alpha,
    )
}


def register(task: type[Task]) -> type[Task]:
    """Make a task of one's own known by its name. Usable as a class decorator."""
    known = TASKS.get(task.name)
    if known is not None and known is not task:
        raise ValueError(
            f"task: expected a name of its own, got {task.name!r}, which is that of "
            f"{known.__name__}"
        )
    TASKS[task.name] = task
    return task


def task_class(name: str) -> type[Task]:
    """The task of that name; ValueError lists the names there are."""
    check_choice("task", name, tuple(TASKS))
    return TASKS[name]
