"""The contract of the leaky recurrent scan and its backward."""

import pytest
import torch

from tests.operators.contract import Spiking, SpikingBackward
from tests.operators.test_recurrent_scan import LARGE, SMALL
from tests.support.implementations import Implementation
from tests.support.operators import Size


class TestForward(Spiking):
    operator = "leaky_recurrent_scan"
    small = SMALL
    large = LARGE

    @pytest.mark.parametrize(("j", "i"), [(0, 0), (15, 16), (63, 64), (82, 1)])
    def test_a_spike_arrives_where_it_belongs(
        self, implementation: Implementation, j: int, i: int
    ) -> None:
        """One weight and one spike before the first step: one current, which decays."""
        size = Size(R=2, T=4, B=3, J=83, K=1)
        shapes = {n: size.shape(letters) for n, letters in self.table.arguments.items()}
        given = {n: torch.zeros(shape, device=implementation.device) for n, shape in shapes.items()}
        given["threshold"] += 100.0
        given["weight"][1, j, i], given["decay"][1, j], given["spike"][1, 2, i] = 3.0, 0.5, -2.0
        currents = self.run(implementation, given)[3].cpu()
        assert currents.count_nonzero() == 4
        assert torch.equal(currents[1, :, 2, j], -6 * 0.5 ** torch.arange(4.0))


class TestBackward(SpikingBackward):
    operator = "leaky_recurrent_scan_backward"
    small = SMALL
    large = LARGE
