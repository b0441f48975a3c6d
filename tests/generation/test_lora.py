"""Low-rank adapters, Reptile and domain mixing.

Test T22 of the card, its part about adapters.
"""

import copy

import pytest
import torch
from torch import nn

from sciseq.errors import InputError, NumericalError
from sciseq.generation.parts.adapter_training import hold_out
from sciseq.generation.parts.lora import (
    AdaptedLinear,
    LowRankAdapter,
    insert_adapters,
    merge_adapters,
)
from sciseq.generation.parts.meta_learning import (
    reptile_step,
    sgd_steps,
    train_reptile,
)
from sciseq.nn import build_network, set_dropout_generator
from sciseq.training import TrainingOptions, generator_for, train

RANK = 2


class Net(nn.Module):
    """Two square layers and one that is not."""

    def __init__(self):
        super().__init__()
        self.q_proj = nn.Linear(6, 6)
        self.inner = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.LayerNorm(6))
        self.out = nn.Linear(6, 3, bias=False)

    def forward(self, x):
        return self.out(self.inner(self.q_proj(x)))


def make_net(seed=0):
    return build_network(Net, torch.Generator().manual_seed(seed)).double().eval()


def adapt(net, seed=1, **settings):
    generator = torch.Generator().manual_seed(seed)
    return insert_adapters(net, generator, rank=RANK, alpha=3.0, **settings)


def fill(adapters, seed=2):
    """Give the adapters values that do something, as training would."""
    generator = torch.Generator().manual_seed(seed)
    for one in adapters.parameters():
        nn.init.normal_(one, generator=generator)


def some_rows(n=5, seed=3):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 6, generator=generator, dtype=torch.float64)


# --- Adapters ------------------------------------------------------------------------


def test_at_first_the_network_is_the_base_bit_for_bit():
    net, x = make_net(), some_rows()
    before = net(x)
    adapters = adapt(net)
    assert len(adapters) == 3
    assert torch.equal(net.eval()(x), before)
    assert all(bool(one.A.any()) and not one.B.any() for one in adapters.values())
    # Not so with B drawn as A is.
    fill(adapters)
    assert not torch.allclose(net(x), before)


def test_adapted_layer_is_the_formula():
    layer = nn.Linear(4, 3).double()
    adapter = LowRankAdapter(4, 3, 2, 6.0, 0.0).double()
    fill(adapter)
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(0)).double()
    W = layer.weight + 6.0 / 2 * adapter.B @ adapter.A
    expected = x @ W.T + layer.bias
    torch.testing.assert_close(
        AdaptedLinear(layer, adapter)(x), expected, rtol=0, atol=1e-12
    )


def test_merged_equals_unmerged():
    net, x = make_net(), some_rows()
    fill(adapt(net))
    net.eval()
    expected = net(x)
    base = net.out.base.weight
    shared = base.detach().clone()
    merge_adapters(net)
    torch.testing.assert_close(net(x), expected, rtol=0, atol=1e-12)
    assert not any(isinstance(one, AdaptedLinear) for one in net.modules())
    assert set(net.state_dict()) == set(make_net().state_dict())
    # The old weight itself is as it was: others may share it.
    assert torch.equal(base, shared)
    # Merging with the scale left out is caught.
    wrong = make_net()
    adapters = adapt(wrong)
    fill(adapters)
    for one in adapters.values():
        one.scale = 1.0
    merge_adapters(wrong)
    assert not torch.allclose(wrong(x), expected, atol=1e-3)


def test_only_the_adapters_get_gradients():
    net = make_net()
    adapters = adapt(net)
    fill(adapters)
    net(some_rows()).square().sum().backward()
    with_gradient = {
        name for name, one in net.named_parameters() if one.grad is not None
    }
    assert with_gradient == {
        f"{layer}.adapter.{matrix}"
        for layer in ("q_proj", "inner.0", "out")
        for matrix in "AB"
    }
    assert all(bool(one.grad.any()) for one in adapters.parameters())
    trainable = [one for one in net.parameters() if one.requires_grad]
    assert {id(one) for one in trainable} == {id(one) for one in adapters.parameters()}


def test_at_first_only_the_maps_up_have_a_gradient():
    net = make_net()
    adapters = adapt(net)
    net(some_rows()).square().sum().backward()
    for one in adapters.values():
        assert not one.A.grad.any()
        assert one.B.grad.any()


@pytest.mark.parametrize("rank", [1, 2, 5])
def test_number_of_parameters(rank):
    net = make_net()
    adapters = insert_adapters(net, torch.Generator().manual_seed(0), rank=rank)
    counts = {
        name: sum(one.numel() for one in adapter.parameters())
        for name, adapter in adapters.items()
    }
    assert counts == {
        "/q_proj": 2 * rank * 6,
        "/inner/0": 2 * rank * 6,
        "/out": rank * (6 + 3),
    }


def test_layers_are_chosen_by_name():
    assert list(adapt(make_net(), layers=["q_proj"])) == ["/q_proj"]
    assert set(adapt(make_net(), layers=["inner.0", "out"])) == {"/inner/0", "/out"}
    with pytest.raises(InputError, match=r"'v_proj'.*0, out, q_proj"):
        adapt(make_net(), layers=["q_proj", "v_proj"])
    with pytest.raises(InputError, match="no linear layer"):
        adapt(nn.Sequential(nn.Tanh()))
    with pytest.raises(InputError, match="adapters already"):
        net = make_net()
        adapt(net)
        adapt(net)
    with pytest.raises(InputError, match="rank is 0"):
        insert_adapters(make_net(), torch.Generator(), rank=0)


def test_a_failed_call_leaves_the_network_trainable():
    net = make_net()
    with pytest.raises(InputError):
        adapt(net, layers=["nothing"])
    assert all(one.requires_grad for one in net.parameters())


def test_a_layer_used_twice_has_one_adapter():
    net = make_net()
    net.inner[0] = net.q_proj
    adapters = adapt(net)
    assert list(adapters) == ["/q_proj", "/out"]
    assert net.inner[0] is net.q_proj
    fill(adapters)
    x = some_rows()
    expected = net.eval()(x)
    merge_adapters(net)
    assert net.inner[0] is net.q_proj
    torch.testing.assert_close(net(x), expected, rtol=0, atol=1e-12)


def test_projections_of_torchs_attention_are_left_alone():
    net = nn.ModuleDict(
        {"attention": nn.MultiheadAttention(4, 2), "out": nn.Linear(4, 4)}
    )
    assert list(adapt(net)) == ["/out"]


def test_names_that_a_dict_of_modules_has_itself():
    net = nn.Sequential()
    net.add_module("keys", nn.Linear(2, 2))
    assert list(adapt(net)) == ["/keys"]


def test_draws_come_from_the_generator():
    first, again, other = (adapt(make_net(), seed) for seed in (1, 1, 2))
    for name in first:
        assert torch.equal(first[name].A, again[name].A)
        assert not torch.equal(first[name].A, other[name].A)


def test_dropout_acts_on_the_adapter_alone():
    net, x = make_net(), some_rows()
    adapters = adapt(net, dropout=0.5)
    fill(adapters)
    expected = net.eval()(x)
    adapters.train()
    set_dropout_generator(adapters, torch.Generator().manual_seed(0))
    assert not torch.allclose(net(x), expected)
    assert not net.inner.training
    nn.init.zeros_(adapters["/q_proj"].B)
    adapters["/inner/0"].eval()
    adapters["/out"].eval()
    once = net(x)
    assert torch.equal(once, net(x))


@pytest.mark.slow  # the import of peft takes seconds
def test_agrees_with_peft():
    peft = pytest.importorskip("peft", reason="needs peft")
    net, x = make_net(), some_rows()
    theirs = peft.get_peft_model(
        make_net(),
        peft.LoraConfig(r=RANK, lora_alpha=3, target_modules=["q_proj", "out"]),
    ).double()
    adapters = adapt(net, layers=["q_proj", "out"])
    fill(adapters)
    for name, adapter in adapters.items():
        layer = theirs.base_model.model.get_submodule(name[1:])
        with torch.no_grad():
            layer.lora_A["default"].weight.copy_(adapter.A)
            layer.lora_B["default"].weight.copy_(adapter.B)
    torch.testing.assert_close(net.eval()(x), theirs.eval()(x), rtol=0, atol=1e-12)


# --- Reptile and mixing --------------------------------------------------------------


def squared_error(net, x, y):
    return lambda: (net(x) - y).square().mean()


def losses_of(net, domain, k=3):
    x = some_rows(seed=domain)
    y = torch.full((5, 3), float(domain), dtype=torch.float64)
    return [squared_error(net, x + step, y) for step in range(k)]


def prepared(seed=0):
    net = make_net(seed)
    adapters = adapt(net)
    fill(adapters)
    return net, dict(adapters.named_parameters())


def values_of(parameters):
    return {name: one.detach().clone() for name, one in parameters.items()}


def distance(one, other):
    return max(float((one[name] - other[name]).abs().max()) for name in one)


def test_reptile_with_one_domain_and_full_step_is_plain_fine_tuning():
    plain, reptile = prepared(), prepared()
    sgd_steps(plain[1], losses_of(plain[0], 1), 0.01)
    net, parameters = reptile
    start = values_of(parameters)
    inner = [lambda: sgd_steps(parameters, losses_of(net, 1), 0.01)]
    reptile_step(parameters, inner, 1.0)
    assert distance(values_of(parameters), values_of(plain[1])) < 1e-14
    assert distance(values_of(parameters), start) > 1e-3
    # Half a step, or the wrong sign, is something else.
    other_net, other = prepared()
    reptile_step(other, [lambda: sgd_steps(other, losses_of(other_net, 1), 0.01)], 0.5)
    assert distance(values_of(other), values_of(plain[1])) > 1e-3


def test_reptile_is_the_mean_move_from_one_start():
    start = values_of(prepared()[1])
    ends = []
    for domain in (1, 2, 3):
        net, parameters = prepared()
        sgd_steps(parameters, losses_of(net, domain), 0.01)
        ends.append(values_of(parameters))
    net, parameters = prepared()
    reptile_step(
        parameters,
        [
            lambda domain=domain: sgd_steps(parameters, losses_of(net, domain), 0.01)
            for domain in (1, 2, 3)
        ],
        0.3,
    )
    expected = {
        name: one + 0.3 * (sum(end[name] for end in ends) / 3 - one)
        for name, one in start.items()
    }
    assert distance(values_of(parameters), expected) < 1e-14
    # Without going back to the start, domains would follow each other.
    net, chained = prepared()
    for domain in (1, 2, 3):
        sgd_steps(chained, losses_of(net, domain), 0.01)
    moved = {n: one + 0.3 * (chained[n].detach() - one) for n, one in start.items()}
    assert distance(moved, expected) > 1e-3


def test_sgd_steps_follow_the_gradient_and_skip_what_is_not_used():
    w = torch.tensor([2.0], dtype=torch.float64, requires_grad=True)
    idle = torch.ones(1, requires_grad=True)
    losses = [lambda: 3 * w.square().sum()]
    assert sgd_steps({"w": w, "idle": idle}, losses, 0.1) == [12.0]
    assert w.item() == pytest.approx(2 - 0.1 * 12)
    assert idle.item() == 1


def test_reptile_needs_a_domain():
    with pytest.raises(InputError, match="no domain"):
        reptile_step({}, [], 1.0)


class Points:
    """Rows of y = slope * x."""

    def __init__(self, slope, n_items, seed=0):
        generator = torch.Generator().manual_seed(seed)
        self.x = torch.randn(n_items, 1, generator=generator, dtype=torch.float64)
        self.y = slope * self.x
        self.n_items = n_items

    def gather(self, indices):
        return self.x[indices], self.y[indices]


def line_loss(network, batch):
    x, y = batch
    return (network(x) - y).square().sum(), torch.tensor(len(x))


def options(**changes):
    settings = {
        "learning_rate": 0.05,
        "batch_size": 4,
        "max_epochs": 40,
        "patience": None,
        "schedule": lambda epoch: 1.0,
        "seed": 0,
        "device": torch.device("cpu"),
        "precision": "float64",
    }
    return TrainingOptions(**{**settings, **changes})


def line():
    made = build_network(
        lambda: nn.Linear(1, 1, bias=False), generator_for(0, "weights")
    )
    return made.double()


def test_reptile_weighs_domains_alike_and_mixing_weighs_items():
    # 60 items of slope 1, 4 of slope 3: one line cannot fit both.
    large, small = Points(1.0, 60, seed=1), Points(3.0, 4, seed=2)
    both = Points(1.0, 64, seed=1)
    both.x = torch.cat([large.x, small.x])
    both.y = torch.cat([large.y, small.y])
    mixed, meta = line(), line()
    train(mixed, line_loss, both, None, options())
    result = train_reptile(
        meta, line_loss, [large, small], None, options(), inner_steps=2, step_size=0.5
    )
    assert result.stopped == "max_epochs"
    assert len(result.history) == 40
    assert mixed.weight.item() == pytest.approx(1.1, abs=0.25)
    assert meta.weight.item() == pytest.approx(2.0, abs=0.5)


def test_training_by_reptile_of_one_domain_is_descent_on_its_batches():
    domain = Points(2.0, 12)
    meta, plain = line(), line()
    settings = options(max_epochs=2)
    train_reptile(meta, line_loss, [domain], None, settings, inner_steps=3)
    for epoch in (1, 2):
        generator = generator_for(0, "shuffle", epoch, 0)
        order = torch.randperm(12, generator=generator)
        for indices in order.split(4):
            total, count = line_loss(plain, domain.gather(indices))
            (gradient,) = torch.autograd.grad(total / count, [plain.weight])
            with torch.no_grad():
                plain.weight -= 0.05 * gradient
    assert meta.weight.item() == pytest.approx(plain.weight.item(), abs=1e-14)


def test_reptile_keeps_the_best_epoch_and_stops():
    settings = options(learning_rate=0.01, patience=2, max_epochs=30)
    net = line()
    with torch.no_grad():
        net.weight.fill_(-1.0)
    held = Points(-1.0, 8, seed=4)  # training leads away from what is held out
    result = train_reptile(net, line_loss, [Points(2.0, 8)], held, settings)
    assert (result.stopped, result.best_epoch) == ("early_stopping", 1)
    assert len(result.history) == 3
    assert result.best_loss == result.history[0]["validation_loss"]
    assert not net.training


def test_reptile_names_a_loss_that_is_not_finite():
    net = line()
    before = copy.deepcopy(net.state_dict())
    with pytest.raises(NumericalError, match="training loss became"):
        train_reptile(
            net, line_loss, [Points(1.0, 8)], None, options(learning_rate=1e200)
        )
    assert torch.equal(net.weight, before["weight"])
    with pytest.raises(InputError, match="inner_steps is 0"):
        train_reptile(net, line_loss, [Points(1.0, 8)], None, options(), inner_steps=0)


def test_hold_out_leaves_every_domain_something():
    import numpy as np

    domains = ["a"] * 7 + ["b"] * 2 + ["c"]
    groups, held = hold_out(domains, 0.9, np.random.default_rng(0))
    rows = [row for group in groups for row in group] + held
    assert sorted(rows) == list(range(10))
    assert [len({domains[row] for row in group}) for group in groups] == [1, 1, 1]
    assert {domains[group[0]] for group in groups} == {"a", "b", "c"}
    assert len(held) == 7  # one of each domain stays
    assert hold_out(domains, 0.0, np.random.default_rng(0))[1] == []
    assert len(hold_out(domains, 0.01, np.random.default_rng(0))[1]) == 1
