"""Nothing recompiles when T, B or R changes: the key under which Triton's own JIT keeps a kernel.

Triton's functions make it, from the launches as recorded. Tensors are on the meta device, whose
addresses count as aligned; one that is not has a kernel of its own, whatever the sizes.
"""

from collections import defaultdict
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import make_backend
from triton.runtime import jit

from bench.cases import ONE, OPERATORS, Case, case
from hetsyn_triton.kernels.gpu.lib.launch import Launch

TARGETS = {"cuda": GPUTarget("cuda", 90, 32), "hip": GPUTarget("hip", "gfx942", 64)}
STEPS = (1, 2, 16, 17, 250, 256)
SAMPLES = ((1, 1), (1, 13), (1, 16), (3, 1), (16, 17), (1, 1 << 14))
"""R and B. 1 and multiples of 16 are what Triton would specialize on; primes are neither."""


def cases(operator: str, inputs: int, neurons: int, **given: Any) -> list[Case]:
    """One size of features, every T, B and R. By steps, few of them: each is a launch."""
    steps = (1, 2, 17) if "by_steps" in operator else STEPS
    if operator.startswith("recurrent_scan"):
        neurons = inputs
    return [
        case(operator, inputs, neurons, T=T, B=B, R=R, **given) for T in steps for R, B in SAMPLES
    ]


@cache
def binder(kernel: Any, target: str, left_out: str = "") -> Any:
    """What Triton binds arguments with; where it interprets, that of the kernel it would compile.
    `left_out` is specialized on, though the kernel says no."""
    options = kernel.kwargs if hasattr(kernel, "kwargs") else vars(kernel)
    kept = [name for name in options["do_not_specialize"] if name != left_out]
    compiling = jit.JITFunction(kernel.fn, do_not_specialize=kept)
    backend = make_backend(TARGETS[target])
    return jit.create_function_from_signature(compiling.signature, compiling.params, backend)


def key(call: Launch, target: str, left_out: str = "") -> str:
    """As `JITFunction.run` makes it."""
    options = {"num_warps": call.num_warps, "enable_fp_fusion": True, **call.options}
    bind = binder(call.kernel, target, left_out)
    _, specialization, options = bind(**call.arguments, **call.constants, **options)
    return str(jit.compute_cache_key({}, specialization, options))


def kind(c: Case, call: Launch) -> str:
    """The kernel, and what may compile it again: scans of neurons have two size classes, by R B J,
    partial sums by the number of sums."""
    many = "LANES" in call.constants and c.R * c.B * c.J > 1 << 17
    many |= call.name == "add_partials_kernel" and call.arguments["total"].numel() > 1 << 16
    # A step of a longer tensor may begin off the alignment.
    off = any(t.storage_offset() % 4 for t in call.arguments.values() if isinstance(t, Tensor))
    return f"{call.name}{' many' if many else ''}{' unaligned' if off else ''}"


def beyond_2_gib(call: Launch) -> bool:
    """On AMD GPUs such a tensor has a kernel of its own: Triton's choice, not ours."""
    tensors = (t for t in call.arguments.values() if isinstance(t, Tensor))
    return any(t.untyped_storage().nbytes() >= 1 << 31 for t in tensors)


@pytest.mark.parametrize("features", [(13, 13), (64, 64), (200, 16)])
@pytest.mark.parametrize("operator", list(OPERATORS))
def test_one_key_for_all_steps_and_samples(operator: str, features: tuple[int, int]) -> None:
    for states in (False, True):
        made: dict[str, set[str]] = defaultdict(set)
        for c in cases(operator, *features, states=states):
            for call in c.record():
                for target in TARGETS:
                    if target == "cuda" or not beyond_2_gib(call):
                        made[f"{kind(c, call)} {target}"].add(key(call, target))
        assert {name: len(found) for name, found in made.items()} == dict.fromkeys(made, 1)


def test_a_name_left_out_shows() -> None:
    """The test can fail: T or B, specialized on, gives every kernel that has it more keys."""
    shown = set()
    for name in ("T", "B"):
        made: dict[str, set[str]] = defaultdict(set)
        for c in ONE:
            for size in (1, 16, 17):
                for call in replace(c, T=size, B=size).record():
                    if name in call.arguments:
                        made[call.name].add(key(call, "cuda", left_out=name))
        assert all(len(found) >= 3 for found in made.values()), name
        shown |= set(made)
    neither = {"add_partials_kernel", "parameter_gradient_sum_kernel", "surrogate_kernel"}
    assert shown == {call.name for c in ONE for call in c.record()} - neither
