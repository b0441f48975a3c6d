"""Splits in time for scikit-learn's searches, whose folds bring their context along.

Axis legend: N times of the table, S test rows, C context rows, k number of the fold.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from sklearn.model_selection import BaseCrossValidator

from sciseq.data.containers import read_panel
from sciseq.errors import DataQualityError, InputError, InputTypeError
from sciseq.model_selection.time_axis import (
    TRAINING_RULES,
    IntArray,
    check_arguments,
    joint_times,
    training_rows,
)
from sciseq.parameters import Integer, Rule

__all__ = ["RollingOriginSplit"]

SPLIT_RULES: dict[str, Rule] = {
    **TRAINING_RULES,
    "n_splits": Integer(1),
    "test_size": Integer(1),
    "context": Integer(0),
}


class RollingOriginSplit(BaseCrossValidator):
    r"""Cut a table in time: each test part holds its context, then the rows to score.

    With N times, S = ``test_size`` and C = ``context``, fold :math:`k` (from 0) has its
    origin at :math:`s_k = N - (n_{splits} - k) S`:

    .. math:: \text{train} = [0,\ s_k - gap), \qquad
              \text{test} = [s_k - C,\ s_k) \cup [s_k,\ s_k + S)

    The C context rows are what a forecast looks back on; only the S rows after them
    may be scored, which :func:`forecast_scorer` does with the same ``context``. They
    are the same rows for every model, and the first is the first row after the
    training part (and the gap).

    Parameters
    ----------
    n_splits : int, default=5
        Number of folds. Their S rows follow each other up to the end of the table.
    test_size : int
        Times to score in each fold; at least the horizon of the models.
    context : int
        Times before them that go into the test part; at least the longest lookback
        among the models.
    gap : int, default=0
        Times left out between the training part and the rows to score.
    window : {"expanding", "sliding"}, default="expanding"
        Train on all earlier times, or on the last ``train_size``.
    train_size : int, optional
        Times of a sliding window; by default those of the first fold.

    Raises
    ------
    InputError
        For arguments out of range.

    See Also
    --------
    forecast_scorer : Scorer for these folds.
    backtest : Rolling origins with tables of metrics and forecasts.

    Notes
    -----
    A table with a two-level (series, time) index is cut on the time level, at the same
    times for all series, whatever the order of its rows. Series may be of unequal
    length: a test part holds the series that have all its C + S times. A training part
    leaves out series that have fewer than C + S rows in it (or than all its times, if
    it is shorter itself): models refuse to fit when a series is too short.

    In a stack of ready-made windows, of shape (n_windows, lookback, n_columns), the
    windows are cut, in their order. They bring their own context, so none is added.
    Windows that start one row apart need a ``gap`` of at least horizon - 1, or rows to
    be scored are learnt from.

    ``sklearn.model_selection.TimeSeriesSplit`` gives a fold too few rows to look back
    on, scores other rows for another lookback, and cuts a panel by rows, that is in
    the middle of its series.

    Examples
    --------
    >>> import numpy as np
    >>> splits = RollingOriginSplit(n_splits=2, test_size=2, context=3)
    >>> for train, test in splits.split(np.zeros((9, 1))):
    ...     print(train, test)
    [0 1 2 3 4] [2 3 4 5 6]
    [0 1 2 3 4 5 6] [4 5 6 7 8]

    Every lookback is scored on the same rows:

    >>> from sklearn.model_selection import GridSearchCV
    >>> from sciseq import LinearForecaster
    >>> from sciseq.model_selection import forecast_scorer
    >>> X = np.sin(np.arange(200.0) / 4).reshape(-1, 1)
    >>> search = GridSearchCV(
    ...     LinearForecaster(horizon=4),
    ...     {"lookback": [2, 16]},
    ...     cv=RollingOriginSplit(n_splits=3, test_size=20, context=16),
    ...     scoring=forecast_scorer("mae", context=16),
    ... )
    >>> search.fit(X).best_params_
    {'lookback': 16}
    """

    def __init__(
        self,
        n_splits: int = 5,
        *,
        test_size: int,
        context: int,
        gap: int = 0,
        window: str = "expanding",
        train_size: int | None = None,
    ) -> None:
        self.n_splits = n_splits
        self.test_size = test_size
        self.context = context
        self.gap = gap
        self.window = window
        self.train_size = train_size
        check_arguments(type(self).__name__, vars(self), SPLIT_RULES)

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:
        """Return the number of folds.

        Parameters
        ----------
        X, y, groups : object, optional
            Ignored; part of scikit-learn's interface.

        Returns
        -------
        int
            ``n_splits``.
        """
        return int(self.n_splits)

    def split(
        self, X: Any, y: Any = None, groups: Any = None
    ) -> Iterator[tuple[IntArray, IntArray]]:
        """Return the row positions of the training and test part of each fold.

        Parameters
        ----------
        X : DataFrame, Series, ndarray, or DataArray whose first dimension is time
            The table, of which scikit-learn takes rows by position. A two-level index
            is cut on its time level; an array of three axes holds windows.
        y, groups : object, optional
            Ignored.

        Returns
        -------
        iterator of (ndarray of int, ndarray of int)
            Positions in the order of the rows of X.

        Raises
        ------
        InputError
            For too few rows, or a fold without any complete series.
        InputTypeError
            For a container that has no rows to take by position, such as a list of
            series.
        DataQualityError
            When the rows of a series are not in order of time.
        """
        rows = _rows_in_time(X)
        context = 0 if rows.are_windows else int(self.context)
        first = rows.n_times - self.n_splits * self.test_size
        needed = max(context, self.gap + (self.train_size or 1))
        if first < needed:
            raise InputError(
                f"{rows.n_times} times are too few: {needed} come before the first "
                f"rows to score, then {self.n_splits} folds of {self.test_size}; "
                f"{needed + self.n_splits * self.test_size} are needed",
                where="X",
                hint="Lower n_splits, test_size, context, gap or train_size.",
            )
        return self._folds(rows, first, context)

    def _folds(
        self, rows: "_Rows", first: int, context: int
    ) -> Iterator[tuple[IntArray, IntArray]]:
        length = context + self.test_size
        for fold in range(self.n_splits):
            origin = first + fold * self.test_size
            learnt = training_rows(
                origin - self.gap, first - self.gap, self.window, self.train_size
            )
            scored = slice(origin - context, origin + self.test_size)
            enough = min(length, learnt.stop - learnt.start)
            train = rows.within(learnt, enough)
            test = rows.within(scored, length)
            for part, name, count in (
                (train, "training", enough),
                (test, "test", length),
            ):
                if len(part) == 0:
                    raise InputError(
                        f"the {name} part of fold {fold} is empty: no series has "
                        f"{count} rows in it",
                        where="X.index",
                        hint="Lower n_splits, test_size or context, or leave out the "
                        "series that end early.",
                    )
            yield train, test


class _Rows(NamedTuple):
    """Rows of a table: their series, and their position in time."""

    series: IntArray
    times: IntArray
    n_times: int
    are_windows: bool = False

    def within(self, times: slice, n_needed: int) -> IntArray:
        """Rows in a range of times, of series that have enough rows there."""
        inside = (self.times >= times.start) & (self.times < times.stop)
        counts = np.bincount(self.series[inside], minlength=1)
        enough = np.flatnonzero(counts >= n_needed)
        return np.flatnonzero(inside & np.isin(self.series, enough))


def _rows_in_time(X: Any) -> _Rows:
    _check_has_rows(X)
    if isinstance(X, pd.DataFrame | pd.Series) and X.index.nlevels > 1:
        return _rows_of_panel(X.index)
    n_rows = len(X)
    return _Rows(
        series=np.zeros(n_rows, dtype=np.int64),
        times=np.arange(n_rows),
        n_times=n_rows,
        are_windows=isinstance(X, np.ndarray) and X.ndim == 3,
    )


def _rows_of_panel(index: Any) -> _Rows:
    if index.nlevels > 2:
        raise InputError(
            f"the index has {index.nlevels} levels, allowed are one (time) or two "
            "(series, time)",
            where="X.index",
            hint="Join the leading levels into one series name.",
        )
    series, _ = pd.factorize(index.get_level_values(0))
    if (series < 0).any():
        raise DataQualityError(
            f"{int((series < 0).sum())} rows have no series label",
            where="X.index, first level",
            hint="Drop these rows or name their series.",
        )
    series = series.astype(np.int64)
    times, axis = joint_times(series, index.get_level_values(1))
    return _Rows(series, times, len(axis))


def _check_has_rows(X: Any) -> None:
    """Refuse containers whose first axis is not time (or windows in time)."""
    is_many = isinstance(X, Mapping) or (
        isinstance(X, list | tuple)
        and any(np.ndim(item) > 1 or hasattr(item, "iloc") for item in X)
    )
    if is_many:
        raise InputTypeError(
            f"a {type(X).__name__} of series has no rows that scikit-learn can take "
            "by position",
            where="X",
            hint="Join the series into one table with a (series, time) index: "
            "pandas.concat(dict(enumerate(series)), names=['series', 'time']); or use "
            "backtest, which takes every container.",
        )
    if not hasattr(X, "__len__"):
        raise InputTypeError(
            f"a table was expected, got {type(X).__name__}",
            where="X",
            hint="Give a pandas object or an array with rows in order of time.",
        )
    if type(X).__module__.partition(".")[0] != "xarray":
        return
    # One row along the first axis is one time, if that axis is time.
    if not hasattr(X, "dtype") or read_panel(X[:1]).lengths[0] != 1:
        raise InputTypeError(
            f"scikit-learn takes rows along the first axis, and that of this "
            f"{type(X).__name__} with dimensions {tuple(X.dims)} is not time",
            where="X.dims",
            hint="Give a DataArray transposed with X.transpose('time', ...), or use "
            "backtest, which takes every container.",
        )
