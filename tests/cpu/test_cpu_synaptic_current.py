"""How the CPU kernels of synapses share their work: spans of time, parts, lanes, silent steps."""

from pathlib import Path
from typing import Any

import pytest
import torch

from hetsyn_triton.kernels.cpu.lib import parameter_gradient
from tests.support.bounds import sparse
from tests.support.implementations import NUMBA
from tests.support.operators import OPERATORS, Size
from tests.support.tensors import narrow, same
from tests.support.truth import check

pytestmark = pytest.mark.usefixtures("poisoned")

PARAMETERS = "synaptic_parameter_gradient"


@pytest.mark.parametrize("steps", [127, 128, 129, 257])
def test_parameter_gradient_in_spans_of_time(steps: int) -> None:
    given = NUMBA.given(PARAMETERS, Size(R=1, T=steps, B=2, I=5, J=17))
    check(PARAMETERS, given, NUMBA(PARAMETERS, given))


@pytest.mark.parametrize("others", [63, 64, 65, 129])
@pytest.mark.parametrize("along_inputs", [True, False])
def test_parameter_gradient_in_parts(others: int, along_inputs: bool) -> None:
    """More features across the lanes than a task takes, either way round."""
    I, J = (16, others) if along_inputs else (others, 16)  # noqa: E741
    given = NUMBA.given(PARAMETERS, Size(R=2, T=5, B=2, I=I, J=J))
    check(PARAMETERS, given, NUMBA(PARAMETERS, given))


@pytest.mark.parametrize("operator", ["synaptic_current", "synaptic_current_backward"])
def test_silence_before_the_first_spike(operator: str) -> None:
    """Steps before a chunk's first number other than zero are passed over: no bit changes."""
    driver, state = ("z", "trace") if operator == "synaptic_current" else ("g", "g_trace")
    for silent in range(10):
        for B in (1, 2):
            given = NUMBA.given(operator, Size(R=1, T=9, B=B, I=70, J=70), seed=silent, analog=True)
            given[state] = None
            steps = given[driver]
            first = steps if driver == "z" else steps.flip(1)
            first[:, :silent, :, 64:] = 0.0
            first[:, : max(0, silent - 3), :, :64] = -0.0
            given[driver] = first if driver == "z" else first.flip(1)
            found = NUMBA(operator, given)
            check(operator, given, found)
            if driver == "z":  # with a trace nothing is passed over
                zeros = torch.zeros(1, B, 70, 70)
                assert same(NUMBA(operator, given | {"trace": zeros}), found)


def test_lanes_along_inputs_or_neurons_give_the_same_numbers() -> None:
    """The choice follows the sizes: pieces that choose otherwise have the bits of the whole."""
    letters = OPERATORS[PARAMETERS].arguments
    for axis, size in (("J", Size(T=9, I=17, J=16)), ("I", Size(T=9, I=16, J=17))):
        given = NUMBA.given(PARAMETERS, size) | {"g_trace": None}
        whole = dict(zip(("d_weight", "d_decay"), NUMBA(PARAMETERS, given), strict=True))
        wanted = narrow({"d_weight": "RJI", "d_decay": "RJI"}, whole, axis, 2, 5)
        found = NUMBA(PARAMETERS, narrow(letters, given, axis, 2, 5))
        assert same(found, tuple(wanted.values()))


def test_the_choice_of_lanes_is_tested(monkeypatch: pytest.MonkeyPatch) -> None:
    """That the sizes above choose differently."""
    chosen: list[bool] = []

    def record(kernel: Any, tasks: int, work: int, *rest: Any) -> None:
        chosen.append(rest[-1])

    monkeypatch.setattr(parameter_gradient, "run", record)
    for I, J in ((17, 16), (17, 5), (16, 17), (5, 17)):  # noqa: E741
        NUMBA(PARAMETERS, NUMBA.given(PARAMETERS, Size(I=I, J=J)))
    assert chosen == [False, True, True, False]


@pytest.mark.full
def test_more_than_two_billion_inputs(tmp_path: Path) -> None:
    """T B I beyond 2^31: the gradient of weights sees the last steps, where the only spikes are."""
    inputs, steps = 64, 2**25 + 8
    z = sparse(steps * inputs, torch.device("cpu"), tmp_path).view(1, steps, 1, inputs)
    g = torch.zeros(1, steps, 1, 1)
    last = (torch.rand(3, inputs, generator=torch.Generator().manual_seed(0)) < 0.5).float()
    z[0, -3:, 0], g[0, -3:] = last, 2.0
    weight, decay = torch.ones(1, 1, inputs), torch.zeros(1, 1, inputs)
    d_weight, _ = NUMBA.find(PARAMETERS)(z, g, None, weight, decay, None)
    assert torch.equal(d_weight.flatten(), 2 * last.sum(0))
