"""CUDA graphs of a whole training step, and those of torch.compile."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.utils import counters

from hetsyn_triton import (
    MODELS,
    GraphedStep,
    NonFiniteError,
    detach_state,
    make_network,
    parameter_groups,
)
from tests.support.layer_cases import ALL, I, spikes

pytestmark = pytest.mark.gpu

T, B, O = 20, 6, 5  # noqa: E741


def cross_entropy(
    network: nn.Module, x: Tensor, target: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    logits = network(x)[0].mean(0)
    accuracy = (logits.argmax(1) == target).double().mean()
    return nn.functional.cross_entropy(logits, target), {"accuracy": accuracy}


def batch_of(seed: int, samples: int = B) -> tuple[Tensor, Tensor]:
    target = torch.arange(samples) % O
    x = 20 * spikes(T, samples, I, seed=seed, dtype=torch.float32)
    return x.to("cuda"), target.to("cuda")


def step_of(model: str, graphed: bool) -> GraphedStep:
    generator = torch.Generator().manual_seed(0)
    network = make_network(
        model, I, [12, 9], O, recurrent=True, dropout=0.3, generator=generator
    ).to("cuda")
    optimizer = torch.optim.AdamW(parameter_groups(network, 0.02))
    sample = batch_of(0) if graphed else None
    return GraphedStep(network, cross_entropy, optimizer, sample, clip=0.5)


def values_of(step: GraphedStep) -> list[Tensor]:
    states = step.optimizer.state.values()
    moments = [v for state in states for v in state.values() if isinstance(v, Tensor)]
    return [t.detach().clone() for t in (*step.network.parameters(), *moments)]


@pytest.mark.parametrize("model", MODELS)
def test_graphs_change_no_bit(model: str) -> None:
    """With dropout, clipping, smaller batches between the others, and rates that change."""
    steps = step_of(model, True), step_of(model, False)
    for seed in range(12):
        batch = batch_of(seed, B - 2 if seed in (4, 8) else B)
        found = []
        for step in steps:
            for group in step.optimizer.param_groups:
                group["lr"] = 0.02 / (1 + seed)
            torch.manual_seed(seed)
            found.append({name: value.item() for name, value in step(*batch).items()})
        assert found[0] == found[1]
    assert steps[0]._graph is not None
    assert steps[1]._graph is None
    for step in steps:
        step.check()
    for a, b in zip(*map(values_of, steps), strict=True):
        assert torch.equal(a, b)


def test_a_replay_that_is_not_finite_changes_nothing() -> None:
    step = step_of("hetsyn", True)
    for seed in range(5):
        step(*batch_of(seed))
    step.check()
    before = values_of(step)
    x, target = batch_of(5)
    x[0, 0, 0] = torch.nan
    for given in (x, batch_of(6)[0]):
        step(given, target)
    for a, b in zip(values_of(step), before, strict=True):
        assert torch.equal(a, b)
    with pytest.raises(NonFiniteError, match="at step 6"):
        step.check()


@pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning")  # inductor's own
@pytest.mark.parametrize("name", ALL)
def test_compiled_layers_are_replayed(name: str) -> None:
    """`mode="reduce-overhead"` records CUDA graphs, forward and backward, and skips none.

    The state of a chunk is cloned: the next replay overwrites it.
    """
    from torch._inductor import cudagraph_trees  # whose import warns

    torch._dynamo.reset()
    counters.clear()
    layer = ALL[name].make(dtype=torch.float32).to("cuda")
    compiled: Any = torch.compile(layer, mode="reduce-overhead", fullgraph=True)
    parameters = list(layer.parameters())
    state = plain = None
    for seed in range(5):
        x = spikes(T, B, I, seed=seed, dtype=torch.float32).to("cuda")
        torch.compiler.cudagraph_mark_step_begin()
        output, new = compiled(x, state)
        wanted, plain = layer(x, plain)
        found = torch.autograd.grad(output.sum(), parameters, allow_unused=True)
        expected = torch.autograd.grad(wanted.sum(), parameters, allow_unused=True)
        torch.testing.assert_close(output, wanted)
        for a, b in zip(found, expected, strict=True):
            assert (a is None) == (b is None)
            if a is not None:
                torch.testing.assert_close(a, b)
        state, plain = detach_state(new), detach_state(plain)
    assert counters["inductor"]["cudagraph_skips"] == 0
    manager = cudagraph_trees.get_manager(torch.cuda.current_device(), False)
    assert manager is not None
    assert manager.roots
