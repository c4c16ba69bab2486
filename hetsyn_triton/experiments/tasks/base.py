"""The base class of a task: batches of three splits, loss, metrics and default settings."""

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
    """`input` [T, B, in_features], and `target` in the form that the task's loss takes."""

    input: Tensor
    target: Tensor

    def to(self, device: torch.device | str) -> "Batch":
        """Move both to `device`."""
        return Batch(self.input.to(device), self.target.to(device))


class Span(NamedTuple):
    """A named range of time steps, shaded in the picture of a sample."""

    start: int
    stop: int
    label: str


class Task(ABC):
    """One problem to train a network on.

    A new task sets `name`, `in_features` and `out_features`, and implements `steps_per_epoch`,
    `batches` and `loss`. `defaults` are the settings that differ from the common ones (fields of
    `TrainConfig`). `options` are the task's own settings with their allowed values
    (`hetsyn_triton.tasks.options`). `hetsyn_triton.tasks.register` registers the task by name.

    All random numbers come from `seeded_generator(self.seed, ...)`. Batches are therefore functions
    of split, epoch and seed only.
    """

    name: ClassVar[str]
    scores_classes: ClassVar[bool] = False  # whether it uses the setting `readout`
    score: ClassVar[str | None] = None  # the metric shown beside the loss
    score_falls: ClassVar[bool] = False  # whether a smaller score is better
    drawn_metrics: ClassVar[tuple[str, ...]] = ()  # metrics drawn over epochs beside the loss
    defaults: ClassVar[Mapping[str, Any]] = {}
    options: ClassVar[Mapping[str, Option]] = {}
    split_options: ClassVar[frozenset[str]] = frozenset()  # options that choose samples
    reads_files: ClassVar[bool] = False  # whether it uses the setting `data_dir`
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
        """Return the default values of the task's own settings."""
        return {name: option.default for name, option in cls.options.items()}

    @classmethod
    def check(cls, options: Mapping[str, Any], data_dir: str | Path | None = None) -> None:
        """Check the task's own settings and `data_dir`.

        Raises:
            ValueError: If an option is unknown or not allowed, or if `data_dir` is given to a task
                that reads no files.
        """
        for name, value in options.items():
            if name not in cls.options:
                allowed = f"one of {', '.join(cls.options)}" if cls.options else "none"
                near = did_you_mean(name, cls.options)
                raise ValueError(f"options: expected {allowed} for {cls.name}, got {name!r}{near}")
            if not cls.options[name].allows(value):
                expected = cls.options[name].expected
                raise ValueError(f"options.{name}: expected {expected}, got {value!r}")
        if data_dir is not None and not cls.reads_files:
            raise ValueError(
                f"data_dir: expected no value because {cls.name} reads no files, "
                f"got {str(data_dir)!r}"
            )

    @property
    def spiking_output(self) -> bool:
        """Whether the output is the spikes of a last layer instead of a leaky readout."""
        return False

    @property
    @abstractmethod
    def steps_per_epoch(self) -> int:
        """Number of training batches per epoch."""

    @abstractmethod
    def batches(self, split: str, epoch: int = 0, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of "train", "validation" or "test", from number `start` on.

        Only "train" depends on `epoch`. A split that the task does not have yields nothing. Tensors
        are on the CPU. For a GPU, this runs in a separate thread.
        """

    @abstractmethod
    def loss(self, output: Tensor, spikes: Sequence[Tensor], target: Tensor) -> Tensor:
        """Return the loss of `output` [T, B, out] and `spikes` [T, B, J] per hidden layer."""

    def metrics(
        self, output: Tensor, spikes: Sequence[Tensor], target: Tensor
    ) -> dict[str, Tensor]:
        """Return means over the batch by name, each a tensor with one element.

        They are averaged over batches by size. A training step on a GPU cannot read values, so
        `item()` is not allowed.
        """
        return {}

    def sample(self) -> Batch:
        """Return one test sample (B = 1) for the picture."""
        batch = next(self.batches("test"))
        return Batch(batch.input[:, :1], batch.target[:1])

    # Texts and curves of the picture of a sample. A task overrides them where necessary.

    def caption(self, output: Tensor, target: Tensor) -> str:
        """Return the line above the picture."""
        return self.name

    def trace(self, output: Tensor) -> Tensor:
        """Return the curves drawn for `output` [T, 1, out], as [T, out]."""
        return output[:, 0]

    trace_label: str = "readout"
    class_names: ClassVar[tuple[str, ...]] = ()  # of the outputs, if they have names
    input_label: ClassVar[str] = "input"
    time_unit: ClassVar[str] = "steps"  # of time constants, and of a step's length
    step_label: ClassVar[str | None] = None  # a step, if it is not one `time_unit`

    def wanted(self, target: Tensor) -> Tensor | None:
        """Return the target curves [T, out], if there are any."""
        return None

    def highlight(self, target: Tensor) -> int | None:
        """Return the output that should be the largest, if there is one."""
        return None

    def class_name(self, number: int) -> str:
        """Return the name of output `number`."""
        return self.class_names[number] if self.class_names else str(number)

    def spans(self) -> list[Span]:
        """Return the time ranges to shade."""
        return []
