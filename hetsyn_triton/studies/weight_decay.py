"""Weight decay of decays: the ways to train that tell what it does, and what it would do alone."""

import copy
import math
from typing import Any

import torch

from hetsyn_triton.modules import SpikingNetwork
from hetsyn_triton.training import ConfigError, TrainConfig
from hetsyn_triton.training.build import build_optimizer
from hetsyn_triton.training.schedule import lr_scale

NONE, USUAL, EXEMPT = "none", "usual", "exempt"
LABELS = {
    NONE: "without weight decay",
    USUAL: "with weight decay",
    EXEMPT: "decays exempt from weight decay",
}
OF_SHD = 4e-3  # the paper's, on weights and decays


def settings_of(way: str, weight_decay: float) -> dict[str, Any]:
    """Fields of TrainConfig that train in that `way`: without weight decay, with it on weights and
    decays (HetSyn's choice), or on weights alone.

    All with AdamW: PyTorch's Adam adds weight decay to the gradient and then divides by its scale,
    so it does not shrink anything by a known factor. Without weight decay the two are the same.
    """
    return {
        "optimizer": "adamw",
        "weight_decay": 0.0 if way == NONE else weight_decay,
        "decay_weight_decay": 0.0 if way == EXEMPT else None,
    }


def shrunk(network: SpikingNetwork, config: TrainConfig, steps_per_epoch: int) -> SpikingNetwork:
    """A copy of `network` as a run of `config` would leave its decays if no gradient moved them.

    AdamW multiplies a parameter by 1 - lr wd at each step (arXiv 1711.05101, algorithm 2), with the
    rate of that step. Frozen decays stay; weights are not touched. ConfigError unless the optimizer
    is "adamw".
    """
    if config.optimizer != "adamw":
        raise ConfigError(
            f"optimizer: expected adamw, the one that shrinks parameters apart from the gradient, "
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
