"""Which launches the shipped defaults can make: every tile of every size class, and every flag.

Sizes here choose a tile, nothing else. What they are depends on the `tile`, `block` and `path`
functions of `kernels/gpu`; a test holds this list against those.
"""

from __future__ import annotations

from typing import Any

from bench.cases import BENCHMARK, BY_NAME, Case, case
from hetsyn_triton.kernels.surrogate_kinds import KINDS

_SUMMED = (4, 16, 32, 64, 128, 700)  # one of each depth, and one with partial sums
_WIDTHS = (32, 64, 128)
_NEURONS = (16, 32, 64, 128, 256, 512, 1024, 1040)  # the recurrent scan's classes; then by steps


def _synaptic() -> list[Case]:
    found = []
    for s in _SUMMED:
        for o in _WIDTHS:
            plain, states = [False], [True]
            found += [
                case("synaptic_current", s, o, states=given)
                for given in (plain + states if o == 128 else plain)
            ]
            found += [
                case("synaptic_current_backward", o, s, states=given)
                for given in (plain + states if o == 128 else states)
            ]
            found += [
                case("feedforward_scan_fused", s, o, K=K, states=K == 2)
                for K in ((1, 2) if o == 128 else (1,))
            ]
    for inputs in (4, 700):
        for o in _WIDTHS:
            found += [
                case("synaptic_parameter_gradient", inputs, o, states=given)
                for given in (False, True)
            ]
    return found


def _scans() -> list[Case]:
    found = []
    for B in (32, 2048):  # few lanes, and many
        for K in (1, 2):
            found.append(case("spike_scan", 128, 128, B=B, K=K))
            found += [
                case("spike_scan_backward", 128, 128, B=B, K=K, states=given, detach=detach)
                for given in (False, True)
                for detach in (False, True)
            ]
    # d_threshold summed over samples: odd sizes take the narrow form.
    found.append(case("spike_scan_backward", 13, 13, B=7))
    return found


def _recurrent() -> list[Case]:
    found = []
    for neurons in _NEURONS:
        for K in (1, 2):
            T = 250 if neurons <= 1024 else 2
            given: dict[str, Any] = {"B": 32, "K": K, "states": K == 2, "T": T}
            found.append(case("recurrent_scan", neurons, neurons, **given))
            found.append(case("recurrent_scan_backward", neurons, neurons, **given, detach=K == 2))
    return found


def _surrogates() -> list[Case]:
    """Four neurons to a load, and one."""
    return [case(f"surrogate_{kind}", J, J) for kind in KINDS for J in (16, 13)]


EVERY = _synaptic() + _scans() + _recurrent() + _surrogates()
"""Minutes of compilation for one target."""

ONE = [
    case("synaptic_current", 4, 32),
    case("synaptic_parameter_gradient", 4, 32),
    case("feedforward_scan_fused", 4, 32),
    case("spike_scan", 16, 16, B=32),
    case("spike_scan_backward", 16, 16, B=32),
    *(case(f"surrogate_{kind}", 16, 16, B=32) for kind in KINDS),
    case("recurrent_scan", 16, 16, B=32),
    case("recurrent_scan_backward", 16, 16, B=32),
    case("recurrent_scan_by_steps", 16, 16, B=2, T=2),
    case("recurrent_scan_backward_by_steps", 16, 16, B=2, T=2),
]
"""Every kernel at least once, in its smallest tile where that will do."""

GOALS = [
    BY_NAME[f"{name} T250 B256"]
    for name in (
        "synaptic_current 700->128",
        "synaptic_current_backward 700->128",
        "synaptic_parameter_gradient 700->128",
        "recurrent_scan 64->64",
        "recurrent_scan_backward 64->64",
        "recurrent_scan 128->128",
        "recurrent_scan_backward 128->128",
    )
]
"""What the predicted figures of the project stand on."""

SETS = {"benchmark": BENCHMARK, "one": ONE, "goals": GOALS, "every": EVERY}
