"""The checkpoint of networks that train together: resuming from it does not change the result."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from hetsyn_triton.experiments.training import CheckpointError
from hetsyn_triton.experiments.training.checkpoint import read_values, save_values
from hetsyn_triton.experiments.training.restore import (
    check_same_settings,
    load_optimizer,
    load_weights,
)

from .folder import set_aside

if TYPE_CHECKING:
    from .replicas import Replicas

FORMAT = "replicas-1"


def save(replicas: "Replicas", path: Path, seconds: float) -> None:
    """Write the state of `replicas` to `path` atomically; this process has trained for `seconds`.

    Learning rate and random numbers are functions of seed and step, so they have no state.
    """
    values = {
        "configs": [config.to_json() for config in replicas.configs],
        "model": replicas.network.state_dict(),
        "optimizer": replicas.optimizer.state_dict(),
        "step": replicas.step,
        "diverged": replicas.diverged,
        "threads": replicas.threads,
        "seconds": replicas.seconds_before + seconds,
        "environments": replicas.environments,
    }
    save_values(path, FORMAT, values)


def restore(replicas: "Replicas", path: Path) -> None:
    """Restore `replicas` from the checkpoint in `path`, if there is one.

    They use as many threads as when it was written, unless their settings name a number. A damaged
    checkpoint is renamed and logged, and training starts from the beginning.

    Raises:
        CheckpointError: If the checkpoint belongs to other networks; the message names what
            differs.
    """
    if not path.exists():
        return
    try:
        # load_state_dict moves tensors to the device, except the step counts
        values = read_values(path, FORMAT, torch.device("cpu"))
        _check_content(path, values, replicas)
    except CheckpointError as error:
        set_aside(path, error)
        return
    try:
        for stored, config in zip(values["configs"], replicas.configs, strict=True):
            check_same_settings(path, stored, config)
        load_weights(path, values["model"], replicas.network)
        load_optimizer(path, values["optimizer"], values["step"], replicas.optimizer)
    except CheckpointError as error:
        raise CheckpointError(f"{error}. Name another study folder with --out") from error
    replicas.step, replicas.diverged = values["step"], values["diverged"]
    if replicas.config.threads is None:
        replicas.threads = values.get("threads", replicas.threads)
    replicas.seconds_before = values.get("seconds", 0.0)
    replicas.environments = values.get("environments", [{}])


def _check_content(path: Path, values: dict[str, Any], replicas: "Replicas") -> None:
    """Raise CheckpointError unless each part has the form that `save` writes."""
    configs, step, diverged = (values.get(name) for name in ("configs", "step", "diverged"))
    most, count, threads = replicas.steps, len(replicas), values.get("threads", 1)
    seconds, environments = values.get("seconds", 0.0), values.get("environments", [])
    for name, right, expected in (
        (
            "configs",
            isinstance(configs, list)
            and len(configs) == count
            and all(isinstance(config, dict) for config in configs),
            f"the settings of {count} networks",
        ),
        ("model", isinstance(values.get("model"), dict), "tensors with names"),
        ("optimizer", isinstance(values.get("optimizer"), dict), "moments"),
        ("step", type(step) is int and 0 <= step <= most, f"an integer from 0 to {most}"),
        (
            "diverged",
            isinstance(diverged, dict)
            and all(n in range(count) and isinstance(s, str) for n, s in diverged.items()),
            f"reasons of replicas below {count}",
        ),
        ("threads", type(threads) is int and threads > 0, "a positive integer"),
        ("seconds", type(seconds) is float and seconds >= 0, "a number of at least 0"),
        (
            "environments",
            isinstance(environments, list) and all(isinstance(e, dict) for e in environments),
            "the machine of each process",
        ),
    ):
        if not right:
            raise CheckpointError(f"{path} is damaged: {name}: expected {expected}")
