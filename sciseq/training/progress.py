"""Telling a waiting user how training goes: a live bar, plain lines, or nothing."""

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress

__all__ = ["BarReporter", "LineReporter", "Reporter", "make_reporter"]


class Reporter:
    """Reports nothing; the base of those that do.

    Used as a context manager around the epochs.
    """

    def __enter__(self) -> "Reporter":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def note(self, text: str) -> None:
        """Say something in one line."""

    def step_done(self) -> None:
        """Note that one training step is done."""

    def epoch_done(self, record: Mapping[str, float]) -> None:
        """Note that the epoch of ``record`` is done."""

    def close(self) -> None:
        """Leave the terminal as it was."""


class LineReporter(Reporter):
    """One plain line per epoch, for log files and notebooks.

    Parameters
    ----------
    stream : text stream
        Where to write.
    max_epochs : int
        Largest number of epochs.

    Examples
    --------
    >>> import sys
    >>> reporter = LineReporter(sys.stdout, max_epochs=10)
    >>> reporter.epoch_done({"epoch": 3, "train_loss": 0.25, "validation_loss": 0.5,
    ...                      "learning_rate": 1e-4, "seconds": 1.25})
    epoch 3/10  train_loss 0.25  validation_loss 0.5  learning_rate 0.0001  1.2 s
    """

    def __init__(self, stream: TextIO, max_epochs: int) -> None:
        self._stream = stream
        self._max_epochs = max_epochs

    def note(self, text: str) -> None:
        """Write a line."""
        self._stream.write(text + "\n")
        self._stream.flush()

    def epoch_done(self, record: Mapping[str, float]) -> None:
        """Write the line of one epoch."""
        fields = [
            f"epoch {record['epoch']}/{self._max_epochs}",
            _losses(record),
            f"learning_rate {record['learning_rate']:.6g}",
            f"{record['seconds']:.1f} s",
        ]
        self.note("  ".join(fields))


class BarReporter(Reporter):
    """One live bar with epoch, loss and time left, for terminals.

    Parameters
    ----------
    stream : text stream
        The terminal.
    max_epochs : int
        Largest number of epochs; the time left is that until the last of them.
    n_steps : int
        Training steps per epoch.
    n_done : int
        Epochs done before, when a run is resumed.
    """

    def __init__(
        self, stream: TextIO, max_epochs: int, n_steps: int, n_done: int
    ) -> None:
        self._max_epochs = max_epochs
        self._bar = _new_bar(stream)
        self._task = self._bar.add_task(
            f"epoch {n_done}/{max_epochs}",
            total=max_epochs * n_steps,
            completed=n_done * n_steps,
        )

    def __enter__(self) -> "BarReporter":
        self._bar.start()
        return self

    def note(self, text: str) -> None:
        """Write a line above the bar."""
        self._bar.console.print(text, markup=False, highlight=False)

    def step_done(self) -> None:
        """Move the bar by one step."""
        self._bar.advance(self._task)

    def epoch_done(self, record: Mapping[str, float]) -> None:
        """Show the losses of one epoch."""
        text = f"epoch {record['epoch']}/{self._max_epochs}  {_losses(record)}"
        self._bar.update(self._task, description=text)

    def close(self) -> None:
        """Stop the bar, leaving its last state on the terminal."""
        self._bar.stop()


def make_reporter(
    verbose: int, *, max_epochs: int, n_steps: int, n_done: int
) -> Reporter:
    """Return the reporter that suits ``verbose`` and the standard error stream."""
    # Programs without a console have no standard error stream at all.
    if verbose < 1 or sys.stderr is None:
        return Reporter()
    if sys.stderr.isatty():
        return BarReporter(sys.stderr, max_epochs, n_steps, n_done)
    return LineReporter(sys.stderr, max_epochs)


def _losses(record: Mapping[str, float]) -> str:
    names = ("train_loss", "validation_loss")
    return "  ".join(f"{name} {record[name]:.6g}" for name in names if name in record)


def _new_bar(stream: TextIO) -> "Progress":
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TimeRemainingColumn(),
        console=Console(file=stream),
        # Rich would replace sys.stdout and sys.stderr of the whole process.
        redirect_stdout=False,
        redirect_stderr=False,
    )
