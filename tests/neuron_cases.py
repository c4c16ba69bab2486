"""What the proofs of the operators with one value per neuron share: arguments, the float64 truth,
rounding bounds, pieces."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from bounds import assert_spikes_follow, assert_within
from problems import Size, problem

Arguments = dict[str, Any]

DTYPES = [torch.float32, torch.float64]
# Where time and samples stand in what has any.
TIME = dict.fromkeys(
    ("current_t", "drive", "g", "result", "g_spikes", "g_potential", "g_currents", "derivative",
     "spikes", "currents"), 1,
)  # fmt: skip
SAMPLES = dict.fromkeys(TIME, 2) | {"current": 1, "spike": 1, "feedback": 2, "g_feedback": 2}


@dataclass(frozen=True)
class Operator:
    """A launcher and its closed form; `arguments` and `results` in their order."""

    kernel: Callable[..., Any]
    truth: Callable[..., Any]
    problem: str
    """Whose random problem it is."""
    arguments: tuple[str, ...]
    results: tuple[str, ...]
    roundings: Callable[[Size], int]
    """On the way of any term of any result."""
    optional: tuple[str, ...] = ()
    samples: tuple[int | None, ...] = ()
    """Where samples stand in the results; None: summed over."""
    spiking: bool = False

    def __call__(self, given: Arguments) -> tuple[Tensor, ...]:
        return as_tuple(self.kernel(*(given[n] for n in self.arguments)))


def as_tuple(found: Any) -> tuple[Tensor, ...]:
    return found if isinstance(found, tuple) else (found,)


def arguments(
    operator: Operator,
    size: Size,
    dtype: torch.dtype = torch.float32,
    *,
    states: bool = True,
    given: tuple[str, ...] | None = None,
    detach_reset: bool = False,
    seed: int = 0,
) -> Arguments:
    """By name; `given`: which of the optional gradients are there, None: all."""
    made: Arguments = dict(problem(operator.problem, size, seed, states=states, dtype=dtype))
    if states and "spike" in made:  # The spike before the first step may be any number.
        made["spike"] = made["spike"] * 0.75 - 0.25
    generator = torch.Generator().manual_seed(seed + 1)
    steps = (size.R, size.T, size.B, size.J)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=dtype)

    made |= {n: normal(*steps) for n in ("g", "g_spikes", "g_potential", "g_currents")}
    made |= {n: normal(*steps) for n in ("result", "currents")}
    made["g_feedback"] = normal(size.R, size.K, size.B, size.J)
    made["derivative"] = 0.5 * normal(*steps).abs()
    made["spikes"] = (normal(*steps) > 0.3).to(dtype)
    made["detach_reset"] = detach_reset
    for n in operator.optional:
        if given is not None and n not in given:
            made[n] = None
    return {n: made[n] for n in operator.arguments}


def each(given: Arguments, change: Callable[[str, Tensor], Tensor]) -> Arguments:
    return {n: change(n, t) if isinstance(t, Tensor) else t for n, t in given.items()}


def absolute(name: str, tensor: Tensor) -> Tensor:
    """With the signs under which every term of every result adds up: feedback currents are
    subtracted."""
    negative = name in ("feedback", "feedback_strength", "g_feedback")
    return -tensor.double().abs() if negative else tensor.double().abs()


def truth(operator: Operator, given: Arguments, spikes: Tensor | None) -> tuple[Tensor, ...]:
    """The closed form, every spike given where there are any."""
    if not operator.spiking:
        return as_tuple(operator.truth(**given))
    steps = iter(spikes.double().unbind(1))
    return operator.truth(**given, spike_function=lambda *_: next(steps))


def check(operator: Operator, size: Size, given: Arguments) -> tuple[Tensor, ...]:
    """Runs the kernel and holds it to the bounds; no argument changes."""
    before = each(given, lambda n, t: t.clone())
    found = operator(given)
    assert all(torch.equal(given[n], t) for n, t in before.items() if isinstance(t, Tensor))
    spikes = found[0] if operator.spiking else None
    wanted = truth(operator, each(given, lambda n, t: t.double()), spikes)
    magnitudes = truth(operator, each(given, absolute), spikes)
    n = operator.roundings(size)
    dtype = given[operator.arguments[-2]].dtype
    for got, want, magnitude, what in zip(found, wanted, magnitudes, operator.results, strict=True):
        assert got.dtype == dtype, what
        assert got.is_contiguous(), what
        assert_within(got, want, magnitude.abs(), n, what)
    if operator.spiking:
        assert_spikes_follow(spikes, wanted[1], magnitudes[1], given["threshold"], n)
    addresses = {got.data_ptr() for got in found if got.numel()}
    assert len(addresses) == sum(1 for got in found if got.numel())
    return found


def same(one: tuple[Tensor, ...], other: tuple[Tensor, ...]) -> bool:
    """Bit by bit, but for the sign of a zero."""
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def axis(operator: Operator, axes: dict[str, int], name: str) -> int | None:
    """Of an argument. `current` is a state, but for the spike scan, where it has steps."""
    stepped = name == "current" and operator.problem == "spike_scan"
    return axes.get("current_t" if stepped else name)


def cut(
    operator: Operator, given: Arguments, axes: dict[str, int], start: int, length: int
) -> Arguments:
    """A piece of all arguments that have the axis."""

    def piece(name: str, tensor: Tensor) -> Tensor:
        at = axis(operator, axes, name)
        return tensor if at is None else tensor.narrow(at, start, length)

    return each(given, piece)


def strided(tensor: Tensor, kind: str) -> Tensor:
    """The same values under other strides, NaN in between."""
    if kind == "reversed":
        axes = tuple(reversed(range(tensor.ndim)))
        return tensor.permute(axes).contiguous().permute(axes)
    if kind == "gaps":
        wide = torch.full((*tensor.shape[:-1], 2 * tensor.shape[-1] + 1), torch.nan).to(tensor)
        return wide[..., 1::2].copy_(tensor)
    long = torch.full((tensor.numel() + 1,), torch.nan).to(tensor)
    return long[1:].view(tensor.shape).copy_(tensor)


def assert_errors_are_those_of_float32(operator: Operator, given: Arguments) -> None:
    """On average at most twice those of the closed form in float32."""
    found, plain = operator(given), as_tuple(operator.truth(**given))
    exact = as_tuple(operator.truth(**each(given, lambda n, t: t.double())))
    for got, usual, want, what in zip(found, plain, exact, operator.results, strict=True):
        error, of_plain = ((t.double() - want).square().mean().sqrt() for t in (got, usual))
        assert error <= 2 * of_plain, f"{what}: {error / of_plain:.2f} times the closed form's"


# -- the proofs that are the same for all ----------------------------------------------------------


def assert_empty(operator: Operator, size: Size, dtype: torch.dtype) -> None:
    """No steps leave states as they were and make zero gradients; nothing else is left to do."""
    given = arguments(operator, replace(size, J=max(size.J, 1)), dtype)
    if size.J == 0:
        given = each(given, lambda n, t: t[:, :0, :0] if n == "weight" else t[..., :0])
    wanted = as_tuple(operator.truth(**given))
    for got, want, what in zip(operator(given), wanted, operator.results, strict=True):
        assert got.shape == want.shape, what
        assert got.dtype == dtype, what
        assert torch.equal(got, want), what


def assert_strides_change_nothing(operator: Operator, kind: str) -> None:
    given = arguments(operator, Size(R=2, T=6, B=3, J=18, K=2))
    moved = each(given, lambda n, t: strided(t, kind))
    assert same(operator(moved), operator(given))


def assert_threads_change_no_bit(
    operator: Operator, dtype: torch.dtype, on_threads: Callable[[int], None]
) -> None:
    for size in (Size(R=2, T=6, B=5, J=37, K=2), Size(R=1, T=5, B=1, J=150, K=1)):
        given = arguments(operator, size, dtype)
        on_threads(1)
        wanted = operator(given)
        for count in (1, 2, 3, 7, 7):
            on_threads(count)
            assert same(operator(given), wanted), count


def assert_no_sample_sees_its_batch(operator: Operator, dtype: torch.dtype) -> None:
    given = arguments(operator, Size(R=2, T=7, B=7, J=37, K=2), dtype)
    whole = operator(given)
    for start, length in ((0, 1), (2, 2), (3, 4), (6, 1)):
        part = operator(cut(operator, given, SAMPLES, start, length))
        for got, all_of_it, at in zip(part, whole, operator.samples, strict=True):
            assert at is None or torch.equal(got, all_of_it.narrow(at, start, length))


def assert_samples_add_in_their_order(operator: Operator, dtype: torch.dtype) -> None:
    """From nothing, ascending: the sums of the batch are those of its samples, bit by bit."""
    size = Size(R=2, T=9, B=6, J=21, K=2)
    given = arguments(operator, size, dtype)
    summed = [k for k, at in enumerate(operator.samples) if at is None]
    whole = operator(given)
    total = {k: torch.zeros_like(whole[k]) for k in summed}
    for b in range(size.B):
        one = operator(cut(operator, given, SAMPLES, b, 1))
        total = {k: total[k] + one[k] for k in summed}
    for k in summed:
        assert torch.equal(total[k], whole[k]), operator.results[k]


def assert_replicas_do_not_meet(operator: Operator) -> None:
    given = arguments(operator, Size(R=3, T=5, B=3, J=19, K=2))
    whole = operator(given)
    alone = operator(each(given, lambda n, t: t[1:2]))
    assert same(alone, tuple(t[1:2] for t in whole))


def assert_no_neuron_sees_another(operator: Operator) -> None:
    """Without synapses among them neurons are alone: in any block and lane the same bits."""
    size = Size(R=2, T=5, B=3, J=150, K=2)
    given = arguments(operator, size)
    whole = operator(given)
    for start, length in ((0, 1), (15, 2), (37, 100), (149, 1)):
        part = operator(each(given, lambda n, t, a=start, m=length: t.narrow(-1, a, m)))
        assert same(part, tuple(t.narrow(-1, start, length) for t in whole))
