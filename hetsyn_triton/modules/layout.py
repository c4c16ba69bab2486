"""From the caller's layout to [T, B, N] and back: batch first, unbatched, and one single step."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from hetsyn_triton import validation as check


def _map(state: Any, function: Any) -> Any:
    """Applies `function` to the tensors of a state, keeping absent ones."""
    return type(state)(*(None if t is None else function(t) for t in state))


@dataclass(frozen=True)
class Layout:
    """How a caller's input was laid out; made by `read`."""

    batched: bool
    batch_first: bool

    def restore(self, output: Tensor) -> Tensor:
        """[T, B, N] -> the caller's layout."""
        if not self.batched:
            return output.squeeze(1)
        return output.transpose(0, 1) if self.batch_first else output

    def check_state(
        self, state: Any, axes: dict[str, str | None], sizes: dict[str, int], like: Tensor
    ) -> None:
        """TypeError or ValueError, naming the field, unless every tensor of a caller's `state` has
        its axes in `axes` (behind the batch) and dtype and device of `like`."""
        for field, value in zip(state._fields, state, strict=True):
            name, expected = f"state.{field}", axes[field]
            if expected is None or value is None:
                if expected is not None or value is not None:
                    wanted, got = ("None", "a tensor") if expected is None else ("a tensor", "None")
                    raise ValueError(f"{name}: expected {wanted}, got {got}")
                continue
            expected = f"B, {expected}" if self.batched else expected
            check.check_like(name, value, "the layer", like)
            shape = [sizes[axis] for axis in expected.split(", ")]
            check.check_shape(name, value, shape, f"[{expected}]")

    def read_state(self, state: Any) -> Any:
        """An unbatched state gets its batch axis."""
        return state if self.batched or state is None else _map(state, lambda t: t.unsqueeze(0))

    def restore_state(self, state: Any) -> Any:
        return state if self.batched else _map(state, lambda t: t.squeeze(0))


def read(x: Tensor, in_features: int, batch_first: bool) -> tuple[Tensor, Layout]:
    """The input as [T, B, N] and its layout.

    Raises TypeError for what is no tensor, ValueError for other than 2 or 3 dimensions or a last
    one that is not `in_features`.
    """
    check.check_tensor("x", x)
    if x.dim() not in (2, 3):
        batched = "[B, T, in_features]" if batch_first else "[T, B, in_features]"
        raise ValueError(
            f"x: expected {batched} or unbatched [T, in_features], got shape {tuple(x.shape)}"
        )
    if x.shape[-1] != in_features:
        raise ValueError(
            f"x: expected a last dimension of in_features = {in_features}, "
            f"got shape {tuple(x.shape)}"
        )
    layout = Layout(batched=x.dim() == 3, batch_first=batch_first)
    if not layout.batched:
        return x.unsqueeze(1), layout
    return (x.transpose(0, 1) if batch_first else x), layout


def time_axis(x: Tensor, batch_first: bool) -> int:
    """Where time goes in the input of a single step, [B, in_features] or [in_features]."""
    check.check_tensor("x", x)
    if x.dim() not in (1, 2):
        raise ValueError(
            f"x: expected [B, in_features] or [in_features], got shape {tuple(x.shape)}"
        )
    return 1 if batch_first and x.dim() == 2 else 0


def check_state_type(state: Any, expected: type) -> None:
    """TypeError unless `state` is None or of the layer's own state type."""
    if state is not None and not isinstance(state, expected):
        raise TypeError(f"state: expected {expected.__name__}, got {type(state).__name__}")
