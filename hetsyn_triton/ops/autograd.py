"""What the autograd.Functions of the operators share.

They are written with `setup_context` and a vmap rule, so that `torch.compile(fullgraph=True)`,
`torch.func.grad`, `vmap(grad)` and `torch.export` work. Every `forward` names its arguments: the
compiler counts them to tell whether it takes a context. Gradients are defined once: the gradient of
a gradient raises.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .dispatch import replica_vmap


class _NoFurther(torch.autograd.Function):
    """Pass `count` gradients on, tied to all they were made from; their own gradient raises.

    PyTorch's `once_differentiable` returns zeros under nested `torch.func.grad`, and does not raise
    if the incoming gradient is a constant.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(count: int, *tensors: Tensor) -> Any:
        return tuple(t.view_as(t) for t in tensors[:count])

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *g: Tensor) -> Any:
        raise RuntimeError(
            "the operators have first derivatives only, not the gradient of a gradient; "
            "backend='reference' has both"
        )


def once(backward: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a backward made of operators: it records nothing, and its gradient raises."""

    def run(ctx: Any, *g: Tensor | None) -> Any:
        with torch.no_grad():
            gradients = backward(ctx, *g)
        # A compiled backward is never differentiated again: AOTAutograd refuses by itself.
        if torch.compiler.is_compiling() or not torch.is_grad_enabled():
            return gradients
        found = [d for d in gradients if d is not None]
        sources = [t for t in (*g, *ctx.saved_tensors) if t is not None]
        tie: Callable[..., Any] = _NoFurther.apply
        tied = iter(tie(len(found), *found, *sources))
        return tuple(None if d is None else next(tied) for d in gradients)

    return run


def vmap_over_replicas(function: type[torch.autograd.Function]) -> type[torch.autograd.Function]:
    """Class decorator: give an autograd.Function the vmap rule of the operators it wraps."""
    function.vmap = staticmethod(replica_vmap(lambda *args: function.apply(*args)))  # type: ignore[method-assign]
    return function
