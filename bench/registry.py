"""List the works to measure, their sizes and contenders, for all programs of bench.

Sizes: T steps, B samples, I inputs, J neurons. Multiply-adds per synapse, sample and step: 2
forward, 2 for dz, 4 for dw and dr. This module imports neither torch nor the library.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from tests.support.operators import OPERATORS, Operator

STEPS = 250
SHD = (700, 128, 64, 20)
"""Sizes of the paper's network for the Spiking Heidelberg Digits."""
FMA = {"forward": 2, "backward": 6, "both": 8}
PARTS = tuple(FMA)
"""`forward` runs without autograd, `backward` on a kept graph. `both` is forward and the gradients
of input, weights and decays, as in training."""

CPU_OPERATORS = tuple(sorted(OPERATORS, key=lambda name: not OPERATORS[name].multiply_adds[0]))
"""Operators with synapses come first; the others only move bytes."""


def table_of(operator: str) -> Operator:
    """Return the operator in the table of a variant (`_fused`) or of a single surrogate."""
    for variant in ("_fused", "_split", "_by_steps", "_on_trial"):
        operator = operator.removesuffix(variant)
    return OPERATORS["surrogate" if operator.startswith("surrogate") else operator]


@dataclass(frozen=True)
class Work:
    """A computation that any contender can do.

    kind: "layer"; "current", a synaptic current, whose error over time is measured; "synapses",
    recurrent synapses over a given current; "network", a training step with optimizer and clamp;
    "replicas", a training step of `R` small networks; "operator", an operator as a layer calls it;
    "kernel", the GPU launcher of an operator.
    """

    kind: str
    T: int
    B: int
    I: int  # noqa: E741 - the field's letter
    J: int
    recurrent: bool = False
    part: str = "both"
    hidden: tuple[int, ...] = ()
    """Sizes of a network's hidden layers; I and J are its inputs and outputs."""
    R: int = 1
    operator: str = ""

    @property
    def name(self) -> str:
        sizes = f"T{self.T} B{self.B}"
        shape = f"{self.I}->{self.J}{'r' * self.recurrent}"
        if self.kind == "replicas":
            return f"{self.R} networks {self.I}-{self.J}{'r' * self.recurrent} {sizes}"
        if self.kind == "synapses":
            return f"recurrent synapses {self.J} {sizes} {self.part}"
        if self.operator:
            return f"{self.kind} {self.operator} {shape} {sizes}"
        if self.kind == "network":
            shape = "-".join([str(self.I), *(f"{h}r" for h in self.hidden), str(self.J)])
        return f"{self.kind} {shape} {sizes} {self.part}"

    @property
    def synapses(self) -> int:
        if self.kind == "network":
            forward = sum(a * b for a, b in pairwise((self.I, *self.hidden, self.J)))
            return forward + sum(h * h for h in self.hidden)
        if self.kind == "synapses" or self.operator:
            return self.I * self.J
        return self.I * self.J + (self.J * self.J if self.recurrent else 0)

    @property
    def fma(self) -> int:
        """Multiply-adds that the equations need; 0 for replicas and work that only moves bytes."""
        if self.kind == "replicas":
            return 0
        if self.kind == "network":  # training needs no gradient of the input
            return self.T * self.B * (8 * self.synapses - 2 * self.I * self.hidden[0])
        need = table_of(self.operator).multiply_adds[0] if self.operator else FMA[self.part]
        return need * self.T * self.B * self.synapses


# -- sizes -----------------------------------------------------------------------------------------

CPU_LAYERS = ((8, 700, 128), (32, 128, 64), (8, 100, 100))
"""Samples, inputs, neurons."""
GPU_LAYERS = ((700, 128), (128, 64))
GPU_SAMPLES = (256, 32)
GPU_RECURRENT = (128, 64, 256, 512)
"""Neurons of the works of recurrent synapses."""
PIXELS = (784, 256, 1, 64)
"""S-MNIST, one pixel a step: steps, samples, inputs, neurons."""


def operators() -> list[tuple[str, int, int, int, int]]:
    """Return the GPU kernels to compile and measure: operator, I, J, T, B."""
    found = []
    synaptic = ("synaptic_current", "synaptic_current_backward", "synaptic_parameter_gradient")
    layers = ("feedforward_scan_fused", "feedforward_scan_split")
    scans = ("spike_scan", "spike_scan_backward")
    both = ("recurrent_scan", "recurrent_scan_backward")
    for B in sorted(GPU_SAMPLES):
        for I, J in GPU_LAYERS:  # noqa: E741
            found += [(o, I, J, STEPS, B) for o in (*synaptic, *layers)]
        found += [(o, J, J, STEPS, B) for _, J in GPU_LAYERS for o in scans]
        found += [(o, J, J, STEPS, B) for J in sorted(GPU_RECURRENT) for o in both]
        # The readout of the SHD network, and its recurrent layer's gradient.
        found += [(o, SHD[-2], SHD[-1], STEPS, B) for o in synaptic]
        found += [("synaptic_parameter_gradient", SHD[1], SHD[1], STEPS, B)]
    T, B, I, J = PIXELS  # noqa: E741
    found += [(o, I, J, T, B) for o in (*synaptic, *layers)]
    found += [(o, J, J, T, B) for o in both]
    return found


# -- growth ----------------------------------------------------------------------------------------

BASE = {"T": 256, "B": 8, "I": 128, "J": 128}
AXES = {
    "T": (512, 1024, 2048, 4096, 8192),
    "B": (16, 32, 64, 128, 256),
    "I": (512, 1024, 2048, 4096, 8192),
    "J": (256, 512, 1024, 2048, 4096),
}
"""Each axis doubles four times; other sizes are as in BASE. The growing part dominates a call."""
RECURRENT = {"T": AXES["T"], "B": AXES["B"], "J": (256, 384, 512, 768, 1024)}
"""J neurons have J^2 synapses. In this range their states outgrow one of a CPU's caches."""


# -- works -----------------------------------------------------------------------------------------

MAIN = Work("layer", STEPS, 8, 700, 128)
COMPARED = [
    MAIN,
    replace(MAIN, part="forward"),
    replace(MAIN, part="backward"),
    replace(MAIN, recurrent=True),
]
"""Works of every contender, in both sets of a CPU."""
MORE_COMPARED = [
    Work("layer", STEPS, B, I, J, recurrent)
    for B, I, J in CPU_LAYERS[1:]  # noqa: E741
    for recurrent in (False, True)
]
NETWORK = Work("network", STEPS, 32, SHD[0], SHD[-1], part="step", hidden=SHD[1:-1])
CURRENT = Work("current", 2000, 2, 200, 64, part="forward")
FIXED = [Work("layer", 1, 1, 64, 64, part=part) for part in ("forward", "both")]
"""One step of one sample: the fixed cost of a call."""
REPLICAS = [Work("replicas", 100, 32, 30, neurons, True, "step", R=10) for neurons in (5, 20)]
MORE_REPLICAS = [
    replace(REPLICAS[0], J=neurons, R=R) for R in (10, 50) for neurons in (5, 10, 20, 50, 100)
]
QUICK_GROWTH = 3
"""Number of sizes of each axis: 2 doublings."""


def _sweep() -> list[Work]:
    """Vary each size of MAIN, feedforward and recurrent."""
    found = []
    for recurrent in (False, True):
        base = replace(MAIN, recurrent=recurrent)
        around = [replace(base, I=n) for n in (100, 2000)]
        around += [replace(base, J=n) for n in (32, 512)]
        around += [replace(base, T=n) for n in (50, 1000)]
        around += [replace(base, B=n) for n in (1, 32)]
        around += [work for work in MORE_COMPARED if work.recurrent == recurrent]
        found += [replace(work, part=part) for work in around for part in PARTS]
    return [work for work in found if work not in MORE_COMPARED]


def _cpu_operators() -> list[Work]:
    return [_operator("operator", o, STEPS, *size) for o in CPU_OPERATORS for size in CPU_LAYERS]


def _operator(kind: str, name: str, T: int, B: int, I: int, J: int) -> Work:  # noqa: E741
    synaptic = table_of(name).multiply_adds[1] == "RTBJI"
    inputs = I if synaptic else J
    return Work(kind, T, B, inputs, J, part=name, operator=name)


def gpu_works() -> list[Work]:
    """Return the works of a GPU, the most important first, because a budget cuts off the last."""
    pixels, samples, I, J = PIXELS  # noqa: E741
    layers = [
        Work("layer", STEPS, B, I, J, part=part)
        for I, J in GPU_LAYERS  # noqa: E741
        for B in GPU_SAMPLES
        for part in ("both", "forward", "backward")
    ]
    recurrent = [
        Work("layer", STEPS, B, J, J, True) for J in GPU_RECURRENT[:1] for B in GPU_SAMPLES
    ]
    synapses = [Work("synapses", STEPS, B, J, J, True) for J in GPU_RECURRENT for B in GPU_SAMPLES]
    kernels = [_operator("kernel", o, T, B, I, J) for o, I, J, T, B in operators()]  # noqa: E741
    pixel = Work("layer", pixels, samples, I, J, True)
    first = [NETWORK, *layers[:6], *recurrent, *FIXED]
    return [*first, *synapses, pixel, *layers[6:], *kernels]


def published(device: str) -> set[str]:
    """Return the names of the passes in the README's table of a "cpu" or "cuda" device."""
    works = gpu_works() if device == "cuda" else [*COMPARED, *MORE_COMPARED, NETWORK]
    kinds, parts = ("layer", "network"), ("both", "step")
    return {w.name for w in works if w.kind in kinds and w.part in parts and w not in FIXED}


# -- contenders ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Entry:
    """A measurement: a contender and its work. The entries of a group are interleaved."""

    group: str
    label: str
    work: Work
    contender: str

    @property
    def id(self) -> str:
        """Name of the test, for `-k`: layer-700-128r-T250-B8-both-closed-forms."""
        words = f"{self.group} {self.label}".replace("->", "-").replace(",", "").replace(".", "-")
        return words.replace(" ", "-")


def _comparison(work: Work, names: Iterable[str]) -> list[Entry]:
    return [Entry(work.name, name, work, name) for name in names]


OURS, CLOSED, REFERENCE = "hetsyn_triton", "closed forms", "reference loop"
BACKENDS = (OURS, CLOSED, REFERENCE)
FEWER, OURS_GRAPH = "hetsyn_triton, z and w", "hetsyn_triton in a graph"
"""A layer with `learn_decay=False`; this library in a CUDA graph."""
LOOP, COMPILED, CHECKPOINTED = "loop", "compiled", "checkpointed"
GRAPH, COMPILED_GRAPH = "graph", "compiled graph"
CAPTURED = {OURS_GRAPH: OURS, GRAPH: LOOP, COMPILED_GRAPH: COMPILED}
"""Contenders in a CUDA graph -> the same without a graph."""
LOOPS = (REFERENCE, LOOP, COMPILED, CHECKPOINTED)
"""Contenders that compute step by step under autograd."""
PLAIN = ("spikingjelly", "snntorch", "norse")
LSTM, GRU = "nn.LSTM", "nn.GRU"
OTHERS = (*PLAIN, LSTM, GRU)
"""Other models, which compute less or something else."""
GPU_OTHERS = (LSTM, GRU, "spikingjelly", "snntorch")
"""With cuDNN, and with the CUDA or Triton kernels that SpikingJelly selects."""
PER_STEP = "memory of a step, feedforward"
SQUARE = (128, 256, 512, 1024)
GROWTH = "growth with "
"""Prefix of the groups of growth; the axis and the form follow."""
TOGETHER, ONE_BY_ONE = "together", "one after another"

CONTENDERS = {
    "forward": (*BACKENDS, LOOP, *OTHERS),
    "backward": (OURS, CLOSED, LOOP),
    "both": (*BACKENDS, FEWER, LOOP, COMPILED, CHECKPOINTED, *OTHERS),
    "step": (OURS, LOOP, COMPILED, CHECKPOINTED),
}
GPU_CONTENDERS = {
    "forward": (OURS, LOOP, COMPILED, GRAPH, *GPU_OTHERS),
    "backward": (OURS, LOOP),
    "both": (OURS, OURS_GRAPH, LOOP, COMPILED, GRAPH, COMPILED_GRAPH, *GPU_OTHERS),
    "step": (OURS, OURS_GRAPH, LOOP, COMPILED, GRAPH, COMPILED_GRAPH),
}
KERNEL_BASELINES = {
    "synaptic_current": (LOOP, GRAPH),
    "synaptic_current_backward": (LOOP,),
    "synaptic_parameter_gradient": (LOOP,),
    "recurrent_scan": (LOOP, GRAPH),
}
"""Loops that do the work of a kernel. A CUDA graph cannot capture a backward pass alone."""


def _gpu_comparison(work: Work) -> list[Entry]:
    if work in FIXED:
        return _comparison(work, (OURS, GRU))
    if work.kind == "kernel":
        return _comparison(work, (OURS, *KERNEL_BASELINES.get(work.operator, ())))
    chosen = GPU_CONTENDERS[work.part]
    return _comparison(work, (c for c in chosen if work.kind == "layer" or c not in OTHERS))


def _growth(
    recurrent: bool, axes: dict[str, tuple[int, ...]], base: dict[str, int] = BASE
) -> list[Entry]:
    """Return layers over the sizes of each axis, forward and backward; recurrent: one input."""
    form, base = ("recurrent", base | {"I": 1}) if recurrent else ("feedforward", base)
    return [
        Entry(
            f"{GROWTH}{axis}, {form}",
            f"{axis} {size}",
            Work("layer", **(base | {axis: size}), recurrent=recurrent),  # type: ignore[arg-type]
            OURS,
        )
        for axis, sizes in axes.items()
        for size in sizes
    ]


def _per_step(neurons: Iterable[int], steps: Sequence[int]) -> list[Entry]:
    """Return layers N -> N at two lengths, for the memory of a step: O(I J) would show here."""
    return [
        Entry(PER_STEP, f"N {N} T {T}", Work("layer", T, 8, N, N), OURS)
        for N in neurons
        for T in steps
    ]


def entries(full: bool, device: str = "cpu") -> list[Entry]:
    """Return the entries of `pytest --benchmark` on a "cpu" or "cuda" device, quick or `full`."""
    if device == "cuda":
        found = [e for work in gpu_works() for e in _gpu_comparison(work)]
    else:
        works = COMPARED + ([*MORE_COMPARED, NETWORK] if full else [])
        found = [e for work in works for e in _comparison(work, CONTENDERS[work.part])]
        if not full:  # compiling one size takes 1/6 of the quick set's time
            found = [e for e in found if e.contender != COMPILED or e.work == MAIN]
        for work in FIXED:
            found += _comparison(work, (OURS, GRU))
    if device == "cpu" or full:
        found += _comparison(CURRENT, (OURS, CLOSED, LOOP))
    if full:
        seen = {e.work for e in found}
        for work in _sweep():
            found += _comparison(work, (OURS, CLOSED, LOOP)) if work not in seen else []
    if full and device == "cpu":
        found += [e for work in _cpu_operators() for e in _comparison(work, (OURS,))]
    if device == "cpu" or full:
        for work in MORE_REPLICAS if full else REPLICAS:
            found += _comparison(work, (TOGETHER, ONE_BY_ONE))
        most = None if full else QUICK_GROWTH
        found += _per_step(SQUARE[:most], (256, 512))
        for recurrent, axes in ((False, AXES), (True, RECURRENT)):
            found += _growth(recurrent, {axis: sizes[:most] for axis, sizes in axes.items()})
    return found


def rehearsed() -> list[Entry]:
    """Return every kind of entry and every contender in tiny sizes, to test the benchmark."""
    layer = Work("layer", 4, 2, 5, 4)
    works = [replace(layer, part=part) for part in PARTS]
    works += [replace(layer, recurrent=True)]
    works += [Work("network", 4, 2, 5, 3, part="step", hidden=(4, 4))]
    found = []
    for work in works:
        found += _comparison(
            work, dict.fromkeys((*CONTENDERS[work.part], *GPU_CONTENDERS[work.part]))
        )
    for work in FIXED:
        found += _comparison(work, (OURS, GRU))
    found += _gpu_comparison(Work("synapses", 3, 2, 4, 4, True))
    for name in dict.fromkeys(operator for operator, *_ in operators()):
        found += _gpu_comparison(_operator("kernel", name, 2, 1, 4, 3))
    for name in CPU_OPERATORS:
        found += _comparison(_operator("operator", name, 3, 2, 5, 4), (OURS,))
    found += _comparison(Work("current", 16, 2, 5, 4, part="forward"), (OURS, CLOSED, LOOP))
    found += _comparison(replace(REPLICAS[0], T=30, B=2, R=2), (TOGETHER, ONE_BY_ONE))
    found += _per_step((64, 128, 256), (50, 150))
    tiny = {"T": 4, "B": 2, "I": 5, "J": 4}
    return found + _growth(False, dict.fromkeys(AXES, (4, 8, 16)), tiny)
