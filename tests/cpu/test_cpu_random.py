"""Random cases of every operator on the CPU, forward and backward under autograd.

Results must be within rounding of the loop in float64, with equal spikes. Each case draws sizes,
dtype, strides, threads, and which states and arriving gradients are absent. Where an operator and
its backward are kernels, no bit may depend on the batch or the number of threads.
"""

from dataclasses import dataclass, replace

import pytest
import torch
from hypothesis import HealthCheck, given, seed, settings, strategies as st

from hetsyn_triton.kernels.cpu.lib import threads
from hetsyn_triton.ops.dispatch import _NEEDED, COMPOSED, has_kernel
from tests.support.operators import DIFFERENTIABLE, Size
from tests.support.random_arguments import RAW, Problem, assert_sample_alone, draw
from tests.support.tensors import LAYOUTS, assert_same_bits, poisoned_memory, strided
from tests.support.truth import check_problem

FEATURES = st.one_of(
    st.integers(1, 40), st.sampled_from([1, 8, 16, 31, 32, 33, 48, 63, 64, 65, 127, 128, 129, 150])
)
WORK = 2e6


@dataclass(frozen=True)
class Case:
    """All that a failure needs to happen again: a problem, the strides of its tensors, the number
    of threads, and the sample that is also computed alone."""

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

    def problem(self) -> Problem:
        size = self.size
        width = size.J if "recurrent" in self.operator else size.I
        while size.R * size.T * size.B * size.J * width > WORK and size.R * size.T * size.B > 1:
            size = replace(size, R=1, T=-(-size.T // 2), B=-(-size.B // 2))
        made = draw(self.operator, size, self.seed, self.kind, self.dtype)
        given = dict(made.given)
        present = [n for n, t in given.items() if n.startswith("g_") and t is not None]
        if self.without_first and len(present) > 1:
            given[present[0]] = None
        return replace(made, given=given, detach_reset=self.detach_reset)


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


def check(case: Case) -> None:
    plain, layout = case.problem(), case.layout
    problem = plain if layout is None else plain.changed(lambda t: strided(t, layout))
    before = [t.clone() for t in problem.given.values() if t is not None]
    with pytest.MonkeyPatch.context() as patch, poisoned_memory():
        patch.setattr(threads, "GRAIN", 1)  # the smallest problem is worth a thread
        usual = torch.get_num_threads()
        torch.set_num_threads(case.threads)
        try:
            found = problem.run()
            if all(has_kernel(name, "CPU") for name in _NEEDED[problem.operator]):
                torch.set_num_threads(1)
                assert_same_bits(problem.run(), found)
                if problem.size.B:
                    assert_sample_alone(problem, found, case.sample % problem.size.B)
        finally:
            torch.set_num_threads(usual)
    check_problem(plain, found)
    after = [t for t in problem.given.values() if t is not None]
    assert all(torch.equal(a, b) for a, b in zip(after, before, strict=True))


SETTINGS = settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


@pytest.mark.slow
@pytest.mark.parametrize("operator", DIFFERENTIABLE)
def test_operator(operator: str) -> None:
    settings(SETTINGS, max_examples=30)(given(case=cases(operator))(check))()


@pytest.mark.full
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("operator", DIFFERENTIABLE)
def test_operator_thousands_of_times(operator: str, hunt: int) -> None:
    settings(SETTINGS, max_examples=1000)(seed(hunt)(given(case=cases(operator))(check)))()


def test_all_operators_are_called() -> None:
    """The six differentiable ones call all others but `surrogate`, since ds/dV is given here, and
    `COMPOSED`, which are made of others on a CPU."""
    needed = {name for names in _NEEDED.values() for name in names}
    assert needed == set(RAW) - {"surrogate", *COMPOSED}
    assert set(_NEEDED) == set(DIFFERENTIABLE)
