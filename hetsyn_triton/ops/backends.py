"""Which implementation serves an operator, and why not another."""

import importlib.util
from dataclasses import dataclass

import torch

from .library import has_kernel

BACKENDS = ("auto", "triton", "cpu", "reference")
"""`auto`: what PyTorch's dispatcher has for the device. `triton`: Triton kernels on a GPU. `cpu`:
the CPU implementation. `reference`: the plain loop under autograd, on any device."""

OPERATORS = (
    "synaptic_current",
    "synaptic_current_backward",
    "synaptic_parameter_gradient",
    "leaky_current",
    "leaky_current_backward",
    "spike_scan",
    "spike_scan_backward",
    "recurrent_scan",
    "recurrent_scan_backward",
    "leaky_recurrent_scan",
    "leaky_recurrent_scan_backward",
)

_CLOSED_FORM = "closed form (PyTorch)"
_KERNELS = {"cpu": "Numba kernel", "cuda": "Triton kernel"}


class BackendUnavailableError(RuntimeError):
    """An explicitly requested backend cannot run here; the message says why and what can."""


def check_name(backend: str) -> str:
    """Returns `backend`; raises ValueError unless it is one of `BACKENDS`."""
    if backend not in BACKENDS:
        raise ValueError(f"backend: expected one of {', '.join(BACKENDS)}, got {backend!r}")
    return backend


def is_reference(backend: str, device: torch.device, operator: str) -> bool:
    """Whether `operator` on `device` is to run the reference loop rather than the operators.

    Raises ValueError for an unknown backend, BackendUnavailableError for one that cannot run.
    """
    check_name(backend)
    if backend == "triton":
        reason = _why_not_triton(device, operator)
        if reason:
            raise BackendUnavailableError(
                f"backend 'triton' cannot run {operator} on {device}: {reason}; "
                "'auto' and 'reference' can"
            )
    if backend == "cpu" and device.type != "cpu":
        raise BackendUnavailableError(
            f"backend 'cpu' cannot run {operator} on {device}: the tensors are not on the CPU; "
            "'auto' and 'reference' can"
        )
    return backend == "reference"


def _why_not_triton(device: torch.device, operator: str) -> str | None:
    if not has_kernel(operator, "CUDA"):
        return "this version has no Triton kernel for it"
    if device.type != "cuda":
        return "Triton kernels need tensors on a CUDA device"
    if importlib.util.find_spec("triton") is None:
        return "the package triton is not installed"
    return None


def _why_not_numba(device: torch.device, operator: str) -> str | None:
    if not has_kernel(operator, "CPU"):
        return "this version has no Numba kernel for it"
    if device.type != "cpu":
        return "Numba kernels need tensors on the CPU"
    if importlib.util.find_spec("numba") is None:
        return "the package numba is not installed"
    return None


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


def backend_info(device: torch.device | str = "cpu") -> BackendInfo:
    """What `backend="auto"` runs for each operator on `device`, read from PyTorch's dispatcher."""
    device = torch.device(device)
    infos = []
    for operator in OPERATORS:
        why_not = {
            "Triton kernel": _why_not_triton(device, operator),
            "Numba kernel": _why_not_numba(device, operator),
        }
        runs = [name for name, reason in why_not.items() if reason is None]
        others = {name: reason for name, reason in why_not.items() if reason is not None}
        if runs:
            others[_CLOSED_FORM] = f"the {runs[0]} is preferred"
        others["reference loop"] = 'runs only when asked for: backend="reference"'
        infos.append(OperatorInfo(operator, runs[0] if runs else _CLOSED_FORM, others))
    return BackendInfo(str(device), tuple(infos))
