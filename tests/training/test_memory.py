"""Steps within a limit of memory: measured as they are, and with the same gradients."""

import itertools
import warnings

import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from sciseq.errors import CapabilityError, InputError
from sciseq.nn import Dropout, TransformerEncoder, build_network, set_dropout_generator
from sciseq.training import generator_for, loop, train
from sciseq.training.allocations import AllocationMeter, LimitReached, bytes_of
from sciseq.training.memory_plan import MemoryPlan, StepMemory, plan_memory
from sciseq.training.memory_size import MemorySize, parse_bytes
from sciseq.training.recomputation import recomputed_layers

CPU = torch.device("cpu")


# Amounts


@pytest.mark.parametrize(
    ("text", "n_bytes"),
    [
        ("4GB", 4_000_000_000),
        ("4 gib", 2**32),
        ("1.5MB", 1_500_000),
        (" 12B ", 12),
        ("3kB", 3000),
        ("2KiB", 2048),
        ("1TB", 10**12),
        (17, 17),
    ],
)
def test_amounts_of_memory(text, n_bytes):
    assert parse_bytes(text) == n_bytes
    assert MemorySize().allows(text)


@pytest.mark.parametrize("text", ["4", "GB", "4 XB", "-4GB", "4e3MB", True, 4.0, None])
def test_what_is_no_amount_of_memory(text):
    with pytest.raises(InputError, match="is no amount of memory"):
        parse_bytes(text)
    assert not MemorySize().allows(text)


def test_nothing_is_no_limit():
    assert not MemorySize().allows(0)
    assert not MemorySize().allows("0.5B")


# Measuring


class Stack(nn.Module):
    """Transformer layers on items of 5 tokens, 12 wide, and a mean."""

    def __init__(self, dropout=0.1):
        super().__init__()
        self.encoder = TransformerEncoder(2, 12, n_heads=2, d_ff=24, dropout=dropout)
        self.head = nn.Linear(12, 1)
        self.dropout = Dropout(dropout)

    def forward(self, x):
        return self.head(self.dropout(self.encoder(x))).mean(1)


class Tokens:
    def __init__(self, n_items, *, stream="tokens"):
        generator = generator_for(0, stream)
        self.x = torch.randn(n_items, 5, 12, generator=generator).double()
        self.y = self.x.mean((1, 2))[:, None].exp()
        # A third of the truths is unknown, in bunches.
        self.y[(torch.arange(n_items) // 4) % 3 == 1] = torch.nan

    @property
    def n_items(self):
        return len(self.x)

    def gather(self, indices):
        return self.x[indices], self.y[indices]


def known_squared_error(network, batch):
    x, y = batch
    is_known = ~y.isnan()
    error = (network(x) - y.nan_to_num()) * is_known
    return error.square().sum(), is_known.sum()


def stack(dropout=0.1):
    return build_network(lambda: Stack(dropout), generator_for(0, "stack")).double()


def peak_of_profiler(work):
    """Largest sum of what torch's allocator gave and took back."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        work()
    events = recorded.profiler.kineto_results.events()
    steps = [
        (one.start_ns(), one.nbytes()) for one in events if one.name() == "[memory]"
    ]
    return max(itertools.accumulate(n_bytes for _, n_bytes in sorted(steps)))


def test_the_meter_agrees_with_the_allocator_to_the_byte():
    network, data = stack(), Tokens(9)

    def work():
        set_dropout_generator(network, generator_for(0, "dropout"))
        total, _ = known_squared_error(network, data.gather(torch.arange(9)))
        total.backward()

    work()
    with AllocationMeter(CPU) as meter:
        work()
    assert meter.peak == peak_of_profiler(work) > 0
    assert meter.live == 0


def test_the_meter_breaks_off_work_that_takes_too_much():
    x = torch.ones(1000)
    with AllocationMeter(CPU, limit=8000) as meter:
        y = (x + 1) * 2
    assert meter.peak == 8000
    with pytest.raises(LimitReached), AllocationMeter(CPU, limit=7999):
        y = (x + 1) * 2
    del y


def test_a_measured_step_leaves_no_trace(toys):
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    before = toys.bits(network)
    data = toys.Regression(8)

    def add_gradients(indices):
        toys.squared_error(network, data.gather(indices))[0].backward()

    step = StepMemory(network, add_gradients, 100, CPU, limit=10**6)
    assert step.fits(4)
    assert step.measured[4] > 100
    assert toys.is_same(toys.bits(network), before)
    assert all(one.grad is None for one in network.parameters())
    add_gradients(torch.arange(4))
    assert not toys.is_same(toys.bits(network), before)  # the batch norm remembers


def test_the_estimate_holds_what_training_takes(make_options):
    """All allocations of a run, with what was there before, stay below the estimate."""
    data, network = Tokens(64), stack()
    options = make_options(
        batch_size=32, max_epochs=2, precision="float64", memory_limit=10**9
    )
    there = bytes_of(vars(data), network.state_dict())
    result = train(network, known_squared_error, data, data, options)
    network = stack()
    with AllocationMeter(CPU) as meter:
        train(
            network,
            known_squared_error,
            data,
            data,
            make_options(batch_size=32, max_epochs=2, precision="float64"),
        )
    assert there + meter.peak <= result.estimated_memory < 1.1 * (there + meter.peak)


# Planning


class Simulated(StepMemory):
    """A step whose memory follows a formula; it notes what was done."""

    def __init__(self, network, bytes_of_step, limit, resident=0):
        super().__init__(network, lambda indices: None, resident, CPU, limit)
        self.bytes_of_step = bytes_of_step
        self.broken_off = []

    def recomputing(self):
        twice = Simulated(
            self.network, self.bytes_of_step // 10, self.limit, self.resident
        )
        twice.broken_off = self.broken_off
        return twice

    def needed(self, n_items):
        return n_items * self.bytes_of_step

    def _measure(self, n_items):
        if self.resident + self.needed(n_items) > self.limit:
            self.broken_off.append(n_items)
            raise LimitReached
        return self.needed(n_items)


@pytest.mark.parametrize(
    ("limit", "part_size", "recomputes", "n_broken_off"),
    [
        (3200, 32, False, 0),
        (3199, 16, False, 0),
        (1600, 16, False, 0),
        (1199, 11, False, 0),  # three parts of 11, 11 and 10, not of 11 and a rest
        (1000, 8, False, 0),  # four parts of 8, though 10 would fit
        (199, 1, False, 1),
        (100, 1, False, 1),
        (99, 8, True, 1),
        (10, 1, True, 2),
    ],
)
def test_the_fewest_parts_that_fit(limit, part_size, recomputes, n_broken_off):
    step = Simulated(stack(), 100, limit)
    plan = plan_memory(step, 32)
    assert (plan.part_size, plan.recomputes_layers) == (part_size, recomputes)
    assert plan.n_bytes == part_size * (10 if recomputes else 100)
    assert len(step.broken_off) == n_broken_off  # too much is foreseen where it can be


@pytest.mark.parametrize("limit", [10_000, 3200, 2800, 2799, 1999, 300, 250])
def test_a_step_that_grows_faster_later_on_is_found_out(limit):
    class Bent(Simulated):
        def needed(self, n_items):
            return max(100 * n_items, 300 * n_items - 2000)

    step = Bent(stack(), 100, limit)
    plan = plan_memory(step, 32)
    sizes = [size for size in (32, 16, 11, 8, 7, 6, 5, 4, 3, 2, 1)]
    largest = next(size for size in sizes if step.needed(size) <= limit)
    assert (plan.part_size, plan.n_bytes) == (largest, step.needed(largest))


def test_a_batch_norm_forbids_parts_but_not_recomputation():
    network = nn.ModuleDict({"layers": nn.ModuleList([nn.Linear(2, 2)])})
    network["norm"] = nn.BatchNorm1d(2)
    for limit, expected in ((800, (False, 800)), (799, (True, 80))):
        plan = plan_memory(Simulated(network, 100, limit), 8)
        assert plan == MemoryPlan(8, *expected)
    with pytest.raises(InputError, match="batch norm") as caught:
        plan_memory(Simulated(network, 100, 79), 8)
    assert "batch_size or d_model" in str(caught.value)


def test_too_small_a_limit_names_the_knobs():
    with pytest.raises(InputError) as caught:
        plan_memory(Simulated(stack(), 100, limit=65, resident=60), 32)
    for words in ("memory_limit is 65 B", "take 60 B", "single item", "d_model"):
        assert words in str(caught.value)
    with pytest.raises(InputError, match="60 B before the first step"):
        plan_memory(Simulated(stack(), 100, limit=59, resident=60), 32)


# The same training


def history_of(make_options, plan=None, *, dropout=0.1, loss=known_squared_error):
    network = stack(dropout)
    options = make_options(
        batch_size=12, max_epochs=2, precision="float64", gradient_clip=0.1
    )
    validation = Tokens(17, stream="validation")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "_plan", lambda epochs, reporter: _follow(epochs, plan))
        result = train(network, loss, Tokens(41), validation, options)
    losses = [[one["train_loss"], one["validation_loss"]] for one in result.history]
    return torch.tensor(losses), torch.cat([p.flatten() for p in network.parameters()])


def _follow(epochs, plan):
    plan = plan or MemoryPlan(12)
    epochs.part_size = plan.part_size
    return plan


@pytest.mark.parametrize("part_size", [3, 7])
@pytest.mark.parametrize("recomputes", [False, True])
def test_parts_give_the_training_of_the_whole(make_options, part_size, recomputes):
    losses, weights = history_of(make_options)
    plan = MemoryPlan(part_size, recomputes)
    in_parts, same_weights = history_of(make_options, plan)
    torch.testing.assert_close(in_parts, losses, rtol=1e-12, atol=0)
    # Adam blows up the rounding of gradients that are next to nothing.
    torch.testing.assert_close(same_weights, weights, rtol=1e-8, atol=1e-12)


def test_recomputed_layers_give_the_same_bits(make_options):
    losses, weights = history_of(make_options)
    again, same_weights = history_of(make_options, MemoryPlan(12, True))
    assert torch.equal(again, losses)
    assert torch.equal(same_weights, weights)


def mean_of_means(network, batch):
    """Wrong in parts: each part gets the same weight, whatever is known in it."""
    total, count = known_squared_error(network, batch)
    return total / count.where(count > 0, 1), torch.tensor(1.0)


def test_means_of_parts_would_be_noticed(make_options):
    right, _ = history_of(make_options, loss=mean_of_means)
    wrong, _ = history_of(make_options, MemoryPlan(5), loss=mean_of_means)
    assert not torch.allclose(right[:, 0], wrong[:, 0], rtol=1e-3)


def test_masks_drawn_anew_would_be_noticed(make_options, monkeypatch):
    right, _ = history_of(make_options)
    monkeypatch.setattr("sciseq.training.epochs.DropoutRows.part", _nothing)
    wrong, _ = history_of(make_options, MemoryPlan(5))
    assert not torch.allclose(right[:, 0], wrong[:, 0], rtol=1e-4)
    without, _ = history_of(make_options, dropout=0.0)
    in_parts, _ = history_of(make_options, MemoryPlan(5), dropout=0.0)
    torch.testing.assert_close(in_parts, without, rtol=1e-12, atol=0)


class _nothing:  # noqa: N801 (stands in for a context manager function)
    def __init__(self, *args, **kwargs):
        pass

    def __enter__(self):
        pass

    def __exit__(self, *exception):
        pass


def test_a_limit_on_real_training(make_options, capsys):
    """End to end: the run says what it does, stays below the limit, and is the same."""
    data = Tokens(48)
    runs = {}
    for limit in (None, 10**8, 250_000):
        options = make_options(
            batch_size=24,
            max_epochs=1,
            precision="float64",
            memory_limit=limit,
            verbose=1,
        )
        network = stack()
        with AllocationMeter(CPU) as meter:
            result = train(network, known_squared_error, data, data, options)
        used = meter.peak + bytes_of(vars(data), network.state_dict())
        runs[limit] = (result, used, capsys.readouterr().err)
    whole, *_ = runs[None]
    assert (whole.part_size, whole.estimated_memory) == (24, None)
    enough, used, said = runs[10**8]
    assert enough.part_size == 24
    assert "of 100 MB; steps of 24 items at once\n" in said
    assert used <= enough.estimated_memory
    little, used, said = runs[250_000]
    assert little.estimated_memory <= 250_000 < enough.estimated_memory
    assert used <= 1.02 * little.estimated_memory  # the meter counts every scalar
    assert 1 <= little.part_size < 24
    assert f"in parts of {little.part_size}" in said
    for result in (enough, little):
        for one, other in zip(result.history, whole.history, strict=True):
            assert one["train_loss"] == pytest.approx(other["train_loss"], rel=1e-12)
            expected = other["validation_loss"]
            assert one["validation_loss"] == pytest.approx(expected, rel=1e-12)


def test_an_impossible_limit_leaves_the_network_as_it_was(toys, make_options):
    network = stack()
    before = toys.bits(network)
    options = make_options(precision="float64", memory_limit=1000)
    with pytest.raises(InputError, match="memory_limit is 1 kB"):
        train(network, known_squared_error, Tokens(9), None, options)
    assert toys.is_same(toys.bits(network), before)
    assert not network.training


# Out of memory


def test_running_out_of_memory_names_the_knobs(toys, make_options):
    def greedy(total):
        return total + torch.empty(2**56).sum()

    loss = toys.AtStep({2: greedy})
    with pytest.raises(CapabilityError) as caught:
        train(toys.perceptron(), loss, toys.Regression(30), None, make_options())
    assert isinstance(caught.value.__cause__, RuntimeError)
    for words in ("device cpu", "batch_size", "d_model", "memory_limit='4GB'"):
        assert words in str(caught.value)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), CapabilityError),
        (torch.OutOfMemoryError("CUDA out of memory."), CapabilityError),
        (RuntimeError("MPS backend out of memory"), CapabilityError),
        (RuntimeError("shapes do not fit"), RuntimeError),
    ],
)
def test_which_errors_say_that_memory_ran_out(toys, make_options, error, expected):
    def fail(total):
        raise error

    loss = toys.AtStep({1: fail})
    with pytest.raises(expected) as caught:
        train(toys.perceptron(), loss, toys.Regression(9), None, make_options())
    assert (caught.value is error) == (expected is RuntimeError)


# Recomputation


class Growing(nn.Module):
    """Layers that read a list which the network goes on filling, as mixers do."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(Sum() for _ in range(3))

    def forward(self, x):
        outputs = [x]
        for layer in self.layers:
            outputs.append(layer(outputs))
        return outputs[-1]


class Sum(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def forward(self, outputs):
        return torch.stack(outputs[-2:]).sum(0).tanh() @ self.linear.weight.exp()


def test_recomputation_reads_lists_as_they_were(toys):
    network = build_network(Growing, generator_for(0, "growing")).double()
    x = torch.randn(4, 3, generator=generator_for(0, "x"), dtype=torch.float64)

    def gradients():
        network.zero_grad()
        network(x).square().sum().backward()
        return [
            one.grad.clone() for one in network.parameters() if one.grad is not None
        ]

    expected = gradients()
    with recomputed_layers(network), warnings.catch_warnings():
        warnings.simplefilter("error")
        found = gradients()
    assert len(found) == 3
    assert all(
        torch.equal(one, other) for one, other in zip(found, expected, strict=True)
    )
    assert "forward" not in vars(network.layers[0])


def test_recomputation_keeps_less():
    network, data = stack(), Tokens(20)
    peaks = []
    for recomputes in (False, True):
        plan = recomputed_layers(network) if recomputes else warnings.catch_warnings()
        set_dropout_generator(network, generator_for(0, "dropout"))
        with plan, AllocationMeter(CPU) as meter:
            known_squared_error(network, data.gather(torch.arange(20)))[0].backward()
        peaks.append(meter.peak)
    assert peaks[1] < 0.6 * peaks[0]
