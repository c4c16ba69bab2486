"""What a masked lane holds is never used: a load without `other` may leave anything there.

The compiler of today zeroes such lanes, as the interpreter does; neither promises it. Here the
interpreter leaves NaN, and nothing may change.
"""

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from hetsyn_triton.ops.dispatch import TRITON
from tests.support.operators import Size
from tests.support.random_arguments import raw_arguments

pytestmark = pytest.mark.skipif(
    os.environ.get("TRITON_INTERPRET") != "1", reason="needs Triton's interpreter"
)


def poisoning(create: Callable[..., Any]) -> Callable[..., Any]:
    def masked_load(builder: Any, ptrs: Any, mask: Any, other: Any, *rest: Any) -> Any:
        loaded = create(builder, ptrs, mask, other, *rest)
        if other is None and np.issubdtype(loaded.data.dtype, np.floating):
            loaded.data = np.where(mask.data, loaded.data, np.nan).astype(loaded.data.dtype)
        return loaded

    return masked_load


@pytest.mark.parametrize("optional", [True, False], ids=["all given", "none given"])
@pytest.mark.parametrize("name", sorted(TRITON.operators))
def test_masked_lanes_hold_anything(
    name: str, optional: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from triton.runtime.interpreter import InterpreterBuilder

    kernel = TRITON.launcher(name)
    given = raw_arguments(name, Size(R=1, T=3, B=1, I=21, J=20, K=2), optional)
    given = tuple(a.float() if isinstance(a, Tensor) else a for a in given)
    expected = kernel(*given)
    create = InterpreterBuilder.create_masked_load
    monkeypatch.setattr(InterpreterBuilder, "create_masked_load", poisoning(create))
    for got, want in zip(kernel(*given), expected, strict=True):
        assert torch.isfinite(got).all()
        assert torch.equal(got, want)
