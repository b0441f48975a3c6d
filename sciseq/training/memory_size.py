"""Amounts of memory as users write them: ``"4GB"``, ``"512 MiB"``, or bytes."""

import numbers
import re
from typing import Any

from sciseq.errors import InputError

__all__ = ["MemorySize", "format_bytes", "parse_bytes"]

_PREFIXES = ("", "k", "m", "g", "t")
_FACTORS = {
    **{f"{prefix}b": 1000**power for power, prefix in enumerate(_PREFIXES)},
    **{f"{prefix}ib": 1024**power for power, prefix in enumerate(_PREFIXES) if power},
}
_TEXT = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-z]+)\s*", re.IGNORECASE)


class MemorySize:
    """Rule of a parameter that is an amount of memory.

    Examples
    --------
    >>> MemorySize().allows("4GB"), MemorySize().allows("4"), MemorySize().allows(4.5)
    (True, False, False)
    """

    def allows(self, value: Any) -> bool:
        """Tell whether ``value`` keeps the rule."""
        try:
            return parse_bytes(value) >= 1
        except InputError:
            return False

    def describe(self) -> str:
        """Say what is allowed."""
        return "an amount of memory such as '4GB' or '512MiB', or a number of bytes"


def parse_bytes(size: str | int) -> int:
    """Return the bytes that ``size`` stands for.

    Parameters
    ----------
    size : str or int
        A number with its unit (B, kB, MB, GB, TB with factors of 1000, KiB, MiB, GiB,
        TiB with factors of 1024, in any case), or a number of bytes.

    Returns
    -------
    int
        Bytes, rounded down.

    Raises
    ------
    InputError
        For anything else.

    Examples
    --------
    >>> parse_bytes("1.5 GB"), parse_bytes("2KiB"), parse_bytes(10)
    (1500000000, 2048, 10)
    """
    if isinstance(size, numbers.Integral) and not isinstance(size, bool):
        return int(size)
    match = _TEXT.fullmatch(size) if isinstance(size, str) else None
    factor = _FACTORS.get(match[2].lower()) if match else None
    if match is None or factor is None:
        raise InputError(
            f"{size!r} is no amount of memory; allowed are a number with one of the "
            "units B, kB, MB, GB, TB, KiB, MiB, GiB and TiB, and a whole number of "
            "bytes",
            hint="Give for example '4GB'.",
        )
    return int(float(match[1]) * factor)


def format_bytes(n_bytes: int) -> str:
    """Write a number of bytes for people, to three digits.

    Examples
    --------
    >>> format_bytes(999), format_bytes(1_234_567), format_bytes(45_600_000_000)
    ('999 B', '1.23 MB', '45.6 GB')
    """
    value, power = float(n_bytes), 0
    while value >= 999.5 and power + 1 < len(_PREFIXES):
        value, power = value / 1000, power + 1
    unit = "kB" if power == 1 else f"{_PREFIXES[power].upper()}B"
    return f"{value:.3g} {unit}"
