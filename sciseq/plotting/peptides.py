"""Pictures of predicted peptides: how sure, and how often right."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from sciseq.errors import InputError, InputTypeError
from sciseq.plotting.canvas import SERIES_COLORS, place_legend, single_axes, tidy
from sciseq.plotting.ion_labels import shift_texts
from sciseq.sequencing.evaluation import Evaluation
from sciseq.sequencing.residues import Vocabulary

__all__ = ["plot_precision_coverage", "plot_residue_confidence"]


def plot_residue_confidence(
    row_or_peptide: Any,
    residue_scores: Sequence[float] | None = None,
    *,
    vocabulary: Vocabulary | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw the score of each residue of a peptide as a bar, N to C.

    Parameters
    ----------
    row_or_peptide : str, or mapping
        A peptide in ProForma, or a row of
        :meth:`~sciseq.sequencing.sequencer.PeptideSequencer.predict_table`.
    residue_scores : sequence of float, optional
        One per residue, in [0, 1]. By default those of the row.
    vocabulary : Vocabulary, optional
        How letters and names are read; default ``Vocabulary()``.
    ax : Axes, optional
        Where to draw; by default on a new figure.

    Returns
    -------
    Axes
        ``.figure`` is its figure. In a notebook it shows itself.

    Raises
    ------
    InputError
        When there is no peptide, or not one score per residue, or one outside [0, 1].

    Examples
    --------
    >>> axis = plot_residue_confidence("PEMK", [0.9, 0.8, 0.95, 1.0])
    >>> [label.get_text() for label in axis.get_xticklabels()]
    ['P', 'E', 'M', 'K']
    """
    peptide, title = row_or_peptide, ""
    if not isinstance(row_or_peptide, str):
        peptide, row_scores, title = _of_row(row_or_peptide)
        residue_scores = row_scores if residue_scores is None else residue_scores
    residues = shift_texts(peptide, vocabulary)
    scores = np.asarray([] if residue_scores is None else residue_scores, np.float64)
    if scores.shape != (len(residues),):
        raise InputError(
            f"residue_scores have shape {scores.shape}, {peptide!r} has "
            f"{len(residues)} residues",
            where="residue_scores",
        )
    if not ((scores >= 0) & (scores <= 1)).all():
        raise InputError(
            f"residue_scores reach from {scores.min()} to {scores.max()}, must be in "
            "[0, 1]",
            where="residue_scores",
        )
    axis = single_axes(ax, 3.2)
    places = np.arange(len(residues))
    axis.bar(places, scores, width=0.7, color=SERIES_COLORS[0])
    has_shifts = any(shift for _, shift in residues)
    # All of one height, or the letters would not stand on one line.
    texts = [f"{one}\n{shift}" if has_shifts else one for one, shift in residues]
    axis.set_xticks(places, texts)
    axis.tick_params(axis="x", length=0)
    axis.set_xlim(-0.6, len(residues) - 0.4)
    axis.set_ylim(0, 1)
    axis.set_xlabel("residue, N to C")
    axis.set_ylabel("score")
    axis.set_title(title, loc="left", fontsize="medium")
    tidy(axis)
    return axis


def plot_precision_coverage(
    evaluations: Mapping[str, Evaluation], *, ax: Axes | None = None
) -> Axes:
    """Draw how many peptides are right among the best scored ones.

    Parameters
    ----------
    evaluations : dict of str to Evaluation
        Results of :func:`sciseq.sequencing.evaluation.evaluate`, with scores, by the
        name of the model; at most six.
    ax : Axes, optional
        Where to draw; by default on a new figure.

    Returns
    -------
    Axes
        ``.figure`` is its figure. In a notebook it shows itself.

    Raises
    ------
    InputError
        When there is no evaluation, more than six, or one without scores.

    Notes
    -----
    Coverage is the share of all spectra, precision that of right peptides among them.
    A dot marks where the predictions end; behind it come spectra without one.

    Examples
    --------
    >>> from sciseq.sequencing.evaluation import evaluate
    >>> result = evaluate(["GAVK", "PEPTK"], ["GAVK", "GAVK"], [0.9, 0.5])
    >>> axis = plot_precision_coverage({"ours": result})
    >>> axis.get_lines()[0].get_ydata().tolist()
    [1.0, 0.5]
    """
    if not 1 <= len(evaluations) <= len(SERIES_COLORS):
        raise InputError(
            f"{len(evaluations)} evaluations were given, 1 to {len(SERIES_COLORS)} "
            "can be drawn",
            where="evaluations",
        )
    curves = {name: one.precision_coverage for name, one in evaluations.items()}
    for name, curve in curves.items():
        if curve is None:
            raise InputError(
                f"the evaluation {name!r} was made without scores",
                where="evaluations",
                hint="Give evaluate(truths, predictions, scores) the scores.",
            )
    axis = single_axes(ax, 4.0)
    shown = []
    for (name, curve), color in zip(curves.items(), SERIES_COLORS, strict=False):
        assert curve is not None  # what has just been checked
        shown.append(f"{name} (area {curve.area:.3f})")
        axis.plot(curve.coverage, curve.precision, color=color, label=shown[-1])
        last = evaluations[name].n_predicted - 1
        if last >= 0:
            end = curve.coverage[last], curve.precision[last]
            axis.plot(*end, marker="o", markersize=5, color=color, clip_on=False)
    axis.set_xlim(0, 1)
    axis.set_ylim(0, 1.02)
    axis.set_xlabel("coverage (share of all spectra)")
    axis.set_ylabel("precision of peptides")
    tidy(axis)
    place_legend([axis], shown, is_own=ax is None)
    return axis


def _of_row(row: Any) -> tuple[str, Sequence[float] | None, str]:
    """Return peptide, residue scores and a title of a row of predictions."""
    try:
        peptide, scores = row["peptide"], row["residue_scores"]
        score = row.get("score")
    except (TypeError, KeyError, IndexError, AttributeError):
        raise InputTypeError(
            f"a {type(row).__name__} is neither a peptide nor a row of predictions",
            where="row_or_peptide",
            hint="Give a text, or a row as in table.iloc[0].",
        ) from None
    if not isinstance(peptide, str) or not peptide:
        raise InputError(
            f"the row has no peptide ({row.get('reason') or 'no reason given'})",
            where=f"row_or_peptide, {row.get('identifier', '')}",
        )
    title = peptide if score is None else f"{peptide}   score {score:.3f}"
    return peptide, scores, title
