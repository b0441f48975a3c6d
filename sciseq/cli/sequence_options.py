"""Options that several commands ``sciseq sequence ...`` share."""

from pathlib import Path
from typing import Annotated

import typer

from sciseq.cli.config_files import use_config

__all__ = ["BeamSize", "Config", "Device", "NewModel", "Quiet", "SavedModel", "Spectra"]

Spectra = Annotated[
    list[Path],
    typer.Argument(help="Files: .mgf, .mzML, .mzXML or .msp, each also .gz."),
]
Config = Annotated[
    Path | None,
    typer.Option(
        help="TOML file with options (their names without dashes); those of the "
        "command line count more.",
        callback=use_config,
        is_eager=True,
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")]
BeamSize = Annotated[
    int | None,
    typer.Option(
        help="Beams of the search instead of the model's; 1 is fastest.", min=1
    ),
]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="Say nothing but warnings and errors.")
]


def _model_place(model: Path | None) -> Path | None:
    """Let a name stand for the model that comes with the package."""
    from sciseq.sequencing.pretrained_model import PRETRAINED, PRETRAINED_NAME

    is_name = model == Path(PRETRAINED_NAME) and not Path(PRETRAINED_NAME).exists()
    return PRETRAINED if is_name else model


SavedModel = typer.Option(
    "--model",
    "-m",
    help="Model that `train` has saved, or `pretrained`: the one that comes along.",
    callback=_model_place,
)

NewModel = Annotated[
    Path,
    typer.Option(
        "--out",
        "-o",
        help="Folder (or .zip) for the model; one that is there is replaced.",
    ),
]
