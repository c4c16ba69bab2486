"""The interval of a share, against published values and SciPy's."""

import pytest
from scipy.stats import binomtest

from hetsyn_triton.experiments.studies.statistics import wilson_interval


@pytest.mark.parametrize(
    ("right", "samples", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_the_interval_is_wilsons(right: int, samples: int, low: float, high: float) -> None:
    """Published: Newcombe, Statistics in Medicine 17 (1998), table I, method 3."""
    assert wilson_interval(right / samples, samples) == pytest.approx((low, high), abs=5e-5)
    for count in (right, samples - right):  # of the other share too
        known = binomtest(count, samples).proportion_ci(0.95, "wilson")
        found = wilson_interval(count / samples, samples)
        assert found == pytest.approx((known.low, known.high), abs=1e-12)


def test_the_interval_stays_between_0_and_1() -> None:
    for samples in range(1, 3000):
        assert wilson_interval(0.0, samples)[0] >= 0
        assert wilson_interval(1.0, samples)[1] <= 1


@pytest.mark.parametrize(
    ("share", "samples", "name"), [(1.01, 10, "share"), (-0.1, 10, "share"), (0.5, 0, "samples")]
)
def test_what_is_no_share_is_refused(share: float, samples: int, name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name}: expected .*, got"):
        wilson_interval(share, samples)
