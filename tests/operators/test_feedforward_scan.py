"""The contract of the feedforward scan. Its gradients are those of the synaptic current and the
spike scan."""

from dataclasses import replace
from itertools import product

from tests.operators.contract import Spiking
from tests.operators.test_synaptic_current import LARGE, SMALL
from tests.support.implementations import NUMBA, TRITON, Implementation
from tests.support.tensors import same


class TestForward(Spiking):
    operator = "feedforward_scan"
    small = tuple(replace(size, K=1 + size.I % 3) for size in SMALL)
    large = LARGE

    def test_is_its_two_parts(self, kernels: Implementation) -> None:
        """Not one bit differs from the synaptic current followed by the spike scan."""
        parts = NUMBA if kernels is NUMBA else TRITON
        for size in self.small[:3] if kernels.slow else (*self.small, *self.large):
            for dtype, states in product(kernels.dtypes, (True, False)):
                given = self.given(kernels, size, dtype, states=states)
                current, trace = parts("synaptic_current", given)
                scanned = parts("spike_scan", given | {"current": current})
                assert same(self.run(kernels, given), (*scanned, trace))
