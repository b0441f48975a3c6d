"""Arrays by axial attention as a generator: card §14 (tests T14, T25).

The network's own invariants are in ``test_axial_network.py``.
"""

import itertools
import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone

import sciseq
from sciseq.errors import CapabilityError, InputError, InputTypeError, SciSeqError
from sciseq.generation.base import request_seeds
from sciseq.generation.parts.drawing import Drawing
from sciseq.generation.parts.layout import Layout
from sciseq.generation.parts.masks import full
from sciseq.generation.sequences.autoregressive import next_token_scores
from sciseq.generation.sequences.axial import ArrayAlphabet, AxialAutoregressor

SMALL = {
    "d_model": 8, "d_ff": 8, "n_layers": 1, "n_heads": 2, "max_epochs": 2,
    "batch_size": 16, "random_state": 0, "device": "cpu", "precision": "float64",
}  # fmt: skip


def arrays(n=40, shape=(3, 4), low=3, high=6, seed=0):
    return np.random.default_rng(seed).integers(low, high, (n, *shape))


@pytest.fixture(scope="module")
def model():
    return AxialAutoregressor(**SMALL).fit(arrays())


@pytest.fixture(scope="module")
def binary():
    """Arrays whose last cell says what the first one is, learned well enough."""
    data = arrays(200, (2, 2), 0, 2)
    data[:, 1, 1] = data[:, 0, 0]
    parameters = {
        **SMALL,
        "max_epochs": 12,
        "batch_size": 50,
        "learning_rate": 0.03,
        "dropout": 0.0,
    }
    return AxialAutoregressor(**parameters, n_candidates=24).fit(data)


def all_binary():
    return np.array(list(itertools.product((0, 1), repeat=4))).reshape(-1, 2, 2)


def test_probabilities_of_all_arrays_sum_to_one(binary) -> None:
    values = np.exp(binary.score_samples(all_binary()))
    assert values.sum() == pytest.approx(1, abs=1e-9)
    is_kept = all_binary()[:, 0, 0] == all_binary()[:, 1, 1]
    assert values[is_kept].sum() > 0.7  # it has learned something: else 0.5


def test_samples_are_those_of_one_pass_for_each_cell(model) -> None:
    """Drawn semi-parallel, they are what recomputing everything draws."""
    drawn = model.sample(4, random_state=7)
    table = torch.from_numpy(model.alphabet_.encode(drawn))
    with torch.no_grad():
        scores = next_token_scores(model.network_, table, None)
    seeds = request_seeds(7, torch.arange(4))
    again = Drawing()(scores, seeds, torch.arange(12).expand(4, -1))
    assert torch.equal(again, table)
    other = Drawing()(scores.roll(1, dims=1), seeds, torch.arange(12).expand(4, -1))
    assert not torch.equal(other, table)  # scores of the cell before are seen


def test_scores_are_those_of_the_network(model) -> None:
    data = arrays(5, seed=1)
    table = torch.from_numpy(model.alphabet_.encode(data)).view(5, 3, 4)
    with torch.no_grad():
        wanted = model.network_.backbone.cells.log_prob(table)
    np.testing.assert_allclose(model.score_samples(data), wanted, rtol=0, atol=1e-11)
    assert model.score(list(data)) == pytest.approx(float(wanted.mean()), abs=1e-11)


def test_what_is_given_stays(model) -> None:
    gaps = arrays(3, seed=2)
    gaps[0, 1], gaps[1, :, 2], gaps[2, 2, 3] = -1, -1, -1
    for filled in (
        model.infill(gaps, random_state=0),
        model.sample(template=gaps, random_state=0),
        model.sample(template=gaps, temperature=0),
    ):
        assert (filled[gaps >= 0] == gaps[gaps >= 0]).all()
        assert set(np.unique(filled)) <= {3, 4, 5}
    one = model.sample(2, template=gaps[1], allowed={2: [5]}, random_state=0)
    assert one.shape == (2, 3, 4)
    assert (one[:, 0, 2] == 5).all()


def test_samples_do_not_depend_on_their_number(model) -> None:
    many = model.sample(300, random_state=3)
    np.testing.assert_array_equal(many[:2], model.sample(2, random_state=3))
    assert model.last_work.n_tokens.tolist() == [12, 12]


def lines_read(model, n):
    """What the first layer of each stack computes and finds in its memory, by pass."""
    cells, seen = model.network_.backbone.cells, []

    def spy(name):
        def hook(layer, given, options):
            before = options.get("before")
            n_before = 0 if before is None else before.keys.shape[2]
            lines, new = given[0].shape[:2]
            seen.append((name, lines * new // n, lines * n_before // n))

        return hook

    handles = [
        layer.register_forward_pre_hook(spy(name), with_kwargs=True)
        for name, layer in (
            ("cell", cells.inner.layers[0]),
            ("row", cells.outer.row_layers[0]),
            ("column", cells.outer.column_layers[0]),
        )
    ]
    model.sample(n, random_state=0)
    for one in handles:
        one.remove()
    return seen


def test_work_is_counted(model) -> None:
    """T26: of 3 rows and 4 columns; a pass through a stack counts once."""
    seen = lines_read(model, 2)
    # A pass for each cell, and one for each row that others are below.
    names = (["cell"] * 4 + ["row", "column"]) * 2 + ["cell"] * 4
    assert [name for name, *_ in seen] == names
    work = model.last_work
    assert work.n_passes.tolist() == [3 * 4 + 2] * 2
    assert work.n_rows.tolist() == [12 + 2 * 4] * 2
    # Cells before in the row, 0 + 1 + 2 + 3; behind the second row, the one above it.
    assert work.n_read.tolist() == [3 * 6 + 4 * 1] * 2
    assert work.n_tokens.tolist() == [12] * 2
    # Column layers compute what row layers do: only one of them counts.
    assert sum(new for name, new, _ in seen if name != "column") == 20
    assert sum(new for name, new, _ in seen if name != "row") == 20
    assert sum(before for *_, before in seen) == 22
    gaps = arrays(2, seed=4)
    gaps[1, 1] = -1
    model.sample(template=gaps, random_state=0)
    # Nothing is saved where cells are given.
    assert model.last_work.n_passes.tolist()[1] == 14
    assert model.last_work.n_tokens.tolist() == [0, 4]


def test_work_of_the_other_shape_is_another() -> None:
    """4 rows of 3 columns: rows and columns are not mistaken for each other."""
    other = AxialAutoregressor(**SMALL | {"max_epochs": 1}).fit(arrays(8, (4, 3)))
    seen, work = lines_read(other, 1), other.last_work
    assert work.n_passes.tolist() == [12 + 3]
    assert work.n_rows.tolist() == [12 + 3 * 3]
    assert work.n_read.tolist() == [4 * 3 + 3 * (1 + 2)]
    assert sum(before for *_, before in seen) == 21


def first_given_the_rest(binary, rest):
    pair = np.stack([rest, rest])
    pair[:, 0, 0] = 0, 1
    p = np.exp(binary.score_samples(pair))
    return p[1] / p.sum()


def test_infill_has_the_law_of_the_scores(binary, monkeypatch) -> None:
    rest = np.array([[-1, 1], [0, 1]])
    p, n = first_given_the_rest(binary, rest), 300
    gaps = np.repeat(rest[None], n, axis=0)
    found = binary.infill(gaps, random_state=0)[:, 0, 0].mean()
    error = np.sqrt(p * (1 - p) / n)
    assert abs(found - p) < 4 * error + 0.02  # candidates are not infinitely many

    def unweighted(*args):
        tokens, weights = AxialAutoregressor._candidates(binary, *args)
        return tokens, torch.zeros_like(weights)

    monkeypatch.setattr(binary, "_candidates", unweighted)
    wrong = binary.infill(gaps, random_state=0)[:, 0, 0].mean()
    assert abs(wrong - p) > 4 * error + 0.02


def test_conditions() -> None:
    data = arrays(40, (2, 3))
    labels = np.array(["low", "high"])[(data.mean((1, 2)) > 4).astype(int)]
    model = AxialAutoregressor(**SMALL).fit(data, labels)
    drawn = model.sample(condition=["low", "high"], random_state=0)
    alone = model.sample(1, condition="low", random_state=0)
    np.testing.assert_array_equal(drawn[:1], alone)
    low, high = (model.score_samples(data, [one] * 40) for one in ("low", "high"))
    assert np.abs(low - high).max() > 1e-6
    peaks = [np.ones((1 + i % 3, 2)) * i for i in range(40)]  # rows in no order
    model = AxialAutoregressor(**SMALL).fit(data, peaks)
    together = model.score_samples(data[:3], peaks[:3])
    apart = [model.score_samples(data[[i]], peaks[i : i + 1])[0] for i in range(3)]
    np.testing.assert_allclose(together, apart, rtol=0, atol=1e-11)


def test_saved_copied_and_pickled(model, tmp_path) -> None:
    model.save(tmp_path / "model.sciseq")
    data = arrays(4, seed=5)
    wanted = model.score_samples(data)
    for other in (
        sciseq.load(tmp_path / "model.sciseq"),
        pickle.loads(pickle.dumps(model)),
        clone(model).fit(arrays()),
    ):
        assert isinstance(other.alphabet_, ArrayAlphabet)
        np.testing.assert_array_equal(other.score_samples(data), wanted)
        np.testing.assert_array_equal(
            other.sample(2, random_state=0), model.sample(2, random_state=0)
        )


@pytest.mark.parametrize(
    ("wrong", "error", "words"),
    [
        (np.ones((2, 3, 4)), InputTypeError, "integers"),
        (np.ones(3, dtype=int), InputTypeError, "shape"),
        ([np.ones((2, 3), int), np.ones((2, 4), int)], InputTypeError, "shapes"),
        (np.full((1, 3, 5), 4), InputError, r"\(3, 4\)"),
        (np.full((1, 3, 4), 9), InputError, "unknown token 9"),
        (np.full((1, 3, 4), -1), InputError, "unknown token -1"),
        (["ab", "cd"], SciSeqError, "integers"),
    ],
)
def test_wrong_arrays(model, wrong, error, words) -> None:
    with pytest.raises(error, match=words):
        model.score_samples(wrong)


def test_what_it_cannot_do_is_said(model) -> None:
    with pytest.raises(InputError, match="max_length"):
        AxialAutoregressor(max_length=3, **SMALL).fit(arrays())
    with pytest.raises(CapabilityError, match="row by row"):
        model._decoder(Drawing())
    backbone, layout = model.network_.backbone, Layout.of(2)
    x = backbone.embed(torch.zeros(1, 2, dtype=torch.int64), layout)
    with pytest.raises(CapabilityError, match="raster order"):
        backbone(x, layout, full)
