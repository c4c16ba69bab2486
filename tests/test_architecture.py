"""Imports point one way, linked folders refuse their short names, and importing stays light."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from hetsyn_triton import ops
from hetsyn_triton.ops.dispatch import NUMBA, TRITON, Kernels

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "hetsyn_triton"

# A part may import itself and parts of a lower rank. Parts of equal rank stand side by side.
RANK = {
    "kernels": 0,
    "reference": 0,
    "one_thread": 0,
    "freed_memory": 0,
    "validation": 1,
    "states": 2,
    "surrogates": 2,
    "initializers": 2,
    "timeconstants": 3,
    "ops": 4,
    "functional": 5,
    "modules": 6,
    "optim": 7,
    "graphed_step": 8,
    "__init__": 9,
    "experiments": 10,
    "tasks": 11,
    "training": 11,
    "studies": 11,
    "__main__": 11,
}


def source_files() -> Iterator[tuple[str, Path]]:
    """Every module of the package under its installed dotted name, links not followed."""
    for part in (PACKAGE, "kernels", "reference"):
        for folder, _, files in os.walk(ROOT / part):
            for file in sorted(files):
                if file.endswith(".py"):
                    path = Path(folder, file)
                    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
                    yield (name if part == PACKAGE else f"{PACKAGE}.{name}"), path


def imported_names(name: str, path: Path) -> Iterator[str]:
    """Absolute dotted names a module imports, anywhere in it."""
    package = name.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base += node.module.split(".") if node.module else []
            yield from (".".join([*base, alias.name]) for alias in node.names)


def part_of(dotted: str) -> str:
    """The part of the package a dotted name lies in: the segment after the package's name."""
    segments = dotted.split(".")
    part = segments[1] if len(segments) > 1 else "__init__"
    return part if part in RANK else "__init__"


SOURCES = dict(source_files())


@pytest.mark.parametrize("name", SOURCES)
def test_imports_point_one_way(name: str) -> None:
    part = name.split(".")[1]
    assert part in RANK, f"{part} has no rank: say in this test what it may import"
    for imported in imported_names(name, SOURCES[name]):
        assert imported.split(".")[0] not in ("kernels", "reference"), f"{name}: short name"
        if imported.split(".")[0] == PACKAGE:
            target = part_of(imported)
            assert target == part or RANK[target] < RANK[part], f"{name} imports {imported}"


def test_no_imports_go_in_a_circle() -> None:
    """Late ones and those for type checkers count too. A package's own `__init__` does not."""
    modules = {name for name in SOURCES if not name.endswith(".__init__")}
    graph = {
        name: {one for one in map(module_of, imported_names(name, SOURCES[name])) if one != name}
        for name in modules
    }
    TopologicalSorter({name: found & modules for name, found in graph.items()}).prepare()
    with pytest.raises(CycleError):
        TopologicalSorter({"a": {"b"}, "b": {"a"}}).prepare()


def module_of(dotted: str) -> str:
    """The module that a dotted name is or lies in."""
    return dotted if dotted in SOURCES else dotted.rpartition(".")[0]


def test_the_check_sees_what_it_forbids(tmp_path: Path) -> None:
    """The reader resolves relative, absolute and hidden imports alike."""
    module = tmp_path / "module.py"
    module.write_text(
        "from ..reference import loop\n"
        "import hetsyn_triton.modules.base\n"
        "def late():\n    from . import sibling\n    from .. import HetSynLIF\n"
    )
    names = list(imported_names("hetsyn_triton.kernels.module", module))
    assert names == [
        "hetsyn_triton.reference.loop",
        "hetsyn_triton.modules.base",
        "hetsyn_triton.kernels.sibling",
        "hetsyn_triton.HetSynLIF",
    ]
    assert [part_of(name) for name in names] == ["reference", "modules", "kernels", "__init__"]


# -- one file per operator -------------------------------------------------------------------------

OPERATORS = {
    "synaptic_current",
    "leaky_current",
    "spike_scan",
    "feedforward_scan",
    "recurrent_scan",
    "leaky_recurrent_scan",
    "surrogate",
}


def operator_of(raw: str) -> str:
    """The operator whose forward or backward a raw operator is."""
    if raw == "synaptic_parameter_gradient":
        return "synaptic_current"
    return raw.removesuffix("_backward")


def test_the_operators_are_those_of_the_dispatcher() -> None:
    assert {operator_of(raw) for raw in ops.OPERATORS} == OPERATORS


@pytest.mark.parametrize("operator", sorted(OPERATORS))
def test_an_operator_has_a_file_of_its_name(operator: str) -> None:
    """Definition and reference; a launcher for every raw operator that a device's kernels serve."""
    assert (ROOT / PACKAGE / "ops" / f"{operator}.py").is_file()
    assert (ROOT / "reference" / f"{operator}.py").is_file()
    raws = {raw for raw in ops.OPERATORS if operator_of(raw) == operator}
    for kernels in (NUMBA, TRITON):
        file = ROOT / "kernels" / kernels.folder / f"{operator}.py"
        served = raws & kernels.operators
        assert file.is_file() == bool(served)
        if served:
            assert served <= names_in(file)


@pytest.mark.parametrize("kernels", [NUMBA, TRITON], ids=["cpu", "gpu"])
def test_folders_of_kernels_have_no_other_files(kernels: Kernels) -> None:
    served = {operator_of(raw) for raw in kernels.operators if raw in ops.OPERATORS}
    folder = ROOT / "kernels" / kernels.folder
    found = {path.name for path in folder.iterdir()} - {"__pycache__"}
    assert found == {f"{operator}.py" for operator in served} | {"__init__.py", "lib"}


def names_in(file: Path) -> set[str]:
    """Names a module defines or imports at its top."""
    found: set[str] = set()
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.ImportFrom):
            found |= {alias.asname or alias.name for alias in node.names}
    return found


def fresh(code: str) -> str:
    """What a fresh interpreter prints, started at the root of the checkout."""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_the_package_is_light() -> None:
    extras = ("click", "rich", "matplotlib", "pydantic", "scipy", "sklearn", "soundfile")
    heavy = ("triton", "numba", "h5py", "tonic", *extras)
    loaded = f"print([m for m in {('torch', *heavy)} if m in sys.modules])"
    assert fresh(f"import sys, hetsyn_triton; {loaded}") == "[]"
    # Every public name in use: PyTorch, and nothing that only some users have.
    use = "[getattr(hetsyn_triton, name) for name in hetsyn_triton.__all__]"
    assert fresh(f"import sys, hetsyn_triton; {use}; {loaded}") == "['torch']"


@pytest.mark.parametrize("part", ["kernels", "reference"])
def test_the_short_name_is_refused(part: str) -> None:
    """`try: import kernels` of another project falls back as if nothing were there."""
    code = f"try:\n    import {part}\nexcept ModuleNotFoundError as error:\n    print(error)"
    assert fresh(code) == f"not a top-level package: import {PACKAGE}.{part}"
