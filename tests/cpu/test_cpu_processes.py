"""Kernels in child processes of one that has used them on two threads.

Each case is a program of its own: the parent is not the process of the tests, and a child that
hangs is ended by a time limit. The children set nothing.

Two things hang in PyTorch itself, and the cases avoid them:

- Its parallel operations, in a forked child of a process that has used them. They begin at 32768
  elements, exponentials at 2048: the layers are made before the fork, and no tensor of a step is as
  large.
- A backward pass in a child that was forked while another thread began or ended one. Each takes the
  lock of `at::GlobalCallbackManager`, and the child may find it taken for ever. This happened in
  one of 5,000 forks beside five threads. So busy threads run forward passes only.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT = 200

# Above `__main__` what a spawned child imports, below it what the parent does.
PROGRAM = '''
import multiprocessing, os, signal, sys, torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from hetsyn_triton import HetSynLIF

def made(seed):
    generator = torch.Generator().manual_seed(seed)
    layer = HetSynLIF(72, 100, recurrent=True, generator=generator)
    return layer, (torch.rand(20, 13, 72, generator=generator) < 0.3).float()

def trained(seed):
    """Outputs, states and gradients, as bytes: 2e6 multiply-adds each way, two threads' worth."""
    layer, x = MADE[seed]
    x = x.detach().requires_grad_()
    output, state = layer(x)
    wanted = [x, *(p for p in layer.parameters() if p.requires_grad)]
    found = torch.autograd.grad(output.sum(), wanted)
    tensors = (output, *(t for t in state if isinstance(t, Tensor)), *found)
    return [t.detach().numpy().tobytes() for t in tensors]

MADE = [made(seed) for seed in range(6)]

class Layers(Dataset):
    """Items that are made by a layer."""

    def __len__(self):
        return 6

    def __getitem__(self, index):
        return index, trained(index)

def in_child(seed, results):
    results.put((seed, trained(seed)))

def wait(pid, seconds=60):
    signal.signal(signal.SIGALRM, lambda *_: os.kill(pid, signal.SIGKILL))
    signal.alarm(seconds)
    _, status = os.waitpid(pid, 0)
    signal.alarm(0)
    return os.waitstatus_to_exitcode(status)

if __name__ == "__main__":
    torch.set_num_threads(2)
    parent = {seed: trained(seed) for seed in range(6)}
    from hetsyn_triton.kernels.cpu.lib import threads
    assert threads._pool is not None, "the parent used one thread only"
'''

CASES = {
    "fork": """
    pid = os.fork()
    if pid == 0:
        right = all(trained(seed) == parent[seed] for seed in range(6))
        right = right and threads._pool is not None and torch.get_num_threads() == 2
        os._exit(0 if right else 1)
    # The parent goes on meanwhile.
    assert all(trained(seed) == parent[seed] for seed in range(6))
    assert wait(pid) == 0
""",
    "fork of a fork": """
    pid = os.fork()
    if pid == 0:
        first = trained(0) == parent[0]
        grandchild = os.fork()
        if grandchild == 0:
            os._exit(0 if trained(1) == parent[1] else 1)
        os._exit(0 if first and wait(grandchild) == 0 and trained(2) == parent[2] else 1)
    assert wait(pid) == 0
""",
    "fork beside busy threads": """
    import threading
    def busy():
        layer, x = MADE[0]
        while True:
            with torch.no_grad():
                layer(x)
    for _ in range(3):
        threading.Thread(target=busy, daemon=True).start()
    for seed in range(6):
        pid = os.fork()
        if pid == 0:
            os._exit(0 if trained(seed) == parent[seed] else 1)
        assert wait(pid) == 0
    print("done", flush=True)
    os._exit(0)  # without waiting for the threads
""",
    "multiprocessing": """
    for method in ("fork", "spawn"):
        context = multiprocessing.get_context(method)
        results = context.Queue()
        children = [context.Process(target=in_child, args=(seed, results)) for seed in (0, 1)]
        for child in children:
            child.start()
        for _ in children:
            seed, found = results.get(timeout=60)
            assert found == parent[seed], method
        for child in children:
            child.join(30)
            assert child.exitcode == 0, method
""",
    "data loader": """
    loader = DataLoader(
        Layers(), num_workers=2, batch_size=None, timeout=60, multiprocessing_context="fork"
    )
    for _ in range(2):
        seen = {int(index): found for index, found in loader}
        assert seen == parent
        assert trained(0) == parent[0]
""",
}


QUICK = ("fork", "fork beside busy threads")


@pytest.mark.parametrize(
    "case", [*QUICK, *(pytest.param(c, marks=pytest.mark.slow) for c in CASES if c not in QUICK)]
)
def test_children_compute_the_bits_of_their_parent(case: str, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM + CASES[case] + "    print('done')\n")
    done = subprocess.run(
        [sys.executable, str(program)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},  # not what is installed
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("done\n")
