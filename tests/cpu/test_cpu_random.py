"""Random cases of every operator under autograd on the CPU, forward and backward, whatever serves
them: within rounding of the closed forms in float64, teacher-forced where there are spikes.

Drawn: sizes, states and arriving gradients that are there or not, dtype, strides, threads. Where an
operator and its backward are kernels, no bit may depend on the batch or the number of threads.
"""

from dataclasses import dataclass, replace

import pytest
import torch
from hypothesis import HealthCheck, given, seed, settings, strategies as st

from hetsyn_triton.kernels.cpu.lib import threads
from hetsyn_triton.ops.dispatch import _NEEDED, has_kernel
from tests.support import gate_checks as gate
from tests.support.operators import Size
from tests.support.problems import RAW
from tests.support.tensors import LAYOUTS, poisoned_memory, strided
from tests.support.truth import Named

FEATURES = st.one_of(
    st.integers(1, 40), st.sampled_from([1, 8, 16, 31, 32, 33, 48, 63, 64, 65, 127, 128, 129, 150])
)
WORK = 2e6


@dataclass(frozen=True)
class Case:
    """A problem, how its tensors lie, how many threads run it, and which sample is looked at alone:
    all it takes to see it again."""

    operator: str
    size: Size
    dtype: torch.dtype
    seed: int
    kind: int
    without_first: bool
    detach_reset: bool
    layout: str | None
    threads: int
    sample: int

    def problem(self) -> gate.Problem:
        size = self.size
        width = size.J if "recurrent" in self.operator else size.I
        while size.R * size.T * size.B * size.J * width > WORK and size.R * size.T * size.B > 1:
            size = replace(size, R=1, T=-(-size.T // 2), B=-(-size.B // 2))
        made = gate.make(self.operator, size, self.seed, self.kind, self.dtype)
        g = dict(made.g)
        present = [n for n, t in g.items() if t is not None]
        if self.without_first and len(present) > 1:
            g[present[0]] = None
        return replace(made, g=g, detach_reset=self.detach_reset)


def cases(operator: str) -> st.SearchStrategy[Case]:
    sizes = st.builds(
        Size,
        R=st.integers(1, 3),
        T=st.one_of(st.integers(0, 12), st.integers(13, 140)),
        B=st.integers(0, 9),
        I=FEATURES,
        J=FEATURES,
        K=st.integers(0, 3),
    )
    return st.builds(
        Case,
        st.just(operator),
        sizes,
        st.sampled_from([torch.float32, torch.float64]),
        seed=st.integers(0, 2**31),
        kind=st.integers(0, 99),
        without_first=st.booleans(),
        detach_reset=st.booleans(),
        layout=st.sampled_from([None, *LAYOUTS[:2]]),
        threads=st.integers(1, 5),
        sample=st.integers(0, 8),
    )


def laid(problem: gate.Problem, layout: str | None) -> gate.Problem:
    """Under other strides."""
    if layout is None:
        return problem

    def moved(named: Named) -> Named:
        return {n: None if t is None else strided(t, layout) for n, t in named.items()}

    return replace(problem, arguments=moved(problem.arguments), g=moved(problem.g))


def check(case: Case) -> None:
    plain = case.problem()
    problem = laid(plain, case.layout)
    before = [t.clone() for t in problem.arguments.values() if t is not None]
    with pytest.MonkeyPatch.context() as patch, poisoned_memory():
        patch.setattr(threads, "GRAIN", 1)  # the smallest problem is worth a thread
        usual = torch.get_num_threads()
        torch.set_num_threads(case.threads)
        try:
            found = gate.run(problem)
            if all(has_kernel(name, "CPU") for name in _NEEDED[problem.operator]):
                torch.set_num_threads(1)
                gate.assert_same_bits(gate.run(problem), found)
                if problem.size.B:
                    sample = case.sample % problem.size.B
                    gate.assert_sample_alone(problem, found, sample)
        finally:
            torch.set_num_threads(usual)
    gate.assert_right(plain, found)
    after = [t for t in problem.arguments.values() if t is not None]
    assert all(torch.equal(a, b) for a, b in zip(after, before, strict=True))


SETTINGS = settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


@pytest.mark.slow
@pytest.mark.parametrize("operator", gate.OUTPUTS)
def test_operator(operator: str) -> None:
    settings(SETTINGS, max_examples=30)(given(case=cases(operator))(check))()


@pytest.mark.full
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("operator", gate.OUTPUTS)
def test_operator_thousands_of_times(operator: str, hunt: int) -> None:
    settings(SETTINGS, max_examples=1000)(seed(hunt)(given(case=cases(operator))(check)))()


def test_all_operators_are_called() -> None:
    """The six that are differentiated call all but `surrogate`: here ds/dV is given."""
    needed = {name for names in _NEEDED.values() for name in names}
    assert needed == set(RAW) - {"surrogate"}
    assert set(_NEEDED) == set(gate.OUTPUTS)
