"""The rows to forecast: their labels, and the calendar of context and future."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sciseq.data.calendar import calendar_features
from sciseq.data.panel import Panel
from sciseq.data.timeline import Step, future_times

__all__ = ["FutureRows"]


@dataclass(frozen=True)
class FutureRows:
    """Labels of the future rows of each series; None for plain arrays."""

    times: tuple[Any, ...]

    @classmethod
    def after(cls, panel: Panel, step: Step | None, n_rows: int) -> "FutureRows":
        """Rows after the end of each series of a panel.

        Series that end at the same time share one index, so that thousands of them
        cost no more than one.
        """
        made: dict[Any, Any] = {}
        times: list[Any] = []
        for index in panel.times:
            if index is None:
                times.append(None)
                continue
            key = _key(index, index[-1])
            if key not in made:
                made[key] = future_times(index, step, n_rows)
            times.append(made[key])
        return cls(tuple(times))

    def marks(self, panel: Panel, names: Sequence[str]) -> npt.NDArray[np.float32]:
        """Calendar features of context and future rows, (n, L + n_rows, M)."""
        made: dict[Any, npt.NDArray[np.float32]] = {}
        marks = []
        for known, future in zip(panel.times, self.times, strict=True):
            key = _key(known, known[0], known[-1])
            if key not in made:
                made[key] = calendar_features(known.append(future), names)
            marks.append(made[key])
        return np.stack(marks)


def _key(index: Any, *labels: Any) -> tuple[Any, ...]:
    # The same moment in two time zones compares equal, and so does 1 with 1.0.
    return (type(index), str(index.dtype), index.name, *labels)
