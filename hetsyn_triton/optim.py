"""What training a HetSyn network asks of an optimizer: its own rate for decays, and a clamp."""

from typing import Any

from torch import nn

from . import validation as check
from .modules.decay import Decay


def parameter_groups(
    module: nn.Module,
    lr: float,
    weight_decay: float = 0.0,
    *,
    decay_lr: float | None = None,
    decay_weight_decay: float | None = None,
) -> list[dict[str, Any]]:
    """Two optimizer groups: decays, and everything else; what does not require grad is in neither.

    Args:
        lr, weight_decay: for weights and thresholds.
        decay_lr: for decays; None: twice `lr` (HetSyn's choice).
        decay_weight_decay: for decays; None: as `weight_decay` (HetSyn's choice; it pulls time
            constants down), 0: exempt.

    Returns groups with `name` "weights" or "decays"; a group without parameters is left out.
    """
    check.check_positive_number("lr", lr)
    decay_lr = 2 * lr if decay_lr is None else check.check_positive_number("decay_lr", decay_lr)
    if decay_weight_decay is None:
        decay_weight_decay = weight_decay
    check.check_not_negative("weight_decay", weight_decay)
    check.check_not_negative("decay_weight_decay", decay_weight_decay)
    decays = {id(p) for m in module.modules() if isinstance(m, Decay) for p in m.parameters()}
    learned = [p for p in module.parameters() if p.requires_grad]
    groups: list[dict[str, Any]] = [
        {
            "name": "weights",
            "params": [p for p in learned if id(p) not in decays],
            "lr": lr,
            "weight_decay": weight_decay,
        },
        {
            "name": "decays",
            "params": [p for p in learned if id(p) in decays],
            "lr": decay_lr,
            "weight_decay": decay_weight_decay,
        },
    ]
    return [group for group in groups if group["params"]]


def clamp_decays_(module: nn.Module) -> None:
    """Clamps every decay of a network to [0, 1]; to be called after each optimizer step."""
    for child in module.modules():
        if isinstance(child, Decay):
            child.clamp_()
