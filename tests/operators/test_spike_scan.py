"""The contract of the spike scan and its backward."""

import torch

from tests.operators.contract import BackwardInPieces, Spiking
from tests.support.implementations import Implementation
from tests.support.operators import Size

SMALL = (
    Size(R=1, T=1, B=1, J=1, K=1),
    Size(R=3, T=5, B=2, J=15, K=2),
    Size(R=1, T=16, B=3, J=5, K=3),
    Size(R=2, T=33, B=3, J=17, K=1),
)
LARGE = (
    Size(R=1, T=6, B=3, J=16, K=3),
    Size(R=1, T=35, B=7, J=33, K=2),
    Size(R=3, T=3, B=1, J=150, K=1),
    Size(R=1, T=40, B=5, J=64, K=2),
)


LONG = Size(R=1, T=37, B=2, J=6, K=2)
"""Whole chunks of steps on either side of a cut, and steps left over."""


class TestForward(Spiking):
    operator = "spike_scan"
    small = SMALL
    large = LARGE
    pieces = LONG

    def test_what_is_not_finite_stays_in_its_neuron(self, kernels: Implementation) -> None:
        given = self.given(kernels, Size(R=1, T=4, B=2, J=17, K=1), states=False)
        given["current"][0, 1, 0, 3] = torch.nan
        spikes, potential, _ = self.run(kernels, given)
        assert potential.isnan().nonzero().tolist() == [[0, 1, 0, 3]]
        assert spikes[0, 1, 0, 3] == 0


class TestBackward(BackwardInPieces):
    operator = "spike_scan_backward"
    small = SMALL
    large = LARGE
    pieces = LONG
