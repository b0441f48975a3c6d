"""What holds for all generators: samples, data, conditions, errors, saving."""

import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sequence_toys import fitted, tiny_network
from sklearn.base import clone

import sciseq
from sciseq.errors import (
    CapabilityError,
    DataQualityError,
    InputError,
    InputTypeError,
    SciSeqError,
)
from sciseq.generation.alphabet import Alphabet
from sciseq.generation.conditions import ConditionCoding
from sciseq.generation.sequences.autoregressive import AutoregressiveSequence
from sciseq.generation.sequences.block_diffusion import BlockDiffusionSequence
from sciseq.generation.sequences.combiner import CombinerSequence
from sciseq.generation.sequences.draft_verify import DraftVerifySequence
from sciseq.generation.sequences.masked_diffusion import MaskedDiffusionSequence

GENERATORS = {
    AutoregressiveSequence: {"n_candidates": 3},
    MaskedDiffusionSequence: {"n_steps": 3, "order": "confidence"},
    BlockDiffusionSequence: {"block_size": 2},
    DraftVerifySequence: {"n_drafts": 2},
}
SMALL = {"d_model": 8, "d_ff": 8, "n_layers": 1, "n_heads": 2, "dropout": 0.0,
         "max_epochs": 1, "batch_size": 16, "random_state": 0,
         "device": "cpu"}  # fmt: skip
WORDS = ["ABCA", "ABCB", "CBAA", "CAAB", "BBAC"] * 4
every_generator = pytest.mark.parametrize("cls", GENERATORS)


def toy(cls, **kwargs):
    return fitted(cls, 4, 5, **{**GENERATORS[cls], **kwargs})


def small(cls, X, y=None, **params):
    return cls(**{**SMALL, **GENERATORS[cls], **params}).fit(X, y)


# ------------------------------------------------------------------- samples (T25)


@every_generator
@pytest.mark.parametrize("with_ends", [False, True])
def test_a_sample_belongs_to_its_seed_and_number(cls, with_ends):
    model = toy(cls, with_ends=with_ends)
    for options in (
        {}, {"template": "A??B"}, {"allowed": "AB"}, {"temperature": 0.5, "top_k": 2},
        {"template": "?B", "allowed": {3: "C"}, "top_p": 0.9},
    ):  # fmt: skip
        if not with_ends and "template" in options:
            options = {**options, "template": options["template"].ljust(5, "?")}
        five = model.sample(5, random_state=3, **options)
        assert model.sample(2, random_state=3, **options) == five[:2]
        assert model.sample(5, random_state=3, **options) == five
        assert all(set(one) <= set("ABCD") and len(one) <= 5 for one in five)
    model = toy(cls)
    assert model.sample(20, random_state=4) != model.sample(20, random_state=3)
    assert model.sample(20) != model.sample(20)  # no seed: others each time


@every_generator
def test_templates_and_legal_tokens_are_kept(cls):
    model = toy(cls, with_ends=True)
    found = model.sample(12, template="?C?A", random_state=0)
    assert all(one[1] == "C" and one[3] == "A" for one in found)
    found = model.sample(template=["A", "BC", "?A"], random_state=0)
    for one, start in zip(found, ("A", "BC", "?A"), strict=True):
        assert len(one) >= len(start)
        assert all(x in ("?", y) for x, y in zip(start, one, strict=False))
    found = model.sample(12, allowed={0: "C", 2: "A"}, random_state=0)
    assert all(one[0] == "C" and one[2:3] in ("", "A") for one in found)
    assert set("".join(model.sample(12, allowed="AB", random_state=0))) <= set("AB")


@every_generator
def test_infilling_keeps_what_is_given(cls):
    for with_ends, strings in (
        (True, ["A?C", "?", "AB", "A????", "??B?A"]),
        (False, ["A?C?A", "?????", "ABCAB"]),
    ):
        model = toy(cls, with_ends=with_ends)
        found = model.infill(strings, random_state=1)
        assert [len(one) for one in found] == [len(one) for one in strings]
        for given, one in zip(strings, found, strict=True):
            assert set(one) <= set("ABCD"[: 4 - with_ends])
            assert all(x in ("?", y) for x, y in zip(given, one, strict=True))
        assert model.infill(strings[:2], random_state=1) == found[:2]
        greedy = model.infill(strings, temperature=0, random_state=2)
        assert greedy == model.infill(strings, temperature=0, random_state=2)
        if "order" in model.get_params():  # nothing else is random
            model.set_params(order="confidence")
            first = model.infill(strings, temperature=0)
            assert first == model.infill(strings, temperature=0)


@every_generator
def test_large_calls_are_split(cls, monkeypatch):
    model = toy(cls)
    whole = model.sample(7, random_state=0)
    scores = model.score_samples(whole)
    for name in ("calls", "candidates"):
        monkeypatch.setattr(f"sciseq.generation.{name}.TOGETHER", 3)
    assert model.sample(7, random_state=0) == whole
    assert model.last_work.n_tokens.tolist() == [5] * 7
    gaps = ["?" + one[1:] for one in whole]
    filled = model.infill(gaps, random_state=0)
    assert model.infill(gaps[:3], random_state=0) == filled[:3]
    assert np.allclose(model.score_samples(whole), scores, rtol=0, atol=1e-12)


# ------------------------------------------------------------------- containers


def test_sequences_come_in_many_containers():
    strings = small(AutoregressiveSequence, WORDS)
    assert isinstance(strings.sample(random_state=0)[0], str)
    for same in (pd.Series(WORDS, index=range(7, 27)), np.array(WORDS), tuple(WORDS)):
        model = small(AutoregressiveSequence, same)
        assert model.sample(4, random_state=0) == strings.sample(4, random_state=0)
    lists = [[x.lower() * 2 for x in word] for word in WORDS]
    model = small(AutoregressiveSequence, lists)
    found = model.sample(4, random_state=0)
    assert found == [
        [x.lower() * 2 for x in word] for word in strings.sample(4, random_state=0)
    ]
    one = model.sample(template=["aa", None, None, "bb"], random_state=0)
    assert (one[0][0], one[0][3]) == ("aa", "bb")
    filled = model.infill([["aa", None, "cc", None]], random_state=0)
    assert (filled[0][0], filled[0][2]) == ("aa", "cc")
    array = np.array([["ABC".index(x) + 5 for x in word] for word in WORDS])
    model = small(AutoregressiveSequence, array)
    found = model.sample(4, random_state=0)
    assert found.dtype.kind == "i"
    assert found.shape == (4, 4)
    frame = small(AutoregressiveSequence, pd.DataFrame(array))
    assert (frame.sample(4, random_state=0) == found).all()
    gaps = np.array([[5, -1, -1, 6], [-1, 5, 5, 5]])
    filled = model.infill(gaps, random_state=0)
    assert (filled == gaps)[gaps >= 0].all()
    assert (model.sample(template=[5, -1, 6, -1])[0, [0, 2]] == [5, 6]).all()
    ragged = small(AutoregressiveSequence, [[1, 2], [2, 1, -1], [-1]] * 5)
    found = ragged.infill([[1, None], [-1, None, -1]], random_state=0)
    assert found[1][0] == found[1][2] == -1  # -1 is a gap in arrays only
    assert ragged.score_samples([np.array([1, 2])]).shape == (1,)


def test_sequences_come_from_files(tmp_path):
    pytest.importorskip("sciseq.data.sequence_files")
    path = tmp_path / "words.txt"
    path.write_text("\n".join(WORDS) + "\n", encoding="utf-8")
    model = small(AutoregressiveSequence, path)
    same = small(AutoregressiveSequence, WORDS)
    assert model.sample(3, random_state=0) == same.sample(3, random_state=0)
    assert len(model.score_samples(str(path))) == len(WORDS)
    fasta = Path(tmp_path / "words.fasta")
    fasta.write_text(
        "".join(f">{i}\n{one}\n" for i, one in enumerate(WORDS)), encoding="utf-8"
    )
    assert (model.score_samples(fasta) == model.score_samples(WORDS)).all()


def test_the_alphabet_refuses_what_it_cannot_learn():
    for X in ([["a", None]], [["a", float("nan")]], [[True]], [["a", ("b",)]]):
        with pytest.raises(InputTypeError, match="neither strings nor integers"):
            Alphabet.of(X)
    for X in ({"ACG", "ACT"}, {"a": "ACG"}):
        with pytest.raises(InputTypeError, match="are needed"):
            Alphabet.of(X)
    for X in ([], ["", ""], ["A?"], np.array([[1, -1]])):
        with pytest.raises(DataQualityError):
            Alphabet.of(X)
    for X in (5, [1, 2], ["A", 5], np.array([[0.5, 1.0]]), [[["a"]]], iter(["A"]),
              [["a", 1]]):  # fmt: skip
        with pytest.raises(InputTypeError):
            Alphabet.of(X)
    with pytest.raises(InputError, match="max_length is 2"):
        Alphabet.of(["A", "ABC"], 2)
    alphabet = Alphabet.of(["AB", "BA"])
    bad = {"AC": "unknown token 'C' at place 1", "A": "1 tokens, 2", "A?": "unknown"}
    for X, match in bad.items():
        with pytest.raises(InputError, match=match):
            alphabet.encode([X])
    with pytest.raises(InputTypeError, match="kind 'list'"):
        alphabet.encode([["A", "B"]])


def test_the_longest_sequences_need_no_end():
    alphabet = Alphabet.of(["AB", "B"])
    table = alphabet.encode(["AB", "B"])
    assert table.tolist() == [[0, 1], [1, 2]]
    assert alphabet.decode(table) == ["AB", "B"]
    assert Alphabet.of(["AB"], 4).n_positions == 4
    assert Alphabet.of(["AB"], 4).end == 2


# ------------------------------------------------------------------- conditions


@pytest.mark.parametrize(
    ("cls", "kind"),
    [(cls, "classes") for cls in GENERATORS]
    + [(AutoregressiveSequence, one) for one in ("numbers", "one number", "rows")],
)
def test_a_wrong_condition_is_less_likely(cls, kind):
    rng = np.random.default_rng(0)
    classes = rng.integers(2, size=96)
    X = [("AB" if one else "BA") for one in classes]
    values = classes[:, None] + 0.1 * rng.normal(size=(96, 3))
    y = {
        "classes": np.where(classes, "on", "off"),
        "numbers": values,
        "one number": values[:, 0],
        "rows": [np.tile(one, (1 + i % 3, 1)) for i, one in enumerate(values)],
    }[kind]
    model = small(cls, X, y, max_epochs=14, learning_rate=0.05, batch_size=32,
                  validation_fraction=0.0)  # fmt: skip
    right = model.score_samples(X[:20], y[:20])
    other = [one[::-1] for one in X[:20]]
    assert (right > model.score_samples(other, y[:20])).all()
    assert model.score(X[:20], y[:20]) == pytest.approx(right.mean(), abs=1e-6)
    found = model.sample(condition=y[:20], random_state=0)
    assert np.mean([a == b for a, b in zip(found, X[:20], strict=True)]) > 0.7
    assert model.sample(3, condition=y[:1], random_state=0) == model.sample(
        3, condition=[y[0]] * 3, random_state=0
    )
    for_all = model.score_samples(X[:3], y[:1]), model.score_samples(X[:3], [y[0]] * 3)
    np.testing.assert_array_equal(*for_all)
    filled = model.infill(["?" + one[1] for one in X[:4]], y[:4], random_state=0)
    assert [a[1] for a in filled] == [b[1] for b in X[:4]]


def test_conditions_become_numbers():
    coding = ConditionCoding.of(pd.Series(["b", "a", "b"]))
    assert coding.classes == ["a", "b"]
    assert coding.encode("b", torch.float64).rows.tolist() == [[[0, 1]]]
    coding = ConditionCoding.of(np.array([0.5, 1.5, 2.5]))
    assert coding.n_features == 1
    assert coding.encode(1.5, torch.float64).rows.tolist() == [[[0]]]
    assert coding.encode([1.5, 0.5], torch.float64).rows.shape == (2, 1, 1)
    coding = ConditionCoding.of(pd.DataFrame({"x": [0.0, 2.0], "y": [1.0, 1.0]}))
    assert coding.encode([[2.0, 1.0]], torch.float64).rows.tolist() == [[[1, 0]]]
    assert coding.encode([2.0, 1.0], torch.float64).rows.shape == (1, 1, 2)
    coding = ConditionCoding.of([np.zeros((2, 2)), np.ones((1, 2))])
    two = coding.encode([np.ones((1, 2)), np.ones((3, 2))], torch.float64)
    assert two.is_row.tolist() == [[True, False, False], [True] * 3]
    again = ConditionCoding.from_dict(coding.to_dict())
    assert again == coding
    for y in ([0.5, np.nan], [[1.0, np.inf]], ["a", None], []):
        with pytest.raises((DataQualityError, InputError)):
            ConditionCoding.of(y)
    with pytest.raises(InputError, match="numbers in a row"):
        ConditionCoding.of([[1.0, 2.0], [1.0]])
    with pytest.raises(InputError, match="no classes of fit"):
        ConditionCoding.of(["a", "b"]).encode(["c"], torch.float64)
    with pytest.raises(InputError, match="numbers in a row"):
        coding.encode([np.ones((2, 3))], torch.float64)
    # One condition of two rows, or two of one row each?
    for y in (np.ones((2, 2)), [[1.0, 2.0]], [1.0, 2.0]):
        with pytest.raises(InputError, match=r"\[condition\] for a single one"):
            coding.encode(y, torch.float64)
    assert ConditionCoding.of(np.ones((2, 3, 2))).has_several_rows


def test_columns_of_conditions_are_told_by_their_names():
    table = pd.DataFrame({"mass": [1.0, 2.0], "charge": [9.0, 3.0]})
    coding = ConditionCoding.of(table)
    assert ConditionCoding.from_dict(coding.to_dict()) == coding
    expected = coding.encode(table, torch.float64).rows
    for other in (table[["charge", "mass"]], table.to_numpy()):
        assert torch.equal(coding.encode(other, torch.float64).rows, expected)
    for other in (table[["mass"]], table.rename(columns={"mass": "weight"})):
        with pytest.raises(InputError, match="columns"):
            coding.encode(other, torch.float64)
    with pytest.raises(InputTypeError, match="must be numbers"):
        ConditionCoding.of(table.assign(charge=["high", "low"]))


def test_names_of_columns_are_read_wherever_they_are():
    table = pd.DataFrame({"mass": [1.0, 2.0], "charge": [9.0, 3.0]})
    turned = table[["charge", "mass"]]
    coding = ConditionCoding.of(table)
    row = coding.encode(table.iloc[:1], torch.float64).rows
    assert torch.equal(coding.encode(turned.iloc[0], torch.float64).rows, row)
    # Several rows for each, in a list or a column.
    for many in ([table, table + 1], pd.Series([table, table + 1], dtype=object)):
        coding = ConditionCoding.of(many)
        assert coding.has_several_rows
        rows = coding.encode([table], torch.float64).rows
        for other in ([turned], pd.Series([turned], dtype=object)):
            assert torch.equal(coding.encode(other, torch.float64).rows, rows)
    # Numbers, names that come twice, and several levels tell nothing apart.
    for names in ([0, 1], ["a", "a"], pd.MultiIndex.from_tuples([(0, 1), (0, 2)])):
        unnamed = table.set_axis(names, axis=1)
        coding = ConditionCoding.of(unnamed)
        assert coding.columns is None
        found = coding.encode(unnamed, torch.float64).rows
        assert torch.equal(coding.encode(table, torch.float64).rows, found)
    # The names of rows are none of columns.
    column = pd.Series([0.5, 1.5], index=["first", "second"])
    coding = ConditionCoding.of(column)
    assert (coding.columns, coding.n_features) == (None, 1)
    assert coding.encode(column, torch.float64).rows.shape == (2, 1, 1)
    coding = ConditionCoding.of(column.to_frame("mass"))
    assert coding.encode(column, torch.float64).rows.shape == (2, 1, 1)


def test_missing_and_mixed_labels_are_refused():
    for missing in (None, float("nan"), pd.NA, np.nan):
        y = ["on", missing, "off"]
        for labels in (y, pd.Series(y, dtype=object)):
            with pytest.raises(DataQualityError, match="of sequence 1 is missing"):
                ConditionCoding.of(labels)
    with pytest.raises(DataQualityError, match="several types"):
        ConditionCoding.of(["on", 1])
    assert ConditionCoding.of([True, False]).classes == [False, True]
    assert ConditionCoding.of(pd.Categorical(["b", "a"])).classes == ["a", "b"]


@every_generator
def test_no_sequences_and_no_warmth(cls):
    model = toy(cls)
    for call in (model.score_samples, model.infill):
        with pytest.raises(InputError, match="there are no sequences"):
            call([])
    cold = model.sample(3, temperature=1e-320, random_state=0)
    assert cold == model.sample(3, temperature=0, random_state=0)


@every_generator
def test_what_is_given_must_be_legal(cls):
    model = toy(cls)
    for constraints in (
        {"template": "A????", "allowed": {0: "B"}},
        {"template": ["?????", "??A??"], "allowed": "BC"},
    ):
        with pytest.raises(InputError, match=r"gives 'A' at position \d, which is not"):
            model.sample(2, **constraints)
    made = model.sample(2, template="A????", allowed={0: "AB", 1: "C"}, random_state=0)
    assert all(one.startswith("AC") for one in made)


@every_generator
def test_samples_have_the_law_of_tokens_that_do_not_depend_on_each_other(cls):
    """Wrong: the surest first, which makes a likely token likelier still."""
    rng = np.random.default_rng(0)
    X = ["".join(rng.choice(["A", "B"], 6, p=[0.7, 0.3])) for _ in range(300)]
    own = {name: one for name, one in GENERATORS[cls].items() if name != "order"}
    model = cls(**{**SMALL, **own, "max_epochs": 12, "learning_rate": 1e-2}).fit(X)

    def share(**changes):
        found = model.set_params(**changes).sample(300, random_state=0)
        return "".join(found).count("A") / 1800

    truth = "".join(X).count("A") / 1800
    assert abs(share() - truth) < 0.06
    if "order" in model.get_params():
        assert share(order="confidence") > truth + 0.06


# ------------------------------------------------------------------- errors


@every_generator
def test_bad_calls_are_refused(cls):
    model, told = toy(cls), toy(cls, classes=["off", "on"])
    calls = [
        lambda: cls().sample(),
        lambda: model.sample(0),
        lambda: model.sample(2.5),
        lambda: model.sample(3, template=["A????", "B????"]),
        lambda: model.sample(template="A"),
        lambda: model.sample(template="Z????"),
        lambda: model.sample(temperature=-1),
        lambda: model.sample(temperature=float("nan")),
        lambda: model.sample(top_k=0),
        lambda: model.sample(top_p=0),
        lambda: model.sample(allowed="Z"),
        lambda: model.sample(allowed={0: ""}),
        lambda: model.sample(allowed={9: "A"}),
        lambda: model.sample(condition="on"),
        lambda: model.infill(["A?"]),
        lambda: model.score_samples(["A????"]),
        lambda: model.score_samples(["AAAAA"], ["on"]),
        lambda: told.sample(),
        lambda: told.sample(condition="other"),
        lambda: told.sample(3, condition=["on", "off"]),
        lambda: told.infill(["A????"] * 3, ["on", "off"]),
        lambda: told.score_samples(["AAAAA"]),
        lambda: told.score_samples(["AAAAA"], ["on", "off"]),
        lambda: told.score_samples(["AAAAA"] * 3, ["on", "off"]),
        lambda: cls(d_model=6, n_heads=4, **{"device": "cpu"}).fit(WORDS),
        lambda: cls(max_length=0).fit(WORDS),
        lambda: cls(max_length=2).fit(WORDS),
        lambda: cls(**SMALL).fit(WORDS, ["on"]),
    ]
    for number, call in enumerate(calls):
        with pytest.raises((SciSeqError, ValueError)) as caught:
            call()
        assert number == 0 or isinstance(caught.value, SciSeqError), number
    with pytest.raises(CapabilityError, match="without conditions"):
        model.sample(condition="on")


def test_a_failed_fit_changes_nothing():
    model = small(AutoregressiveSequence, WORDS)
    before = model.sample(3, random_state=0)
    with pytest.raises(InputError):
        model.fit(WORDS, validation_data=["ZZZZ"])
    assert model.sample(3, random_state=0) == before


def test_equal_sequences_are_on_one_side_of_the_split():
    model = AutoregressiveSequence(**SMALL, validation_fraction=0.4)
    tokens = torch.from_numpy(Alphabet.of(WORDS).encode(WORDS))
    train, held = model._split((tokens, None))
    assert len(held[0]) == 8  # 2 of 5 different ones
    assert not {tuple(x) for x in train[0].tolist()} & {
        tuple(x) for x in held[0].tolist()
    }


# ------------------------------------------------------------------- saving


@every_generator
def test_models_survive_pickle_save_and_clone(cls, tmp_path):
    y = ["on", "off"] * 10
    model = small(cls, WORDS, y)
    want = model.sample(4, condition=y[:4], random_state=5)
    scores = model.score_samples(WORDS[:4], y[:4])
    model.save(tmp_path / "model")
    for again in (pickle.loads(pickle.dumps(model)), sciseq.load(tmp_path / "model")):
        assert type(again) is cls
        assert again.sample(4, condition=y[:4], random_state=5) == want
        assert (again.score_samples(WORDS[:4], y[:4]) == scores).all()
    same = clone(model).fit(WORDS, y)  # the same seed, the same weights
    assert (same.score_samples(WORDS[:4], y[:4]) == scores).all()


@pytest.mark.parametrize("cls", list(GENERATORS)[1:])
def test_conversion_starts_from_the_weights(cls, tmp_path):
    base = small(AutoregressiveSequence, WORDS, max_epochs=2)
    before = {k: v.clone() for k, v in base.network_.state_dict().items()}
    model = cls.from_autoregressive(
        base, **GENERATORS[cls], max_epochs=1, learning_rate=1e-12, weight_decay=0.0,
        dropout=0.0, random_state=0, device="cpu",
    )  # fmt: skip
    for one in (model, clone(model), clone(clone(model)),
                pickle.loads(pickle.dumps(model))):  # fmt: skip
        one.fit(WORDS[:6])  # fewer tokens would be another alphabet
        assert one.alphabet_ == base.alphabet_
        for name, value in one.network_.state_dict().items():
            assert torch.allclose(value, before[name], atol=1e-8), name
    assert all(base.network_.state_dict()[k].equal(v) for k, v in before.items())
    if cls is DraftVerifySequence:
        assert np.allclose(model.score_samples(WORDS), base.score_samples(WORDS),
                           atol=1e-5)  # fmt: skip
    with pytest.raises(CapabilityError):
        model.fit(WORDS, ["on"] * 20)
    with pytest.raises(InputError, match="d_model"):
        cls.from_autoregressive(base, d_model=16)
    other = CombinerSequence(**{**SMALL, "max_epochs": 1}).fit(WORDS)
    with pytest.raises(InputTypeError, match="CombinerSequence; an Autoreg"):
        cls.from_autoregressive(other)
    model.save(tmp_path / "model")
    assert sciseq.load(tmp_path / "model").sample(2, random_state=0) == model.sample(
        2, random_state=0
    )


@every_generator
def test_training_is_continued_from_its_checkpoint(cls, tmp_path, monkeypatch):
    params = {**SMALL, **GENERATORS[cls], "max_epochs": 3}
    whole = cls(**params).fit(WORDS)
    stopping = cls(**params, checkpoint_dir=tmp_path)
    original = cls._loss

    def loss(self, seed):
        made = original(self, seed)
        on_step = made.on_step

        def stop(step, n_steps):
            if step >= 2 * n_steps // 3:
                raise RuntimeError("power cut")
            on_step(step, n_steps)

        made.on_step = stop
        return made

    monkeypatch.setattr(cls, "_loss", loss)
    with pytest.raises(RuntimeError, match="power cut"):
        stopping.fit(WORDS)
    monkeypatch.setattr(cls, "_loss", original)
    again = cls(**params, checkpoint_dir=tmp_path).fit(WORDS)
    for name, value in again.network_.state_dict().items():
        assert value.equal(whole.network_.state_dict()[name]), name


def test_the_learning_rate_follows_its_schedule():
    def factors(schedule):
        model = AutoregressiveSequence(**SMALL, learning_rate_schedule=schedule)
        model._on_step = lambda step, n: None
        made = model._training_options(0, torch.device("cpu"), 10, "", run="")
        return [
            made.schedule(1 + epoch) * made.step_schedule(epoch / 10)
            for epoch in (1, 5, 9)
        ]

    assert factors("constant") == [1, 1, 1]
    assert factors("halving") == [1, 0.5**4, 0.5**8]
    assert factors("cosine") == pytest.approx(
        [0.5 * (1 + np.cos(np.pi * x)) for x in (0.1, 0.5, 0.9)]
    )


def test_predicted_tokens_are_never_the_mask_or_the_begin():
    network = tiny_network(3, 4)
    assert (network.backbone.begin, network.mask) == (3, 4)
    assert network.backbone.head.out_features == 3
