"""The rows to forecast: their labels, and the calendar of context and future."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sciseq.data.calendar import calendar_features
from sciseq.data.panel import Panel, once_each
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

        def following(index: Any) -> Any:
            if index is None:
                return None
            key = _key(index, -1)
            if key not in made:
                made[key] = future_times(index, step, n_rows)
            return made[key]

        return cls(once_each(following, panel.times))

    def marks(self, panel: Panel, names: Sequence[str]) -> npt.NDArray[np.float32]:
        """Calendar features of context and future rows, (n, L + n_rows, M)."""
        place_of_pair: dict[tuple[int, int], int] = {}
        place_of_labels: dict[Any, int] = {}
        made: list[npt.NDArray[np.float32]] = []
        places = []
        for known, future in zip(panel.times, self.times, strict=True):
            pair = (id(known), id(future))
            if pair not in place_of_pair:
                key = _key(known, 0, -1)
                if key not in place_of_labels:
                    place_of_labels[key] = len(made)
                    made.append(calendar_features(known.append(future), names))
                place_of_pair[pair] = place_of_labels[key]
            places.append(place_of_pair[pair])
        return np.stack(made)[places]


def _key(index: Any, *rows: int) -> tuple[Any, ...]:
    # The same moment in two time zones compares equal, and so does 1 with 1.0.
    labels = getattr(index, "asi8", index)
    return (type(index), index.dtype, index.name, *(labels[row] for row in rows))
