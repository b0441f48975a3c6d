"""The command ``sciseq sequence annotate``: one spectrum and its fragment ions."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sciseq.cli.boundary import say
from sciseq.cli.outputs import check_file
from sciseq.cli.sequence_files import check_spectra, load_sequencer
from sciseq.errors import DataQualityError, InputError
from sciseq.sequencing.spectrum_files import read_spectra
from sciseq.sequencing.spectrum_records import SkippedSpectrum, Spectrum

__all__ = ["AnnotateRequest", "run_annotate"]


@dataclass(frozen=True)
class AnnotateRequest:
    """What the user asked for; see the help of the command."""

    spectra: list[Path]
    scan: str
    out: Path
    peptide: str | None = None
    model: Path | None = None
    tolerance: float = 20.0
    device: str = "auto"
    quiet: bool = False


def run_annotate(request: AnnotateRequest) -> None:
    """Draw a spectrum with the ions of a peptide.

    Parameters
    ----------
    request : AnnotateRequest
        Spectra, which one, its peptide, and the picture.
    """
    if request.peptide is not None and request.model is not None:
        raise InputError("--peptide and --model contradict each other", where="options")
    from sciseq.plotting import check_figure_path, save_figure
    from sciseq.sequencing.fragments import annotate

    check_spectra(request.spectra)
    check_figure_path(request.out)
    for path in request.spectra:
        check_file(request.out, path, "--out")
    spectrum = find_spectrum(request.spectra, request.scan)
    peptide, vocabulary = _peptide_of(spectrum, request)
    # Before the picture: a peptide that cannot be read is refused here.
    ions = annotate(spectrum, peptide, vocabulary, request.tolerance, "by")
    from sciseq.plotting import plot_spectrum

    axes = plot_spectrum(
        spectrum, peptide, vocabulary=vocabulary, tolerance_ppm=request.tolerance
    )
    save_figure(axes, request.out)
    if not request.quiet:
        share = spectrum.intensity[ions["peak"].unique()].sum()
        share /= spectrum.intensity.sum()
        say(f"{spectrum.identifier}: {peptide}")
        say(f"b and y ions: {len(ions)}, {share:.0%} of the intensity")
        say(f"picture: {request.out}")


def find_spectrum(paths: Sequence[Path], scan: str) -> Spectrum:
    """Return the spectrum that a user means.

    Parameters
    ----------
    paths : sequence of Path
        Files to look in.
    scan : str
        Its identifier, a part of that (``scan=17``), the number of its scan, or its
        title.

    Raises
    ------
    InputError
        When there is none, or more than one.
    DataQualityError
        When it cannot be used.
    """
    found: list[Spectrum | SkippedSpectrum] = []
    first: list[str] = []
    n_records = 0
    for record in read_spectra(list(paths)):
        names = {record.identifier, *record.identifier.split(), record.title}
        if scan in names or scan == str(record.scan):
            found.append(record)
        n_records += 1
        if len(first) < 3:
            first.append(record.identifier.split()[-1])
    if not found:
        raise InputError(
            f"none of the {n_records} spectra is called {scan!r}; the first ones are "
            f"{', '.join(first)}",
            where="--scan",
        )
    if len(found) > 1:
        places = ", ".join(f"{one.source} {one.identifier}" for one in found[:3])
        raise InputError(
            f"{len(found)} spectra are called {scan!r}: {places}",
            where="--scan",
            hint="Give one file, or the whole identifier.",
        )
    (spectrum,) = found
    if isinstance(spectrum, SkippedSpectrum):
        raise DataQualityError(spectrum.explanation, where=spectrum.identifier)
    return spectrum


def _peptide_of(spectrum: Spectrum, request: AnnotateRequest) -> tuple[str, Any]:
    """Return the peptide, and the vocabulary that it is written with."""
    if request.model is not None:
        model = load_sequencer(request.model, request.device)
        (row,) = model.iter_rows([spectrum])
        if row["peptide"] is None:
            raise DataQualityError(
                f"the model finds no peptide: {row['reason']}",
                where=spectrum.identifier,
            )
        return row["peptide"], model.vocabulary_
    peptide = request.peptide or spectrum.peptide
    if peptide is None:
        raise InputError(
            "the file names no peptide for this spectrum",
            where=spectrum.identifier,
            hint="Give --peptide, or --model to predict it.",
        )
    return peptide, None
