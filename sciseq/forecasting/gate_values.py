"""Reading the gates of a fitted forecaster: how much each view of a series counts.

Axis legend: n windows, L lookback, H horizon, V variates, D width of a token.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sciseq.data.panel import FloatArray, Panel
from sciseq.data.windows import WindowInputs
from sciseq.forecasting.future import FutureRows
from sciseq.forecasting.network_passes import TOKENS_PER_PASS, padded
from sciseq.forecasting.torch_forecaster import TorchForecaster, network_arguments

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["GatedForecaster"]

_WINDOWS_PER_CHUNK = 512


class GatedForecaster(TorchForecaster):
    """Base of forecasters whose network has a ``gate_values`` method."""

    def gate_values(self, X: Any = None) -> "pd.DataFrame":
        """Return the mean values of both gates for each variate.

        ``gate 1`` is the share of the token of the whole series against that of its
        patches: near 1, the patches are passed over. ``gate 2`` is the share of a
        series' own token against what attention over all variates makes of it: near
        1, the variate is forecast from its own past.

        Parameters
        ----------
        X : same kinds of container as in fit, optional
            Rows over whose windows the gates are averaged: all that ``score`` would
            forecast, so at least ``lookback + horizon`` rows. By default the last
            window of the training data, from which ``predict()`` goes on. An array of
            ready-made windows is averaged over them.

        Returns
        -------
        DataFrame
            One row per variate, with columns ``gate 1`` and ``gate 2``, means over
            windows and channels. With many series one row per series and variate.

        Raises
        ------
        NotFittedError
            Before fit.
        CapabilityError
            When the network was built without gates.
        """
        import pandas as pd

        self._check_is_fitted()
        panel, inputs = self._windows_to_read(X)
        sums, counts = self._sum_gates(
            inputs, 1 if panel.is_windows else panel.n_series
        )
        means = sums / counts[:, None, None]  # (series, V, gate)
        labels = self._variate_labels(panel)
        if len(means) == 1:
            index = pd.Index(labels, name="variate", tupleize_cols=False)
        else:
            index = pd.MultiIndex.from_product(
                [panel.series_ids, labels], names=["series", "variate"]
            )
        rows = means.reshape(-1, 2)
        return pd.DataFrame(rows, index=index, columns=["gate 1", "gate 2"])

    def _windows_to_read(self, X: Any) -> tuple[Panel, Iterator[WindowInputs]]:
        is_windows = isinstance(X, np.ndarray) and X.ndim == 3
        if X is not None and not is_windows:
            panel = self._evaluation_panel(X)
            windows = self._windows(panel)
            chunks = windows.chunks(_WINDOWS_PER_CHUNK)
            return panel, (windows.inputs(chunk) for chunk in chunks)
        panel = self._prediction_panel(X)
        future = FutureRows.after(panel, self._step_of(panel), int(self.horizon))
        inputs = self._first_inputs(panel, future, int(self.horizon))
        if inputs.marks is not None:
            inputs = replace(inputs, marks=inputs.marks[:, : inputs.values.shape[1]])
        if panel.is_windows:
            inputs = replace(inputs, series=np.zeros(len(inputs), dtype=np.int64))
        return panel, iter([inputs])

    def _variate_labels(self, panel: Panel) -> list[Any]:
        columns = range(panel.n_columns) if panel.columns is None else panel.columns
        if self.variates == "any":
            return list(columns)
        return [columns[int(position)] for position in self.input_positions_]

    def _sum_gates(
        self, chunks: Iterator[WindowInputs], n_series: int
    ) -> tuple[FloatArray, FloatArray]:
        """Sum channel means over windows, (n_series, V, 2), and count the windows."""
        sums: Any = 0.0
        counts = np.zeros(n_series)
        for inputs in chunks:
            gates = self._gates_of(inputs)  # (n, V, 2)
            series = np.zeros(len(gates), int) if n_series == 1 else inputs.series
            member = np.arange(n_series)[:, None] == series  # (n_series, n)
            sums = sums + np.einsum("sn,nvg->svg", member, gates)
            counts += member.sum(axis=1)
        return sums, counts

    def _gates_of(self, inputs: WindowInputs) -> FloatArray:
        """Return the channel means of the gates of some windows, (n, V, 2)."""
        device = self._run_device()
        network: Any = self.network_
        whole = self._network_inputs(inputs)
        n_windows, _, n_variates = whole.x.shape
        size = max(1, TOKENS_PER_PASS[device.type] // self._n_tokens(n_variates))
        parts = []
        with torch.inference_mode(), self._autocast(device):
            for start in range(0, n_windows, size):
                part = padded(whole, start, size, device)
                gates = network.gate_values(
                    **network_arguments(part, self.missing == "mask")
                )
                means = torch.stack([gate.double().mean(-1) for gate in gates], dim=-1)
                parts.append(means[: min(size, n_windows - start)].cpu().numpy())
        return np.concatenate(parts)
