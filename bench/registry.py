"""What is measured, and at which sizes: one list for predictions and measurements.

A work is one piece of work, whoever does it. `cases.py` makes kernels' calls of the operators here
(for `codegen.py` and `gpu.py`), `rows.py` what `gpu.py` times, `cpu_rows.py` what `cpu.py` times,
`contests.py` what `pytest --benchmark` times. Nothing here imports anything but Python.

Sizes: T steps, B samples, I inputs, J neurons. Multiply-adds needed for a synapse, sample and step:
2 forward, 2 for dz, 4 for dw and dr.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

STEPS = 250
SHD = (700, 128, 64, 20)
"""Sizes of the paper's network for the Spiking Heidelberg Digits."""
FMA = {"forward": 2, "backward": 6, "both": 8}
PARTS = tuple(FMA)
"""`forward` without a tape, `backward` on a tape that is kept, `both` as in training: forward and
the gradients of input, weights and decays."""


@dataclass(frozen=True)
class Work:
    """One piece of work.

    kind: "layer"; "current", the synaptic current alone, in whose error over time rounding shows;
    "network", a training step with optimizer and clamp; "replicas", a training step of `R` small
    networks.
    """

    kind: str
    T: int
    B: int
    I: int  # noqa: E741 - the field's letter
    J: int
    recurrent: bool = False
    part: str = "both"
    hidden: tuple[int, ...] = ()
    """Of a network, whose I and J are its inputs and outputs."""
    R: int = 1

    @property
    def name(self) -> str:
        if self.kind == "replicas":
            return f"{self.R} networks {self.I}-{self.J}{'r' * self.recurrent} T{self.T} B{self.B}"
        shape = f"{self.I}->{self.J}{'r' * self.recurrent}"
        if self.kind == "network":
            shape = network_name((self.I, *self.hidden, self.J))
        return f"{self.kind} {shape} T{self.T} B{self.B} {self.part}"

    @property
    def synapses(self) -> int:
        if self.kind == "network":
            return network_synapses((self.I, *self.hidden, self.J))
        return self.I * self.J + (self.J * self.J if self.recurrent else 0)

    @property
    def fma(self) -> int:
        """Multiply-adds the mathematics needs; of replicas not counted."""
        if self.kind == "replicas":
            return 0
        if self.kind == "network":
            return network_fma(self.T, self.B, (self.I, *self.hidden, self.J))
        return FMA[self.part] * self.T * self.B * self.synapses


def network_name(sizes: Sequence[int]) -> str:
    """As 700-128r-64r-20."""
    inputs, *hidden, classes = sizes
    return "-".join([str(inputs), *(f"{h}r" for h in hidden), str(classes)])


def network_synapses(sizes: Sequence[int]) -> int:
    return sum(a * b for a, b in pairwise(sizes)) + sum(h * h for h in sizes[1:-1])


def network_fma(T: int, B: int, sizes: Sequence[int]) -> int:
    """Multiply-adds of a training step. Nobody asks for the gradient of the input."""
    return T * B * (8 * network_synapses(sizes) - 2 * sizes[0] * sizes[1])


# -- cpu.py and gpu.py -----------------------------------------------------------------------------

CPU_LAYERS = ((8, 700, 128), (32, 128, 64), (8, 100, 100))
"""Samples, inputs, neurons."""
CPU_NETWORK = (32, SHD)
GPU_LAYERS = ((700, 128), (128, 64))
GPU_SAMPLES = (256, 32)
GPU_RECURRENT = (128, 64, 256, 512)
"""Neurons of the recurrent synapses by themselves."""
PIXELS = (784, 256, 1, 64)
"""S-MNIST, one pixel a step: steps, samples, inputs, neurons."""


def operators() -> list[tuple[str, int, int, int, int]]:
    """What predictions and measurements of GPU kernels are published for: operator, I, J, T, B."""
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
"""Sizes double four times, all else as in BASE, from where what grows is most of a call."""
RECURRENT = {"T": AXES["T"], "B": AXES["B"], "J": (256, 384, 512, 768, 1024)}
"""J neurons have J^2 synapses; in between their states leave one of a CPU's caches."""


def axis_works(axis: str, recurrent: bool, sizes: tuple[int, ...]) -> list[Work]:
    """A layer, forward and all gradients, over the sizes of one axis; recurrent: one input."""
    base = BASE | ({"I": 1} if recurrent else {})
    return [
        Work("layer", **(base | {axis: size}), recurrent=recurrent)  # type: ignore[arg-type]
        for size in sizes
    ]


# -- pytest --benchmark ----------------------------------------------------------------------------

MAIN = Work("layer", STEPS, 8, 700, 128)
RIVALRY = [
    MAIN,
    replace(MAIN, part="forward"),
    replace(MAIN, part="backward"),
    replace(MAIN, recurrent=True),
]
"""Against every rival, always."""
MORE_RIVALRY = [Work("layer", STEPS, 32, 128, 64), Work("layer", STEPS, 32, 128, 64, True)]
NETWORK = Work("network", STEPS, 32, SHD[0], SHD[-1], part="step", hidden=SHD[1:-1])
CURRENT = Work("current", 2000, 2, 200, 64, part="forward")
REPLICAS = [Work("replicas", 100, 32, 30, neurons, True, "step", R=10) for neurons in (5, 20)]
MORE_REPLICAS = [
    replace(REPLICAS[0], J=neurons, R=R) for R in (10, 50) for neurons in (5, 10, 20, 50, 100)
]
QUICK_GROWTH = 3
"""Sizes of each axis: 2 doublings."""


@dataclass(frozen=True)
class Entry:
    """One measurement: who does which work. Those of a group take turns."""

    group: str
    label: str
    work: Work
    contender: str

    @property
    def id(self) -> str:
        """Of the test, as `-k` can name it: layer-700-128r-T250-B8-both-closed-forms."""
        words = f"{self.group} {self.label}".replace("->", "-").replace(",", "")
        return words.replace(" ", "-")


def _contest(work: Work, contenders: tuple[str, ...]) -> list[Entry]:
    return [Entry(work.name, who, work, who) for who in contenders]


OURS, CLOSED, REFERENCE = "hetsyn_triton", "closed forms", "reference loop"
BACKENDS = (OURS, CLOSED, REFERENCE)
LOOP, COMPILED, CHECKPOINTED = "loop", "compiled", "checkpointed"
GRAPH, COMPILED_GRAPH = "graph", "compiled graph"
PLAIN = ("spikingjelly", "snntorch", "norse")
PER_STEP, PER_STEP_AT, SQUARE = "memory of a step, feedforward", (256, 512), (128, 256, 512, 1024)
"""Layers N -> N at two lengths: the bytes that one more step takes. A term T I J would show."""
TOGETHER, ONE_BY_ONE = "together", "one after another"

CONTENDERS = {
    "forward": (*BACKENDS, LOOP, *PLAIN),
    "backward": (OURS, CLOSED, LOOP),
    "both": (*BACKENDS, LOOP, COMPILED, CHECKPOINTED, GRAPH, COMPILED_GRAPH, *PLAIN),
}


def _growth(short: bool) -> list[Entry]:
    found = [
        Entry(PER_STEP, f"N {N} T {T}", Work("layer", T, 8, N, N), OURS)
        for N in (SQUARE[:QUICK_GROWTH] if short else SQUARE)
        for T in PER_STEP_AT
    ]
    for recurrent, axes in ((False, AXES), (True, RECURRENT)):
        form = "recurrent" if recurrent else "feedforward"
        for axis, sizes in axes.items():
            chosen = sizes[:QUICK_GROWTH] if short else sizes
            works = axis_works(axis, recurrent, chosen)
            group = f"growth with {axis}, {form}"
            found += [
                Entry(group, f"{axis} {size}", work, OURS)
                for size, work in zip(chosen, works, strict=True)
            ]
    return found


def _sweep() -> list[Work]:
    """Sizes of the network, steps and samples around MAIN, feedforward and recurrent."""
    found = []
    for recurrent in (False, True):
        base = replace(MAIN, recurrent=recurrent)
        found += [replace(base, I=n) for n in (100, 2000)]
        found += [replace(base, J=n) for n in (32, 512)]
        found += [replace(base, T=n) for n in (50, 1000)]
        found += [replace(base, B=n) for n in (1, 32)]
        found += [Work("layer", STEPS, 8, 100, 100, recurrent)]
    return found


def entries(full: bool) -> list[Entry]:
    """What `pytest --benchmark` measures, with `--benchmark-full` all of it."""
    works = RIVALRY + (MORE_RIVALRY if full else [])
    found = [e for work in works for e in _contest(work, CONTENDERS[work.part])]
    if not full:  # compiling one size takes a sixth of the quick set's time
        found = [e for e in found if e.contender != COMPILED or e.work == MAIN]
    found += _contest(CURRENT, (OURS, CLOSED, LOOP))
    if full:
        found += _contest(NETWORK, (OURS, LOOP, CHECKPOINTED))
        for work in _sweep():
            for part in PARTS:
                found += _contest(replace(work, part=part), (OURS, CLOSED, LOOP))
    for work in MORE_REPLICAS if full else REPLICAS:
        found += _contest(work, (TOGETHER, ONE_BY_ONE))
    return found + _growth(not full)


def rehearsed() -> list[Entry]:
    """Every kind of entry in tiny, for tests of the way through."""
    layer = Work("layer", 4, 2, 5, 4)
    works = [replace(layer, part=part) for part in PARTS]
    works += [replace(layer, recurrent=True)]
    found = [e for work in works for e in _contest(work, CONTENDERS[work.part])]
    # Compiling takes longer than all the rest.
    found = [e for e in found if e.contender != COMPILED]
    found += _contest(
        Work("network", 4, 2, 5, 3, part="step", hidden=(4, 4)), (OURS, LOOP, CHECKPOINTED)
    )
    found += _contest(Work("current", 16, 2, 5, 4, part="forward"), (OURS, CLOSED, LOOP))
    found += _contest(replace(REPLICAS[0], T=30, B=2, R=2), (TOGETHER, ONE_BY_ONE))
    found += [
        Entry(PER_STEP, f"N {N} T {T}", Work("layer", T, 8, N, N), OURS)
        for N in (64, 128, 256)
        for T in (50, 150)
    ]
    found += [
        Entry(f"growth with {axis}, feedforward", f"{axis} {n}", replace(layer, **{axis: n}), OURS)
        for axis in AXES
        for n in (4, 8, 16)
    ]
    return found
