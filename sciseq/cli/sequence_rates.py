"""False discovery rates of ``sciseq sequence predict``: q-values, and who is left out.

Axes: n spectra.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["FDR_METHODS", "DecoyScores", "if_accepted", "rates"]

FloatArray = npt.NDArray[np.float64]

FDR_METHODS = {"calibrated": "q_value", "decoy": "decoy_q_value"}
"""Column of the q-values, by the way they are estimated."""

# What the row of a spectrum without peptide does not tell.
_OF_PEPTIDES = ("peptide", "score", "residue_scores", "calculated_mz", "error_ppm")


class DecoyScores:
    """A model whose rows also tell the score of a decoy of each spectrum.

    Spectra may come part by part; their decoys are those of
    ``model.predict_table(spectra, fdr="decoy")``.

    Parameters
    ----------
    model : PeptideSequencer
        Fitted.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._rng = np.random.default_rng(0)  # the seed of `decoy_spectra`

    def skip(self, record: Any) -> None:
        """Pass over a spectrum whose row is there already."""
        self._decoys([record])

    def iter_rows(self, records: list[Any]) -> Iterator[dict[str, Any]]:
        """Yield the rows of some spectra."""
        decoys = self._model.iter_rows(self._decoys(records))
        for row, decoy in zip(self._model.iter_rows(records), decoys, strict=True):
            yield row | {"decoy_score": decoy["score"]}

    def _decoys(self, records: list[Any]) -> list[Any]:
        from sciseq.sequencing.decoys import decoy_spectra

        return decoy_spectra(records, self._rng)


def rates(
    rows: Callable[[], Iterable[dict[str, Any]]], calibration: Any, method: str
) -> dict[str, FloatArray]:
    """Return the columns that need the scores of all rows.

    Parameters
    ----------
    rows : callable
        Returns the rows; nothing of them but scores is held.
    calibration : ScoreCalibration or None
        What turns scores into probabilities.
    method : {"calibrated", "decoy"}
        With ``"decoy"`` rows have the scores of decoys.

    Returns
    -------
    dict of str to ndarray of shape (n,)
        NaN where there is no peptide.
    """
    from sciseq.sequencing.calibration import q_values
    from sciseq.sequencing.decoys import decoy_q_values

    found: dict[str, FloatArray] = {}
    if calibration is None and method != "decoy":
        return found
    scores = _column(rows(), "score")
    if calibration is not None:
        probability = calibration.probability(scores)
        found |= {"probability": probability, "q_value": q_values(probability)}
    if method == "decoy":
        decoys = _column(rows(), "decoy_score")
        found |= {
            "decoy_score": decoys,
            "decoy_q_value": decoy_q_values(scores, decoys),
        }
    return found


def _column(rows: Iterable[dict[str, Any]], name: str) -> FloatArray:
    values = (row[name] for row in rows)
    return np.fromiter((math.nan if one is None else one for one in values), np.float64)


def if_accepted(row: dict[str, Any], method: str, fdr: float) -> dict[str, Any]:
    """Return a row, without its peptide where the q-value is too large.

    Parameters
    ----------
    row : dict
        With the q-value.
    method : {"calibrated", "decoy"}
        Which one counts.
    fdr : float
        Largest q-value.

    Examples
    --------
    >>> row = {"peptide": "GAVLK", "score": 0.9, "q_value": 0.02, "reason": ""}
    >>> if_accepted(row, "calibrated", 0.05) == row
    True
    >>> if_accepted(row, "calibrated", 0.01)["reason"]
    'the q-value 0.02 is above 0.01'
    """
    q = row[FDR_METHODS[method]]
    if row["peptide"] is None or q <= fdr:
        return row
    reason = f"the q-value {q:.3g} is above {fdr:g}"
    return row | dict.fromkeys(_OF_PEPTIDES) | {"reason": reason}
