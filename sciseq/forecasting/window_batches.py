"""Windows on the device of a network: what enters it, and what happened after.

Axis legend: n windows, B batch, L lookback, H horizon, V variates (columns that enter
the network), T targets, M calendar features, K channels known ahead, S static
covariates.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sciseq.data.windows import WindowSet

__all__ = ["Batch", "Columns", "NetworkInputs", "OnDevice", "WindowBatches"]


class NetworkInputs(NamedTuple):
    """What goes into the network of some windows."""

    x: Tensor  # (B, L, V)
    marks: Tensor | None = None  # (B, L, M)
    known: Tensor | None = None  # (B, H, K)
    static: Tensor | None = None  # (B, S)


class Batch(NamedTuple):
    """Some windows: what goes into the network, and what happened."""

    inputs: NetworkInputs
    truth: Tensor  # (B, H, T)
    weights: Tensor | None = None  # (B, H)


class Columns(NamedTuple):
    """Columns of a table by what the network does with them; None: all of them."""

    inputs: list[int] | None
    targets: list[int] | None
    static: list[int]


class WindowBatches:
    """Windows on a device, gathered by index: no copies of windows, no loader."""

    def __init__(
        self,
        windows: WindowSet,
        device: torch.device,
        dtype: torch.dtype,
        columns: Columns = Columns(None, None, []),  # noqa: B008 (a constant)
    ) -> None:
        def on_device(table: npt.NDArray[Any] | None) -> Tensor | None:
            return None if table is None else torch.from_numpy(table).to(device, dtype)

        values = torch.from_numpy(windows.values).to(device, dtype)
        self._inputs = values if columns.inputs is None else values[:, columns.inputs]
        self._truth = values if columns.targets is None else values[:, columns.targets]
        self._is_shared = columns.inputs is None and columns.targets is None
        self._static = values[:, columns.static] if columns.static else None
        self._marks = on_device(windows.marks)
        self._known = on_device(_known_rows(windows))
        self._weights = on_device(windows.weights)
        self._starts = torch.from_numpy(windows.starts).to(device)
        self._rows = torch.arange(windows.lookback + windows.horizon, device=device)
        self._lookback = windows.lookback

    @property
    def n_items(self) -> int:
        """Number of windows."""
        return len(self._starts)

    def gather(self, indices: Tensor) -> Batch:
        """Return the windows of some items."""
        starts = self._starts[indices]
        rows = starts.unsqueeze(1) + self._rows  # (B, L + H)
        L = self._lookback
        past, ahead = rows[:, :L], rows[:, L:]
        if self._is_shared:  # one gather serves both
            block = self._inputs[rows]
            x, truth = block[:, :L], block[:, L:]
        else:
            x, truth = self._inputs[past], self._truth[ahead]
        inputs = NetworkInputs(
            x,
            None if self._marks is None else self._marks[past],
            None if self._known is None else self._known[ahead],
            None if self._static is None else self._static[starts],
        )
        weights = None if self._weights is None else self._weights[ahead]
        return Batch(inputs, truth, weights)


def _known_rows(windows: WindowSet) -> npt.NDArray[Any] | None:
    """Channels known ahead, as a table of all rows (n_rows, K)."""
    if not windows.known_columns and windows.future_marks is None:
        return None
    parts = [windows.values[:, list(windows.known_columns)]]
    if windows.future_marks is not None:
        parts.append(windows.future_marks.astype(np.float64))
    return np.concatenate(parts, axis=1)


class OnDevice:
    """A small table of constants, brought to each device once.

    Bringing it there makes a GPU wait for the host: not in every step.

    Parameters
    ----------
    values : sequence of numbers
        The table.
    """

    def __init__(self, values: Sequence[float] | Sequence[int]) -> None:
        self._values = values
        self._made: dict[tuple[torch.device, torch.dtype | None], Tensor] = {}

    def beside(self, tensor: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """Return the table on the device of ``tensor``."""
        key = (tensor.device, dtype)
        if key not in self._made:
            self._made[key] = torch.tensor(
                self._values, dtype=dtype, device=tensor.device
            )
        return self._made[key]
