"""Runs each contract once for every implementation of its operator, and every size.

Triton's interpreter is slow. Quick runs have its kernels on the first sizes of each contract, and
the second ways to run an operator on fewer; the rest is marked slow.
"""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.operators.contract import Contract
from tests.support.implementations import IMPLEMENTATIONS, KERNELS, TRITON, Implementation
from tests.support.tensors import poisoned_memory

QUICK_SIZES = 4
"""Of Triton's kernels under the interpreter; of second ways to run an operator, half as many."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    contract = metafunc.cls
    if contract is None or not issubclass(contract, Contract):
        return
    able = [i for i in IMPLEMENTATIONS if contract.operator in i.operators]
    if "size" in metafunc.fixturenames:
        pairs = [
            param(i, size, name=f"{i.name}-{size}", slow=i.slow and number >= quick_sizes(i))
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
            made = [param(i, name=i.name, slow=i.slow and i is not TRITON) for i in some]
            metafunc.parametrize(name, made)


def quick_sizes(implementation: Implementation) -> int:
    return QUICK_SIZES if implementation is TRITON else QUICK_SIZES // 2


def param(*values: Any, name: str, slow: bool) -> Any:
    return pytest.param(*values, id=name, marks=pytest.mark.slow if slow else ())


@pytest.fixture(autouse=True)
def _poisoned() -> Iterator[None]:
    with poisoned_memory():
        yield
