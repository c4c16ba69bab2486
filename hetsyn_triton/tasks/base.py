"""What a task is: batches for three splits, a loss, metrics, and the settings it is run with."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from torch import Tensor

Option = bool | int | float | str
SPLITS = ("train", "validation", "test")


class Batch(NamedTuple):
    """`input` [T, B, in_features] and `target`, of the shape the task's loss takes."""

    input: Tensor
    target: Tensor


class Span(NamedTuple):
    """A named stretch of time steps, shaded in the picture of a sample."""

    start: int
    stop: int
    label: str


class Task(ABC):
    """One problem to train a network on.

    A task of one's own names its sizes, says in `defaults` which settings differ from the common
    ones (fields of `TrainConfig`), and implements `steps_per_epoch`, `batches` and `loss`;
    `hetsyn_triton.tasks.register` then makes it known by its name. Whatever is random comes from
    `seeded_generator(self.seed, ...)`: batches are a function of the split, the epoch and the
    seed, never of what was drawn before.
    """

    name: ClassVar[str]
    readout: ClassVar[bool] = True  # False: the output is the spikes of a last spiking layer
    score: ClassVar[str | None] = None  # the metric shown beside the loss
    drawn_metrics: ClassVar[tuple[str, ...]] = ()  # metrics drawn over epochs beside the loss
    defaults: ClassVar[Mapping[str, Any]] = {}
    options: ClassVar[Mapping[str, Option]] = {}  # the task's own settings with their defaults
    in_features: int
    out_features: int

    def __init__(
        self,
        *,
        seed: int = 0,
        batch_size: int = 32,
        data_dir: str | Path | None = None,
        **options: Option,
    ) -> None:
        unknown = sorted(set(options) - set(self.options))
        if unknown:
            allowed = ", ".join(self.options) or "none"
            raise ValueError(
                f"options of {self.name}: expected {allowed}, got {', '.join(unknown)}"
            )
        self.seed = seed
        self.batch_size = batch_size
        self.data_dir = None if data_dir is None else Path(data_dir)
        self.option: dict[str, Any] = {**self.options, **options}

    @property
    @abstractmethod
    def steps_per_epoch(self) -> int:
        """Number of training batches in one epoch."""

    @abstractmethod
    def batches(self, split: str, epoch: int = 0, start: int = 0) -> Iterator[Batch]:
        """The batches of "train", "validation" or "test", from number `start` on.

        Only "train" depends on `epoch`. A split the task does not have yields nothing.
        """

    @abstractmethod
    def loss(self, output: Tensor, spikes: Sequence[Tensor], target: Tensor) -> Tensor:
        """Scalar loss of `output` [T, B, out]; `spikes` holds [T, B, J] of each hidden layer."""

    def metrics(self, output: Tensor, spikes: Sequence[Tensor], target: Tensor) -> dict[str, float]:
        """Means over the batch, by name. Averaged over batches with their sizes as weights."""
        return {}

    def sample(self) -> Batch:
        """One test sample (B = 1) for the picture."""
        batch = next(self.batches("test"))
        return Batch(batch.input[:, :1], batch.target[:1])

    # How the picture of a sample reads. A task overrides what does not fit.

    def caption(self, output: Tensor, target: Tensor) -> str:
        """One line above the picture."""
        return self.name

    def trace(self, output: Tensor) -> Tensor:
        """The curves drawn for `output` [T, 1, out], as [T, out]."""
        return output[:, 0]

    trace_label: ClassVar[str] = "readout"
    time_unit: ClassVar[str] = "steps"

    def wanted(self, target: Tensor) -> Tensor | None:
        """The curves the output should follow [T, out], where there are any."""
        return None

    def highlight(self, target: Tensor) -> int | None:
        """The output that should win, where there is one."""
        return None

    def spans(self) -> list[Span]:
        """Stretches of time to shade."""
        return []
