"""The table of tests.mutants fits the sources, and ten of its mutants are noticed.

A file of its own: the table has to follow every change of a line that it breaks.
"""

import shlex
from pathlib import Path

import pytest

from tests.mutants import LIBRARY, MUTANTS, QUICK, ROOT, Mutant, copy_of_checkout, survives


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_breaks_one_place(mutant: Mutant) -> None:
    text = (ROOT / LIBRARY / mutant.file).read_text(encoding="utf-8")
    assert text.count(mutant.right) == 1, "change the mutant as its line has changed"
    assert mutant.wrong != mutant.right
    files = [word for word in shlex.split(mutant.tests) if word.startswith("tests/")]
    assert files
    assert all((ROOT / file).is_file() for file in files)


def test_names_are_unique() -> None:
    names = [mutant.name for mutant in MUTANTS]
    assert len(set(names)) == len(names)
    assert set(QUICK) <= set(names)
    assert len(QUICK) == 10


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_of_checkout(tmp_path_factory.mktemp("checkout"))


@pytest.mark.full
@pytest.mark.parametrize("name", QUICK)
def test_a_mutant_is_noticed(name: str, checkout: Path) -> None:
    (mutant,) = [mutant for mutant in MUTANTS if mutant.name == name]
    assert not survives(mutant, checkout)
