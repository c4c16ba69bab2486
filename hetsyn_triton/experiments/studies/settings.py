"""What a study is run with: its task, its size, and what is changed of the task's settings."""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from hetsyn_triton.experiments.tasks import task_class
from hetsyn_triton.experiments.training import ConfigError, TrainConfig, default_config
from hetsyn_triton.experiments.training.config import FIELDS
from hetsyn_triton.experiments.training.restore import lasting
from hetsyn_triton.validation import did_you_mean

from .words import counted

if TYPE_CHECKING:
    from .base import Study

SMALL_TRAINING: dict[str, dict[str, Any]] = {
    "digits": {"epochs": 10},
    "pattern-generation": {"epochs": 6},
    "delayed-match": {"epochs": 8},
    "multi-timescale-xor": {"epochs": 8},
    "shd": {"epochs": 5},
    "fsdd": {"epochs": 10},
    "tidigits": {"epochs": 10},
    "ti46": {"epochs": 5},
}
"""How much shorter a task is trained where the full size is not asked for. A task that is missing
is trained as long as by `hetsyn train`."""

PUBLISHED_RUNS = {"pattern-generation": 10, "delayed-match": 50}
"""How often the paper trained each network. Of a task that is missing a study says it itself, as
`full_seeds`."""

OF_A_STUDY = ("task", "seed", "options")  # fields of a run that no change may name


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

    def sizes_in_words(self) -> str:
        """How large the study is, in one line for the terminal and the picture."""
        from .catalogue import study_class

        study = study_class(self.study)
        defaults = study.default_options(self.task, full=self.full)
        changed = {n: v for n, v in self.options.items() if v != defaults[n]}
        changed |= {**lasting(self.changes), **self.task_options}
        said = [_in_words(name, value) for name, value in changed.items()]
        if self.task is None:
            runs = "one network of each kind"
            shown = [_in_words(name, value) for name, value in self.options.items()]
        else:
            runs, shown = counted(self.seeds, "seed"), said
        if not self.full:
            return f"SMALL: {', '.join([runs, *shown])}; --full is the paper's size"
        wanted = full_seeds(study, self.task)
        if self.seeds < wanted:
            return f"full size but {', '.join([f'{self.seeds} of {wanted} seeds', *said])}"
        if said:
            return f"full size but {', '.join(said)}: {runs}"
        return f"full size: {', '.join([runs, *shown])}"


def full_seeds(study: "type[Study]", task: str | None) -> int:
    """How many seeds the full size of `study` has on `task`."""
    return study.full_seeds if task is None else PUBLISHED_RUNS.get(task, study.full_seeds)


def make_settings(
    study: "type[Study]",
    *,
    task: str | None = None,
    full: bool = False,
    seeds: int | None = None,
    changes: Mapping[str, Any] | None = None,
) -> StudySettings:
    """The settings of `study`, checked.

    `changes` may name the study's own options, the task's, and fields of TrainConfig but for those
    that the study varies itself. A study without a task has no seeds. ConfigError, naming it, for
    what is unknown or not allowed.
    """
    changes = dict(changes or {})
    if study.default_task is None:
        if task is not None:
            raise ConfigError(f"task: expected none because {study.name} has no task, got {task!r}")
        if seeds is not None:
            raise ConfigError(
                f"seeds: expected none because {study.name} has one network of each kind and no "
                f"seeds, got {seeds!r}"
            )
    else:
        task = study.default_task if task is None else task
        _check_task(task)
        wanted = study.wants(task)
        if wanted is not None:
            raise ConfigError(f"task: expected {wanted} for {study.name}, got {task!r}")
    full = full or task in study.one_size
    seeds = (full_seeds(study, task) if full else study.small_seeds) if seeds is None else seeds
    if type(seeds) is not int or not 1 <= seeds <= 10_000:
        raise ConfigError(f"seeds: expected an integer from 1 to 10000, got {seeds!r}")
    defaults = study.default_options(task, full=full)
    options = {name: changes.pop(name, default) for name, default in defaults.items()}
    for name, value in options.items():
        if not study.options[name].allows(value):
            raise ConfigError(f"{name}: expected {study.options[name].expected}, got {value!r}")
    small = {} if full or task is None else SMALL_TRAINING.get(task, {})
    fields, own = _split(study, task, {**small, **changes})
    settings = StudySettings(
        study=study.name,
        task=task,
        full=full,
        seeds=seeds,
        changes=fields,
        task_options=own,
        options=options,
    )
    if task is not None:
        settings.config()  # every value is checked before any work
    return settings


def _in_words(name: str, value: Any) -> str:
    """A setting; layers as in 64-32, other lists in brackets."""
    if not isinstance(value, (list, tuple)):
        return f"{name} {value}"
    items = map(str, value)
    return f"{name} {'-'.join(items)}" if name == "hidden" else f"{name} ({', '.join(items)})"


def cores() -> int:
    """CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _check_task(task: str) -> None:
    try:
        task_class(task)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def _split(
    study: "type[Study]", task: str | None, changes: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Changes of TrainConfig's fields, and of the task's own settings."""
    known = {} if task is None else task_class(task).options
    of_the_study = {*OF_A_STUDY, *study.varies, *study.keeps}
    allowed = [] if task is None else [n for n in FIELDS if n not in of_the_study]
    for name, value in changes.items():
        if name in study.varies:
            raise ConfigError(
                f"{name}: expected no value because {study.name} varies it itself, got {value!r}"
            )
        if name in study.keeps:
            raise ConfigError(
                f"{name}: expected no value because {study.name} {study.keeps[name]}, got {value!r}"
            )
        if name not in known and name not in allowed:
            groups = {study.name: study.options, task: known, "the training": allowed}
            parts = [f"of {whose}: {', '.join(names)}" for whose, names in groups.items() if names]
            near = did_you_mean(name, [*study.options, *known, *allowed])
            raise ConfigError(f"settings: expected one {'; '.join(parts)}; got {name}{near}")
    own = {name: value for name, value in changes.items() if name in known}
    return {name: value for name, value in changes.items() if name not in known}, own
