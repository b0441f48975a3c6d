"""Training by several processes, played by threads: as one process would train."""

import copy
import functools
import threading

import pytest
import torch
from torch import nn

from sciseq.errors import CapabilityError, InputError, SciSeqWarning
from sciseq.training import train
from sciseq.training.distributed import TrainingTask, _check_same
from sciseq.training.team import Team

TIMEOUT = 30.0


class Room:
    """Where the members of a team of threads meet."""

    def __init__(self, size):
        self.size = size
        self.barrier = threading.Barrier(size)
        self.given = [None] * size


class Member(Team):
    def __init__(self, rank, room):
        super().__init__(rank, room.size)
        self.room = room

    def gather(self, value):
        self.room.given[self.rank] = value
        self.room.barrier.wait(TIMEOUT)
        values = copy.deepcopy(self.room.given)
        self.room.barrier.wait(TIMEOUT)
        return values

    def sum(self, tensor):
        return functools.reduce(torch.add, self.gather(tensor.clone()))


class MeanOfMeans(Member):
    """Wrong: averages the gradients of the shares' own means."""

    def add_up(self, parameters, total, count):
        for one in parameters:
            if one.grad is not None:
                one.grad.div_(max(count, 1)).div_(self.size)
        whole, n = super().add_up(parameters, total, count)
        for one in parameters:
            one.grad.mul_(n)  # what the caller divides by
        return whole, n


def in_team(size, work, member=Member):
    """Run ``work(team)`` in threads; return the results, or raise an error."""
    room, results, errors = Room(size), [None] * size, []

    def run(rank):
        try:
            results[rank] = work(member(rank, room))
        except BaseException as error:
            errors.append(error)
            room.barrier.abort()

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    if errors:
        raise errors[0]
    return results


@pytest.fixture
def fit(toys, make_options):
    """Train the small perceptron, with dropout, on 29 items in batches of 8."""

    def run(team=None, *, loss=None, n_items=29, network=None, **changes):
        network = toys.perceptron().double() if network is None else network
        result = train(
            network,
            toys.squared_error if loss is None else loss,
            toys.Regression(n_items, dtype=torch.float64),
            toys.Regression(9, stream="validation", dtype=torch.float64),
            make_options(team=team, precision="float64", **changes),
        )
        return toys.bits(network), toys.without_seconds(result.history), result

    return run


def assert_close_runs(found, wanted):
    assert found[2].stopped == wanted[2].stopped
    assert found[2].best_epoch == wanted[2].best_epoch
    assert len(found[1]) == len(wanted[1])
    for one, other in zip(found[1], wanted[1], strict=True):
        assert one == pytest.approx(other, rel=1e-12)
    for name, weights in wanted[0].items():
        torch.testing.assert_close(found[0][name], weights, rtol=1e-10, atol=1e-12)


def is_close_run(found, wanted):
    try:
        assert_close_runs(found, wanted)
    except AssertionError:
        return False
    return True


@pytest.mark.parametrize("size", [2, 3])
def test_a_team_trains_as_one_process(fit, size):
    # The last batch has 5 items; the dropout masks are those of one process.
    whole = fit(weight_decay=0.1, gradient_clip=0.5)
    for one in in_team(
        size, lambda team: fit(team, weight_decay=0.1, gradient_clip=0.5)
    ):
        assert_close_runs(one, whole)
        assert one[2].part_size == -(-8 // size)


def test_all_members_have_the_same_bits(fit, toys):
    first, second = in_team(2, fit)
    assert toys.is_same(first[0], second[0])
    assert first[1] == second[1]


def test_fewer_items_than_processes(fit):
    whole = fit(n_items=9)  # a last batch of one item, and one of validation
    for one in in_team(3, lambda team: fit(team, n_items=9)):
        assert_close_runs(one, whole)


def test_a_mean_of_means_is_told_apart(fit):
    whole = fit()
    assert is_close_run(in_team(2, fit)[0], whole)
    assert not is_close_run(in_team(2, fit, MeanOfMeans)[0], whole)
    # Shares of one size hide the difference: the uneven ones are what tells it.
    assert is_close_run(
        in_team(2, lambda team: fit(team, n_items=24), MeanOfMeans)[0], fit(n_items=24)
    )


def test_masked_values_count_what_they_should(fit, toys):
    def some(network, batch):
        x, y = batch
        known = x[:, 0] > 0.3  # unequal numbers in the shares, at times none
        error = (network(x) - y)[known]
        return error.square().sum(), known.sum()

    whole = fit(loss=some, batch_size=3)
    for one in in_team(2, lambda team: fit(team, loss=some, batch_size=3)):
        assert_close_runs(one, whole)


def test_the_rows_of_a_share_are_needed_for_its_dropout(fit, monkeypatch):
    from sciseq.training.epochs import Epochs

    whole = fit()
    monkeypatch.setattr(Epochs, "_dropout_stream", lambda self, q: ("dropout", q, 1))
    assert not is_close_run(in_team(2, fit)[0], whole)


def test_early_stopping_and_memory_limit(fit):
    settings = {"patience": 2, "learning_rate": 0.4, "max_epochs": 30}
    settings["schedule"] = lambda epoch: 1.0
    whole = fit(**settings)
    assert whole[2].stopped == "early_stopping"
    for one in in_team(2, lambda team: fit(team, memory_limit=100_000, **settings)):
        assert_close_runs(one, whole)
        assert one[2].estimated_memory < 100_000


def test_a_network_half_of_which_waits(fit, toys):
    """What has no gradient in a step stays as it is, in one process as in several."""

    class Halves(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = toys.linear(), toys.linear()

        def forward(self, x):
            return self.first(x)

    def run(team=None):
        return fit(team, network=Halves().double(), weight_decay=0.1, n_items=9)

    whole = run()
    assert torch.equal(whole[0]["second.weight"], Halves().double().second.weight)
    for one in in_team(3, run):
        assert_close_runs(one, whole)


def test_what_is_not_finite_in_one_share_ends_all_alike(fit, toys):
    def run(team=None):
        has_it = team is None or team.rank == 1
        spoil = {9: lambda total: total * float("nan")} if has_it else {}
        return fit(team, loss=toys.AtStep(spoil))

    with pytest.warns(SciSeqWarning, match="training loss became nan in step 1 of 4"):
        whole, results = run(), in_team(2, run)
    assert whole[2].stopped == "non_finite"
    assert len(whole[1]) == 2
    for one in results:
        assert_close_runs(one, whole)


def test_one_that_wants_to_stop_stops_all_in_the_same_step(fit, toys):
    def work(team):
        def wish(total):
            team.wants_to_stop = True
            return total

        # In the third epoch: two whole ones are kept.
        return fit(team, loss=toys.AtStep({10: wish} if team.rank == 1 else {}))

    with pytest.warns(SciSeqWarning, match="interrupted in epoch 3"):
        first, second = in_team(2, work)
    assert first[2].stopped == second[2].stopped == "interrupted"
    assert len(first[1]) == len(second[1]) == 2
    assert toys.is_same(first[0], second[0])
    assert toys.is_same(first[0], in_team(2, lambda one: fit(one, max_epochs=2))[0][0])


def test_the_first_one_writes_and_all_resume(fit, toys, tmp_path, monkeypatch):
    from sciseq.training import loop

    stores = []

    class Store(loop.CheckpointStore):
        def __init__(self, *args):
            stores.append(args)
            super().__init__(*args)

    monkeypatch.setattr(loop, "CheckpointStore", Store)
    whole = in_team(2, fit)
    in_team(2, lambda team: fit(team, max_epochs=2, checkpoint_dir=tmp_path))
    assert len(stores) == 1
    resumed = in_team(2, lambda team: fit(team, checkpoint_dir=tmp_path))
    for one, other in zip(resumed, whole, strict=True):
        assert toys.is_same(one[0], other[0])
        assert one[1] == other[1]


def test_a_batch_norm_needs_the_whole_batch(fit):
    network = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 1)).double()
    with pytest.raises(CapabilityError, match="cannot be trained by several"):
        in_team(2, lambda team: fit(team, network=network))


@pytest.mark.parametrize("n_items", [0, 1, 2, 5, 9])
def test_shares_follow_each_other(n_items):
    shares = [Member(rank, Room(4)).share(n_items) for rank in range(4)]
    indices = torch.arange(n_items)
    assert torch.equal(torch.cat([indices[one] for one in shares]), indices)
    sizes = [one.stop - one.start for one in shares]
    assert max(sizes) - min(sizes) <= 1
    assert max(sizes) == Member(0, Room(4)).largest_share(n_items)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({}, None),
        ({"seed": 1}, "seed"),
        ({"batch_size": 9}, "batch_size"),
        ({"network": "other"}, "initial weights"),
        ({"n_items": 7}, "number of training items"),
    ],
)
def test_processes_that_train_something_else_are_refused(
    toys, make_options, changes, named
):
    def work(team):
        own = dict(changes) if team.rank else {}
        network = toys.perceptron(own.pop("network", "weights"))
        items = toys.Regression(own.pop("n_items", 8))
        task = TrainingTask(network, None, None, make_options(**own), 2, 1, 1.0)
        _check_same(team, task, items)

    if named is None:
        in_team(2, work)
        return
    with pytest.raises(InputError, match=f"the 2 processes .* differ in {named}"):
        in_team(2, work)
