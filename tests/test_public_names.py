"""Public names: imported on first use, with docstrings whose examples run."""

import ast
import doctest
import subprocess
import sys
from importlib import import_module
from inspect import isclass, isfunction
from pathlib import Path
from typing import Any, get_type_hints

import pytest
import torch

import hetsyn_triton
from hetsyn_triton import BackendInfo, functional

STUB = Path(hetsyn_triton.__file__).with_suffix(".pyi")
HOMES = {
    alias.name: node.module
    for node in ast.parse(STUB.read_text(encoding="utf-8")).body
    if isinstance(node, ast.ImportFrom)
    for alias in node.names
}
"""The module of each public name; None for a module itself."""


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


def test_every_name_is_there() -> None:
    package: Any = hetsyn_triton
    assert set(package.__all__) == set(HOMES)
    for name, home in HOMES.items():
        found = import_module(f"hetsyn_triton.{home or name}")
        assert getattr(hetsyn_triton, name) is (getattr(found, name) if home else found)


@pytest.mark.parametrize(
    "path", ["studies", "tasks", "tasks.audio", "tasks.options", "tasks.seeds", "training"]
)
def test_documented_paths_give_what_is_in_experiments(path: str) -> None:
    shown = import_module(f"hetsyn_triton.{path}")
    there = import_module(f"hetsyn_triton.experiments.{path}")
    assert shown.__all__ == there.__all__
    assert all(getattr(shown, name) is getattr(there, name) for name in there.__all__)


NO_EXAMPLE = (Exception, tuple, BackendInfo)
"""Classes that nobody creates: errors, states, and what `backend_info` returns."""
EXAMPLES = {name: getattr(functional, name) for name in functional.__all__} | {
    name: thing
    for name, thing in ((name, getattr(hetsyn_triton, name)) for name in HOMES)
    if isfunction(thing) or (isclass(thing) and not issubclass(thing, NO_EXAMPLE))
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_docstring_has_an_example_that_runs(name: str) -> None:
    given = {**{n: getattr(hetsyn_triton, n) for n in HOMES}, **vars(functional), "torch": torch}
    finder = doctest.DocTestFinder(recurse=False)
    (example,) = finder.find(EXAMPLES[name], name, module=False, globs=given)
    found = doctest.DocTestRunner().run(example)
    assert found.attempted > 0
    assert found.failed == 0


@pytest.mark.parametrize("path", ["training", "studies"])
def test_without_its_extra_training_says_what_to_install(path: str) -> None:
    code = f"""
import sys
sys.modules["pydantic"] = None
try:
    import hetsyn_triton.{path}
except ImportError as error:
    print(error)
"""
    told = "hetsyn_triton.training needs pydantic: run pip install -c constraints.txt -e '.[train]'"
    assert fresh(code).startswith(told)


def test_a_layer_loads_no_experiments() -> None:
    code = "import sys; from hetsyn_triton import HetSynLIF, SpikingNetwork, parameter_groups"
    shown = "print([m for m in sys.modules if m.startswith('hetsyn_triton.experiments')])"
    assert fresh(f"{code}; HetSynLIF(2, 2); {shown}") == "[]"


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
    package: Any = hetsyn_triton
    with pytest.raises(AttributeError, match="HetSynLIFF"):
        package.HetSynLIFF  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'HetSynLIFF'"):
        from hetsyn_triton import HetSynLIFF  # type: ignore[attr-defined]  # noqa: F401


@pytest.mark.parametrize("name", HOMES)
def test_type_hints_resolve(name: str) -> None:
    """Of every public class and function, and of the methods of a class."""
    thing = getattr(hetsyn_triton, name)
    if isclass(thing):
        get_type_hints(thing)
        for method in [m for m in vars(thing).values() if isfunction(m)]:
            get_type_hints(method)
    elif callable(thing):
        get_type_hints(thing)
