"""Weight decay on decays: the kinds that a study compares, and its effect without gradients."""

import copy
import math
from typing import Any

import torch

from hetsyn_triton.experiments.training import ConfigError, TrainConfig
from hetsyn_triton.experiments.training.build import build_optimizer
from hetsyn_triton.experiments.training.schedule import lr_scale
from hetsyn_triton.modules import SpikingNetwork

NONE, USUAL, EXEMPT = "none", "usual", "exempt"
LABELS = {
    NONE: "without weight decay",
    USUAL: "with weight decay",
    EXEMPT: "decays exempt from weight decay",
}
OF_SHD = 4e-3  # the paper's weight decay for SHD, on weights and decays


def settings_of(way: str, weight_decay: float) -> dict[str, Any]:
    """Return the fields of TrainConfig for a kind of weight decay.

    It applies to nothing, to weights and decays (as in HetSyn), or to weights only. All kinds use
    AdamW, which shrinks parameters by a known factor. PyTorch's Adam adds weight decay to the
    gradient and scales the sum. Without weight decay both are the same.
    """
    return {
        "optimizer": "adamw",
        "weight_decay": 0.0 if way == NONE else weight_decay,
        "decay_weight_decay": 0.0 if way == EXEMPT else None,
    }


def shrunk(network: SpikingNetwork, config: TrainConfig, steps_per_epoch: int) -> SpikingNetwork:
    """Return a copy of `network` with the decays that a run of `config` leaves without gradients.

    AdamW multiplies a parameter by 1 - lr wd at each step, with the learning rate of that step.
    Frozen decays and weights do not change.

    Raises:
        ConfigError: If the optimizer is not "adamw".

    References:
        arXiv 1711.05101, algorithm 2.
    """
    if config.optimizer != "adamw":
        raise ConfigError(
            f"optimizer: expected adamw because its weight decay does not depend on the gradient, "
            f"got {config.optimizer!r}"
        )
    changed = copy.deepcopy(network)
    for group in build_optimizer(config, changed).param_groups:
        if group["name"] == "decays":
            most = group["lr"] * group["weight_decay"]
            steps = range(config.epochs * steps_per_epoch)
            factor = math.prod(1 - most * lr_scale(config, s, steps_per_epoch) for s in steps)
            with torch.no_grad():
                for parameter in group["params"]:
                    parameter.mul_(factor)
    return changed
