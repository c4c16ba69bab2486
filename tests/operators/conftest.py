"""Runs each contract once for every implementation of its operator, and every size.

Triton's interpreter is slow. Quick runs have its kernels on the first sizes of each contract, and
the second ways to run an operator on one size. The other tests of operators on trial are marked
slow; the other sizes, and the other tests of second ways, full.
"""

from typing import Any

import pytest

from hetsyn_triton.ops import dispatch
from tests.operators.contract import Contract
from tests.support.implementations import IMPLEMENTATIONS, KERNELS, TRITON, Implementation

QUICK_SIZES = 3
"""Of Triton's kernels under the interpreter."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    contract = metafunc.cls
    if contract is None or not issubclass(contract, Contract):
        return
    able = [i for i in IMPLEMENTATIONS if contract.operator in i.operators]
    if "size" in metafunc.fixturenames:
        pairs = [
            param(i, size, name=f"{i.name}-{size}", tier=tier_of(i, contract.operator, number))
            for i in able
            for number, size in enumerate(
                contract.small if i.slow else (*contract.small, *contract.large)
            )
        ]
        metafunc.parametrize(("implementation", "size"), pairs)
        return
    for name, group in (("implementation", IMPLEMENTATIONS), ("kernels", KERNELS)):
        if name in metafunc.fixturenames:
            some = [i for i in group if i in able]
            made = [param(i, name=i.name, tier=tier_of(i, contract.operator)) for i in some]
            metafunc.parametrize(name, made)


def tier_of(
    implementation: Implementation, operator: str, size: int | None = None
) -> tuple[Any, ...]:
    """The mark of a test, or of a size by its number."""
    if not implementation.slow:
        return ()
    if implementation is TRITON:
        quick = operator not in dispatch.TRITON.trial if size is None else size < QUICK_SIZES
        return () if quick else (pytest.mark.slow if size is None else pytest.mark.full,)
    return () if size is not None and size < 1 else (pytest.mark.full,)


def param(*values: Any, name: str, tier: tuple[Any, ...]) -> Any:
    return pytest.param(*values, id=name, marks=tier)


@pytest.fixture(autouse=True)
def _poisoned(poisoned: None) -> None:
    """Every test here runs on `poisoned` memory."""
