"""The distributions hold one package, `hetsyn_triton`, all of it, and work installed elsewhere."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("hetsyn_triton", "kernels", "reference")
LEFT_OUT = shutil.ignore_patterns(
    ".git",
    ".venv*",
    "*.egg-info",
    "__pycache__",
    ".*_cache",
    ".hypothesis",
    "build",
    "dist",
    "runs",
)


def run(*command: str, cwd: Path, **environment: str) -> str:
    """Output of a command; its error text is shown when it fails."""
    done = subprocess.run(
        command, cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def installed_names() -> set[str]:
    """Every module of the three folders, by the path it must have once installed."""
    names = {"hetsyn_triton/py.typed"}
    for part in PARTS:
        prefix = "" if part == "hetsyn_triton" else "hetsyn_triton/"
        for folder, _, files in os.walk(ROOT / part):  # does not follow the two links
            inside = Path(folder).relative_to(ROOT).as_posix()
            names |= {
                f"{prefix}{inside}/{name}" for name in files if name.endswith((".py", ".pyi"))
            }
    return names


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A wheel from the tree, a source distribution, and a wheel from that distribution."""
    work = tmp_path_factory.mktemp("packaging")
    tree = work / "tree"
    shutil.copytree(ROOT, tree, symlinks=True, ignore=LEFT_OUT)
    build = (sys.executable, "-m", "build", "--no-isolation")
    run(*build, "--outdir", str(work / "through_sdist"), cwd=tree)
    run(*build, "--wheel", "--outdir", str(work / "from_tree"), cwd=tree)
    return {
        "sdist": next((work / "through_sdist").glob("*.tar.gz")),
        "wheel through sdist": next((work / "through_sdist").glob("*.whl")),
        "wheel from tree": next((work / "from_tree").glob("*.whl")),
    }


@pytest.mark.parametrize("which", ["wheel from tree", "wheel through sdist"])
def test_the_wheel_holds_one_package_and_all_of_it(built: dict[str, Path], which: str) -> None:
    with zipfile.ZipFile(built[which]) as wheel:
        names = set(wheel.namelist())
    package = {name for name in names if ".dist-info/" not in name}
    assert package == installed_names()
    assert len({name.split("/")[0] for name in names}) == 2  # the package and its dist-info
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_source_distribution_holds_the_whole_house(built: dict[str, Path]) -> None:
    with tarfile.open(built["sdist"]) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    expected = {"README.md", "CHANGELOG.md", "constraints.txt", "pyproject.toml", ".ci/run"}
    expected |= {"bench/README.md", "kernels/README.md", "tests/conftest.py"}
    for folder in ("tests", *PARTS):
        for path in (ROOT / folder).glob("**/*.py"):
            if path.resolve() == path:  # not through a link
                expected.add(path.relative_to(ROOT).as_posix())
    assert expected <= names
    assert not any(name.startswith("hetsyn_triton/kernels") for name in names)


def test_the_citation_names_the_version(built: dict[str, Path]) -> None:
    version = built["wheel from tree"].name.split("-")[1]
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")


def test_the_wheel_works_elsewhere(built: dict[str, Path], tmp_path: Path) -> None:
    site = tmp_path / "site"
    install = (sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--target")
    run(*install, str(site), str(built["wheel through sdist"]), cwd=tmp_path)
    code = (
        "import hetsyn_triton, hetsyn_triton.kernels, hetsyn_triton.reference\n"
        "for module in (hetsyn_triton, hetsyn_triton.kernels, hetsyn_triton.reference):\n"
        "    print(module.__file__)\n"
    )
    places = run(sys.executable, "-c", code, cwd=tmp_path, PYTHONPATH=str(site)).split()
    package = site / "hetsyn_triton"
    assert places == [
        str(folder / "__init__.py")
        for folder in (package, package / "kernels", package / "reference")
    ]


def test_the_root_of_the_checkout_shows_the_same_tree() -> None:
    for part in ("kernels", "reference"):
        code = f"import hetsyn_triton.{part} as part; print(part.__file__)"
        place = run(sys.executable, "-c", code, cwd=ROOT).strip()
        assert Path(place).resolve() == ROOT / part / "__init__.py"


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="only a checkout carries the links")
@pytest.mark.parametrize("part", ["kernels", "reference"])
def test_the_links_are_relative(part: str) -> None:
    assert os.readlink(ROOT / "hetsyn_triton" / part) == f"../{part}"
