"""Missing values, treated only as the user chose.

- ``"error"``: NaN is refused, naming series, column and rows.
- ``"mask"``: NaN stays missing: it is left out of statistics and losses.
- ``"interpolate"``: linear between the neighbours in row order; ends repeat the
  nearest value.
"""

import numpy as np

from sciseq.data.panel import FloatArray, Panel, check_finite
from sciseq.errors import DataQualityError

__all__ = ["apply_missing_choice", "forward_fill"]


def apply_missing_choice(panel: Panel, missing: str) -> Panel:
    """Check for NaN and infinity, and interpolate when that was chosen.

    Parameters
    ----------
    panel : Panel
        Series with NaN where a value is missing.
    missing : {"error", "mask", "interpolate"}
        The stated choice.

    Returns
    -------
    Panel
        NaN remains only with ``"mask"``.

    Raises
    ------
    DataQualityError
        For infinity always, for NaN with ``"error"``, and for a column of a series
        without a single value (it can neither be interpolated nor masked).
    """
    check_finite(panel, allow_missing=missing != "error")
    if missing == "error":
        return panel
    filled = []
    for series, values in enumerate(panel.values):
        gaps = np.isnan(values)
        if not gaps.any():
            filled.append(values)
            continue
        empty = np.flatnonzero(gaps.all(axis=0))
        if len(empty):
            raise DataQualityError(
                f"no value at all in {len(values)} rows: NaN throughout",
                where=panel.series_label(series) + panel.column_label(int(empty[0])),
                hint="Drop the column, or the series, or give a longer history.",
            )
        filled.append(_interpolate(values, gaps) if missing != "mask" else values)
    return panel.with_values(filled)


def _interpolate(values: FloatArray, gaps: np.ndarray) -> FloatArray:
    rows = np.arange(len(values))
    result = values.copy()
    for column in np.flatnonzero(gaps.any(axis=0)):
        missing = gaps[:, column]
        known = ~missing
        result[missing, column] = np.interp(
            rows[missing], rows[known], values[known, column]
        )
    return result


def forward_fill(windows: FloatArray) -> FloatArray:
    """Repeat the last known value along axis 1; leading gaps stay NaN.

    Parameters
    ----------
    windows : ndarray of shape (n_windows, n_rows, n_columns)
        Windows with NaN gaps.

    Examples
    --------
    >>> forward_fill(np.array([[[1.0], [np.nan]]])).ravel().tolist()
    [1.0, 1.0]
    """
    n_rows = windows.shape[1]
    rows = np.where(np.isnan(windows), 0, np.arange(n_rows)[None, :, None])
    last = np.maximum.accumulate(rows, axis=1)
    return np.asarray(np.take_along_axis(windows, last, axis=1))
