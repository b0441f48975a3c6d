"""Every registered generator of sequences passes the battery, and the battery can fail.

Generators are those of the registry whose class is a SequenceGenerator.
"""

import importlib

import numpy as np
import pytest

from sciseq.errors import SciSeqError
from sciseq.generation.alphabet import Alphabet
from sciseq.generation.base import SequenceGenerator
from sciseq.generation.sequences.autoregressive import AutoregressiveSequence
from sciseq.registry import METHODS
from sciseq.testing import check_estimator, checks_for

SMALL = {
    "d_model": 8, "d_ff": 8, "n_layers": 1, "n_heads": 2, "max_epochs": 1,
    "batch_size": 8, "random_state": 0, "device": "cpu",
}  # fmt: skip


def generators():
    for method in METHODS:
        if method.data == "generation":
            module = importlib.import_module(method.module_name)
            made = getattr(module, method.class_name)
            # The battery's data are sequences, not arrays of two axes.
            if issubclass(made, SequenceGenerator) and made.alphabet_type is Alphabet:
                yield pytest.param(made, id=method.name)


@pytest.mark.parametrize("made", list(generators()))
def test_battery(made) -> None:
    results = check_estimator(made(**SMALL), kind="generator")
    passed = [one.name for one in results if one.status == "passed"]
    assert len(passed) >= 36, [one for one in results if one.status != "passed"]


class Forgetful(AutoregressiveSequence):
    """Samples anew whatever the template says."""

    def sample(self, n=None, condition=None, *, template=None, **others):
        del template
        return super().sample(n, condition, **others)


class FollowsTheBatch(AutoregressiveSequence):
    """Draws by the number of samples."""

    def sample(self, n=None, condition=None, *, random_state=None, **others):
        seed = None if random_state is None else random_state + (n or 0)
        return super().sample(n, condition, random_state=seed, **others)


class LosesLabels(AutoregressiveSequence):
    """Takes conditions, and makes no use of them."""

    def fit(self, X, y=None, **others):
        return super().fit(X, **others)

    def sample(self, n=None, condition=None, **others):
        size = len(condition) if isinstance(condition, list) else n
        return super().sample(size, **others)

    def score_samples(self, X, condition=None, **others):
        return super().score_samples(X, **others)


class Boasts(AutoregressiveSequence):
    """Its score is no mean."""

    def score(self, X, y=None):
        return float(np.sum(self.score_samples(X, y)))


class FillsEverything(AutoregressiveSequence):
    """Fills gaps by sampling whole sequences."""

    def infill(self, X, condition=None, **others):
        return [self.sample(1, condition, **others)[0][: len(one)] for one in X]


class TakesAnything(AutoregressiveSequence):
    """Hides what it cannot read."""

    def score_samples(self, X, condition=None, **others):
        try:
            return super().score_samples(X, condition, **others)
        except SciSeqError:
            return np.zeros(len(X))


@pytest.mark.parametrize(
    ("wrong", "check"),
    [
        (Forgetful, "check_templates_are_kept"),
        (FollowsTheBatch, "check_samples_do_not_depend_on_their_number"),
        (LosesLabels, "check_conditions"),
        (Boasts, "check_scores_are_log_probabilities"),
        (FillsEverything, "check_infill_keeps_what_is_given"),
        (TakesAnything, "check_unknown_tokens"),
    ],
)
def test_the_battery_sees_what_is_wrong(wrong, check) -> None:
    with pytest.raises(AssertionError):
        checks_for("generator")[check](wrong(**SMALL))
