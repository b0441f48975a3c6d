"""Commands and options; what they do is imported only when they run."""

import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from sciseq import __version__
from sciseq.cli.boundary import reported
from sciseq.cli.generate import generate
from sciseq.cli.inspection import inspect
from sciseq.cli.run import run
from sciseq.cli.sequence import sequence
from sciseq.errors import InputError, nearest_name
from sciseq.registry import METHODS

__all__ = ["app", "main"]

KINDS = ("forecasting", "sequencing", "generation")

app = typer.Typer(
    name="sciseq",
    help="Recent sequence models for scientific data.",
    add_completion=False,
    no_args_is_help=True,
    # Faults are reported by sciseq.cli.boundary; help is plain text, and quick.
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(sequence)
app.add_typer(generate)
app.command()(run)
app.command()(inspect)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit with its code.

    Parameters
    ----------
    arguments : sequence of str, optional
        By default those of the process.

    Raises
    ------
    SystemExit
        With the codes listed in :mod:`sciseq.cli`.
    """
    app(None if arguments is None else list(arguments), prog_name="sciseq")
    raise SystemExit(0)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"sciseq {__version__}")
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            help="Show the version and exit.",
            callback=_show_version,
            is_eager=True,
        ),
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error.")
    ] = False,
) -> None:
    """Recent sequence models for scientific data."""
    context.obj = debug


@app.command()
def forecast(
    context: typer.Context,
    data: Annotated[
        Path,
        typer.Argument(help="Table over time: .csv, .csv.gz, .tsv, .parquet or .nc."),
    ],
    model: Annotated[
        str, typer.Option("--model", "-m", help="Method; see `sciseq methods`.")
    ] = "s-mamba",
    horizon: Annotated[int, typer.Option(help="Rows to forecast.")] = 24,
    lookback: Annotated[
        int | None,
        typer.Option(
            help="Rows to look back on. By default the method's own number, or a third "
            "of the training rows where that is fewer, in whole seasons."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="Forecast to write: .csv, .csv.gz, .tsv, .parquet or .nc. By default "
            "it goes to standard output as CSV.",
        ),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Picture to write: .png, .pdf or .svg.")
    ] = None,
    time_column: Annotated[
        str | None,
        typer.Option(help="Column of times; by default the only one with dates."),
    ] = None,
    series_column: Annotated[
        str | None,
        typer.Option(help="Column that names the series of a table in long format."),
    ] = None,
    targets: Annotated[
        str | None,
        typer.Option(help="Columns to forecast (a,b); the others are inputs only."),
    ] = None,
    drop: Annotated[
        str | None, typer.Option(help="Columns to leave out (a,b).")
    ] = None,
    interval: Annotated[
        float | None,
        typer.Option(help="Add the ends of an interval of this coverage (0.9)."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="A parameter of the method (name=value), repeated."),
    ] = None,
    missing: Annotated[
        str, typer.Option(help="Missing values: error, mask or interpolate.")
    ] = "error",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")] = (
        "auto"
    ),
    seed: Annotated[int, typer.Option(help="Seed of all random draws.")] = 0,
    save_model: Annotated[
        Path | None,
        typer.Option(
            help="Folder (or .zip) for the fitted model; one that is there is replaced."
        ),
    ] = None,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Say nothing but warnings and errors.")
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show the progress of training.")
    ] = False,
) -> None:
    """Fit a model on a table and forecast the rows after its end.

    The forecast has the times that follow, in the units of the data. Its error on
    held-out rows is shown beside those of the last value and of the seasonal naive
    forecast.
    """
    with reported(debug=context.obj):
        from sciseq.cli.forecast import ForecastRequest, run_forecast

        run_forecast(
            ForecastRequest(
                data=data,
                model=model,
                horizon=horizon,
                lookback=lookback,
                out=out,
                plot=plot,
                save_model=save_model,
                time_column=time_column,
                series_column=series_column,
                targets=targets,
                drop=drop,
                interval=interval,
                settings=settings or [],
                missing=missing,
                device=device,
                seed=seed,
                quiet=quiet,
                verbose=verbose,
            )
        )


@app.command()
def methods(
    context: typer.Context,
    kind: Annotated[
        str | None, typer.Option(help=f"Only those for {', '.join(KINDS)}.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON.")] = False,
) -> None:
    """List the methods."""
    with reported(debug=context.obj):
        if kind is not None and kind not in KINDS:
            raise InputError(
                f"no kind of method is called {kind!r}, there are {', '.join(KINDS)}",
                where="--kind",
                hint=nearest_name(kind, KINDS) or None,
            )
        found = [method for method in METHODS if kind in (None, method.data)]
        if as_json:
            records = [
                {**dataclasses.asdict(method), "class": method.class_name}
                for method in found
            ]
            _write(json.dumps(records, indent=2))
            return
        rows = [(one.name, one.data, one.status, one.title) for one in found]
        _write_aligned([("name", "kind", "status", "method"), *rows])


@app.command()
def datasets(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON.")] = False,
) -> None:
    """List the data sets that `sciseq.load_dataset` knows."""
    with reported(debug=context.obj):
        from sciseq.data.datasets import list_datasets

        records = list_datasets().to_dict("records")
        if as_json:
            _write(json.dumps(records, indent=2))
            return
        rows = [
            (
                record["name"],
                f"{record['shape'][0]} x {record['shape'][1]}",
                str(record["n_series"]),
                "yes" if record["available"] else "no",
                record["sampling"],
                record["licence"],
            )
            for record in records
        ]
        header = ("name", "rows x columns", "series", "here", "sampling", "licence")
        _write_aligned([header, *rows])


def _write(text: str) -> None:
    sys.stdout.write(f"{text}\n")


def _write_aligned(rows: Sequence[Sequence[Any]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        _write("  ".join(cells).rstrip())
