"""Past errors of one series, and the quantiles that they give at each origin.

Axis legend: n windows, H horizon, T targets, Q levels, B forecasts that quantiles start
from (one, or one per level), K past windows, N of them that are looked at. A window is
named by its first target row r. Its step h (from 0) has its truth in row r + h, which
an origin knows when that row comes before its own first target row.
"""

import numpy as np

from sciseq.data.panel import FloatArray
from sciseq.errors import CapabilityError
from sciseq.model_selection.sorted_errors import SortedErrors, ranked_quantiles
from sciseq.model_selection.time_axis import IntArray

__all__ = ["ErrorHistory", "check_known", "known_windows"]

# Errors of a step that are known before they correct quantiles that a model forecasts
# itself: the level 0.05 needs 19, and fewer than five times that say little.
ENOUGH_ERRORS = 100
# Speed of adaptive levels, chosen on validation rows (docs/evaluation.md). Feedback
# comes h windows late: a product of speed and h above pi / 2 would make them swing.
SPEED = 0.001
# First target row of windows that every origin knows.
_LONG_AGO = -(2**62)


def check_known(shift: FloatArray) -> None:
    """Refuse quantiles (H, T, Q) that no error stands behind.

    Raises
    ------
    CapabilityError
        Naming the first step and target.
    """
    unknown = np.isnan(shift).any(axis=-1)
    if unknown.any():
        step, target = (int(one[0]) for one in np.nonzero(unknown))
        raise CapabilityError(
            "no error is known to calibrate quantiles on: the truth is missing in "
            "every held-out window",
            where=f"step {step + 1}, target {target}",
            hint="Fit with validation_data= or a larger validation_fraction.",
        )


def known_windows(rows: IntArray, row: int, horizon: int) -> IntArray:
    """Count the windows whose truth of each step is known before a row.

    Parameters
    ----------
    rows : ndarray of shape (K,)
        First target row of each window, rising.
    row : int
        First target row of the origin that looks back.
    horizon : int
        Steps H.

    Returns
    -------
    ndarray of shape (H,)
        Step h (from 0) of a window is known when r + h < row.

    Examples
    --------
    >>> known_windows(np.array([4, 5, 6]), row=7, horizon=3)
    array([3, 2, 1])
    """
    return np.searchsorted(rows, row - np.arange(horizon), side="left")


class ErrorHistory:
    """Errors of the past windows of one series, and what they say at each origin.

    Parameters
    ----------
    levels : ndarray of shape (Q,)
        Levels, rising.
    n_windows : int
        Latest windows N that are looked at.
    shape : tuple of int
        (H, T, B) of the forecasts that quantiles start from; B is 1, or Q when the
        model forecasts quantiles itself.
    start : ndarray of shape (K, H, T), or None
        Errors that are known from the beginning. None: until enough errors are known,
        quantiles are those of the model.
    is_adaptive : bool
        Whether levels follow the coverage.
    """

    def __init__(
        self,
        levels: FloatArray,
        n_windows: int,
        shape: tuple[int, ...],
        start: FloatArray | None,
        is_adaptive: bool,
    ) -> None:
        H, T, B = self._shape = shape
        self._levels = levels
        self._n_windows = n_windows
        self._has_start = start is not None
        self._speed = SPEED if is_adaptive else 0.0
        self._moved = np.tile(levels, (H, T, 1))  # (H, T, Q), where the levels are now
        known = (
            np.empty((0, *shape)) if start is None else start[-n_windows:, ..., None]
        )
        self._rows = np.full(len(known), _LONG_AGO)
        self._errors = known  # (K, H, T, B)
        self._shifts = np.full((len(known), H, T, len(levels)), np.nan)
        self._ends = np.full(H, len(known))  # errors of each step that are known
        self._sorted = SortedErrors(np.moveaxis(known, 0, -1).reshape(H * T * B, -1))

    def follow(self, rows: IntArray, truth: FloatArray, base: FloatArray) -> FloatArray:
        """Quantiles at origins that come after all earlier ones.

        Parameters
        ----------
        rows : ndarray of shape (n,)
            First target row of each window, rising.
        truth : ndarray of shape (n, H, T)
            What happened; looked at only by origins that know it.
        base : ndarray of shape (n, H, T, B)
            Forecasts that quantiles start from.

        Returns
        -------
        ndarray of shape (n, H, T, Q)

        Raises
        ------
        CapabilityError
            When there is no error to begin with.
        """
        n, H = base.shape[:2]
        n_before = len(self._rows)
        room = np.empty((n, *self._moved.shape))
        self._rows = np.concatenate([self._rows, rows])
        self._errors = np.concatenate([self._errors, truth[..., None] - base])
        self._shifts = np.concatenate([self._shifts, room])
        for window, row in enumerate(rows):
            self._learn(known_windows(self._rows, int(row), H))
            self._shifts[n_before + window] = self._shift()
        quantiles: FloatArray = base + self._shifts[n_before:]
        self._forget()
        return quantiles

    def _shift(self) -> FloatArray:
        """Return what the errors known now add to a forecast, (H, T, Q)."""
        H, T, B = self._shape
        ordered = self._sorted.ordered.reshape(H, T, B, -1)
        count = self._sorted.count.reshape(H, T, B)
        if self._has_start:
            shift = ranked_quantiles(ordered[:, :, 0], count[..., 0], self._moved)
            check_known(shift)
            return shift
        shift = ranked_quantiles(ordered, count, self._moved[..., None])[..., 0]
        return np.where(count >= ENOUGH_ERRORS, shift, 0.0)

    def _learn(self, ends: IntArray) -> None:
        """Take in what has become known since the last origin, step by step."""
        H, T, B = self._shape
        samples = np.arange(H * T * B).reshape(H, T * B)
        while len(steps := np.flatnonzero(self._ends < ends)):
            window = self._ends[steps]
            new = self._errors[window, steps]  # (m, T, B)
            old = self._errors[np.maximum(window - self._n_windows, 0), steps]
            old = np.where((window >= self._n_windows)[:, None, None], old, np.nan)
            if self._speed:
                self._adapt(steps, new, self._shifts[window, steps])
            self._sorted.replace(samples[steps].ravel(), old.ravel(), new.ravel())
            self._ends[steps] += 1

    def _adapt(self, steps: IntArray, errors: FloatArray, shifts: FloatArray) -> None:
        r"""Move the levels of some steps by whether a truth lay below its quantile.

        .. math:: \tau' \leftarrow \tau' + \gamma (\tau - 1\{y \le q\})

        for each step, target and level by itself: adaptive conformal inference (Gibbs
        and Candès, arXiv:2106.00170).
        """
        missed = np.where(np.isnan(errors), 0.0, self._levels - (errors <= shifts))
        self._moved[steps] += self._speed * missed

    def _forget(self) -> None:
        """Keep no more than what later origins may look at."""
        first = max(int(self._ends.min()) - self._n_windows, 0)
        self._rows = self._rows[first:]
        self._errors = self._errors[first:]
        self._shifts = self._shifts[first:]
        self._ends = self._ends - first
