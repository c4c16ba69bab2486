"""Layers refuse, before any work, what they cannot mean: by argument, value and what is allowed."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from hetsyn_triton import (
    BackendUnavailableError,
    HetNeuLIF,
    HetNeuReadout,
    HetSynLIF,
    HetSynReadout,
    HomNeuALIF,
    HomNeuLIF,
    HomNeuReadout,
    NeuronState,
    Triangular,
    clamp_decays_,
    make_network,
    ops,
)
from tests.support.layer_cases import ALL, SPIKING, I, J
from tests.support.operators import DIFFERENTIABLE

T, B = 5, 3
LAYERS = [HetSynLIF, HomNeuLIF, HomNeuALIF, HetNeuLIF, HetSynReadout, HomNeuReadout, HetNeuReadout]
NEURONS = LAYERS[:4]


def forbid_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """No operator, no matrix product: the error comes first."""

    def forbidden(*args: Any, **options: Any) -> Any:
        raise AssertionError("work was done before the error")

    for name in DIFFERENTIABLE:
        monkeypatch.setattr(getattr(ops, name), "run", forbidden)
    monkeypatch.setattr(torch.nn.functional, "linear", forbidden)


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    forbid_work(monkeypatch)


def message_of(error: Any, call: Any) -> str:
    with pytest.raises(error) as raised:
        call()
    return str(raised.value)


# -- made ------------------------------------------------------------------------------------------

POSITIVE = "expected a positive, finite number, got"


@pytest.mark.parametrize("cls", LAYERS)
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"in_features": 0}, ValueError, "in_features: expected a whole number >= 1, got 0"),
        ({"in_features": 3.0}, ValueError, "in_features: expected a whole number >= 1, got 3.0"),
        ({"out_features": -1}, ValueError, "out_features: expected a whole number >= 1, got -1"),
        ({"out_features": True}, ValueError, "out_features: expected a whole .*, got True"),
        ({"dt": 0.0}, ValueError, f"dt: {POSITIVE} 0.0"),
        ({"dt": -1}, ValueError, f"dt: {POSITIVE} -1"),
        ({"dt": "1"}, ValueError, f"dt: {POSITIVE} '1'"),
        ({"tau": 0}, ValueError, f"tau: {POSITIVE} 0"),
        ({"tau": float("nan")}, ValueError, f"tau: {POSITIVE} nan"),
        ({"weight_init": 1.0}, TypeError, "weight_init: expected a distribution .* got float"),
        ({"backend": "cuda"}, ValueError, "backend: expected one of auto, .*, got 'cuda'"),
        ({"backend": None}, ValueError, "backend: expected one of auto, .*, got None"),
        (
            {"dtype": torch.float16},
            TypeError,
            "dtype: expected dtype float32, float64, got float16",
        ),
        ({"dtype": torch.int64}, TypeError, "dtype: expected dtype float32, float64, got int64"),
        ({"tua": 5.0}, TypeError, ".*: unexpected arguments tua; expected in_features, .*tau"),
    ],
    ids=lambda v: str(next(iter(v.items()))) if isinstance(v, dict) else None,
)
def test_bad_arguments(cls: Any, options: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=f"^{message}"):
        cls(**({"in_features": 3, "out_features": 4} | options))


@pytest.mark.parametrize("cls", NEURONS)
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"threshold": 0.0}, ValueError, f"threshold: {POSITIVE} 0.0"),
        ({"threshold": -1.0}, ValueError, f"threshold: {POSITIVE} -1.0"),
        ({"threshold": float("inf")}, ValueError, f"threshold: {POSITIVE} inf"),
        ({"threshold": torch.ones(4)}, ValueError, f"threshold: {POSITIVE} tensor"),
        ({"tau_reset": 0.0}, ValueError, f"tau_reset: {POSITIVE} 0.0"),
        ({"tau_reset": "teid"}, ValueError, "tau_reset: expected a positive.*, got 'teid'"),
        ({"surrogate": "triangular"}, TypeError, "surrogate: expected a function .*'triangular'"),
        ({"surrogate": None}, TypeError, "surrogate: expected a function .*, got None"),
        ({"surrogate": Triangular}, TypeError, r"surrogate: .* such as Triangular\(\), got <class"),
        (
            {"adaptation": 0.1, "tau_adaptation": -3.0},
            ValueError,
            f"tau_adaptation: {POSITIVE} -3.0",
        ),
        (
            {"adaptation": float("nan"), "tau_adaptation": 3.0},
            ValueError,
            "adaptation: expected a finite number, got nan",
        ),
        (
            {"adaptation": None, "tau_adaptation": 3.0},
            ValueError,
            "adaptation and tau_adaptation: expected both or neither, got adaptation=None, "
            "tau_adaptation=3.0",
        ),
        (
            {"recurrent": True, "recurrent_weight_init": 1},
            TypeError,
            "recurrent_weight_init: expected a distribution .* got int",
        ),
    ],
    ids=lambda v: str(next(iter(v.items()))) if isinstance(v, dict) else None,
)
def test_bad_arguments_of_a_neuron(cls: Any, options: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=f"^{message}"):
        cls(3, 4, **options)


def test_a_synaptic_layer_has_no_decay_to_tie_a_reset_to() -> None:
    with pytest.raises(ValueError, match=f"^tau_reset: {POSITIVE} 'tied'"):
        HetSynLIF(3, 4, tau_reset="tied")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^tau_reset: .* or 'tied', got 'tide'"):
        HetNeuLIF(3, 4, tau_reset="tide")
    with pytest.raises(ValueError, match=f"^tau_recurrent: {POSITIVE} -1"):
        HetSynLIF(3, 4, recurrent=True, tau_recurrent=-1)


@pytest.mark.parametrize("cls", LAYERS)
def test_numbers_of_numpy_are_numbers(cls: Any) -> None:
    layer = cls(np.int64(3), np.int32(4), tau=np.float32(5.0), dt=np.float64(0.5))
    assert type(layer.in_features) is int
    assert type(layer.dt) is float
    torch.testing.assert_close(layer.decay(), torch.full_like(layer.decay(), -0.1).exp())


# -- called ----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("batch_first", [False, True])
def test_bad_inputs(name: str, batch_first: bool) -> None:
    layer = ALL[name].make(batch_first=batch_first, dtype=torch.float32)
    x = torch.zeros(T, B, I)
    first = "[B, T, in_features]" if batch_first else "[T, B, in_features]"
    dimensions = f"x: expected {first} or unbatched [T, in_features], got shape "
    step = "x: expected [B, in_features] or [in_features], got shape "
    dtypes = "x: expected dtype float32, bool, uint8, int8, bfloat16, float16 for float32 "
    dtypes += "parameters, "
    sparse = "x: expected a dense tensor, got layout torch.sparse_coo"
    device = "x: expected device cpu as the layer has, got meta"
    cases: list[tuple[Any, Any, str]] = [
        (ValueError, lambda: layer(x[None]), dimensions + "(1, 5, 3, 6)"),
        (ValueError, lambda: layer(x[0, 0]), dimensions + "(6,)"),
        (ValueError, lambda: layer(torch.tensor(1.0)), dimensions + "()"),
        (
            ValueError,
            lambda: layer(x[..., 1:]),
            "x: expected a last dimension of in_features = 6, got shape (5, 3, 5)",
        ),
        (ValueError, lambda: layer.step(x), step + "(5, 3, 6)"),
        (TypeError, lambda: layer(x.double()), dtypes + "got float64"),
        (TypeError, lambda: layer(x.long()), dtypes + "got int64"),
        (TypeError, lambda: layer(x.to(torch.complex64)), dtypes + "got complex64"),
        (TypeError, lambda: layer(x.numpy()), "x: expected a torch.Tensor, got ndarray"),
        (TypeError, lambda: layer.step([1.0]), "x: expected a torch.Tensor, got list"),
        (TypeError, lambda: layer(x.to_sparse()), sparse),
        (ValueError, lambda: layer(x.to("meta")), device),
    ]
    for error, call, message in cases:
        assert message_of(error, call) == message


@pytest.mark.parametrize("name", ALL)
def test_bad_states(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of another batch, size, dtype, device, layer, layout, or with parts missing: each by name."""
    layer = ALL[name].make(dtype=torch.float32)
    x = torch.zeros(T, B, I)
    _, state = layer(x)
    forbid_work(monkeypatch)
    sizes = {
        "trace": (f"J, I] = ({B}, {J}, {I})", (J, I)),
        "recurrent_trace": (f"J, J] = ({B}, {J}, {J})", (J, J)),
    }
    for field, value in zip(state._fields, state, strict=True):
        where = f"state.{field}: expected "

        def given(new: Any, field: str = field) -> Any:
            return lambda: layer(x, state._replace(**{field: new}))

        if value is None:
            some = torch.zeros(B, J)
            assert message_of(ValueError, given(some)) == where + "None, got a tensor"
            continue
        axes, rest = sizes.get(field, (f"J] = ({B}, {J})", (J,)))
        shape = where + f"shape [B, {axes}, got "
        assert message_of(ValueError, given(value[:2])) == shape + f"{(2, *rest)}"
        assert message_of(ValueError, given(value[..., 1:])).startswith(shape)
        assert message_of(ValueError, given(value[0])) == shape + f"{rest}"
        assert message_of(ValueError, given(None)) == where + "a tensor, got None"
        assert message_of(TypeError, given(1.0)) == where + "a torch.Tensor, got float"
        assert message_of(TypeError, given(value.double())) == (
            where + "dtype float32 as the layer has, got float64"
        )
        assert message_of(ValueError, given(value.to("meta"))) == (
            where + "device cpu as the layer has, got meta"
        )
        unbatched = message_of(ValueError, lambda: layer(x[:, 0], state))
        assert "[B" not in unbatched
    kind = f"state: expected {layer.state_type.__name__}, got "
    zeros = torch.zeros(B, J)
    assert message_of(TypeError, lambda: layer(x, zeros)) == kind + "Tensor"
    assert message_of(TypeError, lambda: layer(x, tuple(state))) == kind + "tuple"
    assert message_of(TypeError, lambda: layer(x, NeuronState(zeros, None, zeros))) == (
        kind + "NeuronState"
    )


PARAMETERS = [
    ("weight", float("nan"), "weight: expected finite values, got 1 NaN or infinite of 30"),
    ("weight", float("inf"), "weight: expected finite values, got 1 NaN or infinite of 30"),
    ("decay.raw", float("nan"), "decay: expected decays in [0, 1], got values from nan to nan"),
    ("decay.raw", 1.5, "decay: expected decays in [0, 1], got values from "),
    ("decay.raw", -0.5, "decay: expected decays in [0, 1], got values from -0.5 to "),
    (
        "recurrent_weight",
        float("nan"),
        "recurrent_weight: expected finite values, got 1 NaN or inf",
    ),
    ("recurrent_decay.raw", 1.25, "recurrent_decay: expected decays in [0, 1], got values from "),
    ("threshold", 0.0, "threshold: expected positive, finite values, got values from 0 to "),
    ("threshold", -1.0, "threshold: expected positive, finite values, got values from -1 to "),
    ("threshold", float("nan"), "threshold: expected positive, finite values, got values from nan"),
]


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize(("tensor", "value", "message"), PARAMETERS)
@pytest.mark.parametrize("name", [n for n in ALL if "sigmoid" not in n])
def test_bad_parameters(name: str, tensor: str, value: float, message: str) -> None:
    """However they came to be: an optimizer's step, an assignment."""
    layer = ALL[name].make()
    found: Tensor | None = layer.state_dict(keep_vars=True).get(tensor)
    if found is None:
        assert not ALL[name].recurrent or "recurrent" not in tensor or "Neu" in name
        return
    with torch.no_grad():
        found.view(-1)[-1] = value  # the last: none of those a fraction freezes matters here
    if layer.decay.frozen is not None and "decay" in tensor:
        part = layer.decay if tensor == "decay.raw" else layer.recurrent_decay
        part.frozen.view(-1)[-1] = False
    assert message_of(ValueError, lambda: layer(torch.zeros(T, B, I).double())).startswith(message)


@pytest.mark.parametrize("name", SPIKING)
def test_half_precision_layers(name: str) -> None:
    layer = ALL[name].make().half()
    message = "weight: expected dtype float32, float64, got float16; states and sums"
    for x in (torch.zeros(T, B, I), torch.zeros(T, B, I).half()):
        assert message_of(TypeError, lambda: layer(x)).startswith(message)  # noqa: B023


# -- loaded ----------------------------------------------------------------------------------------

LOADED = [
    ("weight", float("nan"), "weight: expected finite values, got 1 NaN or infinite of 30"),
    ("decay.raw", float("nan"), "decay.raw: expected "),
    ("decay.logit", float("inf"), "decay.logit: expected finite values, got 1 NaN or infinite"),
    ("decay.frozen_value", -0.5, "decay.frozen_value: expected decays in [0, 1], got values from"),
    ("recurrent_weight", float("inf"), "recurrent_weight: expected finite values, got 1 NaN"),
    ("threshold", -1.0, "threshold: expected positive, finite values, got values from -1 to "),
    ("reset_decay", 1.5, "reset_decay: expected decays in [0, 1], got values from "),
    ("adaptation_decay", 2.0, "adaptation_decay: expected decays in [0, 1], got values from "),
    ("adaptation_strength", float("nan"), "adaptation_strength: expected finite values, got 1"),
]


@pytest.mark.parametrize(("key", "value", "message"), LOADED)
@pytest.mark.parametrize("name", ["HetSynLIF, sigmoid", "HetSynLIF, everything", "HomNeuALIF"])
def test_bad_values_are_refused_when_loaded(
    name: str, key: str, value: float, message: str
) -> None:
    """With PyTorch's error, named as in the state dict, prefix and all."""
    layer = torch.nn.ModuleDict({"hidden": ALL[name].make()})
    bad = {k: v.clone() for k, v in layer.state_dict().items()}
    if f"hidden.{key}" not in bad:
        return
    bad[f"hidden.{key}"].view(-1)[-1] = value
    raised = message_of(RuntimeError, lambda: layer.load_state_dict(bad))
    assert raised.startswith("Error(s) in loading state_dict for ModuleDict:")
    assert f"\thidden.{message}" in raised


@pytest.mark.parametrize("assign", [False, True], ids=["copied", "assigned"])
@pytest.mark.parametrize("fault", ["values", "shape", "missing", "unexpected"])
def test_a_state_that_does_not_fit_changes_nothing(fault: str, assign: bool) -> None:
    """Every fault is named at once, and what was loaded before it is taken back."""
    network = make_network("hetsyn", I, [5, 4], 3, frozen_fraction=0.5)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    parameters = [*network.parameters()]
    bad: dict[str, Any] = {
        k: v + 0.01 if v.is_floating_point() else v.clone() for k, v in before.items()
    }
    bad["layers.0.decay.raw"][0, 0] = 1.5
    last, faults = "layers.1.weight", ["layers.1.weight"]
    if fault == "values":
        bad[last][0, 0] = float("nan")
        bad["readout.weight"][0, 0] = float("inf")
        faults.append("readout.weight")
    elif fault == "shape":
        bad[last] = bad[last][1:]
    elif fault == "missing":
        del bad[last]
    else:
        bad["layers.1.other"], faults = bad[last], ["layers.1.other"]
    raised = message_of(RuntimeError, lambda: network.load_state_dict(bad, assign=assign))
    assert all(name in raised for name in faults)
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
    assert all(p is q for p, q in zip(network.parameters(), parameters, strict=True))
    network(torch.ones(T, B, I))  # no mark of the decays outside [0, 1] is left


@pytest.mark.parametrize("outside", [1.25, -0.25])
@pytest.mark.parametrize("name", ["HetSynLIF", "HetNeuLIF", "HetSynReadout"])
def test_decays_saved_before_the_clamp(name: str, outside: float) -> None:
    """They load, as all else of a training does; the layer runs once they are clamped."""
    layer, other = ALL[name].make(), ALL[name].make(seed=1)
    with torch.no_grad():
        layer.decay.raw.view(-1)[0] = outside
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other.decay.raw, layer.decay.raw)
    x = torch.ones(T, B, I)
    assert "between an optimizer step and the clamp" in message_of(ValueError, lambda: other(x))
    assert "decay" in message_of(ValueError, lambda: other.to("meta")(x.to("meta")))
    other = ALL[name].make(seed=1)
    other.load_state_dict(layer.state_dict())
    clamp_decays_(other)
    other(x)
    assert other.decay.raw.view(-1)[0] == (outside > 1)
    fixed = ALL["HomNeuLIF"].make()
    bad = fixed.state_dict() | {"decay.raw": fixed.decay.raw + 1}
    assert "decay.raw: expected decays in [0, 1]" in message_of(
        RuntimeError, lambda: fixed.load_state_dict(bad)
    )


def test_another_architecture_is_refused_when_loaded() -> None:
    """As by every PyTorch module: RuntimeError, naming the keys."""
    hetsyn, sigmoid = SPIKING["HetSynLIF"].make(), SPIKING["HetSynLIF, sigmoid"].make()
    assert "decay.raw" in message_of(
        RuntimeError, lambda: sigmoid.load_state_dict(hetsyn.state_dict())
    )
    recurrent = SPIKING["HetSynLIF, recurrent"].make()
    assert "recurrent_weight" in message_of(
        RuntimeError, lambda: hetsyn.load_state_dict(recurrent.state_dict())
    )
    no_self = SPIKING["HetSynLIF, no self"].make()
    assert "self_mask" in message_of(
        RuntimeError, lambda: recurrent.load_state_dict(no_self.state_dict())
    )
    neuron = SPIKING["HetNeuLIF"].make()
    assert "size mismatch" in message_of(
        RuntimeError, lambda: hetsyn.load_state_dict(neuron.state_dict())
    )


# -- backends --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_a_backend_that_cannot_run_raises(name: str) -> None:
    layer = ALL[name].make(backend="triton")
    with pytest.raises(BackendUnavailableError, match=r"'triton' cannot run .* on cpu"):
        layer(torch.zeros(T, B, I).double())
