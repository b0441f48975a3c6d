"""From scores to probabilities of being right, and to false discovery rates.

Axes: n peptides.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sciseq.errors import DataQualityError, InputError

__all__ = ["ScoreCalibration", "q_values"]

FloatArray = npt.NDArray[np.float64]

_FEWEST = 10


@dataclass(frozen=True)
class ScoreCalibration:
    r"""Monotone map from a score to the probability that a peptide is right.

    .. math:: \hat p = \arg\min_{p \text{ monotone}} \sum_i (p(s_i) - r_i)^2

    Parameters
    ----------
    scores : ndarray, shape (k,)
        Knots, increasing.
    probabilities : ndarray, shape (k,)
        Probabilities at the knots; between them the map is linear, beyond them level.

    Notes
    -----
    Isotonic regression (scikit-learn's) on peptides of known truth; no probability is
    nearer to 0 or 1 than so many peptides can tell, :math:`1 / (n + 2)`.

    Examples
    --------
    >>> scores = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
    >>> is_right = [False] * 5 + [True] * 5
    >>> calibration = ScoreCalibration.fit(scores, is_right)
    >>> calibration.probability([0.1, 1.0]).round(3).tolist()
    [0.083, 0.917]
    """

    scores: FloatArray
    probabilities: FloatArray

    @classmethod
    def fit(
        cls, scores: Sequence[float] | FloatArray, is_right: Sequence[bool] | Any
    ) -> "ScoreCalibration":
        """Learn the map.

        Parameters
        ----------
        scores : array-like of shape (n,)
            Scores of peptides that were predicted.
        is_right : array-like of bool, shape (n,)
            Whether they are right.

        Raises
        ------
        InputError
            When the lengths differ.
        DataQualityError
            For fewer than ten peptides, or scores that are not finite.
        """
        from sklearn.isotonic import IsotonicRegression

        x, y = np.asarray(scores, np.float64), np.asarray(is_right, np.float64)
        if x.shape != y.shape or x.ndim != 1:
            raise InputError(
                f"scores have shape {x.shape}, is_right {y.shape}; both must be (n,)",
                where="ScoreCalibration.fit",
            )
        if len(x) < _FEWEST or not np.isfinite(x).all():
            raise DataQualityError(
                f"{int(np.isfinite(x).sum())} of {len(x)} scores are finite; all, and "
                f"at least {_FEWEST}, are needed",
                where="ScoreCalibration.fit",
                hint="Calibrate on more annotated spectra that were not trained on.",
            )
        least = 1 / (len(x) + 2)
        found = IsotonicRegression(y_min=least, y_max=1 - least).fit(x, y)
        return cls(found.X_thresholds_, found.y_thresholds_)

    def probability(self, scores: Sequence[float] | FloatArray) -> FloatArray:
        """Return the probabilities of scores; NaN stays NaN."""
        x = np.asarray(scores, np.float64)
        mapped = np.interp(x, self.scores, self.probabilities)
        return np.where(np.isnan(x), np.nan, mapped)

    def to_dict(self) -> dict[str, list[float]]:
        """Return plain lists, for saving."""
        return {
            "scores": self.scores.tolist(),
            "probabilities": self.probabilities.tolist(),
        }

    @classmethod
    def from_dict(cls, state: Mapping[str, Sequence[float]]) -> "ScoreCalibration":
        """Make it again from :meth:`to_dict`."""
        return cls(np.array(state["scores"]), np.array(state["probabilities"]))


def q_values(probabilities: Sequence[float] | FloatArray) -> FloatArray:
    r"""Estimate the false discovery rate at which each peptide is still accepted.

    .. math::

        FDR_k = \frac{1}{k} \sum_{i \le k} (1 - p_{(i)}), \qquad
        q_{(k)} = \min_{j \ge k} FDR_j

    with the probabilities in falling order; equal ones are accepted together.

    Parameters
    ----------
    probabilities : array-like of shape (n,)
        Calibrated probabilities of being right; NaN where there is no peptide.

    Returns
    -------
    ndarray, shape (n,)
        Expected share of wrong peptides among all that are at least as probable.

    Examples
    --------
    >>> q_values([0.9, 0.5, 0.7]).round(3).tolist()
    [0.1, 0.3, 0.2]
    """
    p = np.asarray(probabilities, np.float64)
    q = np.full(p.shape, np.nan)
    known = np.flatnonzero(~np.isnan(p))
    if not len(known):
        return q
    order = known[np.argsort(-p[known], kind="stable")]
    falling = p[order]
    rates = np.cumsum(1 - falling) / np.arange(1, len(falling) + 1)
    # All peptides of one probability are accepted with the last of them.
    last = np.searchsorted(-falling, -falling, side="right") - 1
    q[order] = rates[last]
    return q
