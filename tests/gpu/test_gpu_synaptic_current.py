"""The synaptic current, both directions, and the fused feedforward layer against float64.

Bounds are those of `bounds`: a trace after T steps has at most 2 T + 2 roundings, a sum over S at
most S + log terms more. The magnitude is the operator on absolute values.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from hetsyn_triton.kernels import parallel_in_time
from hetsyn_triton.kernels.gpu import feedforward_scan as layer, synaptic_current as kernel
from hetsyn_triton.kernels.gpu.lib import configs, launch, time_chunks
from hetsyn_triton.kernels.gpu.spike_scan import spike_scan
from hetsyn_triton.reference.closed_form import (
    synaptic_current,
    synaptic_current_backward,
)
from tests.support.bounds import assert_spikes_follow, assert_within, sparse
from tests.support.problems import Size, Tensors, problem

pytestmark = pytest.mark.usefixtures("poisoned")

SIZES = [
    Size(R=1, T=1, B=1, I=1, J=1, K=1),
    Size(R=3, T=5, B=2, I=3, J=2, K=2),
    Size(R=1, T=4, B=2, I=4, J=33, K=1),
    Size(R=1, T=7, B=3, I=17, J=5, K=3),
    Size(R=2, T=3, B=1, I=61, J=67, K=1),
    Size(R=1, T=6, B=2, I=71, J=20, K=2),
    Size(R=1, T=3, B=1, I=131, J=131, K=1),
    Size(R=1, T=9, B=1, I=203, J=7, K=1),
]


def float_problem(operator: str, size: Size, seed: int = 0, **options: Any) -> Tensors:
    """A problem whose values are floats already: the float64 reference sees the same numbers."""
    made = problem(operator, size, seed, dtype=torch.float32, **options)
    return made


def exact(tensors: Tensors, absolute: bool = False) -> Tensors:
    return {n: (t.double().abs() if absolute else t.double()).cpu() for n, t in tensors.items()}


def on(device: torch.device, tensors: Tensors) -> Tensors:
    return {n: t.to(device) for n, t in tensors.items()}


def roundings(size: Size) -> int:
    return 2 * size.T + size.I + size.J + 8


@pytest.mark.parametrize("states", [True, False], ids=["trace", "no trace"])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_forward(size: Size, states: bool, device: torch.device) -> None:
    tensors = float_problem("synaptic_current", size, states=states, analog=size.R == 3)
    before = {n: t.clone() for n, t in tensors.items()}
    found = kernel.synaptic_current(**on(device, tensors))
    expected = synaptic_current(**exact(tensors))
    magnitudes = synaptic_current(**exact(tensors, absolute=True))
    for got, want, magnitude, what in zip(
        found, expected, magnitudes, ("current", "trace"), strict=True
    ):
        assert got.dtype == torch.float32
        assert got.is_contiguous()
        assert_within(got.cpu(), want, magnitude, roundings(size), what)
    assert all(torch.equal(tensors[n], before[n]) for n in tensors)


def changed(tensors: Sequence[Tensor | None], change: Callable[[Tensor], Tensor]) -> list[Any]:
    """The tensors after `change`; None where one is absent."""
    return [None if t is None else change(t) for t in tensors]


@pytest.mark.parametrize("carried", [True, False], ids=["g_trace", "no g_trace"])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_backward(size: Size, carried: bool, device: torch.device) -> None:
    tensors = float_problem("synaptic_current", size)
    weight, decay, g_trace = tensors["weight"], tensors["decay"], tensors["trace"]
    g = torch.randn(size.R, size.T, size.B, size.J, generator=torch.Generator().manual_seed(3))
    arguments = [g, g_trace if carried else None, weight, decay]
    found = kernel.synaptic_current_backward(*changed(arguments, lambda t: t.to(device)))
    doubles = changed(arguments, Tensor.double)
    expected = synaptic_current_backward(*doubles)
    magnitudes = synaptic_current_backward(*changed(doubles, Tensor.abs))
    for got, want, magnitude, what in zip(
        found, expected, magnitudes, ("dz", "d_trace"), strict=True
    ):
        assert got.is_contiguous()
        assert_within(got.cpu(), want, magnitude, roundings(size), what)


def layer_arguments(size: Size, states: bool, seed: int = 0) -> Tensors:
    """Arguments of `feedforward_scan`, with enough current for spikes."""
    synapses = float_problem("synaptic_current", size, seed, states=states)
    neurons = float_problem("spike_scan", size, seed + 1, states=states)
    neurons.pop("current")
    synapses.setdefault("trace", None)  # type: ignore[arg-type]
    synapses["weight"] *= 2 / size.I**0.5
    return {n: synapses[n] for n in ("z", "weight", "decay", "trace")} | neurons


def check_layer(found: tuple[Tensor, ...], arguments: Tensors, size: Size) -> None:
    """Teacher-forced: the exact V given the kernel's own spikes."""
    spikes, potential, feedback, trace = (o.cpu() for o in found)
    given = {n: None if t is None else t.double() for n, t in arguments.items()}
    absolute = {n: None if t is None else t.abs() for n, t in given.items()}
    names = ("z", "weight", "decay", "trace")
    current, exact_trace = synaptic_current(*(given[n] for n in names))
    large, large_trace = synaptic_current(*(absolute[n] for n in names))

    def forced(parts: Any, drive: Tensor, sign: int) -> tuple[Tensor, Tensor]:
        previous = torch.cat([parts["spike"].unsqueeze(1), spikes.double()], 1)
        state, potentials = parts["feedback"], []
        for t in range(size.T):
            s = previous[:, t].unsqueeze(1)
            state = parts["feedback_decay"].unsqueeze(2) * state
            state = state + parts["feedback_strength"].unsqueeze(2) * s
            potentials.append(drive[:, t] - sign * state.sum(1))
        return torch.stack(potentials, 1), state

    v, f = forced(given, current, 1)
    v_large, f_large = forced(absolute, large, -1)
    n = roundings(size) + size.K + 2
    assert_within(potential, v, v_large, n, "potential")
    assert_within(feedback, f, f_large, n, "feedback")
    assert_within(trace, exact_trace, large_trace, n, "trace")
    assert_spikes_follow(spikes, v, v_large, arguments["threshold"], n)


@pytest.mark.parametrize(("chunk", "states"), [(4, True), (128, False)], ids=["chunks", "zero"])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_fused_layer(size: Size, chunk: int, states: bool, device: torch.device) -> None:
    arguments = layer_arguments(size, states)
    moved = {n: None if t is None else t.to(device) for n, t in arguments.items()}
    found = layer.fused(**moved, chunk=chunk)
    check_layer(found, arguments, size)
    # The split form adds in the same order: not one bit differs.
    current, trace = kernel.synaptic_current(*(moved[n] for n in ("z", "weight", "decay", "trace")))
    assert torch.equal(trace, found[3])
    names = ("threshold", "feedback_decay", "feedback_strength", "feedback", "spike")
    split = spike_scan(current, *(moved[n] for n in names))
    for got, want in zip(found, split, strict=False):
        assert torch.equal(got, want)


def test_layer_takes_the_path_of_its_size(
    device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`path` decides, and the choice is what runs; both give the same bits."""
    size = Size(R=1, T=3, B=2, I=9, J=4, K=1)
    moved = on(device, layer_arguments(size, True))
    outputs = {}
    for name in ("fused", "split"):
        monkeypatch.setattr(layer, "path", lambda *a, name=name, **k: layer.Path(name, 1.0, 1.0))
        outputs[name] = layer.feedforward_scan(**moved)
        with launch.recording() as calls:
            layer.feedforward_scan(**moved)
        assert calls[0].name.startswith("feedforward") is (name == "fused")
    for got, want in zip(outputs["fused"], outputs["split"], strict=True):
        assert torch.equal(got, want)


def test_path_by_size() -> None:
    """As measured on an H200 (bench/results): several blocks of inputs are faster side by side, one
    block is worth a launch less where samples are few. Within a fifth of the times that are not
    the host's."""
    fused, split = 1612.0, 1219.0
    large = layer.path(1, 250, 256, 700, 128)
    assert large.name == "split"
    assert large.fused_us == pytest.approx(fused, rel=0.2)
    assert large.split_us == pytest.approx(split, rel=0.2)
    assert layer.path(1, 250, 32, 700, 128).name == "split"
    assert layer.path(1, 250, 32, 700, 128).fused_us == pytest.approx(1224.0, rel=0.2)
    assert layer.path(1, 250, 8, 700, 128).name == "split"
    assert layer.path(1, 250, 32, 128, 64).name == "fused"
    assert layer.path(1, 784, 256, 1, 64).name == "split"


def test_no_steps_and_no_samples(device: torch.device) -> None:
    for size in (Size(R=2, T=0, B=2), Size(R=2, T=3, B=0), Size(R=0, T=3, B=2)):
        tensors = float_problem("synaptic_current", size)
        current, trace = kernel.synaptic_current(**on(device, tensors))
        assert current.shape == (size.R, size.T, size.B, size.J)
        if size.T == 0:
            assert torch.equal(trace.cpu(), tensors["trace"])
            arguments = layer_arguments(size, True)
            spikes, _, feedback, last = layer.feedforward_scan(**on(device, arguments))
            assert spikes.shape == current.shape
            assert torch.equal(feedback.cpu(), arguments["feedback"])
            assert torch.equal(last.cpu(), arguments["trace"])
        dz, d_trace = kernel.synaptic_current_backward(
            current, trace, *(tensors[n].to(device) for n in ("weight", "decay"))
        )
        assert dz.shape == tensors["z"].shape
        if size.T == 0:
            assert torch.equal(d_trace, trace)
            _, zero = kernel.synaptic_current_backward(
                current, None, *(tensors[n].to(device) for n in ("weight", "decay"))
            )
            assert not zero.any()


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.float16, torch.bfloat16])
def test_input_types(dtype: torch.dtype, device: torch.device) -> None:
    size = Size(R=1, T=5, B=2, I=18, J=6, K=1)
    tensors = on(device, float_problem("synaptic_current", size))
    found = kernel.synaptic_current(**(tensors | {"z": tensors["z"].to(dtype)}))
    for got, want in zip(found, kernel.synaptic_current(**tensors), strict=True):
        assert torch.equal(got, want)


@pytest.mark.parametrize("kind", ["batch first", "gaps", "offset", "expanded"])
def test_strides(kind: str, device: torch.device) -> None:
    size = Size(R=2, T=5, B=3, I=20, J=7, K=1)
    tensors = on(device, float_problem("synaptic_current", size))
    z = tensors["z"]
    if kind == "batch first":
        moved = z.transpose(1, 2).contiguous().transpose(1, 2)
    elif kind == "gaps":
        moved = torch.full((*z.shape[:3], 41), torch.nan, device=device)[..., 1::2]
        moved.copy_(z)
    elif kind == "offset":
        moved = torch.full((z.numel() + 1,), torch.nan, device=device)[1:].view(z.shape)
        moved.copy_(z)
    else:
        z = z[:, :1].expand(-1, 5, -1, -1).contiguous()
        moved = z[:, :1].expand(-1, 5, -1, -1)
    other = {n: t.mT.contiguous().mT for n, t in tensors.items() if n != "z"}
    for got, want in zip(
        kernel.synaptic_current(z=moved, **other),
        kernel.synaptic_current(**(tensors | {"z": z})),
        strict=True,
    ):
        assert torch.equal(got, want)


def test_a_sample_does_not_depend_on_its_batch_nor_on_chunks(device: torch.device) -> None:
    size = Size(R=2, T=7, B=3, I=75, J=37, K=1)
    tensors = on(device, float_problem("synaptic_current", size))
    current, last = kernel.synaptic_current(**tensors)
    again = kernel.synaptic_current(**tensors)
    assert torch.equal(again[0], current)
    assert torch.equal(again[1], last)
    z, weight, decay, trace = (tensors[n] for n in ("z", "weight", "decay", "trace"))
    alone = kernel.synaptic_current(z[:1, :, 2:], weight[:1], decay[:1], trace[:1, 2:])
    assert torch.equal(alone[0], current[:1, :, 2:])
    assert torch.equal(alone[1], last[:1, 2:])
    first, between = kernel.synaptic_current(z[:, :5], weight, decay, trace)
    second, end = kernel.synaptic_current(z[:, 5:], weight, decay, between)
    assert torch.equal(torch.cat([first, second], 1), current)
    assert torch.equal(end, last)


@pytest.mark.parametrize("transposed", [False, True], ids=["forward", "backward"])
@pytest.mark.parametrize("summed", [61, 100, 203])
def test_no_configuration_changes_a_bit(
    summed: int, transposed: bool, device: torch.device
) -> None:
    size = Size(R=1, T=3, B=1, I=summed, J=100, K=1)
    if transposed:
        size = Size(R=1, T=3, B=1, I=100, J=summed, K=1)
    tensors = on(device, float_problem("synaptic_current", size))
    g = torch.randn(1, 3, 1, size.J, device=device)

    def run() -> tuple[Tensor, ...]:
        if transposed:
            return kernel.synaptic_current_backward(g, None, tensors["weight"], tensors["decay"])
        return kernel.synaptic_current(**tensors)

    seen: list[tuple[Tensor, ...]] = []
    depth = {61: 64, 100: 128, 203: 64}[summed]
    for name in ("outputs128", "outputs64", "outputs32"):
        with configs.pinned({f"synaptic_current/S{depth}_O128": name}):
            with launch.recording() as calls:
                run()
            assert f"outputs{calls[0].constants['BO']}" == name
            seen.append(run())
    for other in seen[1:]:
        for got, want in zip(other, seen[0], strict=True):
            assert torch.equal(got, want)


def test_offsets_beyond_32_bits(device: torch.device, tmp_path: Path) -> None:
    """Strides over time, samples and replicas that no 32-bit number holds, in and out."""
    size = Size(R=2, T=2, B=2, I=20, J=6, K=1)
    tensors = on(device, float_problem("synaptic_current", size))
    far = 2**31 + 4
    memory = sparse(far + 1000, device, tmp_path)
    weight, decay = (tensors[n].mT.contiguous() for n in ("weight", "decay"))
    expected = kernel.synaptic_current(tensors["z"], tensors["weight"], tensors["decay"])
    for strides in ((400, far, 40), (40, 200, far), (far, 200, 40)):
        z = memory.as_strided((2, 2, 2, 20), (*strides, 1))
        z.copy_(tensors["z"])
        last = torch.empty(2, 2, 6, 20, device=device)
        out = torch.empty(1, 2, 2, 2, 6, device=device)
        apart = memory.as_strided((1, 2, 2, 2, 6), (1, *strides, 1), storage_offset=20)
        for result in (out, apart):
            kernel.launch_tiles(
                z, weight, decay, None, result, last, kernel.tile(20, 6), False, False
            )
            assert torch.equal(result[0], expected[0])
            assert torch.equal(last, expected[1])


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
@pytest.mark.parametrize("replicas", [1, 2])
def test_chunks_of_time_side_by_side(
    replicas: int, backward: bool, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked for, a long sequence of few samples runs in chunks; the numbers stay within bounds."""
    monkeypatch.setattr(time_chunks, "LEAST_STEPS", 3)
    size = Size(R=replicas, T=14, B=1, I=5, J=4, K=1)
    tensors = float_problem("synaptic_current", size)
    tensors["decay"].clamp_(max=0.99)
    given: Sequence[Tensor | None]
    kernel_of: Callable[..., tuple[Tensor, Tensor]]
    truth: Callable[..., tuple[Tensor, Tensor]]
    if backward:
        g = torch.randn(size.R, size.T, 1, 4, generator=torch.Generator().manual_seed(3))
        given = [g, None, tensors["weight"], tensors["decay"]]
        kernel_of, truth = kernel.synaptic_current_backward, synaptic_current_backward
    else:
        given = [*tensors.values()]
        kernel_of, truth = kernel.synaptic_current, synaptic_current
    moved = changed(given, lambda t: t.to(device))
    plain = kernel_of(*moved)
    with parallel_in_time.parallel_in_time():
        with launch.recording() as calls:
            kernel_of(*changed(given, lambda t: t.to("meta")))
        assert len([c for c in calls if c.name == "synaptic_current_kernel"]) == 3
        found = kernel_of(*moved)
        torch.use_deterministic_algorithms(True)
        try:
            forbidden = kernel_of(*moved)
        finally:
            torch.use_deterministic_algorithms(False)
    doubles = changed(given, Tensor.double)
    expected = truth(*doubles)
    magnitudes = truth(*changed(doubles, Tensor.abs))
    for got, want, magnitude, same, off in zip(
        found, expected, magnitudes, plain, forbidden, strict=True
    ):
        assert_within(got.cpu(), want, magnitude, 2 * roundings(size))
        assert torch.equal(same, off)


def test_chunks_only_where_they_pay() -> None:
    assert time_chunks.chunks(10_000, 8, 132) == 33
    assert time_chunks.chunks(10_000, 132, 132) == 1
    assert time_chunks.chunks(100, 1, 132) == 1


def test_default_dtype_does_not_matter(device: torch.device) -> None:
    size = Size(R=1, T=3, B=2, I=5, J=4, K=1)
    moved: dict[str, Any] = on(device, layer_arguments(size, True))
    expected = layer.fused(**moved)
    torch.set_default_dtype(torch.float64)
    try:
        found = layer.fused(**moved)
    finally:
        torch.set_default_dtype(torch.float32)
    for got, want in zip(found, expected, strict=True):
        assert got.dtype == torch.float32
        assert torch.equal(got, want)
