"""Breaks one line of the library at a time, in a copy of the checkout; the tests must notice.

    python -m tests.mutants                 all of them, about half an hour on 2 busy cores
    python -m tests.mutants spike_scan      those with this in their path or name

The tests run unbroken first. Prints a line for each mutant: the test that failed, or MISSED. The
exit status is the number of those that no test noticed. Results of past runs are in tests/HUNTS.md,
and tests/test_mutants.py runs ten of them.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LIBRARY = "hetsyn_triton/"
NO_SUCH_FILE, NO_TEST = 4, 5  # exit statuses of pytest


@dataclass(frozen=True)
class Mutant:
    """`right`, once in `file`, becomes `wrong`; `tests` (pytest's arguments) must notice."""

    name: str
    file: str
    right: str
    wrong: str
    tests: str


def contract(operator: str, chosen: str) -> str:
    """The tests of an operator's contract whose names fit."""
    return f"tests/operators/test_{operator}.py -k '{chosen}'"


CPU_FORWARD = "TestForward and within_rounding and Numba"
CPU_BACKWARD = "TestBackward and within_rounding and Numba"
GPU_FORWARD = "TestForward and within_rounding and Triton"
GPU_BACKWARD = "TestBackward and within_rounding and Triton"
EAGER_BACKWARD = "TestBackward and within_rounding and eager"
AUTOGRAD = "TestForward and under_autograd"

MUTANTS = (
    # -- CPU kernels ------------------------------------------------------------------------------
    Mutant(
        "strides are ignored",
        "kernels/cpu/lib/arrays.py",
        "    if not tensor.is_contiguous() or tensor.is_neg():",
        "    if tensor.is_neg():",
        contract("leaky_current", "TestForward and strides and Numba"),
    ),
    Mutant(
        "kernels of older sources are read",
        "kernels/cpu/lib/compiling.py",
        "        digest.update(source.read_bytes())",
        "        digest.update(source.name.encode())",
        "tests/cpu/test_cpu_cache.py -k changed_sources",
    ),
    Mutant(
        "a folder that a group can write is trusted",
        "kernels/cpu/lib/compiling.py",
        "    if info.st_mode & 0o022:",
        "    if info.st_mode & 0o002:",
        "tests/cpu/test_cpu_cache.py -k 'others_may or is_refused'",
    ),
    Mutant(
        "low digits of ln 2 have the wrong sign",
        "kernels/cpu/lib/exponential.py",
        'r = fma(n, fixed(-constants["low"]), r)',
        'r = fma(n, fixed(constants["low"]), r)',
        "tests/cpu/test_cpu_surrogate.py -k the_exponential",
    ),
    Mutant(
        "feedback parameters of another replica",
        "kernels/cpu/lib/neurons.py",
        "    first, stride = (replica * K * blocks + block) * L, blocks * L",
        "    first, stride = (replica * blocks + block) * L, blocks * L",
        contract("spike_scan", CPU_FORWARD),
    ),
    Mutant(
        "detach_reset is ignored by a CPU kernel",
        "kernels/cpu/lib/neurons_reverse.py",
        "        if not detach_reset:",
        "        if True:",
        contract("spike_scan", "TestBackward and detached_reset and Numba"),
    ),
    Mutant(
        "gradient of feedback sees s(t) for s(t-1)",
        "kernels/cpu/lib/neurons_reverse.py",
        "g_t, s_t = load_row(g, place, used), load(s, h * L)",
        "g_t, s_t = load_row(g, place, used), load_row(spikes, place, used)",
        contract("spike_scan", CPU_BACKWARD),
    ),
    Mutant(
        "gradient of a decay sums g x",
        "kernels/cpu/lib/parameter_gradient.py",
        "            dr0, dr1, dr2, dr3 = fma(a, y0, dr0), fma(a, y1, dr1)",
        "            dr0, dr1, dr2, dr3 = fma(a, y0, dr0), fma(a, x1, dr1)",
        contract("synaptic_current", "TestParameterGradient and within_rounding and Numba"),
    ),
    Mutant(
        "initial traces are those of the first sample",
        "kernels/cpu/lib/parameter_gradient.py",
        "            corner = (replica * B + b) * I * J + first * to_other",
        "            corner = replica * B * I * J + first * to_other",
        contract("synaptic_current", "TestParameterGradient and within_rounding and Numba"),
    ),
    Mutant(
        "traces decay by their weight",
        "kernels/cpu/lib/passes.py",
        "                a = [code.fma(r[b], a[b], joins) for b in range(blocks)]",
        "                a = [code.fma(w[b], a[b], joins) for b in range(blocks)]",
        contract("synaptic_current", CPU_FORWARD),
    ),
    Mutant(
        "the last neuron of a partial vector is not stored",
        "kernels/cpu/lib/rows.py",
        "        store_first(target, place, used, vector)",
        "        store_first(target, place, used - 1, vector)",
        contract("leaky_current", CPU_FORWARD),
    ),
    Mutant(
        "a sum leaves out its first part",
        "kernels/cpu/lib/sums.py",
        "        for p in range(P):",
        "        for p in range(1, P):",
        contract("leaky_current", CPU_BACKWARD),
    ),
    Mutant(
        "the last thread's share is not run",
        "kernels/cpu/lib/threads.py",
        "for n in range(threads + 1)))",
        "for n in range(max(2, threads))))",
        "tests/cpu/test_cpu_threads.py -k every_task",
    ),
    Mutant(
        "a share does not round as its caller",
        "kernels/cpu/lib/threads.py",
        "        torch.set_flush_denormal(flushing)",
        "        torch.set_flush_denormal(not flushing)",
        "tests/cpu/test_cpu_threads.py -k takes_them_as_its_caller",
    ),
    Mutant(
        "threshold is not strict (CPU)",
        "kernels/cpu/lib/vectors.py",
        'builder.fcmp_ordered(">", *arguments)',
        'builder.fcmp_ordered(">=", *arguments)',
        contract("spike_scan", "TestForward and threshold_is_strict and Numba"),
    ),
    Mutant(
        "a surrogate of NaN is a number",
        "kernels/cpu/lib/vectors.py",
        'builder.fcmp_ordered("<", given, limit)',
        'builder.fcmp_unordered("<", given, limit)',
        "tests/operators/test_surrogate.py -k 'not_finite and Numba'",
    ),
    Mutant(
        "gradient of recurrent weights sees s(t) for s(t-1)",
        "kernels/cpu/lib/weight_gradient.py",
        "load_row(spikes, place - B * J + i, min(L, J - i))",
        "load_row(spikes, place + i, min(L, J - i))",
        contract("leaky_recurrent_scan", CPU_BACKWARD),
    ),
    Mutant(
        "a layer reads the input of another replica",
        "kernels/cpu/feedforward_scan.py",
        "            z, (replica * T * B + sample) * I, B * I, weight,",
        "            z, (replica * B + sample) * I, B * I, weight,",
        contract("feedforward_scan", CPU_FORWARD),
    ),
    Mutant(
        "gradient of a neuron's decay sees c(t) for c(t-1)",
        "kernels/cpu/leaky_current.py",
        "                    c = load_row(result, place - B * J, used)",
        "                    c = load_row(result, place, used)",
        contract("leaky_current", CPU_BACKWARD),
    ),
    Mutant(
        "spikes of the last neuron reach nobody",
        "kernels/cpu/leaky_recurrent_scan.py",
        "            n = _nonzero(s, J, chosen)",
        "            n = _nonzero(s, J - 1, chosen)",
        contract("leaky_recurrent_scan", CPU_FORWARD),
    ),
    Mutant(
        "what arrives at c has the wrong sign",
        "kernels/cpu/leaky_recurrent_scan.py",
        "            du_t = add(du_t, load_row(g_currents, row + o, used))",
        "            du_t = sub(du_t, load_row(g_currents, row + o, used))",
        contract("leaky_recurrent_scan", CPU_BACKWARD),
    ),
    Mutant(
        "gradient of s(0) lacks the synapses",
        "kernels/cpu/recurrent_scan.py",
        "                store_row(d_spike, at, used, add(load(d, p), load(c, p)))",
        "                store_row(d_spike, at, used, load(d, p))",
        contract("recurrent_scan", CPU_BACKWARD),
    ),
    Mutant(
        "one of the samples left over is not run",
        "kernels/cpu/recurrent_scan.py",
        "    return (whole * size, 2) if number == whole and left > 1 else (batch - 1, 1)",
        "    return (whole * size, 1) if number == whole and left > 1 else (batch - 1, 1)",
        contract("recurrent_scan", CPU_FORWARD),
    ),
    Mutant(
        "a sample begins with the gradient of the one before",
        "kernels/cpu/spike_scan.py",
        "        s[:] = theta[:] = 0",
        "        theta[:] = 0",
        contract("spike_scan", CPU_BACKWARD),
    ),
    Mutant(
        "every part begins with the first threshold",
        "kernels/cpu/surrogate.py",
        "        lane, on = first % J, L % J",
        "        lane, on = 0, L % J",
        "tests/operators/test_surrogate.py -k 'within_rounding and Numba'",
    ),
    Mutant(
        "gradient of a trace lacks the decay",
        "kernels/cpu/synaptic_current.py",
        "                        wr = mul(load(weight, p), load(decay, p))",
        "                        wr = load(weight, p)",
        contract("synaptic_current", CPU_BACKWARD),
    ),
    Mutant(
        "initial traces wait for the first spike",
        "kernels/cpu/synaptic_current.py",
        "            begin = 0\n",
        "            begin = min(begin, T)\n",
        contract("synaptic_current", "TestForward and in_silence and Numba"),
    ),
    # -- GPU kernels ------------------------------------------------------------------------------
    Mutant(
        "threshold is not strict (GPU)",
        "kernels/gpu/lib/neuron.py",
        "b_potential > b_threshold",
        "b_potential >= b_threshold",
        contract("spike_scan", "TestForward and threshold_is_strict and Triton"),
    ),
    Mutant(
        "detach_reset is turned round (GPU)",
        "kernels/gpu/lib/neuron.py",
        "        if not DETACH_RESET:",
        "        if DETACH_RESET:",
        contract("spike_scan", GPU_BACKWARD),
    ),
    Mutant(
        "gradient of a feedback decay lacks what arrives later",
        "kernels/gpu/lib/feedback_gradient.py",
        "tl.fma(b_decays[k], b_qs[k], b_at_step)",
        "tl.fma(b_decays[k], b_qs[k], -b_g_v)",
        contract("spike_scan", GPU_BACKWARD),
    ),
    Mutant(
        "gradient of a feedback decay sums g x",
        "kernels/gpu/lib/feedback_gradient.py",
        "(tl.fma(b_g, b_y, b_to_decay[k]),)",
        "(tl.fma(b_g, b_x, b_to_decay[k]),)",
        contract("spike_scan", GPU_BACKWARD),
    ),
    Mutant(
        "carried gradients of recurrent traces do not decay",
        "kernels/gpu/lib/recurrent_tile.py",
        "            b_next = b_next + (b_r[p] * b_m,)",
        "            b_next = b_next + (b_m,)",
        contract("recurrent_scan", GPU_BACKWARD),
    ),
    Mutant(
        "programs wait for others that cannot run yet",
        "kernels/gpu/lib/recurrent_tile.py",
        "            if programs > max(resident, 1):",
        "            if programs > 2 * resident:",
        "tests/gpu/test_gpu_meeting.py -k path_depends",
    ),
    Mutant(
        "columns of spikes change places",
        "kernels/gpu/lib/exchange.py",
        "            b_parts = b_low + b_high",
        "            b_parts = b_high + b_low",
        contract("recurrent_scan", GPU_FORWARD),
    ),
    Mutant(
        "kept launches forget the alignment",
        "kernels/gpu/lib/launch.py",
        "data_ptr() % 16 == 0",
        "data_ptr() % 2 == 0",
        "tests/gpu/test_gpu_launch.py -k another_kernel",
    ),
    Mutant(
        "launches are kept outside trial_kernels()",
        "kernels/gpu/lib/launch.py",
        "_run_again if trial.allowed() and steps_ahead(1) else _run",
        "_run_again if steps_ahead(1) else _run",
        "tests/gpu/test_gpu_launch.py -k outside_the_switch",
    ),
    Mutant(
        "partial sums after the first 32 are read again",
        "kernels/gpu/lib/add_partials.py",
        "        p_part += U * elements",
        "        p_part += elements",
        "tests/gpu/test_gpu_add_partials.py -k ascending_chain",
    ),
    Mutant(
        "gradient of a decay sums g x (GPU)",
        "kernels/gpu/lib/parameter_gradient.py",
        "            n_s = n_s + (tl.fma(b_g, y, b_s[4 * q + e]),)",
        "            n_s = n_s + (tl.fma(b_g, x, b_s[4 * q + e]),)",
        contract("synaptic_current", "TestParameterGradient and within_rounding and Triton"),
    ),
    Mutant(
        "potentials have no gradient in a recurrent scan",
        "kernels/gpu/lib/recurrent_reverse.py",
        "            b_g_potential = tl.load(p_gp + o_o, mask=m_more, other=0.0)",
        "            b_g_potential = tl.load(p_gp + o_o, mask=m_more & (T < 0), other=0.0)",
        contract("recurrent_scan", GPU_BACKWARD),
    ),
    Mutant(
        "a launch per step reads s(0) in every step",
        "kernels/gpu/lib/recurrent_step.py",
        "p_spike + i_n * J if t == 0 else p_spikes",
        "p_spike + i_n * J if t <= 1 else p_spikes",
        contract("recurrent_scan", "TestForward and within_rounding and steps"),
    ),
    Mutant(
        "a second group of inputs is not added",
        "kernels/gpu/lib/synaptic_tile.py",
        "        return (b_0 + b_1,)",
        "        return (b_0,)",
        contract("synaptic_current", GPU_FORWARD),
    ),
    Mutant(
        "a chunk of time decays a step too little",
        "kernels/gpu/lib/time_chunks.py",
        "decay.pow(length)",
        "decay.pow(length - 1)",
        "tests/gpu/test_gpu_synaptic_current.py -k chunks_of_time",
    ),
    Mutant(
        "recurrent weights are read by columns",
        "kernels/gpu/lib/weighted_sums.py",
        "(1, neurons) if transposed else (neurons, 1)",
        "(neurons, 1) if transposed else (1, neurons)",
        contract("leaky_recurrent_scan", "TestForward and within_rounding and steps"),
    ),
    Mutant(
        "a chunk of a layer begins with s(0)",
        "kernels/gpu/feedforward_scan.py",
        "        b_spike = tl.where(t_first > 0, b_went, b_begin)",
        "        b_spike = tl.where(t_first > 0, b_begin, b_begin)",
        "tests/gpu/test_gpu_synaptic_current.py -k chunks_of_the_fused",
    ),
    Mutant(
        "gradient of a neuron's decay lacks c(0)",
        "kernels/gpu/leaky_current.py",
        "tl.where(T % U - 1 - u > 0, b_next_c[u], b_begin)",
        "tl.where(T % U - u > 0, b_next_c[u], b_begin)",
        contract("leaky_current", GPU_BACKWARD),
    ),
    Mutant(
        "the current decays after its input has joined",
        "kernels/gpu/leaky_recurrent_scan.py",
        "b_c = tl.fma(b_decay, b_c, b_u + weighted_sum(b_w, b_z, BJ, KG, KK))",
        "b_c = b_decay * (b_c + b_u + weighted_sum(b_w, b_z, BJ, KG, KK))",
        contract("leaky_recurrent_scan", "TestForward and within_rounding and Triton"),
    ),
    Mutant(
        "initial recurrent traces are ignored",
        "kernels/gpu/recurrent_scan.py",
        '            "HAS_TRACE": trace is not None,',
        '            "HAS_TRACE": False,',
        contract("recurrent_scan", GPU_FORWARD),
    ),
    Mutant(
        "the first step sees no s(0)",
        "kernels/gpu/spike_scan.py",
        "tl.where(u + 1 < T % U, b_next_z[u], b_first)",
        "tl.where(u < T % U, b_next_z[u], b_first)",
        contract("spike_scan", GPU_BACKWARD),
    ),
    Mutant(
        "every block begins with the first threshold",
        "kernels/gpu/surrogate.py",
        "    o_j = ((i_first % J).to(tl.int32) + tl.arange(0, BLOCK)) % J",
        "    o_j = tl.arange(0, BLOCK) % J",
        "tests/operators/test_surrogate.py -k 'within_rounding and Triton'",
    ),
    Mutant(
        "gradient of a trace lacks the decay (GPU)",
        "kernels/gpu/synaptic_current.py",
        "(b_w[k] * b_r[k] * b_x[k],)",
        "(b_w[k] * b_x[k],)",
        contract("synaptic_current", GPU_BACKWARD),
    ),
    # -- closed forms and loops -------------------------------------------------------------------
    Mutant(
        "threshold is not strict",
        "reference/lib/steps.py",
        "(distance > 0)",
        "(distance >= 0)",
        contract("spike_scan", "TestForward and threshold_is_strict and eager"),
    ),
    Mutant(
        "only the reset is subtracted",
        "reference/lib/steps.py",
        "return current - feedback.sum(1)",
        "return current - feedback[:, 0]",
        contract("spike_scan", "TestForward and within_rounding and eager"),
    ),
    Mutant(
        "previous steps are not shifted",
        "reference/lib/steps.py",
        "dim=1)[:, : steps.shape[1]]",
        "dim=1)[:, 1:]",
        contract("leaky_current", EAGER_BACKWARD),
    ),
    Mutant(
        "gradients of decay and strength are mixed",
        "reference/lib/scans.py",
        "        d_decay += g_feedback * to_decay",
        "        d_decay += g_feedback * to_strength",
        contract("spike_scan", EAGER_BACKWARD),
    ),
    Mutant(
        "initial traces are written to",
        "reference/lib/traces.py",
        ".clone(memory_format=torch.contiguous_format)",
        ".contiguous()",
        contract("synaptic_current", "TestForward and within_rounding and eager"),
    ),
    Mutant(
        "a layer's loop ignores detach_reset",
        "reference/feedforward_scan.py",
        "spike_function, detach_reset), trace",
        "spike_function), trace",
        contract("feedforward_scan", AUTOGRAD),
    ),
    Mutant(
        "gradient of c(0) does not decay",
        "reference/leaky_current.py",
        "d_current = decay.unsqueeze(1) * d_drive[:, 0]",
        "d_current = d_drive[:, 0]",
        contract("leaky_current", EAGER_BACKWARD),
    ),
    Mutant(
        "gradient of the current does not decay",
        "reference/leaky_recurrent_scan.py",
        "        d_current = row_decay * at_step",
        "        d_current = at_step",
        contract("leaky_recurrent_scan", EAGER_BACKWARD),
    ),
    Mutant(
        "gradient of the final trace is written to",
        "reference/recurrent_scan.py",
        "None if g_trace is None else g_trace.clone()",
        "None if g_trace is None else g_trace",
        contract("recurrent_scan", EAGER_BACKWARD),
    ),
    Mutant(
        "the loop ignores detach_reset",
        "reference/spike_scan.py",
        "        fed_back = spike.detach() if detach_reset else spike",
        "        fed_back = spike",
        contract("spike_scan", AUTOGRAD),
    ),
    Mutant(
        "both side lobes are on one side",
        "reference/surrogate.py",
        "_bump(u + mean, side_height",
        "_bump(u - mean, side_height",
        "tests/operators/test_surrogate.py -k 'within_rounding and eager'",
    ),
    Mutant(
        "gradient of the trace lacks the decay (closed form)",
        "reference/synaptic_current.py",
        "    d_trace = (weight * decay).unsqueeze(1) * final.mT",
        "    d_trace = weight.unsqueeze(1) * final.mT",
        contract("synaptic_current", EAGER_BACKWARD),
    ),
    # -- operators --------------------------------------------------------------------------------
    Mutant(
        "autocast rounds inside an operator",
        "ops/dispatch.py",
        "        return torch.autocast(kind, enabled=False)",
        "        return nullcontext()",
        contract("feedforward_scan", "TestForward and autocast and eager"),
    ),
    Mutant(
        "vmap swaps the outputs",
        "ops/dispatch.py",
        "        return tuple(unfold(o) for o in outputs), (0,) * len(outputs)",
        "        return tuple(unfold(o) for o in outputs[::-1]), (0,) * len(outputs)",
        "tests/test_transforms.py -k vmap_is_a_loop",
    ),
    Mutant(
        "float64 runs in kernels for float32",
        "ops/dispatch.py",
        "        if len(dtypes) == 1 and dtypes <= kernels.dtypes and usable(kernels):",
        "        if len(dtypes) == 1 and usable(kernels):",
        "tests/gpu/test_gpu_dispatch.py -k float64",
    ),
    Mutant(
        "the gradient of a gradient is silent",
        "ops/autograd.py",
        "        if torch.compiler.is_compiling() or not torch.is_grad_enabled():",
        "        if True:",
        "tests/test_transforms.py -k gradient_of_a_gradient",
    ),
    Mutant(
        "a state is a view of the spikes",
        "ops/neuron.py",
        "else before).clone()",
        "else before)",
        "tests/test_states.py",
    ),
    Mutant(
        "decays outside [0, 1] are accepted",
        "ops/checks.py",
        '    check.check_unit_interval("decay", decay)\n',
        "",
        "tests/test_functional.py -k bad_input",
    ),
    Mutant(
        "s(t) for s(t-1) in recurrent synapses",
        "ops/recurrent_scan.py",
        "            found[:, first:end] = steps[:, first - 1 : end - 1]",
        "            found[:, first:end] = steps[:, first:end]",
        contract("recurrent_scan", AUTOGRAD),
    ),
    Mutant(
        "detach_reset is ignored (recurrent_scan)",
        "ops/recurrent_scan.py",
        "rest = (spikes, weight, decay, *own, ctx.detach_reset)",
        "rest = (spikes, weight, decay, *own, False)",
        contract("recurrent_scan", AUTOGRAD),
    ),
    Mutant(
        "detach_reset is ignored (feedforward_scan)",
        "ops/feedforward_scan.py",
        "            ctx.detach_reset,\n",
        "            False,\n",
        contract("feedforward_scan", AUTOGRAD),
    ),
    Mutant(
        "detach_reset is ignored (spike_scan)",
        "ops/spike_scan.py",
        "rest = (spikes, *own, ctx.detach_reset)",
        "rest = (spikes, *own, False)",
        contract("spike_scan", AUTOGRAD),
    ),
    Mutant(
        "detach_reset is ignored (leaky_recurrent_scan)",
        "ops/leaky_recurrent_scan.py",
        "weight, decay, current, *own, ctx.detach_reset)",
        "weight, decay, current, *own, False)",
        contract("leaky_recurrent_scan", AUTOGRAD),
    ),
    Mutant(
        "gradient of the final trace does not reach decays",
        "ops/synaptic_current.py",
        "        dw, dr = raw_parameter_gradient(z, g, g_trace, weight, decay, trace)",
        "        dw, dr = raw_parameter_gradient(z, g, None, weight, decay, trace)",
        contract("synaptic_current", AUTOGRAD),
    ),
    Mutant(
        "surrogates on trial run outside trial_kernels()",
        "ops/surrogate.py",
        "if trial.allowed() else None",
        "if not trial.allowed() else None",
        "tests/gpu/test_gpu_dispatch.py -k on_trial",
    ),
    Mutant(
        "only the first branch has a gradient",
        "ops/branches.py",
        "        learned = [(t, g) for t, g in self.found if t.requires_grad]",
        "        learned = [(t, g) for t, g in self.found[:1] if t.requires_grad]",
        "tests/test_graphed_step.py -k of_branches",
    ),
    # -- layers and networks ----------------------------------------------------------------------
    Mutant(
        "decays are not clamped",
        "modules/decay.py",
        '        if self.parametrization == "clamp":',
        '        if self.parametrization == "sigmoid":',
        "tests/test_decay.py",
    ),
    Mutant(
        "negative decays are loaded as clamped",
        "modules/decay.py",
        "bool(((raw < 0) | (raw > 1)).any())",
        "bool((raw > 1).any())",
        "tests/test_bad_input.py -k 'before_the_clamp or when_loaded'",
    ),
    Mutant(
        "a fraction of frozen decays too many",
        "modules/decay.py",
        "order[: round(frozen_fraction * initial.numel())]",
        "order[: round(frozen_fraction * initial.numel()) + 1]",
        "tests/test_decay.py",
    ),
    Mutant(
        "half of a state stays loaded",
        "modules/loading.py",
        "                    tensor.copy_(value)",
        "                    tensor.add_(0)",
        "tests/test_bad_input.py -k changes_nothing",
    ),
    Mutant(
        "time constants ignore dt",
        "modules/base.py",
        "made = tau_to_decay(draw_tau(name, tau, shape, generator), self.dt)",
        "made = tau_to_decay(draw_tau(name, tau, shape, generator))",
        "tests/test_timeconstants.py -k 'asked_for or seconds'",
    ),
    Mutant(
        "self-connections are kept",
        "modules/base.py",
        "        return (self.recurrent_weight * self.self_mask).unsqueeze(0)",
        "        return self.recurrent_weight.unsqueeze(0)",
        "tests/test_layers.py -k self_connections",
    ),
    Mutant(
        "infinity in a later step goes unnoticed",
        "modules/base.py",
        "check.sums_to_finite(steps[:, -1])",
        "check.sums_to_finite(steps[:, 0])",
        "tests/test_pytorch_tools.py -k not_finite",
    ),
    Mutant(
        "thresholds may be negative",
        "modules/base.py",
        '        check.check_positive("threshold", self.threshold)\n',
        "",
        "tests/test_bad_input.py -k bad_parameters",
    ),
    Mutant(
        "time constants of recurrent synapses are ignored",
        "modules/hetsyn.py",
        'if tau_recurrent is None else ("tau_recurrent", tau_recurrent)',
        'if tau_recurrent is None else ("tau_recurrent", tau)',
        "tests/test_timeconstants.py -k recurrent_synapses",
    ),
    Mutant(
        "a tied reset does not learn",
        "modules/leaky.py",
        "        reset_decay = decay.squeeze(0) if",
        "        reset_decay = decay.squeeze(0).detach() if",
        "tests/test_layers.py -k gradients_are_the_papers",
    ),
    Mutant(
        "autocast rounds the drive of a layer",
        "modules/leaky.py",
        "    with full_precision(x.device):\n",
        "    if True:\n",
        "tests/test_states.py -k autocast",
    ),
    Mutant(
        "dropout falls on the input",
        "modules/network.py",
        "layer(self.dropout(x) if index else x, before)",
        "layer(self.dropout(x), before)",
        "tests/test_network.py -k dropout",
    ),
    Mutant(
        "time constants of the readout are ignored",
        "modules/network.py",
        "tau_last = tau if tau_readout is None else tau_readout",
        "tau_last = tau",
        "tests/test_network.py -k 'models or options'",
    ),
    # -- training tools of the library ------------------------------------------------------------
    Mutant(
        "decays learn at the rate of weights",
        "optim.py",
        "decay_lr = 2 * lr if",
        "decay_lr = lr if",
        "tests/test_optim.py",
    ),
    Mutant(
        "decays have no weight decay",
        "optim.py",
        "        decay_weight_decay = weight_decay\n",
        "        decay_weight_decay = 0.0\n",
        "tests/test_optim.py",
    ),
    Mutant(
        "a detached state shares memory",
        "states.py",
        "        return state.detach().clone()",
        "        return state.detach()",
        "tests/test_states.py -k detached_state",
    ),
    Mutant(
        "weights are scaled by the outputs",
        "initializers.py",
        "math.sqrt(shape[-1])",
        "math.sqrt(shape[0])",
        "tests/test_initializers.py",
    ),
    Mutant(
        "the mean of a log-uniform is that of a uniform",
        "initializers.py",
        "        return (self.high - self.low) / math.log(self.high / self.low)",
        "        return (self.high + self.low) / 2",
        "tests/test_initializers.py",
    ),
    Mutant(
        "decays are linear in dt",
        "timeconstants.py",
        "    return torch.exp(-dt / tau)",
        "    return 1 - dt / tau",
        "tests/test_timeconstants.py",
    ),
    Mutant(
        "time constants ignore dt on the way back",
        "timeconstants.py",
        "    return dt / torch.log(decay).abs()",
        "    return 1 / torch.log(decay).abs()",
        "tests/test_timeconstants.py",
    ),
    Mutant(
        "a sigmoid lacks its slope",
        "surrogates.py",
        "        return self.slope * sigma * (1 - sigma)",
        "        return sigma * (1 - sigma)",
        "tests/test_surrogates.py",
    ),
    Mutant(
        "a Gaussian is too narrow",
        "surrogates.py",
        "value=-0.5 / deviation**2)",
        "value=-1.0 / deviation**2)",
        "tests/test_surrogates.py",
    ),
    Mutant(
        "decays above 1 are valid",
        "validation.py",
        "not (extent[0] >= 0 and extent[1] <= 1)",
        "not (extent[0] >= 0)",
        "tests/test_bad_input.py -k bad_parameters",
    ),
    Mutant(
        "a later bad step takes the place of the first",
        "graphed_step.py",
        "torch.where(bad.any() & ~earlier, now",
        "torch.where(bad.any(), now",
        "tests/test_graphed_step.py",
    ),
    Mutant(
        "a graph keeps its first learning rate",
        "graphed_step.py",
        '                rate.fill_(group["lr"])',
        "                pass",
        "tests/test_graphed_step.py -k learning_rate",
    ),
    Mutant(
        "a step does not clamp decays",
        "graphed_step.py",
        "            clamp_decays_(self.network)\n",
        "",
        "tests/test_graphed_step.py",
    ),
    # -- runs -------------------------------------------------------------------------------------
    Mutant(
        "a file is renamed before it is on the disk",
        "experiments/files.py",
        "            os.fsync(file.fileno())\n",
        "",
        "tests/training/test_training_folder.py -k on_the_disk",
    ),
    Mutant(
        "a failed writer leaves its partial file",
        "experiments/files.py",
        "        partial.unlink(missing_ok=True)\n",
        "",
        "tests/training/test_training_folder.py -k fails_halfway",
    ),
    Mutant(
        "a damaged file is read",
        "experiments/sealed.py",
        "    if seal(content) != sealed:",
        "    if seal(content) == b'':",
        "tests/training/test_training_checkpoint.py -k 'seal or flipped'",
    ),
    Mutant(
        "a checkpoint can run code",
        "experiments/training/checkpoint.py",
        "weights_only=True)",
        "weights_only=False)",
        "tests/training/test_training_checkpoint.py -k is_not_run",
    ),
    Mutant(
        "a compressed checkpoint is read",
        "experiments/training/checkpoint.py",
        "        _check_stored(content)\n",
        "",
        "tests/training/test_training_checkpoint.py -k expand",
    ),
    Mutant(
        "moments of the optimizer are not restored",
        "experiments/training/restore.py",
        "        optimizer.load_state_dict(state)",
        "        pass",
        "tests/training/test_training_run.py -k interrupted_epoch",
    ),
    Mutant(
        "a checkpoint after the last batch is accepted",
        "experiments/training/restore.py",
        "    if checkpoint.batch >= allowed:",
        "    if checkpoint.batch > allowed:",
        "tests/training/test_training_checkpoint.py -k cannot_go_on",
    ),
    Mutant(
        "a run goes on with another seed",
        "experiments/training/restore.py",
        'MOVABLE = ("data_dir", "device", "threads")',
        'MOVABLE = ("data_dir", "device", "threads", "seed")',
        "tests/training/test_training_checkpoint.py -k wrong_content",
    ),
    Mutant(
        "dropout is the same in every step",
        "experiments/training/trainer.py",
        'derived_seed(self.config.seed, "dropout", self.step, *other)',
        'derived_seed(self.config.seed, "dropout", *other)',
        "tests/training/test_training_run.py -k dropout_differs",
    ),
    Mutant(
        "metrics are written before the checkpoint",
        "experiments/training/trainer.py",
        "                self.save(folder)\n                if self.ranks.first:\n"
        "                    append_json_line(folder / METRICS, record)\n",
        "                if self.ranks.first:\n"
        "                    append_json_line(folder / METRICS, record)\n"
        "                self.save(folder)\n",
        "tests/training/test_training_run.py -k before_the_metrics",
    ),
    Mutant(
        "a resumed run counts its steps from 0",
        "experiments/training/trainer.py",
        "        self.train_step.steps = self.step\n",
        "",
        "tests/training/test_training_run.py -k 'bad_step or last_good'",
    ),
    Mutant(
        "seconds before an interruption are lost",
        "experiments/training/trainer.py",
        "        self.seconds = checkpoint.seconds\n",
        "",
        "tests/training/test_training_run.py -k keeps_its_seconds",
    ),
    Mutant(
        "weights of the best epoch go on learning",
        "experiments/training/trainer.py",
        "{n: value.detach().clone() for n, value",
        "{n: value.detach() for n, value",
        "tests/training/test_training_selection.py -k weights_of_the_best",
    ),
    Mutant(
        "the first step has a learning rate of 0",
        "experiments/training/schedule.py",
        "        return (now + 1) / rising",
        "        return now / rising",
        "tests/training/test_training_config.py -k learning_rate",
    ),
    Mutant(
        "a cosine ends after the run",
        "experiments/training/schedule.py",
        "max(1, total - rising)",
        "max(1, total)",
        "tests/training/test_training_config.py -k learning_rate",
    ),
    Mutant(
        "the worst epoch of a falling score is the best",
        "experiments/training/selection.py",
        "sign = 1 if task.score is None or task.score_falls else -1",
        "sign = 1 if task.score is None else -1",
        "tests/training/test_training_selection.py -k by_hand",
    ),
    Mutant(
        "files in the way are found after the start",
        "experiments/training/run_folder.py",
        "            check_empty(folder)\n    except OSError as error:",
        "            pass\n    except OSError as error:",
        "tests/training/test_training_run.py -k bad_run_folder",
    ),
    Mutant(
        "two runs write into one folder",
        "experiments/training/claim.py",
        "            check_empty(folder)  # again, because another run may have been faster\n",
        "",
        "tests/training/test_training_folder.py -k came_first",
    ),
    Mutant(
        "a mean does not weigh its batches",
        "experiments/training/measure.py",
        "self._sums.get(name, 0.0) + value * samples",
        "self._sums.get(name, 0.0) + value",
        "tests/training/test_training_run.py -k weighted_by_samples",
    ),
    # -- studies ----------------------------------------------------------------------------------
    Mutant(
        "an interval of 90 %",
        "experiments/studies/statistics.py",
        "inv_cdf(0.975)",
        "inv_cdf(0.95)",
        "tests/studies/test_studies_statistics.py",
    ),
    Mutant(
        "a deviation divides by n",
        "experiments/studies/statistics.py",
        "statistics.stdev(values)",
        "statistics.pstdev(values)",
        "tests/studies/test_studies_inputs.py -k means_over_seeds",
    ),
    Mutant(
        "the worst of a table is marked as chosen",
        "experiments/studies/statistics.py",
        "best = (min if falls else max)",
        "best = (max if falls else min)",
        "tests/studies/test_studies_measures.py -k time_constant_is_chosen",
    ),
    Mutant(
        "a study goes on beside another",
        "experiments/studies/runner.py",
        '    with claim_folder(path, "study"):',
        '    with claim_folder(path / "runs", "study"):',
        "tests/studies/test_studies_run.py -k at_work",
    ),
    Mutant(
        "more jobs than cores",
        "experiments/studies/runner.py",
        "    most = max(1, most // threads)",
        "    most = max(1, most * threads)",
        "tests/studies/test_studies_run.py -k bad_input",
    ),
    Mutant(
        "a deviation is not in percent",
        "experiments/studies/tables.py",
        "{100 * deviation:.2f} %",
        "{deviation:.2f} %",
        "tests/studies/test_studies_tables.py",
    ),
    # -- tasks and readers ------------------------------------------------------------------------
    Mutant(
        "an idx file may be too long",
        "experiments/tasks/idx.py",
        "    if len(content) > wanted:",
        "    if len(content) > wanted + 1:",
        "tests/training/test_training_idx.py -k broken",
    ),
    Mutant(
        "labels are read as images",
        "experiments/tasks/idx.py",
        "code not in TYPES or found != dimensions",
        "code not in TYPES",
        "tests/training/test_training_idx.py -k broken",
    ),
    Mutant(
        "negative times are accepted",
        "experiments/tasks/heidelberg.py",
        "(seconds >= 0) & (seconds <= LONGEST_S)",
        "(seconds <= LONGEST_S)",
        "tests/tasks/test_tasks_shd.py -k damaged",
    ),
    Mutant(
        "a class beyond the last is accepted",
        "experiments/tasks/heidelberg.py",
        "0 <= label < classes",
        "0 <= label <= classes",
        "tests/tasks/test_tasks_shd.py -k damaged",
    ),
    Mutant(
        "HETSYN_DATA goes before data_dir",
        "experiments/tasks/folders.py",
        "    if folder is None and home is not None and root:",
        "    if home is not None and root:",
        "tests/tasks/test_tasks_shd.py tests/tasks/test_tasks_pixels.py",
    ),
    Mutant(
        "binned spikes are a step late",
        "experiments/tasks/events.py",
        "(events.times + (width_us - 1))",
        "(events.times + width_us)",
        "tests/tasks/test_tasks_shd.py -k binning",
    ),
    Mutant(
        "only the first audio channel is read",
        "experiments/tasks/audio/reading.py",
        "samples.mean(axis=1)",
        "samples[:, 0]",
        "tests/audio/test_audio_reading.py -k averaged",
    ),
    Mutant(
        "chunks of odd length have no padding",
        "experiments/tasks/audio/headers.py",
        "        place += length + -length % container.unit",
        "        place += length",
        "tests/audio/test_audio_reading.py -k odd_length",
    ),
    Mutant(
        "a truncated recording is read",
        "experiments/tasks/audio/headers.py",
        "    _check_size(path, promised, size - header)",
        "    _check_size(path, promised, size)",
        "tests/audio/test_audio_reading.py -k truncated",
    ),
    Mutant(
        "levels are compared with 14 thresholds",
        "experiments/tasks/audio/crossings.py",
        "np.floor(kept * (THRESHOLDS + 1))",
        "np.floor(kept * THRESHOLDS)",
        "tests/audio/test_audio_encoder.py -k 'crossings or levels'",
    ),
    Mutant(
        "the window is not periodic",
        "experiments/tasks/audio/bands.py",
        "np.hanning(WINDOW + 1)[:-1]",
        "np.hanning(WINDOW)",
        "tests/audio/test_audio_encoder.py -k 'power or sine'",
    ),
    Mutant(
        "spikes of a changed file are cached",
        "experiments/tasks/audio/cache.py",
        "    if _key(folder, names, encoder) == key:",
        "    if key:",
        "tests/audio/test_audio_cache.py -k changed_while",
    ),
    Mutant(
        "rows of an image are repeated as a whole",
        "experiments/tasks/digits.py",
        'values.transpose(0, 1).repeat_interleave(self.option["hold"], dim=0)',
        'values.transpose(0, 1).repeat(self.option["hold"], 1, 1)',
        "tests/training/test_training_tasks.py -k row_by_row",
    ),
    Mutant(
        "other images are shifted",
        "experiments/tasks/digits.py",
        "generator=generator) >= part] = 1",
        "generator=generator) >= part] = 0",
        "tests/training/test_training_tasks.py -k by_a_pixel",
    ),
    Mutant(
        "the delay is between the beginnings of the cues",
        "experiments/tasks/delayed_match.py",
        'SILENCE + CUE + int(self.option["delay"]) // DT_MS',
        'SILENCE + int(self.option["delay"]) // DT_MS',
        "tests/tasks/test_tasks_delayed_match.py -k protocol",
    ),
    Mutant(
        "training trials repeat in each epoch",
        "experiments/tasks/delayed_match.py",
        'seeded_generator(self.seed, "trials", epoch, index)',
        'seeded_generator(self.seed, "trials", index)',
        "tests/tasks/test_tasks_delayed_match.py -k share_no_trial",
    ),
    Mutant(
        "the slowest cosine of a curve is a constant",
        "experiments/tasks/pattern_generation.py",
        "torch.arange(1, COSINES + 1)",
        "torch.arange(COSINES)",
        "tests/tasks/test_tasks_pattern_generation.py -k curves",
    ),
    Mutant(
        "noise repeats in each epoch",
        "experiments/tasks/pattern_generation.py",
        'stream = ("noise", epoch, number)',
        'stream = ("noise", number)',
        "tests/training/test_training_tasks.py -k seed_epoch_and_number",
    ),
    Mutant(
        "a limit leaves out the first images",
        "experiments/tasks/pixels.py",
        "(tensor[:limit] for tensor in splits[name])",
        "(tensor[limit:] for tensor in splits[name])",
        "tests/tasks/test_tasks_pixels.py",
    ),
    Mutant(
        "purposes share their random numbers",
        "experiments/tasks/seeds.py",
        "zlib.crc32(part.encode()) if isinstance(part, str) else part for part in stream",
        "len(part) if isinstance(part, str) else part for part in stream",
        "tests/training/test_training_tasks.py -k seed_and_purpose",
    ),
)


QUICK = (
    "threshold is not strict",
    "a share does not round as its caller",
    "threshold is not strict (GPU)",
    "detach_reset is ignored (recurrent_scan)",
    "half of a state stays loaded",
    "decays have no weight decay",
    "a file is renamed before it is on the disk",
    "a checkpoint can run code",
    "an interval of 90 %",
    "an idx file may be too long",
)
"""Names of those that tests/test_mutants.py runs: fast ones, of different parts."""


def copy_of_checkout(folder: Path) -> Path:
    """Copy what git lists to `folder` and return it."""
    names = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True
    )
    for name in filter(None, names.stdout.split("\0")):
        if (ROOT / name).is_file() or (ROOT / name).is_symlink():  # kernels and reference are links
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target, follow_symlinks=False)
    return folder


def first_failure(checkout: Path, arguments: Sequence[str], **variables: str) -> str | None:
    """Run pytest until a test fails; return the name of the test, or what else went wrong."""
    paths = [str(checkout), os.environ.get("PYTHONPATH", "")]
    options = ("-xq", "-rfE", "--tb=no", "-pno:cacheprovider")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *arguments],
        cwd=checkout,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)} | variables,
        capture_output=True,
        text=True,
    )
    if done.returncode in (NO_SUCH_FILE, NO_TEST):
        raise SystemExit(f"pytest {shlex.join(arguments)}: {done.stdout[-2000:]}{done.stderr}")
    found = re.search(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", done.stdout, re.MULTILINE)
    if done.returncode == 0:
        return None
    return found.group(1) if found else f"pytest ended with {done.returncode}"


def all_tests(mutants: Sequence[Mutant]) -> list[str]:
    """Return the arguments for one run of the tests of all mutants."""
    files, chosen = set(), set()
    for mutant in mutants:
        words = shlex.split(mutant.tests)
        given, condition = (words[:-2], words[-1]) if "-k" in words else (words, None)
        files |= set(given)
        names = [Path(file).name for file in given]
        chosen |= {f"({name} and ({condition}))" if condition else name for name in names}
    return [*sorted(files), "-k", " or ".join(sorted(chosen))]


def survives(mutant: Mutant, checkout: Path) -> bool:
    """Break the line in `checkout`, run the tests, mend it, and print what happened."""
    began = time.monotonic()
    file = checkout / LIBRARY / mutant.file
    text = file.read_text()
    times = text.count(mutant.right)
    if times != 1:
        raise SystemExit(f"{mutant.file}: expected {mutant.right!r} once, got it {times} times")
    file.write_text(text.replace(mutant.right, mutant.wrong))
    try:
        with tempfile.TemporaryDirectory() as compiled:  # nobody needs broken kernels later
            own = {"NUMBA_CACHE_DIR": compiled} if mutant.file.startswith("kernels/cpu") else {}
            found = first_failure(checkout, shlex.split(mutant.tests), **own)
    finally:
        file.write_text(text)
    seconds = time.monotonic() - began
    print(f"{mutant.file}: {mutant.name}: {found or 'MISSED'} ({seconds:.0f} s)", flush=True)
    return found is None


def run(mutants: Sequence[Mutant]) -> int:
    """Run the tests unbroken, then with each mutant; return the number that no test noticed."""
    with tempfile.TemporaryDirectory() as made:
        checkout = copy_of_checkout(Path(made))
        broken = first_failure(checkout, all_tests(mutants))
        if broken:
            raise SystemExit(f"fails without a mutant: {broken}")
        return sum(survives(mutant, checkout) for mutant in mutants)


def main() -> int:
    """Run the mutants; return the number that no test noticed."""
    names = sys.argv[1:] or [""]
    return run([m for m in MUTANTS if any(name in f"{m.file}: {m.name}" for name in names)])


if __name__ == "__main__":
    raise SystemExit(main())
