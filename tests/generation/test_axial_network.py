"""Axial autoregressive network: invariants of card §14 (tests T14 and T25)."""

import itertools

import pytest
import torch

from sciseq.errors import InputError
from sciseq.generation.parts import axial_network
from sciseq.generation.parts.axial_network import AxialNetwork
from sciseq.nn import TransformerEncoder, TransformerLayer, build_network
from sciseq.nn.attention import attend

SIZES = {"d_model": 8, "d_ff": 12, "n_heads": 2}


def build(n_rows, n_columns, n_tokens=3, outer=1, inner=1, n_features=0, seed=0):
    network = build_network(
        lambda: AxialNetwork(
            n_rows,
            n_columns,
            n_tokens,
            n_outer_layers=outer,
            n_inner_layers=inner,
            n_features=n_features,
            **SIZES,
        ),
        torch.Generator().manual_seed(seed),
    )
    network = network.double().eval()
    with torch.no_grad():  # far from the start, where all cells look alike
        for one in network.parameters():
            one += 0.5 * normal(*one.shape, seed=seed + 1)
    return network


def normal(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def arrays(n_arrays, n_rows, n_columns, n_tokens=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(
        0, n_tokens, (n_arrays, n_rows, n_columns), generator=generator
    )


def influences(network, n_rows, n_columns):
    """Whether scores of cell (first axes) change with the embedding of cell (last)."""
    array = arrays(1, n_rows, n_columns)
    embedded = network.symbols(array).detach().requires_grad_()
    handle = network.symbols.register_forward_hook(lambda *_: embedded)
    scores = network(array)
    handle.remove()
    n_cells = n_rows * n_columns
    found = torch.zeros(n_cells, n_cells, dtype=torch.bool)
    # A fixed mixture of the scores: a single one could miss a dependence, not all.
    values = (scores * normal(scores.shape[-1])).sum(-1).flatten()
    for cell, value in enumerate(values):
        (gradient,) = torch.autograd.grad(value, embedded, retain_graph=True)
        found[cell] = gradient.abs().amax((0, 3)).flatten() != 0
    return found


def before(n_cells):
    return torch.ones(n_cells, n_cells, dtype=torch.bool).tril(-1)


def plain_layer(axis_layer):
    """The package's ordinary transformer layer, of the same weights."""
    layer = TransformerLayer(8, 2, 12, dropout=0.0, pre_norm=True).double().eval()
    attention = axis_layer.attention
    layer.load_state_dict(
        {
            **axis_layer.norm1.state_dict(prefix="norm1."),
            **axis_layer.norm2.state_dict(prefix="norm2."),
            **axis_layer.feed_forward.state_dict(prefix="feed_forward."),
            **attention.out.state_dict(prefix="attention.out."),
            **{
                f"attention.qkv.{name}": torch.cat(
                    [
                        getattr(attention.queries, name),
                        getattr(attention.keys_values, name),
                    ]
                )
                for name in ("weight", "bias")
            },
        }
    )
    return layer


# --- Who influences whom -------------------------------------------------------------


@pytest.mark.parametrize(
    ("n_rows", "n_columns", "outer", "inner"),
    [(3, 4, 1, 1), (4, 3, 2, 2), (1, 5, 1, 1), (5, 1, 1, 1)],
)
def test_jacobian_is_raster_order(n_rows, n_columns, outer, inner):
    network = build(n_rows, n_columns, outer=outer, inner=inner)
    found = influences(network, n_rows, n_columns)
    assert torch.equal(found, before(n_rows * n_columns))


def test_tokens_change_later_scores_and_no_others():
    network, array = build(3, 3), arrays(1, 3, 3)
    with torch.no_grad():
        scores = network(array).flatten(0, 2)
        for cell in range(9):
            other = array.clone().flatten()
            other[cell] = (other[cell] + 1) % 3
            moved = network(other.view(1, 3, 3)).flatten(0, 2)
            is_moved = (moved != scores).any(1)
            assert torch.equal(is_moved, torch.arange(9) > cell)


@pytest.mark.parametrize("shift", ["_shift_down", "_shift_right"])
def test_without_a_shift_cells_see_themselves(shift, monkeypatch):
    network = build(3, 4)
    monkeypatch.setattr(axial_network, shift, lambda x: x)
    found = influences(network, 3, 4)
    assert found.diagonal().all()


def test_unmasked_columns_see_later_rows():
    network = build(4, 3)
    layer = network.outer.column_layers[0]
    original = layer.forward
    layer.forward = lambda x, causal, before: original(x, causal=False, before=before)
    found = influences(network, 4, 3)
    assert (found & ~before(12)).any()


def test_without_column_layers_rows_above_are_out_of_reach():
    network = build(4, 3)
    network.outer.column_layers[0].forward = lambda x, **_: (x, None)
    found = influences(network, 4, 3)
    assert not found[9:, :6].any()  # the last row sees the row above, no other
    assert found[9:, 6:9].all()


# --- Limits --------------------------------------------------------------------------


@pytest.mark.parametrize("inner", [1, 2])
def test_one_row_is_an_ordinary_causal_transformer(inner):
    network = build(3, 7, inner=inner)
    array = arrays(2, 1, 7)
    plain = TransformerEncoder(inner, 8, 2, 12, 0.0, pre_norm=True).double().eval()
    for layer, axis_layer in zip(plain.layers, network.inner.layers, strict=True):
        layer.load_state_dict(plain_layer(axis_layer).state_dict())
    places = network.inner_places
    embedded = network.symbols.weight[array[:, 0]]
    x = torch.cat([torch.zeros(2, 1, 8, dtype=torch.float64), embedded[:, :-1]], 1)
    x = x + places.rows[0] + places.columns

    def scores(mask):
        return network.head(network.inner.norm(plain(x, mask)))

    causal = torch.ones(7, 7, dtype=torch.bool).tril()
    torch.testing.assert_close(network(array)[:, 0], scores(causal), rtol=1e-11, atol=0)
    assert not torch.allclose(network(array)[:, 0], scores(None))


def test_outer_encoder_is_dense_attention_on_each_line():
    network = build(3, 4, outer=2)
    cells = normal(2, 3, 4, 8)
    x = cells.clone()
    outer = network.outer
    lower = torch.ones(3, 3, dtype=torch.bool).tril()
    with torch.no_grad():
        for row_axis, column_axis in zip(
            outer.row_layers, outer.column_layers, strict=True
        ):
            row, column = plain_layer(row_axis), plain_layer(column_axis)
            x = torch.stack([row(x[:, i]) for i in range(3)], 1)
            x = torch.stack([column(x[:, :, j], lower) for j in range(4)], 2)
        found, _ = outer(cells)
        torch.testing.assert_close(found, outer.norm(x), rtol=1e-11, atol=1e-13)
        swapped, _ = outer(cells.transpose(1, 2))
    assert not torch.allclose(swapped.transpose(1, 2), found)


def test_the_first_row_and_column_are_padded_with_zeros():
    x = normal(1, 3, 4, 2)
    down, right = axial_network._shift_down(x), axial_network._shift_right(x)
    assert torch.equal(down[:, 1:], x[:, :-1])
    assert torch.equal(right[:, :, 1:], x[:, :, :-1])
    assert not down[:, 0].any()
    assert not right[:, :, 0].any()


# --- Probabilities -------------------------------------------------------------------


def all_arrays(n_tokens):
    cells = itertools.product(range(n_tokens), repeat=4)
    return torch.tensor(list(cells)).view(-1, 2, 2)


@pytest.mark.parametrize("n_tokens", [2, 3])
def test_probabilities_of_all_arrays_sum_to_one(n_tokens, monkeypatch):
    network = build(2, 2, n_tokens)
    every = all_arrays(n_tokens)
    one = torch.ones((), dtype=torch.float64)
    torch.testing.assert_close(
        network.log_prob(every).exp().sum(), one, rtol=1e-12, atol=0
    )
    for shift in ("_shift_down", "_shift_right"):
        with monkeypatch.context() as patch:
            patch.setattr(axial_network, shift, lambda x: x)
            leaky = network.log_prob(every).exp().sum()
            assert abs(leaky.item() - 1) > 1e-3


def test_log_prob_is_the_sum_over_cells():
    network, array = build(3, 2), arrays(4, 3, 2)
    scores = network(array)
    want = -torch.nn.functional.cross_entropy(
        scores.flatten(0, 2), array.flatten(), reduction="none"
    )
    want = want.view(4, -1).sum(1)
    torch.testing.assert_close(network.log_prob(array), want, rtol=1e-12, atol=0)


# --- Sampling ------------------------------------------------------------------------


class Drawn:
    """Draw from fixed noise, and remember the scores."""

    def __init__(self, n_arrays, n_cells, n_tokens=3):
        self.noise = -(-normal(n_cells, n_arrays, n_tokens).sigmoid().log()).log()
        self.scores, self.cells = [], []

    def __call__(self, scores, cell):
        self.scores.append(scores)
        self.cells.append(cell)
        return (scores + self.noise[cell]).argmax(1)


@pytest.mark.parametrize("n_features", [0, 2])
@pytest.mark.parametrize("shape", [None, (2, 4), (3, 1), (1, 3)])
def test_semi_parallel_sampling_equals_full_recomputation(shape, n_features):
    network = build(3, 4, outer=2, inner=2, n_features=n_features)
    n_rows, n_columns = shape or (3, 4)
    condition = normal(2, n_features) if n_features else None
    drawn = Drawn(2, n_rows * n_columns)
    found = network.sample(drawn, 2, shape, condition)
    assert drawn.cells == list(range(n_rows * n_columns))
    again = torch.zeros_like(found)
    redrawn = Drawn(2, n_rows * n_columns)
    for cell, (i, j) in enumerate(itertools.product(range(n_rows), range(n_columns))):
        with torch.no_grad():
            again[:, i, j] = redrawn(network(again, condition)[:, i, j], cell)
    assert torch.equal(found, again)
    for got, want in zip(drawn.scores, redrawn.scores, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-12)


def test_a_forgotten_memory_is_noticed():
    network = build(3, 4)
    right, wrong = Drawn(2, 12), Drawn(2, 12)
    network.sample(right, 2)
    original = network.outer.forward
    network.outer.forward = lambda x, before: original(x)  # columns start anew
    network.sample(wrong, 2)
    same = [
        torch.allclose(*pair) for pair in zip(right.scores, wrong.scores, strict=True)
    ]
    assert same == [True] * 8 + [False] * 4  # the third row reads two above it


def test_outer_stack_once_per_row_and_inner_once_per_cell():
    network = build(4, 3)
    calls = {"outer": [], "inner": []}
    for name, shapes in calls.items():
        getattr(network, name).register_forward_pre_hook(
            lambda _, inputs, shapes=shapes: shapes.append(tuple(inputs[0].shape))
        )
    network.sample(Drawn(2, 12), 2)
    assert calls["outer"] == [(2, 1, 3, 8)] * 3  # nothing reads the last row
    assert calls["inner"] == [(2, 1, 8)] * 12


@pytest.mark.parametrize(("outer", "inner"), [(1, 1), (2, 1), (1, 3)])
def test_attention_costs_what_the_docstring_says(outer, inner, monkeypatch):
    products = []

    def counted(q, k, v, mask=None):
        products.append(2 * q.numel() * k.shape[2])
        return attend(q, k, v, mask)

    monkeypatch.setattr("sciseq.nn.decoder.attend", counted)
    build(5, 4, outer=outer, inner=inner)(arrays(1, 5, 4))
    assert sum(products) == 2 * 8 * 20 * (outer * (5 + 4) + inner * 4)


def test_arrays_of_a_batch_do_not_touch_each_other():
    network = build(3, 3)
    drawn = Drawn(4, 9)
    found = network.sample(drawn, 4)
    alone = Drawn(4, 9)
    alone.noise = drawn.noise[:, 2:3]
    assert torch.equal(network.sample(alone, 1), found[2:3])


def test_sampled_arrays_have_the_probabilities_of_the_network():
    network, every = build(2, 2, n_tokens=2), all_arrays(2)
    n_arrays = 4000
    generator = torch.Generator().manual_seed(0)

    def draw(scores, cell):
        return torch.multinomial(scores.softmax(1), 1, generator=generator)[:, 0]

    code = 2 ** torch.arange(4)
    found = network.sample(draw, n_arrays).flatten(1) @ code
    counts = torch.bincount(found, minlength=16)[every.flatten(1) @ code]
    expected = n_arrays * network.log_prob(every).exp().detach()
    statistic = float(((counts - expected) ** 2 / expected).sum())
    assert statistic < 37.7  # 15 degrees of freedom, 0.1 %
    uniform = torch.full_like(expected, n_arrays / 16)
    assert float(((counts - uniform) ** 2 / uniform).sum()) > 37.7


def test_a_condition_changes_every_cell():
    network, array = build(2, 3, n_features=2), arrays(1, 2, 3)
    first, second = (network(array, normal(1, 2, seed=seed)) for seed in (0, 1))
    assert (first != second).any(-1).all()


def test_equal_seeds_give_equal_networks():
    first, second = build(2, 3), build(2, 3)
    pairs = zip(first.parameters(), second.parameters(), strict=True)
    assert all(torch.equal(*pair) for pair in pairs)


# --- Inputs --------------------------------------------------------------------------


def test_wrong_arguments():
    network = build(2, 3, n_features=2)
    with pytest.raises(InputError, match="3 rows and 3 columns, must have 1 to 2"):
        network(arrays(1, 3, 3), normal(1, 2))
    with pytest.raises(InputError, match="condition has 0 numbers"):
        network(arrays(1, 2, 3))
    with pytest.raises(InputError, match="condition has 3 numbers"):
        network.sample(Drawn(1, 6), 1, None, normal(1, 3))
    with pytest.raises(InputError, match="n_outer_layers is 0"):
        build(2, 3, outer=0)
    with pytest.raises(InputError, match="multiple of n_heads"):
        AxialNetwork(2, 3, 4, 9, 8, 1, 1, n_heads=2)
