"""The number of parameters of a network, and the sizes at which two models have equally many."""

from hetsyn_triton.experiments.tasks import Task
from hetsyn_triton.modules import MODELS
from hetsyn_triton.validation import check_choice

EQUALS = ("neurons", "parameters")
"""What compared models can share."""


def parameter_count(model: str, inputs: int, neurons: int, outputs: int, *, recurrent: bool) -> int:
    """Count the parameters of a network with one hidden layer, as `make_network` builds it.

    N recurrent neurons with M inputs have M N + N N weights. HetSyn has a decay per synapse,
    hetneu a decay per neuron; fixed decays do not count. The last layer is feedforward. As in the
    paper (arXiv 2508.11644) and in summary.json, N N includes the N self-connections that the
    homogeneous models mask, although they cannot learn.
    """
    check_choice("model", model, MODELS)
    synapses = inputs * neurons + (neurons * neurons if recurrent else 0) + neurons * outputs
    if model == "hetsyn":
        return 2 * synapses
    return synapses + (neurons + outputs if model == "hetneu" else 0)


def matched_neurons(model: str, equal: str, size: int, task: Task, *, recurrent: bool) -> int:
    """Return the hidden neurons of `model` that match HetSyn with `size` in `equal`."""
    if equal == "neurons":
        return size
    inputs, outputs = task.in_features, task.out_features
    return equal_neurons(model, "hetsyn", inputs, size, outputs, recurrent=recurrent)


def equal_neurons(
    model: str, like: str, inputs: int, neurons: int, outputs: int, *, recurrent: bool
) -> int:
    """Return the size at which `model` has about as many parameters as `like` with `neurons`.

    The smaller size wins a tie.
    """

    def count(kind: str, size: int) -> int:
        return parameter_count(kind, inputs, size, outputs, recurrent=recurrent)

    wanted = count(like, neurons)
    size = 1
    while count(model, size + 1) <= wanted:
        size += 1
    return min((size, size + 1), key=lambda n: (abs(count(model, n) - wanted), n))
