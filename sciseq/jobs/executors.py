"""Doing the parts of a job, one after another."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

__all__ = ["Failure", "run_parts"]


class Failure(NamedTuple):
    """A part that could not be done.

    Parameters
    ----------
    type : str
        Class of the error.
    message : str
        What it said.
    traceback : str
        Where it was raised.
    """

    type: str
    message: str
    traceback: str


def run_parts(
    function: Callable[[Any, Any], Any],
    shared: Any,
    parts: Iterable[Any],
    *,
    n_jobs: int = 1,
    threads: int = 1,
    scheduler: str | None = None,
) -> Iterator[tuple[int, Any]]:
    """Yield the number and the result of each part."""
    for number, part in enumerate(parts):
        yield number, function(shared, part)
