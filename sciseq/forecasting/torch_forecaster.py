"""What forecasters with a torch network share.

Axis legend: n windows, B batch, L lookback, H horizon, C columns, T targets,
M calendar features.
"""

import warnings
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from sciseq.data.panel import FloatArray
from sciseq.data.windows import WindowSet
from sciseq.errors import SciSeqWarning
from sciseq.forecasting.base import FORECASTER_RULES, BaseForecaster
from sciseq.parameters import Option
from sciseq.parameters import Rule as ParameterRule
from sciseq.torch_base import TRAINING_RULES, TorchEstimator, data_fingerprint
from sciseq.training import Batches

__all__ = ["TORCH_FORECASTER_RULES", "TorchForecaster", "WindowBatches"]

LOSSES: dict[str, Callable[[Tensor], Tensor]] = {
    "mse": torch.square,
    "mae": torch.abs,
    "huber": lambda error: nn.functional.huber_loss(
        error, torch.zeros_like(error), reduction="none"
    ),
}

TORCH_FORECASTER_RULES: dict[str, ParameterRule] = {
    **FORECASTER_RULES,
    **TRAINING_RULES,
    "loss": Option(*LOSSES),
}

FLOAT32_INTEGERS = 2**24

# Tokens in one forward pass of predict. Every pass has the same size (the last is
# padded), so that a forecast does not depend on what it is computed together with. On
# a CPU small passes cost no throughput and make a single forecast quick.
TOKENS_PER_PASS = {"cpu": 32, "cuda": 16384, "mps": 4096}

Batch = tuple[Tensor, Tensor | None, Tensor]  # inputs, marks, truth


class WindowBatches:
    """Windows on a device, gathered by index: no copies of windows, no loader."""

    def __init__(
        self, windows: WindowSet, device: torch.device, dtype: torch.dtype
    ) -> None:
        self._values = torch.from_numpy(windows.values).to(device, dtype)
        self._marks: Tensor | None = None
        if windows.marks is not None:
            self._marks = torch.from_numpy(windows.marks).to(device, dtype)
        self._starts = torch.from_numpy(windows.starts).to(device)
        self._rows = torch.arange(windows.lookback + windows.horizon, device=device)
        self._lookback = windows.lookback

    @property
    def n_items(self) -> int:
        """Number of windows."""
        return len(self._starts)

    def gather(self, indices: Tensor) -> Batch:
        """Return inputs (B, L, C), marks (B, L, M) or None, and truth (B, H, C)."""
        rows = self._starts[indices].unsqueeze(1) + self._rows  # (B, L + H)
        block = self._values[rows]
        L = self._lookback
        marks = None if self._marks is None else self._marks[rows[:, :L]]
        return block[:, :L], marks, block[:, L:]


class TorchForecaster(TorchEstimator, BaseForecaster):
    """Base of forecasters whose network maps windows (B, L, C) to (B, H, C).

    A method gives ``_make_network``; the network's ``forward(x, marks, observed)``
    returns one forecast per column.
    """

    _parameter_rules: ClassVar[dict[str, ParameterRule]] = TORCH_FORECASTER_RULES

    loss: str

    @abstractmethod
    def _n_tokens(self, n_columns: int) -> int:
        """Tokens that the network makes of one window."""

    def _fit(self, training: WindowSet, validation: WindowSet | None) -> None:
        self._fit_windows(training, validation)

    def _is_complete(self) -> bool:
        # Who stops a training does not want to wait for a second one.
        return self.stopped_ != "interrupted"

    def _refit(self, training: WindowSet) -> None:
        # The number of epochs is what the validation tail was for.
        self._fit_windows(training, None, refit_epochs=self.best_epoch_)

    def _fit_windows(
        self,
        training: WindowSet,
        validation: WindowSet | None,
        *,
        refit_epochs: int | None = None,
    ) -> None:
        self._warn_of_lost_digits(training)

        def make_batches(device: torch.device) -> tuple[Batches, Batches | None]:
            held_out = None
            if validation is not None:
                held_out = WindowBatches(validation, device, self._dtype)
            return WindowBatches(training, device, self._dtype), held_out

        arrays = [training.values, training.starts, training.marks]
        if validation is not None:
            arrays += [validation.values, validation.starts, validation.marks]
        self._train(
            self._make_loss(),
            make_batches,
            tokens_per_item=self._n_tokens(training.values.shape[1]),
            # The hash reads all data once; without checkpoints nobody asks for it.
            fingerprint=data_fingerprint(arrays) if self.checkpoint_dir else "",
            refit_epochs=refit_epochs,
        )

    def _warn_of_lost_digits(self, training: WindowSet) -> None:
        if self.precision == "float64" or self.scaler is not None:
            return
        largest = float(np.nanmax(np.abs(training.values)))
        if largest > FLOAT32_INTEGERS:
            warnings.warn(
                f"values up to {largest:.3g} lose digits in float32, which is exact "
                f"for integers up to {FLOAT32_INTEGERS}: set scaler='standard' or "
                "precision='float64'",
                SciSeqWarning,
                stacklevel=7,
            )

    def _make_loss(self) -> Callable[[nn.Module, Batch], tuple[Tensor, Tensor]]:
        penalty = LOSSES[self.loss]
        targets = self._network_targets()

        def loss(network: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
            inputs, marks, truth = batch
            forecast = _run(network, inputs, marks, self.missing == "mask")
            if targets is not None:
                forecast, truth = forecast[..., targets], truth[..., targets]
            if self.missing != "mask":
                each = penalty(forecast - truth)
                return each.sum(), torch.tensor(each.numel(), device=each.device)
            known = ~truth.isnan()
            each = penalty(forecast - truth.where(known, forecast.detach()))
            return (each * known).sum(), known.sum()

        return loss

    def _network_targets(self) -> list[int] | None:
        """Positions of the targets, or None when they are the columns as they are."""
        if self._is_all_columns():
            return None
        return [int(position) for position in self.target_positions_]

    def _forecast(
        self, inputs: FloatArray, marks: npt.NDArray[np.float32] | None
    ) -> FloatArray:
        device = self._run_device()
        n_windows, _, n_columns = inputs.shape
        size = _windows_per_pass(device, self._n_tokens(n_columns))
        targets = self._network_targets()
        parts = []
        with torch.inference_mode(), self._autocast(device):
            for start in range(0, n_windows, size):
                part = slice(start, start + size)
                forecast = _run(
                    self.network_,
                    self._padded(inputs[part], size, device),
                    None if marks is None else self._padded(marks[part], size, device),
                    self.missing == "mask",
                )
                if targets is not None:
                    forecast = forecast[..., targets]
                kept = forecast[: min(size, n_windows - start)]
                parts.append(kept.to("cpu", torch.float64).numpy())
        return np.concatenate(parts)

    def _padded(
        self, block: npt.NDArray[Any], size: int, device: torch.device
    ) -> Tensor:
        whole = torch.zeros((size, *block.shape[1:]), dtype=self._dtype)
        whole[: len(block)] = torch.from_numpy(np.ascontiguousarray(block))
        return whole.to(device)


def _windows_per_pass(device: torch.device, n_tokens: int) -> int:
    size = max(1, TOKENS_PER_PASS[device.type] // n_tokens)
    # Matrix products treat the last rows apart when their number is not a multiple of
    # four: a forecast would change, in its last bits, with its place in the pass.
    return size if size < 3 else max(4, size - size % 4)


def _run(
    network: nn.Module, inputs: Tensor, marks: Tensor | None, has_gaps: bool
) -> Tensor:
    if not has_gaps:
        forecast: Tensor = network(inputs, marks)
        return forecast
    observed = ~inputs.isnan()
    masked: Tensor = network(inputs.nan_to_num(), marks, observed)
    return masked
