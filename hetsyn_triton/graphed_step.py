"""A whole training step as one CUDA graph."""

import math
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from . import validation as check
from .ops.branches import Branches
from .optim import clamp_decays_

Loss = Callable[..., Tensor | tuple[Tensor, Mapping[str, Tensor]]]

WARM_UP = 3
"""Eager steps before the capture. They compile kernels and create the optimizer's state."""


class NonFiniteError(ArithmeticError):
    """A loss, gradient, metric, parameter or optimizer state is NaN or infinite.

    Attributes:
        what: What is not finite, as a sentence.
        step: Number of the training step, from 1; None if it was not in a `GraphedStep`.
    """

    def __init__(self, what: str, step: int | None = None) -> None:
        super().__init__(what if step is None else f"{what} at step {step}")
        self.what = what
        self.step = step


class GraphedStep:
    """Train a network step by step; on a GPU, each step is the replay of one CUDA graph.

    A step runs the forward pass, the loss, the backward pass, clipping, the optimizer and
    `clamp_decays_`. On a GPU, gradients of weights and decays per synapse run beside the rest of
    the backward pass. The first three steps run eagerly, the fourth is captured. Batches with other
    shapes than `sample`, and steps with a module in another mode (`train`, `eval`), run eagerly at
    any time. On a CPU all steps run eagerly. Captured and eager steps should be
    bit-identical; this has not been seen on a GPU yet.

    A step changes neither parameters nor optimizer if its loss, a gradient, a metric or a result of
    the optimizer is not finite. Later steps then change nothing either. `check` raises the error.
    It waits for the GPU, so call it once in many steps, and before you save a checkpoint. To go on
    after the error, load a good state and make a new `GraphedStep`.

    On a GPU, each learning rate becomes a tensor; assigned rates and schedulers of rates work as
    usual. If another setting of the optimizer, its parameters or a `requires_grad` changes, or a
    state is loaded, three eager steps and a new capture follow. A random seed set before a step,
    for dropout, also applies to a replay. Gradients (`.grad`) of a captured step may be stale.

    Args:
        network: The network, on its device.
        loss: Called with the network and the tensors of a batch. Returns the loss, a tensor with
            one element, or the loss and metrics by name, each a tensor with one element. It must
            not differentiate by parameters itself. On a GPU it must not read values on the host,
            as `item()` does, and may depend on its arguments only.
        optimizer: An optimizer of parameters of `network`. On a GPU: one with the option
            `capturable`, such as AdamW, which is switched on, or with `fused=True`.
        sample: A batch with the shapes and dtypes of those to train on. None: no graph is used.
        clip: Maximum of the common norm of all gradients. Default: no clipping.
        after_backward: Called between backward pass and clipping, for example to sum gradients over
            processes. If there is a `sample`, it is captured too.

    Attributes:
        steps: Number of calls so far, which errors count from. May be set.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If a parameter or `sample` is on another device, or the optimizer cannot be
            captured or has parameters that are not in `network`; if `clip` is not positive.

    Example:
        >>> network = make_network("hetsyn", 8, [16], 2)
        >>> def loss(network, x, target):
        ...     output, _ = network(x)
        ...     return torch.nn.functional.cross_entropy(output.mean(0), target)
        >>> optimizer = torch.optim.AdamW(parameter_groups(network, lr=1e-3))
        >>> x, target = torch.ones(20, 4, 8), torch.tensor([0, 1, 0, 1])
        >>> step = GraphedStep(network, loss, optimizer, (x, target))
        >>> losses = [step(x, target)["loss"].item() for _ in range(5)]
        >>> step.check()
    """

    def __init__(
        self,
        network: nn.Module,
        loss: Loss,
        optimizer: torch.optim.Optimizer,
        sample: Sequence[Tensor] | None,
        *,
        clip: float | None = None,
        after_backward: Callable[[], None] | None = None,
    ) -> None:
        self.network = network
        self.loss = loss
        self.optimizer = optimizer
        self.clip = None if clip is None else check.check_positive_number("clip", clip)
        self.after_backward = after_backward
        self.steps = 0
        self._device = _device_of(network, sample)
        own = {id(p) for p in network.parameters()}
        if any(id(p) not in own for group in optimizer.param_groups for p in group["params"]):
            raise ValueError("optimizer: expected parameters of the network, got others too")
        self._sample: tuple[Any, ...] | None = None
        self._stream: torch.cuda.Stream | None = None
        beside: torch.cuda.Stream | None = None
        self._rates: list[Tensor] = []
        if _can_capture(self._device):
            _check_capturable(optimizer)
            self._sample = None if sample is None else self._kind(sample)
            self._stream = torch.cuda.Stream(self._device)
            beside = torch.cuda.Stream(self._device)
        self._branches = nullcontext() if beside is None else Branches(beside)
        self._setup: Any = None
        self._forget_graph(optimizer)
        forget = weakref.WeakMethod(self._forget_graph)  # the optimizer does not keep this object
        optimizer.register_load_state_dict_post_hook(lambda loaded: (forget() or _ignore)(loaded))
        self._checked: list[tuple[str, ...]] = []  # names of what a step checks
        # Of the first step that is not finite: number, which names, which of them; -1 before it.
        self._failed = torch.full((3,), -1, dtype=torch.int64, device=self._device)
        self._number = torch.zeros((), dtype=torch.int64, device=self._device)

    def __call__(self, *batch: Tensor) -> dict[str, Tensor]:
        """Train on one batch.

        Returns:
            The `loss` and the metrics by name, on the device. The next replay overwrites them.

        Raises:
            TypeError: If the loss or a metric is not a tensor.
            ValueError: If it has several elements, or if a metric is called "loss".
        """
        self._prepare_optimizer()
        self._number.fill_(self.steps + 1)
        results = self._run(batch)
        self.steps += 1
        return results

    def check(self) -> None:
        """Wait for all steps; raise NonFiniteError if one was not finite, and name it."""
        step, names, index = self._failed.tolist()
        if step >= 0:
            raise NonFiniteError(f"{self._checked[names][index]} is not finite", step)

    def _forget_graph(self, optimizer: torch.optim.Optimizer) -> None:
        """Start again: the optimizer's state is in other tensors."""
        self._ready = 0  # eager steps with the sample's shapes
        self._graph: _Graph | None = None
        for state in optimizer.state.values() if self._stream is not None else ():
            if isinstance(state.get("step"), Tensor):  # of a checkpoint written on a CPU
                state["step"] = state["step"].to(self._device, torch.float32)

    def _prepare_optimizer(self) -> None:
        """Make assigned or loaded settings of the optimizer those that a graph reads."""
        if self._stream is None:
            return
        groups = self.optimizer.param_groups
        for number, group in enumerate(groups):
            if number == len(self._rates):
                self._rates.append(self._number.new_zeros((), dtype=torch.float32))
            rate = self._rates[number]
            if "capturable" in group:
                group["capturable"] = True
            if group["lr"] is not rate:
                rate.fill_(group["lr"])
                group["lr"] = rate
        setup = [
            # A tensor that is elsewhere now, as after `vector_to_parameters`, is not in the graph.
            [(p.requires_grad, p.data_ptr()) for p in self.network.parameters()],
            [buffer.data_ptr() for buffer in self.network.buffers()],
            *[_plain(value) for group in groups for n, value in group.items() if n != "lr"],
        ]
        if setup != self._setup:
            self._setup = setup
            self._forget_graph(self.optimizer)

    def _run(self, batch: tuple[Tensor, ...]) -> dict[str, Tensor]:
        if self._stream is None:
            return self._step(batch)
        if self._kind(batch) != self._sample:
            return self._on_stream(lambda: self._step(batch))
        if self._graph is None:
            # After a step that was not finite the optimizer may have no state yet.
            if self._ready < WARM_UP or self._failed[0].item() >= 0:
                results = self._on_stream(lambda: self._step(batch))
                self._ready += 1
                return results
            self._graph = _Graph(self._step, batch, self._stream)
        return self._graph.replay(batch)

    def _kind(self, batch: Sequence[Tensor]) -> tuple[Any, ...]:
        """Return what has to match for a replay."""
        modes = [module.training for module in self.network.modules()]
        return modes, [(tensor.shape, tensor.dtype) for tensor in batch]

    def _on_stream(self, run: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """Run eagerly on the stream of the capture.

        Autograd runs a backward pass on the stream of its forward pass. A tape that is still alive
        would otherwise tie another stream to the capture.
        """
        assert self._stream is not None
        current = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            results = run()
        current.wait_stream(self._stream)
        return results

    def _step(self, batch: Sequence[Tensor]) -> dict[str, Tensor]:
        self.network.zero_grad(set_to_none=True)  # also of parameters that are not optimized
        with self._branches as branches:
            loss, metrics = _checked(self.loss(self.network, *batch))
            loss.backward()
            if branches is not None:
                branches.finish()
        if self.after_backward is not None:
            self.after_backward()
        with torch.no_grad():
            results = {"loss": loss.detach(), **metrics}
            learned = [(n, p) for n, p in self.network.named_parameters() if p.grad is not None]
            named = [("the loss", results["loss"])]
            named += [(f"the gradient of {n}", p.grad) for n, p in learned if p.grad is not None]
            named += self._clipped([p for _, p in learned])
            before = [(t, t.clone()) for t in self._changing()]
            had_state = self._with_state()
            named += self._optimize(before, results["loss"])
            clamp_decays_(self.network)
            named += [(f"the parameter {n}", p) for n, p in self.network.named_parameters()]
            state = optimizer_state(self.optimizer, self.network)
            named += [(f"the optimizer's {n}", t) for n, t in state]
            named += [(f"the mean of {n} over a batch", t) for n, t in metrics.items()]
            finite = self._watch(named)
            if self._stream is None:  # a CPU is read at once
                before = [] if finite else before
            for tensor, old in before:
                torch.where(finite, tensor, old, out=tensor)
            # State is created in eager steps only: a captured one has run before.
            created = self._with_state() - had_state
            if created and not finite:
                for parameter in created:
                    del self.optimizer.state[parameter]
        return results

    def _clipped(self, parameters: Sequence[nn.Parameter]) -> list[tuple[str, Tensor]]:
        """Clip the gradients; return their norm, which may overflow where no gradient does."""
        if self.clip is None or not parameters:
            return []
        gradients = [p.grad for p in parameters if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        torch.nn.utils.clip_grads_with_norm_(parameters, self.clip, norm)
        return [("the norm of all gradients", norm)]

    def _changing(self) -> Iterator[Tensor]:
        """Yield the tensors that an optimizer step may change."""
        for group in self.optimizer.param_groups:
            for parameter in group["params"]:
                yield parameter
                state = self.optimizer.state.get(parameter, {})
                yield from (value for value in state.values() if isinstance(value, Tensor))

    def _with_state(self) -> set[Tensor]:
        return {parameter for parameter, state in self.optimizer.state.items() if state}

    def _optimize(
        self, before: Sequence[tuple[Tensor, Tensor]], loss: Tensor
    ) -> list[tuple[str, Tensor]]:
        """Make the optimizer's step; return what is not finite if its factors overflow."""
        try:
            self.optimizer.step()
        except (OverflowError, RuntimeError) as error:
            if overflows(error):
                return [("a factor of the optimizer", torch.full_like(loss, math.inf))]
            for tensor, old in before:
                tensor.copy_(old)
            raise
        return []

    def _watch(self, named: Sequence[tuple[str, Tensor]]) -> Tensor:
        """Return on the device whether all is finite, now and in earlier steps; note the first."""
        filled = [(n, t) for n, t in named if t.numel() and t.is_floating_point()]
        by_dtype: dict[torch.dtype, list[tuple[str, Tensor]]] = {}
        for name, tensor in filled:
            by_dtype.setdefault(tensor.dtype, []).append((name, tensor))
        names = tuple(name for group in by_dtype.values() for name, _ in group)
        if names not in self._checked:
            self._checked.append(names)
        # The largest magnitude is finite if and only if every value is.
        largest = [
            torch.stack(torch._foreach_norm([t for _, t in group], math.inf)).isfinite()
            for group in by_dtype.values()
        ]
        bad = ~torch.cat(largest)
        first = bad.int().argmax()
        which = torch.full_like(first, self._checked.index(names))
        now = torch.stack([self._number, which, first])
        earlier = self._failed[0] >= 0
        torch.where(bad.any() & ~earlier, now, self._failed, out=self._failed)
        return self._failed[0] < 0


def overflows(error: Exception) -> bool:
    """Return whether an optimizer raised `error` because one of its factors is too large."""
    return isinstance(error, OverflowError) or "overflow" in str(error)


def optimizer_state(
    optimizer: torch.optim.Optimizer, network: nn.Module
) -> Iterator[tuple[str, Tensor]]:
    """Yield the optimizer state that has the shape of a parameter, with names."""
    for name, parameter in network.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                yield f"{key} of {name}", value


class _Graph:
    """A step captured with tensors of its own for batch and results."""

    def __init__(
        self,
        step: Callable[[Sequence[Tensor]], dict[str, Tensor]],
        batch: Sequence[Tensor],
        stream: torch.cuda.Stream,
    ) -> None:
        self._batch = [tensor.clone() for tensor in batch]
        self._graph = torch.cuda.CUDAGraph()
        # "thread_local": other threads, such as a data loader's, may go on using the GPU.
        with torch.cuda.graph(self._graph, stream=stream, capture_error_mode="thread_local"):
            self._results = step(self._batch)

    def replay(self, batch: Sequence[Tensor]) -> dict[str, Tensor]:
        for own, given in zip(self._batch, batch, strict=True):
            own.copy_(given, non_blocking=True)
        self._graph.replay()
        return dict(self._results)


def _plain(value: Any) -> Any:
    """Return what compares a setting: tensors by identity."""
    if isinstance(value, Tensor):
        return id(value)
    return [_plain(v) for v in value] if isinstance(value, list | tuple) else value


def _ignore(_: object) -> None:
    """Stand for a method whose object is gone."""


def _checked(found: Any) -> tuple[Tensor, dict[str, Tensor]]:
    """Return loss and metrics; raise if one is not a tensor with one element."""
    loss, metrics = found if isinstance(found, tuple) else (found, {})
    if "loss" in metrics:
        raise ValueError("loss: expected metrics with other names, got one called 'loss'")
    for name, value in {"loss": loss, **metrics}.items():
        if not isinstance(value, Tensor):
            raise TypeError(f"{name}: expected a tensor, got {type(value).__name__}")
        if value.numel() != 1:
            shape = tuple(value.shape)
            raise ValueError(f"{name}: expected one element, got shape {shape}")
    return loss, {name: value.detach() for name, value in metrics.items()}


def _device_of(network: nn.Module, sample: Sequence[Tensor] | None) -> torch.device:
    """Return the device of the parameters; ValueError if a tensor is elsewhere."""
    given = () if sample is None else sample
    if not isinstance(given, Sequence) or (given is sample and not given):
        got = "no tensor" if isinstance(given, Sequence) else type(given).__name__
        raise TypeError(f"sample: expected a sequence of tensors, got {got}")
    parameters = list(network.named_parameters())
    if not parameters:
        raise ValueError("network: expected parameters, got none")
    name, first = parameters[0]
    for other, tensor in [*parameters, *((f"sample[{i}]", t) for i, t in enumerate(given))]:
        check.check_tensor(other, tensor)
        check.check_device(other, tensor, name, first)
    return first.device


def _can_capture(device: torch.device) -> bool:
    return device.type == "cuda"


def _check_capturable(optimizer: torch.optim.Optimizer) -> None:
    # Others, such as plain SGD, read the learning rate on the host.
    if "capturable" not in optimizer.defaults and not optimizer.defaults.get("fused"):
        raise ValueError(
            "optimizer: expected one with the option capturable or with fused=True, "
            f"got {type(optimizer).__name__} without"
        )
