"""Public names are imported on first use, and look as if they had always been there."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import hetsyn_triton

HOMES = {name: home for home, names in hetsyn_triton._HOMES.items() for name in names}


def fresh(code: str) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize(
    "module", ["hetsyn_triton", "hetsyn_triton.experiments.cli", "hetsyn_triton.experiments.extras"]
)
def test_importing_loads_no_pytorch(module: str) -> None:
    heavy = ("torch", "numpy", "click", "rich")
    code = f"import sys, {module}; print([m for m in {heavy} if m in sys.modules])"
    assert fresh(code) == "[]"


def test_every_name_is_there_for_python_and_for_type_checkers() -> None:
    assert set(hetsyn_triton.__all__) == {*HOMES, "functional"}
    tree = ast.parse(Path(hetsyn_triton.__file__).read_text(encoding="utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    typed = {
        alias.name: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert typed == {**HOMES, "functional": None}
    for name, home in HOMES.items():
        home_module = sys.modules.get(f"hetsyn_triton.{home}") or getattr(hetsyn_triton, home)
        assert getattr(hetsyn_triton, name) is getattr(home_module, name)


def test_in_a_fresh_interpreter() -> None:
    assert fresh("import hetsyn_triton; print(hetsyn_triton.HetSynLIF.__name__)") == "HetSynLIF"
    assert fresh("import hetsyn_triton as h; print(h.functional.__name__)") == (
        "hetsyn_triton.functional"
    )
    assert fresh("import hetsyn_triton as h; print(h.ops.dispatch.BACKENDS[0])") == "auto"
    assert fresh("import hetsyn_triton as h; print(set(h.__all__) <= set(dir(h)))") == "True"
    star = "from hetsyn_triton import *; print(tau_to_decay.__name__, functional.__name__)"
    assert fresh(star) == "tau_to_decay hetsyn_triton.functional"


def test_an_unknown_name() -> None:
    with pytest.raises(AttributeError, match="'hetsyn_triton' has no attribute 'HetSynLIFF'"):
        hetsyn_triton.HetSynLIFF  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'HetSynLIFF'"):
        from hetsyn_triton import HetSynLIFF  # noqa: F401
