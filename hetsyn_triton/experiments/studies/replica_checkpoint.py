"""Read the checkpoint of networks that train together."""

from pathlib import Path
from typing import Any

import torch

from hetsyn_triton.experiments.training import CheckpointError
from hetsyn_triton.experiments.training.checkpoint import read_values

from .study_folder import set_aside

FORMAT = "replicas-1"


def read(path: Path, *, count: int, steps: int) -> dict[str, Any] | None:
    """Read the checkpoint of `count` networks that train for `steps` together.

    Returns:
        What `Replicas.fit` saved; None if there is no checkpoint. A damaged one is renamed and
        logged, and counts as none.
    """
    if not path.exists():
        return None
    try:
        # load_state_dict moves tensors to the device, except the step counts
        values = read_values(path, FORMAT, torch.device("cpu"))
        _check_content(path, values, count, steps)
    except CheckpointError as error:
        set_aside(path, error)
        return None
    return values


def _check_content(path: Path, values: dict[str, Any], count: int, most: int) -> None:
    """Raise CheckpointError unless each part has the form that `Replicas` saves."""
    configs, step, diverged = (values.get(name) for name in ("configs", "step", "diverged"))
    threads = values.get("threads", 1)
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
