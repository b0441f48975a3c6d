"""How far a prediction is: a live bar, plain lines, or nothing."""

import sys
import time
from typing import Any, Self

from sciseq.cli.boundary import say

__all__ = ["BarProgress", "LineProgress", "Progress", "make_progress"]

# Seconds between two plain lines.
_PAUSE = 10.0


class Progress:
    """Counts spectra and shows nothing; the base of those that do.

    Parameters
    ----------
    n_all : int
        Spectra of all files.
    n_before : int
        Those that an earlier run has done.

    Attributes
    ----------
    n_done : int
        Spectra that are done.
    """

    def __init__(self, n_all: int, n_before: int) -> None:
        self.n_all = n_all
        self.n_before = n_before
        self.n_done = n_before
        self._start = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Time since the start."""
        return time.perf_counter() - self._start

    @property
    def speed(self) -> float:
        """Spectra of this run per second."""
        return (self.n_done - self.n_before) / max(self.seconds, 1e-9)

    def __enter__(self) -> Self:
        self._start = time.perf_counter()
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def advance(self, number: int) -> None:
        """Note that so many more spectra are done."""
        self.n_done += number


class LineProgress(Progress):
    """A plain line now and then, for log files."""

    _told = 0.0

    def advance(self, number: int) -> None:
        """Count, and write a line when the last one is old enough."""
        super().advance(number)
        if self.seconds - self._told < _PAUSE:
            return
        self._told = self.seconds
        left = round((self.n_all - self.n_done) / self.speed)
        say(
            f"{self.n_done}/{self.n_all} spectra  {self.speed:.3g} spectra/s  "
            f"{left // 3600}:{left // 60 % 60:02d}:{left % 60:02d} left"
        )


class BarProgress(Progress):
    """One live bar with speed and time left, for terminals."""

    def __init__(self, n_all: int, n_before: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        super().__init__(n_all, n_before)
        self._bar = RichProgress(
            TextColumn("{task.completed}/{task.total} spectra"),
            BarColumn(),
            TextColumn("{task.fields[speed]} spectra/s"),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=Console(file=sys.stderr),
            # Rich would replace sys.stdout and sys.stderr of the whole process.
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._task: Any = self._bar.add_task(
            "", total=n_all, completed=n_before, speed="-"
        )

    def __enter__(self) -> Self:
        self._bar.start()
        return super().__enter__()

    def __exit__(self, *exception: object) -> None:
        self._bar.stop()

    def advance(self, number: int) -> None:
        """Count, and move the bar."""
        super().advance(number)
        self._bar.update(self._task, advance=number, speed=f"{self.speed:.3g}")


def make_progress(n_all: int, n_before: int, *, quiet: bool) -> Progress:
    """Return what suits the standard error stream."""
    if quiet:
        return Progress(n_all, n_before)
    is_terminal = sys.stderr.isatty()
    return (BarProgress if is_terminal else LineProgress)(n_all, n_before)
