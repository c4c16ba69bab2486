"""The contract of the leaky current and its backward."""

from tests.operators.contract import Backward, Forward
from tests.operators.test_spike_scan import LARGE, LONG, SMALL


class TestForward(Forward):
    operator = "leaky_current"
    small = SMALL
    large = LARGE
    pieces = LONG


class TestBackward(Backward):
    operator = "leaky_current_backward"
    small = SMALL
    large = LARGE
