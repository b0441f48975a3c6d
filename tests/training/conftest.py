"""Small problems that the tests of the training loop share."""

import functools
from dataclasses import dataclass, replace

import pytest
import torch
from torch import nn

from sciseq.nn import Dropout, build_network
from sciseq.training import TrainingOptions, generator_for

N_FEATURES = 3


class Regression:
    """Items (x, y) with y linear in x, plus noise."""

    def __init__(self, n_items, *, stream="data", noise=0.1, dtype=torch.float32):
        generator = generator_for(0, stream)
        self.x = torch.randn(n_items, N_FEATURES, generator=generator).to(dtype)
        error = noise * torch.randn(n_items, 1, generator=generator).to(dtype)
        self.slope = torch.tensor([[1.0], [-2.0], [0.5]], dtype=dtype)
        self.y = self.x @ self.slope + 0.25 + error

    @property
    def n_items(self):
        return len(self.x)

    def gather(self, indices):
        return self.x[indices], self.y[indices]


def squared_error(network, batch):
    x, y = batch
    error = network(x) - y
    return error.square().sum(), torch.tensor(error.numel())


def perceptron(stream="weights"):
    return build_network(
        lambda: nn.Sequential(
            nn.Linear(N_FEATURES, 8), nn.ReLU(), Dropout(0.2), nn.Linear(8, 1)
        ),
        generator_for(0, stream),
    )


def linear():
    return build_network(lambda: nn.Linear(N_FEATURES, 1), generator_for(0, "linear"))


def bits(network):
    return {name: one.clone() for name, one in network.state_dict().items()}


def is_same(first, second):
    return first.keys() == second.keys() and all(
        torch.equal(first[name], second[name]) for name in first
    )


def without_seconds(history):
    return [
        {name: value for name, value in record.items() if name != "seconds"}
        for record in history
    ]


class AtStep:
    """A loss function that acts at chosen training steps, counted from 1."""

    def __init__(self, actions, loss=squared_error):
        self.actions = actions
        self.loss = loss
        self.step = 0

    def __call__(self, network, batch):
        total, count = self.loss(network, batch)
        if network.training:
            self.step += 1
            if self.step in self.actions:
                total = self.actions[self.step](total)
        return total, count


class Scripted:
    """A loss function whose validation losses are given, one per epoch."""

    def __init__(self, losses):
        self.losses = iter(losses)

    def __call__(self, network, batch):
        if network.training:
            return squared_error(network, batch)
        return torch.tensor(next(self.losses)), torch.tensor(1)


@dataclass(frozen=True)
class Toys:
    """What the tests build their runs from."""

    Regression = Regression
    AtStep = AtStep
    Scripted = Scripted
    squared_error = staticmethod(squared_error)
    perceptron = staticmethod(perceptron)
    linear = staticmethod(linear)
    bits = staticmethod(bits)
    is_same = staticmethod(is_same)
    without_seconds = staticmethod(without_seconds)


@pytest.fixture(scope="session")
def toys():
    return Toys()


@pytest.fixture(scope="session")
def make_options():
    standard = TrainingOptions(
        learning_rate=0.02,
        batch_size=8,
        max_epochs=5,
        patience=None,
        schedule=lambda epoch: 0.9 ** (epoch - 1),
        seed=0,
        device=torch.device("cpu"),
    )
    return functools.partial(replace, standard)
