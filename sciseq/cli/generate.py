"""The commands ``sciseq generate ...``; what they do is imported when they run."""

from pathlib import Path
from typing import Annotated

import typer

from sciseq.cli.boundary import reported
from sciseq.cli.config_files import use_config

__all__ = ["generate"]

generate = typer.Typer(
    name="generate",
    help="Learn sequences, generate new ones, and score them.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

_Data = Annotated[
    Path,
    typer.Argument(
        help="Sequences: FASTA, SMILES, text with one in a line, CSV, or JSON lines "
        "with a string or a list of tokens in each, each also .gz."
    ),
]
_Model = Annotated[
    Path, typer.Argument(help="Model that `sciseq generate fit` has saved.")
]
_Column = Annotated[
    str | None, typer.Option(help="Column of a CSV file with the sequences.")
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
_Seed = Annotated[int, typer.Option(help="Seed of all random draws.")]
_Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="Say nothing but warnings and errors.")
]
_Out = Annotated[
    Path,
    typer.Option(
        "--out",
        "-o",
        help="Result, replaced if it is there: .fasta, .txt or .csv for strings, "
        ".jsonl for any sequences, each also .gz.",
    ),
]


@generate.command()
def fit(
    context: typer.Context,
    data: _Data,
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            help="Folder (or .zip) for the model; one that is there is replaced.",
        ),
    ],
    method: Annotated[
        str,
        typer.Option(
            "--method",
            "-m",
            help="See `sciseq methods --kind generation`; baselines, recommenders and "
            "methods around another are fitted in Python.",
        ),
    ] = "autoregressive",
    column: _Column = None,
    condition: Annotated[
        str | None,
        typer.Option(help="Column of a CSV file with the class of each sequence."),
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the data.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="Another parameter, as d_model=128 (repeated)."),
    ] = None,
    seed: _Seed = 0,
    device: _Device = "auto",
    quiet: _Quiet = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show the progress of training.")
    ] = False,
    config: _Config = None,
) -> None:
    """Fit a generator on sequences, and save it."""
    with reported(debug=context.obj):
        from sciseq.cli.generation import FitRequest, run_fit

        run_fit(
            FitRequest(
                data=data,
                out=out,
                method=method,
                column=column,
                condition=condition,
                epochs=epochs,
                settings=settings or [],
                seed=seed,
                device=device,
                quiet=quiet,
                verbose=verbose,
            )
        )


@generate.command()
def sample(
    context: typer.Context,
    model: _Model,
    out: _Out,
    n: Annotated[int, typer.Option("--number", "-n", help="Sequences.", min=1)] = 10,
    condition: Annotated[
        str | None,
        typer.Option(help="Class that they belong to; or numbers, with commas."),
    ] = None,
    template: Annotated[
        str | None, typer.Option(help="What is given, as 'AC??GT': ? may be anything.")
    ] = None,
    temperature: Annotated[
        float, typer.Option(help="Below 1: what is probable more often.", min=0.0)
    ] = 1.0,
    seed: _Seed = 0,
    device: _Device = "auto",
    quiet: _Quiet = False,
    config: _Config = None,
) -> None:
    """Generate sequences with a saved model."""
    with reported(debug=context.obj):
        from sciseq.cli.generation import SampleRequest, run_sample

        run_sample(
            SampleRequest(
                model=model,
                out=out,
                n=n,
                condition=condition,
                template=template,
                temperature=temperature,
                seed=seed,
                device=device,
                quiet=quiet,
            )
        )


@generate.command()
def score(
    context: typer.Context,
    model: _Model,
    data: _Data,
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", help="Result, replaced if it is there: .csv, also .csv.gz."
        ),
    ],
    column: _Column = None,
    condition: Annotated[
        str | None,
        typer.Option(help="Column of a CSV file with the class of each sequence."),
    ] = None,
    seed: _Seed = 0,
    device: _Device = "auto",
    quiet: _Quiet = False,
    config: _Config = None,
) -> None:
    """Write the log-likelihood of each sequence, and what it is per token in bits."""
    with reported(debug=context.obj):
        from sciseq.cli.generation import ScoreRequest, run_score

        run_score(
            ScoreRequest(
                model=model,
                data=data,
                out=out,
                column=column,
                condition=condition,
                seed=seed,
                device=device,
                quiet=quiet,
            )
        )
