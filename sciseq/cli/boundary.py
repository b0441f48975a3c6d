"""Where exceptions become exit codes, and warnings become single lines."""

import contextlib
import os
import sys
import traceback
import warnings
from collections.abc import Iterator
from typing import Any, TextIO

import typer

from sciseq.errors import SciSeqError, SciSeqWarning

__all__ = ["reported", "say"]

FAULT, REFUSED, INTERRUPTED, BROKEN_PIPE = 1, 2, 130, 141


def say(text: str) -> None:
    """Write one line to standard error."""
    sys.stderr.write(f"{text}\n")


@contextlib.contextmanager
def reported(*, debug: bool) -> Iterator[None]:
    """Run a command: report what goes wrong in one line, and exit with its code.

    Parameters
    ----------
    debug : bool
        Show the traceback of an error too.

    Raises
    ------
    typer.Exit
        With the codes listed in :mod:`sciseq.cli`.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("default", SciSeqWarning)
        warnings.showwarning = _show_warning
        try:
            yield
            # A pipe that broke is noticed here rather than at the interpreter's end.
            sys.stdout.flush()
        except typer.Exit:
            raise
        except KeyboardInterrupt:
            _fail("interrupted, nothing was written", INTERRUPTED, debug=debug)
        except BrokenPipeError:
            _forget_stdout()
            raise typer.Exit(BROKEN_PIPE) from None
        except SciSeqError as error:
            _fail(f"error: {error}", REFUSED, debug=debug)
        except OSError as error:
            _fail(f"error: {_describe(error)}", REFUSED, debug=debug)
        except Exception as error:
            # The last line of defence: a fault of ours, told without its traceback.
            name = type(error).__name__
            hint = "" if debug else " (`sciseq --debug ...` shows where)"
            _fail(f"error: unexpected {name}: {error}{hint}", FAULT, debug=debug)


def _fail(message: str, code: int, *, debug: bool) -> None:
    if debug:
        traceback.print_exc()
    say(f"sciseq: {_in_one_line(message)}")
    raise typer.Exit(code)


def _describe(error: OSError) -> str:
    place = f": {error.filename}" if error.filename else ""
    return f"{error.strerror or error}{place}"


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    say(f"sciseq: warning: {_in_one_line(message)}")


def _in_one_line(text: Any) -> str:
    return " ".join(str(text).split())


def _forget_stdout() -> None:
    """Let the interpreter's own last flush go nowhere, quietly."""
    try:
        descriptor = sys.stdout.fileno()
    except (OSError, ValueError):
        return  # not a file of the operating system, so nothing is flushed to one
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)
