"""FusedAdam is torch's Adam, with one counter of steps."""

import copy

import pytest
import torch
from torch import nn

from sciseq.training.adam import FusedAdam


def networks():
    torch.manual_seed(0)
    one = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    return one, copy.deepcopy(one)


def groups(network):
    weights = [one for one in network.parameters() if one.ndim > 1]
    offsets = [one for one in network.parameters() if one.ndim == 1]
    return [
        {"params": weights, "weight_decay": 0.1},
        {"params": offsets, "weight_decay": 0.0},
    ]


def take_steps(network, optimizer, n_steps, first=0):
    for number in range(first, first + n_steps):
        x = torch.linspace(-1, 1, 12).reshape(4, 3) + number
        optimizer.zero_grad()
        network(x).square().sum().backward()
        optimizer.step()


@pytest.mark.parametrize("is_decoupled", [False, True])
def test_equals_torch_bit_for_bit(is_decoupled):
    ours, theirs = networks()
    if is_decoupled:
        mine = FusedAdam(groups(ours), lr=0.01, decoupled_weight_decay=True)
        reference = torch.optim.AdamW(groups(theirs), lr=0.01, fused=True)
    else:
        mine = FusedAdam(ours.parameters(), lr=0.01)
        reference = torch.optim.Adam(theirs.parameters(), lr=0.01, fused=True)
    take_steps(ours, mine, 5)
    take_steps(theirs, reference, 5)
    assert all(map(torch.equal, ours.parameters(), theirs.parameters()))
    kept, wanted = mine.state_dict()["state"], reference.state_dict()["state"]
    for index, state in wanted.items():
        for name, value in state.items():
            assert torch.equal(kept[index][name], value), (index, name)


def test_one_counter_that_survives_saving():
    ours, _ = networks()
    mine = FusedAdam(ours.parameters(), lr=0.01)
    take_steps(ours, mine, 2)
    assert len({id(state["step"]) for state in mine.state.values()}) == 1
    again = copy.deepcopy(ours)
    resumed = FusedAdam(again.parameters(), lr=0.01)
    resumed.load_state_dict(copy.deepcopy(mine.state_dict()))
    take_steps(ours, mine, 3, first=2)
    take_steps(again, resumed, 3, first=2)
    assert all(map(torch.equal, ours.parameters(), again.parameters()))
    assert all(state["step"] == 5 for state in resumed.state.values())


def test_no_operation_per_weight():
    def additions(optimizer_of):
        network, _ = networks()
        optimizer = optimizer_of(network.parameters(), lr=0.01)
        take_steps(network, optimizer, 1)
        with torch.profiler.profile(
            activities=[torch.profiler.ProfilerActivity.CPU]
        ) as profiler:
            optimizer.step()
        counts = {one.key: one.count for one in profiler.key_averages()}
        return counts.get("aten::add_", 0)

    assert additions(FusedAdam) <= 1
    # What it saves: torch counts for each of the four tensors.
    assert additions(lambda *a, **k: torch.optim.Adam(*a, fused=True, **k)) >= 4


def test_what_has_no_gradient_stays():
    used, unused = (torch.ones(2, requires_grad=True) for _ in range(2))
    optimizer = FusedAdam([used, unused], lr=0.1)
    used.sum().backward()
    assert optimizer.step(lambda: 3.0) == 3.0
    assert torch.allclose(used, torch.tensor(0.9))
    assert torch.equal(unused, torch.ones(2))
