"""What a study is: cells to work through, a table made of their rows, and a picture of it."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from hetsyn_triton.experiments.tasks import task_class
from hetsyn_triton.experiments.training import ConfigError, TrainConfig, default_config
from hetsyn_triton.experiments.training.build import build_task
from hetsyn_triton.experiments.training.restore import lasting

from .study_options import StudyOption
from .words import counted, setting_in_words

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PUBLISHED_RUNS = {"pattern-generation": 10, "delayed-match": 50}
"""How often the paper trained each network. Of a task that is missing a study says it itself, as
`full_seeds`."""


@dataclass(frozen=True, kw_only=True)
class StudySettings:
    """Everything a study's numbers depend on; made by `make_settings`, kept as study.json.

    `task` is None for a study without one. `changes` are fields of TrainConfig, `task_options` the
    task's own settings, `options` the study's own, all of these. `seeds_before`, ascending, are the
    numbers of seeds that the study in the folder had before it was given more: what cells have
    several seeds of keeps those it has.
    """

    study: str
    task: str | None
    full: bool
    seeds: int
    changes: dict[str, Any]
    task_options: dict[str, Any]
    options: dict[str, Any]
    seeds_before: tuple[int, ...] = ()

    def config(
        self, seed: int = 0, *, task_options: Mapping[str, Any] | None = None, **axes: Any
    ) -> TrainConfig:
        """The configuration of one network; `axes` are the settings that the study varies."""
        assert self.task is not None, "a study without a task trains no configuration"
        options = {**self.task_options, **(task_options or {})}
        return default_config(self.task, **{**self.changes, **axes}, seed=seed, options=options)

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values, but for the history of seeds."""
        values = asdict(self)
        del values["seeds_before"]
        return values

    @property
    def size(self) -> str:
        """ "small" or "full", as every table says."""
        return "full" if self.full else "small"


Row = dict[str, Any]
"""One line of a table: names and JSON scalars."""


@dataclass(frozen=True)
class Cell:
    """One piece of work, done whole or not at all: `name` is that of its files, `values` say what
    it is (JSON)."""

    name: str
    values: dict[str, Any]


@dataclass(frozen=True)
class Finished:
    """A cell that is done: its rows, and what else the picture needs (JSON). The runner adds the
    `seconds` it took, and machine, versions and date of each part of its work."""

    cell: Cell
    rows: list[Row]
    extra: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    environments: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Place:
    """Where a cell works: `runs` is the folder for run folders and checkpoints, `threads` how many
    it may use. Whoever works there adds what it takes over from processes before, as
    `seconds_before`, and the machine, versions and date of each part, as `environments`."""

    runs: Path
    threads: int
    seconds_before: list[float] = field(default_factory=list)
    environments: list[dict[str, Any]] = field(default_factory=list)


class Study(ABC):
    """One question and how it is answered.

    A study names itself, its default task (None: it trains on none), its numbers of seeds, the
    fields of TrainConfig that it `varies`, the fields that it `keeps` fixed, each with the reason,
    and its own `options`. `one_size` lists tasks on which the small and the full study are the
    same, each with the defaults of its options there. On the terminal the table has one block for
    each combination of the columns `blocks`. The results page leaves out the columns that match
    the patterns `details` where a table is too wide, in this order.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    default_task: ClassVar[str | None] = "digits"
    small_seeds: ClassVar[int] = 3
    full_seeds: ClassVar[int] = 10
    varies: ClassVar[frozenset[str]] = frozenset()
    keeps: ClassVar[Mapping[str, str]] = {}
    options: ClassVar[Mapping[str, StudyOption]] = {}
    one_size: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    alone: ClassVar[bool] = False  # whether its cells must not run side by side
    blocks: ClassVar[tuple[str, ...]] = ()
    details: ClassVar[tuple[str, ...]] = ("rate", "rate_hz", "loss")

    def __init__(self, settings: StudySettings) -> None:
        self.settings = settings

    @classmethod
    def wants(cls, task: str) -> str | None:
        """What kind of task the study needs, where `task` is another; None where it will do."""
        return None

    @classmethod
    def default_options(cls, task: str | None, *, full: bool) -> dict[str, Any]:
        """Return the defaults of the study's own settings on `task`."""
        defaults = {name: o.full if full else o.small for name, o in cls.options.items()}
        return {**defaults, **cls.one_size.get(task or "", {})}

    @classmethod
    def seeds_of_full_size(cls, task: str | None) -> int:
        """How many seeds the full size of the study has on `task`."""
        return PUBLISHED_RUNS.get(task or "", cls.full_seeds)

    def sizes_in_words(self) -> str:
        """How large the study is, in one line for the terminal and the picture."""
        settings = self.settings
        defaults = self.default_options(settings.task, full=settings.full)
        changed = {n: v for n, v in settings.options.items() if v != defaults[n]}
        changed |= {**lasting(settings.changes), **settings.task_options}
        said = [setting_in_words(name, value) for name, value in changed.items()]
        if settings.task is None:
            runs = "one network of each kind"
            shown = [setting_in_words(name, value) for name, value in settings.options.items()]
        else:
            runs, shown = counted(settings.seeds, "seed"), said
        if not settings.full:
            return f"SMALL: {', '.join([runs, *shown])}; --full is the paper's size"
        wanted = self.seeds_of_full_size(settings.task)
        if settings.seeds < wanted:
            return f"full size but {', '.join([f'{settings.seeds} of {wanted} seeds', *said])}"
        if said:
            return f"full size but {', '.join(said)}: {runs}"
        return f"full size: {', '.join([runs, *shown])}"

    @property
    def option(self) -> dict[str, Any]:
        """The study's own settings."""
        return self.settings.options

    @property
    def score(self) -> str:
        """The measure the study looks at: the task's score, or else its loss."""
        assert self.settings.task is not None
        return task_class(self.settings.task).score or "loss"

    @property
    def score_falls(self) -> bool:
        """Whether a smaller score is better."""
        assert self.settings.task is not None
        return self.score == "loss" or task_class(self.settings.task).score_falls

    @property
    def held_out_score(self) -> str:
        """The name of the score on held-out samples in a run's history."""
        return f"validation_{self.score}"

    def check_held_out(self, config: TrainConfig) -> None:
        """Raise ConfigError if the task of `config` holds no samples out."""
        if next(build_task(config).batches("validation"), None) is None:
            raise ConfigError(
                f"task: expected held-out samples because {self.name} chooses the time constant "
                f"of homogeneous models on them, got {config.task!r} without any"
            )

    @property
    def unit(self) -> str:
        """The task's unit of time."""
        assert self.settings.task is not None
        return task_class(self.settings.task).time_unit

    def task_has(
        self, setting: str, values: Sequence[Any], own: Sequence[str], called: str
    ) -> bool:
        """Return whether the task has `setting`, which the study sets to `values`.

        Raises:
            ConfigError: If the task does not allow a value. If the task has no such setting
                (`called` so in the message), for each of the study's `own` options that is not
                at its default.
        """
        task = self.settings.task
        assert task is not None
        if setting in task_class(task).options:
            for value in values:
                self.settings.config(task_options={setting: value})
            return True
        for name in own:
            option, value = self.options[name], self.option[name]
            if value not in (option.small, option.full):
                raise ConfigError(
                    f"{name}: expected no value because {task} has no {called}, got {value}"
                )
        return False

    @abstractmethod
    def cells(self) -> list[Cell]:
        """All that has to be done, in the order it is begun."""

    @abstractmethod
    def run(self, cell: Cell, place: Place) -> Finished:
        """Do one cell."""

    @abstractmethod
    def table(self, done: Sequence[Finished]) -> list[Row]:
        """The table: what the rows of all cells come to."""

    @abstractmethod
    def draw(self, table: Sequence[Row], done: Sequence[Finished]) -> "Figure":
        """The picture, without its caption."""
