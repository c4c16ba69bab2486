"""Differentiable operators, layers and networks on hundreds of random shapes on a GPU.

Without a GPU the same checks run on fewer and smaller shapes of the CPU kernels. The last tests
change results, and the checks must fail.
"""

import os
import random
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
from tests.support.network_truth import check_network, give_derivatives, lif, train
from tests.support.operators import DIFFERENTIABLE, Size
from tests.support.random_arguments import Problem, Tensors, assert_sample_alone, draw
from tests.support.tensors import assert_same_bits
from tests.support.truth import check_problem

FOLDER = Path(__file__).resolve().parent
FEATURES = (
    1, 1, 1, 2, 3, 4, 5, 7, 13, 31, 32, 33, 61, 64, 97, 127, 128, 129, 131, 251, 256, 293,
)  # fmt: skip
"""Numbers of inputs or neurons that are drawn more often."""


@pytest.fixture(autouse=True)
def _kernels_on_trial() -> Iterator[None]:
    """On a GPU the kernels that wait for this test run in it."""
    with trial_kernels():
        yield


def sizes(count: int, variants: int, work: float, seed: int) -> Iterator[list[Size]]:
    """`count` lists of sizes with the same features and feedbacks, so that a list compiles once.

    R T B I J stays below `work`.
    """
    choice = random.Random(seed)

    def features() -> int:
        span = choice.choice(((1, 16), (17, 100), (101, 300)))
        return choice.choice(FEATURES) if choice.random() < 0.4 else choice.randint(*span)

    for _ in range(count):
        I, J, K = features(), features(), choice.randint(1, 3)  # noqa: E741
        made = []
        for _ in range(variants):
            R, T, B = choice.randint(1, 3), choice.randint(1, 60), choice.randint(1, 40)
            while R * T * B * max(I, J) * J > work and R * T * B > 1:
                R, T, B = max(1, R - 1), max(1, T // 2), max(1, B * 2 // 3)
            made.append(Size(R=R, T=T, B=B, I=I, J=J, K=K))
        yield made


CPU = {operator: list(sizes(3, 1, 3e5, seed)) for seed, operator in enumerate(DIFFERENTIABLE)}
GPU = {
    operator: list(sizes(8 if operator.startswith("leaky") else 20, 4, 4e7, 100 + seed))
    for seed, operator in enumerate(DIFFERENTIABLE)
}
CASES = [
    pytest.param(device, operator, index, id=f"{device}-{operator}-{index}", marks=marks)
    for device, made, marks in (("cpu", CPU, ()), ("cuda", GPU, pytest.mark.gpu))
    for operator, lists in made.items()
    for index in range(len(lists))
]
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


@pytest.mark.parametrize(("device", "operator", "index"), CASES)
def test_operator(device: str, operator: str, index: int) -> None:
    """Within rounding of float64, and the same bits again."""
    lists = CPU if device == "cpu" else GPU
    for variant, size in enumerate(lists[operator][index]):
        problem = draw(operator, size, 1000 * index + variant, index).to(torch.device(device))
        before = {n: t.clone() for n, t in problem.given.items() if t is not None}
        found = problem.run()
        check_problem(problem, found)
        assert_same_bits(problem.run(), found)
        assert all(torch.equal(problem.given[n], t) for n, t in before.items())


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
        made.append(lif(width, neurons, recurrent, generator))
        width = neurons
    readout = None if outputs is None else HetSynReadout(width, outputs, generator=generator)
    network = SpikingNetwork(made, readout).to(device)
    give_derivatives(network, T, B)
    x = (torch.rand(T, B, inputs, generator=generator) < 0.4).float()
    g = torch.randn(T, B, outputs or width, generator=generator)
    return network, x.to(device), g.to(device)


@pytest.mark.parametrize("device", DEVICES)
def test_layers_and_networks(device: str) -> None:
    """One layer of each kind, and networks of the size class of speech commands."""
    for case in networks(device):
        network, x, g = network_of(*case, device)
        found = train(network, x, g)
        check_network(network, x, g, found)
        assert_same_bits(train(network, x, g), found)


# -- the same bits, however it is called -----------------------------------------------------------


@pytest.mark.parametrize("operator", DIFFERENTIABLE)
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
        problem = draw(operator, size, 3).to(on_kernels)
        whole = problem.run()
        check_problem(problem, whole)
        for b in {0, size.B // 2, size.B - 1}:
            assert_sample_alone(problem, whole, b)


def _on_a_side_stream(problem: Problem) -> Tensors:
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        found = problem.run()
    side.synchronize()
    return found


def _in_a_graph(problem: Problem) -> Tensors:
    _on_a_side_stream(problem)  # compiles, and warms the allocator
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = problem.run()
    for tensor in found.values():
        tensor.fill_(torch.nan)
    graph.replay()
    torch.cuda.synchronize()
    return found


def _on_the_second_device(problem: Problem) -> Tensors:
    if torch.cuda.device_count() < 2:
        pytest.skip("one device only")
    return problem.to(torch.device("cuda:1")).run()  # the first stays the current one


@pytest.mark.gpu
@pytest.mark.parametrize("operator", DIFFERENTIABLE)
@pytest.mark.parametrize("way", [_on_a_side_stream, _in_a_graph, _on_the_second_device])
def test_every_way_to_call_gives_the_same_bits(
    way: Callable[[Problem], Tensors], operator: str
) -> None:
    for size in (Size(R=2, T=21, B=9, I=70, J=61, K=2), Size(T=13, B=5, I=300, J=200, K=1)):
        problem = draw(operator, size, 4).to(torch.device("cuda"))
        plain = problem.run()
        assert_same_bits(way(problem), plain)


@pytest.mark.gpu
def test_a_captured_training_step_gives_the_same_bits() -> None:
    network, x, g = network_of(50, 32, 700, [(128, True), (64, True)], 20, "cuda")
    plain = train(network, x, g)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        train(network, x, g)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = train(network, x, g)
    graph.replay()
    torch.cuda.synchronize()
    assert_same_bits(found, plain)


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
    code = "from tests.support import truth; truth.check_small_problems()"
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
    for operator in DIFFERENTIABLE:
        size = Size(R=2, T=6, B=3, I=5, J=4, K=2)
        problem = next(
            made
            for made in (draw(operator, size, seed) for seed in range(50))
            if all(t is not None and t.any() for t in made.given.values())
        )
        found = problem.run()
        assert check_problem(problem, found) < 1
        for name, t in found.items():
            change = _one_flipped if name == "spikes" else _one_larger
            wrong = found | {name: change(t)}
            with pytest.raises(AssertionError):
                check_problem(problem, wrong)
            with pytest.raises(AssertionError):
                assert_same_bits(wrong, found)


def test_the_checks_find_a_dropped_term() -> None:
    """The last input unseen; one recurrent synapse unseen."""
    for operator in ("synaptic_current", "feedforward_scan", "recurrent_scan"):
        problem = draw(operator, Size(T=20, B=2, I=150, J=40, K=1), 2)
        weight = problem.given["weight"].clone()
        weight[..., -1] = 0
        found = replace(problem, given=problem.given | {"weight": weight}).run()
        with pytest.raises(AssertionError):
            check_problem(problem, found)


def test_the_network_check_finds_a_wrong_gradient() -> None:
    network, x, g = network_of(11, 2, 13, [(9, True), (5, True)], 4, "cpu")
    found = train(network, x, g)
    check_network(network, x, g, found)
    for name in [name for name in found if name.startswith("d_")]:
        with pytest.raises(AssertionError):
            check_network(network, x, g, found | {name: _one_larger(found[name], 1.05)})
    name = "layers.0.spikes"
    with pytest.raises(AssertionError):
        check_network(network, x, g, found | {name: _one_flipped(found[name])})
