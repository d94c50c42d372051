import pytest
import torch
from torch import nn

from medseg.training import WeightAverage


def test_the_average_equals_the_recurrence() -> None:
    network = nn.Linear(2, 1)
    average = WeightAverage(network, decay=0.7)
    expected = None
    for update in range(12):
        with torch.no_grad():
            network.weight.normal_(generator=torch.Generator().manual_seed(update))
        keep = min(0.7, (1 + update) / (10 + update))
        current = network.weight.detach().clone()
        expected = current if expected is None else keep * expected + (1 - keep) * current
        average.update()
        assert torch.allclose(average.module.weight, expected, atol=1e-6)


def test_buffers_are_taken_over_as_they_are() -> None:
    network = nn.BatchNorm1d(3)
    average = WeightAverage(network, decay=0.9)
    network(torch.randn(8, 3))
    average.update()
    assert torch.equal(average.module.running_mean, network.running_mean)
    assert average.module.num_batches_tracked == 1


def test_a_resumed_average_goes_on_alike() -> None:
    network = nn.Linear(2, 1)
    first = WeightAverage(network, decay=0.9)
    first.update()
    second = WeightAverage(nn.Linear(2, 1), decay=0.9)
    second.load_state_dict(first.state_dict())
    second._network = network
    with torch.no_grad():
        network.weight.add_(1)
    first.update()
    second.update()
    assert torch.equal(first.module.weight, second.module.weight)


def test_the_averaged_network_is_its_own_and_needs_no_gradient() -> None:
    network = nn.Linear(2, 1)
    average = WeightAverage(network)
    assert not average.module.training
    assert not any(p.requires_grad for p in average.module.parameters())
    assert all(p.requires_grad for p in network.parameters())
    assert average.module.weight.data_ptr() != network.weight.data_ptr()


def test_decay_must_be_below_one() -> None:
    with pytest.raises(ValueError, match="decay must be at least 0 and below 1"):
        WeightAverage(nn.Linear(1, 1), decay=1.0)
