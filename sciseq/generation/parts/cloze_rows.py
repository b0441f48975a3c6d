r"""Rows that a Cloze recommender learns from: windows of histories, and what is hidden.

Axes: ``window`` or ``batch``, ``position`` (at most N), padded on the left.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from sciseq.generation.context_counts import IntArray
from sciseq.generation.parts.batches import SequenceBatch

__all__ = ["ClozeBatches", "cloze_mask", "history_windows"]


def history_windows(
    histories: Sequence[IntArray], max_length: int, step: int, padding: int
) -> Tensor:
    """Cut histories into left-padded windows, from the last event backwards.

    Parameters
    ----------
    histories : sequence of ndarray of int
        Items of each, oldest first; empty ones have no window.
    max_length : int
        Events of a window N.
    step : int
        Events from one window to the next. The earliest window of a history begins
        with its first event.
    padding : int
        What stands before the first event.

    Returns
    -------
    Tensor of int64, shape (window, max_length)

    Examples
    --------
    >>> import numpy as np
    >>> history_windows([np.arange(5), np.array([7])], 3, 2, padding=9).tolist()
    [[2, 3, 4], [0, 1, 2], [9, 9, 7]]
    """
    rows = []
    for history in histories:
        start = len(history) - max_length
        while len(history):
            start = max(start, 0)
            row = np.full(max_length, padding, dtype=np.int64)
            events = history[start : start + max_length]
            row[max_length - len(events) :] = events
            rows.append(row)
            if start == 0:
                break
            start -= step
    return torch.from_numpy(np.array(rows, dtype=np.int64).reshape(-1, max_length))


def cloze_mask(
    is_event: Tensor, u: Tensor, rate: float, max_predictions: int | None = None
) -> Tensor:
    r"""Choose which events are hidden: a fixed number of them, all equally likely.

    .. math:: |S| = \min(m, \max(1, \mathrm{round}(\rho\, n)))

    Parameters
    ----------
    is_event : Tensor of bool, shape (batch, position)
        False at padding; n of each row are True.
    u : Tensor, shape (batch, position)
        Uniform numbers in (0, 1).
    rate : float
        Share :math:`\rho`.
    max_predictions : int, optional
        Largest number m.

    Returns
    -------
    Tensor of bool, shape (batch, position)

    Examples
    --------
    >>> import torch
    >>> is_event = torch.tensor([[False, True, True, True, True]])
    >>> u = torch.tensor([[0.0, 0.9, 0.2, 0.5, 0.1]])
    >>> cloze_mask(is_event, u, 0.5).int().tolist()
    [[0, 0, 1, 0, 1]]
    """
    length = is_event.sum(dim=1)
    count = (length.double() * rate).round().long().clamp_min(1)
    if max_predictions is not None:
        count = count.clamp_max(max_predictions)
    order = u.masked_fill(~is_event, 2.0).argsort(dim=1).argsort(dim=1)
    return is_event & (order < count.unsqueeze(1))


class ClozeBatches:
    """Windows of histories, each several times, on a device.

    Parameters
    ----------
    windows : Tensor of int64, shape (window, position)
        From :func:`history_windows`.
    n_times : int
        How often each is there. A row's number tells which time it is: row r holds
        window r modulo their number.
    device : torch.device
        Where to keep them.
    """

    def __init__(self, windows: Tensor, n_times: int, device: torch.device) -> None:
        self._windows, self._n_times = windows.to(device), n_times

    @property
    def n_items(self) -> int:
        """Number of rows."""
        return len(self._windows) * self._n_times

    def gather(self, indices: Tensor) -> SequenceBatch:
        """Return some rows."""
        return SequenceBatch(self._windows[indices % len(self._windows)], indices, None)
