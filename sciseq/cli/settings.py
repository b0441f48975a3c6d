"""Parameters of a method from the command line."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sciseq.errors import InputError

__all__ = ["parse_settings"]


def parse_settings(
    settings: Sequence[str], options: Mapping[str, str]
) -> dict[str, Any]:
    """Read values of ``--set name=value``: JSON where they are such, else text.

    Parameters
    ----------
    settings : sequence of str
        As given.
    options : mapping
        Parameters with an option of their own, and its name.

    Raises
    ------
    InputError
        For one without a name or value, and one with an option of its own.

    Examples
    --------
    >>> parse_settings(["d_model=64", "precision=bfloat16"], {})
    {'d_model': 64, 'precision': 'bfloat16'}
    """
    parsed: dict[str, Any] = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        name = name.strip()
        if not equals or not name:
            raise InputError(
                f"{setting!r} is not a setting",
                where="--set",
                hint="Write --set name=value, for example --set d_model=64.",
            )
        if name in options:
            raise InputError(
                f"{name!r} has an option of its own",
                where="--set",
                hint=f"Use {options[name]}.",
            )
        try:
            parsed[name] = json.loads(value)
        except json.JSONDecodeError:
            parsed[name] = value
    return parsed
