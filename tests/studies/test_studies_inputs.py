"""Inputs changed at test, parameters counted, time constants reset."""

import itertools

import pytest
import torch

from hetsyn_triton.experiments.studies.corruption import added, deleted, warped, warped_batches
from hetsyn_triton.experiments.studies.long_decays import beyond, pathways, without_long
from hetsyn_triton.experiments.studies.memory import kept_for_backward
from hetsyn_triton.experiments.studies.parameters import equal_neurons, parameter_count
from hetsyn_triton.experiments.studies.statistics import mean_and_deviation, over_seeds
from hetsyn_triton.experiments.tasks import Batch
from hetsyn_triton.modules import MODELS, make_network
from hetsyn_triton.timeconstants import decay_to_tau
from tests.support.layer_cases import first_layer


def spikes(*shape: int, rate: float = 0.3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return (torch.rand(shape, generator=generator) < rate).float()


def test_deletion_drops_its_part_and_adds_nothing() -> None:
    x = spikes(100, 20, 10)
    for p in (0.0, 0.3, 1.0):
        left = deleted(x, p, torch.Generator().manual_seed(0))
        assert bool((left <= x).all())
        assert left.sum() / x.sum() == pytest.approx(1 - p, abs=0.02)


def test_addition_fills_its_part_of_the_silence_and_deletes_nothing() -> None:
    x = spikes(100, 20, 10)
    for p in (0.0, 0.3, 1.0):
        more = added(x, p, torch.Generator().manual_seed(0))
        assert bool((more >= x).all())
        assert set(more.unique().tolist()) <= {0.0, 1.0}
        assert more[x == 0].mean() == pytest.approx(p, abs=0.02)


def test_warped_spikes_keep_their_relative_time() -> None:
    x = torch.zeros(8, 1, 2)
    x[2, 0, 0] = x[3, 0, 0] = x[7, 0, 1] = 1
    slow = warped(x, 16)
    assert slow[:, 0, 0].nonzero().flatten().tolist() == [5, 7]
    assert slow[:, 0, 1].nonzero().flatten().tolist() == [15]
    fast = warped(x, 4)
    assert fast[:, 0, 0].nonzero().flatten().tolist() == [1]  # two that meet are one
    assert fast.max() == 1
    assert fast[:, 0, 1].nonzero().flatten().tolist() == [3]
    assert torch.equal(warped(x, 8), x)


def test_warped_values_are_held() -> None:
    x = torch.tensor([0.1, 0.2, 0.3, 0.4]).view(4, 1, 1)
    assert torch.equal(warped(x, 8), x.repeat_interleave(2, 0))
    assert warped(x, 2).flatten().tolist() == pytest.approx([0.2, 0.4])


def test_samples_of_a_length_share_a_batch() -> None:
    batch = Batch(spikes(10, 5, 3), torch.arange(5))
    parts = warped_batches(batch, torch.tensor([8, 12, 8, 10, 12]))
    assert [part.input.shape for part in parts] == [(8, 2, 3), (10, 1, 3), (12, 2, 3)]
    assert [part.target.tolist() for part in parts] == [[0, 2], [3], [1, 4]]
    assert torch.equal(parts[1].input, batch.input[:, 3:4])


@pytest.mark.parametrize("recurrent", [True, False])
@pytest.mark.parametrize("model", MODELS)
def test_parameters_are_those_of_the_network(model: str, recurrent: bool) -> None:
    for readout in (True, False):
        network = make_network(model, 7, [5], 3, recurrent=recurrent, readout=readout)
        there = sum(p.numel() for p in network.parameters() if p.requires_grad)
        assert parameter_count(model, 7, 5, 3, recurrent=recurrent) == there


@pytest.mark.parametrize("model", MODELS)
def test_masked_self_connections_are_among_the_parameters(model: str) -> None:
    """Those of homogeneous models do nothing, whatever their value."""
    network = make_network(model, 7, [5], 3, tau=5.0, generator=torch.Generator().manual_seed(0))
    x, weight = 9 * spikes(20, 4, 7), first_layer(network).recurrent_weight
    assert weight is not None
    with torch.no_grad():
        before = network(x)[0]
        weight.fill_diagonal_(7.0)
        assert torch.equal(network(x)[0], before) == model.startswith("homneu")
    weights = [p.numel() for name, p in network.named_parameters() if name.endswith("weight")]
    assert sum(weights) == 7 * 5 + 5 * 5 + 5 * 3
    assert parameter_count("homneu", 7, 5, 3, recurrent=True) == sum(weights)


@pytest.mark.parametrize(("model", "recurrent"), list(itertools.product(MODELS, [True, False])))
def test_equal_parameters_is_the_nearest_size(model: str, recurrent: bool) -> None:
    for neurons in (1, 5, 20, 100):
        wanted = parameter_count("hetsyn", 30, neurons, 2, recurrent=recurrent)
        size = equal_neurons(model, "hetsyn", 30, neurons, 2, recurrent=recurrent)
        off = {
            n: abs(parameter_count(model, 30, n, 2, recurrent=recurrent) - wanted)
            for n in range(1, 400)
        }
        assert off[size] == min(off.values())
        if model == "hetsyn":
            assert size == neurons


def test_only_the_long_ones_are_reset() -> None:
    taus = torch.tensor([[5.0, 50.0], [80.0, 10.0]])
    network = make_network("hetsyn", 2, [2], 1, recurrent=False, tau=5.0)
    first_layer(network).decay.raw.data = torch.exp(-1 / taus)
    reset, share = without_long(network, 40.0, 7.0, 1.0)
    found = decay_to_tau(first_layer(reset).decay()).detach()
    torch.testing.assert_close(found, torch.tensor([[5.0, 7.0], [7.0, 10.0]]), rtol=1e-4, atol=0)
    assert share == 2 / 6
    kept = decay_to_tau(first_layer(network).decay()).detach()
    torch.testing.assert_close(kept, taus, rtol=1e-4, atol=0)
    other, same = without_long(network, 40.0, 7.0, 1.0, torch.Generator().manual_seed(0))
    assert same == share
    others = torch.tensor([[7.0, 50.0], [80.0, 7.0]])  # both that are not long, and neither that is
    found = decay_to_tau(first_layer(other).decay()).detach()
    torch.testing.assert_close(found, others, rtol=1e-4, atol=0)


def test_as_many_others_are_never_long_and_may_be_fewer() -> None:
    taus = torch.tensor([[50.0, 60.0, 10.0], [80.0, 11.0, 12.0], [13.0, 14.0, 15.0]])
    network = make_network("hetsyn", 3, [3], 1, recurrent=False, tau=5.0)
    decay = first_layer(network).decay
    for bound, count in ((40.0, 3), (11.5, 2)):  # of 9 are 3 long, then 7
        decay.raw.data = torch.exp(-1 / taus)
        for seed in range(20):
            generator = torch.Generator().manual_seed(seed)
            changed, share = without_long(network, bound, 7.0, 1.0, generator)
            reset = (decay_to_tau(first_layer(changed).decay()) - 7).abs() < 1e-2
            assert int(reset.sum()) == count
            assert not bool((reset & (taus > bound)).any())
            assert share == count / 12


def test_frozen_ones_are_not_reset() -> None:
    network = make_network("hetsyn", 4, [5], 1, tau=50.0, frozen_fraction=1.0)
    _, share = without_long(network, 40.0, 7.0, 1.0)
    assert share == 0


def test_pathways_of_the_delayed_match() -> None:
    network = make_network("hetsyn", 30, [4], 2, tau=50.0)
    sizes = {name: len(taus) for name, taus in pathways(network, "delayed-match", 1.0).items()}
    assert sizes == {"cue": 80, "noise": 40, "layer 1, recurrent": 16, "readout": 8}
    assert "layer 1, input" in pathways(network, "digits", 1.0)
    assert beyond(torch.tensor([1.0, 3.0, 5.0, float("inf")]), 3.0) == 0.5


def test_what_autograd_keeps_is_counted_once() -> None:
    x, w = torch.ones(1000), torch.ones(1000, requires_grad=True)
    assert kept_for_backward(lambda: (x * w).sum(), [x, w]) == 0
    assert kept_for_backward(lambda: (x * w).exp().square().sum(), [x, w]) == 4000


def test_means_over_seeds() -> None:
    rows = [{"model": m, "seed": s, "score": float(v)} for m, s, v in
            (("a", 0, 1), ("b", 0, 5), ("a", 1, 3), ("a", 2, 8))]  # fmt: skip
    first, second = over_seeds(rows, ("model",), ("score",))
    assert first == {"model": "a", "seeds": 3, "score": 4.0, "score_deviation": 13**0.5}
    assert second == {"model": "b", "seeds": 1, "score": 5.0, "score_deviation": None}
    rows += [{"model": m, "seed": 3, "score": None} for m in "ac"]
    first, _, third = over_seeds(rows, ("model",), ("score",))
    assert first == {"model": "a", "seeds": 4, "score": 4.0, "score_deviation": 13**0.5}
    assert third == {"model": "c", "seeds": 1, "score": None, "score_deviation": None}
    assert mean_and_deviation([4.0]) == (4.0, None)
