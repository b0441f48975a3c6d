"""Errors and warnings that sciseq raises, all under :class:`SciSeqError`.

Every error says what was given and what is allowed (``message``), the place
(``where``: series, column, row, file, ...) and how to mend it (``hint``).
``NotFittedError`` is scikit-learn's own and is re-exported lazily.
"""

from difflib import get_close_matches
from typing import Any

__all__ = [
    "CapabilityError",
    "CheckpointError",
    "DataQualityError",
    "FileFormatError",
    "InputError",
    "InputTypeError",
    "MissingDependencyError",
    "NumericalError",
    "ProcessError",
    "SciSeqError",
    "SciSeqWarning",
    "UnsafeFileError",
    "nearest_name",
]


class SciSeqError(Exception):
    """Base of all errors that sciseq raises on purpose.

    Parameters
    ----------
    message : str
        What was given and what is allowed.
    where : str, optional
        The place: series, column, row, file, parameter.
    hint : str, optional
        What the caller can do about it.

    Examples
    --------
    >>> from sciseq.errors import InputError
    >>> print(InputError("horizon is 0, must be at least 1", where="horizon",
    ...                  hint="Give the number of rows."))
    horizon is 0, must be at least 1 (at: horizon). Give the number of rows.
    """

    def __init__(
        self, message: str, *, where: str | None = None, hint: str | None = None
    ) -> None:
        self.message = message
        self.where = where
        self.hint = hint
        super().__init__(message)

    def __str__(self) -> str:
        text = self.message
        if self.where:
            text = f"{text} (at: {self.where})"
        if self.hint:
            text = f"{text}{'' if text.endswith(('.', '?', '!')) else '.'} {self.hint}"
        return text

    def __reduce__(self) -> tuple[Any, ...]:
        # Exceptions pickle by their positional arguments; ours carry keywords, which
        # must survive the trip back from a worker process.
        state = {"where": self.where, "hint": self.hint}
        return _rebuild, (type(self), self.message, state)


def _rebuild(
    kind: type[SciSeqError], message: str, state: dict[str, Any]
) -> SciSeqError:
    return kind(message, **state)


class InputError(SciSeqError, ValueError):
    """An argument has the wrong shape, range, length or name."""


class InputTypeError(InputError, TypeError):
    """An argument has a type that cannot be used."""


class DataQualityError(SciSeqError, ValueError):
    """Values that would spoil the result: NaN, infinity, duplicates, gaps."""


class FileFormatError(SciSeqError, ValueError):
    """A file is not what it claims to be, or cannot be read as asked."""


class UnsafeFileError(SciSeqError, ValueError):
    """A file could run code, reach other files, or exhaust memory when opened."""


class CheckpointError(SciSeqError, ValueError):
    """A saved model or checkpoint is damaged, incomplete or of another version."""


class CapabilityError(SciSeqError, NotImplementedError):
    """The estimator cannot do what was asked, by its nature or by its settings."""


class NumericalError(SciSeqError, ArithmeticError):
    """A computation left the finite numbers."""


class MissingDependencyError(SciSeqError, ImportError):
    """An optional package is needed and not installed."""


class ProcessError(SciSeqError, RuntimeError):
    """A process that works together with others ended, or no longer answers."""


class SciSeqWarning(UserWarning):
    """Something is legal and yet probably not what was meant."""


def nearest_name(name: str, allowed: Any) -> str:
    """Return ``" Did you mean 'x'?"``, or an empty string when nothing is close.

    Examples
    --------
    >>> nearest_name("horizn", ["horizon", "lookback"])
    "Did you mean 'horizon'?"
    >>> nearest_name("etth1", ["ETTh1", "ETTm1"])
    "Did you mean 'ETTh1'?"
    >>> nearest_name("zzz", ["horizon", "lookback"])
    ''
    """
    # Upper and lower case are mixed up more often than letters.
    spelt = {str(one).lower(): str(one) for one in allowed}
    matches = get_close_matches(str(name).lower(), spelt, n=1)
    return f"Did you mean {spelt[matches[0]]!r}?" if matches else ""


def __getattr__(name: str) -> Any:
    if name == "NotFittedError":
        from sklearn.exceptions import NotFittedError

        return NotFittedError
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
