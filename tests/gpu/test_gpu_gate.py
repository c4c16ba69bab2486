"""The gate before any timing: public operators and layers on hundreds of random shapes.

On a GPU the kernels are tested, on the CPU the same checks run on what serves the operators there,
on fewer and smaller shapes; and results that are wrong on purpose must be found out.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from hetsyn_triton import HetSynReadout, SpikingNetwork, trial_kernels
from tests.support import gate_checks as gate
from tests.support.operators import Size


@pytest.fixture(autouse=True)
def _kernels_on_trial() -> Iterator[None]:
    """On a GPU the kernels that wait for this test run in it."""
    with trial_kernels():
        yield


FOLDER = Path(__file__).resolve().parent

CPU = {operator: list(gate.sizes(3, 1, 3e5, seed)) for seed, operator in enumerate(gate.OUTPUTS)}
GPU = {
    operator: list(gate.sizes(8 if operator.startswith("leaky") else 20, 4, 4e7, 100 + seed))
    for seed, operator in enumerate(gate.OUTPUTS)
}
CASES = [
    pytest.param(device, operator, index, id=f"{device}-{operator}-{index}", marks=marks)
    for device, made, marks in (("cpu", CPU, ()), ("cuda", GPU, pytest.mark.gpu))
    for operator, lists in made.items()
    for index in range(len(lists))
]
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
KERNELS = tuple(gate.OUTPUTS)


@pytest.mark.parametrize(("device", "operator", "index"), CASES)
def test_operator(device: str, operator: str, index: int) -> None:
    """Within rounding of float64, and the same bits again."""
    lists = CPU if device == "cpu" else GPU
    for variant, size in enumerate(lists[operator][index]):
        given = gate.make(operator, size, 1000 * index + variant, kind=index).to(
            torch.device(device)
        )
        before = {n: t.clone() for n, t in given.arguments.items() if t is not None}
        found = gate.run(given)
        gate.assert_right(given, found)
        gate.assert_same_bits(gate.run(given), found)
        assert all(torch.equal(given.arguments[n], t) for n, t in before.items())


def test_hundreds_of_shapes_on_a_gpu() -> None:
    shapes = [size for lists in GPU.values() for sizes in lists for size in sizes]
    assert len(shapes) >= 300
    assert {1, 2, 3} == {s.R for s in shapes} == {s.K for s in shapes}
    assert max(s.J for s in shapes) > 250
    assert max(s.T for s in shapes) > 50
    assert min(s.I for s in shapes) == min(s.B for s in shapes) == 1


def networks(device: str) -> list[tuple[int, int, int, list[tuple[int, bool]], int | None]]:
    """T, B, inputs, layers (neurons, recurrent), outputs of the readout."""
    small = [
        (9, 3, 7, [(6, False)], None),
        (9, 3, 7, [(6, True)], None),
        (11, 2, 13, [(9, True), (5, True)], 4),
    ]
    if device == "cpu":
        return small
    large = [
        (60, 16, i, [(j, recurrent)], None)
        for i, j in ((1, 64), (61, 37), (128, 128), (300, 101), (700, 128))
        for recurrent in (False, True)
    ]
    return [
        *small,
        *large,
        (30, 8, 97, [(300, True)], None),
        (60, 32, 700, [(128, True), (64, True)], 20),
        (60, 32, 128, [(64, False), (64, False)], 10),
    ]


def network_of(
    T: int, B: int, inputs: int, layers: list[tuple[int, bool]], outputs: int | None, device: str
) -> tuple[SpikingNetwork, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(T + inputs)
    made, width = [], inputs
    for neurons, recurrent in layers:
        made.append(gate.lif(width, neurons, recurrent, generator))
        width = neurons
    readout = None if outputs is None else HetSynReadout(width, outputs, generator=generator)
    network = SpikingNetwork(made, readout).to(device)
    gate.with_derivatives(network, T, B, torch.device(device))
    x = (torch.rand(T, B, inputs, generator=generator) < 0.4).float()
    g = torch.randn(T, B, outputs or width, generator=generator)
    return network, x.to(device), g.to(device)


@pytest.mark.parametrize("device", DEVICES)
def test_layers_and_networks(device: str) -> None:
    """One layer of each kind, and networks of the size class of speech commands."""
    for case in networks(device):
        network, x, g = network_of(*case, device)
        found = gate.train(network, x, g)
        gate.assert_trained(network, x, g, found)
        again = gate.train(network, x, g)
        assert all(torch.equal(a, b) for a, b in zip(again.tensors(), found.tensors(), strict=True))


# -- the same bits, however it is called -----------------------------------------------------------


@pytest.mark.parametrize("operator", KERNELS)
def test_a_sample_is_the_same_in_any_batch(operator: str, on_kernels: torch.device) -> None:
    sizes = [Size(T=3, B=2, I=7, J=5, K=1)]
    if on_kernels.type == "cuda":
        sizes += [
            Size(R=1, T=40, B=70, I=203, J=131, K=1),
            Size(R=2, T=33, B=37, I=64, J=128, K=2),
            Size(R=1, T=20, B=300, I=5, J=61, K=1),
            Size(R=1, T=20, B=41, I=33, J=257, K=1),
        ]
    for size in sizes:
        given = gate.make(operator, size, 3).to(on_kernels)
        whole = gate.run(given)
        gate.assert_right(given, whole)
        for b in {0, size.B // 2, size.B - 1}:
            gate.assert_sample_alone(given, whole, b)


def _on_a_side_stream(given: gate.Problem) -> gate.Result:
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        found = gate.run(given)
    side.synchronize()
    return found


def _in_a_graph(given: gate.Problem) -> gate.Result:
    _on_a_side_stream(given)  # compiles, and warms the allocator
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = gate.run(given)
    for _, tensor in found.tensors():
        tensor.fill_(torch.nan)
    graph.replay()
    torch.cuda.synchronize()
    return found


def _on_the_second_device(given: gate.Problem) -> gate.Result:
    if torch.cuda.device_count() < 2:
        pytest.skip("one device only")
    return gate.run(given.to(torch.device("cuda:1")))  # the first stays the current one


@pytest.mark.gpu
@pytest.mark.parametrize("operator", KERNELS)
@pytest.mark.parametrize("way", [_on_a_side_stream, _in_a_graph, _on_the_second_device])
def test_every_way_to_call_gives_the_same_bits(
    way: Callable[[gate.Problem], gate.Result], operator: str
) -> None:
    for size in (Size(R=2, T=21, B=9, I=70, J=61, K=2), Size(T=13, B=5, I=300, J=200, K=1)):
        given = gate.make(operator, size, 4).to(torch.device("cuda"))
        plain = gate.run(given)
        gate.assert_same_bits(way(given), plain)


@pytest.mark.gpu
def test_a_captured_training_step_gives_the_same_bits() -> None:
    network, x, g = network_of(50, 32, 700, [(128, True), (64, True)], 20, "cuda")
    plain = gate.train(network, x, g)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        gate.train(network, x, g)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = gate.train(network, x, g)
    graph.replay()
    torch.cuda.synchronize()
    assert all(torch.equal(a, b) for a, b in zip(found.tensors(), plain.tensors(), strict=True))


@pytest.mark.gpu
@pytest.mark.full
@pytest.mark.parametrize("tool", ["memcheck", "racecheck"])
def test_sanitizer(tool: str) -> None:
    """No access out of bounds, no race in shared memory."""
    program = shutil.which("compute-sanitizer")
    if program is None:
        pytest.skip("compute-sanitizer is not on the path")
    # Pooled memory would hide an access beyond a tensor.
    environment = os.environ | {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    paths = [str(FOLDER.parents[1]), os.environ.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(paths)
    code = "from tests.support import gate_checks; gate_checks.run_small()"
    command = [program, "--tool", tool, "--error-exitcode", "9", sys.executable, "-c", code]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=150)
    except subprocess.TimeoutExpired:
        pytest.skip(f"{tool} takes too long here")
    said = done.stdout + done.stderr
    if "Device not supported" in said:
        pytest.skip("compute-sanitizer does not support this device")
    if done.returncode == 9 and not any(name in said for name in _kernel_names()):
        pytest.skip(f"{tool} complains, but not of these kernels: {said[-300:]}")
    assert done.returncode == 0, said[-4000:]


def _kernel_names() -> set[str]:
    files = (FOLDER.parents[1] / "kernels" / "gpu").rglob("*.py")
    return {n for f in files for n in re.findall(r"^def (\w+_kernel)\(", f.read_text(), re.M)}


def test_kernels_are_known_by_name() -> None:
    assert {"synaptic_current_kernel", "recurrent_scan_kernel"} <= _kernel_names()


# -- the checks find what is wrong -----------------------------------------------------------------


def _tampered(found: gate.Result, name: str, change: Callable[[Tensor], Tensor]) -> gate.Result:
    part = "gradients" if name.startswith("d_") else "outputs"
    values = getattr(found, part)
    name = name.removeprefix("d_")
    return replace(found, **{part: values | {name: change(values[name])}})


def _one_larger(t: Tensor, by: float = 1.001) -> Tensor:
    """The largest value, off by one part in a thousand."""
    t = t.clone()
    flat = t.view(-1)
    flat[flat.abs().argmax()] *= by
    return t


def _one_flipped(t: Tensor) -> Tensor:
    t = t.clone()
    t.view(-1)[0] = 1 - t.view(-1)[0]
    return t


def test_the_checks_find_a_wrong_result() -> None:
    for operator in gate.OUTPUTS:
        size = Size(R=2, T=6, B=3, I=5, J=4, K=2)
        given = next(
            made
            for made in (gate.make(operator, size, seed) for seed in range(50))
            if all(g is not None for g in made.g.values())
            and all(t is not None and t.any() for t in made.arguments.values())
        )
        found = gate.run(given)
        assert gate.assert_right(given, found) < 1
        for name, _ in found.tensors():
            change = _one_flipped if name == "spikes" else _one_larger
            with pytest.raises(AssertionError):
                gate.assert_right(given, _tampered(found, name, change))
            with pytest.raises(AssertionError):
                gate.assert_same_bits(_tampered(found, name, change), found)


def test_the_checks_find_a_dropped_term() -> None:
    """The last input unseen; one recurrent synapse unseen."""
    for operator in ("synaptic_current", "feedforward_scan", "recurrent_scan"):
        given = gate.make(operator, Size(T=20, B=2, I=150, J=40, K=1), 2)
        wrong = given.arguments["weight"].clone()
        wrong[..., -1] = 0
        given.arguments["weight"], right = wrong, given.arguments["weight"]
        found = gate.run(given)
        given.arguments["weight"] = right
        with pytest.raises(AssertionError):
            gate.assert_right(given, found)


def test_the_network_check_finds_a_wrong_gradient() -> None:
    network, x, g = network_of(11, 2, 13, [(9, True), (5, True)], 4, "cpu")
    found = gate.train(network, x, g)
    gate.assert_trained(network, x, g, found)
    for name in found.gradients:
        wrong = replace(
            found, gradients=found.gradients | {name: _one_larger(found.gradients[name], 1.05)}
        )
        with pytest.raises(AssertionError):
            gate.assert_trained(network, x, g, wrong)
    flipped = replace(found, spikes=[_one_flipped(found.spikes[0]), *found.spikes[1:]])
    with pytest.raises(AssertionError):
        gate.assert_trained(network, x, g, flipped)
