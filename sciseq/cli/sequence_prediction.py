"""The command ``sciseq sequence predict``: read, predict, keep, write."""

import contextlib
import re
import time
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any

import typer

from sciseq import __version__
from sciseq.cli.boundary import INTERRUPTED, say
from sciseq.cli.outputs import check_file
from sciseq.cli.partial_rows import PartialRows
from sciseq.cli.sequence_files import (
    check_spectra,
    input_fingerprint,
    load_sequencer,
    model_fingerprint,
)
from sciseq.cli.sequence_progress import Progress, make_progress
from sciseq.cli.sequence_rates import FDR_METHODS, DecoyScores
from sciseq.cli.sequence_results import (
    ResultRows,
    check_belongs,
    result_suffix,
    write_result,
)
from sciseq.errors import DataQualityError, InputError, SciSeqWarning, nearest_name
from sciseq.files import remove_leftovers
from sciseq.sequencing.spectrum_files import read_spectra

__all__ = [
    "PredictRequest",
    "count_reasons",
    "predicted_chunks",
    "run_predict",
    "summarize",
]

# Spectra between two visits to the disk: what a kill can cost.
_CHUNK = 256
# Reasons in the summary; what is left over is counted.
_MOST_REASONS = 4


@dataclass(frozen=True)
class PredictRequest:
    """What the user asked for; see the help of the command."""

    spectra: list[Path]
    model: Path
    out: Path
    resume: bool = False
    beam_size: int | None = None
    fdr: float | None = None
    fdr_method: str = "calibrated"
    device: str = "auto"
    quiet: bool = False


def run_predict(request: PredictRequest) -> None:
    """Predict the peptides of spectra and write them to a file.

    Parameters
    ----------
    request : PredictRequest
        Spectra, model, output.

    Raises
    ------
    SciSeqError
        The output is as it was; rows that were computed are in the partial file.
    """
    partial_path = _check_request(request)
    model = _load_model(request)
    # Reading everything once shows a damaged file now, not after hours.
    n_spectra = sum(1 for _ in read_spectra(request.spectra))
    if not n_spectra:
        raise DataQualityError("there is no fragment spectrum", where="SPECTRA")
    fingerprint = {
        "sciseq": __version__,
        "model": model_fingerprint(request.model),
        "spectra": input_fingerprint(request.spectra),
        "beam size": model.get_params()["beam_size"],
        "decoys": request.fdr_method == "decoy",
    }
    partial = PartialRows(partial_path, fingerprint, chunk=_CHUNK)
    if request.resume and partial_path.exists():
        partial.resume()
        remove_leftovers(request.out)  # a kill may have come while it was written
    else:
        partial.start()
    if not request.quiet and request.resume:
        say(f"{partial.n_rows} of {n_spectra} spectra were done before")
    n_before, start = partial.n_rows, time.perf_counter()
    with _kept_rows(partial):
        with make_progress(n_spectra, n_before, quiet=request.quiet) as progress:
            _predict_rest(model, request, partial, progress)
        if partial.n_rows != n_spectra:
            raise RuntimeError(f"{n_spectra} spectra have {partial.n_rows} rows")
        rows = ResultRows(
            partial,
            getattr(model, "calibration_", None),
            fdr=request.fdr,
            fdr_method=request.fdr_method,
        )
        write_result(rows, request.out, model, request.spectra)
        summary = summarize(rows, n_before, time.perf_counter() - start)
    partial_path.unlink()
    if not request.quiet:
        say(f"{request.out}: {summary}")


def predicted_chunks(
    model: Any, records: Iterator[Any], progress: Progress
) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows of spectra, some hundred at a time.

    Parameters
    ----------
    model : PeptideSequencer
        Fitted.
    records : iterator of Spectrum or SkippedSpectrum
        What to predict.
    progress : Progress
        Told of what is done.
    """
    while chunk := list(islice(records, _CHUNK)):
        rows = list(model.iter_rows(chunk))
        for record, row in zip(chunk, rows, strict=True):
            check_belongs(row, record)
            row.setdefault("scan", record.scan)
        yield rows
        progress.advance(len(rows))


def count_reasons(reasons: Iterable[str]) -> list[tuple[str, int]]:
    """Count reasons, those that differ in their numbers alone together.

    Examples
    --------
    >>> count_reasons(["3 peaks, 20 needed", "the charge is not known",
    ...                "17 peaks, 20 needed"])
    [('3 to 17 peaks, 20 needed', 2), ('the charge is not known', 1)]
    """
    kinds: dict[tuple[str, ...], list[list[str]]] = {}
    numbers_of: Counter[tuple[str, ...]] = Counter()
    for reason in reasons:
        parts = re.split(r"(\d+(?:\.\d+)?)", reason)
        words, numbers = tuple(parts[::2]), parts[1::2]
        ranges = kinds.setdefault(words, [[one, one] for one in numbers])
        for place, one in zip(ranges, numbers, strict=True):
            place[:] = min(place[0], one, key=float), max(place[1], one, key=float)
        numbers_of[words] += 1
    counts = []
    for words, ranges in kinds.items():
        shown = [low if low == high else f"{low} to {high}" for low, high in ranges]
        text = "".join(map("".join, zip_longest(words, shown, fillvalue="")))
        counts.append((text, numbers_of[words]))
    return sorted(counts, key=lambda one: -one[1])


def summarize(rows: Iterable[dict[str, Any]], n_before: int, seconds: float) -> str:
    """Say in one line what became of all spectra, and how fast.

    Parameters
    ----------
    rows : iterable of dict
        Those of the result.
    n_before : int
        How many of them an earlier run computed.
    seconds : float
        What predicting and writing took in this run.

    Examples
    --------
    >>> rows = [{"peptide": "GAVLK", "reason": ""}] * 5
    >>> rows += [{"peptide": None, "reason": "3 peaks are left"}]
    >>> summarize(rows, 4, 0.5)
    '6 spectra, 5 peptides, 1 skipped (1: 3 peaks are left); 0.5 s, 4 spectra/s'
    """
    n_rows = 0

    def reasons() -> Iterator[str]:
        nonlocal n_rows
        for row in rows:
            n_rows += 1
            if row["peptide"] is None:
                yield row["reason"]

    counts = count_reasons(reasons())
    n_skipped = sum(number for _, number in counts)
    named = [f"{number}: {reason}" for reason, number in counts[:_MOST_REASONS]]
    if rest := sum(number for _, number in counts[_MOST_REASONS:]):
        named.append(f"{rest}: other reasons")
    why = f" ({'; '.join(named)})" if named else ""
    speed = (n_rows - n_before) / max(seconds, 1e-9)
    return (
        f"{n_rows} spectra, {n_rows - n_skipped} peptides, {n_skipped} skipped{why}; "
        f"{seconds:.3g} s, {speed:.3g} spectra/s"
    )


# ------------------------------------------------------------------------ the request


def _check_request(request: PredictRequest) -> Path:
    """Refuse what cannot work; return the place of the partial file."""
    suffix = result_suffix(request.out)
    check_spectra(request.spectra)
    for path in request.spectra:
        check_file(request.out, path, "--out")
    if suffix == ".pin" and len(request.spectra) > 1:
        raise InputError(
            f"a .pin file holds one file of spectra, {len(request.spectra)} were given",
            where="--out",
            hint="Predict one file at a time.",
        )
    if request.fdr_method not in FDR_METHODS:
        raise InputError(
            f"{request.fdr_method!r} must be one of {', '.join(FDR_METHODS)}",
            where="--fdr-method",
            hint=nearest_name(request.fdr_method, FDR_METHODS) or None,
        )
    partial = request.out.with_name(f"{request.out.name}.partial")
    if partial.exists() and not request.resume:
        raise InputError(
            f"{partial} holds the rows of a run that was stopped, or goes on",
            where="--out",
            hint="--resume takes them and computes the rest; delete the file to start "
            "again.",
        )
    return partial


def _load_model(request: PredictRequest) -> Any:
    model = load_sequencer(request.model, request.device)
    if request.beam_size is not None:
        model.set_params(beam_size=request.beam_size)
    if request.fdr_method == "decoy":
        warnings.warn(
            "rates from decoys are far too small as a rule for peptides that were read "
            "without a database; those of a calibrated model are not",
            SciSeqWarning,
            stacklevel=2,
        )
    elif request.fdr is not None and not hasattr(model, "calibration_"):
        raise InputError(
            f"the model in {request.model} is not calibrated, so rates are not known",
            where="--fdr",
            hint="`sciseq sequence calibrate` learns from annotated spectra how often "
            "peptides are right.",
        )
    return model


# --------------------------------------------------------------------------- the rows


def _predict_rest(
    model: Any, request: PredictRequest, partial: PartialRows, progress: Progress
) -> None:
    """Append the rows of all spectra that have none."""
    records = read_spectra(request.spectra)
    reader = DecoyScores(model) if request.fdr_method == "decoy" else model
    for record, row in zip(
        islice(records, partial.n_rows), partial.rows(), strict=True
    ):
        check_belongs(row, record)
        if isinstance(reader, DecoyScores):
            reader.skip(record)
    for rows in predicted_chunks(reader, records, progress):
        partial.append(rows)


@contextlib.contextmanager
def _kept_rows(partial: PartialRows) -> Iterator[None]:
    """Say where the rows are when a run stops; leave no file without rows."""
    try:
        with partial:
            yield
    except BaseException as error:
        if not partial.n_rows:
            partial.path.unlink(missing_ok=True)
            raise
        say(
            f"sciseq: {partial.n_rows} spectra are done and kept in {partial.path}; "
            "the same command with --resume goes on"
        )
        if isinstance(error, KeyboardInterrupt):
            say("sciseq: interrupted")
            raise typer.Exit(INTERRUPTED) from None
        raise
