"""Where Numba is missing or broken the closed forms serve the CPU, and it says so."""

import subprocess
import sys
from pathlib import Path

import pytest

from hetsyn_triton.ops import OPERATORS

TIMEOUT = 200

MISSING = """
import sys
from importlib.machinery import PathFinder

class Without:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] != "numba":
            return PathFinder.find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Without
"""
BROKEN = 'import sys\nsys.path.insert(0, "{folder}")\n'

LAYERS = """
import warnings
import torch
from hetsyn_triton import HetNeuLIF, HetSynLIF, HetSynReadout
from hetsyn_triton.ops import backend_info
from hetsyn_triton.surrogates import SURROGATES

def run(backend):
    made = []
    for cls, options in ((HetSynLIF, {}), (HetSynLIF, {"recurrent": True}), (HetSynReadout, {}),
                         (HetNeuLIF, {"recurrent": True}),
                         *((HetSynLIF, {"surrogate": made()}) for made in SURROGATES.values())):
        generator = torch.Generator().manual_seed(0)
        layer = cls(6, 5, generator=generator, dtype=torch.float64, backend=backend, **options)
        x = (torch.rand(9, 3, 6, generator=generator) < 0.4).double().requires_grad_()
        output, _ = layer(x)
        made += [output.detach(), *torch.autograd.grad(output.sum(), [x, layer.weight])]
    return made

with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    found = run("auto")
    run("cpu")
for got, want in zip(found, run("reference"), strict=True):
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)
for warning in caught:
    print("warned:", warning.message)
for info in backend_info("cpu").operators:
    print(info.chosen, "|", info.others.get("Numba kernel"))
"""


def ran(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=TIMEOUT
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def broken(folder: Path, body: str) -> str:
    """Code after which `import numba` fails as `body` does."""
    (folder / "numba").mkdir()
    (folder / "numba" / "__init__.py").write_text(body)
    return BROKEN.format(folder=folder)


def test_missing() -> None:
    """No kernel is registered, nothing is warned of, and the reason can be asked for."""
    lines = ran(MISSING + LAYERS + '\nassert "numba" not in sys.modules').splitlines()
    assert len(lines) == len(OPERATORS)
    for line in lines:
        assert line.startswith("closed form (PyTorch) | ")
        assert "Numba" in line or "not installed" in line


def test_broken(tmp_path: Path) -> None:
    """As where a package it needs has an unfit version: one warning, then the closed forms."""
    code = broken(tmp_path, 'raise ImportError("Numba needs NumPy 1.0 or less")')
    warned, *lines = ran(code + LAYERS).splitlines()
    assert "numba cannot be imported: Numba needs NumPy 1.0 or less" in warned
    assert "the closed forms run instead" in warned
    assert len(lines) == len(OPERATORS)
    for line in lines:
        assert line.startswith("closed form (PyTorch) | ")
        assert "Numba needs NumPy" in line or "no Numba kernel" in line


def test_a_library_that_does_not_load(tmp_path: Path) -> None:
    """llvmlite raises OSError where its shared library is missing or made for another machine."""
    code = broken(tmp_path, 'raise OSError("Could not find/load shared object file")')
    assert "Could not find/load shared object file" in ran(code + LAYERS)


@pytest.mark.parametrize("kind", ["missing", "broken"])
def test_hetsyn_info_says_why(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("click")
    code = MISSING if kind == "missing" else broken(tmp_path, 'raise ImportError("unfit")')
    told = ran(
        code
        + "from hetsyn_triton.experiments.cli import main\nsys.argv = ['hetsyn', 'info']\nmain()"
    )
    reason = "not installed" if kind == "missing" else "cannot be imported: unfit"
    assert "Numba kernel not used: the package numba" in " ".join(told.split())
    assert reason in told
    assert "closed form (PyTorch):" in told
