"""The long-horizon protocol: fixed splits that make published results comparable.

Train, validation and test follow each other in time. The validation and test segments
start ``lookback`` rows early, so that the first row to be forecast is the first row of
the segment. Every window counts, also those of a last partial batch.
"""

import operator
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

from sciseq.data.datasets import describe_dataset, list_datasets
from sciseq.errors import DataQualityError, InputError, InputTypeError, nearest_name

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "SPLIT_RULES",
    "LongHorizonSplit",
    "SplitRule",
    "count_windows",
    "long_horizon_split",
]


class LongHorizonSplit(NamedTuple):
    """The three segments of one table, in time order."""

    train: "pd.DataFrame"
    validation: "pd.DataFrame"
    test: "pd.DataFrame"


@dataclass(frozen=True)
class SplitRule:
    """How many rows belong to train, validation and test.

    Either all three are numbers of rows, counted from the start (rows after them are
    not used), or two are shares of all N rows and the third is None and takes the rest:

    - validation is the rest: ``n_train = int(train * N)``, ``n_test = int(test * N)``;
    - test is the rest: train ends at ``int(train * N)`` and validation at
      ``int((train + validation) * N)``.

    Parameters
    ----------
    train : int or float
        Rows, or share of the rows.
    validation, test : int, float or None
        Rows, or share of the rows; None for the part that takes the rest.
    borrow_history : bool, default=True
        Start validation and test ``lookback`` rows early.

    Raises
    ------
    InputError
        When the parts are neither three row counts nor two shares below 1 in sum.

    Examples
    --------
    >>> SplitRule(train=0.7, test=0.2).segments(1000, lookback=96)
    (slice(0, 700, None), slice(604, 800, None), slice(704, 1000, None))
    """

    train: int | float
    validation: int | float | None = None
    test: int | float | None = None
    borrow_history: bool = True

    def __post_init__(self) -> None:
        parts = [self.train, self.validation, self.test]
        given = [part for part in parts if part is not None]
        is_rows = all(isinstance(part, int) and part >= 1 for part in parts)
        is_shares = (
            len(given) == 2
            and all(isinstance(part, float) and part > 0 for part in given)
            and sum(given) < 1
        )
        if not (is_rows or is_shares):
            raise InputError(
                f"{self!r} is not a split: give three numbers of rows (int, at least "
                "1), or two shares (float) with a sum below 1",
                where="train, validation, test",
                hint="With shares, leave out the part that takes the rest.",
            )

    def segments(self, n_rows: int, lookback: int) -> tuple[slice, slice, slice]:
        """Return the rows of train, validation and test.

        Parameters
        ----------
        n_rows : int
            Number of rows of the table.
        lookback : int
            Number of rows that a forecast looks back on.

        Returns
        -------
        tuple of slice
            Train, validation, test; the last two with the borrowed rows.

        Raises
        ------
        InputError
            When the table is too short for the rule or for the lookback.
        """
        n_rows = _count(n_rows, "n_rows", minimum=0)
        lookback = _count(lookback, "lookback", minimum=1)
        train_end, validation_end, test_end = self._bounds(n_rows)
        if not 0 < train_end < validation_end < test_end <= n_rows:
            raise InputError(
                f"{n_rows} rows are too few for {self!r}",
                where="n_rows",
                hint=f"The rule would end train, validation and test at rows "
                f"{train_end}, {validation_end} and {test_end}: give more rows, or a "
                "SplitRule of shares.",
            )
        borrowed = lookback if self.borrow_history else 0
        if borrowed > train_end:
            raise InputError(
                f"lookback is {lookback}, but only {train_end} train rows come before "
                "the validation rows",
                where="lookback",
                hint="Use a shorter lookback or a larger train segment.",
            )
        return (
            slice(0, train_end),
            slice(train_end - borrowed, validation_end),
            slice(validation_end - borrowed, test_end),
        )

    def _bounds(self, n_rows: int) -> tuple[int, int, int]:
        if self.validation is None:
            # __post_init__ has made sure that the other two parts are shares.
            n_test = int((self.test or 0.0) * n_rows)
            return int(self.train * n_rows), n_rows - n_test, n_rows
        if self.test is None:
            # The sum of the shares is multiplied, not each share: results for 0.6 and
            # 0.2 differ by one row.
            shares = self.train + self.validation
            return int(self.train * n_rows), int(shares * n_rows), n_rows
        validation_end = int(self.train + self.validation)
        return int(self.train), validation_end, validation_end + int(self.test)


SPLIT_RULES: dict[str, SplitRule] = {
    # 12, 4 and 4 months of 30 days.
    "ett_hourly": SplitRule(train=8640, validation=2880, test=2880),
    "ett_quarter_hourly": SplitRule(train=34560, validation=11520, test=11520),
    # Exchange, Weather, ECL (Electricity), Traffic, Solar.
    "ratio": SplitRule(train=0.7, test=0.2),
    # PEMS03, PEMS04, PEMS07, PEMS08: segments are cut without borrowed history.
    "pems": SplitRule(train=0.6, validation=0.2, borrow_history=False),
}
"""The published rules, for tables that are not among the data sets of sciseq."""


def long_horizon_split(
    frame: "pd.DataFrame", name_or_rule: str | SplitRule, *, lookback: int
) -> LongHorizonSplit:
    """Split a table as the long-horizon forecasting papers do.

    Parameters
    ----------
    frame : pandas.DataFrame
        Table in time order, one row per time step.
    name_or_rule : str or SplitRule
        Name of a data set with a published split ("ETTh1", "weather", ...), name of a
        rule in ``SPLIT_RULES``, or a rule of your own.
    lookback : int
        Number of rows that a forecast looks back on; validation and test start that
        many rows early.

    Returns
    -------
    LongHorizonSplit
        ``train``, ``validation`` and ``test``. For a named data set its target is the
        last column; otherwise the columns keep their order.

    Raises
    ------
    InputTypeError
        When `frame` is not a table.
    InputError
        When the name is unknown, has no split, or the table is too short.
    DataQualityError
        When the times are not in order: a split would mix past and future.

    Notes
    -----
    Scaling statistics belong to the train rows only, and errors are averaged over every
    window of the test segment (:class:`sciseq.metrics.ForecastErrors`). Dropping the
    last partial batch, as programs derived from Informer do, makes the score depend on
    the batch size (Zhou et al., Informer, arXiv:2012.07436).

    Examples
    --------
    >>> import pandas as pd
    >>> frame = pd.DataFrame({"load": range(1000)})
    >>> split = long_horizon_split(frame, "ratio", lookback=96)
    >>> len(split.train), len(split.validation), len(split.test)
    (700, 196, 296)
    >>> count_windows(len(split.test), lookback=96, horizon=24)
    177
    """
    _check_table(frame)
    rule, target = _resolve(name_or_rule)
    segments = rule.segments(len(frame), lookback)
    if target is not None and target in frame.columns:
        frame = frame[[*frame.columns.drop(target), target]]
    return LongHorizonSplit(*(frame.iloc[rows] for rows in segments))


def count_windows(n_rows: int, lookback: int, horizon: int) -> int:
    r"""Count the windows with stride 1 in a segment.

    .. math:: n = \max(0, N - L - H + 1)

    Parameters
    ----------
    n_rows : int
        Rows N of the segment, borrowed rows included.
    lookback, horizon : int
        Rows L that a forecast looks back on, and rows H that it forecasts.

    Returns
    -------
    int
        Number of windows; 0 when the segment is shorter than one window.

    Raises
    ------
    InputError
        When a number is below its minimum or not an integer.

    Examples
    --------
    >>> count_windows(2880 + 96, lookback=96, horizon=720)
    2161
    """
    n_rows = _count(n_rows, "n_rows", minimum=0)
    lookback = _count(lookback, "lookback", minimum=1)
    horizon = _count(horizon, "horizon", minimum=1)
    return max(0, n_rows - lookback - horizon + 1)


def _resolve(name_or_rule: str | SplitRule) -> tuple[SplitRule, str | None]:
    if isinstance(name_or_rule, SplitRule):
        return name_or_rule, None
    if not isinstance(name_or_rule, str):
        raise InputTypeError(
            f"a name or a SplitRule is needed, {type(name_or_rule).__name__} was given",
            where="name_or_rule",
            hint=f"Rules are {', '.join(SPLIT_RULES)}.",
        )
    if name_or_rule in SPLIT_RULES:
        return SPLIT_RULES[name_or_rule], None
    names = [*SPLIT_RULES, *list_datasets()["name"]]
    if name_or_rule not in names:
        raise InputError(
            f"{name_or_rule!r} is neither a data set nor a split rule. "
            f"{nearest_name(name_or_rule, names)}".rstrip(),
            where="name_or_rule",
            hint=f"Rules are {', '.join(SPLIT_RULES)}; or pass a SplitRule.",
        )
    entry = describe_dataset(name_or_rule)
    if "split" not in entry:
        raise InputError(
            f"data set {name_or_rule!r} has no published long-horizon split",
            where="name_or_rule",
            hint='Pass a SplitRule, or "ratio" for 0.7, the rest, and 0.2.',
        )
    return SplitRule(**entry["split"]), entry.get("target")


def _check_table(frame: Any) -> None:
    import pandas as pd

    if not isinstance(frame, pd.DataFrame):
        raise InputTypeError(
            f"a pandas.DataFrame is needed, {type(frame).__name__} was given",
            where="frame",
            hint="For other containers use SplitRule.segments, which gives slices.",
        )
    if frame.index.nlevels > 1:
        raise InputError(
            "the table is a panel with a two-level index, the protocol splits one "
            "table in time",
            where="frame.index",
            hint="Split each series by itself, or unstack the series into columns.",
        )
    if not frame.index.is_monotonic_increasing:
        later, earlier = _first_step_back(frame.index)
        raise DataQualityError(
            f"the index is not in time order: {later} is followed by {earlier}",
            where="frame.index",
            hint="Sort the table with frame.sort_index().",
        )


def _first_step_back(index: "pd.Index[Any]") -> tuple[Any, Any]:
    return next((one, two) for one, two in pairwise(index) if not one <= two)


def _count(value: int, name: str, *, minimum: int) -> int:
    try:
        count = operator.index(value)
    except TypeError:
        raise InputTypeError(
            f"{name} is {value!r}, must be an integer",
            where=name,
            hint="Give a number of rows.",
        ) from None
    if count < minimum:
        raise InputError(
            f"{name} is {count}, must be at least {minimum}",
            where=name,
            hint="Give a number of rows.",
        )
    return count
