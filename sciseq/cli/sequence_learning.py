"""The commands ``sciseq sequence ...`` that make models.

What they do is imported when they run.
"""

from pathlib import Path
from typing import Annotated

import typer

from sciseq.cli.boundary import reported
from sciseq.cli.sequence_options import (
    BeamSize,
    Config,
    Device,
    NewModel,
    Quiet,
    SavedModel,
    Spectra,
)

__all__ = ["calibrate", "train", "train_default"]


def train(
    context: typer.Context,
    spectra: Spectra,
    out: NewModel,
    validation: Annotated[
        list[Path] | None,
        typer.Option(
            help="Annotated spectra, not trained on, to score the model on (repeated)."
        ),
    ] = None,
    decoder: Annotated[
        str | None,
        typer.Option(
            help="hybrid (default), autoregressive, nonautoregressive or diffusion."
        ),
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
    device: Device = "auto",
    quiet: Quiet = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show the progress of training.")
    ] = False,
    config: Config = None,
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


def train_default(
    context: typer.Context,
    proteins: Annotated[
        list[Path], typer.Argument(help="FASTA files of proteins, each also .gz.")
    ],
    out: NewModel,
    exclude: Annotated[
        list[Path] | None,
        typer.Option(
            help="Annotated spectra whose peptides are not trained on (repeated)."
        ),
    ] = None,
    spectra: Annotated[
        int | None,
        typer.Option(help="Simulated spectra to learn from, instead of 300000."),
    ] = None,
    workers: Annotated[int, typer.Option(help="Processes that simulate.", min=1)] = 1,
    checkpoints: Annotated[
        Path | None,
        typer.Option(help="Folder for checkpoints; a run found there is continued."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of all random draws.")] = 0,
    device: Device = "auto",
    quiet: Quiet = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show the progress of training.")
    ] = False,
    config: Config = None,
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


def calibrate(
    context: typer.Context,
    spectra: Spectra,
    out: NewModel,
    model: Annotated[Path, SavedModel] = Path("pretrained"),
    beam_size: BeamSize = None,
    device: Device = "auto",
    quiet: Quiet = False,
    config: Config = None,
) -> None:
    """Learn from annotated spectra how often peptides of a score are right.

    The spectra must not have been trained on, and be of the kind to be read later.
    `predict` with the new model tells probabilities and q-values, and knows --fdr. They
    hold for the beam size that was calibrated with, which the new model keeps.
    """
    with reported(debug=context.obj):
        from sciseq.cli.sequence_calibration import CalibrateRequest, run_calibrate

        run_calibrate(
            CalibrateRequest(
                spectra=spectra,
                model=model,
                out=out,
                beam_size=beam_size,
                device=device,
                quiet=quiet,
            )
        )
