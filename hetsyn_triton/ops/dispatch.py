"""How an operator enters PyTorch, which kernels serve it, and what `backend` means.

`define` gives an operator its schema, a closed form for every device, a fake, a vmap rule over the
replica axis, and the kernels of each device. Nothing here imports Triton or Numba: the file of a
kernel is imported when its operator is first called.
"""

import importlib
import importlib.util
import sys
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from hetsyn_triton.kernels import trial
from hetsyn_triton.validation import check_choice

NAMESPACE = "hetsyn_triton"

_LIBRARY = torch.library.Library(NAMESPACE, "DEF")
_CLOSED_FORMS: dict[str, Callable[..., Any]] = {}


@dataclass(frozen=True, eq=False)
class Kernels:
    """The kernels of one device.

    Attributes:
        name: Name in messages.
        key: PyTorch's dispatch key.
        device: PyTorch's device type.
        package: The compiler's package.
        folder: Folder in `kernels/`.
        operators: The operators that have a kernel.
        trial: Those of them that run inside `trial_kernels()` only.
        dtypes: The dtypes that kernels compute in. Others use the closed forms.
    """

    name: str
    key: str
    device: str
    package: str
    folder: str
    operators: frozenset[str]
    trial: frozenset[str]
    dtypes: frozenset[torch.dtype]

    @cache  # noqa: B019 - there are two tables, and they stay
    def launcher(self, operator: str) -> Callable[..., Any]:
        """Import and return the function that runs `operator`."""
        name = operator.replace("_surrogate_backward", "_backward")  # one function for both
        file = f"hetsyn_triton.kernels.{self.folder}.{_file_of(name)}"
        found: Callable[..., Any] = getattr(importlib.import_module(file), name)
        return found


_WITH_A_DECAY_PER_SYNAPSE = frozenset({
    "synaptic_current",
    "synaptic_current_backward",
    "synaptic_parameter_gradient",
    "spike_scan",
    "spike_scan_backward",
    "feedforward_scan",
    "recurrent_scan",
    "recurrent_scan_backward",
    "surrogate",
})  # fmt: skip
_WITH_A_DECAY_PER_NEURON = frozenset({
    "leaky_current",
    "leaky_current_backward",
    "leaky_recurrent_scan",
    "leaky_recurrent_scan_backward",
})  # fmt: skip
COMPOSED = (
    "spike_scan_surrogate_backward",
    "recurrent_scan_surrogate_backward",
    "leaky_recurrent_scan_surrogate_backward",
)
"""Operators made of two others, unless a kernel is both (`ops.surrogate.with_surrogate`)."""

TRITON = Kernels(
    "Triton kernel", "CUDA", "cuda", "triton", "gpu",
    _WITH_A_DECAY_PER_SYNAPSE | _WITH_A_DECAY_PER_NEURON | {*COMPOSED},
    _WITH_A_DECAY_PER_NEURON | {*COMPOSED},
    frozenset({torch.float32}),
)  # fmt: skip
NUMBA = Kernels(
    "Numba kernel", "CPU", "cpu", "numba", "cpu",
    _WITH_A_DECAY_PER_SYNAPSE | _WITH_A_DECAY_PER_NEURON, frozenset(),
    frozenset({torch.float32, torch.float64}),
)  # fmt: skip
KERNELS = (TRITON, NUMBA)


def define(
    schema: str, closed_form: Callable[..., Any], fake: Callable[..., Any]
) -> Callable[..., Any]:
    """Define the operator `hetsyn_triton::<schema>` and return it.

    The closed form serves every device and dtype without a kernel. Outputs are contiguous for
    inputs of any strides, as the fakes promise.
    """
    name = schema.partition("(")[0]
    qualified = f"{NAMESPACE}::{name}"
    _LIBRARY.define(schema)
    _CLOSED_FORMS[name] = closed_form
    _LIBRARY.impl(name, in_closed_form(closed_form), "CompositeExplicitAutograd")
    torch.library.register_fake(qualified, fake, lib=_LIBRARY)
    operator: Callable[..., Any] = getattr(getattr(torch.ops, NAMESPACE), name).default
    torch.library.register_vmap(qualified, replica_vmap(operator), lib=_LIBRARY)
    for kernels in KERNELS:
        if name in kernels.operators and importlib.util.find_spec(kernels.package) is not None:
            implement(name, implementation(kernels, name), kernels.key)
    return operator


def implement(name: str, function: Callable[..., Any], key: str) -> None:
    """Replace the closed form of operator `name` for one dispatch key, CPU or CUDA."""
    _LIBRARY.impl(name, function, key)


def has_kernel(name: str, key: str) -> bool:
    """Return whether operator `name` has an implementation for the dispatch key itself."""
    return bool(torch._C._dispatch_has_kernel_for_dispatch_key(f"{NAMESPACE}::{name}", key))


def in_closed_form(closed_form: Callable[..., Any]) -> Callable[..., Any]:
    """Return the implementation of an operator without a kernel."""

    def run(*args: Any) -> Any:
        device = next(a.device for a in args if isinstance(a, Tensor))
        with full_precision(device):  # a backward may be called where autocast is on
            return _contiguous(closed_form(*args))

    return run


def implementation(kernels: Kernels, operator: str) -> Callable[..., Any]:
    """Return what the dispatcher calls on the device of `kernels`: the kernel, or the closed form
    for a dtype that it does not compute in."""
    otherwise = in_closed_form(_CLOSED_FORMS[operator])
    on_trial = operator in kernels.trial

    def run(*args: Any) -> Any:
        if on_trial and not trial.allowed():
            return otherwise(*args)
        # The checked functions bring inputs to the parameters' dtype: it is one dtype for all.
        dtypes = {a.dtype for a in args if isinstance(a, Tensor)}
        if len(dtypes) == 1 and dtypes <= kernels.dtypes and usable(kernels):
            return _contiguous(kernels.launcher(operator)(*args))
        return otherwise(*args)

    return run


def unusable(kernels: Kernels) -> str | None:
    """Import the compiler of `kernels`; return why it cannot be used, or None."""
    package = kernels.package
    if importlib.util.find_spec(package) is None:
        return f"the package {package} is not installed"
    try:
        importlib.import_module(package)
    except (ImportError, OSError) as error:  # OSError: a shared library that does not load
        return f"the package {package} cannot be imported: {error}"
    return None


@cache
def usable(kernels: Kernels) -> bool:
    """Return whether kernels can run; warn once if their compiler is installed but broken."""
    reason = unusable(kernels)
    if reason is not None:
        warnings.warn(f"{reason}; the closed forms run instead", RuntimeWarning, stacklevel=2)
    return reason is None


def seconds_compiling() -> float:
    """Return the seconds this process has spent compiling CPU kernels, without cache hits."""
    compiling = sys.modules.get("hetsyn_triton.kernels.cpu.lib.compiling")  # once one is called
    return 0.0 if compiling is None else float(compiling.seconds_compiling())


def full_precision(device: torch.device) -> AbstractContextManager[Any]:
    """Return a context with autocast off: sums in front of a threshold are never rounded."""
    kind = device.type
    if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
        return torch.autocast(kind, enabled=False)
    return nullcontext()


def replica_vmap(operator: Callable[..., Any]) -> Callable[..., Any]:
    """Return the vmap rule of all operators: the mapped dimension N joins R, R -> N R."""

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


def _file_of(operator: str) -> str:
    """Return the file of a kernel: that of the operator whose forward or backward it is."""
    if operator == "synaptic_parameter_gradient":
        return "synaptic_current"
    return operator.removesuffix("_backward")


def _contiguous(outputs: Any) -> Any:
    """Return one tensor or a tuple of them as the fakes promise."""
    if isinstance(outputs, Tensor):
        return outputs.contiguous()
    return tuple([output.contiguous() for output in outputs])


# -- backends --------------------------------------------------------------------------------------

BACKENDS = ("auto", "triton", "cpu", "reference")
"""`auto`: what PyTorch's dispatcher has for the device. `triton`: Triton kernels on a GPU, or an
error. `cpu`: the same as `auto` on the CPU (Numba kernels where there are some, else closed forms),
an error elsewhere. `reference`: the plain loop under autograd, on any device."""

OPERATORS = (
    "synaptic_current",
    "synaptic_current_backward",
    "synaptic_parameter_gradient",
    "leaky_current",
    "leaky_current_backward",
    "spike_scan",
    "spike_scan_backward",
    "feedforward_scan",
    "recurrent_scan",
    "recurrent_scan_backward",
    "leaky_recurrent_scan",
    "leaky_recurrent_scan_backward",
    "surrogate",
)

_CLOSED_FORM = "closed form (PyTorch)"

_NEEDED = {
    "synaptic_current": (
        "synaptic_current",
        "synaptic_current_backward",
        "synaptic_parameter_gradient",
    ),
    "leaky_current": ("leaky_current", "leaky_current_backward"),
    "spike_scan": ("spike_scan", "spike_scan_backward"),
    "feedforward_scan": (
        "feedforward_scan",
        "spike_scan_backward",
        "synaptic_current_backward",
        "synaptic_parameter_gradient",
    ),
    "recurrent_scan": ("recurrent_scan", "recurrent_scan_backward", "synaptic_parameter_gradient"),
    "leaky_recurrent_scan": ("leaky_recurrent_scan", "leaky_recurrent_scan_backward"),
}
"""The raw operators a differentiable one calls, forward and backward."""


class BackendUnavailableError(RuntimeError):
    """An explicitly requested backend cannot run here; the message says why and what can."""


def resolve(
    backend: str, device: torch.device, operator: str, dtype: torch.dtype = torch.float32
) -> str:
    """What runs `operator` on `device`: "dispatcher" or "reference", the loop under autograd.

    Raises ValueError for an unknown backend, BackendUnavailableError for one that cannot run.
    """
    if backend == "auto":
        return "dispatcher"
    check_choice("backend", backend, BACKENDS)
    if backend == "triton":
        # The backward's operators too: a request must not hold half of the way.
        for needed in _NEEDED[operator]:
            reason = _why_not(TRITON, device, needed, dtype)
            if reason:
                able = "'auto', 'cpu'" if device.type == "cpu" else "'auto'"
                raise BackendUnavailableError(
                    f"backend 'triton' cannot run {needed} on {device}: {reason}; "
                    f"{able} and 'reference' can"
                )
    if backend == "cpu" and device.type != "cpu":
        raise BackendUnavailableError(
            f"backend 'cpu' cannot run {operator} on {device}: the tensors are not on the CPU; "
            "'auto' and 'reference' can"
        )
    return "reference" if backend == "reference" else "dispatcher"


def _why_not(
    kernels: Kernels, device: torch.device, operator: str, dtype: torch.dtype
) -> str | None:
    """Why `kernels` do not serve a raw operator on `device`; None where they do."""
    if operator not in kernels.operators and not has_kernel(operator, kernels.key):
        return f"this version has no {kernels.name} for it"
    if device.type != kernels.device:
        return f"{kernels.name}s need tensors on a {kernels.key} device"
    if dtype not in kernels.dtypes:
        able = " and ".join(sorted(str(d)[6:] for d in kernels.dtypes))
        return f"{kernels.name}s compute in {able}, the parameters are {str(dtype)[6:]}"
    if operator in kernels.trial and not trial.allowed():
        return f"its {kernels.name} has not been tested on a GPU; it runs inside trial_kernels()"
    return unusable(kernels)


@dataclass(frozen=True)
class OperatorInfo:
    """What `backend="auto"` runs for one operator.

    Attributes:
        operator: Name of the operator.
        chosen: What runs.
        others: What does not run, and why.
    """

    operator: str
    chosen: str
    others: dict[str, str]


@dataclass(frozen=True)
class BackendInfo:
    """What runs the operators on one device; `str()` is a readable summary.

    Attributes:
        device: Name of the device.
        operators: For each operator what runs, and why the others do not.
    """

    device: str
    operators: tuple[OperatorInfo, ...]

    def __str__(self) -> str:
        lines = [f"device {self.device}"]
        width = max(len(info.operator) for info in self.operators)
        for info in self.operators:
            reasons = "; ".join(f"{name}: {why}" for name, why in info.others.items())
            lines.append(f"  {info.operator:<{width}}  {info.chosen}  ({reasons})")
        return "\n".join(lines)


def backend_info(
    device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> BackendInfo:
    """Return what `backend="auto"` runs for each operator, as PyTorch's dispatcher has it.

    Args:
        device: Device of the tensors. Default: the CPU.
        dtype: dtype of the parameters. Default: float32.

    Example:
        >>> print(backend_info())  # doctest: +ELLIPSIS
        device cpu
          synaptic_current ...
    """
    device = torch.device(device)
    infos = []
    for operator in OPERATORS:
        why_not = {k.name: _why_not(k, device, operator, dtype) for k in KERNELS}
        runs = [name for name, reason in why_not.items() if reason is None]
        others = {name: reason for name, reason in why_not.items() if reason is not None}
        if runs:
            others[_CLOSED_FORM] = f"the {runs[0]} is preferred"
        if device.type == TRITON.device and operator not in TRITON.trial:
            state = "run now" if trial.allowed() else "run inside trial_kernels()"
            others["variants on trial"] = f"{state}: {trial.variants(operator)}"
        others["reference loop"] = 'runs only when asked for: backend="reference"'
        if operator == "surrogate":
            others["your own surrogate"] = "an ordinary PyTorch function, called as it is"
        infos.append(OperatorInfo(operator, runs[0] if runs else _CLOSED_FORM, others))
    return BackendInfo(str(device), tuple(infos))


# -- shapes for fakes ------------------------------------------------------------------------------


def like(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Return empty tensors of the same shapes."""
    return tuple(t.new_empty(t.shape) for t in tensors)


def steps_like(steps: Tensor, features: int) -> Tensor:
    """Return an empty [R, T, B, features]."""
    return steps.new_empty(*steps.shape[:3], features)


def trace_like(steps: Tensor, weight: Tensor) -> Tensor:
    """Return an empty trace [R, B, J, I] for steps [R, T, B, N] and synapses [R, J, I]."""
    return steps.new_empty(steps.shape[0], steps.shape[2], *weight.shape[1:])
