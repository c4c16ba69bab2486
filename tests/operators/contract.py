"""What holds for every operator, whatever computes it: closed form, Numba, Triton, a GPU.

A file of this folder derives one class for each operator of its name. conftest.py runs a test that
takes an `implementation` with each of them, and one that takes `kernels` with those that promise
equal bits, which closed forms do not. A test of one operator stands in its file, a test of one
device, such as threads or launches, in tests/cpu or tests/gpu.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from tests.support.implementations import Implementation
from tests.support.operators import OPERATORS, Operator, Size
from tests.support.random_arguments import draw
from tests.support.tensors import LAYOUTS, Named, narrow, same, strided
from tests.support.truth import check, check_problem


def present(given: Named) -> dict[str, Tensor]:
    return {name: t for name, t in given.items() if t is not None}


@contextmanager
def untouched(given: Named) -> Iterator[None]:
    """No argument is written to."""
    before = {name: t.clone() for name, t in present(given).items()}
    yield
    for name, t in before.items():
        assert torch.equal(given[name].nan_to_num(), t.nan_to_num()), f"{name} was written to"


class Contract:
    """One operator: its name, and sizes. `large` ones are too slow for Triton's interpreter."""

    operator: ClassVar[str]
    small: ClassVar[tuple[Size, ...]]
    large: ClassVar[tuple[Size, ...]]
    usual: ClassVar[Size] = Size(R=2, T=5, B=3, I=7, J=6, K=2)
    blocks: ClassVar[Size] = Size(R=2, T=19, B=3, I=75, J=37, K=2)
    """Several blocks of inputs and neurons, and of steps."""
    tiny: ClassVar[Size] = Size(R=2, T=4, B=2, I=7, J=6, K=2)
    """For the interpreter."""

    @property
    def table(self) -> Operator:
        return OPERATORS[self.operator]

    def given(
        self, implementation: Implementation, size: Size, *rest: Any, **options: Any
    ) -> Named:
        return implementation.given(self.operator, size, *rest, **options)

    def run(
        self, implementation: Implementation, given: Named, detach_reset: bool = False
    ) -> tuple[Tensor, ...]:
        """The results, each in memory of its own; no argument changes."""
        with untouched(given):
            found = implementation(self.operator, given, detach_reset)
        memory = {t.data_ptr() for t in (*found, *present(given).values()) if t.numel()}
        assert len(memory) == sum(t.numel() > 0 for t in (*found, *present(given).values()))
        return found

    def named(self, kernels: Implementation, given: Named) -> dict[str, Tensor]:
        """`run`, the results by name."""
        return dict(zip(self.table.results, self.run(kernels, given), strict=True))

    def test_within_rounding(self, implementation: Implementation, size: Size) -> None:
        """With states and without, of spikes and of analog numbers, in every dtype."""
        for dtype in implementation.dtypes:
            for states in (True, False):
                given = self.given(implementation, size, dtype, states=states, analog=states)
                if not states:  # as in training: nothing arrives at the final states
                    given |= dict.fromkeys(n for n in self.table.optional if n != "g_spikes")
                detach = self.table.detachable and not states
                found = self.run(implementation, given, detach)
                check(self.operator, given, found, detach)
                if self.table.spiking and found[0].numel() > 100:
                    assert 0 < found[0].mean() < 1, "neurons all silent, or all firing"

    @pytest.mark.parametrize("axis", "RTBIJ")
    def test_empty(self, implementation: Implementation, axis: str) -> None:
        """No step leaves states as they were; nothing to sum is zero."""
        size = replace(self.usual, **{axis: 0})
        for dtype in implementation.dtypes:
            given = self.given(implementation, size, dtype)
            found = self.run(implementation, given)
            letters = self.table.results
            for t, name in zip(found, letters, strict=True):
                assert t.shape == size.shape(letters[name])
            check(self.operator, given, found)
            if axis == "T":
                for t, name in zip(found, letters, strict=True):
                    before = given.get(name.replace("d_", "g_", 1))
                    if before is not None and "T" not in letters[name]:
                        assert torch.equal(t, before)

    def test_strides(self, kernels: Implementation) -> None:
        given = self.given(kernels, self.tiny if kernels.slow else self.blocks)
        wanted = self.run(kernels, given)
        for layout in LAYOUTS[:2] if kernels.slow else LAYOUTS:
            moved = {name: strided(t, layout) for name, t in present(given).items()}
            assert same(self.run(kernels, moved), wanted), layout
        for name, t in ({} if kernels.slow else present(given)).items():
            moved = given | {name: strided(t, LAYOUTS[0])}
            assert same(self.run(kernels, moved), wanted), f"the strides of {name} alone"

    def test_again(self, kernels: Implementation) -> None:
        given = self.given(kernels, self.tiny if kernels.slow else self.blocks)
        assert same(self.run(kernels, given), self.run(kernels, given))

    def test_autocast_rounds_nothing(self, implementation: Implementation) -> None:
        """Autocast sees PyTorch's operations; Triton's kernels have none."""
        if implementation.slow:
            pytest.skip("the interpreter takes long")
        given = self.given(implementation, self.tiny)
        wanted = self.run(implementation, given)
        with torch.autocast(implementation.device.type, torch.bfloat16):
            assert same(self.run(implementation, given), wanted)

    @pytest.mark.parametrize("axis", "RB")
    def test_a_part_is_the_same_alone(self, kernels: Implementation, axis: str) -> None:
        """Samples and replicas do not see each other: not one bit changes."""
        size = replace(self.blocks, R=3, B=5)
        if kernels.slow:
            size = replace(self.tiny, R=3 if axis == "R" else 1, B=3 if axis == "B" else 1)
        for dtype in kernels.dtypes:
            given = self.given(kernels, size, dtype)
            results = self.named(kernels, given)
            for start, length in ((0, 1), (1, 2)):
                part = narrow(self.table.arguments, given, axis, start, length)
                wanted = narrow(self.table.results, results, axis, start, length)
                found = self.run(kernels, part)
                for t, (name, want) in zip(found, wanted.items(), strict=True):
                    if axis in self.table.results[name]:  # else summed over samples
                        assert torch.equal(t, want), name

    def test_what_is_not_finite_stays_in_its_sample(self, kernels: Implementation) -> None:
        given = self.given(kernels, replace(self.usual, R=1))
        results = self.named(kernels, given)
        name = next(n for n, letters in self.table.arguments.items() if letters.startswith("RTB"))
        given[name][:, 2, 1, 3] = torch.nan
        found = self.named(kernels, given)
        for b in (0, 2):
            clean, still = (
                narrow(self.table.results, named, "B", b, 1) for named in (results, found)
            )
            for result, letters in self.table.results.items():
                if "B" in letters:
                    assert torch.equal(still[result].nan_to_num(), clean[result].nan_to_num()), (
                        result
                    )
        assert any(t.isnan().any() for t in found.values())
        if self.table.spiking:
            assert not found["spikes"][found["potential"].isnan()].any(), "NaN is no spike"


class Forward(Contract):
    """An operator that computes a sequence from its initial states. `pieces` is the size that the
    interpreter cuts in two."""

    pieces: ClassVar[Size] = Size(R=1, T=9, B=2, I=7, J=6, K=2)

    def test_what_is_not_finite_leaves_earlier_steps_alone(self, kernels: Implementation) -> None:
        given = self.given(kernels, self.usual)
        before = self.run(kernels, given)
        given[next(iter(given))][:, 2, 1, 3] = torch.nan
        for found, want, letters in zip(
            self.run(kernels, given), before, self.table.results.values(), strict=True
        ):
            assert "T" not in letters or torch.equal(found[:, :2], want[:, :2])

    def test_states_decay_in_silence(self, implementation: Implementation) -> None:
        """Steps without input are not passed over while an initial state decays."""
        given = self.given(implementation, self.tiny)
        given[next(iter(given))][:, : self.tiny.T // 2] = 0.0
        check(self.operator, given, self.run(implementation, given))

    @pytest.mark.parametrize("detach_reset", [False, True], ids=["", "detached reset"])
    def test_under_autograd(self, detach_reset: bool) -> None:
        """Outputs and all gradients of the differentiable operator, as a CPU computes it."""
        if detach_reset and not self.table.spiking:
            pytest.skip("has no reset")
        for dtype in (torch.float32, torch.float64):
            problem = draw(self.operator, self.usual, 3, dtype=dtype)
            problem = replace(problem, detach_reset=detach_reset)
            check_problem(problem, problem.run())

    def test_in_pieces(self, kernels: Implementation) -> None:
        """The final states of one piece start the next: not one bit changes, wherever it is cut."""
        letters = self.table.arguments
        size = self.pieces if kernels.slow else self.blocks
        for dtype in kernels.dtypes:
            given = self.given(kernels, size, dtype)
            whole = self.named(kernels, given)
            T = size.T
            for at in (0, T // 2) if kernels.slow else (0, 1, 4, 8, 16, T):
                first = narrow(letters, given, "T", 0, at)
                early = self.named(kernels, first)
                second = narrow(letters, given, "T", at, T - at)
                second |= self.carried(early, at)
                late = self.named(kernels, second)
                for name, want in whole.items():
                    over_time = "T" in self.table.results[name]
                    found = torch.cat([early[name], late[name]], 1) if over_time else late[name]
                    assert torch.equal(found, want), (name, at)

    def carried(self, results: Named, steps: int) -> Named:
        """The states after `steps` steps by the argument's name."""
        found: Named = {n: results[n] for n in ("trace", "feedback") if n in results}
        if steps:
            last = {"spike": "spikes", "current": "currents"}
            found |= {n: results[r][:, -1] for n, r in last.items() if r in results}
        return found


class Spiking(Forward):
    """A forward operator with a threshold."""

    def test_threshold_is_strict(self, implementation: Implementation) -> None:
        """A potential equal to the threshold is no spike, the next larger number is one."""
        size = Size(R=1, T=1, B=1, I=1, J=17, K=1)
        given = {
            n: torch.zeros_like(t) for n, t in present(self.given(implementation, size)).items()
        }
        driver = next(iter(given))
        given["threshold"] += 1.0
        if driver == "z":
            given["weight"] += 1.0
        for value, spike in ((1.0, 0.0), (1.0 + 2**-23, 1.0)):
            spikes, potential, *_ = self.run(
                implementation, given | {driver: torch.full_like(given[driver], value)}
            )
            assert bool((potential == value).all())
            assert bool((spikes == spike).all())


class Backward(Contract):
    """The gradients of one forward operator."""

    def test_every_gradient_may_be_absent(self, implementation: Implementation) -> None:
        """Each alone, all but one, none; with the gradient through the reset and without."""
        names = [n for n in self.table.optional if n.startswith("g_")]
        for dtype in implementation.dtypes:
            given = self.given(
                implementation, self.tiny if implementation.slow else self.usual, dtype
            )
            alone = ([name] for name in names)
            but_one = ([n for n in names if n != name] for name in names)
            for number, absent in enumerate((names, *alone, *but_one)):
                some = given | dict.fromkeys(absent)
                for detach in (False, True) if self.table.detachable else (False,):
                    if not implementation.slow or detach == number % 2:
                        found = self.run(implementation, some, detach)
                        check(self.operator, some, found, detach)

    def test_a_gradient_without_strides(self, kernels: Implementation) -> None:
        """The gradient of a plain sum: one number, seen everywhere."""
        given = self.given(kernels, self.tiny if kernels.slow else self.blocks)
        for name in [n for n in self.table.arguments if n == "g" or n.startswith("g_")]:
            one = torch.ones((), device=given[name].device).expand(given[name].shape)
            wanted = self.run(kernels, given | {name: one.contiguous()})
            assert same(kernels(self.operator, given | {name: one}), wanted), name


class SpikingBackward(Backward):
    """The gradients of an operator with a threshold."""

    def test_no_gradient_at_all(self, implementation: Implementation) -> None:
        given = self.given(implementation, self.tiny) | dict.fromkeys(self.table.optional)
        assert not any(t.any() for t in self.run(implementation, given))

    def test_detached_reset(self, implementation: Implementation) -> None:
        """The gradient does not go through the feedback currents to the spikes that drive them."""
        given = self.given(implementation, self.tiny)
        through, detached = (self.run(implementation, given, detach) for detach in (False, True))
        assert not torch.equal(through[0], detached[0])
        check(self.operator, given, detached, detach_reset=True)


class BackwardInPieces(SpikingBackward):
    """A backward whose gradients of states are all that the piece before it needs."""

    pieces: ClassVar[Size] = Size(R=1, T=9, B=2, I=7, J=6, K=2)

    def test_in_pieces(self, kernels: Implementation) -> None:
        letters = self.table.arguments
        size = self.pieces if kernels.slow else self.blocks
        for dtype in kernels.dtypes:
            given = self.given(kernels, size, dtype)
            whole = self.named(kernels, given)
            T = size.T
            for at in (T // 2,) if kernels.slow else (1, 4, 8, 16, T - 1):
                second = narrow(letters, given, "T", at, T - at)
                first = narrow(letters, given, "T", 0, at)
                second["spike"] = first["spikes"][:, -1]
                late = self.named(kernels, second)
                first["g_spikes"] = first["g_spikes"].clone()
                first["g_spikes"][:, -1] += late["d_spike"]
                for state in ("feedback", "trace"):
                    if f"g_{state}" in first:
                        first[f"g_{state}"] = late[f"d_{state}"]
                early = self.named(kernels, first)
                for name, letter in self.table.results.items():
                    if "T" in letter:
                        assert torch.equal(torch.cat([early[name], late[name]], 1), whole[name])
                    elif "B" in letter:
                        assert torch.equal(early[name], whole[name]), name
