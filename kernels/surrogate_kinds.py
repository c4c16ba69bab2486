"""The built-in surrogates as kernels compute them: kinds, and their numbers in order.

u = V - theta
triangular        a max(0, 1 - |u| / (b theta))
multi_gaussian    e(u, 0, a, b) - e(u, e, c, d) - e(u, -e, c, d),
                  e(u, m, h, f) = exp(max(h - f (u - m)^2, least))
atan              a / (1 + (b u)^2)
fast_sigmoid      1 / (1 + a |u|)^2
sigmoid           a s (1 - s), s = 1 / (1 + exp(-max(-a |u|, least)))
"""

KINDS = {
    "triangular": ("a", "b"),
    "multi_gaussian": ("a", "b", "c", "d", "e", "least"),
    "atan": ("a", "b"),
    "fast_sigmoid": ("a",),
    "sigmoid": ("a", "least"),
}
NUMBERS = ("a", "b", "c", "d", "e", "least")
"""Every kernel takes all of them; of a kind that has one not it is 0."""
