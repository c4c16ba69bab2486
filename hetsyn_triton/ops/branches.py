"""Gradients of synapses on a branch of a CUDA graph, beside the rest of the backward pass.

The rest does not need them: a layer hands dL/dz to the layer before, while dL/dw and dL/dr only go
to the parameters. Inside `Branches` the operators run them on a stream of their own. Autograd must
not see them there, because it would make the main stream wait for each. So operators get copies of
weights and decays without history, and `finish` passes the gradients on at the end.
"""

import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class _Current(threading.local):
    branches: "Branches | None" = None


current = _Current()
"""The active `Branches` of each thread that runs forward passes."""

_VIEWS = ("torch::autograd::AccumulateGrad", "UnsqueezeBackward0")
"""Nodes that keep no tensor, so that a second backward pass may go through them."""


class Branch:
    """The synapses of one call of an operator.

    Attributes:
        weight: The weight for the operator, a leaf, so that its outputs require a gradient.
        decay: The decay for the operator.
    """

    def __init__(self, branches: "Branches", weight: Tensor, decay: Tensor) -> None:
        self._branches = branches
        self._own = (weight, decay)
        self.weight = weight.detach().requires_grad_()
        self.decay = decay.detach()

    def run(self, gradient: Callable[..., tuple[Tensor, ...]], *given: Any) -> None:
        """Run the parameter gradient on the other stream."""
        found = self._branches.run(gradient, given)
        self._branches.found += zip(self._own, found, strict=True)


class Branches:
    """While active, operators called in this thread run parameter gradients on `stream`.

    Without a stream they run at once, with the same results.
    """

    def __init__(self, stream: torch.cuda.Stream | None) -> None:
        self._stream = stream
        self.found: list[tuple[Tensor, Tensor]] = []

    def __enter__(self) -> "Branches":
        self._before, current.branches = current.branches, self
        self.found = []
        return self

    def __exit__(self, *_: object) -> None:
        current.branches = self._before
        self.found = []

    def run(
        self, gradient: Callable[..., tuple[Tensor, ...]], given: tuple[Any, ...]
    ) -> tuple[Tensor, ...]:
        """Return `gradient(*given)`, computed on the other stream."""
        if self._stream is None:
            return gradient(*given)
        self._stream.wait_stream(torch.cuda.current_stream(self._stream.device))
        with torch.cuda.stream(self._stream):
            found = gradient(*given)
        for tensor in given:
            if isinstance(tensor, Tensor):  # its memory is not reused before it is read
                tensor.record_stream(self._stream)
        return found

    def finish(self) -> None:
        """Wait for all branches on the current stream and pass their gradients to the parameters.

        Call it after the backward pass, while this object is active.
        """
        if self._stream is not None and self.found:  # a graph must not wait for an unused stream
            main = torch.cuda.current_stream(self._stream.device)
            main.wait_stream(self._stream)
            for _, gradient in self.found:
                gradient.record_stream(main)
        learned = [(t, g) for t, g in self.found if t.requires_grad]
        if learned:
            tensors, gradients = zip(*learned, strict=True)
            torch.autograd.backward(tensors, gradients)


def branch(weight: Tensor, decay: Tensor) -> Branch | None:
    """Return the branch for the synapses of a call in this thread, or None if there is none."""
    if current.branches is None or torch.compiler.is_compiling():
        return None
    if torch._C._are_functorch_transforms_active() or not torch.is_grad_enabled():
        return None
    if not (weight.requires_grad or decay.requires_grad):
        return None
    if not (_is_view_of_a_leaf(weight) and _is_view_of_a_leaf(decay)):
        return None
    return Branch(current.branches, weight, decay)


def _is_view_of_a_leaf(tensor: Tensor) -> bool:
    """Return whether nothing but views lies between a tensor and its leaf.

    Other nodes, such as that of a sigmoid, might be shared with the loss, whose backward pass frees
    what they keep.
    """
    node = tensor.grad_fn
    while node is not None:
        if node.name() not in _VIEWS:
            return False
        node = node.next_functions[0][0] if node.next_functions else None
    return True
