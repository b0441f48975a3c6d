"""Why training ends, and which weights are left then."""

import re

import pytest
import torch

from sciseq.errors import NumericalError, SciSeqWarning
from sciseq.training import train

INF, NAN = float("inf"), float("nan")


@pytest.mark.parametrize(
    ("losses", "patience", "n_epochs", "best_epoch", "stopped"),
    [
        ([5, 4, 3, 2, 1], 1, 5, 5, "max_epochs"),
        ([1, 2, 3, 4, 5], 1, 2, 1, "early_stopping"),
        ([1, 2, 3, 4, 5], 3, 4, 1, "early_stopping"),
        ([1, 2, 3, 4, 5], None, 5, 1, "max_epochs"),
        ([1, 2, 3, 4, 5], 4, 5, 1, "early_stopping"),
        # Better ones start the count again.
        ([3, 4, 2, 3, 4], 2, 5, 3, "early_stopping"),
        ([3, 4, 2, 3, 2], 2, 5, 5, "max_epochs"),
        # Equal is not worse: it starts the count again, and the latest is kept.
        ([1, 1, 1, 1, 1], 1, 5, 5, "max_epochs"),
        ([1, 2, 1, 2, 2], 2, 5, 3, "early_stopping"),
        # Worse than the best counts, even when better than the one before.
        ([1, 5, 4, 3, 2], 3, 4, 1, "early_stopping"),
    ],
)
def test_early_stopping_and_best_weights(
    toys, make_options, losses, patience, n_epochs, best_epoch, stopped
):
    losses = [float(one) for one in losses]
    data, options = toys.Regression(12), make_options(patience=patience)
    network = toys.linear()
    result = train(network, toys.Scripted(losses), data, toys.Regression(2), options)
    assert len(result.history) == n_epochs
    assert (result.best_epoch, result.stopped) == (best_epoch, stopped)
    assert result.best_loss == losses[best_epoch - 1]
    found = [record["validation_loss"] for record in result.history]
    assert found == losses[:n_epochs]

    # Without validation the last weights stay: those of training for best_epoch epochs.
    expected = toys.linear()
    shorter = make_options(max_epochs=best_epoch)
    train(expected, toys.squared_error, data, None, shorter)
    assert toys.is_same(toys.bits(network), toys.bits(expected))


def interrupt(total):
    raise KeyboardInterrupt


def run(toys, options, actions, network, validation=True):
    return train(
        network,
        toys.AtStep(actions),
        toys.Regression(30),  # 4 steps an epoch
        toys.Regression(8, stream="validation") if validation else None,
        options,
    )


def weights_after(toys, make_options, n_epochs):
    network = toys.perceptron()
    run(toys, make_options(max_epochs=n_epochs), {}, network, validation=False)
    return toys.bits(network)


@pytest.mark.parametrize("step", [9, 10, 12])
@pytest.mark.parametrize(
    ("action", "stopped"),
    [
        (interrupt, "interrupted"),
        (lambda total: total * NAN, "non_finite"),
        (lambda total: total + INF, "non_finite"),
    ],
)
def test_bad_20_and_40_keep_the_best_weights(toys, make_options, step, action, stopped):
    network = toys.perceptron()
    with pytest.warns(SciSeqWarning, match="weights so far are kept: epoch 2"):
        result = run(toys, make_options(), {step: action}, network, validation=False)
    assert (result.stopped, result.best_epoch, len(result.history)) == (stopped, 2, 2)
    assert toys.is_same(toys.bits(network), weights_after(toys, make_options, 2))
    assert not network.training


def test_bad_20_names_epoch_step_rate_and_items(toys, make_options):
    data = toys.Regression(30)
    data.y[17] = NAN
    start = toys.perceptron()
    network = toys.perceptron()
    with pytest.raises(NumericalError) as caught:
        train(network, toys.squared_error, data, None, make_options())
    text = str(caught.value)
    found = re.search(r"loss became nan in step (\d) of 4, on items ([\d, ]+) \(", text)
    step, items = int(found[1]), [int(one) for one in found[2].split(", ")]
    assert 17 in items
    assert len(items) in (8, 6)
    assert "epoch 1, learning rate 0.02" in text
    assert "lower learning_rate" in text
    # All later steps are spoilt as well; this is the first of them.
    seen = []
    data.gather = lambda indices: (
        seen.append(indices.tolist())
        or (
            data.x[indices],
            data.y[indices],
        )
    )
    with pytest.raises(NumericalError):
        train(toys.perceptron(), toys.squared_error, data, None, make_options())
    assert seen[step - 1] == items
    assert toys.is_same(toys.bits(network), toys.bits(start))


def test_bad_20_long_batches_name_their_first_items(toys, make_options):
    options = make_options(batch_size=30)
    with pytest.raises(NumericalError, match=r"on items (\d+, ){7}\d+ and 22 more"):
        run(toys, options, {1: lambda total: total * NAN}, toys.perceptron())


def test_bad_20_a_gradient_that_is_not_finite_names_its_own_step(toys, make_options):
    def steep(total):  # adds 0, whose slope is infinite
        return total + (total - total.detach()).sqrt()

    network = toys.perceptron()
    with pytest.warns(SciSeqWarning, match="gradient became (inf|nan) in step 2 of 4"):
        result = run(toys, make_options(), {6: steep}, network)
    assert result.stopped == "non_finite"
    assert all(one.isfinite().all() for one in network.parameters())


def test_bad_20_weights_that_are_not_finite_are_never_kept(toys, make_options):
    # The last step of all breaks the weights: no later loss would show it.
    schedule = {1: 1.0, 2: INF}.__getitem__
    options = make_options(batch_size=30, max_epochs=2, schedule=schedule)
    network = toys.perceptron()
    with pytest.warns(SciSeqWarning, match="weights are no longer finite.*epoch 2"):
        result = run(toys, options, {}, network, validation=False)
    assert (result.stopped, result.best_epoch) == ("non_finite", 1)
    assert all(one.isfinite().all() for one in network.parameters())


def test_bad_20_validation_loss(toys, make_options):
    network = toys.linear()
    loss = toys.Scripted([2.0, NAN])
    with pytest.warns(SciSeqWarning, match="validation loss became nan.*epoch 2"):
        result = train(
            network, loss, toys.Regression(8), toys.Regression(3), make_options()
        )
    assert (result.stopped, result.best_epoch) == ("non_finite", 1)


def test_bad_40_interrupt_in_the_first_epoch_propagates(toys, make_options):
    network = toys.perceptron()
    with pytest.raises(KeyboardInterrupt):
        run(toys, make_options(), {4: interrupt}, network)
    assert toys.is_same(toys.bits(network), toys.bits(toys.perceptron()))
    assert network[2].generator is None


def test_bad_40_second_interrupt_propagates(toys, make_options):
    class Impatient(torch.nn.Linear):
        def load_state_dict(self, *args, **kwargs):
            raise KeyboardInterrupt

    network = Impatient(3, 1)
    with pytest.raises(KeyboardInterrupt):
        run(toys, make_options(), {7: interrupt}, network)
