"""The decays of a layer as a module: learnable, frozen, or frozen for a random fraction."""

from typing import Any

import torch
from torch import Tensor, nn

from hetsyn_triton import validation as check

from .loading import check_loaded

PARAMETRIZATIONS = ("clamp", "sigmoid")


def register_present(module: nn.Module, name: str, value: Tensor | None) -> None:
    """Register a buffer that may be absent: torch.export miscounts buffers registered as None."""
    if value is None:
        setattr(module, name, None)
    else:
        module.register_buffer(name, value)


class Decay(nn.Module):
    """Decays r in [0, 1]; a call returns them, in the shape of `initial`.

    Args:
        initial: Initial decays of any shape, in [0, 1].
        learn: Whether they learn: a parameter, or else a buffer. Default: True.
        frozen_fraction: Fraction of the decays, drawn at random, that keeps its initial value while
            the others learn. Default: 0.
        parametrization: "clamp": the parameter `raw` is r itself, and `clamp_` has to follow each
            optimizer step, as in the HetSyn paper. "sigmoid": the parameter is `logit`, and r is
            its sigmoid. The names differ so that a state of one is not loaded into the other.
            Default: "clamp".
        generator: Draws the frozen ones. Default: PyTorch's own.

    Raises:
        ValueError: If a decay is outside [0, 1], or exactly 0 or 1 under "sigmoid"; if the fraction
            is outside [0, 1], or not 0 where nothing learns; or if the parametrization is unknown.
        TypeError: If a type or dtype does not fit.

    Example:
        >>> decay = Decay(torch.tensor([0.5, 0.9]))
        >>> decay().detach()
        tensor([0.5000, 0.9000])
    """

    raw: Tensor
    logit: Tensor
    frozen: Tensor | None
    frozen_value: Tensor | None
    _unclamped = False  # whether decays outside [0, 1] were loaded

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
            # Not bool: averages of models (`torch.optim.swa_utils`) subtract their buffers.
            frozen, value = frozen.view(initial.shape).to(initial), initial.clone()
        # Kept apart from what learns, so that no weight decay or momentum can move a frozen decay.
        register_present(self, "frozen", frozen)
        register_present(self, "frozen_value", value)

    def forward(self) -> Tensor:
        if self._unclamped:
            raise ValueError(
                "decay: expected decays in [0, 1], got others in the state that was loaded, as "
                "between an optimizer step and the clamp: call clamp_decays_(module) first"
            )
        decay = torch.sigmoid(self.logit) if self.parametrization == "sigmoid" else self.raw
        if self.frozen is not None and self.frozen_value is not None:
            decay = torch.where(self.frozen.bool(), self.frozen_value, decay)
        return decay

    @torch.no_grad()
    def clamp_(self) -> None:
        """Clamp learned decays to [0, 1]; does nothing under "sigmoid".

        Of decays that are pruned or parametrized, the parameter underneath is clamped.
        """
        if self.parametrization == "clamp":
            for name, parameter in self.named_parameters():
                if name in ("raw", "raw_orig", "parametrizations.raw.original"):
                    parameter.clamp_(0, 1)
        self._unclamped = False

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        checks = {
            # One that learns may be saved between an optimizer step and the clamp.
            "raw": check.check_finite if "raw" in self._parameters else check.check_unit_interval,
            "logit": check.check_finite,
            "frozen_value": check.check_unit_interval,
        }
        if check_loaded(state_dict, prefix, checks, rest[-1]):
            super()._load_from_state_dict(state_dict, prefix, *rest)
            raw = state_dict.get(prefix + "raw")
            if isinstance(raw, Tensor) and not raw.is_meta:
                self._unclamped = bool(((raw < 0) | (raw > 1)).any())

    def extra_repr(self) -> str:
        kept = self.logit if self.parametrization == "sigmoid" else self.raw
        learned = "learned" if isinstance(kept, nn.Parameter) else "fixed"
        if self.frozen is not None and not self.frozen.is_meta:
            learned += f", {int(self.frozen.sum())} of {self.frozen.numel()} frozen"
        return f"shape={tuple(kept.shape)}, {learned}, parametrization={self.parametrization!r}"
