"""How an operator enters PyTorch: schema, closed form for every device, fake, and vmap over the
replica axis."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

NAMESPACE = "hetsyn_triton"

_LIBRARY = torch.library.Library(NAMESPACE, "DEF")


def full_precision(device: torch.device) -> AbstractContextManager[Any]:
    """Autocast off where it is on: a threshold follows these sums, and they are never rounded."""
    kind = device.type
    if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
        return torch.autocast(kind, enabled=False)
    return nullcontext()


def contiguous(outputs: Any) -> Any:
    """One tensor or a tuple of them, as the fakes promise."""
    if isinstance(outputs, Tensor):
        return outputs.contiguous()
    return tuple(output.contiguous() for output in outputs)


def in_closed_form(closed_form: Callable[..., Any]) -> Callable[..., Any]:
    """What serves an operator where it has no kernel."""

    def implementation(*args: Any) -> Any:
        device = next(a.device for a in args if isinstance(a, Tensor))
        with full_precision(device):  # a backward may be called where autocast is on
            return contiguous(closed_form(*args))

    return implementation


def define(
    schema: str, closed_form: Callable[..., Any], fake: Callable[..., Any]
) -> Callable[..., Any]:
    """Defines `hetsyn_triton::<schema>` and returns it.

    The closed form serves every device for which no kernel is registered: a kernel is added with
    `implement` and takes its place there. Outputs are contiguous
    whatever the strides of the inputs, as the fakes promise.
    """
    name = schema.partition("(")[0]
    qualified = f"{NAMESPACE}::{name}"
    _LIBRARY.define(schema)
    _LIBRARY.impl(name, in_closed_form(closed_form), "CompositeExplicitAutograd")
    torch.library.register_fake(qualified, fake, lib=_LIBRARY)
    operator: Callable[..., Any] = getattr(getattr(torch.ops, NAMESPACE), name).default
    torch.library.register_vmap(qualified, replica_vmap(operator), lib=_LIBRARY)
    return operator


def implement(name: str, implementation: Callable[..., Any], key: str) -> None:
    """Puts `implementation` in the place of the closed form for one dispatch key, CPU or CUDA."""
    _LIBRARY.impl(name, implementation, key)


def has_kernel(name: str, key: str) -> bool:
    """Whether the dispatcher has an implementation of operator `name` for the dispatch key
    itself."""
    return bool(torch._C._dispatch_has_kernel_for_dispatch_key(f"{NAMESPACE}::{name}", key))


def replica_vmap(operator: Callable[..., Any]) -> Callable[..., Any]:
    """The vmap rule shared by all operators: the mapped dimension N joins the replicas, R -> N
    R."""

    def rule(info: Any, in_dims: tuple[int | None, ...], *args: Any) -> tuple[Any, Any]:
        def fold(argument: Any, dim: int | None) -> Any:
            if not isinstance(argument, Tensor):
                return argument
            if dim is None:
                mapped = argument.expand(info.batch_size, *argument.shape)
            else:
                mapped = argument.movedim(dim, 0)
            return mapped.flatten(0, 1)

        def unfold(output: Tensor) -> Tensor:
            replicas = output.shape[0] // info.batch_size
            return output.view(info.batch_size, replicas, *output.shape[1:])

        if info.batch_size == 0:
            raise ValueError("vmap over a dimension of size 0 is not supported")
        outputs = operator(*(fold(a, d) for a, d in zip(args, in_dims, strict=True)))
        if isinstance(outputs, Tensor):
            return unfold(outputs), 0
        return tuple(unfold(o) for o in outputs), (0,) * len(outputs)

    return rule


def vmap_over_replicas(function: type[torch.autograd.Function]) -> type[torch.autograd.Function]:
    """Class decorator: gives an autograd.Function the vmap rule of the operators it wraps."""
    function.vmap = staticmethod(replica_vmap(lambda *args: function.apply(*args)))  # type: ignore[method-assign]
    return function
