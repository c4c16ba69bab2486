"""Runs each contract once for every implementation of its operator, and every size."""

from collections.abc import Iterator

import pytest

from tests.operators.contract import Contract
from tests.support.implementations import IMPLEMENTATIONS, KERNELS
from tests.support.tensors import poisoned_memory


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    contract = metafunc.cls
    if contract is None or not issubclass(contract, Contract):
        return
    able = [i for i in IMPLEMENTATIONS if contract.operator in i.operators]
    if "size" in metafunc.fixturenames:
        pairs = [
            pytest.param(i, size, id=f"{i.name}-{size}")
            for i in able
            for size in (contract.small if i.slow else (*contract.small, *contract.large))
        ]
        metafunc.parametrize(("implementation", "size"), pairs)
        return
    for name, group in (("implementation", IMPLEMENTATIONS), ("kernels", KERNELS)):
        if name in metafunc.fixturenames:
            metafunc.parametrize(name, [pytest.param(i, id=i.name) for i in group if i in able])


@pytest.fixture(autouse=True)
def _poisoned() -> Iterator[None]:
    with poisoned_memory():
        yield
