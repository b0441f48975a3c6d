r"""How well predicted peptides agree with the true ones.

Residues are compared by mass, so that I equals L and deamidated N equals D. A predicted
residue is right when the masses before it agree within 0.5 Da and its own mass within
0.1 Da, counted from the N-terminus or, behind the first disagreement, from the
C-terminus. A peptide is right when all its residues are.

.. math::
    \text{AA precision} = \frac{\text{right residues}}{\text{predicted residues}},
    \qquad
    \text{AA recall} = \frac{\text{right residues}}{\text{true residues}}, \qquad
    \text{peptide recall} = \frac{\text{right peptides}}{\text{all spectra}}.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from sciseq.errors import DataQualityError, InputError, InputTypeError
from sciseq.sequencing.residues import Vocabulary

__all__ = ["Evaluation", "PrecisionCoverage", "evaluate", "match_residues"]

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
_Pair = tuple[int, int, bool]

# Da, as in the published comparisons of sequencing methods.
_PREFIX_TOLERANCE = 0.5
_RESIDUE_TOLERANCE = 0.1


@dataclass(frozen=True, eq=False)
class PrecisionCoverage:
    """Precision among the best scored spectra against their share of all spectra.

    Parameters
    ----------
    coverage : ndarray of shape (n_spectra,)
        ``k / n_spectra`` for k = 1 to n_spectra, best score first.
    precision : ndarray of shape (n_spectra,)
        Right peptides among the first k, divided by k. Where scores are equal it is
        the mean over their orders.
    score : ndarray of shape (n_spectra,)
        Score of the k-th spectrum; minus infinity where there is no prediction.
    area : float
        Trapezoid of precision over coverage from 0 to 1; from 0 to the first point
        precision is that of the first point.
    """

    coverage: FloatArray
    precision: FloatArray
    score: FloatArray
    area: float


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Agreement of predicted with true peptides.

    Parameters
    ----------
    aa_precision : float
        Right residues / predicted residues; NaN when nothing was predicted.
    aa_recall : float
        Right residues / residues of the true peptides of all spectra.
    peptide_recall : float
        Right peptides / all spectra. Papers call it peptide precision too.
    coverage : float
        Spectra with a prediction / all spectra.
    n_spectra, n_predicted, n_matched : int
        All spectra, those with a prediction, and those with the right peptide.
    n_true_residues, n_predicted_residues, n_matched_residues : int
        The same for residues; a modification of the N-terminus counts as one.
    is_match : ndarray of bool of shape (n_spectra,)
        Whether the peptide of each spectrum is right.
    precision_coverage : PrecisionCoverage, optional
        None without scores.
    """

    aa_precision: float
    aa_recall: float
    peptide_recall: float
    coverage: float
    n_spectra: int
    n_predicted: int
    n_matched: int
    n_true_residues: int
    n_predicted_residues: int
    n_matched_residues: int
    is_match: BoolArray = field(repr=False)
    precision_coverage: PrecisionCoverage | None = field(default=None, repr=False)


def match_residues(
    truth_masses: npt.ArrayLike, predicted_masses: npt.ArrayLike
) -> BoolArray:
    """Return which residues of a predicted peptide agree with the true one.

    Both peptides are walked from the N-terminus. Where the masses so far, each
    including the current residue, agree within 0.5 Da, the residues are compared
    (within 0.1 Da) and both go on; otherwise the lighter one goes on alone. When not
    all agree, the same is done from the C-terminus, down to the first place that
    disagreed.

    Parameters
    ----------
    truth_masses, predicted_masses : array-like of shape (n_tokens,)
        Masses in Da, N to C; either may be empty.

    Returns
    -------
    ndarray of bool
        As long as the longer peptide; the place of a pair is the later one of its two.
        The peptides are equal when all are true.

    Raises
    ------
    InputError
        When an argument is not one-dimensional.
    DataQualityError
        When a mass is NaN or infinite.

    Examples
    --------
    >>> match_residues([57.02, 71.04, 99.07], [57.02, 71.04, 99.07]).tolist()
    [True, True, True]
    >>> match_residues([57.02, 71.04, 99.07], [71.04, 57.02, 99.07]).tolist()
    [False, False, True]
    """
    truth = _checked_masses(truth_masses, "truth_masses")
    predicted = _checked_masses(predicted_masses, "predicted_masses")
    return np.array(_match(truth, predicted), bool)


def evaluate(
    truths: Sequence[str],
    predictions: Sequence[str | None],
    scores: npt.ArrayLike | None = None,
    *,
    vocabulary: Vocabulary | None = None,
) -> Evaluation:
    """Compare predicted peptides with the true ones.

    Parameters
    ----------
    truths : sequence of str
        True peptide of every spectrum, ProForma or an older notation.
    predictions : sequence of str or None
        One per spectrum, in the same order; None, NaN or ``""`` where there is none.
    scores : array-like of shape (n_spectra,), optional
        Confidence, higher is better; any value where there is no prediction.
    vocabulary : Vocabulary, optional
        How letters and names are read, default ``Vocabulary()``. Modifications that it
        lacks are looked up in the table of modifications.

    Returns
    -------
    Evaluation
        Every spectrum counts, with or without prediction.

    Raises
    ------
    InputError
        When the lengths differ, there is no spectrum, or a peptide cannot be read.
    DataQualityError
        When the score of a prediction is NaN.

    Notes
    -----
    Casanovo's rule (Yilmaz et al., De novo mass spectrometry peptide sequencing with a
    transformer model, ICML 2022), with two additions: equal scores do not depend on
    the order of the spectra, and the area begins at coverage 0.

    Examples
    --------
    >>> result = evaluate(["PEPTIDEK", "GAVK"], ["PEPTLDEK", None])
    >>> result.peptide_recall, result.coverage, result.aa_precision
    (0.5, 0.5, 1.0)
    """
    _check_lengths(truths, predictions, scores)
    vocabulary = vocabulary or Vocabulary()
    # The same peptides come back often, among spectra and between the two lists.
    known: dict[str, list[float]] = {}
    true_masses = [_masses_of(text, vocabulary, known) for text in truths]
    texts = [_text_of(one, place) for place, one in enumerate(predictions)]
    predicted_masses = [
        _masses_of(text, vocabulary, known) if text else [] for text in texts
    ]
    flags = [_match(*pair) for pair in zip(true_masses, predicted_masses, strict=True)]
    is_match = np.array([all(one) for one in flags], bool)
    is_predicted = np.array([bool(masses) for masses in predicted_masses], bool)
    n_true = sum(map(len, true_masses))
    n_predicted = sum(map(len, predicted_masses))
    n_right = sum(map(sum, flags))
    curve = None
    if scores is not None:
        curve = _precision_coverage(is_match, is_predicted, scores)
    return Evaluation(
        aa_precision=n_right / n_predicted if n_predicted else math.nan,
        aa_recall=n_right / n_true,
        peptide_recall=float(is_match.mean()),
        coverage=float(is_predicted.mean()),
        n_spectra=len(flags),
        n_predicted=int(is_predicted.sum()),
        n_matched=int(is_match.sum()),
        n_true_residues=n_true,
        n_predicted_residues=n_predicted,
        n_matched_residues=n_right,
        is_match=is_match,
        precision_coverage=curve,
    )


def _match(truth: list[float], predicted: list[float]) -> list[bool]:
    flags = [False] * max(len(truth), len(predicted))
    for i, j, is_same in _pairs(truth, predicted):
        flags[max(i, j)] = is_same
    if all(flags):
        return flags
    first = flags.index(False)
    last, last_predicted = len(truth) - 1, len(predicted) - 1
    for i, j, is_same in _pairs(truth[first:][::-1], predicted[first:][::-1]):
        flags[max(last - i, last_predicted - j)] = is_same
    return flags


def _pairs(truth: list[float], predicted: list[float]) -> Iterator[_Pair]:
    """Yield the places that end at the same mass, and whether they weigh the same."""
    i = j = 0
    mass = predicted_mass = 0.0
    while i < len(truth) and j < len(predicted):
        one, other = truth[i], predicted[j]
        excess = (predicted_mass + other) - (mass + one)
        is_level = abs(excess) < _PREFIX_TOLERANCE
        if is_level:
            yield i, j, abs(one - other) < _RESIDUE_TOLERANCE
        if is_level or excess > 0:
            i, mass = i + 1, mass + one
        if is_level or excess < 0:
            j, predicted_mass = j + 1, predicted_mass + other


def _checked_masses(masses: npt.ArrayLike, name: str) -> list[float]:
    values = np.asarray(masses, np.float64)
    if values.ndim != 1:
        raise InputError(f"{name} has shape {values.shape}, (n_tokens,) is needed")
    if not np.isfinite(values).all():
        raise DataQualityError(f"{name} holds NaN or infinity", where=name)
    return list(values.tolist())


def _precision_coverage(
    is_match: BoolArray, is_predicted: BoolArray, scores: npt.ArrayLike
) -> PrecisionCoverage:
    score = np.where(is_predicted, np.asarray(scores, np.float64), -np.inf)
    if np.isnan(score).any():
        raise DataQualityError(
            "the score of a prediction is NaN",
            where=f"spectrum {int(np.argmax(np.isnan(score)))}",
        )
    order = np.lexsort((is_predicted, score))[::-1]
    score, is_last = score[order], ~is_predicted[order]
    is_new = (score[1:] != score[:-1]) | (is_last[1:] != is_last[:-1])
    starts = np.flatnonzero(np.concatenate([[True], is_new]))
    sizes = np.diff(np.append(starts, len(score)))
    # Equal scores have no order: each counts as the share of right ones among them.
    shares = np.add.reduceat(is_match[order].astype(np.float64), starts) / sizes
    rank = np.arange(1, len(score) + 1)
    coverage = rank / len(score)
    precision = np.cumsum(np.repeat(shares, sizes)) / rank
    heights = np.concatenate([precision[:1], precision])
    area = ((heights[1:] + heights[:-1]) / 2).sum() / len(score)
    return PrecisionCoverage(coverage, precision, score, float(area))


def _masses_of(
    peptide: str, vocabulary: Vocabulary, known: dict[str, list[float]]
) -> list[float]:
    if peptide not in known:
        known[peptide] = vocabulary.token_masses(peptide).tolist()
    return known[peptide]


def _text_of(prediction: object, place: int) -> str:
    """Return a prediction's text, empty where there is none."""
    if isinstance(prediction, str):
        return prediction
    is_nan = isinstance(prediction, float) and math.isnan(prediction)
    # pandas has a missing value of its own, and this module does not need pandas.
    if prediction is None or is_nan or repr(prediction) == "<NA>":
        return ""
    raise InputTypeError(
        f"a prediction is {prediction!r}, must be text, or None where there is none",
        where=f"spectrum {place}",
    )


def _check_lengths(
    truths: Sequence[str],
    predictions: Sequence[str | None],
    scores: npt.ArrayLike | None,
) -> None:
    lengths = {"truths": (len(truths),), "predictions": (len(predictions),)}
    if scores is not None:
        lengths["scores"] = np.shape(scores)
    if len(set(lengths.values())) > 1 or not len(truths):
        given = ", ".join(f"{name} {shape}" for name, shape in lengths.items())
        raise InputError(
            f"the shapes are {given}; one of each is needed per spectrum, and at "
            "least one spectrum",
            where="evaluate",
            hint="Give None as the prediction of a spectrum without one.",
        )
