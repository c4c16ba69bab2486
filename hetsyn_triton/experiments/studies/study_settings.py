"""Make and check the settings of a study."""

import os
from collections.abc import Mapping
from typing import Any

from hetsyn_triton.experiments.tasks import task_class
from hetsyn_triton.experiments.training import ConfigError
from hetsyn_triton.experiments.training.config import FIELDS
from hetsyn_triton.validation import did_you_mean

from .base import Study, StudySettings

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

OF_A_STUDY = ("task", "seed", "options")  # fields of a run that no change may name


def make_settings(
    study: type[Study],
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
    if seeds is None:
        seeds = study.seeds_of_full_size(task) if full else study.small_seeds
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
    study: type[Study], task: str | None, changes: dict[str, Any]
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
