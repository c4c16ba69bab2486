"""How samples of the recurrent CPU kernels share a pass over w and r."""

from collections.abc import Callable

import pytest
import torch

from hetsyn_triton.kernels.cpu import recurrent_scan as module
from hetsyn_triton.reference.lib.steps import previous_steps
from tests.support.implementations import NUMBA
from tests.support.operators import OPERATORS, Size
from tests.support.tensors import narrow, same

pytestmark = pytest.mark.usefixtures("poisoned")


@pytest.mark.parametrize("dtype", NUMBA.dtypes, ids=str)
@pytest.mark.parametrize("neurons", [7, 80])
@pytest.mark.parametrize("operator", ["recurrent_scan", "recurrent_scan_backward"])
def test_a_sample_does_not_see_its_group(
    operator: str, neurons: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not of which size it is, nor the place in it."""
    table = OPERATORS[operator]
    given = NUMBA.given(operator, Size(R=2, T=5, B=7, J=neurons), dtype)
    whole = dict(zip(table.results, NUMBA(operator, given), strict=True))
    for group in (1, 2, 4):
        monkeypatch.setattr(module, "group_size", lambda *_, group=group: group)
        assert same(NUMBA(operator, given), tuple(whole.values()))
        for start, length in ((0, 1), (1, 6), (2, 3), (5, 2)):
            found = NUMBA(operator, narrow(table.arguments, given, "B", start, length))
            wanted = narrow(table.results, whole, "B", start, length)
            for got, (name, want) in zip(found, wanted.items(), strict=True):
                assert "B" not in table.results[name] or torch.equal(got, want), name


def test_traces_are_those_of_the_synaptic_current() -> None:
    """Driven by s(t-1): its parameter gradient then sees the same numbers as the scan."""
    given = NUMBA.given("recurrent_scan", Size(R=2, T=30, B=3, J=37, K=1))
    spikes, *_, trace = NUMBA("recurrent_scan", given)
    synapses = {name: given[name] for name in ("weight", "decay", "trace")}
    current = NUMBA("synaptic_current", synapses | {"z": previous_steps(spikes, given["spike"])})
    assert torch.equal(current[1], trace)


@pytest.mark.parametrize("threads", [1, 2, 5, 100])
@pytest.mark.parametrize("batch", range(12))
def test_groups_hold_every_sample_once(
    batch: int, threads: int, on_threads: Callable[[int], None]
) -> None:
    on_threads(threads)
    for replicas in (1, 3):
        size = module.group_size(replicas, batch)
        groups = [
            module.group.py_func(number, batch, size)
            for number in range(module.groups_of(batch, size))
        ]
        assert {n for _, n in groups} <= {1, 2, 4}
        samples = [first + k for first, n in groups for k in range(n)]
        assert samples == list(range(batch))
        assert replicas * len(groups) >= min(threads, replicas * batch)
