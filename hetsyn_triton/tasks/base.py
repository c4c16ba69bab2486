"""What a task is: batches for three splits, a loss, metrics, and the settings it is run with."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from hetsyn_triton.validation import check_choice, did_you_mean

from .options import Option
from .readouts import READOUTS

SPLITS = ("train", "validation", "test")


class Batch(NamedTuple):
    """`input` [T, B, in_features] and `target`, of the shape the task's loss takes."""

    input: Tensor
    target: Tensor

    def to(self, device: torch.device | str) -> "Batch":
        """Both on `device`."""
        return Batch(self.input.to(device), self.target.to(device))


class Span(NamedTuple):
    """A named stretch of time steps, shaded in the picture of a sample."""

    start: int
    stop: int
    label: str


class Task(ABC):
    """One problem to train a network on.

    A task of one's own names its sizes, says in `defaults` which settings differ from the common
    ones (fields of `TrainConfig`), in `options` its own settings, each with what it may hold
    (`hetsyn_triton.tasks.options`), and implements `steps_per_epoch`, `batches` and `loss`;
    `hetsyn_triton.tasks.register` then makes it known by its name. Whatever is random comes from
    `seeded_generator(self.seed, ...)`: batches are a function of the split, the epoch and the
    seed, never of what was drawn before.
    """

    name: ClassVar[str]
    scores_classes: ClassVar[bool] = False  # whether the setting `readout` means anything to it
    score: ClassVar[str | None] = None  # the metric shown beside the loss
    score_falls: ClassVar[bool] = False  # whether a smaller score is a better one
    drawn_metrics: ClassVar[tuple[str, ...]] = ()  # metrics drawn over epochs beside the loss
    defaults: ClassVar[Mapping[str, Any]] = {}
    options: ClassVar[Mapping[str, Option]] = {}
    split_options: ClassVar[frozenset[str]] = frozenset()  # options that say which sample is where
    reads_files: ClassVar[bool] = False  # whether `data_dir` means anything to it
    in_features: int
    out_features: int

    def __init__(
        self,
        *,
        seed: int = 0,
        batch_size: int = 32,
        data_dir: str | Path | None = None,
        readout: str | None = None,
        **options: Any,
    ) -> None:
        self.check(options, data_dir)
        if readout is None:
            readout = self.defaults.get("readout", "mean")
        check_choice("readout", readout, tuple(READOUTS))
        self.readout: str = readout
        self.seed = seed
        self.batch_size = batch_size
        self.data_dir = None if data_dir is None else Path(data_dir)
        self.option: dict[str, Any] = {**self.default_options(), **options}

    @classmethod
    def default_options(cls) -> dict[str, Any]:
        """The task's own settings as they are unless changed."""
        return {name: option.default for name, option in cls.options.items()}

    @classmethod
    def check(cls, options: Mapping[str, Any], data_dir: str | Path | None = None) -> None:
        """ValueError, naming it, for an option that is unknown or not allowed, and for a
        `data_dir` where the task reads no files."""
        for name, value in options.items():
            if name not in cls.options:
                allowed = ", ".join(cls.options) or "none"
                near = did_you_mean(name, cls.options)
                raise ValueError(f"options: expected for {cls.name} {allowed}, got {name!r}{near}")
            if not cls.options[name].allows(value):
                expected = cls.options[name].expected
                raise ValueError(f"options.{name}: expected {expected}, got {value!r}")
        if data_dir is not None and not cls.reads_files:
            raise ValueError(
                f"data_dir: expected none, for {cls.name} reads no files, got {str(data_dir)!r}"
            )

    @property
    def spiking_output(self) -> bool:
        """Whether the output is the spikes of a last spiking layer; else a leaky readout."""
        return False

    @property
    @abstractmethod
    def steps_per_epoch(self) -> int:
        """Number of training batches in one epoch."""

    @abstractmethod
    def batches(self, split: str, epoch: int = 0, start: int = 0) -> Iterator[Batch]:
        """The batches of "train", "validation" or "test", from number `start` on.

        Only "train" depends on `epoch`. A split the task does not have yields nothing. Tensors are
        on the CPU; for a GPU they are made in a thread of their own.
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

    trace_label: str = "readout"
    class_names: ClassVar[tuple[str, ...]] = ()  # of the outputs, where numbers say less
    input_label: ClassVar[str] = "input"
    time_unit: ClassVar[str] = "steps"  # of time constants, and of a step's length
    step_label: ClassVar[str | None] = None  # what a step is, where it is not one such unit

    def wanted(self, target: Tensor) -> Tensor | None:
        """The curves the output should follow [T, out], where there are any."""
        return None

    def highlight(self, target: Tensor) -> int | None:
        """The output that should win, where there is one."""
        return None

    def class_name(self, number: int) -> str:
        """What output `number` stands for."""
        return self.class_names[number] if self.class_names else str(number)

    def spans(self) -> list[Span]:
        """Stretches of time to shade."""
        return []
