"""The command ``sciseq sequence evaluate``: predictions against known peptides."""

import json
import math
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from sciseq.cli.sequence_files import check_spectra, load_sequencer, read_predictions
from sciseq.cli.sequence_prediction import predicted_chunks
from sciseq.cli.sequence_progress import make_progress
from sciseq.errors import DataQualityError, InputError, SciSeqWarning
from sciseq.sequencing.evaluation import Evaluation, evaluate
from sciseq.sequencing.spectrum_files import read_spectra

__all__ = [
    "EvaluateRequest",
    "Truth",
    "evaluate_model",
    "evaluate_table",
    "read_truths",
    "run_evaluate",
    "write_evaluation",
]


class Truth(NamedTuple):
    """The known peptide of a spectrum, None where the file has none."""

    name: str  # of the file, without its folder
    identifier: str
    peptide: str | None


@dataclass(frozen=True)
class EvaluateRequest:
    """What the user asked for; see the help of the command."""

    spectra: list[Path]
    model: Path | None = None
    predictions: Path | None = None
    as_json: bool = False
    device: str = "auto"
    quiet: bool = False


def run_evaluate(request: EvaluateRequest) -> None:
    """Compare predictions with the peptides in the files, and write the measures.

    Parameters
    ----------
    request : EvaluateRequest
        Spectra, and a model or its predictions.
    """
    if (request.model is None) == (request.predictions is None):
        raise InputError(
            "either --model or --predictions is needed, and not both", where="options"
        )
    check_spectra(request.spectra)
    if request.predictions is not None:
        table = read_predictions(request.predictions)
        truths = read_truths(request.spectra)
        evaluation = evaluate_table(table, truths, request.predictions)
    else:
        assert request.model is not None  # one of both is given
        model = load_sequencer(request.model, request.device)
        truths = read_truths(request.spectra)
        evaluation = evaluate_model(model, request.spectra, truths, quiet=request.quiet)
    write_evaluation(evaluation, as_json=request.as_json)


def read_truths(paths: Sequence[Path], where: str = "SPECTRA") -> list[Truth]:
    """Read the peptides that files of spectra name.

    Parameters
    ----------
    paths : sequence of Path
        Files.
    where : str, default="SPECTRA"
        Argument or option that they come from.

    Raises
    ------
    DataQualityError
        When no spectrum has a peptide.

    Warns
    -----
    SciSeqWarning
        When some have none.
    """
    truths = [
        Truth(Path(one.source).name, one.identifier, one.peptide)
        for one in read_spectra(list(paths))
    ]
    n_unknown = sum(one.peptide is None for one in truths)
    if n_unknown == len(truths):
        raise DataQualityError(
            f"none of {len(truths)} spectra has a known peptide",
            where=where,
            hint="In MGF it stands behind SEQ=, in MSP behind Name:.",
        )
    if n_unknown:
        warnings.warn(
            f"{n_unknown} of {len(truths)} spectra have no known peptide and do not "
            "count",
            SciSeqWarning,
            stacklevel=2,
        )
    return truths


def evaluate_model(
    model: Any, paths: Sequence[Path], truths: Sequence[Truth], *, quiet: bool
) -> Evaluation:
    """Predict spectra and compare.

    Parameters
    ----------
    model : PeptideSequencer
        Fitted.
    paths : sequence of Path
        Files of spectra.
    truths : sequence of Truth
        What :func:`read_truths` gave for them.
    quiet : bool
        Show no progress.
    """
    found: list[tuple[str | None, float | None]] = []
    with make_progress(len(truths), 0, quiet=quiet) as progress:
        for rows in predicted_chunks(model, read_spectra(list(paths)), progress):
            found += [(row["peptide"], row["score"]) for row in rows]
    return _evaluate(truths, found, model.vocabulary_)


def evaluate_table(table: Any, truths: Sequence[Truth], path: Path) -> Evaluation:
    """Compare a table of predictions, found by name of the file and identifier.

    Parameters
    ----------
    table : DataFrame
        See :func:`~sciseq.cli.sequence_files.read_predictions`.
    truths : sequence of Truth
        A spectrum without a row counts as one without prediction.
    path : Path
        Of the table, for messages.

    Raises
    ------
    InputError
        When names are not unique, or no row belongs to a spectrum.
    """
    names = [Path(one).name for one in table["source"]]
    keys = list(zip(names, table["identifier"], strict=True))
    wanted = [(one.name, one.identifier) for one in truths]
    for given, where in ((keys, str(path)), (wanted, "SPECTRA")):
        if len(set(given)) < len(given):
            twice = next(one for one in given if given.count(one) > 1)
            raise InputError(f"{' '.join(twice)} is there twice", where=where)
    n_strange = len(set(keys) - set(wanted))
    if n_strange == len(keys):
        raise InputError(
            f"none of the {len(keys)} predictions belongs to one of the "
            f"{len(wanted)} spectra",
            where=str(path),
            hint="They are compared by name of the file and identifier.",
        )
    if n_strange:
        warnings.warn(
            f"{n_strange} of {len(keys)} predictions belong to no spectrum here",
            SciSeqWarning,
            stacklevel=2,
        )
    scores = table["score"] if "score" in table.columns else [None] * len(keys)
    cells = zip(keys, table["peptide"], scores, strict=True)
    rows = {key: (peptide, score) for key, peptide, score in cells}
    return _evaluate(
        truths,
        [rows.get(key, (None, None)) for key in wanted],
        has_scores="score" in table.columns,
    )


def _evaluate(
    truths: Sequence[Truth],
    found: Sequence[tuple[str | None, float | None]],
    vocabulary: Any = None,
    *,
    has_scores: bool = True,
) -> Evaluation:
    pairs = [
        (truth.peptide, *one)
        for truth, one in zip(truths, found, strict=True)
        if truth.peptide is not None
    ]
    scores = [0.0 if peptide is None else score for _, peptide, score in pairs]
    return evaluate(
        [truth for truth, _, _ in pairs],
        [peptide for _, peptide, _ in pairs],
        [math.nan if one is None else one for one in scores] if has_scores else None,
        vocabulary=vocabulary,
    )


def write_evaluation(evaluation: Evaluation, *, as_json: bool = False) -> None:
    """Write the measures to standard output.

    Parameters
    ----------
    evaluation : Evaluation
        To write.
    as_json : bool, default=False
        As JSON, what is not defined as null; else as a small table.
    """
    curve = evaluation.precision_coverage
    area = math.nan if curve is None else curve.area
    measures = {
        "aa_precision": ("amino-acid precision", evaluation.aa_precision),
        "aa_recall": ("amino-acid recall", evaluation.aa_recall),
        "peptide_recall": ("peptide recall", evaluation.peptide_recall),
        "coverage": ("coverage", evaluation.coverage),
        "precision_coverage_area": ("area under precision-coverage", area),
        "n_spectra": ("spectra", evaluation.n_spectra),
        "n_predicted": ("predicted", evaluation.n_predicted),
        "n_matched": ("matched", evaluation.n_matched),
    }
    if as_json:
        values = {
            key: None if math.isnan(value) else value
            for key, (_, value) in measures.items()
        }
        sys.stdout.write(f"{json.dumps(values, indent=2)}\n")
        return
    for title, value in measures.values():
        text = f"{value:.4f}" if isinstance(value, float) else str(value)
        sys.stdout.write(f"{title:30} {'-' if text == 'nan' else text:>8}\n")
