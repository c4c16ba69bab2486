"""How the recurrent Triton kernels are launched, and their strides beyond 32 bits."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from hetsyn_triton.kernels.gpu.lib.launch import recording
from tests.support.bounds import sparse
from tests.support.implementations import TRITON, TRITON_BY_STEPS, Implementation
from tests.support.operators import OPERATORS, Size
from tests.support.tensors import same

pytestmark = pytest.mark.usefixtures("poisoned")

FAR = {
    "recurrent_scan": ("current",),
    "recurrent_scan_backward": ("derivative", "g_spikes", "g_potential"),
}


@pytest.mark.parametrize("kernels", [TRITON, TRITON_BY_STEPS], ids=lambda k: k.name)
def test_strides_beyond_32_bits(
    kernels: Implementation, device: torch.device, tmp_path: Path
) -> None:
    stride = 2**31 + 4
    memory = sparse(2 * stride + 8, device, tmp_path)
    far = memory.as_strided((1, 3, 1, 5), (8, stride, 8, 1))
    for operator, names in FAR.items():
        given = kernels.given(operator, Size(R=1, T=3, B=1, J=5, K=1))
        wanted = kernels(operator, given)
        for name in names:
            moved = given | {name: far.copy_(given[name])}
            assert same(kernels(operator, moved), wanted), name


def test_what_is_launched() -> None:
    """One launch for a sequence, as many as steps above 1024 neurons."""
    meta = replace(TRITON, device=torch.device("meta"))
    for neurons, programs in ((100, 1), (300, 10), (1025, 0)):
        size = Size(R=1, T=3, B=50, J=1, K=1)
        given = meta.given("recurrent_scan", size)
        wide = replace(size, J=neurons)
        for name, letters in OPERATORS["recurrent_scan"].arguments.items():
            given[name] = torch.empty(wide.shape(letters), device="meta")
        with recording() as calls:
            meta("recurrent_scan", given)
        if programs:
            (call,) = calls
            assert call.constants["PROGRAMS"] == programs
            assert call.grid == (programs * (50 if programs == 1 else 132 // programs),)
            assert call.options == ({"launch_cooperative_grid": True} if programs > 1 else {})
        else:
            assert len(calls) == 3
