"""A neuron with two synapses and no recurrence, worked by hand over five steps.

All numbers are dyadic fractions, so every sum is exact in float32 and float64 in any order, and the
comparison is equality.

    t        1        2        3        4        5
    z1       1        1        0        1        0         r1 = 1/2, w1 = 1
    z2       0        1        1        0        1         r2 = 1/4, w2 = 1/2
    x1       1        1.5      0.75     1.375    0.6875    x1 = x1/2 + z1
    x2       0        1        1.25     0.3125   1.078125  x2 = x2/4 + z2
    I1       1        1.5      0.75     1.375    0.6875    I = w x
    I2       0        0.5      0.625    0.15625  0.5390625
    c        1        2        1.375    1.53125  1.2265625 c = I1 + I2
    J        0        0        1        0.5      1.25      J = J/2 + s(t-1): kappa 1/2, theta 1
    V        1        2        0.375    1.03125 -0.0234375 V = c - J
    s        0        1        0        1        0         V > 1; at t = 1, V = theta: no spike

The loss is s(4), the surrogate the triangle max(0, 1 - |V - 1|):

    sigma'   1        0        0.375    0.96875  0

Backwards, ds(t) = dL/ds(t) + theta dJ(t+1), g(t) = dL/dV(t) = sigma'(t) ds(t) and
dJ(t) = kappa dJ(t+1) - g(t):

    t = 4:  ds = 1             g = 0.96875        dJ = -0.96875
    t = 3:  ds = -0.96875      g = -0.36328125    dJ = -0.484375 + 0.36328125 = -0.12109375
    t = 2:  ds = -0.12109375   g = 0              dJ = -0.060546875
    t = 1:  ds = -0.060546875  g = -0.060546875   dJ = -0.0302734375 + 0.060546875 = 0.0302734375

    dw1 = sum g x1 = -0.060546875 - 0.36328125 * 0.75 + 0.96875 * 1.375  = 0.9990234375
    dw2 = sum g x2 =              - 0.36328125 * 1.25 + 0.96875 * 0.3125 = -0.1513671875

    y = r y + x(t-1):   y1 = 0  1  2  1.75        y2 = 0  0  1  1.5
    dr1 = w1 sum g y1 =      -0.36328125 * 2 + 0.96875 * 1.75  = 0.96875
    dr2 = w2 sum g y2 = 1/2 (-0.36328125     + 0.96875 * 1.5)  = 0.544921875

    lambda = g + r lambda(t+1), dz = w lambda, from t = 4 down:
    lambda1 = 0.96875  0.12109375  0.060546875    -0.0302734375
    lambda2 = 0.96875 -0.12109375 -0.0302734375   -0.068115234375

    dkappa = sum dJ(t) J(t-1) = -0.96875 * 1                     (t = 4)
    dtheta by the reset = sum dJ(t) s(t-1) = -0.12109375         (t = 3)
    dtheta by the spike = - sum g = -0.544921875

    What t = 0 receives: dJ(0) = kappa dJ(1), ds(0) = theta dJ(1), dx(0) = w r lambda(1).
"""

import pytest
import torch
from torch import Tensor

from hetsyn_triton.surrogates import Triangular
from tests.support.random_arguments import apply

Z = [[1, 0], [1, 1], [0, 1], [1, 0], [0, 1]]
X: list[list[float]] = [[1, 0], [1.5, 1], [0.75, 1.25], [1.375, 0.3125], [0.6875, 1.078125]]
C = [1, 2, 1.375, 1.53125, 1.2265625]
RESET = [0, 0, 1, 0.5, 1.25]
V = [1, 2, 0.375, 1.03125, -0.0234375]
S = [0, 1, 0, 1, 0]
SIGMA = [1, 0, 0.375, 0.96875, 0]
G = [-0.060546875, 0, -0.36328125, 0.96875, 0]
DW = [0.9990234375, -0.1513671875]
DR = [0.96875, 0.544921875]
DZ = [
    [-0.0302734375, -0.0340576171875],
    [0.060546875, -0.01513671875],
    [0.12109375, -0.060546875],
    [0.96875, 0.484375],
    [0, 0],
]
D_KAPPA, D_STRENGTH, D_THRESHOLD = -0.96875, -0.12109375, -0.544921875
D_RESET_0, D_SPIKE_0 = 0.01513671875, 0.0302734375
D_TRACE_0 = [-0.01513671875, -0.008514404296875]


def assert_exact(got: Tensor | None, want: list | float) -> None:  # type: ignore[type-arg]
    assert got is not None
    expected = torch.tensor(want, dtype=got.dtype)
    assert torch.equal(got.reshape(expected.shape), expected), f"{got.flatten()} is not {want}"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_every_number(backend: str, dtype: torch.dtype) -> None:
    def leaf(values: list, *shape: int) -> Tensor:  # type: ignore[type-arg]
        return torch.tensor(values, dtype=dtype).reshape(shape).requires_grad_()

    z, weight, decay = leaf(Z, 1, 5, 1, 2), leaf([1, 0.5], 1, 1, 2), leaf([0.5, 0.25], 1, 1, 2)
    trace = leaf([0, 0], 1, 1, 1, 2)
    threshold, strength = leaf([1], 1, 1), leaf([1], 1, 1, 1)
    kappa, reset, spike = leaf([0.5], 1, 1, 1), leaf([0], 1, 1, 1, 1), leaf([0], 1, 1, 1)

    current, _ = apply("synaptic_current", z, weight, decay, trace, backend=backend)
    current.retain_grad()
    spikes, potential, final_reset = apply(
        "spike_scan",
        current,
        threshold,
        kappa,
        strength,
        reset,
        spike,
        surrogate=Triangular(),
        backend=backend,
    )
    potential.retain_grad()
    assert_exact(current, C)
    assert_exact(potential, V)
    assert_exact(current - potential, RESET)
    assert_exact(spikes, S)
    assert_exact(final_reset, RESET[-1:])
    assert_exact(Triangular()(potential - 1, threshold), SIGMA)

    spikes[:, 3].sum().backward()
    assert_exact(current.grad, G)
    assert_exact(weight.grad, DW)
    assert_exact(decay.grad, DR)
    assert_exact(z.grad, DZ)
    assert_exact(kappa.grad, [D_KAPPA])
    assert_exact(strength.grad, [D_STRENGTH])
    assert_exact(threshold.grad, [D_THRESHOLD])
    assert_exact(reset.grad, [D_RESET_0])
    assert_exact(spike.grad, [D_SPIKE_0])
    assert_exact(trace.grad, D_TRACE_0)


@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize("steps", range(1, 6))
def test_every_trace(steps: int, backend: str) -> None:
    """The final trace of the first t steps is x(t), and each synapse's current w x."""
    z = torch.tensor(Z, dtype=torch.float64).reshape(1, 5, 1, 2)[:, :steps]
    decay = torch.tensor([[[0.5, 0.25]]], dtype=torch.float64)
    weight = torch.tensor([[[1, 0.5]]], dtype=torch.float64)
    current, trace = apply("synaptic_current", z, weight, decay, None, backend=backend)
    assert_exact(trace, X[steps - 1])
    assert_exact((weight * trace[:, 0]).sum(), C[steps - 1])
    assert_exact(current[0, -1], [C[steps - 1]])


@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_detached_reset(backend: str) -> None:
    """Nothing flows from the reset to the spikes that drive it: g is 0.96875 at t = 4 and 0 before.

    dJ = -0.96875 at t = 4, halved at every step before; J itself still has its decay and strength:
    dw = 0.96875 x(4), dkappa = dJ(4) J(3), dtheta by the reset = dJ(3) s(2), by the spike = -g(4).
    """
    current = torch.tensor(C, dtype=torch.float64).reshape(1, 5, 1, 1).requires_grad_()
    one, zero = torch.ones(1, 1).double(), torch.zeros(1, 1).double()
    threshold, strength = one.clone().requires_grad_(), one[None].clone().requires_grad_()
    kappa, spike = (one[None] / 2).requires_grad_(), zero[None].clone().requires_grad_()
    reset = zero[None, None].clone().requires_grad_()
    spikes, *_ = apply(
        "spike_scan",
        current,
        threshold,
        kappa,
        strength,
        reset,
        spike,
        surrogate=Triangular(),
        detach_reset=True,
        backend=backend,
    )
    assert_exact(spikes.detach(), S)
    spikes[:, 3].sum().backward()
    assert_exact(current.grad, [0, 0, 0, 0.96875, 0])
    assert_exact(kappa.grad, [-0.96875])
    assert_exact(strength.grad, [-0.484375])
    assert_exact(threshold.grad, [-0.96875])
    assert_exact(reset.grad, [-0.060546875])
    assert spike.grad is None or not spike.grad.any()
