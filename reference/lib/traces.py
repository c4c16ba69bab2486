"""The traces of every synapse as the closed forms keep them: advanced in place, summed by batched
products."""

import torch
from torch import Tensor


def rows_of(matrix: Tensor) -> Tensor:
    """[R, J, I] -> [R*J, 1, I]: one synaptic matrix row per neuron, broadcast over samples."""
    return matrix.contiguous().flatten(0, 1).unsqueeze(1)


def lanes_of(steps: Tensor) -> Tensor:
    """[R, T, B, J] -> [T, R*J, 1, B]: what multiplies the traces of every neuron, sample by
    sample."""
    return steps.permute(1, 0, 3, 2).flatten(1, 2).unsqueeze(2).contiguous()


class Traces:
    """Traces of every synapse, advanced in place: x [R*J, B, I], the natural layout [R, B, J, I]
    outside."""

    def __init__(self, trace: Tensor | None, decay: Tensor, batch: int) -> None:
        self._replicas, self._outputs, self._inputs = decay.shape
        if trace is None:
            self.x = decay.new_zeros(self._replicas * self._outputs, batch, self._inputs)
        else:
            # A copy: the caller's initial state is never written to.
            self.x = (
                trace.transpose(1, 2).clone(memory_format=torch.contiguous_format).flatten(0, 1)
            )
        # Every neuron of a replica sees the same input.
        self._by_replica = self.x.view(self._replicas, self._outputs, batch, self._inputs)
        self._decay_by_replica = decay.contiguous().unsqueeze(2)

    def advance(self, z: Tensor) -> None:
        """x <- r x + z, z [R, B, I]."""
        torch.addcmul(
            z.unsqueeze(1), self._decay_by_replica, self._by_replica, out=self._by_replica
        )

    def natural(self) -> Tensor:
        return self._by_replica.transpose(1, 2).contiguous()

    def weighted_sum(self, weight_rows: Tensor) -> Tensor:
        """sum_i w_ji x_ji, weight_rows [R*J, 1, I] -> [R, B, J]."""
        # Row times matrix: more than twice as fast as matrix times column.
        summed = torch.bmm(weight_rows, self.x.mT)
        return summed.view(self._replicas, self._outputs, summed.shape[2]).transpose(1, 2)
