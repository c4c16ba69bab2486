"""The contract of the recurrent scan and its backward."""

from tests.operators.contract import BackwardInPieces, Spiking
from tests.support.operators import Size

SMALL = (
    Size(R=3, T=5, B=2, J=5, K=2),
    Size(R=2, T=3, B=1, J=37, K=2),
    Size(R=1, T=1, B=1, J=4, K=1),
    Size(R=1, T=3, B=1, J=101, K=1),
    Size(R=1, T=3, B=3, J=1, K=1),
    Size(R=2, T=4, B=1, J=16, K=3),
    Size(R=1, T=3, B=2, J=19, K=1),
    Size(R=1, T=3, B=1, J=64, K=1),
)
LARGE = (
    Size(R=1, T=7, B=5, J=15, K=1),
    Size(R=3, T=7, B=3, J=17, K=3),
    Size(R=1, T=7, B=11, J=33, K=2),
    Size(R=1, T=40, B=7, J=8, K=1),
    Size(R=1, T=7, B=6, J=64, K=1),
    Size(R=1, T=7, B=5, J=65, K=1),
    Size(R=2, T=4, B=2, J=130, K=2),
    Size(R=1, T=3, B=4, J=200, K=1),
)


class TestForward(Spiking):
    operator = "recurrent_scan"
    small = SMALL
    large = LARGE


class TestBackward(BackwardInPieces):
    operator = "recurrent_scan_backward"
    small = SMALL
    large = LARGE
