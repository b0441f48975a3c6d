"""The commands ``sciseq sequence ...``; what they do is imported when they run."""

from pathlib import Path
from typing import Annotated

import typer

from sciseq.cli.boundary import reported
from sciseq.cli.config_files import use_config

__all__ = ["sequence"]

sequence = typer.Typer(
    name="sequence",
    help="Read peptides from tandem mass spectra.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

_Spectra = Annotated[
    list[Path],
    typer.Argument(help="Files: .mgf, .mzML, .mzXML or .msp, each also .gz."),
]
_Config = Annotated[
    Path | None,
    typer.Option(
        help="TOML file with options (their names without dashes); those of the "
        "command line count more.",
        callback=use_config,
        is_eager=True,
    ),
]
_Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")]
_Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="Say nothing but warnings and errors.")
]


def _model_place(model: Path | None) -> Path | None:
    """Let a name stand for the model that comes with the package."""
    from sciseq.sequencing.pretrained_model import PRETRAINED, PRETRAINED_NAME

    is_name = model == Path(PRETRAINED_NAME) and not Path(PRETRAINED_NAME).exists()
    return PRETRAINED if is_name else model


_SavedModel = typer.Option(
    "--model",
    "-m",
    help="Model that `train` has saved, or `pretrained`: the one that comes along.",
    callback=_model_place,
)


@sequence.command()
def predict(
    context: typer.Context,
    spectra: _Spectra,
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            help="Result: .mztab, .csv, .tsv, .parquet, .mzid, .pin or .mgf.",
        ),
    ],
    model: Annotated[Path, _SavedModel] = Path("pretrained"),
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Take the rows of a stopped run from OUT.partial, compute the rest.",
        ),
    ] = False,
    beam_size: Annotated[
        int | None,
        typer.Option(
            help="Beams of the search instead of the model's; 1 is fastest.", min=1
        ),
    ] = None,
    device: _Device = "auto",
    quiet: _Quiet = False,
    config: _Config = None,
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
                device=device,
                quiet=quiet,
            )
        )


@sequence.command()
def evaluate(
    context: typer.Context,
    spectra: _Spectra,
    model: Annotated[Path | None, _SavedModel] = None,
    predictions: Annotated[
        Path | None,
        typer.Option(
            help="Table instead of a model: .csv, .tsv or .parquet with the columns "
            "source, identifier, peptide and score."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON.")] = False,
    device: _Device = "auto",
    quiet: _Quiet = False,
    config: _Config = None,
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
    spectra: _Spectra,
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
    model: Annotated[Path | None, _SavedModel] = None,
    tolerance: Annotated[float, typer.Option(help="Of the peaks, in ppm.")] = 20.0,
    device: _Device = "auto",
    quiet: _Quiet = False,
    config: _Config = None,
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
    quiet: _Quiet = False,
    config: _Config = None,
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


@sequence.command()
def train(
    context: typer.Context,
    spectra: _Spectra,
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            help="Folder (or .zip) for the model; one that is there is replaced.",
        ),
    ],
    validation: Annotated[
        list[Path] | None,
        typer.Option(
            help="Annotated spectra, not trained on, to score the model on (repeated)."
        ),
    ] = None,
    decoder: Annotated[
        str | None,
        typer.Option(help="hybrid (default), autoregressive or nonautoregressive."),
    ] = None,
    modifications: Annotated[
        list[str] | None,
        typer.Option(help="One more modification (Phospho@STY), repeated."),
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs of training.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="A parameter of the model (name=value), repeated."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of all random draws.")] = 0,
    device: _Device = "auto",
    quiet: _Quiet = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show the progress of training.")
    ] = False,
    config: _Config = None,
) -> None:
    """Fit a model on annotated spectra and save it."""
    with reported(debug=context.obj):
        from sciseq.cli.sequence_training import TrainRequest, run_train

        run_train(
            TrainRequest(
                spectra=spectra,
                out=out,
                validation=validation or [],
                decoder=decoder,
                modifications=modifications or [],
                epochs=epochs,
                settings=settings or [],
                seed=seed,
                device=device,
                quiet=quiet,
                verbose=verbose,
            )
        )


@sequence.command("train-default")
def train_default(
    context: typer.Context,
    proteins: Annotated[
        list[Path], typer.Argument(help="FASTA files of proteins, each also .gz.")
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            help="Folder (or .zip) for the model; one that is there is replaced.",
        ),
    ],
    exclude: Annotated[
        list[Path] | None,
        typer.Option(
            help="Annotated spectra whose peptides are not trained on (repeated)."
        ),
    ] = None,
    spectra: Annotated[
        int | None,
        typer.Option(help="Simulated spectra to learn from, instead of 360000."),
    ] = None,
    workers: Annotated[int, typer.Option(help="Processes that simulate.", min=1)] = 1,
    checkpoints: Annotated[
        Path | None,
        typer.Option(help="Folder for checkpoints; a run found there is continued."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of all random draws.")] = 0,
    device: _Device = "auto",
    quiet: _Quiet = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show the progress of training.")
    ] = False,
    config: _Config = None,
) -> None:
    """Train the model that comes with sciseq, from simulated spectra alone.

    With other proteins, or another number of spectra, it becomes another one.
    """
    with reported(debug=context.obj):
        from sciseq.cli.sequence_default import TrainDefaultRequest, run_train_default

        run_train_default(
            TrainDefaultRequest(
                proteins=proteins,
                out=out,
                exclude=exclude or [],
                spectra=spectra,
                workers=workers,
                checkpoints=checkpoints,
                seed=seed,
                device=device,
                quiet=quiet,
                verbose=verbose,
            )
        )
