"""How many calls of the package's own Python functions a layer makes around its kernels."""

import os
import sys
from collections import Counter
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest
import torch

import hetsyn_triton
from hetsyn_triton import HetSynLIF, kernels, reference

FOLDERS = tuple(
    os.path.join(os.path.dirname(os.path.realpath(str(part.__file__))), "")
    for part in (hetsyn_triton, kernels, reference)
)


def calls_by_file(run: Callable[[], Any]) -> Counter[str]:
    """Calls of Python functions in each file of the package while `run` runs on this thread."""
    found: Counter[str] = Counter()

    def note(frame: FrameType, event: str, argument: Any) -> None:
        if event == "call":
            found[frame.f_code.co_filename] += 1

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        run()
    finally:
        sys.setprofile(before)
    real: Counter[str] = Counter()
    for name, count in found.items():
        path = os.path.realpath(name)
        if path.startswith(FOLDERS):
            real[path] += count
    return real


@pytest.mark.parametrize(
    ("recurrent", "forward", "files", "backward"),
    [(False, 90, 10, 110), (True, 130, 12, 150)],
    ids=["feedforward", "recurrent"],
)
def test_a_pass_makes_few_calls_of_python(
    recurrent: bool, forward: int, files: int, backward: int
) -> None:
    generator = torch.Generator().manual_seed(0)
    layer = HetSynLIF(20, 16, recurrent=recurrent, generator=generator)
    x = (torch.rand(30, 4, 20, generator=generator) < 0.2).float()
    for _ in range(2):  # what is imported, compiled and cached at the first call
        layer(x)[0].sum().backward()
    outputs = []
    made = calls_by_file(lambda: outputs.append(layer(x)[0]))
    assert 20 < made.total() <= forward, made
    assert len(made) <= files, made
    made = calls_by_file(outputs[0].sum().backward)
    assert 20 < made.total() <= backward, made
