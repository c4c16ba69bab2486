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
    """Return two groups for an optimizer: decays, and all other parameters.

    Args:
        module: The network.
        lr: Learning rate of weights and thresholds.
        weight_decay: Weight decay of weights and thresholds. Default: 0.
        decay_lr: Learning rate of the decays. Default: twice `lr`, as in HetSyn.
        decay_weight_decay: Weight decay of the decays, which pulls time constants down. Default:
            `weight_decay`, as in HetSyn.

    Returns:
        Groups with the `name` "weights" and "decays", without parameters that do not require
        gradients. A group without parameters is left out.

    Raises:
        ValueError: If a rate is not positive, or a weight decay is negative.
        TypeError: If `module` is no module, or a value is not a number.

    Example:
        >>> groups = parameter_groups(HetSynLIF(8, 4), lr=1e-3)
        >>> [(group["name"], group["lr"]) for group in groups]
        [('weights', 0.001), ('decays', 0.002)]
        >>> optimizer = torch.optim.AdamW(groups)
    """
    check.check_module("module", module)
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
    """Clamp every decay of a network to [0, 1]; call it after each optimizer step.

    Args:
        module: The network. Decays with the parametrization "sigmoid" do not change.

    Raises:
        TypeError: If `module` is no module.

    Example:
        >>> layer = HetSynLIF(8, 4)
        >>> _ = layer.decay.raw.data.add_(1)
        >>> clamp_decays_(layer)
        >>> layer.decay().max().item()
        1.0
    """
    check.check_module("module", module)
    for child in module.modules():
        if isinstance(child, Decay):
            child.clamp_()
