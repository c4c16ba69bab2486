"""The decays of a layer as a module: learnable, frozen, or frozen for a random fraction."""

from typing import Any

import torch
from torch import Tensor, nn

from hetsyn_triton import validation as check

from .loading import check_loaded

PARAMETRIZATIONS = ("clamp", "sigmoid")


def register_present(module: nn.Module, name: str, value: Tensor | None) -> None:
    """Registers a buffer that may be absent: torch.export miscounts buffers registered as None."""
    if value is None:
        setattr(module, name, None)
    else:
        module.register_buffer(name, value)


class Decay(nn.Module):
    """Decays r in [0, 1]; calling the module returns them, in the shape of `initial`.

    Args:
        initial: initial decays, any shape, in [0, 1].
        learn: whether they learn: a parameter, else a buffer.
        frozen_fraction: share of the decays, drawn at random, that keep their initial value while
            the others learn (HetSyn froze 80 % without loss on delayed match-to-sample).
        parametrization: "clamp": the parameter is r itself, `raw`, clamped by `clamp_()` after each
            optimizer step (the paper's way); "sigmoid": it is `logit`, r = sigmoid(logit). Two
            names, so that a state of the one is not loaded into the other.
        generator: draws the frozen ones.

    Raises ValueError for decays outside [0, 1], exact 0 or 1 under "sigmoid", a fraction outside
    [0, 1] or where nothing learns, or an unknown parametrization.
    """

    raw: Tensor
    logit: Tensor
    frozen: Tensor | None
    frozen_value: Tensor | None

    def __init__(
        self,
        initial: Tensor,
        *,
        learn: bool = True,
        frozen_fraction: float = 0.0,
        parametrization: str = "clamp",
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        check.check_choice("decay_parametrization", parametrization, PARAMETRIZATIONS)
        check.check_flag("learn_decay", learn)
        if check.check_fraction("frozen_fraction", frozen_fraction) > 0 and not learn:
            raise ValueError(
                f"frozen_fraction: expected 0 where no decay learns, got {frozen_fraction!r}"
            )
        check.check_tensor("decay", initial)
        check.check_parameter_dtype("decay", initial.dtype)
        check.check_unit_interval("decay", initial)
        self.parametrization = parametrization
        if parametrization == "sigmoid":
            if check.readable(initial) and bool(((initial == 0) | (initial == 1)).any()):
                raise ValueError(
                    "decay: expected values strictly between 0 and 1 for "
                    "decay_parametrization='sigmoid', got an exact 0 or 1"
                )
            name, kept = "logit", torch.logit(initial)
        else:
            name, kept = "raw", initial.clone()
        if learn:
            self.register_parameter(name, nn.Parameter(kept))
        else:
            self.register_buffer(name, kept)
        frozen, value = None, None
        if learn and frozen_fraction > 0:
            order = torch.randperm(initial.numel(), generator=generator, device="cpu")
            frozen = torch.zeros(initial.numel(), dtype=torch.bool, device="cpu")
            frozen[order[: round(frozen_fraction * initial.numel())]] = True
            frozen, value = frozen.view(initial.shape).to(initial.device), initial.clone()
        # Kept apart from what learns, so that no weight decay or momentum can move a frozen decay.
        register_present(self, "frozen", frozen)
        register_present(self, "frozen_value", value)

    def forward(self) -> Tensor:
        decay = torch.sigmoid(self.logit) if self.parametrization == "sigmoid" else self.raw
        if self.frozen is not None and self.frozen_value is not None:
            decay = torch.where(self.frozen, self.frozen_value, decay)
        return decay

    @torch.no_grad()
    def clamp_(self) -> None:
        """Clamps learned decays to [0, 1]; nothing to do under "sigmoid"."""
        if self.parametrization == "clamp":
            self.raw.clamp_(0, 1)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        checks = {
            "raw": check.check_unit_interval,
            "logit": check.check_finite,
            "frozen_value": check.check_unit_interval,
        }
        check_loaded(state_dict, prefix, checks)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def extra_repr(self) -> str:
        kept = self.logit if self.parametrization == "sigmoid" else self.raw
        learned = "learned" if isinstance(kept, nn.Parameter) else "fixed"
        if self.frozen is not None:
            learned += f", {int(self.frozen.sum())} of {self.frozen.numel()} frozen"
        return f"shape={tuple(kept.shape)}, {learned}, parametrization={self.parametrization!r}"
