"""GraphedStep trains as a plain loop does, and a bad step changes nothing."""

import copy
import gc
import importlib
import math
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from hetsyn_triton import (
    GraphedStep,
    NonFiniteError,
    SpikingNetwork,
    clamp_decays_,
    graphed_step,
    make_network,
    parameter_groups,
)
from hetsyn_triton.ops import branches

T, B, I, O = 9, 4, 6, 3  # noqa: E741

OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "AdamW": lambda groups: torch.optim.AdamW(groups),
    "SGD": lambda groups: torch.optim.SGD(groups, momentum=0.9),
    "RMSprop": lambda groups: torch.optim.RMSprop(groups),
}


def network_of(seed: int = 0, dropout: float = 0.0) -> SpikingNetwork:
    generator = torch.Generator().manual_seed(seed)
    return make_network(
        "hetsyn", I, [7, 5], O, recurrent=True, dropout=dropout, generator=generator
    )


def batch_of(seed: int, samples: int = B, steps: int = T) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = (torch.rand(steps, samples, I, generator=generator) < 0.5).float() * 20
    return x, torch.randint(0, O, (samples,), generator=generator)


def cross_entropy(
    network: nn.Module, x: Tensor, target: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    output, _ = network(x)
    logits = output.mean(0)
    accuracy = (logits.argmax(1) == target).double().mean()
    return nn.functional.cross_entropy(logits, target), {"accuracy": accuracy}


def made(
    network: SpikingNetwork, optimizer: str = "AdamW", lr: float = 0.05, **options: Any
) -> GraphedStep:
    groups = parameter_groups(network, lr)
    return GraphedStep(
        network, cross_entropy, OPTIMIZERS[optimizer](groups), batch_of(0), **options
    )


def gradients_of(network: nn.Module) -> list[Tensor]:
    return [p.grad for p in network.parameters() if p.grad is not None]


def values_of(step: GraphedStep) -> list[Tensor]:
    """Copies of all that a step may change."""
    state = step.optimizer.state
    return [
        *(p.detach().clone() for p in step.network.parameters()),
        *(v.clone() for s in state.values() for v in s.values() if isinstance(v, Tensor)),
    ]


def assert_same(found: Sequence[Tensor], wanted: Sequence[Tensor]) -> None:
    for a, b in zip(found, wanted, strict=True):
        assert torch.equal(a, b)


class Graph:
    """A stand-in for `torch.cuda.CUDAGraph`: to capture runs nothing, to replay runs the step.

    As a graph does, it keeps the numbers of the capture.
    """

    replays = 0

    def __init__(
        self,
        run: Callable[[], dict[str, Tensor]],
        results: dict[str, Tensor],
        optimizer: torch.optim.Optimizer,
    ) -> None:
        self.run, self.results, self.groups = run, results, optimizer.param_groups
        assert optimizer.state, "a captured step would create the state again and again"
        self.kept = [dict(group) for group in self.groups]

    def replay(self) -> None:
        Graph.replays += 1
        now = [dict(group) for group in self.groups]
        for group, kept in zip(self.groups, self.kept, strict=True):
            group.update(kept)
        for result, new in zip(self.results.values(), self.run().values(), strict=True):
            result.copy_(new)
        for group, own in zip(self.groups, now, strict=True):
            group.update(own)


def make_capturable(monkeypatch: pytest.MonkeyPatch, optimizer: str, device: str) -> None:
    """An optimizer's `capturable` form runs on a device that PyTorch does not allow it on."""
    module = importlib.import_module(f"torch.optim.{optimizer}")
    monkeypatch.setattr(module, "_get_capturable_supported_devices", lambda *_: [device])


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """GraphedStep takes the CPU for a GPU; captures and replays are those of `Graph`."""

    def init(
        self: Any, step: Callable[[Sequence[Tensor]], dict[str, Tensor]], batch: Any, stream: None
    ) -> None:
        self._batch = [tensor.clone() for tensor in batch]
        self._results = {"loss": torch.zeros(()), "accuracy": torch.zeros((), dtype=torch.double)}
        optimizer = step.__self__.optimizer  # type: ignore[attr-defined]
        self._graph = Graph(lambda: step(self._batch), self._results, optimizer)

    @contextmanager
    def stream(_: object) -> Iterator[None]:
        yield

    class Stream:
        def __init__(self, device: torch.device) -> None: ...

        def wait_stream(self, other: object) -> None: ...

        device = torch.device("cpu")

    Graph.replays = 0
    monkeypatch.setattr(graphed_step._Graph, "__init__", init)
    monkeypatch.setattr(torch.cuda, "stream", stream)
    monkeypatch.setattr(Tensor, "record_stream", lambda *_: None)
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: Stream(torch.device("cpu")))
    monkeypatch.setattr(graphed_step, "_can_capture", lambda device: True)
    make_capturable(monkeypatch, "adam", "cpu")


@pytest.mark.parametrize("clip", [None, 0.01])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_step_is_that_of_a_plain_loop(optimizer: str, clip: float | None) -> None:
    """To the last bit: parameters, optimizer state, loss and metrics."""
    step = made(network_of(), optimizer, clip=clip)
    network = network_of()
    plain = OPTIMIZERS[optimizer](parameter_groups(network, 0.05))
    for seed in range(6):
        x, target = batch_of(seed, samples=B - seed % 2)
        plain.zero_grad()
        loss, metrics = cross_entropy(network, x, target)
        loss.backward()
        assert nn.utils.get_total_norm(gradients_of(network)) > 0.01
        if clip is not None:
            nn.utils.clip_grad_norm_(network.parameters(), clip)
        plain.step()
        clamp_decays_(network)
        found = step(x, target)
        assert_same(list(found.values()), [loss.detach(), metrics["accuracy"]])
        assert not found["loss"].requires_grad
    step.check()
    assert step.steps == 6
    assert_same(list(step.network.parameters()), list(network.parameters()))


@pytest.mark.usefixtures("stand_in")
def test_what_is_replayed() -> None:
    """The fourth batch of the sample's shape is captured; other shapes and modes run eagerly."""
    network = network_of(dropout=0.3)
    step, eager = made(network), made(copy.deepcopy(network))
    eager._sample = None
    replays = [0, 0, 0, 0, 1, 1, 1, 2, 2, 3]
    samples = [B, B, B - 1, B, B, B - 1, B, B, B, B]
    # the sixth of other length, the ninth in another mode
    for seed, (wanted, count) in enumerate(zip(replays, samples, strict=True)):
        batch = batch_of(seed, count, T + 1 if seed == 6 else T)
        for one in (step, eager):
            one.network.train(seed != 8)
            torch.manual_seed(seed)
            one.results = one(*batch)  # type: ignore[attr-defined]
        assert_same(list(step.results.values()), list(eager.results.values()))  # type: ignore[attr-defined]
        assert Graph.replays == wanted, seed
    step.check()
    assert_same(values_of(step), values_of(eager))


@pytest.mark.usefixtures("stand_in")
def test_gradients_of_branches_are_those_of_a_plain_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each layer has its branches, two if it is recurrent."""
    run, count = branches.Branch.run, 0

    def counted(self: branches.Branch, *given: Any) -> None:
        nonlocal count
        count += 1
        run(self, *given)

    monkeypatch.setattr(branches.Branch, "run", counted)
    step = made(network_of())
    for seed in range(5):
        plain = copy.deepcopy(step.network)
        plain.zero_grad()
        cross_entropy(plain, *batch_of(seed))[0].backward()
        step(*batch_of(seed))
        assert_same(gradients_of(step.network), gradients_of(plain))
    assert count == 5 * (2 + 2 + 1)


@pytest.mark.usefixtures("stand_in")
def test_the_learning_rate_of_a_graph_follows() -> None:
    """Numbers assigned, a scheduler, and a loaded state reach the tensor that a graph reads."""
    step, eager = made(network_of()), made(network_of())
    eager._sample = None
    schedulers = [torch.optim.lr_scheduler.ExponentialLR(s.optimizer, 0.5) for s in (step, eager)]
    for seed in range(8):
        for one, scheduler in zip((step, eager), schedulers, strict=True):
            if seed == 5:
                for group in one.optimizer.param_groups:
                    group["lr"] = 0.01
            one(*batch_of(seed))
            scheduler.step()
    assert Graph.replays == 5
    assert_same(values_of(step), values_of(eager))
    for group, rate in zip(step.optimizer.param_groups, step._rates, strict=True):
        assert group["lr"] is rate
    assert step._rates[0].item() == pytest.approx(0.01 * 0.5**3)


@pytest.mark.usefixtures("stand_in")
def test_a_loaded_state_is_captured_anew() -> None:
    """Tensors of a loaded state are new: the graph of the old ones is dropped."""
    step, eager = made(network_of()), made(network_of())
    eager._sample = None
    for seed in range(10):
        for one in (step, eager):
            if seed == 5:
                one.optimizer.load_state_dict(copy.deepcopy(one.optimizer.state_dict()))
            one(*batch_of(seed))
    assert Graph.replays == 2 + 2
    assert_same(values_of(step), values_of(eager))


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize("change", ["weight decay", "betas", "frozen", "moved", "group"])
def test_what_a_graph_keeps_is_captured_anew(change: str) -> None:
    """Settings of the optimizer, its parameters, and which of them learn."""
    steps = made(network_of()), made(network_of())
    steps[1]._sample = None
    for seed in range(10):
        for step in steps:
            group, other = step.optimizer.param_groups
            if seed == 5 and change == "weight decay":
                group["weight_decay"] = 0.3
            elif seed == 5 and change == "betas":
                group["betas"] = (0.5, 0.9)
            elif seed == 5 and change == "frozen":
                next(step.network.parameters()).requires_grad_(False)
            elif seed == 5 and change == "moved":
                parameters = [*step.network.parameters()]
                vector = nn.utils.parameters_to_vector(parameters)
                nn.utils.vector_to_parameters(vector, parameters)
            elif seed == 5:
                other["params"].pop()
            step(*batch_of(seed))
    assert Graph.replays == 2 + 2
    assert_same(values_of(steps[0]), values_of(steps[1]))


@pytest.mark.usefixtures("stand_in")
def test_steps_that_raise_are_no_warm_up() -> None:
    step = made(network_of())
    x, target = batch_of(0)
    for _ in range(4):
        with pytest.raises(IndexError):
            step(x, target + 10)  # no such class
    for seed in range(5):
        step(*batch_of(seed))
    assert Graph.replays == 2
    step.check()


@pytest.mark.usefixtures("stand_in")
def test_bad_first_steps_are_never_captured() -> None:
    """The optimizer has no state yet, and a capture would create it."""
    step = made(network_of())
    x, target = batch_of(0)
    with torch.no_grad():  # outputs that are not finite, of weights that are
        step.network.get_parameter("readout.weight").fill_(3e38)
    for _ in range(6):
        step(x, target)
    assert Graph.replays == 0
    assert not step.optimizer.state
    with pytest.raises(NonFiniteError, match="at step 1"):
        step.check()


def test_training_in_threads() -> None:
    """Steps in several threads, and plain loops beside them, do not see each other."""
    wanted, alone = made(network_of(0)), network_of(1)
    for seed in range(8):
        wanted(*batch_of(seed))
    cross_entropy(alone, *batch_of(0))[0].backward()

    def train(_: int) -> list[Tensor]:
        step = made(network_of(0))
        for seed in range(8):
            step(*batch_of(seed))
        return values_of(step)

    def plain(_: int) -> list[Tensor]:
        found = []
        for _ in range(20):
            network = network_of(1)
            cross_entropy(network, *batch_of(0))[0].backward()
            found += gradients_of(network)
        return found

    with ThreadPoolExecutor(4) as pool:
        trained = [pool.submit(train, i) for i in range(3)]
        beside = pool.submit(plain, 0)
    for future in trained:
        assert_same(future.result(), values_of(wanted))
    assert_same(beside.result(), 20 * gradients_of(alone))


def test_only_the_optimizers_parameters_change() -> None:
    """Gradients of the others do not pile up."""
    network = network_of()
    assert network.readout is not None
    optimizer = torch.optim.AdamW(network.readout.parameters())
    step = GraphedStep(network, cross_entropy, optimizer, batch_of(0))
    norms = []
    for _ in range(5):
        step(*batch_of(0))
        norms.append(nn.utils.get_total_norm(gradients_of(network.layers[0])).item())
    assert max(norms) < 2 * norms[0]


def test_an_optimizer_does_not_keep_a_step() -> None:
    step = made(network_of())
    optimizer, gone = step.optimizer, weakref.ref(step)
    step(*batch_of(0))
    del step
    gc.collect()
    assert gone() is None
    optimizer.load_state_dict(optimizer.state_dict())


BAD: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], str]] = {
    "loss": (lambda loss, output: loss * math.nan, "the loss is"),
    # sqrt has a finite value and an infinite slope at 0
    "gradient": (
        lambda loss, output: loss + (output.sum() * 0).abs().sqrt(),
        r"the gradient of layers.0.weight is",
    ),
    "moment": (
        lambda loss, output: loss * 1e25,
        r"the optimizer's exp_avg_sq of layers.\d.weight is",
    ),
}


@pytest.mark.parametrize("at", [1, 3])
@pytest.mark.parametrize("what", BAD)
def test_a_step_that_is_not_finite_changes_nothing(what: str, at: int) -> None:
    """Nor do the steps after it; `check` names the first."""
    spoil, message = BAD[what]
    network = network_of()
    calls = 0

    def loss(network: nn.Module, x: Tensor, target: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        output, _ = network(x)
        found = nn.functional.cross_entropy(output.mean(0), target)
        return spoil(found, output) if calls in (at, at + 2) else found

    optimizer = torch.optim.AdamW(parameter_groups(network, 0.05))
    step = GraphedStep(network, loss, optimizer, batch_of(0))
    step.steps = 100
    for _ in range(at - 1):
        step(*batch_of(0))
    step.check()
    before = values_of(step)
    for _ in range(3):
        step(*batch_of(1))
    assert_same(values_of(step), before)
    with pytest.raises(
        NonFiniteError, match=rf"^{message} not finite at step {100 + at}$"
    ) as found:
        step.check()
    assert found.value.step == 100 + at


def test_a_norm_that_overflows() -> None:
    """Every gradient is finite, their norm is not."""
    network = network_of()

    def loss(network: nn.Module, x: Tensor, target: Tensor) -> Tensor:
        return cross_entropy(network, x, target)[0] * 1e25

    step = GraphedStep(
        network, loss, torch.optim.SGD(network.parameters(), lr=1e-30), batch_of(0), clip=1.0
    )
    before = values_of(step)
    step(*batch_of(0))
    with pytest.raises(NonFiniteError, match="the norm of all gradients is not finite at step 1"):
        step.check()
    assert_same(values_of(step), before)


def test_a_metric_that_is_not_finite() -> None:
    def loss(network: nn.Module, x: Tensor, target: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        found, metrics = cross_entropy(network, x, target)
        return found, {**metrics, "distance": metrics["accuracy"] * math.inf}

    network = network_of()
    step = GraphedStep(network, loss, torch.optim.AdamW(network.parameters()), batch_of(0))
    step(*batch_of(0))
    with pytest.raises(NonFiniteError, match="the mean of distance over a batch is not finite"):
        step.check()


def test_an_optimizer_that_overflows_on_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    step = made(network_of())
    step(*batch_of(0))
    before = values_of(step)
    plain = torch.optim.AdamW.step

    def spoiled(message: str) -> Callable[..., None]:
        def run(self: torch.optim.AdamW) -> None:
            plain(self)
            raise RuntimeError(message)

        return run

    monkeypatch.setattr(torch.optim.AdamW, "step", spoiled("out of memory"))
    with pytest.raises(RuntimeError, match="out of memory"):
        step(*batch_of(1))
    assert_same(values_of(step), before)
    monkeypatch.setattr(torch.optim.AdamW, "step", spoiled("converted without overflow"))
    step(*batch_of(1))
    with pytest.raises(NonFiniteError, match="a factor of the optimizer is not finite at step 2"):
        step.check()
    assert_same(values_of(step), before)


def test_gradients_are_changed_before_clipping() -> None:
    """As a sum over processes: with two equal ones it doubles, and clipping sees the sum."""

    def double() -> None:
        for p in step.network.parameters():
            assert p.grad is not None
            p.grad.mul_(2)

    step = made(network_of(), "SGD", clip=0.01, after_backward=double)
    single = made(network_of(), "SGD")
    step(*batch_of(0))
    single(*batch_of(0))
    found, wanted = gradients_of(step.network), gradients_of(single.network)
    norm = nn.utils.get_total_norm(wanted)
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, 0.01 / norm * b)


def test_bad_arguments() -> None:
    network = network_of()
    optimizer = torch.optim.AdamW(network.parameters())
    good: dict[str, Any] = {"network": network, "loss": cross_entropy, "optimizer": optimizer}
    good["sample"] = batch_of(0)
    for changed, error, message in (
        ({"sample": batch_of(0)[0]}, TypeError, "sample: expected a sequence of .*, got Tensor"),
        ({"sample": ()}, TypeError, "sample: expected a sequence of tensors, got no tensor"),
        ({"sample": (1,)}, TypeError, r"sample\[0\]: expected a torch.Tensor, got int"),
        (
            {"sample": tuple(t.to("meta") for t in batch_of(0))},
            ValueError,
            r"sample\[0\]: expected device cpu as layers.0.weight has, got meta",
        ),
        ({"network": nn.Module()}, ValueError, "network: expected parameters, got none"),
        ({"clip": 0.0}, ValueError, "clip: expected"),
        (
            {"optimizer": torch.optim.AdamW([*network.parameters(), *network_of(1).parameters()])},
            ValueError,
            "optimizer: expected parameters of the network, got others too",
        ),
    ):
        with pytest.raises(error, match=message):
            GraphedStep(**(good | changed))


def test_bad_results_of_the_loss() -> None:
    network = network_of()
    one = torch.ones((), requires_grad=True)
    for found, error, message in (
        (0.5, TypeError, "loss: expected a tensor, got float"),
        (one.expand(3), ValueError, r"loss: expected one element, got shape \(3,\)"),
        ((one, {"accuracy": 0.5}), TypeError, "accuracy: expected a tensor, got float"),
        ((one, {"accuracy": one.expand(2)}), ValueError, "accuracy: expected one element"),
        ((one, {"loss": one}), ValueError, "loss: expected metrics with other names"),
    ):
        optimizer = torch.optim.AdamW(network.parameters())
        step = GraphedStep(network, cast(Any, lambda *_, f=found: f), optimizer, batch_of(0))
        with pytest.raises(error, match=message):
            step(*batch_of(0))


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize("cls", [torch.optim.SGD, torch.optim.LBFGS])
def test_an_optimizer_that_cannot_be_captured(cls: Any) -> None:
    network = network_of()
    with pytest.raises(ValueError, match=f"with fused=True, got {cls.__name__} without"):
        GraphedStep(network, cross_entropy, cls(network.parameters()), batch_of(0))


def test_nothing_is_read_on_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing can be read on the meta device: a step that runs there can be captured."""
    make_capturable(monkeypatch, "rmsprop", "meta")
    network = network_of().to("meta")
    optimizer = torch.optim.RMSprop(network.parameters(), foreach=True, capturable=True)
    optimizer.param_groups[0]["lr"] = torch.tensor(0.1, device="meta")
    for p in network.parameters():
        count = torch.zeros((), device="meta")
        optimizer.state[p] = {"step": count, "square_avg": torch.empty_like(p)}
    sample = tuple(t.to("meta") for t in batch_of(0))
    step = GraphedStep(network, cross_entropy, optimizer, sample, clip=1.0)
    step._stream = cast(Any, "as on a GPU")
    assert step._step(sample)["loss"].is_meta
    with pytest.raises(Exception, match="meta"):
        step.check()
