"""A compiled network trains the same, and one that cannot be compiled does too."""

import copy
import pickle
import warnings

import pytest
import torch
from torch import nn

from sciseq.errors import SciSeqWarning
from sciseq.training import compilation, loop, train
from sciseq.training.compilation import is_compiled, run_compiled, set_compiled
from sciseq.training.memory_plan import MemoryPlan


@pytest.fixture
def backend(monkeypatch):
    """Compile with what the test wants instead of the real compiler."""

    def choose(function):
        monkeypatch.setattr(compilation, "BACKEND", function)

    yield choose
    torch.compiler.reset()


def fails(graph, examples):
    raise RuntimeError("no compiler here\nand a long trace")


def counting(calls):
    def compiled(graph, examples):
        def run(*inputs):
            calls.append(len(inputs))
            return graph(*inputs)

        return run

    return compiled


def run(toys, options, network=None):
    network = network or toys.perceptron()
    validation = toys.Regression(11, stream="validation")
    data, loss = toys.Regression(30), toys.squared_error
    result = train(network, loss, data, validation, options)
    return toys.bits(network), toys.without_seconds(result.history)


def test_a_compiled_network_is_called_and_keeps_its_names(toys, make_options, backend):
    calls = []
    backend(counting(calls))
    weights, history = run(toys, make_options(max_epochs=2))
    assert not calls
    network = toys.perceptron()
    found, compiled_history = run(
        toys, make_options(max_epochs=2, compile=True), network
    )
    assert len(calls) > 4
    assert is_compiled(network)
    assert toys.is_same(found, weights)  # this backend computes as before
    assert compiled_history == history
    for other in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        assert not is_compiled(other)
        assert toys.is_same(toys.bits(other), weights)
    set_compiled(network, False)
    assert not is_compiled(network)


def test_without_a_compiler_training_goes_on_as_before(toys, make_options, backend):
    weights, history = run(toys, make_options(max_epochs=2))
    backend(fails)
    network = toys.perceptron()
    with pytest.warns(SciSeqWarning, match="no compiler here") as caught:
        found, same = run(toys, make_options(max_epochs=2, compile=True), network)
    assert len(caught) == 1
    assert "and a long trace" not in str(caught[0].message)
    # The masks of the first attempt are drawn again.
    assert toys.is_same(found, weights)
    assert same == history
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        set_compiled(network, True)  # who failed is not tried again
    assert not is_compiled(network)


@pytest.mark.slow
def test_masks_that_are_not_drawn_again_would_be_noticed(toys, make_options, backend):
    def forgetful(network, work, rewind):
        return run_compiled(network, work)

    def fails_late(graph, examples):
        torch.rand(1, generator=generators[-1])
        raise RuntimeError("no compiler here")

    generators = []
    epochs = "sciseq.training.epochs"
    weights, _ = run(toys, make_options(max_epochs=1))
    for attempt, is_same in ((run_compiled, True), (forgetful, False)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                f"{epochs}.run_compiled",
                lambda network, work, rewind=None, attempt=attempt: (
                    attempt(network, work, rewind) if rewind else work()
                ),
            )
            patch.setattr(
                f"{epochs}.set_dropout_generator",
                lambda network, one: _note(network, one, generators),
            )
            backend(fails_late)
            with pytest.warns(SciSeqWarning):
                found, _ = run(toys, make_options(max_epochs=1, compile=True))
        assert toys.is_same(found, weights) == is_same


def _note(network, generator, generators):
    if generator is not None:
        generators.append(generator)
    for module in network.modules():
        if hasattr(module, "generator"):
            module.generator = generator


def test_errors_of_the_network_itself_come_through(toys, make_options, backend):
    backend("eager")

    class Broken(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(3, 1))

        def forward(self, x):
            raise ValueError("broken anyway")

    with pytest.raises(ValueError, match="broken anyway"):
        run(toys, make_options(compile=True), Broken())


def test_an_installation_that_cannot_compile(toys, make_options, monkeypatch):
    def refuse(self, **options):
        raise RuntimeError("torch.compile is not supported here")

    monkeypatch.setattr(nn.Module, "compile", refuse)
    weights, _ = run(toys, make_options(max_epochs=1))
    with pytest.warns(SciSeqWarning, match="not supported here"):
        found, _ = run(toys, make_options(max_epochs=1, compile=True))
    assert toys.is_same(found, weights)


def test_layers_computed_twice_are_not_compiled(toys, make_options, monkeypatch):
    monkeypatch.setattr(loop, "_plan", lambda epochs, reporter: MemoryPlan(8, True))
    network = toys.perceptron()
    with pytest.warns(SciSeqWarning, match="computed twice, which are not compiled"):
        run(toys, make_options(max_epochs=1, compile=True), network)
    assert not is_compiled(network)


@pytest.mark.slow
def test_parts_of_a_batch_compile(toys, make_options, monkeypatch, backend):
    def plan(epochs, reporter):
        epochs.part_size = 3
        return MemoryPlan(3)

    calls = []
    backend(counting(calls))
    weights, history = run(toys, make_options(max_epochs=1))
    monkeypatch.setattr(loop, "_plan", plan)
    found, same = run(toys, make_options(max_epochs=1, compile=True))
    assert calls
    assert same[0]["train_loss"] == pytest.approx(history[0]["train_loss"], rel=1e-5)
    for name, one in weights.items():
        torch.testing.assert_close(found[name], one, rtol=1e-4, atol=1e-6)
