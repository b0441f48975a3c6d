"""Calibrated probabilities and false discovery rates."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sciseq.errors import DataQualityError, InputError
from sciseq.sequencing.calibration import ScoreCalibration, q_values


def drawn(n, seed):
    """Scores, and truths whose probability is the square of the score."""
    rng = np.random.default_rng(seed)
    scores = rng.random(n)
    return scores, rng.random(n) < scores**2


def test_probabilities_are_those_of_the_truth():
    calibration = ScoreCalibration.fit(*drawn(200_000, 0))
    scores = np.linspace(0.05, 0.95, 50)
    found = calibration.probability(scores)
    assert np.abs(found - scores**2).max() < 0.04
    assert np.abs(scores - scores**2).max() > 0.2  # the scores themselves are not
    assert (np.diff(found) >= 0).all()


def test_rates_are_those_of_the_truth():
    calibration = ScoreCalibration.fit(*drawn(200_000, 0))
    scores, is_right = drawn(200_000, 1)
    q = q_values(calibration.probability(scores))
    for bound in (0.1, 0.2, 0.4):
        accepted = q <= bound
        assert accepted.sum() > 100
        # Peptides of one probability come together: the last rate may stay below.
        assert abs(1 - is_right[accepted].mean() - q[accepted].max()) < 0.01


@given(st.lists(st.floats(0, 1) | st.just(float("nan")), max_size=30))
def test_rates_equal_their_definition(probabilities):
    q = q_values(probabilities)
    p = np.array(probabilities)
    for value, rate in zip(p, q, strict=True):
        if np.isnan(value):
            assert np.isnan(rate)
        else:
            accepted = p[p >= value]
            assert rate == pytest.approx((1 - accepted).mean(), abs=1e-12)


def test_no_probability_is_certain():
    calibration = ScoreCalibration.fit(
        np.linspace(0, 1, 20), [False] * 10 + [True] * 10
    )
    found = calibration.probability([0.0, 0.4, 0.6, 1.0])
    assert found.min() == pytest.approx(1 / 22)
    assert found.max() == pytest.approx(21 / 22)
    assert np.isnan(calibration.probability([np.nan])[0])
    again = ScoreCalibration.from_dict(calibration.to_dict())
    assert np.array_equal(again.probability([0.3]), calibration.probability([0.3]))


def test_bad_input():
    with pytest.raises(InputError, match="must be"):
        ScoreCalibration.fit([0.1] * 10, [True] * 9)
    with pytest.raises(DataQualityError, match="at least 10"):
        ScoreCalibration.fit([0.1] * 9, [True] * 9)
    with pytest.raises(DataQualityError, match="9 of 10"):
        ScoreCalibration.fit([0.1] * 9 + [np.nan], [True] * 10)
