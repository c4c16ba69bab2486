"""How many parameters a network learns, and how many neurons make two models equal in that."""

from hetsyn_triton.modules import MODELS
from hetsyn_triton.validation import check_choice


def learnt_parameters(
    model: str, inputs: int, neurons: int, outputs: int, *, recurrent: bool
) -> int:
    """Learnt parameters of a network with one hidden layer, as `make_network` builds it.

    Weights, of them M N + N N recurrent for M inputs and N neurons, and a decay for every synapse
    (hetsyn), for every neuron (hetneu) or none. The last layer, readout or spiking, is feedforward.
    """
    check_choice("model", model, MODELS)
    synapses = inputs * neurons + (neurons * neurons if recurrent else 0) + neurons * outputs
    if model == "hetsyn":
        return 2 * synapses
    return synapses + (neurons + outputs if model == "hetneu" else 0)


def equal_neurons(
    model: str, like: str, inputs: int, neurons: int, outputs: int, *, recurrent: bool
) -> int:
    """The hidden size at which `model` learns as nearly as many parameters as `like` with
    `neurons`; the smaller of two equally near."""

    def count(kind: str, size: int) -> int:
        return learnt_parameters(kind, inputs, size, outputs, recurrent=recurrent)

    wanted = count(like, neurons)
    size = 1
    while count(model, size + 1) <= wanted:
        size += 1
    return min((size, size + 1), key=lambda n: (abs(count(model, n) - wanted), n))
