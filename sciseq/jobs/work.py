"""How the work of a task is cut into parts, and what joins them."""

import itertools
import json
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from sciseq.errors import InputError
from sciseq.jobs.executors import Failure
from sciseq.jobs.field_source import FieldHistory
from sciseq.jobs.job_file import Job
from sciseq.jobs.sources import History
from sciseq.jobs.tasks import PartResult, backtest_rows, forecast_rows, generate_rows

__all__ = ["JobWork", "left_to_do", "work_of"]


@dataclass(frozen=True)
class JobWork:
    """The parts of a run.

    Parameters
    ----------
    function : callable
        ``function(shared, part)``, of ``sciseq.jobs.tasks``.
    shared : object
        The same for all parts: as a rule the model.
    parts : callable
        Makes the parts, in order, one when it is needed.
    plan : dict
        How the work is cut: parts of another plan are no use to a resumed run.
    is_numbered : bool
        Whether rows have no index of their own.
    """

    function: Callable[[Any, Any], Any]
    shared: Any
    parts: Callable[[], Iterable[Any]]
    plan: dict[str, Any]
    is_numbered: bool = False

    def failed(self, number: int, failure: Failure) -> PartResult:
        """Return the result of a part that could not be done at all."""
        labels = [f"part {number}"]
        part = next(itertools.islice(iter(self.parts()), number, None))
        is_panel = isinstance(part, pd.DataFrame) and part.index.nlevels == 2
        if is_panel and not self.is_numbered:  # not one result of all series
            labels = [str(one) for one in part.index.unique(level=0)]
        failed = [{"series": one, "error": failure.message} for one in labels]
        return PartResult(pd.DataFrame(), failed, [])


def work_of(job: Job, history: History | FieldHistory, model: Any) -> JobWork:
    """Cut the work of a job.

    Parameters
    ----------
    job : Job
        With its task.
    history : History or FieldHistory
        What was read.
    model : estimator
        Fitted, but for a backtest.
    """
    settings = job["work"]
    if job.task == "forecast":
        if isinstance(history, History):
            _check_columns(model, history)
        number = settings["series_per_part"]
        parts: Callable[[], Iterable[Any]] = partial(history.parts, number)
        shared = (model, job["forecast"]["coverage"])
        return JobWork(forecast_rows, shared, parts, {"series": number})
    if job.task == "backtest":
        is_new = job["model"]["path"] is None
        given = (model, dict(job["backtest"]), is_new)
        return JobWork(
            backtest_rows, given, lambda: [history.frame], {}, is_numbered=True
        )
    if job.task == "sequence":
        number = settings["spectra_per_part"]
        from sciseq.jobs.spectrum_parts import sequence_part

        cut = partial(spectra_of, history, number)
        return JobWork(sequence_part, model, cut, {"spectra": number}, True)
    number, n = settings["sequences_per_part"], job["generate"]["n"]
    sizes = [min(number, n - start) for start in range(0, n, number)]
    seeds = np.random.SeedSequence(0).generate_state(len(sizes)).tolist()
    draws = list(zip(sizes, seeds, strict=True))
    return JobWork(generate_rows, model, lambda: draws, {"sequences": number}, True)


def _check_columns(model: Any, history: History) -> None:
    """Refuse a table of other columns than the model learnt from, once for all series.

    Raises
    ------
    InputError
        With the columns that are new or gone.
    """
    known = getattr(model, "feature_names_in_", None)
    given = list(map(str, history.frame.columns))
    if known is None or set(given) == set(known):
        return
    new = [one for one in given if one not in known]
    gone = [one for one in known if one not in given]
    shown = "; ".join(
        f"{names} {what}"
        for names, what in ((new, "came since"), (gone, "are gone"))
        if names
    )
    raise InputError(
        f"the columns are not those that the model learnt from: {shown}",
        where=history.where,
        hint=f"Set source.drop = {json.dumps(new)}, or fit once with retrain.when = "
        '"always".'
        if new and not gone
        else 'Mend the source, or fit once with retrain.when = "always".',
    )


def spectra_of(history: Any, number: int) -> Iterator[Any]:
    """Yield the parts of all files of spectra."""
    from sciseq.jobs.spectrum_parts import spectrum_parts

    for path in history.paths:
        yield from spectrum_parts(path, number)


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
