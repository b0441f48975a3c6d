"""How the work of a task is cut into parts, and what joins them."""

import itertools
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from sciseq.jobs.executors import Failure
from sciseq.jobs.frames import panel_parts
from sciseq.jobs.job_file import Job
from sciseq.jobs.sources import History
from sciseq.jobs.tasks import (
    PartResult,
    backtest_part,
    forecast_part,
    generate_part,
    sequence_part,
)

__all__ = ["Work", "left_to_do", "work_of"]


@dataclass(frozen=True)
class Work:
    """The parts of a run.

    Parameters
    ----------
    function : callable
        ``function(shared, part)``, of :mod:`sciseq.jobs.tasks`.
    shared : object
        The same for all parts: as a rule the model.
    parts : iterable
        Parts, in order; they are made when they are needed.
    plan : dict
        How the work is cut: parts of another plan are no use to a resumed run.
    is_numbered : bool
        Whether rows have no index of their own.
    """

    function: Callable[[Any, Any], PartResult]
    shared: Any
    parts: Iterable[Any]
    plan: dict[str, Any]
    is_numbered: bool = False

    def failed(self, number: int, failure: Failure) -> PartResult:
        """Return the result of a part that could not be done at all."""
        labels = [f"part {number}"]
        part = next(itertools.islice(iter(self.parts), number, None))
        if isinstance(part, pd.DataFrame) and part.index.nlevels == 2:
            labels = [str(one) for one in part.index.unique(level=0)]
        failed = [{"series": one, "error": failure.message} for one in labels]
        return PartResult(pd.DataFrame(), failed, [])


def work_of(job: Job, history: History, model: Any) -> Work:
    """Cut the work of a job.

    Parameters
    ----------
    job : Job
        With its task.
    history : History
        What was read.
    model : estimator
        Fitted, but for a backtest.
    """
    settings = job["work"]
    if job.task == "forecast":
        number = settings["series_per_part"]
        parts = panel_parts(history.frame, number)
        shared = (model, job["forecast"]["coverage"])
        return Work(forecast_part, shared, parts, {"series": number})
    if job.task == "backtest":
        is_new = job["model"]["path"] is None
        given = (model, dict(job["backtest"]), is_new)
        return Work(backtest_part, given, [history.frame], {}, is_numbered=True)
    if job.task == "sequence":
        number = settings["spectra_per_part"]
        spectra = SpectraParts(history, number)
        return Work(sequence_part, model, spectra, {"spectra": number}, True)
    number, n = settings["sequences_per_part"], job["generate"]["n"]
    sizes = [min(number, n - start) for start in range(0, n, number)]
    seeds = np.random.SeedSequence(0).generate_state(len(sizes)).tolist()
    draws = list(zip(sizes, seeds, strict=True))
    return Work(generate_part, model, draws, {"sequences": number}, True)


def left_to_do(
    parts: Iterable[Any], finished: Collection[int], numbers: list[int]
) -> Iterator[Any]:
    """Yield the parts that are not finished, and note their numbers.

    Examples
    --------
    >>> numbers = []
    >>> list(left_to_do("abc", {1}, numbers)), numbers
    (['a', 'c'], [0, 2])
    """
    for number, part in enumerate(parts):
        if number not in finished:
            numbers.append(number)
            yield part


class SpectraParts:
    """Spectra of files, some at a time; read anew at each iteration.

    Parameters
    ----------
    history : FileInputs
        With the paths.
    number : int
        Spectra in a part.
    """

    def __init__(self, history: Any, number: int) -> None:
        self.paths, self.number = list(history.paths), number

    def __iter__(self) -> Iterator[list[Any]]:
        from sciseq.sequencing.spectrum_files import read_spectra

        records = iter(read_spectra(self.paths))
        while part := list(itertools.islice(records, self.number)):
            yield part
