"""Train, resume, load and evaluate runs."""

import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hetsyn_triton.experiments.extras import require_extra
from hetsyn_triton.experiments.files import write_json
from hetsyn_triton.experiments.tasks import SPLITS, Task, task_class
from hetsyn_triton.experiments.tasks.watching import watched
from hetsyn_triton.modules import SpikingNetwork
from hetsyn_triton.ops.dispatch import seconds_compiling

from .build import build_network, build_task
from .checkpoint import read_checkpoint
from .claim import claim_folder, claim_new_folder
from .config import TrainConfig, default_config
from .errors import CheckpointError, ConfigError
from .machine import environment
from .measure import measure_split, split_means
from .network_time_constants import quartiles, time_constants
from .parallel import Ranks, joined_ranks
from .reporting import Reporter
from .restore import check_best, check_same_run, load_weights
from .run_folder import (
    CHECKPOINT,
    CONFIG,
    LEARNING_CURVE,
    METRICS,
    SAMPLE,
    SUMMARY,
    TIME_CONSTANTS,
    check_new_folder,
    check_run_folder,
    check_writable,
    free_folder,
)
from .selection import selection, why_no_validation
from .torch_threads import on_threads
from .trainer import Trainer

WEIGHTS = ("last", "validation")


@dataclass
class Run:
    """A run with the weights of its last checkpoint or of its best validation epoch.

    Attributes:
        path: The run folder.
        config: The settings.
        task: The task.
        network: The network with its weights.
        epoch: Number of complete epochs after which it had these weights.
        history: One record per trained epoch.
    """

    path: Path
    config: TrainConfig
    task: Task
    network: SpikingNetwork
    epoch: int
    history: list[dict[str, Any]]


def train(
    config: TrainConfig | str = "digits",
    out: str | Path | None = None,
    *,
    reporter: Reporter | None = None,
    pictures: bool = True,
) -> Run:
    """Train a network in a new run folder.

    Settings, folder and data are checked before anything is created. Under `torchrun`, the
    processes share the work of each batch, and the first one writes the folder.

    Args:
        config: The settings, or the name of a task for its default settings.
        out: The run folder. Defaults to the first free name in runs/.
        reporter: Receives the progress.
        pictures: Whether to draw the pictures.

    Returns:
        The complete run.

    Raises:
        ConfigError: If a setting cannot work.
        DataError: If the data is missing or damaged.
        RunFolderError: If the folder contains files, is not writable, or is used by another
            process.
        NonFiniteError: If training diverges.
        RanksError: If another process of `torchrun` fails.
    """
    config = default_config(config) if isinstance(config, str) else config
    reporter = reporter or Reporter()
    wanted = None if out is None else Path(out)
    with joined_ranks() as ranks, on_threads(config.threads), ExitStack() as held:
        with ranks.together():
            if ranks.first:
                _require_pictures(pictures)
                check_new_folder(wanted or free_folder(config))
            trainer = _prepared(config, ranks, reporter)
        with ranks.together():
            folder = None
            if ranks.first:
                folder = held.enter_context(claim_new_folder(wanted, config))
                write_json(folder / CONFIG, config.to_json())
        return _complete(trainer, _shared(ranks, folder), reporter, pictures)


def resume(
    path: str | Path,
    *,
    data_dir: str | None = None,
    device: str | None = None,
    threads: int | None = None,
    reporter: Reporter | None = None,
    pictures: bool = True,
) -> Run:
    """Resume the run in folder `path` from its last checkpoint.

    A complete run is only tested and drawn again. Under `torchrun`, the number of processes may
    differ from before.

    Args:
        path: The run folder.
        data_dir: New folder of the data. Defaults to that of the run.
        device: New device. Defaults to that of the run.
        threads: New number of threads. Defaults to that of the run.
        reporter: Receives the progress.
        pictures: Whether to draw the pictures.

    Returns:
        The complete run.

    Raises:
        ConfigError: If a setting cannot work.
        CheckpointError: If the checkpoint is missing, damaged, or belongs to another run.
        DataError: If the data is missing or damaged.
        RunFolderError: If `path` is not a run folder, or is used by another process.
        NonFiniteError: If training diverges.
        RanksError: If another process of `torchrun` fails.
    """
    folder, reporter = Path(path), reporter or Reporter()
    with joined_ranks() as ranks, ExitStack() as held:
        with ranks.together():
            if ranks.first:
                _require_pictures(pictures)
            config = _read_config(folder, data_dir=data_dir, device=device, threads=threads)
            held.enter_context(on_threads(config.threads))
            if ranks.first:
                check_writable(folder)
                held.enter_context(claim_folder(folder, "run"))
        with ranks.together():  # partial files of a killed process are removed now
            trainer = _prepared(config, ranks, reporter)
            checkpoint = folder / CHECKPOINT
            if checkpoint.exists():
                trainer.restore(checkpoint, read_checkpoint(checkpoint, trainer.device))
            elif (folder / METRICS).exists():
                raise CheckpointError(f"there is no checkpoint {checkpoint}")
        return _complete(trainer, folder, reporter, pictures)


def load_run(
    path: str | Path,
    *,
    data_dir: str | None = None,
    device: str | None = None,
    options: Mapping[str, Any] | None = None,
    weights: str = "last",
) -> Run:
    """Read the run in folder `path`: settings, task, and network with its weights.

    Args:
        path: The run folder.
        data_dir: New folder of the data. Defaults to that of the run.
        device: New device. Defaults to that of the run.
        options: New values of the task's own settings, such as the noise of a test.
        weights: "last" for the last checkpoint, or "validation" for the best epoch on held-out
            samples.

    Returns:
        The run.

    Raises:
        ConfigError: If a setting is unknown or not allowed, needs another network, or decides
            which samples are held out of training.
        CheckpointError: If the checkpoint is missing, damaged, or belongs to another run.
        RunFolderError: If `path` is not a run folder.
    """
    if weights not in WEIGHTS:
        raise ConfigError(f"weights: expected one of {', '.join(WEIGHTS)}, got {weights!r}")
    folder = Path(path)
    stored = _read_config(folder, data_dir=data_dir, device=device)
    _check_splits(stored, options or {})
    config = stored.changed(options={**stored.options, **(options or {})})
    task = build_task(config)
    if options:
        _check_sizes(task, build_task(stored))
    network = build_network(config, task)
    file = folder / CHECKPOINT
    checkpoint = read_checkpoint(file, torch.device(config.device))
    check_same_run(file, checkpoint, stored)
    check_best(file, checkpoint, task, network)
    epoch, chosen = checkpoint.epoch, checkpoint.model
    if weights == "validation":
        if checkpoint.best is None:
            raise ConfigError(
                "weights: expected last because this run has no measurement on held-out samples, "
                "got 'validation'"
            )
        epoch, chosen = checkpoint.best["epoch"], checkpoint.best["model"]
    load_weights(file, chosen, network)
    network.eval()
    return Run(folder, config, task, network, epoch, checkpoint.history)


def evaluate(run: Run | str | Path, split: str = "test") -> dict[str, float]:
    """Return loss and metrics of a run on "test", "validation" or "train"."""
    if split not in SPLITS:
        raise ConfigError(f"split: expected one of {', '.join(SPLITS)}, got {split!r}")
    run = run if isinstance(run, Run) else load_run(run)
    with on_threads(run.config.threads):
        values = measure_split(run.task, run.network, split, run.config.device)
    if not values:
        there = [name for name in SPLITS if next(run.task.batches(name), None) is not None]
        raise ConfigError(
            f"split: expected one of the splits of this run, {', '.join(there)}, got {split!r}"
        )
    return values


def _prepared(config: TrainConfig, ranks: Ranks, reporter: Reporter) -> Trainer:
    """Return the trainer with its data read; the reporter of the first rank gets the progress."""
    if not ranks.first:
        return Trainer(config, ranks)
    with watched(reporter.preparing):
        return Trainer(config, ranks)


def _complete(trainer: Trainer, folder: Path, reporter: Reporter, pictures: bool) -> Run:
    began, compiled = time.monotonic(), seconds_compiling()
    ranks = trainer.ranks
    reporter = reporter if ranks.first else Reporter()
    trainer.fit(folder, reporter)
    reporter.finishing()
    trainer.network.eval()
    run = Run(folder, trainer.config, trainer.task, trainer.network, trainer.epoch, trainer.history)
    where = f"after the last step ({trainer.step})"
    means = split_means(run.task, run.network, "test", run.config.device, ranks, where)
    test = means.values()
    chosen = selection(run.task, run.network, run.history, trainer.best, test, ranks)
    if not ranks.first:
        return run
    before = time_constants(build_network(run.config, run.task), run.config.dt)
    after = time_constants(run.network, run.config.dt)
    summary = _summary(run, test, before, after, time.monotonic() - began)
    summary["seconds_compiling"] = round(seconds_compiling() - compiled, 1)
    summary["test_samples"] = means.samples
    summary["no_validation"] = why_no_validation(run.task, chosen)
    summary |= {"selection": chosen, "processes": ranks.size, **_where(trainer)}
    write_json(folder / SUMMARY, summary)
    if pictures:
        _draw(run, test, before, after)
    reporter.finished(summary, folder)
    return run


def _draw(
    run: Run, test: dict[str, float], before: dict[str, Tensor], after: dict[str, Tensor]
) -> None:
    from .run_pictures import draw_learning_curve, draw_sample, draw_time_constants

    draw_learning_curve(run.task, run.history, test, run.path / LEARNING_CURVE)
    draw_sample(run.task, run.network, torch.device(run.config.device), run.path / SAMPLE)
    unit = run.task.time_unit
    draw_time_constants(before, after, unit, run.config.dt, run.path / TIME_CONSTANTS)


def _summary(
    run: Run,
    test: dict[str, float],
    before: dict[str, Tensor],
    after: dict[str, Tensor],
    seconds: float,
) -> dict[str, Any]:
    """Return the contents of summary.json; `before` and `after` are time constants."""
    return {
        "task": run.config.task,
        "model": run.config.model,
        "seed": run.config.seed,
        "epochs": run.epoch,
        "parameters": sum(p.numel() for p in run.network.parameters() if p.requires_grad),
        "score": run.task.score,
        "last_epoch": run.history[-1],
        "test": test,
        "seconds_training": round(sum(record["seconds"] for record in run.history), 1),
        "seconds_this_process": round(seconds, 1),
        "time_constant_quartiles": {
            name: {
                "before": [_json_number(q) for q in quartiles(before[name])],
                "after": [_json_number(q) for q in quartiles(after[name])],
            }
            for name in after
        },
    }


def _where(trainer: Trainer) -> dict[str, Any]:
    """Return the sessions of the run, and the environment of the last session.

    If no sessions were recorded, the environment is that of this process without the machine.
    """
    if not trainer.sessions:
        return {"environment": environment(), "sessions": []}
    last = {name: value for name, value in trainer.sessions[-1].items() if name != "step"}
    return {"environment": last, "sessions": trainer.sessions}


def _read_config(folder: Path, **moved: str | int | None) -> TrainConfig:
    """Read the settings of a run, with new values of settings in MOVABLE."""
    check_run_folder(folder)
    changes = {name: value for name, value in moved.items() if value is not None}
    return TrainConfig.load(folder / CONFIG, **changes)


def _check_splits(stored: TrainConfig, options: Mapping[str, Any]) -> None:
    """Raise ConfigError if `options` change which samples are held out of training."""
    usual = {**task_class(stored.task).default_options(), **stored.options}
    for name in sorted(task_class(stored.task).split_options & options.keys()):
        if options[name] != usual[name]:
            raise ConfigError(
                f"options.{name}: expected {usual[name]!r} as in training because it decides which "
                f"samples are held out, got {options[name]!r}"
            )


def _check_sizes(task: Task, trained: Task) -> None:
    """Raise ConfigError if `task` needs a network of other sizes than the `trained` one."""
    for what in ("in_features", "out_features"):
        wanted, have = getattr(task, what), getattr(trained, what)
        if wanted != have:
            raise ConfigError(
                f"options: expected values with {what} {have} as in training, got {wanted}"
            )


def _shared(ranks: Ranks, folder: Path | None) -> Path:
    """Return the folder of the first rank."""
    shared = ranks.share(folder)
    assert shared is not None
    return shared


def _json_number(value: float) -> float | str:
    return value if value < float("inf") else "infinite"


def _require_pictures(pictures: bool) -> None:
    if pictures:
        require_extra("drawing the run's pictures", "matplotlib")
