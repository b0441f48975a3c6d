"""The command ``sciseq run``."""

from pathlib import Path
from typing import Annotated, Any

import typer

from sciseq.cli.boundary import reported

__all__ = ["run"]


def run(
    context: typer.Context,
    job: Annotated[
        Path | None, typer.Argument(help="Job file (TOML).", show_default=False)
    ] = None,
    as_of: Annotated[
        str | None,
        typer.Option(
            help="Logical date: only rows before it are used. By default all rows."
        ),
    ] = None,
    until: Annotated[
        str | None,
        typer.Option(help="Last logical date of a range, which begins with --as-of."),
    ] = None,
    step: Annotated[
        str,
        typer.Option(help="Step of the range: 1D or 1h; a number for numbered rows."),
    ] = "1D",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Read and check, but write nothing.")
    ] = False,
    scheduler: Annotated[
        str | None,
        typer.Option(help="Dask scheduler (tcp://...), or local for one of its own."),
    ] = None,
    json_log: Annotated[
        bool, typer.Option("--json-log", help="Log lines of JSON.")
    ] = False,
    keys: Annotated[
        bool, typer.Option("--keys", help="List the keys of a job file and exit.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Say nothing but warnings and errors.")
    ] = False,
) -> None:
    """Run a job: read, fit, forecast, write; nothing is lost and nothing done twice.

    The exit code says what to do: 0 done, 1 a fault, 2 the job cannot be done as it
    is, 3 done but for some series, 4 stopped by a quality gate, 5 another run is under
    way, 6 temporary trouble (run it again), 130 interrupted.
    """
    if keys:
        from sciseq.jobs.job_file import key_list

        typer.echo(key_list())
        raise typer.Exit
    if job is None:
        with reported(debug=context.obj):
            from sciseq.errors import InputError

            raise InputError(
                "a job file is needed", where="JOB", hint="`sciseq run --keys` helps."
            )
    else:
        options = {"dry_run": dry_run, "scheduler": scheduler}
        code = _run_dates(
            context, job, (as_of, until, step), options, json_log=json_log, quiet=quiet
        )
        raise typer.Exit(code)


def _run_dates(
    context: typer.Context,
    path: Path,
    dates: tuple[str | None, str | None, str],
    options: dict[str, Any],
    *,
    json_log: bool,
    quiet: bool,
) -> int:
    from sciseq.jobs.exit_codes import INTERRUPTED, exit_code_of
    from sciseq.jobs.job_file import read_job
    from sciseq.jobs.logbook import Logbook
    from sciseq.jobs.run import dates_of, run_job

    log = Logbook(as_json=json_log, quiet=quiet)
    worst = 0
    try:
        job = read_job(path)
        log.as_json = json_log or job["log"]["format"] == "json"
        for date in dates_of(*dates):
            code = run_job(job, date, log=log, **options).exit_code
            worst = max(worst, code)  # a gate (4) says more than a series (3)
    except (Exception, KeyboardInterrupt) as error:
        code = exit_code_of(error)
        if code == 1 or context.obj:
            # A fault of ours: the boundary tells it as it does for all commands.
            log.fault(error)
            with reported(debug=context.obj):
                raise
        message = "interrupted" if code == INTERRUPTED else str(error)
        log.error(message, exit_code=code)
        return code
    return worst
