"""What PyTorch computes around the kernels: the same numbers, and its own threads stay asleep."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from hetsyn_triton.one_thread import _setters, on_this_thread
from hetsyn_triton.ops import surrogate as of_spikes
from hetsyn_triton.ops.recurrent_scan import previous
from hetsyn_triton.ops.surrogate import derivative
from hetsyn_triton.reference.lib.steps import previous_steps, spike_derivative
from hetsyn_triton.surrogates import SURROGATES, Triangular

SHAPES = [(1, 1, 1, 1), (3, 7, 5, 13), (2, 45, 6, 33), (1, 0, 2, 3), (2, 3, 0, 4), (2, 9, 3, 0)]


class Own:
    """A built-in surrogate as one of the user's own that promises to be elementwise."""

    elementwise = True

    def __init__(self, name: str) -> None:
        self.surrogate = SURROGATES[name]()

    def __call__(self, u: Tensor, threshold: Tensor) -> Tensor:
        return self.surrogate(u, threshold)


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", SURROGATES)
@pytest.mark.parametrize("piece", [1, 1 << 16])
def test_shares_are_the_whole(
    name: str,
    shape: tuple[int, ...],
    threads: int,
    piece: int,
    on_threads: Callable[[int], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """For replicas with thresholds of their own, bit by bit; V may be strided. (PyTorch's sigmoid
    rounds the last elements of a call in another way, so the whole is that of one replica.)"""
    on_threads(threads)
    monkeypatch.setattr(of_spikes, "PIECE", piece)
    monkeypatch.setattr(of_spikes, "SHARED_PIECE", piece)
    generator = torch.Generator().manual_seed(1)
    R, T, B, J = shape
    potential = torch.randn(R, J, T, B, generator=generator).permute(0, 2, 3, 1)
    threshold = 0.5 + torch.rand(R, J, generator=generator)
    surrogate = Own(name)
    found = derivative(surrogate, potential, threshold)
    for v, theta, of_replica in zip(potential, threshold, found, strict=True):
        expected = spike_derivative(surrogate, v.contiguous() - theta, theta)
        assert torch.equal(of_replica, expected)


def test_a_function_that_promises_nothing_sees_everything_at_once(
    on_threads: Callable[[int], None],
) -> None:
    on_threads(2)
    seen = []

    def scaled(u: Tensor, threshold: Tensor) -> Tensor:
        seen.append(u.shape)
        return u / u.abs().max()

    potential = torch.randn(2, 30, 4, 5)
    found = derivative(scaled, potential, torch.ones(2, 5))
    assert seen == [(2, 30, 4, 5)]
    assert found.abs().max() == 1


@pytest.mark.parametrize("elementwise", [True, False])
def test_the_number_of_threads_comes_back_after_an_error(
    elementwise: bool, on_threads: Callable[[int], None]
) -> None:
    on_threads(2)

    class Broken:
        def __init__(self) -> None:
            self.elementwise = elementwise  # of the object, not of its class

        def __call__(self, u: Tensor, threshold: Tensor) -> Tensor:
            raise ArithmeticError("broken")

    with pytest.raises(ArithmeticError, match="broken"):
        derivative(Broken(), torch.randn(1, 40, 4, 5), torch.ones(1, 5))
    assert torch.get_num_threads() == 2


def test_one_thread_is_this_threads_alone(on_threads: Callable[[int], None]) -> None:
    on_threads(2)
    if not _setters():
        pytest.skip("PyTorch is built without OpenMP")
    seen = []

    def ask() -> None:
        seen.append(torch.get_num_threads())

    with on_this_thread():
        assert torch.get_num_threads() == 1
        other = threading.Thread(target=ask)
        other.start()
        other.join()
    assert seen == [2]
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", SHAPES)
def test_steps_before(
    shape: tuple[int, ...], dtype: torch.dtype, threads: int, on_threads: Callable[[int], None]
) -> None:
    on_threads(threads)
    R, T, B, J = shape
    steps = torch.randn(R, J, T, B, dtype=dtype).permute(0, 2, 3, 1)
    initial = torch.randn(R, J, B, dtype=dtype).mT
    assert torch.equal(previous(steps, initial), previous_steps(steps, initial))


def test_steps_before_are_traced_whole(on_threads: Callable[[int], None]) -> None:
    """As `test_a_traced_surrogate_is_whole`."""
    on_threads(2)
    steps, initial = torch.randn(1, 300, 4, 5), torch.randn(1, 4, 5)
    graph = torch.fx.experimental.proxy_tensor.make_fx(previous)(steps, initial)
    other = torch.randn(1, 300, 4, 5)
    assert torch.equal(graph(other, initial), previous_steps(other, initial))
    mapped = torch.vmap(previous, (None, 0))(steps, torch.stack([initial, -initial]))
    assert torch.equal(mapped[1], previous_steps(steps, -initial))


class Scaled(Triangular):
    """Derived from one that promises to be elementwise, and not elementwise."""

    def __call__(self, u: Tensor, threshold: Tensor) -> Tensor:
        return u / u.abs().max()


class Promising(Scaled):
    elementwise = True

    def __call__(self, u: Tensor, threshold: Tensor) -> Tensor:
        return 2 * u


def test_the_promise_is_not_inherited_by_another_function(
    on_threads: Callable[[int], None],
) -> None:
    on_threads(3)
    potential, threshold = torch.randn(1, 200, 4, 5), torch.ones(1, 5)
    found = derivative(Scaled(), potential, threshold)
    distance = potential - 1
    assert torch.equal(found, distance / distance.abs().max())
    function = Triangular().__call__
    assert [
        of_spikes._is_elementwise(s) for s in (Triangular(), Scaled(), Promising(), function)
    ] == [
        True,
        False,
        True,
        False,
    ]


def test_a_traced_surrogate_is_whole(on_threads: Callable[[int], None]) -> None:
    """make_fx sees what its own thread does, and only that."""
    on_threads(2)
    potential, threshold = torch.randn(1, 300, 4, 5), torch.ones(1, 5)

    def run(v: Tensor) -> Tensor:
        return derivative(Own("triangular"), v, threshold)

    graph = torch.fx.experimental.proxy_tensor.make_fx(run)(potential)
    other = torch.randn(1, 300, 4, 5)
    assert torch.equal(graph(other), run(other))


# Sequences and states have more elements than PyTorch leaves to one thread. Weights have fewer, and
# so have pieces: gradients of a piece and of its last spike are added by autograd itself.
WAYS = """
import os, signal, sys, threading, torch
from hetsyn_triton import HetSynLIF, HetSynReadout, surrogates
from hetsyn_triton import functional as F

class Own:
    elementwise = True

    def __call__(self, u, threshold):
        return u.exp()

def others():
    return len(os.listdir("/proc/self/task")) - len(threading.enumerate())

def gradients(layer, x, g, pieces=1):
    found, state = [], None
    for part in x.chunk(pieces):
        output, state = layer(part, state)
        found.append(output)
    return torch.autograd.grad(found, list(layer.parameters()), g.chunk(pieces))

torch.set_num_threads(1)  # what makes large tensors here is PyTorch's own
T, B, I, J = 120, 9, 80, 64
x, g = (torch.rand(T, B, I) < 0.1), torch.randn(T, B, J)
spikes = x.float()
batch_first, replicas = spikes.transpose(0, 1), spikes.expand(2, T, B, I)
kinds = (surrogates.MultiGaussian(), Own(), lambda u, threshold: u.exp())
layers = [HetSynLIF(I, J, recurrent=r, surrogate=s) for r in (False, True) for s in kinds]
turned = [HetSynLIF(I, J, recurrent=r, batch_first=True) for r in (False, True)]
readout = HetSynReadout(I, J)
one = torch.ones(()).expand(T, B, J)  # what a sum hands back
weight, decay = (torch.rand(2, J, I).requires_grad_() for _ in range(2))
square = torch.rand(2, J, J) / J

def replicated():
    c, _ = F.synaptic_current(replicas, weight, decay)
    s, *_ = F.recurrent_scan(c, square, square, 1.0, 0.9)
    return torch.autograd.grad(s, [weight, decay], g.expand(2, T, B, J))

ways = {
    "dense": lambda: [gradients(layer, spikes, g) for layer in layers],
    "bool": lambda: [gradients(layer, x, g) for layer in layers],
    "sum": lambda: [gradients(layer, spikes, one) for layer in layers],
    "pieces": lambda: [gradients(layer, spikes, g, 4) for layer in layers],
    "batch first": lambda: [gradients(layer, batch_first, g.transpose(0, 1)) for layer in turned],
    "readout": lambda: [gradients(readout, spikes, one)],
    "replicas": lambda: [replicated()],
}

def made():
    return {
        name: [t.numpy().tobytes() for found in way() for t in found] for name, way in ways.items()
    }

HetSynLIF(3, 2)(spikes[..., :3])  # what else starts a thread when it is first used
torch.set_num_threads(2)
"""

COUNTING = """
for name, way in ways.items():
    before = others()
    way()
    print(name, others() - before, sep=",")
g.exp_()
print("PyTorch", others() - before, sep=",")
"""

FORKING = """
parent = made()
torch.randn(1 << 20).exp_()  # PyTorch has threads now, and its child has not
pid = os.fork()
if pid == 0:
    os._exit(0 if made() == parent else 1)
signal.signal(signal.SIGALRM, lambda *_: os.kill(pid, signal.SIGKILL))
signal.alarm(120)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


def ran(program: str) -> list[str]:
    """The lines a program prints."""
    if not _setters():
        pytest.skip("PyTorch is built without OpenMP")
    command = [sys.executable, "-c", WAYS + program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are counted by Linux")
def test_layers_wake_no_thread_of_pytorch() -> None:
    """A process has OpenMP's threads from the first operation on that PyTorch shares out: after
    forward and backward there are none, and one after an operation of PyTorch's own."""
    *layers, own = ran(COUNTING)
    names = ("dense", "bool", "sum", "pieces", "batch first", "readout", "replicas")
    assert layers == [f"{name},0" for name in names]
    assert own == "PyTorch,1"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this system")
def test_a_child_needs_no_thread_of_pytorch() -> None:
    """Large tensors, in a forked child of a process that has used PyTorch's threads."""
    assert ran(FORKING) == ["0"]
