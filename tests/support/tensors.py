"""What tests do to tensors: other strides, pieces, comparison bit by bit, poisoned memory."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

Named = dict[str, Any]
"""Tensors by name. None, or not there, where an optional one is absent."""

LAYOUTS = ("reversed", "gaps", "offset")


def strided(tensor: Tensor, kind: str) -> Tensor:
    """The same values under other strides, NaN in between: dimensions reversed in memory, with
    gaps, or off the alignment."""
    if kind == "reversed":
        axes = tuple(reversed(range(tensor.ndim)))
        return tensor.permute(axes).contiguous().permute(axes)
    if kind == "gaps":
        wide = torch.full((*tensor.shape[:-1], 2 * tensor.shape[-1] + 1), torch.nan).to(tensor)
        return wide[..., 1::2].copy_(tensor)
    long = torch.full((tensor.numel() + 1,), torch.nan).to(tensor)
    return long[1:].view(tensor.shape).copy_(tensor)


def narrow(letters: Mapping[str, str], given: Named, axis: str, start: int, length: int) -> Named:
    """A piece of every tensor that has the axis, a letter."""
    return {
        name: t
        if t is None or axis not in letters[name]
        else t.narrow(letters[name].index(axis), start, length)
        for name, t in given.items()
    }


def total(tensors: Iterable[Tensor]) -> Tensor:
    """The sum of at least one tensor."""
    found = sum(tensors)
    assert isinstance(found, Tensor)
    return found


def same(one: Sequence[Tensor], other: Sequence[Tensor]) -> bool:
    """Bit by bit, but for the sign of a zero."""
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def assert_same_bits(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """`same` of tensors by name, on any device."""
    assert found.keys() == expected.keys()
    for name, t in expected.items():
        assert torch.equal(found[name].cpu(), t.cpu()), name


@contextmanager
def poisoned_memory() -> Iterator[None]:
    """Memory that a launcher allocates and does not write shows as NaN."""

    def poisoning(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def filled(*arguments: Any, **options: Any) -> Tensor:
            made = make(*arguments, **options)
            real = made.is_floating_point() and not made.is_meta
            return made.fill_(torch.nan) if real else made

        return filled

    with pytest.MonkeyPatch.context() as patch:
        for owner, name in ((torch, "empty"), (torch, "empty_like"), (Tensor, "new_empty")):
            patch.setattr(owner, name, poisoning(getattr(owner, name)))
        yield
