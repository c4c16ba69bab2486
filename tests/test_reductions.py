"""The paper's reductions: HetSyn with constrained parameters is a textbook neuron (float64, 1e-12).

Each textbook neuron is a few lines of NumPy below and shares no code with the package. A difference
of one rounding can flip a spike, after which two correct recurrent simulations part for good. The
textbook neuron is therefore teacher-forced: the s(t-1) it feeds back is the spike of the run under
test. Its potential must then agree at every step, and every spike must be what the textbook
potential says, unless that potential is within 1e-12 of the threshold. By induction over t that is
equality of the two simulations.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from hetsyn_triton.reference import closed_form, loop
from hetsyn_triton.surrogates import ATan
from tests.support.random_arguments import apply

T, B, I, J = 40, 3, 6, 5  # noqa: E741
TOLERANCE = 1e-12
FORMS = ["per synapse", "leaky"]
SHAPES = ["feedforward", "recurrent"]
BACKENDS = ["auto", "reference"]
# One decay for the whole layer, or one per neuron: the ends of the allowed range included.
DECAYS = {"equal": np.full(J, 0.83), "per neuron": np.array([0.0, 0.31, 0.75, 0.97, 1.0])}


class Drawn:
    """One random layer: z [T, B, I], W [J, I], U [J, J], theta [J]; the state at t = 0 is zero."""

    def __init__(self, seed: int, shape: str) -> None:
        rng = np.random.default_rng(seed)
        self.z = (rng.random((T, B, I)) < 0.35).astype(float)
        self.W = rng.normal(0.25, 0.5, (J, I))
        self.U = rng.normal(0.0, 0.4, (J, J)) * (shape == "recurrent")
        self.theta = rng.uniform(0.5, 1.5, J)
        self.rho_a, self.a = rng.uniform(0.9, 0.99, J), rng.uniform(0.05, 0.2, J)


def tensor(values: Any) -> Tensor:
    """With a replica axis of one in front."""
    return torch.as_tensor(np.asarray(values, dtype=float)).unsqueeze(0)


def simulate(
    layer: Drawn,
    form: str,
    shape: str,
    decay: np.ndarray,
    feedback_decay: np.ndarray,
    feedback_strength: np.ndarray,
    backend: str = "auto",
) -> tuple[np.ndarray, np.ndarray]:
    """Spikes and V [T, B, J] of the operators: decay [J], feedback [K, J], zero state."""
    z, W, U, theta = (tensor(v) for v in (layer.z, layer.W, layer.U, layer.theta))
    K = len(feedback_decay)
    zero = z.new_zeros(1, B, J)
    neuron = (
        theta,
        tensor(feedback_decay),
        tensor(feedback_strength),
        z.new_zeros(1, K, B, J),
        zero,
    )
    tail: dict[str, Any] = {"surrogate": ATan(), "backend": backend}
    rho = tensor(decay)
    if form == "per synapse":
        rows = rho.unsqueeze(-1)
        current, _ = apply("synaptic_current", z, W, rows.expand(1, J, I), None, backend=backend)
        synapses = (U, rows.expand(1, J, J), None)
        if shape == "recurrent":
            spikes, v, *_ = apply("recurrent_scan", current, *synapses, *neuron, **tail)
        else:
            spikes, v, *_ = apply("spike_scan", current, *neuron, **tail)
    else:
        drive = z @ W.mT
        if shape == "recurrent":
            spikes, v, *_ = apply("leaky_recurrent_scan", drive, U, rho, zero, *neuron, **tail)
        else:
            (current,) = apply("leaky_current", drive, rho, zero, backend=backend)
            spikes, v, *_ = apply("spike_scan", current, *neuron, **tail)
    return spikes[0].numpy(), v[0].numpy()


def assert_same_neuron(
    spikes: np.ndarray, v: np.ndarray, textbook: np.ndarray, theta: np.ndarray
) -> None:
    """V equals the textbook potential, and every spike is the one it asks for."""
    assert np.abs(v - textbook).max() < TOLERANCE
    margin = np.abs(textbook - theta)
    flipped = spikes != (textbook > theta)
    assert not (flipped & (margin > TOLERANCE)).any(), f"margins of flips: {margin[flipped]}"
    assert 0.05 < spikes.mean() < 0.8, "a neuron that never rests or never fires tests nothing"


def vanilla_lif(layer: Drawn, beta: np.ndarray, forced: np.ndarray) -> np.ndarray:
    """u(t) = beta u(t-1) + W z(t) + U s(t-1) - theta s(t-1): one membrane, reset by subtraction."""
    u, s, potentials = np.zeros((B, J)), np.zeros((B, J)), []
    for t in range(T):
        u = beta * u + layer.z[t] @ layer.W.T + s @ layer.U.T - layer.theta * s
        s = forced[t]
        potentials.append(u)
    return np.array(potentials)


def adaptive_lif(
    layer: Drawn, beta: np.ndarray, forced: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The membrane u under a moving threshold theta + b, b(t) = rho_a b(t-1) + a s(t-1) -> u, b."""
    u, b, s, potentials, moved = np.zeros((B, J)), np.zeros((B, J)), np.zeros((B, J)), [], []
    for t in range(T):
        u = beta * u + layer.z[t] @ layer.W.T + s @ layer.U.T - layer.theta * s
        b = layer.rho_a * b + layer.a * s
        s = forced[t]
        potentials.append(u)
        moved.append(b)
    return np.array(potentials), np.array(moved)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("decays", DECAYS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("form", FORMS)
def test_tied_reset_is_one_leaky_membrane(form: str, shape: str, decays: str, backend: str) -> None:
    """Equal decays, kappa equal to them: vanilla LIF. One decay per neuron, kappa tied: HetNeuLIF.

    V = c - J obeys the membrane equation because c and J leak alike.
    Forced: s(t-1) in the textbook neuron.
    """
    layer, beta = Drawn(0, shape), DECAYS[decays]
    spikes, v = simulate(layer, form, shape, beta, beta[None], layer.theta[None], backend)
    assert_same_neuron(spikes, v, vanilla_lif(layer, beta, spikes), layer.theta)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("decays", DECAYS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("form", FORMS)
def test_adaptation_current_is_a_moving_threshold(
    form: str, shape: str, decays: str, backend: str
) -> None:
    """With an adaptation current as second feedback current: adaptive LIF; V is u - b.

    Forced: s(t-1) in the textbook neuron. A spike is u > theta + b there, V > theta here.
    """
    layer, beta = Drawn(1, shape), DECAYS[decays]
    feedback_decay, strength = np.stack([beta, layer.rho_a]), np.stack([layer.theta, layer.a])
    spikes, v = simulate(layer, form, shape, beta, feedback_decay, strength, backend)
    u, b = adaptive_lif(layer, beta, spikes)
    assert_same_neuron(spikes, v + b, u, layer.theta + b)
    assert b.max() > 2 * layer.a.min()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", SHAPES)
def test_an_untied_reset_is_no_single_membrane(shape: str, backend: str) -> None:
    """The reduction needs kappa = beta: with another kappa the same comparison fails."""
    layer, beta = Drawn(0, shape), DECAYS["equal"]
    spikes, v = simulate(
        layer, "per synapse", shape, beta, beta[None] - 1e-3, layer.theta[None], backend
    )
    with pytest.raises(AssertionError):
        assert_same_neuron(spikes, v, vanilla_lif(layer, beta, spikes), layer.theta)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_papers_current_form(shape: str, backend: str) -> None:
    """I(t) = r I(t-1) + w z(t) per synapse, as printed, equals the traces: from any state.

    Decays differ at every synapse, the initial current is w x0. Forced: s(t-1) in the printed loop.
    """
    layer, rng = Drawn(2, shape), np.random.default_rng(3)
    r, r_rec = rng.random((J, I)), rng.random((J, J))
    x0, x0_rec = rng.normal(size=(B, J, I)), rng.normal(size=(B, J, J))
    kappa, J0, s0 = rng.random(J), rng.normal(size=(B, J)), rng.integers(0, 2, (B, J)).astype(float)
    W, U, theta = tensor(layer.W), tensor(layer.U), tensor(layer.theta)
    neuron = (theta, tensor(kappa[None]), theta[None], tensor(J0[None]), tensor(s0))
    tail: dict[str, Any] = {"surrogate": ATan(), "backend": backend}
    c, _ = apply("synaptic_current", tensor(layer.z), W, tensor(r), tensor(x0), backend=backend)
    if shape == "recurrent":
        spikes, v, *_ = apply(
            "recurrent_scan", c, U, tensor(r_rec), tensor(x0_rec), *neuron, **tail
        )
    else:
        spikes, v, *_ = apply("spike_scan", c, *neuron, **tail)
    forced, current, recurrent, reset, s = spikes[0].numpy(), layer.W * x0, layer.U * x0_rec, J0, s0
    potentials = []
    for t in range(T):
        current = r * current + layer.W * layer.z[t][:, None, :]
        recurrent = r_rec * recurrent + layer.U * s[:, None, :]
        reset = kappa * reset + layer.theta * s
        potentials.append(current.sum(-1) + recurrent.sum(-1) - reset)
        s = forced[t]
    assert_same_neuron(forced, v[0].numpy(), np.array(potentials), layer.theta)


def replay(spikes: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """A spike function that fires as in `spikes` [R, T, B, J], one step per call, whatever V is."""
    steps = iter(spikes.unbind(1))
    return lambda distance, threshold: next(steps)


def random_tensors(seed: int) -> dict[str, Tensor]:
    """A recurrent layer with non-zero states; R = 2."""
    g = torch.Generator().manual_seed(seed)

    def normal(*shape: int, mean: float = 0.0, scale: float = 1.0) -> Tensor:
        return mean + scale * torch.randn(2, *shape, generator=g, dtype=torch.float64)

    def unit(*shape: int) -> Tensor:
        return torch.rand(2, *shape, generator=g, dtype=torch.float64)

    return {
        "z": (unit(T, B, I) < 0.35).double(),
        "weight": normal(J, I, mean=0.2, scale=0.5),
        "recurrent": normal(J, J, scale=0.4),
        "decay": 0.9 * unit(J),
        "trace": normal(B, J, I),
        "recurrent_trace": normal(B, J, J),
        "threshold": 0.5 + unit(J),
        "feedback_decay": unit(2, J),
        "feedback_strength": 0.2 * unit(2, J),
        "feedback": normal(2, B, J),
        "spike": (unit(B, J) < 0.5).double(),
    }


def assert_margin(spikes: Tensor, potential: Tensor, threshold: Tensor) -> None:
    """No potential is so near the threshold that another order of summation flips its spike."""
    distance = potential - threshold[:, None, None]
    assert distance.abs().min() > 1e-9
    assert torch.equal(spikes, (distance > 0).to(spikes.dtype))


@pytest.mark.parametrize("module", [loop, closed_form], ids=["loop", "closed form"])
def test_adaptation_is_a_self_synapse(module: Any) -> None:
    """An adaptation current is a recurrent synapse onto oneself of weight -a and decay rho_a.

    The first run fires freely; the second, with the adaptation moved into the diagonal, replays its
    spikes (forced).
    """
    d = random_tensors(4)
    a, rho_a, b0 = d["feedback_strength"][:, 1], d["feedback_decay"][:, 1], d["feedback"][:, 1]
    r = d["decay"].unsqueeze(-1).expand(2, J, J)
    hollow = d["recurrent"] - torch.diag_embed(d["recurrent"].diagonal(dim1=-2, dim2=-1))
    current = torch.randn(2, T, B, J, generator=torch.Generator().manual_seed(5)).double() + 0.5
    neuron = [d["threshold"], d["feedback_decay"], d["feedback_strength"], d["feedback"]]

    def heaviside(u: Tensor, theta: Tensor) -> Tensor:
        return (u > 0).to(u.dtype)

    spikes, v, _, trace = module.recurrent_scan(
        current, hollow, r, d["recurrent_trace"], *neuron, d["spike"], heaviside
    )
    eye = torch.eye(J, dtype=torch.bool)
    weight = torch.where(eye, -torch.diag_embed(a), hollow)
    decay = torch.where(eye, torch.diag_embed(rho_a), r)
    start = torch.where(eye, torch.diag_embed(b0 / a.unsqueeze(1)), d["recurrent_trace"])
    threshold, *feedback = neuron
    _, moved, _, moved_trace = module.recurrent_scan(
        current,
        weight,
        decay,
        start,
        threshold,
        *(f[:, :1] for f in feedback),
        d["spike"],
        replay(spikes),
    )
    assert (v - moved).abs().max() < TOLERANCE
    assert 0.05 < spikes.mean() < 0.8
    off = ~eye
    assert torch.equal(trace[..., off], moved_trace[..., off])


def test_gradients_of_a_self_synapse_are_those_of_the_adaptation() -> None:
    """d/da = - d/dw_jj and d/drho_a = d/dr_jj.

    Forced: nothing; no V is within 1e-9 of its threshold.
    """
    d = random_tensors(6)
    current = torch.randn(2, T, B, J, generator=torch.Generator().manual_seed(7)).double() + 0.5
    g = torch.randn(2, T, B, J, generator=torch.Generator().manual_seed(8)).double()
    a, rho_a = d["feedback_strength"][:, 1], d["feedback_decay"][:, 1]
    kappa, theta = d["feedback_decay"][:, :1], d["threshold"]
    zero, no_trace = torch.zeros(2, B, J).double(), torch.zeros(2, B, J, J).double()

    strength = torch.stack([theta, a], 1).requires_grad_()
    decay = torch.cat([kappa, rho_a.unsqueeze(1)], 1).requires_grad_()
    none = torch.zeros(2, J, J).double()
    feedback = torch.zeros(2, 2, B, J).double()
    spikes, v, *_ = apply(
        "recurrent_scan",
        current,
        none,
        none,
        no_trace,
        theta,
        decay,
        strength,
        feedback,
        zero,
        surrogate=ATan(),
    )
    assert_margin(spikes, v, theta)
    ((spikes * g).sum() + (v * g.flip(1)).sum()).backward()

    weight = torch.diag_embed(-a).requires_grad_()
    r = torch.diag_embed(rho_a).requires_grad_()
    moved, v, *_ = apply(
        "recurrent_scan",
        current,
        weight,
        r,
        no_trace,
        theta,
        kappa,
        theta[:, None],
        feedback[:, :1],
        zero,
        surrogate=ATan(),
    )
    assert torch.equal(spikes, moved)
    ((moved * g).sum() + (v * g.flip(1)).sum()).backward()
    assert strength.grad is not None
    assert decay.grad is not None
    assert weight.grad is not None
    assert r.grad is not None
    pairs = [(strength.grad[:, 1], -weight.grad), (decay.grad[:, 1], r.grad)]
    for per_neuron, per_synapse in pairs:
        diagonal = per_synapse.diagonal(dim1=-2, dim2=-1)
        assert per_neuron.abs().max() > 1e-3
        torch.testing.assert_close(per_neuron, diagonal, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", SHAPES)
def test_leaky_and_per_synapse_operators_agree(shape: str, backend: str) -> None:
    """With one decay per neuron both are one neuron: outputs and gradients, non-zero states.

    The leaky current at t = 0 is sum w x0 + sum U x0_rec, so the gradient of a weight has a part
    through the initial current. Forced: nothing; no V is within 1e-9 of its threshold.
    """
    d = {k: t.requires_grad_() for k, t in random_tensors(9).items()}
    g = torch.randn(2, T, B, J, generator=torch.Generator().manual_seed(10)).double()
    neuron = (
        d["threshold"],
        d["feedback_decay"],
        d["feedback_strength"],
        d["feedback"],
        d["spike"],
    )
    tail: dict[str, Any] = {"surrogate": ATan(), "backend": backend}
    rows = d["decay"].unsqueeze(-1)
    recurrent = shape == "recurrent"

    def per_synapse() -> tuple[Tensor, ...]:
        c, _ = apply(
            "synaptic_current",
            d["z"],
            d["weight"],
            rows.expand(2, J, I),
            d["trace"],
            backend=backend,
        )
        if not recurrent:
            return apply("spike_scan", c, *neuron, **tail)[:2]
        synapses = (d["recurrent"], rows.expand(2, J, J), d["recurrent_trace"])
        return apply("recurrent_scan", c, *synapses, *neuron, **tail)[:2]

    def leaky() -> tuple[Tensor, ...]:
        drive = d["z"] @ d["weight"].mT.unsqueeze(1)
        start = (d["weight"].unsqueeze(1) * d["trace"]).sum(-1)
        if not recurrent:
            (c,) = apply("leaky_current", drive, d["decay"], start, backend=backend)
            return apply("spike_scan", c, *neuron, **tail)[:2]
        start = start + (d["recurrent"].unsqueeze(1) * d["recurrent_trace"]).sum(-1)
        synapses = (d["recurrent"], d["decay"], start)
        return apply("leaky_recurrent_scan", drive, *synapses, *neuron, **tail)[:2]

    found = []
    for form in (per_synapse, leaky):
        spikes, v = form()
        assert_margin(spikes, v, d["threshold"])
        loss = (spikes * g).sum() + (v * g.flip(1)).sum()
        grads = torch.autograd.grad(loss, list(d.values()), allow_unused=True)
        found.append((spikes, v, grads))
    (spikes, v, grads), (spikes_2, v_2, grads_2) = found
    assert torch.equal(spikes, spikes_2)
    assert (v - v_2).abs().max() < TOLERANCE
    for name, got, want in zip(d, grads, grads_2, strict=True):
        if not recurrent and name in ("recurrent", "recurrent_trace"):
            assert got is None
            assert want is None
            continue
        scale = max(1.0, float(want.abs().max()))
        assert (got - want).abs().max() / scale < TOLERANCE, name


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("form", FORMS)
def test_gradients_of_a_tied_reset_are_those_of_the_membrane(
    form: str, shape: str, backend: str
) -> None:
    """HetNeuLIF: dL/dbeta, beta both decay and kappa; dL/dtheta, threshold and reset strength.

    Against autograd through the membrane u = beta u + W z + U s - theta s in plain PyTorch, whose
    spike has the value of the run under test (forced) and the slope 1/(1 + (pi u)^2) of `ATan`.
    """
    layer = Drawn(11, shape)
    g = torch.randn(T, B, J, generator=torch.Generator().manual_seed(12)).double()
    z = torch.as_tensor(layer.z)
    W, U, theta = (torch.as_tensor(v).requires_grad_() for v in (layer.W, layer.U, layer.theta))
    beta = torch.as_tensor(DECAYS["per neuron"]).clone().requires_grad_()
    leaves = [W, beta, theta] + ([U] if shape == "recurrent" else [])

    zero = torch.zeros(1, B, J).double()
    neuron = (theta[None], beta[None, None], theta[None, None], zero[None], zero)
    tail: dict[str, Any] = {"surrogate": ATan(), "backend": backend}
    if form == "per synapse":
        rows = beta[None, :, None]
        c, _ = apply(
            "synaptic_current", z[None], W[None], rows.expand(1, J, I), None, backend=backend
        )
        if shape == "recurrent":
            synapses = (U[None], rows.expand(1, J, J), None)
            spikes, v, *_ = apply("recurrent_scan", c, *synapses, *neuron, **tail)
        else:
            spikes, v, *_ = apply("spike_scan", c, *neuron, **tail)
    else:
        drive = z[None] @ W.T
        if shape == "recurrent":
            membrane = (U[None], beta[None], zero)
            spikes, v, *_ = apply("leaky_recurrent_scan", drive, *membrane, *neuron, **tail)
        else:
            (c,) = apply("leaky_current", drive, beta[None], zero, backend=backend)
            spikes, v, *_ = apply("spike_scan", c, *neuron, **tail)
    found = torch.autograd.grad(((spikes + v)[0] * g).sum(), leaves)

    u, s, loss, forced = zero[0], zero[0], zero.sum(), spikes[0].detach()
    for t in range(T):
        u = beta * u + z[t] @ W.T + s @ U.T - theta * s
        distance = u - theta
        slope = 1 / (1 + (torch.pi * distance.detach()) ** 2)
        s = forced[t] + slope * (distance - distance.detach())
        loss = loss + ((s + u) * g[t]).sum()
    for got, want in zip(found, torch.autograd.grad(loss, leaves), strict=True):
        scale = max(1.0, float(want.abs().max()))
        assert (got - want).abs().max() / scale < TOLERANCE
