"""The command ``sciseq inspect``."""

import json
from pathlib import Path
from typing import Annotated

import typer

from sciseq.cli.boundary import reported

__all__ = ["inspect"]


def inspect(
    context: typer.Context,
    model: Annotated[Path, typer.Argument(help="Saved model: a folder or .zip.")],
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON.")] = False,
) -> None:
    """Say what a saved model is: method, parameters, sizes, versions.

    Its hashes are checked; nothing of it is built or run.
    """
    with reported(debug=context.obj):
        from sciseq.persistence.description import as_text, describe

        found = describe(model)
        typer.echo(json.dumps(found, indent=1) if as_json else as_text(found))
