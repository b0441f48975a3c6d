"""Options of a command from a TOML file."""

import json
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import typer

from sciseq.cli.boundary import reported
from sciseq.errors import FileFormatError, InputError, nearest_name

__all__ = ["read_config", "use_config"]


def use_config(context: typer.Context, value: Path | None) -> Path | None:
    """Make the options in a file the defaults of a command; callback of ``--config``.

    Parameters
    ----------
    context : typer.Context
        Of the command, before its other options are read.
    value : Path or None
        The file.
    """
    if value is not None and not context.resilient_parsing:
        with reported(debug=bool(context.obj)):
            context.default_map = read_config(value, context.command.params)
    return value


def read_config(path: Path, parameters: Iterable[Any]) -> dict[str, Any]:
    """Read options as they would stand on the command line.

    Parameters
    ----------
    path : Path
        TOML file: names of options without their dashes, or of arguments.
    parameters : iterable of click.Parameter
        What the command takes.

    Returns
    -------
    dict
        Values by name of the parameter, as text; lists where several are allowed.

    Raises
    ------
    FileFormatError
        When it is no TOML.
    InputError
        For a name that the command does not know, and a value of another form.
    """
    try:
        content = tomllib.loads(path.read_text("utf-8"))
    except ValueError as error:  # wrong encodings are such, too
        raise FileFormatError(
            f"this is no TOML: {error}",
            where=str(path),
            hint='Write one option in a line, as in: device = "cpu"',
        ) from error
    known = {
        option.lstrip("-"): parameter
        for parameter in parameters
        for option in parameter.opts
        if (option.startswith("--") or not option.startswith("-"))
        and parameter.name not in ("config", "help")
    }
    found = {}
    for name, value in content.items():
        parameter = known.get(name.replace("_", "-"))
        if parameter is None:
            raise InputError(
                f"no option is called {name!r}, there are {', '.join(known)}",
                where=str(path),
                hint=nearest_name(name, known) or None,
            )
        found[str(parameter.name)] = _as_typed(name, value, parameter, path)
    return found


def _as_typed(name: str, value: Any, parameter: Any, path: Path) -> Any:
    """Return a value as the command line would give it, so that checks are the same."""
    if name == "set" and isinstance(value, dict):
        return [f"{key}={json.dumps(one)}" for key, one in value.items()]
    if getattr(parameter, "is_flag", False):
        if isinstance(value, bool):
            return value
        allowed = "true or false"
    elif getattr(parameter, "multiple", False) or parameter.nargs == -1:
        values = value if isinstance(value, list) else [value]
        if not any(isinstance(one, (bool, dict, list)) for one in values):
            return [str(one) for one in values]
        allowed = "a list of texts"
    else:
        if not isinstance(value, (bool, dict, list)):
            return str(value)
        allowed = "one text or number"
    raise InputError(
        f"{name} = {value!r} is not allowed: must be {allowed}", where=str(path)
    )
