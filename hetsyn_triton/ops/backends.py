"""Which implementation serves an operator, and why not another."""

from dataclasses import dataclass

import torch

from hetsyn_triton.validation import check_choice

from .kernels import NUMBA, TRITON, Kernels, register, unusable
from .library import has_kernel

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


register(TRITON)
register(NUMBA)


class BackendUnavailableError(RuntimeError):
    """An explicitly requested backend cannot run here; the message says why and what can."""


def resolve(
    backend: str, device: torch.device, operator: str, dtype: torch.dtype = torch.float32
) -> str:
    """What runs `operator` on `device`: "dispatcher" or "reference", the loop under autograd.

    Raises ValueError for an unknown backend, BackendUnavailableError for one that cannot run.
    """
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
    if operator not in kernels.files and not has_kernel(operator, kernels.key):
        return f"this version has no {kernels.name} for it"
    if device.type != kernels.device:
        return f"{kernels.name}s need tensors on a {kernels.key} device"
    if dtype not in kernels.dtypes:
        able = " and ".join(sorted(str(d)[6:] for d in kernels.dtypes))
        return f"{kernels.name}s compute in {able}, the parameters are {str(dtype)[6:]}"
    return unusable(kernels)


@dataclass(frozen=True)
class OperatorInfo:
    """What `backend="auto"` runs for one operator, and why it does not run the others."""

    operator: str
    chosen: str
    others: dict[str, str]


@dataclass(frozen=True)
class BackendInfo:
    """What serves the operators on one device; `str()` is a readable summary."""

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
    """What `backend="auto"` runs for each operator on `device` with parameters of `dtype`, read
    from PyTorch's dispatcher."""
    device = torch.device(device)
    infos = []
    for operator in OPERATORS:
        why_not = {k.name: _why_not(k, device, operator, dtype) for k in (TRITON, NUMBA)}
        runs = [name for name, reason in why_not.items() if reason is None]
        others = {name: reason for name, reason in why_not.items() if reason is not None}
        if runs:
            others[_CLOSED_FORM] = f"the {runs[0]} is preferred"
        others["reference loop"] = 'runs only when asked for: backend="reference"'
        infos.append(OperatorInfo(operator, runs[0] if runs else _CLOSED_FORM, others))
    return BackendInfo(str(device), tuple(infos))
