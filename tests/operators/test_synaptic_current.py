"""The contract of the synaptic current, its backward and its parameter gradient."""

from typing import ClassVar

import pytest
import torch

from tests.operators.contract import Backward, Contract, Forward
from tests.support.implementations import Implementation
from tests.support.operators import Size
from tests.support.tensors import same

SMALL = (
    Size(R=1, T=1, B=1, I=1, J=1),
    Size(R=3, T=5, B=2, I=17, J=2),
    Size(R=2, T=3, B=1, I=61, J=67),
    Size(R=1, T=9, B=1, I=203, J=7),
    Size(R=1, T=4, B=2, I=4, J=33),
    Size(R=1, T=7, B=3, I=3, J=5),
    Size(R=1, T=3, B=1, I=131, J=131),
)
LARGE = (
    Size(R=2, T=9, B=9, I=67, J=5),
    Size(R=1, T=8, B=1, I=64, J=16),
    Size(R=1, T=4, B=3, I=63, J=15),
    Size(R=3, T=3, B=3, I=65, J=33),
    Size(R=1, T=6, B=2, I=16, J=130),
    Size(R=1, T=3, B=1, I=129, J=127),
    Size(R=1, T=6, B=1, I=700, J=1),
    Size(R=1, T=5, B=3, I=1, J=128),
    Size(R=1, T=3, B=2, I=300, J=70),
    Size(R=1, T=250, B=3, I=37, J=19),
)


class Synapses(Contract):
    small: ClassVar[tuple[Size, ...]] = SMALL
    large = LARGE

    def one_synapse(
        self, implementation: Implementation, j: int, i: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Results for z = 2 of input i at step 1, g = 2 of neuron j at step 4, w = 3 and r = 0.5 of
        the synapse between them, all else zero; replica 1, sample 2."""
        size = Size(R=2, T=6, B=3, I=83, J=37)
        shapes = {n: size.shape(letters) for n, letters in self.table.arguments.items()}
        given = {n: torch.zeros(shape, device=implementation.device) for n, shape in shapes.items()}
        given["weight"][1, j, i], given["decay"][1, j, i] = 3.0, 0.5
        if "z" in given:
            given["z"][1, 1, 2, i] = 2.0
        if "g" in given:
            given["g"][1, 4, 2, j] = 2.0
        first, second = self.run(implementation, given)
        return first.cpu(), second.cpu()


PLACES = pytest.mark.parametrize(("j", "i"), [(0, 0), (16, 64), (36, 82)])


class TestForward(Synapses, Forward):
    operator = "synaptic_current"
    pieces = Size(R=1, T=9, B=2, I=75, J=37)

    def test_an_input_without_a_stride_over_time(self, kernels: Implementation) -> None:
        given = self.given(kernels, self.usual)
        one = given["z"][:, :1].expand(-1, self.usual.T, -1, -1)
        wanted = self.run(kernels, given | {"z": one.contiguous()})
        assert same(kernels(self.operator, given | {"z": one}), wanted)

    @PLACES
    def test_an_input_arrives_where_it_belongs(
        self, implementation: Implementation, j: int, i: int
    ) -> None:
        current, trace = self.one_synapse(implementation, j, i)
        assert current.count_nonzero() == 5
        assert torch.equal(current[1, 1:, 2, j], 6 * 0.5 ** torch.arange(5.0))
        assert trace.nonzero().tolist() == [[1, 2, j, i]]
        assert trace[1, 2, j, i] == 2 * 0.5**4


class TestBackward(Synapses, Backward):
    operator = "synaptic_current_backward"

    @PLACES
    def test_a_gradient_arrives_where_it_belongs(
        self, implementation: Implementation, j: int, i: int
    ) -> None:
        d_z, d_trace = self.one_synapse(implementation, j, i)
        assert d_z.count_nonzero() == 5
        assert torch.equal(d_z[1, :5, 2, i], 6 * 0.5 ** torch.arange(4.0, -1, -1))
        assert d_trace.nonzero().tolist() == [[1, 2, j, i]]
        assert d_trace[1, 2, j, i] == 6 * 0.5**5


class TestParameterGradient(Synapses, Backward):
    operator = "synaptic_parameter_gradient"
    small = (
        Size(R=1, T=1, B=1, I=1, J=1),
        Size(R=2, T=5, B=5, I=13, J=37),
        Size(R=1, T=3, B=17, I=31, J=20),
        Size(R=1, T=6, B=2, I=17, J=128),
        Size(R=1, T=7, B=4, I=8, J=32),
        *(size for size in SMALL if 1 < size.I * size.J < 5_000),
    )

    @PLACES
    def test_one_synapse_learns(self, implementation: Implementation, j: int, i: int) -> None:
        d_weight, d_decay = self.one_synapse(implementation, j, i)
        assert d_weight.nonzero().tolist() == d_decay.nonzero().tolist() == [[1, j, i]]
        assert d_weight[1, j, i] == 4 * 0.5**3
        assert d_decay[1, j, i] == 3 * 4 * 3 * 0.5**2
