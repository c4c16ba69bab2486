"""What PyTorch computes between the kernels: the same numbers, and its own threads stay asleep."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from torch import Tensor

from hetsyn_triton.ops import between
from hetsyn_triton.reference.steps import previous_steps, spike_derivative
from hetsyn_triton.surrogates import SURROGATES

SHAPES = [(1, 1, 1, 1), (3, 7, 5, 13), (2, 45, 6, 33), (1, 0, 2, 3), (2, 3, 0, 4), (2, 9, 3, 0)]


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", SURROGATES)
@pytest.mark.parametrize("piece", [1, 1 << 16])
def test_shares_are_the_whole(name, shape, threads, piece, on_threads, monkeypatch) -> None:
    """For replicas with thresholds of their own, bit by bit; V may be strided. (PyTorch's sigmoid
    rounds the last elements of a call in another way, so the whole is that of one replica.)"""
    on_threads(threads)
    monkeypatch.setattr(between, "PIECE", piece)
    generator = torch.Generator().manual_seed(1)
    R, T, B, J = shape
    potential = torch.randn(R, T, J, B, generator=generator).mT
    threshold = 0.5 + torch.rand(R, J, generator=generator)
    surrogate = SURROGATES[name]()
    found = between.derivative(surrogate, potential, threshold)
    for v, theta, of_replica in zip(potential, threshold, found, strict=True):
        expected = spike_derivative(surrogate, v.contiguous() - theta, theta)
        assert torch.equal(of_replica, expected)


def test_a_function_that_promises_nothing_sees_everything_at_once(on_threads) -> None:
    on_threads(2)
    seen = []

    def scaled(u: Tensor, threshold: Tensor) -> Tensor:
        seen.append(u.shape)
        return u / u.abs().max()

    potential = torch.randn(2, 30, 4, 5)
    found = between.derivative(scaled, potential, torch.ones(2, 5))
    assert seen == [(2, 30, 4, 5)]
    assert found.abs().max() == 1


@pytest.mark.parametrize("elementwise", [True, False])
def test_the_number_of_threads_comes_back_after_an_error(elementwise, on_threads) -> None:
    on_threads(2)

    class Broken:
        def __init__(self) -> None:
            self.elementwise = elementwise

        def __call__(self, u: Tensor, threshold: Tensor) -> Tensor:
            raise ArithmeticError("broken")

    with pytest.raises(ArithmeticError, match="broken"):
        between.derivative(Broken(), torch.randn(1, 40, 4, 5), torch.ones(1, 5))
    assert torch.get_num_threads() == 2


def test_one_thread_is_this_threads_alone(on_threads) -> None:
    on_threads(2)
    if not between._setters():
        pytest.skip("PyTorch is built without OpenMP")
    seen = []

    def ask() -> None:
        seen.append(torch.get_num_threads())

    with between._on_this_thread():
        assert torch.get_num_threads() == 1
        other = threading.Thread(target=ask)
        other.start()
        other.join()
    assert seen == [2]
    assert torch.get_num_threads() == 2


def test_steps_before() -> None:
    steps, initial = torch.randn(2, 5, 3, 4), torch.randn(2, 3, 4)
    assert torch.equal(between.previous(steps, initial), previous_steps(steps, initial))


PROGRAM = """
import os, threading, torch
from hetsyn_triton import HetSynLIF, surrogates
from hetsyn_triton.ops import between

def others():
    return len(os.listdir("/proc/self/task")) - len(threading.enumerate())

torch.set_num_threads(1)  # what makes and sums large tensors here is PyTorch's own
kinds = (surrogates.Triangular(), surrogates.MultiGaussian(), lambda u, threshold: u.exp())
layers = [HetSynLIF(300, 128, recurrent=r, surrogate=s) for r in (False, True) for s in kinds]
x = (torch.rand(120, 9, 300) < 0.1).float()
g = torch.randn(120, 9, 128)
HetSynLIF(3, 2)(x[..., :3])  # what else starts a thread when it is first used
torch.set_num_threads(2)
before = others()
for layer in layers:
    torch.autograd.grad(layer(x)[0], list(layer.parameters()), g)
layers_woke = others() - before
g.exp_()
print(layers_woke, others() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are counted by Linux")
def test_layers_wake_no_thread_of_pytorch() -> None:
    """A process has OpenMP's threads from the first operation on that PyTorch shares out: after
    forward and backward of layers there are none, and one after an operation of PyTorch's."""
    if not between._setters():
        pytest.skip("PyTorch is built without OpenMP")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=200, check=False
    )
    assert done.stdout.split() == ["0", "1"], done.stderr
