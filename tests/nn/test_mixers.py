"""Selective mixers: equal to the Mamba block and to loops; orders, grids, averages."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sciseq.errors import InputError
from sciseq.nn import (
    BidirectionalMixer,
    CausalConvolution,
    GridConvolution,
    MambaBlock,
    MixerStack,
    ScanOrder,
    SelectiveChannelMixer,
    SelectiveSSM,
    SelectiveTokenMixer,
    WeightedAverage,
    build_network,
    cross_scan,
    no_weight_decay_names,
)
from sciseq.nn import mixers as mixers_module


def build(factory, seed=0):
    network = build_network(factory, torch.Generator().manual_seed(seed))
    return network.double().eval()


def normal(*shape, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


# Token mixer


def mamba_block_of(mixer):
    """The Mamba block with the weights of a causal mixer of one order."""
    d_model, n_channels = mixer.in_proj.in_features, mixer.in_proj.out_features // 2
    block = MambaBlock(
        d_model,
        d_state=mixer.ssms[0].A_log.shape[1],
        d_conv=mixer.convolution.weight.shape[-1],
        expand=n_channels // d_model,
    ).double()
    names = {
        name.replace("convolution", "conv1d").replace("ssms.0.", ""): tensor
        for name, tensor in mixer.state_dict().items()
    }
    block.load_state_dict(names)
    return block


@pytest.mark.parametrize(("d_model", "n", "e", "k"), [(5, 3, 2, 4), (20, 2, 1, 2)])
def test_causal_mixer_of_one_order_is_the_mamba_block(d_model, n, e, k):
    mixer = build(
        lambda: SelectiveTokenMixer(
            d_model, n, e, convolution=partial(CausalConvolution, width=k)
        )
    )
    u = normal(2, 7, d_model)
    torch.testing.assert_close(mixer(u), mamba_block_of(mixer)(u), rtol=1e-12, atol=0)
    # Without the gate it would be another block.
    x, gate = mixer.in_proj(u).chunk(2, -1)
    x = mixer.convolution(x)
    y = mixer.ssms[0](x, torch.full_like(x, 40.0)) / 40  # SiLU(40) = 40
    assert not torch.allclose(mixer.out_proj(y), mixer(u), atol=1e-6)
    torch.testing.assert_close(mixer.out_proj(y * F.silu(gate)), mixer(u))


@pytest.mark.parametrize("n_steps", [1, 6])
def test_gradients_of_the_other_form_equal_finite_differences(n_steps):
    mixer = build(
        lambda: SelectiveTokenMixer(
            3, 2, 1, orders=(ScanOrder(is_reversed=True),), select_from="input"
        )
    )
    names = [name for name, _ in mixer.named_parameters()]
    values = [p.detach().requires_grad_() for p in mixer.parameters()]

    def run(u, *parameters):
        named = dict(zip(names, parameters, strict=True))
        return torch.func.functional_call(mixer, named, (u,))

    u = normal(1, n_steps, 3).requires_grad_()
    assert torch.autograd.gradcheck(run, (u, *values), atol=1e-6)


def grid_mixer(select_from="convolution"):
    return build(
        lambda: SelectiveTokenMixer(
            3,
            2,
            1,
            convolution=partial(GridConvolution, n_rows=3),
            orders=cross_scan(3),
            select_from=select_from,
        )
    )


def walks(n_rows, n_columns):
    """The cells of a grid as the four scans visit them, written out by loops."""
    rows = [(i, j) for i in range(n_rows) for j in range(n_columns)]
    columns = [(i, j) for j in range(n_columns) for i in range(n_rows)]
    return [rows, rows[::-1], columns, columns[::-1]]


def grid_by_loops(mixer, u, orders, selects_from_input, n_rows=3, n_columns=4):
    """The equations of the mixer with a 3 x 3 convolution, cell by cell."""
    x, z = mixer.in_proj(u).chunk(2, -1)
    weight, bias = mixer.convolution.weight[:, 0], mixer.convolution.bias
    convolved, y = torch.zeros_like(x), torch.zeros_like(x)
    for i, j in orders[0]:
        total = bias.clone()
        for di, dj in [(a, b) for a in (-1, 0, 1) for b in (-1, 0, 1)]:
            if 0 <= i + di < n_rows and 0 <= j + dj < n_columns:
                place = (i + di) * n_columns + j + dj
                total += weight[:, di + 1, dj + 1] * x[place]
        convolved[i * n_columns + j] = F.silu(total)
    source = u if selects_from_input else convolved
    for walk, ssm in zip(orders, mixer.ssms, strict=True):
        n = ssm.A_log.shape[1]
        h = torch.zeros(x.shape[1], n, dtype=x.dtype)
        for i, j in walk:
            place = i * n_columns + j
            d, B, C = (ssm.x_proj.weight @ source[place]).split([1, n, n])
            dt = torch.log1p((ssm.dt_proj.weight @ d + ssm.dt_proj.bias).exp())
            decay = (-dt[:, None] * ssm.A_log.exp()).exp()
            h = decay * h + (dt * convolved[place])[:, None] * B
            y[place] += h @ C + ssm.D * convolved[place]
    return mixer.out_proj(y * F.silu(z))


@pytest.mark.parametrize("select_from", ["convolution", "input"])
@torch.no_grad()
def test_cross_scan_of_a_grid_equals_loops_over_its_cells(select_from):
    mixer, u, orders = grid_mixer(select_from), normal(2, 12, 3), walks(3, 4)
    got, is_input = mixer(u), select_from == "input"
    for one, cells in zip(got, u, strict=True):
        want = grid_by_loops(mixer, cells, orders, is_input)
        torch.testing.assert_close(one, want, rtol=1e-11, atol=1e-13)
    # Columns walked as rows are another mixer, and so are the other maps.
    by_rows = grid_by_loops(mixer, u[0], [*orders[:2], *orders[:2]], is_input)
    assert not torch.allclose(got[0], by_rows, atol=1e-5)
    other_source = grid_by_loops(mixer, u[0], orders, not is_input)
    assert not torch.allclose(got[0], other_source, atol=1e-5)


def test_every_order_is_a_walk_of_its_own_and_restoring_undoes_it():
    cells = torch.arange(12).reshape(1, 12, 1)
    for order, walk in zip(cross_scan(3), walks(3, 4), strict=True):
        visited = order.arrange(cells)
        assert visited.flatten().tolist() == [4 * i + j for i, j in walk]
        assert torch.equal(order.restore(visited), cells)
    assert len(set(cross_scan(3))) == 4
    # A grid of 3 x 4 cells is not its own transpose: arranging is not restoring.
    columns = ScanOrder(n_rows=3)
    assert not torch.equal(columns.arrange(columns.arrange(cells)), cells)


@pytest.mark.parametrize("order", cross_scan(3))
def test_a_scan_sees_the_cells_that_it_visited_before(order):
    mixer = build(
        lambda: SelectiveTokenMixer(
            3, 2, 1, convolution=lambda n_channels: nn.Identity(), orders=(order,)
        )
    )
    u = normal(1, 12, 3)
    changed = u.clone()
    changed[:, 5] += 1
    difference = (mixer(changed) - mixer(u)).abs().amax((0, 2))
    walk = order.arrange(torch.arange(12).reshape(1, 12, 1)).flatten().tolist()
    reached = [cell for cell in walk if difference[cell] > 1e-9]
    assert reached == walk[walk.index(5) :]
    assert torch.all(difference[walk[: walk.index(5)]] == 0)


def test_grid_convolution_draws_within_its_bound():
    convolution = build(lambda: GridConvolution(50, n_rows=2))
    for tensor in (convolution.weight, convolution.bias):
        assert 0.3 < tensor.abs().max() <= 1 / 3  # one over the root of 9


def test_unknown_source_is_refused():
    with pytest.raises(InputError, match="'convolved', must be 'convolution' or"):
        SelectiveTokenMixer(4, select_from="convolved")


# State space


def test_initial_values_are_those_of_the_mamba_block():
    mixer = build(lambda: SelectiveTokenMixer(48, 7, 3))
    ssm = mixer.ssms[0]
    want = torch.log(torch.arange(1.0, 8.0)).expand(144, 7)
    torch.testing.assert_close(ssm.A_log, want.double())
    assert torch.equal(ssm.D, torch.ones_like(ssm.D))
    dt = F.softplus(ssm.dt_proj.bias)
    assert 1e-3 * (1 - 1e-4) <= dt.min() < 1.5e-3
    assert 7e-2 < dt.max() <= 1e-1 * (1 + 1e-4)
    assert 0.007 < dt.median() < 0.014  # log-uniform
    assert 0.9 * 3**-0.5 < ssm.dt_proj.weight.abs().max() <= 3**-0.5
    with torch.device("meta"):
        mixer, block = SelectiveTokenMixer(48, 7, 3), MambaBlock(48, 7, expand=3)
    assert sum(p.numel() for p in mixer.parameters()) == sum(
        p.numel() for p in block.parameters()
    )


def test_decay_rates_and_averages_are_never_decayed():
    stack = build(
        lambda: MixerStack([SelectiveTokenMixer(4)], [SelectiveChannelMixer(3)])
    )
    ends = {name.rsplit(".", 1)[1] for name in no_weight_decay_names(stack)}
    assert ends == {"A_log", "D", "token_weights", "channel_weights"}


def test_scan_gets_float32_under_autocast(monkeypatch):
    seen = {}

    def spy(u, d, A, *rest, **settings):
        seen.update(d=d.dtype, A=A.dtype, autocast=torch.is_autocast_enabled("cpu"))
        return scan(u, d, A, *rest, **settings)

    scan = mixers_module.gated_selective_scan
    monkeypatch.setattr(mixers_module, "gated_selective_scan", spy)
    ssm, x = build(lambda: SelectiveSSM(6, 3)).float(), normal(2, 30, 6).float()
    want = ssm(x, x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = ssm(x, x)
    assert seen == {"d": torch.float32, "A": torch.float32, "autocast": False}
    assert (out - want).abs().max() < 0.02 * want.abs().max()


# Both ways, and along channels


def test_bidirectional_mixer_is_two_mamba_blocks():
    mixer, x = build(lambda: BidirectionalMixer(5, 3, 1, 2)), normal(2, 6, 5)
    ahead, back = (
        mamba_block_of(one) for one in (mixer.forward_block, mixer.backward_block)
    )
    want = ahead(x) + back(x.flip(1)).flip(1)
    torch.testing.assert_close(mixer(x), want, rtol=1e-12, atol=1e-14)
    assert not torch.allclose(ahead(x) + back(x), want, atol=1e-5)
    changed = x.clone()
    changed[:, 3] += 1
    assert torch.all((mixer(changed) - mixer(x)).abs().amax((0, 2)) > 1e-9)


def test_channel_mixer_mixes_channels():
    mixer, x = build(lambda: SelectiveChannelMixer(6, 2, 1)), normal(2, 6, 4)
    torch.testing.assert_close(mixer(x), mixer.mixer(x.mT).mT)
    assert mixer(normal(2, 6, 9)).shape == (2, 6, 9)  # any number of channels
    # With no state space and no convolution, each channel stands alone.
    for block in (mixer.mixer.forward_block, mixer.mixer.backward_block):
        switch_off_mixing(block)
    changed = x.clone()
    changed[..., 1] += 1
    difference = (mixer(changed) - mixer(x)).abs().amax((0, 1))
    assert (difference > 1e-6).tolist() == [False, True, False, False]


@torch.no_grad()
def switch_off_mixing(block):
    """No state and no convolution: a token sees itself alone."""
    block.convolution.weight.zero_()
    block.convolution.weight[..., -1] = 1.0
    block.convolution.bias.zero_()
    block.ssms[0].dt_proj.weight.zero_()
    block.ssms[0].dt_proj.bias.fill_(-1000.0)  # steps of length zero


@torch.no_grad()
def test_without_state_and_convolution_the_stack_is_a_gated_mlp_mixer():
    stack = build(
        lambda: MixerStack(
            [SelectiveTokenMixer(4, 2, 1) for _ in range(2)],
            [SelectiveChannelMixer(5, 2, 1) for _ in range(2)],
        )
    )
    x = normal(3, 5, 4)
    before = stack(x)
    for module in stack.modules():
        if isinstance(module, SelectiveTokenMixer):
            switch_off_mixing(module)

    def mlp(block, tokens):
        hidden, gate = (tokens @ block.in_proj.weight.T).chunk(2, -1)
        return (F.silu(hidden) * F.silu(gate)) @ block.out_proj.weight.T

    y = x
    for token, channel in zip(stack.token_mixers, stack.channel_mixers, strict=True):
        y = y + mlp(token, y)
        both = (channel.mixer.forward_block, channel.mixer.backward_block)
        y = y + sum(mlp(block, y.mT) for block in both).mT
    torch.testing.assert_close(stack(x), y, rtol=1e-12, atol=1e-13)
    assert not torch.allclose(before, y, atol=1e-4)


# Weighted averages


def linear_stack(n_layers):
    """A stack of linear maps: everything about the averages can be written out."""

    def maps():
        return [nn.Linear(3, 3, bias=False) for _ in range(n_layers)]

    return build(lambda: MixerStack(maps(), maps()), seed=n_layers)


def scalars(stack):
    return [
        parameter for name, parameter in stack.named_parameters() if "_weights" in name
    ]


@pytest.mark.parametrize("n_layers", [1, 2, 5])
def test_layers_have_the_number_of_scalars_of_the_card(n_layers):
    stack = linear_stack(n_layers)
    output = sum(p.numel() for p in stack.output_average.parameters())
    total = sum(p.numel() for p in scalars(stack))
    assert total - output == n_layers * (2 * n_layers + 3)
    assert output == 2 * n_layers + 2


@torch.no_grad()
def test_averages_equal_the_sums_of_the_card():
    stack, x = linear_stack(3), normal(2, 3)
    for index, weights in enumerate(scalars(stack)):
        weights.copy_(normal(len(weights), seed=index))

    def forward(shift):
        y_T, y_C = [x], [x]
        for layer in range(1, 4):
            alpha, beta = stack.token_averages[layer - 1].parameters()
            theta, gamma = stack.channel_averages[layer - 1].parameters()
            x_T = sum(alpha[i] * y_T[i] + beta[i] * y_C[i] for i in range(layer))
            y_T.append(stack.token_mixers[layer - 1](x_T))
            x_C = sum(theta[i] * y_T[i] for i in range(layer + 1 - shift))
            x_C = x_C + sum(gamma[i] * y_C[i] for i in range(layer))
            y_C.append(stack.channel_mixers[layer - 1](x_C))
        last_T, last_C = stack.output_average.parameters()
        return sum(last_T[i] * y_T[i] + last_C[i] * y_C[i] for i in range(4))

    torch.testing.assert_close(stack(x), forward(0), rtol=1e-12, atol=1e-13)
    # A channel mixer that does not see the token mixer of its own layer is another.
    assert not torch.allclose(stack(x), forward(1), atol=1e-3)


@torch.no_grad()
def test_a_new_stack_is_a_residual_stack():
    stack, x = linear_stack(3), normal(2, 3)
    y = x
    for token, channel in zip(stack.token_mixers, stack.channel_mixers, strict=True):
        y = y + token(y)
        y = y + channel(y)
    torch.testing.assert_close(stack(x), y, rtol=1e-12, atol=1e-13)
    # Counting x twice, once for either kind, would not be one.
    for average in [m for m in stack.modules() if isinstance(m, WeightedAverage)]:
        average.channel_weights[0] = 1.0
    assert not torch.allclose(stack(x), y, atol=1e-2)


@torch.no_grad()
def test_newest_token_weights_alone_give_the_plain_stack_of_token_mixers():
    stack, x = linear_stack(3), normal(2, 3)
    for average in [m for m in stack.modules() if isinstance(m, WeightedAverage)]:
        average.token_weights.zero_()
        average.channel_weights.zero_()
        average.token_weights[-1] = 1.0
    y = x
    for token in stack.token_mixers:
        y = token(y)
    torch.testing.assert_close(stack(x), y, rtol=1e-12, atol=1e-13)
    stack.token_averages[1].channel_weights[1] = 1.0
    assert not torch.allclose(stack(x), y, atol=1e-3)


def test_every_scalar_learns():
    stack, x = linear_stack(2), normal(2, 3)
    stack(x).square().sum().backward()
    assert all((weights.grad.abs() > 0).all() for weights in scalars(stack))


def test_stack_needs_pairs_of_mixers():
    with pytest.raises(InputError, match="2 token mixers and 1 channel mixers"):
        MixerStack([nn.Identity(), nn.Identity()], [nn.Identity()])
