"""Copy the results of run and study folders to the repository, for docs/results.md.

`collect` copies, and `results_page` writes the page from the copies.
"""

import hashlib
import json
import shlex
import shutil
from pathlib import Path
from typing import Any

from hetsyn_triton.experiments.files import write_json
from hetsyn_triton.experiments.studies.study_folder import (
    PICTURE,
    STUDY,
    TABLE_CSV,
    TABLE_JSON,
    read_json,
    read_json_lines,
    read_study,
)
from hetsyn_triton.experiments.training import (
    ConfigError,
    RunFolderError,
    TrainConfig,
    default_config,
)
from hetsyn_triton.experiments.training.restore import MOVABLE, lasting
from hetsyn_triton.experiments.training.run_folder import CONFIG, LEARNING_CURVE, METRICS, SUMMARY

STORED = "results"  # the folder of the copies, beside results.md
RAW = "json"  # the folder in it that has every figure and setting


def collect(folder: Path, docs: Path) -> Path:
    """Copy the results of a complete run or study in `folder` to docs/results/.

    They replace an earlier copy with the same settings.

    Returns:
        The new JSON file.

    Raises:
        RunFolderError: If `folder` contains no run or study, or an incomplete or damaged one.
    """
    stored = docs / STORED
    if (folder / STUDY).is_file():
        copied, beside = _study, {PICTURE: "png", TABLE_CSV: "csv"}
    elif (folder / CONFIG).is_file():
        copied, beside = _run, {LEARNING_CURVE: "png"}
    else:
        raise RunFolderError(f"results: expected a run or study folder, got {folder}")
    try:
        values, stem = copied(folder)
    except (AttributeError, KeyError, TypeError) as error:
        raise RunFolderError(f"{folder} is damaged: {type(error).__name__}: {error}") from error
    (stored / RAW).mkdir(parents=True, exist_ok=True)
    for source, suffix in beside.items():
        if (folder / source).is_file():
            shutil.copyfile(folder / source, stored / f"{stem}.{suffix}")
    write_json(stored / RAW / f"{stem}.json", values)
    return stored / RAW / f"{stem}.json"


def digest(settings: Any) -> str:
    """Return six digits that identify settings."""
    text = json.dumps(settings, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:6]


def changed_settings(config: dict[str, Any]) -> dict[str, Any]:
    """Return the settings in which a run differs from the defaults of its task.

    The task's own settings are among them by name. The seed and the settings in MOVABLE are not.
    """
    try:
        usual = default_config(config["task"]).to_json()
    except ConfigError:  # a task that is not built in
        return {}
    own, other = config["options"], usual["options"]
    changed = {name: value for name, value in own.items() if other.get(name) != value}
    left_out = {"task", "seed", "options", *MOVABLE}
    fields = {n: v for n, v in config.items() if n not in left_out and usual.get(n) != v}
    return {**fields, **changed}


def train_command(config: dict[str, Any]) -> str:
    """Return the command that repeats a run."""
    words = ["hetsyn", "train", config["task"], "--seed", str(config["seed"])]
    for name, value in changed_settings(config).items():
        text = value if isinstance(value, str) else json.dumps(value)
        words += ["--set", f"{name}={text}"]
    return shlex.join(words)


def _study(folder: Path) -> tuple[dict[str, Any], str]:
    values = read_study(folder)
    if "environments" not in values:
        raise RunFolderError(
            f"results: expected {TABLE_JSON} with environments, got that of an earlier version in "
            f"{folder}. Run the command of the study again to update it"
        )
    del values["rows"]
    settings = values["settings"]
    settings["changes"] = lasting(settings["changes"])
    size = "full" if settings["full"] else "small"
    used_gpu = any("gpu" in environment for environment in values["environments"])
    of = _with_device(settings, "cuda" if used_gpu else "cpu")
    parts = ["study", settings["study"], settings["task"], size, digest(of)]
    return {"kind": "study", **values}, "-".join(part for part in parts if part)


def _run(folder: Path) -> tuple[dict[str, Any], str]:
    if not (folder / SUMMARY).is_file():
        raise RunFolderError(
            f"results: expected a complete run that contains {SUMMARY}, got {folder}"
        )
    config = TrainConfig.load(folder / CONFIG, device="cpu").to_json()
    # The GPU of another machine may be missing here. CONFIG is known to be valid JSON.
    config["device"] = json.loads((folder / CONFIG).read_text(encoding="utf-8"))["device"]
    summary = read_json(folder / SUMMARY)
    score = summary["score"] or "loss"
    seconds, curve = 0.0, []
    for record in read_json_lines(folder / METRICS):
        seconds += record["seconds"]
        point = {"epoch": record["epoch"], "hours": round(seconds / 3600, 4)}
        for part in ("validation", "test"):
            if f"{part}_{score}" in record:
                point[part] = record[f"{part}_{score}"]
        curve.append(point)
    kept = lasting(config)
    values = {
        "kind": "run",
        "config": kept,
        "changed": changed_settings(config),
        "command": train_command(config),
        "score": score,
        "parameters": summary["parameters"],
        "test_samples": summary.get("test_samples"),  # earlier versions did not record it
        "selection": summary["selection"],
        "last_epoch": summary["last_epoch"],
        "time_constant_quartiles": summary["time_constant_quartiles"],
        "curve": curve,
        "environment": {
            "date": None,  # if the run did not record it
            "cpu": None,
            **{name: value for name, value in summary["environment"].items() if value is not None},
            "device": config["device"],
        },
        "sessions": summary.get("sessions", []),
    }
    of = _with_device(kept, config["device"])
    parts = ["run", config["task"], config["model"], f"s{config['seed']}", digest(of)]
    return values, "-".join(parts)


def _with_device(settings: dict[str, Any], device: str) -> dict[str, Any]:
    """Return `settings`, with the device if it is not the CPU because results on a GPU differ."""
    return settings if device == "cpu" else {**settings, "device": device}
