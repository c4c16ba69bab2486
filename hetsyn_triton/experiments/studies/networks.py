"""The trained networks of a study: ordinary run folders, resumed if they are incomplete."""

from pathlib import Path
from typing import Any

import torch

from hetsyn_triton.experiments.training import (
    CheckpointError,
    Run,
    RunFolderError,
    TrainConfig,
    load_run,
    resume,
    train,
)
from hetsyn_triton.experiments.training.checkpoint import read_checkpoint
from hetsyn_triton.experiments.training.restore import MOVABLE
from hetsyn_triton.experiments.training.run_folder import CHECKPOINT, CONFIG, SUMMARY

from .base import Place, Row
from .study_folder import read_json


def trained(config: TrainConfig, name: str, place: Place) -> Run:
    """Return the complete run `name` of a study: train it, resume it, or read it."""
    run = _complete(config, place.runs / name, place)
    sessions = summary(run).get("sessions", [])
    if not sessions or sessions[0]["step"] > 0:
        place.environments.append({})  # trained before sessions were recorded
    place.environments.extend(
        {name: value for name, value in session.items() if name != "step"} for session in sessions
    )
    return run


def summary(run: Run) -> dict[str, Any]:
    """Read summary.json of a complete run."""
    return read_json(run.path / SUMMARY)


def result(run: Run) -> Row:
    """Return the test measures of a run after the last epoch.

    If samples are held out, SCORE_validation_selected is the test score of the epoch that is best
    on them.
    """
    values = summary(run)
    row: Row = {"parameters": values["parameters"], **values["test"]}
    selected = values["selection"]["validation"]
    if selected is not None:
        score = run.task.score or "loss"
        row[f"{score}_validation_selected"] = selected["test"][score]
    return row


def curve(run: Run) -> dict[str, Any]:
    """Return the score over training as `steps`, `values` and `part`.

    `part` is validation if it was measured after every epoch, else train.
    """
    score = run.task.score or "loss"
    part = "validation" if f"validation_{score}" in run.history[-1] else "train"
    return {
        "part": part,
        "steps": [record["step"] for record in run.history],
        "values": [record[f"{part}_{score}"] for record in run.history],
    }


def form(recurrent: bool) -> str:
    """ "recurrent" or "feedforward"."""
    return "recurrent" if recurrent else "feedforward"


def _complete(config: TrainConfig, folder: Path, place: Place) -> Run:
    if not (folder / CONFIG).is_file():
        threads = place.threads if config.threads is None else config.threads
        return train(config.changed(threads=threads), folder, pictures=False)
    _check_same(folder, config)
    place.seconds_before.append(_seconds_trained(folder))
    if (folder / SUMMARY).is_file():
        return load_run(folder, data_dir=config.data_dir, device=config.device)
    moved = {name: getattr(config, name) for name in MOVABLE}
    return resume(folder, **moved, pictures=False)


def _seconds_trained(folder: Path) -> float:
    """Return how long the run was trained up to its checkpoint.

    0 if the checkpoint cannot be read; resuming the run then raises the error.
    """
    try:
        checkpoint = read_checkpoint(folder / CHECKPOINT, torch.device("cpu"))
    except CheckpointError:
        return 0.0
    return float(sum(record["seconds"] for record in checkpoint.history) + checkpoint.seconds)


def _check_same(folder: Path, config: TrainConfig) -> None:
    stored = TrainConfig.load(folder / CONFIG, device=config.device).to_json()
    wanted = config.to_json()
    different = [n for n in wanted if n not in MOVABLE and stored[n] != wanted[n]]
    if different:
        raise RunFolderError(
            f"{folder} contains another run: expected the same {', '.join(different)}. "
            "Name another study folder with --out"
        )
