"""Layouts, steps, chunks and states: one meaning however a sequence is cut or laid out."""

from typing import Any

import pytest
import torch
from torch import Tensor

from hetsyn_triton import detach_state, make_network
from tests.support.layer_cases import (
    ALL,
    READOUTS,
    SPIKING,
    I,
    J,
    normal_like,
    spikes as random_spikes,
)
from tests.support.tensors import total

T, B = 14, 3
EXACT = [name for name in ALL if name.startswith("HetSyn")]
"""Layers whose sums do not depend on the length of a call: the others use one matrix product."""


def close(got: Any, want: Any, exact: bool = False) -> None:
    """Equal outputs or states, with absent tensors in the same places."""
    if not isinstance(got, Tensor):
        assert type(got) is type(want)
        for a, b in zip(got or (), want or (), strict=True):
            close(a, b, exact)
    else:
        assert got.shape == want.shape
        torch.testing.assert_close(got, want, rtol=0, atol=0 if exact else 1e-12)


def a_state(name: str, layer: Any, batch: int = B) -> Any:
    """A state such as a sequence leaves it."""
    with torch.no_grad():
        return layer(random_spikes(9, batch, I, seed=7, rate=0.6))[1]


def tensors(state: Any) -> list[Tensor]:
    return [t for t in state if t is not None]


def with_grad(state: Any) -> Any:
    return type(state)(*(None if t is None else t.clone().requires_grad_() for t in state))


# -- shapes and layouts ----------------------------------------------------------------------------

AXES = {
    "trace": (J, I),
    "recurrent_trace": (J, J),
    "current": (J,),
    "reset": (J,),
    "adaptation": (J,),
    "spike": (J,),
}


@pytest.mark.parametrize("name", ALL)
def test_shapes_are_the_documented_ones(name: str) -> None:
    case = ALL[name]
    layer = case.make()
    for x, batch in ((random_spikes(T, B, I), (B,)), (random_spikes(T, I), ())):
        output, state = layer(x)
        assert output.shape == (T, *batch, J)
        assert type(state) is layer.state_type
        for axis, value in zip(state._fields, state, strict=True):
            absent = (axis == "recurrent_trace" and not case.recurrent) or (
                axis == "adaptation" and not ("adaptation" in case.options or "HomNeuALIF" in name)
            )
            assert (value is None) == absent, axis
            if value is not None:
                assert value.shape == (*batch, *AXES[axis])
                assert value.dtype == torch.float64


@pytest.mark.parametrize("name", ALL)
def test_batch_first(name: str) -> None:
    """[B, T, N] in and out; the states are those of [T, B, N]."""
    layer, other = (ALL[name].make(batch_first=b) for b in (False, True))
    x, state = random_spikes(T, B, I), a_state(name, ALL[name].make())
    output, after = layer(x, state)
    transposed, after_too = other(x.transpose(0, 1), state)
    close(transposed, output.transpose(0, 1))
    close(after_too, after)
    close(other.step(x[0], state), layer.step(x[0], state))


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("name", ALL)
def test_unbatched_is_a_batch_of_one(name: str, batch_first: bool) -> None:
    layer = ALL[name].make(batch_first=batch_first)
    x, state = random_spikes(T, I), a_state(name, ALL[name].make(), batch=1)
    alone = type(state)(*(None if t is None else t[0] for t in state))
    output, after = layer(x, alone)
    batched, after_batched = layer(x.unsqueeze(0 if batch_first else 1), state)
    close(output, batched.squeeze(0 if batch_first else 1), exact=True)
    pairs = zip(tensors(after), tensors(after_batched), strict=True)
    assert all(torch.equal(a, b[0]) for a, b in pairs)
    stepped, after_step = layer.step(x[0], alone)
    assert stepped.shape == (J,)
    close(layer(x[:1], alone), (stepped.unsqueeze(0), after_step), exact=True)


# -- steps and chunks ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_steps_are_a_sequence(name: str) -> None:
    layer, x = ALL[name].make(), random_spikes(T, B, I)
    state, outputs = a_state(name, layer), []
    whole = layer(x, state)
    for x_t in x:
        output, state = layer.step(x_t, state)
        outputs.append(output)
    close((torch.stack(outputs), state), whole, exact=name in EXACT)


@pytest.mark.parametrize("cut", [1, 5, T - 1])
@pytest.mark.parametrize("name", ALL)
def test_chunks_are_a_sequence(name: str, cut: int) -> None:
    """Outputs, final state, and the gradients of input, parameters and initial state, which flow
    from chunk to chunk through the state."""
    found = []
    for cuts in ([T], [cut, T - cut], [0, cut, 0, T - cut]):
        layer, x = ALL[name].make(), random_spikes(T, B, I).requires_grad_()
        start = state = with_grad(a_state(name, layer))
        outputs = []
        for chunk in x.split(cuts):
            output, state = layer(chunk, state)
            outputs.append(output)
        output = torch.cat(outputs)
        leaves = [x, *layer.parameters(), *tensors(start)]
        loss = total((o * normal_like(o, k)).sum() for k, o in enumerate([output, *tensors(state)]))
        found.append(((output, state), torch.autograd.grad(loss, leaves)))
    (whole, gradients), *chunked = found
    for result, chained in chunked:
        close(result, whole, exact=name in EXACT)
        for got, want in zip(chained, gradients, strict=True):
            torch.testing.assert_close(got, want, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", ALL)
def test_the_state_carries_gradients(name: str) -> None:
    """Cut off (detached), the past takes no gradient; carried on, it does: the test above is not
    one of zeros."""
    layer, x = ALL[name].make(), random_spikes(T, B, I)
    start = with_grad(a_state(name, layer))
    output, _ = layer(x, start)
    gradients = torch.autograd.grad((output * normal_like(output, 0)).sum(), tensors(start))
    assert all(g.abs().max() > 1e-6 for g in gradients)


# -- nothing, and nobody's tensors -----------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_no_steps(name: str) -> None:
    """T = 0: no output, and the state as it was, its gradient too; None gives zeros."""
    layer = ALL[name].make()
    state = with_grad(a_state(name, layer))
    output, after = layer(random_spikes(0, B, I), state)
    assert output.shape == (0, B, J)
    close(after, state, exact=True)
    gradients = torch.autograd.grad(total(t.sum() for t in tensors(after)), tensors(state))
    assert all((g == 1).all() for g in gradients)
    assert all((t == 0).all() for t in tensors(layer(random_spikes(0, B, I))[1]))
    assert layer(random_spikes(0, I))[0].shape == (0, J)


@pytest.mark.parametrize("name", ALL)
def test_no_samples(name: str) -> None:
    """B = 0: empty outputs and states; the parameters' gradients are zero."""
    layer = ALL[name].make()
    output, state = layer(random_spikes(T, 0, I))
    assert output.shape == (T, 0, J)
    assert all(t.shape[0] == 0 for t in tensors(state))
    close(layer(random_spikes(T, 0, I), state)[1], state)
    for gradient in torch.autograd.grad(output.sum(), list(layer.parameters())):
        assert (gradient == 0).all()


@pytest.mark.parametrize("name", ALL)
def test_states_and_inputs_are_not_written_to(name: str) -> None:
    """Neither by a call nor by its backward; and the new state shares no memory with the old one
    or with the output."""
    layer, x = ALL[name].make(), random_spikes(T, B, I).requires_grad_()
    state = with_grad(a_state(name, layer))
    kept = [t.detach().clone() for t in [x, *tensors(state), *layer.state_dict().values()]]
    for steps in (x, x[:1], x[:0]):
        output, after = layer(steps, state)
        (output.sum() + sum(t.sum() for t in tensors(after))).backward()
        memory = {t.untyped_storage().data_ptr() for t in [x, output, *tensors(state)]}
        new = {t.untyped_storage().data_ptr() for t in tensors(after)}
        if steps.numel():
            assert not memory & new
    now = [x, *tensors(state), *layer.state_dict().values()]
    assert all(torch.equal(a, b) for a, b in zip(kept, now, strict=True))


@pytest.mark.parametrize("name", SPIKING)
def test_no_state_is_hidden(name: str) -> None:
    """The same call twice gives the same bits, whatever ran in between."""
    layer, x = SPIKING[name].make(), random_spikes(T, B, I)
    before = set(layer.state_dict())
    first = layer(x)
    layer(1 - x)
    close(layer(x), first, exact=True)
    assert set(layer.state_dict()) == before


@pytest.mark.parametrize("name", [*READOUTS, "HetSynLIF, everything"])
def test_any_strides(name: str) -> None:
    """Transposed, expanded and sliced inputs and states give the same bits as contiguous ones."""
    layer, wide = ALL[name].make(), random_spikes(B, T, 2 * I)
    state = a_state(name, layer)
    strided = type(state)(*(None if t is None else torch.stack([t, t], -1)[..., 0] for t in state))
    x = wide.transpose(0, 1)[..., ::2]
    assert not x.is_contiguous()
    close(layer(x, strided), layer(x.contiguous(), state))
    one = random_spikes(T, 1, I)
    close(layer(one.expand(T, B, I), state), layer(one.repeat(1, B, 1), state))


# -- what may come in ------------------------------------------------------------------------------

STORED = [torch.bool, torch.uint8, torch.int8, torch.float16, torch.bfloat16]


@pytest.mark.parametrize("dtype", STORED, ids=str)
@pytest.mark.parametrize("name", ["HetSynLIF, recurrent", "HetNeuLIF, everything", "HomNeuReadout"])
def test_inputs_of_fewer_bits(name: str, dtype: torch.dtype) -> None:
    """Spikes stored small give the same bits as spikes in the parameters' dtype, gradients too."""
    for parameters in (torch.float32, torch.float64):
        layer, x = ALL[name].make(dtype=parameters), random_spikes(T, B, I, dtype=parameters)
        results = []
        for steps in (x, x.to(dtype)):
            output, state = layer(steps)
            results.append(
                (output, *tensors(state), *torch.autograd.grad(output.sum(), leaves(layer)))
            )
        assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
        assert output.dtype == parameters


def leaves(layer: Any) -> list[Tensor]:
    return list(layer.parameters())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_analog_half_precision_takes_its_gradient(dtype: torch.dtype) -> None:
    """A floating input is cast once, without rounding, and its gradient comes back in its dtype."""
    layer = SPIKING["HetSynLIF, recurrent"].make(dtype=torch.float32)
    x = normal_like(torch.empty(T, B, I), 3).to(dtype).requires_grad_()
    wide = x.detach().float().requires_grad_()
    for steps in (x, wide):
        layer(steps)[0].sum().backward()
    assert x.grad is not None
    assert wide.grad is not None
    assert x.grad.dtype == dtype
    assert torch.equal(x.grad, wide.grad.to(dtype))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", ALL)
def test_autocast_changes_nothing(name: str, dtype: torch.dtype) -> None:
    """Forward under autocast, bit for bit; for layers with a decay per synapse the backward too.

    The input's matrix product of the cheaper layers is PyTorch's own, and its backward inside an
    autocast region rounds, as for every `torch.nn.Linear`: PyTorch advises against that.
    """
    layer, x = ALL[name].make(dtype=torch.float32), random_spikes(T, B, I, dtype=torch.float32)
    x.requires_grad_()
    results = []
    for where in ("nowhere", "forward", "both"):
        with torch.autocast("cpu", dtype=dtype, enabled=where != "nowhere"):
            output, state = layer(x)
            loss = (output * normal_like(output, 0)).sum()
            if where == "both":
                gradients = torch.autograd.grad(loss, [x, *leaves(layer)])
        if where != "both":
            gradients = torch.autograd.grad(loss, [x, *leaves(layer)])
        results.append([output, *tensors(state), *gradients])
    plain, forward, both = results
    assert all(torch.equal(a, b) for a, b in zip(plain, forward, strict=True))
    if name in EXACT:
        assert all(torch.equal(a, b) for a, b in zip(plain, both, strict=True))


# -- networks --------------------------------------------------------------------------------------


@pytest.mark.parametrize("readout", [True, False])
@pytest.mark.parametrize("model", ["hetsyn", "homneu", "homneu-adaptive", "hetneu"])
def test_a_network_in_chunks_and_steps(model: str, readout: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    network = make_network(
        model, I, [7, J], 2, readout=readout, generator=generator, dtype=torch.float64
    )
    x = 3 * random_spikes(T, B, I)
    output, after = network(x)
    assert output.shape == (T, B, 2)
    assert len(after) == 3
    first, state = network(x[:5])
    second, state = network(x[5:], state)
    close((torch.cat([first, second]), state), (output, after))
    state, outputs = None, []
    for x_t in x:
        output_t, state = network.step(x_t, state)
        outputs.append(output_t)
    close((torch.stack(outputs), state), (output, after))
    alone, _ = network(x[:, 0])
    close(alone, output[:, 0])


@pytest.mark.parametrize("name", ALL)
def test_a_detached_state(name: str) -> None:
    """The same values in memory of their own, without history; None stays None."""
    layer = ALL[name].make()
    _, state = layer(random_spikes(6, 2, I))
    found = detach_state([state, (state, None)])
    assert type(found) is list
    assert found[1][1] is None
    for copy in (found[0], found[1][0]):
        assert type(copy) is type(state)
        for new, old in zip(copy, state, strict=True):
            assert (new is None) == (old is None)
            if new is not None:
                assert torch.equal(new, old)
                assert not new.requires_grad
                assert new.data_ptr() != old.data_ptr()


def test_what_cannot_be_detached() -> None:
    with pytest.raises(TypeError, match="state: expected tensors and None, got dict"):
        detach_state([torch.ones(1), {}])
