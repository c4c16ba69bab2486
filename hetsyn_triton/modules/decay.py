"""The decays of a layer as a module: learnable, frozen, or frozen for a random fraction."""

import torch
from torch import Tensor, nn

from hetsyn_triton import validation as check

PARAMETRIZATIONS = ("clamp", "sigmoid")


class Decay(nn.Module):
    """Decays r in [0, 1]; calling the module returns them, in the shape of `initial`.

    Args:
        initial: initial decays, any shape, in [0, 1].
        learn: whether `raw` is a parameter (else a buffer).
        frozen_fraction: share of the decays, drawn at random, that keep their initial value while
            the others learn (HetSyn froze 80 % without loss on delayed match-to-sample).
        parametrization: "clamp": `raw` is r itself, clamped by `clamp_()` after each optimizer step
            (the paper's way); "sigmoid": r = sigmoid(raw), always inside (0, 1).
        generator: draws the frozen ones.

    Raises ValueError for decays outside [0, 1], exact 0 or 1 under "sigmoid", a fraction outside
    [0, 1], or an unknown parametrization.
    """

    raw: Tensor
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
        check.check_fraction("frozen_fraction", frozen_fraction)
        check.check_unit_interval("decay", initial)
        self.parametrization = parametrization
        if parametrization == "sigmoid":
            if bool(((initial == 0) | (initial == 1)).any()):
                raise ValueError(
                    "decay: expected values strictly between 0 and 1 for "
                    "decay_parametrization='sigmoid', got an exact 0 or 1"
                )
            raw = torch.logit(initial)
        else:
            raw = initial.clone()
        if learn:
            self.raw = nn.Parameter(raw)
        else:
            self.register_buffer("raw", raw)
        frozen, value = None, None
        if learn and frozen_fraction > 0:
            order = torch.randperm(initial.numel(), generator=generator)
            frozen = torch.zeros(initial.numel(), dtype=torch.bool)
            frozen[order[: round(frozen_fraction * initial.numel())]] = True
            frozen, value = frozen.view(initial.shape).to(initial.device), initial.clone()
        # Kept apart from `raw`, so that no weight decay or momentum can move a frozen decay.
        self.register_buffer("frozen", frozen)
        self.register_buffer("frozen_value", value)

    def forward(self) -> Tensor:
        decay = torch.sigmoid(self.raw) if self.parametrization == "sigmoid" else self.raw
        if self.frozen is not None and self.frozen_value is not None:
            decay = torch.where(self.frozen, self.frozen_value, decay)
        return decay

    @torch.no_grad()
    def clamp_(self) -> None:
        """Clamps learnt decays to [0, 1]; nothing to do under "sigmoid"."""
        if self.parametrization == "clamp":
            self.raw.clamp_(0, 1)

    def extra_repr(self) -> str:
        learnt = "learnt" if isinstance(self.raw, nn.Parameter) else "fixed"
        if self.frozen is not None:
            learnt += f", {int(self.frozen.sum())} of {self.frozen.numel()} frozen"
        return f"shape={tuple(self.raw.shape)}, {learnt}, parametrization={self.parametrization!r}"
