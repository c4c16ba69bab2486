"""How many parameters a network has, and how many neurons make two models equal in that."""

from hetsyn_triton.modules import MODELS
from hetsyn_triton.tasks import Task
from hetsyn_triton.validation import check_choice

EQUALS = ("neurons", "parameters")
"""What models that are compared can have in common."""


def parameter_count(model: str, inputs: int, neurons: int, outputs: int, *, recurrent: bool) -> int:
    """Parameters of a network with one hidden layer, as `make_network` builds it, fixed decays not
    among them.

    Weights, of them M N + N N recurrent for M inputs and N neurons, and a decay for every synapse
    (hetsyn), for every neuron (hetneu) or none. The last layer, readout or spiking, is feedforward.
    Counted as in the paper (arXiv 2508.11644) and in summary.json: the N self-connections that the
    homogeneous models mask are among the N N, though they cannot learn.
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
    """The hidden size at which `model` has as nearly as many parameters as `like` with `neurons`;
    the smaller of two equally near."""

    def count(kind: str, size: int) -> int:
        return parameter_count(kind, inputs, size, outputs, recurrent=recurrent)

    wanted = count(like, neurons)
    size = 1
    while count(model, size + 1) <= wanted:
        size += 1
    return min((size, size + 1), key=lambda n: (abs(count(model, n) - wanted), n))
