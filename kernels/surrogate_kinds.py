"""The built-in surrogates as kernels compute them: kinds, and their numbers in order.

    u = V - theta
    triangular        a max(0, 1 - |u| / (b theta))
    multi_gaussian    e(u, 0, a, b) - e(u, e, c, d) - e(u, -e, c, d),
                      e(u, m, h, f) = exp(max(h - f (u - m)^2, least))
    atan              a / (1 + (b u)^2)
    fast_sigmoid      1 / (1 + a |u|)^2
    sigmoid           a s (1 - s), s = 1 / (1 + exp(-max(-a |u|, least)))

A kernel takes all `NUMBERS`; one that a kind has not is 0. `GIVEN` is the kind of a derivative that
somebody else has computed: a kernel takes it as it is.
"""

from collections.abc import Sequence

KINDS = {
    "triangular": ("a", "b"),
    "multi_gaussian": ("a", "b", "c", "d", "e", "least"),
    "atan": ("a", "b"),
    "fast_sigmoid": ("a",),
    "sigmoid": ("a", "least"),
}
GIVEN = "given"
NUMBERS = ("a", "b", "c", "d", "e", "least")


def all_numbers(kind: str, numbers: Sequence[float]) -> dict[str, float]:
    """All of `NUMBERS`, in order, from those that `kind` has."""
    given = {} if kind == GIVEN else dict(zip(KINDS[kind], numbers, strict=True))
    return {name: float(given.get(name, 0.0)) for name in NUMBERS}
