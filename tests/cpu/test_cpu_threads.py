"""Kernels on several threads: many callers at once, too many threads, errors, the end of the
interpreter."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor

from hetsyn_triton import HetSynLIF
from hetsyn_triton.kernels.cpu.lib import threads
from hetsyn_triton.kernels.cpu.synaptic_current import synaptic_current
from tests.support.tensors import same

TIMEOUT = 120


def trained(seed: int, neurons: int = 40, recurrent: bool = False) -> list[Tensor]:
    """Outputs, final states and gradients of a small layer."""
    generator = torch.Generator().manual_seed(seed)
    layer = HetSynLIF(70, neurons, recurrent=recurrent, generator=generator)
    x = (torch.rand(12, 5, 70, generator=generator) < 0.3).float().requires_grad_()
    output, state = layer(x)
    loss = (output * torch.randn(output.shape, generator=generator)).sum()
    wanted = [x, *(p for p in layer.parameters() if p.requires_grad)]
    gradients = torch.autograd.grad(loss, wanted)
    states = [t for t in state if isinstance(t, Tensor)]
    return [output.detach(), *(t.detach() for t in states), *gradients]


def pool_threads() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name.startswith("hetsyn_triton")]


class Notes:
    """A kernel in Python: writes down the tasks it was given."""

    def __init__(self) -> None:
        self.done: list[int] = []

    def __call__(self, begin: int, end: int) -> None:
        self.done += range(begin, end)


@pytest.mark.parametrize("count", [1, 2, 3, 7, 64])
def test_every_task_is_done_once(count: int, on_threads: Callable[[int], None]) -> None:
    on_threads(count)
    for tasks in (0, 1, 2, 5, 7, 63, 64, 65, 1000):
        notes = Notes()
        threads.run(notes, tasks, 10**9)
        assert sorted(notes.done) == list(range(tasks))


def test_little_work_stays_on_its_thread() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        shares: list[tuple[int, int]] = []
        threads.run(lambda *share: shares.append(share), 100, threads.GRAIN - 1)
        assert shares == [(0, 100)]
        shares.clear()
        threads.run(lambda *share: shares.append(share), 100, 10**9)
        assert len(shares) == 4
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("recurrent", [False, True], ids=["feedforward", "recurrent"])
def test_callers_at_once(recurrent: bool, on_threads: Callable[[int], None]) -> None:
    """Eight threads, forward and backward over and over: each has the bits it has alone."""
    on_threads(3)
    alone = [trained(seed, recurrent=recurrent) for seed in range(8)]
    start = threading.Barrier(8)

    def call(seed: int) -> bool:
        start.wait(TIMEOUT)
        return all(same(trained(seed, recurrent=recurrent), alone[seed]) for _ in range(10))

    with ThreadPoolExecutor(8) as callers:
        assert all(callers.map(call, range(8), timeout=TIMEOUT))


def test_more_threads_than_cores(on_threads: Callable[[int], None]) -> None:
    on_threads(1)
    wanted = trained(3)
    on_threads(4 * (os.cpu_count() or 1) + 1)
    assert same(trained(3), wanted)


def test_threads_stay_few(on_threads: Callable[[int], None]) -> None:
    """However many calls and callers: at most one per core."""
    on_threads(4)
    for seed in range(20):
        trained(seed)
    with ThreadPoolExecutor(8) as callers:
        list(callers.map(trained, range(16), timeout=TIMEOUT))
    assert 1 <= len(pool_threads()) <= (os.cpu_count() or 1)


def test_a_pool_dropped_takes_its_threads_along(
    on_threads: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two first callers may each make a pool: the one that is lost ends."""
    on_threads(2)
    monkeypatch.setattr(threads, "_pool", None)
    before = set(pool_threads())
    trained(0)
    own = set(pool_threads()) - before
    assert own
    threads._pool = None
    for thread in own:
        thread.join(TIMEOUT)
        assert not thread.is_alive()


def test_a_busy_pool_does_not_stop_a_caller(on_threads: Callable[[int], None]) -> None:
    """Shares that no thread takes are done by the caller."""
    on_threads(2)
    wanted = trained(0)
    release, busy = threading.Event(), threading.Semaphore(0)

    def blocking(begin: int, end: int) -> None:
        busy.release()
        assert release.wait(TIMEOUT)

    cores = os.cpu_count() or 1
    with ThreadPoolExecutor(2 * cores) as callers:
        blocked = [callers.submit(threads.run, blocking, 2, 10**9) for _ in range(2 * cores)]
        # Every caller and every thread of the pool.
        for _ in range(3 * cores):
            assert busy.acquire(timeout=TIMEOUT)
        try:
            assert same(trained(0), wanted)
        finally:
            release.set()
        for caller in blocked:
            caller.result(TIMEOUT)


def test_a_kernel_may_call_a_kernel(on_threads: Callable[[int], None]) -> None:
    on_threads(3)
    notes = Notes()

    def outer(begin: int, end: int) -> None:
        for _ in range(begin, end):
            threads.run(notes, 10, 10**9)

    threads.run(outer, 12, 10**9)
    assert sorted(notes.done) == sorted(12 * list(range(10)))


@pytest.mark.parametrize("failing", [0, 3, 6])
def test_an_error_in_a_share_reaches_the_caller(
    failing: int, on_threads: Callable[[int], None]
) -> None:
    on_threads(7)

    def kernel(begin: int, end: int) -> None:
        if begin <= failing < end:
            raise MemoryError(failing)

    for _ in range(20):
        with pytest.raises(MemoryError, match=str(failing)):
            threads.run(kernel, 7, 10**9)
    # And nothing is left of it.
    notes = Notes()
    threads.run(notes, 7, 10**9)
    assert sorted(notes.done) == list(range(7))


def test_an_error_everywhere(on_threads: Callable[[int], None]) -> None:
    on_threads(5)

    def kernel(begin: int, end: int) -> None:
        raise MemoryError

    with pytest.raises(MemoryError):
        threads.run(kernel, 5, 10**9)
    assert same(trained(1), trained(1))


def test_no_thread_can_be_started(
    on_threads: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the limit of threads the caller does the rest, and no thread does it again later."""
    on_threads(4)
    monkeypatch.setattr(threads, "_pool", None)
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    start = threading.Thread.start
    started: list[Any] = []

    def limited(self: threading.Thread) -> None:
        if started:
            raise RuntimeError("can't start new thread")
        started.append(self)
        start(self)

    monkeypatch.setattr(threading.Thread, "start", limited)
    notes = Notes()

    def slow(begin: int, end: int) -> None:
        notes(begin, end)
        time.sleep(0.05)

    threads.run(slow, 4, 10**9)
    done = sorted(notes.done)
    time.sleep(0.3)
    assert sorted(notes.done) == done == list(range(4))


LAST_CALL = """
import atexit, threading, torch
from hetsyn_triton import HetSynLIF
from hetsyn_triton.kernels.cpu.lib import threads
from hetsyn_triton.kernels.cpu.synaptic_current import synaptic_current
from tests.support.tensors import same

threads.GRAIN = 1
torch.set_num_threads(2)
layer = HetSynLIF(70, 40, generator=torch.Generator().manual_seed(0))
x = torch.ones(12, 5, 70, requires_grad=True)

def run():
    output, _ = layer(x)
    return output.detach(), *torch.autograd.grad(output.sum(), [x, layer.weight])

first = run() if {warm} else None

def last():
    second = run()
    if first is not None:
        assert all(torch.equal(a, b) for a, b in zip(first, second))
    print("ran", flush=True)

# Before threads are joined, and after.
threading._register_atexit(last)
atexit.register(last)
"""


@pytest.mark.parametrize("warm", [True, False], ids=["pool there", "no pool"])
def test_a_call_while_the_interpreter_ends(warm: bool) -> None:
    """No thread can be had any more: the caller does it all."""
    code = LAST_CALL.format(warm=warm)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=TIMEOUT
    )
    assert (done.returncode, done.stdout) == (0, "ran\nran\n"), done.stderr
    assert "Error" not in done.stderr


@pytest.mark.parametrize("flushing", [False, True])
def test_a_trace_below_the_normal_numbers_is_zero(
    on_threads: Callable[[int], None], flushing: bool
) -> None:
    """On every thread and whatever the caller does with such numbers, which does not change; on
    some processors they make a kernel many times slower."""
    z = torch.zeros(1, 400, 4, 40)
    z[:, 0] = 1.0
    decay = torch.full((1, 40, 40), 0.79)
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor cannot flush them")
    torch.set_flush_denormal(flushing)
    smallest = torch.full((1,), torch.finfo(torch.float32).tiny)
    try:
        for count in (1, 2):
            on_threads(count)
            assert (synaptic_current(z, decay, decay, None)[1] == 0).all()
            early = synaptic_current(z[:, :360], decay, decay, None)[1]
            assert (early > 0).all()  # 0.79 ** 360, a normal number
            assert ((smallest / 2 == 0).item()) is flushing
    finally:
        torch.set_flush_denormal(False)


@pytest.mark.parametrize("flushing", [False, True])
def test_what_is_shared_out_takes_them_as_its_caller_does(
    on_threads: Callable[[int], None], flushing: bool
) -> None:
    """A surrogate, which is no kernel: also on a thread of the pool that has run one."""
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor cannot flush them")
    halves: dict[int, bool] = {}
    meet = threading.Barrier(2, timeout=TIMEOUT)

    def halve(begin: int, end: int) -> None:
        meet.wait()  # each of two threads has a share
        tiny = torch.full((1,), torch.finfo(torch.float32).tiny)
        halves[threading.get_ident()] = bool(tiny / 2 == 0)

    on_threads(2)
    try:
        torch.set_flush_denormal(flushing)
        threads.run(halve, 2, 10**9)
        assert list(halves.values()) == [True, True]
        halves.clear()
        threads.share(halve, 2, 10**9)
        assert list(halves.values()) == [flushing, flushing]
    finally:
        torch.set_flush_denormal(False)


def test_a_kernel_that_fails_leaves_denormal_numbers_to_its_caller() -> None:
    def failing(begin: int, end: int) -> None:
        raise RuntimeError("kernel")

    with pytest.raises(RuntimeError, match="kernel"):
        threads.run(failing, 1, 1)
    assert (torch.full((1,), torch.finfo(torch.float32).tiny) / 2 > 0).all()


def test_numpy_keeps_its_limits() -> None:
    """Those of a process whose first kernel asks for them: NumPy below 2.4 works them out then."""
    code = (
        "import torch, warnings\nwarnings.simplefilter('error')\n"
        "from hetsyn_triton import HetSynLIF\nHetSynLIF(3, 2)(torch.ones(4, 1, 3))\n"
        "import numpy as np\nprint(float(np.finfo(np.float32).smallest_subnormal) > 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "True\n", done.stderr
