"""The cost of a time constant per synapse: parameters, memory and time of a training step."""

import gc
import statistics
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from hetsyn_triton.experiments.tasks.seeds import seeded_generator
from hetsyn_triton.experiments.training.machine import provenance
from hetsyn_triton.experiments.training.torch_threads import on_threads
from hetsyn_triton.modules import MODELS, SpikingNetwork, make_network
from hetsyn_triton.optim import clamp_decays_, parameter_groups

from .base import Cell, Finished, Place, Row, Study
from .memory import growth, in_a_process, kept_for_backward
from .networks import form
from .statistics import chosen
from .study_options import integer, integers, names
from .tables import cell
from .variants import FORMS
from .words import RATIO, counted, in_words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

RATE = 0.1  # probability of an input spike per channel and step
CLASSES = 20
RATIO_OF = "hetsyn"  # the model whose ratio to homneu is written in the picture
MOST_CALLS = 5  # of a fast model in a round


class Load(NamedTuple):
    """One network and its input."""

    model: str
    recurrent: bool
    neurons: int
    inputs: int
    steps: int
    samples: int


class Cost(Study):
    """Measure a training step of each model at several hidden sizes.

    A step is forward pass, cross-entropy, backward pass, AdamW and clamp. The input is random
    spikes of `inputs` channels, `steps` steps and `samples` samples.

    Measures:
        step_ms: Median time of a step in ms. The rounds of all models are interleaved, so that
            other load on the machine affects all of them.
        peak_mb: Peak growth of a separate process in a step, in MB.
        kept_mb: Memory that autograd keeps from the forward to the backward pass, in MB.
        NAME_of_homneu: The measure NAME divided by that of homneu at the same size, shown as a
            factor such as 1.83x.

    Cells run one after the other on `threads` threads; 0 uses all cores.
    """

    name = "cost"
    title = "Cost of a training step"
    default_task = None
    small_seeds = full_seeds = 1
    alone = True
    blocks = ("form",)
    details = ("*_quartile", "kept_mb_of_*", "peak_mb_of_*", "parameters_of_*")
    options: ClassVar = {
        "models": names(MODELS, MODELS),
        "forms": names(FORMS, FORMS),
        "sizes": integers((32, 128), (32, 64, 128, 256, 512), 1, 100_000),
        "inputs": integer(100, 700, 1, 1_000_000),
        "steps": integer(250, 250, 1, 1_000_000),
        "samples": integer(32, 32, 1, 1_000_000),
        "rounds": integer(7, 31, 3, 10_000),
        "threads": integer(0, 0, 0, 1024),
    }

    def cells(self) -> list[Cell]:
        return [
            Cell(f"{kind}-{size}", {"form": kind, "neurons": size})
            for kind in self.option["forms"]
            for size in self.option["sizes"]
        ]

    def run(self, cell: Cell, place: Place) -> Finished:
        option, recurrent = self.option, cell.values["form"] == form(True)
        threads = option["threads"] or place.threads
        loads = {
            model: Load(
                model, recurrent, cell.values["neurons"],
                option["inputs"], option["steps"], option["samples"],
            )
            for model in option["models"]
        }  # fmt: skip
        memory = {m: in_a_process(measured_memory, load, threads) for m, load in loads.items()}
        with on_threads(threads):
            place.environments.append(provenance())
            times = interleaved(
                {m: training_step(load)[0] for m, load in loads.items()}, option["rounds"]
            )
        rows = []
        for model, load in loads.items():
            low, median, high = statistics.quantiles(times[model], n=4, method="inclusive")
            rows.append(
                {
                    "form": cell.values["form"],
                    "neurons": load.neurons,
                    "model": model,
                    "parameters": sum(p.numel() for p in _network(load).parameters()),
                    "step_ms": median,
                    "step_ms_lower_quartile": low,
                    "step_ms_upper_quartile": high,
                    **memory[model],
                    "threads": threads,
                }
            )
        return Finished(cell, rows)

    def table(self, done: Sequence[Finished]) -> list[Row]:
        table = []
        for finished in done:
            base = {row["model"]: row for row in finished.rows}.get("homneu")
            for row in finished.rows:
                line = dict(row)
                for name in ("parameters", "step_ms", "peak_mb", "kept_mb"):
                    if base is not None and row[name] is not None and base[name]:
                        line[f"{name}{RATIO}"] = row[name] / base[name]
                table.append(line)
        return table

    def draw(self, table: Sequence[Row], done: Sequence[Finished]) -> "Figure":
        from hetsyn_triton.experiments.drawing import log_scale

        from .study_pictures import COLORS, MARKERS, grid, legend

        measures = {
            "parameters": "counted as in the paper",
            "step_ms": "median and quartiles",
            "peak_mb": "peak growth of the process",
            "kept_mb": "kept for the backward pass",
        }
        forms = self.option["forms"]
        figure, axes = grid(len(forms), len(measures), sharex=True, sharey="col")
        for line, kind in zip(axes, forms, strict=True):
            for one, (name, label) in zip(line, measures.items(), strict=True):
                for model in self.option["models"]:
                    mine = [r for r in chosen(table, form=kind, model=model) if r[name] is not None]
                    sizes = [row["neurons"] for row in mine]
                    values = [row[name] for row in mine]
                    look: dict[str, Any] = {"color": COLORS[model], "marker": MARKERS[model]}
                    _label_ratio(one, model, mine, name)
                    one.plot(sizes, values, label=model, lw=1.6, ms=5, alpha=0.85, **look)
                    if name == "step_ms":
                        low, high = (
                            [row[f"step_ms_{q}_quartile"] for row in mine]
                            for q in ("lower", "upper")
                        )
                        one.fill_between(sizes, low, high, color=COLORS[model], alpha=0.16, lw=0)
                log_scale(one, "x")
                if any(value > 0 for drawn in one.lines for value in drawn.get_ydata()):
                    log_scale(one, "y")  # the memory of a tiny network may be measured as 0
                one.set_xticks(self.option["sizes"], [str(n) for n in self.option["sizes"]])
                one.set_ylabel(f"{in_words(name)}\n({label})", fontsize=9)
                one.set_title(kind, fontsize=9)
        for one in axes[-1]:
            one.set_xlabel("hidden neurons")
        legend(axes[0, 0])
        option = self.option
        of = dict.fromkeys(
            f"{place['cpu']}, torch {place['torch']}, "
            f"{counted(finished.rows[0]['threads'], 'thread')}"
            for finished in done
            for place in finished.environments
            if place
        )
        figure.suptitle(
            f"{option['inputs']} inputs, {option['steps']} steps, {option['samples']} samples, "
            f"factors: {RATIO_OF} / homneu, float32; {'; '.join(of) or 'machine not recorded'}",
            fontsize=9,
        )
        return figure


def _label_ratio(axes: "Axes", model: str, rows: Sequence[Row], name: str) -> None:
    """Write the ratio to homneu at the largest size beside the point of HetSyn."""
    last = rows[-1] if rows and model == RATIO_OF else {}
    if f"{name}{RATIO}" in last:
        axes.annotate(
            cell(last, f"{name}{RATIO}"), (last["neurons"], last[name]), (0, 7),
            textcoords="offset points", ha="center", fontsize=8,
        )  # fmt: skip


def training_step(load: Load) -> tuple[Callable[[], None], Callable[[], Tensor], list[Tensor]]:
    """Return a training step, its forward pass, and the tensors that exist before both."""
    network = _network(load)
    shape = (load.steps, load.samples, load.inputs)
    spikes = (torch.rand(shape, generator=seeded_generator(0, "cost")) < RATE).float()
    target = torch.arange(load.samples) % CLASSES
    optimizer = torch.optim.AdamW(parameter_groups(network, 1e-3))

    def forward() -> Tensor:
        return torch.nn.functional.cross_entropy(network(spikes)[0].mean(0), target)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        forward().backward()
        optimizer.step()
        clamp_decays_(network)

    return step, forward, [spikes, target, *network.parameters(), *network.buffers()]


def measured_memory(load: Load, threads: int) -> Row:
    """Measure the memory of a training step in MB; to be called in a separate process."""
    torch.set_num_threads(threads)
    training_step(load._replace(steps=2, samples=1))[0]()  # compiles
    step, forward, known = training_step(load)
    peak = growth(step)
    kept = kept_for_backward(forward, known)
    return {"peak_mb": None if peak is None else peak / 1e6, "kept_mb": kept / 1e6}


def interleaved(runs: dict[str, Callable[[], None]], rounds: int) -> dict[str, list[float]]:
    """Return the time of each call in ms, from interleaved `rounds` after two warm-up calls."""
    for run in runs.values():
        run()
    once = {name: _milliseconds(run) for name, run in runs.items()}
    calls = {n: max(1, min(MOST_CALLS, int(max(once.values()) / ms))) for n, ms in once.items()}
    found: dict[str, list[float]] = {name: [] for name in runs}
    gc.collect()
    gc.disable()
    try:
        for _ in range(rounds):
            for name, run in runs.items():
                found[name] += [_milliseconds(run) for _ in range(calls[name])]
    finally:
        gc.enable()
    return found


def _milliseconds(run: Callable[[], None]) -> float:
    began = time.perf_counter()
    run()
    return 1e3 * (time.perf_counter() - began)


def _network(load: Load) -> SpikingNetwork:
    return make_network(
        load.model,
        load.inputs,
        [load.neurons],
        CLASSES,
        recurrent=load.recurrent,
        generator=seeded_generator(0, "network"),
    )
