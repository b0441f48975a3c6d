"""The commands ``sciseq sequence ...``; what they do is imported when they run."""

from pathlib import Path
from typing import Annotated

import typer

from sciseq.cli.boundary import reported
from sciseq.cli.sequence_learning import calibrate, train, train_default
from sciseq.cli.sequence_options import (
    BeamSize,
    Config,
    Device,
    Quiet,
    SavedModel,
    Spectra,
)

__all__ = ["sequence"]

sequence = typer.Typer(
    name="sequence",
    help="Read peptides from tandem mass spectra.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@sequence.command()
def predict(
    context: typer.Context,
    spectra: Spectra,
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            help="Result: .mztab, .csv, .tsv, .parquet, .mzid, .pin or .mgf.",
        ),
    ],
    model: Annotated[Path, SavedModel] = Path("pretrained"),
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Take the rows of a stopped run from OUT.partial, compute the rest.",
        ),
    ] = False,
    beam_size: BeamSize = None,
    fdr: Annotated[
        float | None,
        typer.Option(
            help="Leave out peptides, so that at most this share of the others is "
            "wrong by estimate, as 0.05; needs a calibrated model.",
            min=0.0,
            max=1.0,
        ),
    ] = None,
    fdr_method: Annotated[
        str,
        typer.Option(
            help="calibrated, or decoy: in twice the time, and far too small as a rule."
        ),
    ] = "calibrated",
    device: Device = "auto",
    quiet: Quiet = False,
    config: Config = None,
) -> None:
    """Predict the peptide of every spectrum.

    Every spectrum of the files is accounted for: with a peptide and its scores, or
    with the reason why it has none.
    """
    with reported(debug=context.obj):
        from sciseq.cli.sequence_prediction import PredictRequest, run_predict

        run_predict(
            PredictRequest(
                spectra=spectra,
                model=model,
                out=out,
                resume=resume,
                beam_size=beam_size,
                fdr=fdr,
                fdr_method=fdr_method,
                device=device,
                quiet=quiet,
            )
        )


@sequence.command()
def evaluate(
    context: typer.Context,
    spectra: Spectra,
    model: Annotated[Path | None, SavedModel] = None,
    predictions: Annotated[
        Path | None,
        typer.Option(
            help="Table instead of a model: .csv, .tsv or .parquet with the columns "
            "source, identifier, peptide and score."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON.")] = False,
    device: Device = "auto",
    quiet: Quiet = False,
    config: Config = None,
) -> None:
    """Compare predictions with the known peptides of annotated spectra.

    Peptides are compared by mass, so that isoleucine is leucine. Recall counts all
    spectra, those without a prediction too.
    """
    with reported(debug=context.obj):
        from sciseq.cli.sequence_evaluation import EvaluateRequest, run_evaluate

        run_evaluate(
            EvaluateRequest(
                spectra=spectra,
                model=model,
                predictions=predictions,
                as_json=as_json,
                device=device,
                quiet=quiet,
            )
        )


@sequence.command()
def annotate(
    context: typer.Context,
    spectra: Spectra,
    scan: Annotated[
        str,
        typer.Option(
            help="Spectrum: its identifier (scan=17, index=5), number or title."
        ),
    ],
    out: Annotated[
        Path,
        typer.Option("--out", "-o", help="Picture to write: .png, .pdf or .svg."),
    ],
    peptide: Annotated[
        str | None,
        typer.Option(help="Peptide in ProForma; by default that of the file."),
    ] = None,
    model: Annotated[Path | None, SavedModel] = None,
    tolerance: Annotated[float, typer.Option(help="Of the peaks, in ppm.")] = 20.0,
    device: Device = "auto",
    quiet: Quiet = False,
    config: Config = None,
) -> None:
    """Draw a spectrum with the b and y ions of a peptide."""
    with reported(debug=context.obj):
        from sciseq.cli.sequence_annotation import AnnotateRequest, run_annotate

        run_annotate(
            AnnotateRequest(
                spectra=spectra,
                scan=scan,
                out=out,
                peptide=peptide,
                model=model,
                tolerance=tolerance,
                device=device,
                quiet=quiet,
            )
        )


@sequence.command()
def match(
    context: typer.Context,
    predictions: Annotated[
        Path,
        typer.Argument(
            help="Table that `predict` wrote: .csv, .tsv or .parquet, with the columns "
            "source, identifier and peptide."
        ),
    ],
    fasta: Annotated[
        list[Path],
        typer.Option(help="Proteins, plain or .gz (repeated for several files)."),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", help="Peptides and their places: .csv, .tsv or .parquet."
        ),
    ],
    proteins: Annotated[
        Path | None,
        typer.Option(help="Proteins and how much is covered: .csv, .tsv or .parquet."),
    ] = None,
    enzyme: Annotated[
        str, typer.Option(help="Whose rule the column fits_enzyme follows.")
    ] = "trypsin",
    quiet: Quiet = False,
    config: Config = None,
) -> None:
    """Find the proteins of predicted peptides in a FASTA file.

    Isoleucine counts as leucine, modifications do not count. Peptides that stand in no
    protein are listed too.
    """
    with reported(debug=context.obj):
        from sciseq.cli.sequence_matching import MatchRequest, run_match

        run_match(
            MatchRequest(
                predictions=predictions,
                fasta=fasta,
                out=out,
                proteins=proteins,
                enzyme=enzyme,
                quiet=quiet,
            )
        )


for name, command in (
    ("train", train),
    ("train-default", train_default),
    ("calibrate", calibrate),
):
    sequence.command(name)(command)
