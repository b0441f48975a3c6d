"""Checks of what a generator promises: samples, templates, scores, its containers."""

import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from sciseq.testing.sequences import fit, fixed, results, strings
from sciseq.testing.tables import refuses, same

__all__ = [
    "check_bad_calls",
    "check_conditions",
    "check_fit_a_path",
    "check_fit_a_series",
    "check_fixed_length",
    "check_generator_copies_hold_cpu_weights",
    "check_infill_keeps_lengths",
    "check_infill_keeps_what_is_given",
    "check_integers",
    "check_legal_tokens",
    "check_lists_of_tokens",
    "check_one_token",
    "check_samples_are_sequences",
    "check_samples_depend_on_the_seed",
    "check_samples_do_not_depend_on_their_number",
    "check_sampling_in_threads",
    "check_scores_are_log_probabilities",
    "check_scores_do_not_depend_on_each_other",
    "check_standard_errors",
    "check_templates_are_kept",
    "check_unknown_tokens",
]

_N = 6


def check_samples_are_sequences(estimator: Any) -> None:
    """Samples are strings of known letters, no longer than those of fit."""
    made = fit(estimator).sample(_N, random_state=0)
    assert len(made) == _N, f"{len(made)} sequences"
    assert all(isinstance(one, str) for one in made), made
    assert set("".join(made)) <= set("ACGT"), made
    assert max(map(len, made)) <= 6, made


def check_fixed_length(estimator: Any) -> None:
    """Sequences of one length teach that length."""
    made = fit(estimator, fixed()).sample(_N, random_state=0)
    assert {len(one) for one in made} == {5}, made


def check_samples_depend_on_the_seed(estimator: Any) -> None:
    """The same seed gives the same samples, another one others."""
    model = fit(estimator, fixed())
    first = list(model.sample(_N, random_state=0))
    same(list(model.sample(_N, random_state=0)), first)
    assert list(model.sample(_N, random_state=1)) != first, "the seed changes nothing"


def check_samples_do_not_depend_on_their_number(estimator: Any) -> None:
    """A sample is what it is, however many are drawn with it."""
    model = fit(estimator, fixed())
    many = list(model.sample(_N, random_state=0))
    same(list(model.sample(2, random_state=0)), many[:2])


def check_sampling_in_threads(estimator: Any) -> None:
    """Samples drawn in several threads at once are those drawn alone."""
    model = fit(estimator, fixed())
    alone = list(model.sample(_N, random_state=0))
    with ThreadPoolExecutor(2) as pool:
        for made in pool.map(lambda _: model.sample(_N, random_state=0), range(4)):
            same(list(made), alone)


def check_templates_are_kept(estimator: Any) -> None:
    """What a template gives stands in every sample."""
    model = fit(estimator, fixed())
    made = model.sample(_N, template="A??T?", random_state=0)
    assert all(one[0] == "A" and one[3] == "T" for one in made), made
    same(list(model.sample(2, template="ACGTA")), ["ACGTA"] * 2)


def check_legal_tokens(estimator: Any) -> None:
    """Nothing but legal tokens is drawn."""
    model = fit(estimator, fixed())
    made = model.sample(_N, allowed="AT", random_state=0)
    assert set("".join(made)) <= set("AT"), made
    made = model.sample(_N, allowed={0: "G", 4: "CG"}, random_state=0)
    assert all(one[0] == "G" and one[4] in "CG" for one in made), made


def check_infill_keeps_what_is_given(estimator: Any) -> None:
    """Gaps are filled, and nothing else is changed."""
    gaps = ["A??TA", "?TGAC", "ACGT?", "GATTA"]
    made = fit(estimator, fixed()).infill(gaps, random_state=0)
    for given, found in zip(gaps, made, strict=True):
        assert "?" not in found, found
        pairs = zip(given, found, strict=True)
        assert all(a in ("?", b) for a, b in pairs), f"{given} became {found}"


def check_infill_keeps_lengths(estimator: Any) -> None:
    """A gap is a token: where lengths vary, that of a sequence with gaps is kept."""
    gaps = ["A?G", "??", "ACG???"]
    made = fit(estimator).infill(gaps, random_state=0)
    same([len(one) for one in made], [len(one) for one in gaps])


def check_scores_are_log_probabilities(estimator: Any) -> None:
    """Scores are finite, one for each sequence, and ``score`` is their mean."""
    model, X = fit(estimator), strings()[:_N]
    scores = _scores(model, X)
    assert scores.shape == (_N,), scores.shape
    assert np.isfinite(scores).all(), scores
    np.testing.assert_allclose(model.score(X), scores.mean(), rtol=1e-6)


def check_scores_do_not_depend_on_each_other(estimator: Any) -> None:
    """A sequence's score does not depend on the order of the others."""
    model, X = fit(estimator), strings()[:_N]
    found = _scores(model, X[::-1])[::-1]
    np.testing.assert_allclose(found, _scores(model, X), rtol=1e-5)


def check_standard_errors(estimator: Any) -> None:
    """Estimates come with errors, and the same seed gives the same ones."""
    model, X = fit(estimator), strings()[:_N]
    values, errors = model.score_samples(X, return_std=True)
    assert errors.shape == values.shape, errors.shape
    assert (errors >= 0).all(), errors
    same(_scores(model, X).tolist(), values.tolist())


def _scores(model: Any, X: Any) -> Any:
    scores = model.score_samples(X)
    assert isinstance(scores, np.ndarray), f"scores are a {type(scores).__name__}"
    return scores


def check_lists_of_tokens(estimator: Any) -> None:
    """Lists of tokens come out as lists, and score as strings of them do."""
    model = fit(estimator, [list(one) for one in fixed()])
    made = model.sample(_N, random_state=0)
    words = list(fit(estimator, fixed()).sample(_N, random_state=0))
    same(["".join(one) for one in made], words)
    filled = model.infill([["A", None, "G", "T", "A"]], random_state=0)[0]
    same([filled[0], *filled[2:]], ["A", "G", "T", "A"])


def check_integers(estimator: Any) -> None:
    """Rows of integers come out as rows of those integers."""
    table = np.array([[3, 7, 7, 9], [7, 3, 9, 9], [9, 9, 3, 7]] * 4)
    made = fit(estimator, table).sample(_N, random_state=0)
    assert isinstance(made, np.ndarray), f"a {type(made).__name__} came out"
    assert made.shape == (_N, 4), made.shape
    assert set(made.flat) <= {3, 7, 9}, made


def check_fit_a_series(estimator: Any) -> None:
    """A pandas Series teaches what a list of its strings teaches."""
    series = pd.Series(strings(), index=range(5, 5 + len(strings())))
    same(results(fit(estimator, series)), results(fit(estimator)))


def check_fit_a_path(estimator: Any) -> None:
    """A FASTA file teaches what its sequences teach."""
    lines = "".join(f">s{i}\n{one}\n" for i, one in enumerate(strings()))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "some.fasta"
        path.write_text(lines, encoding="utf-8")
        model = fit(estimator, path)
        same(results(model, str(path)), results(fit(estimator)))


def check_one_token(estimator: Any) -> None:
    """Sequences of a single token can be learnt and sampled."""
    made = fit(estimator, ["A", "C"] * 6).sample(_N, random_state=0)
    assert set(made) <= {"A", "C"}, made


def check_conditions(estimator: Any) -> None:
    """Conditions are needed when they were learnt, and refused when not."""
    labels = ["one", "two"] * _N
    model = fit(estimator, fixed(), labels)
    assert len(model.sample(_N, "one", random_state=0)) == _N
    assert len(model.sample(condition=labels, random_state=0)) == 2 * _N
    assert np.isfinite(model.score_samples(fixed(), labels)).all()
    with refuses("condition"):
        model.sample(2)
    with refuses("three", "one"):
        model.sample(2, "three")
    with refuses("condition"):
        fit(estimator, fixed()).sample(2, "one")


def check_unknown_tokens(estimator: Any) -> None:
    """An unknown token, and a sequence that is too long, are refused by their place."""
    model = fit(estimator)
    with refuses("'x'", "sequence 1"):
        model.score_samples(["ACG", "AxG"])
    with refuses("sequence 0", "7"):
        model.score_samples(["ACGTACG"])


def check_bad_calls(estimator: Any) -> None:
    """Arguments that make no sense are refused."""
    model = fit(estimator, fixed())
    calls: list[tuple[str, Callable[[], Any]]] = [
        ("0 sequences", lambda: model.sample(0)),
        ("temperature", lambda: model.sample(1, temperature=-1.0)),
        ("top_p", lambda: model.sample(1, top_p=0.0)),
        ("allowed", lambda: model.sample(1, allowed="xyz")),
        ("templates", lambda: model.sample(2, template=["A????"] * 3)),
        ("int", lambda: model.fit(5)),
    ]
    for word, call in calls:
        with refuses(word):
            call()


def check_generator_copies_hold_cpu_weights(estimator: Any) -> None:
    """A fitted generator pickles with weights on the CPU."""
    state = fit(estimator).__getstate__()
    networks = [one for one in state.values() if isinstance(one, torch.nn.Module)]
    assert networks, "no network was learnt"
    devices = {one.device.type for net in networks for one in net.parameters()}
    assert devices == {"cpu"}, devices
