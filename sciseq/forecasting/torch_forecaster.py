"""What forecasters with a torch network share.

Axis legend: n windows, B batch, L lookback, H horizon, C columns of the table, V
variates (columns that enter the network), T targets, M calendar features, K channels
known ahead, S static covariates, Q quantile levels.
"""

import os
import warnings
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from sciseq.data.panel import FloatArray, Panel
from sciseq.data.windows import WindowInputs, WindowSet
from sciseq.errors import InputError, SciSeqWarning
from sciseq.forecasting.base import FORECASTER_RULES, BaseForecaster
from sciseq.forecasting.network_passes import run_in_passes
from sciseq.forecasting.shared_parameters import fill_in
from sciseq.forecasting.window_batches import (
    Batch,
    Columns,
    NetworkInputs,
    OnDevice,
    WindowBatches,
)
from sciseq.parameters import Boolean, Instance, Option
from sciseq.parameters import Rule as ParameterRule
from sciseq.torch_base import TRAINING_RULES, TorchEstimator, data_fingerprint
from sciseq.training import Batches
from sciseq.training.compilation import run_compiled, set_compiled

__all__ = [
    "TORCH_FORECASTER_RULES",
    "Batch",
    "Columns",
    "NetworkInputs",
    "TorchForecaster",
    "WindowBatches",
    "network_arguments",
]

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
    "loss": Option(*LOSSES, "quantile"),
    "quantiles": Instance("a list of levels between 0 and 1", list, tuple),
    "warm_start": Boolean(),
}

FLOAT32_INTEGERS = 2**24


@dataclass(kw_only=True, eq=False, repr=False)
class TorchForecaster(TorchEstimator, BaseForecaster):
    """Base of forecasters whose network maps windows (B, L, V) to (B, H, V).

    A method is a dataclass of its own parameters, and gives ``_make_network``: a
    module whose ``forward(x, marks, observed, known, static)`` returns
    ``self._n_outputs`` rows for each variate. In the docstring of a method the line
    ``{shared_parameters}`` stands for the parameters below.
    """

    _parameter_rules: ClassVar[dict[str, ParameterRule]] = TORCH_FORECASTER_RULES
    _covariates: ClassVar[frozenset[str]] = frozenset({"past", "future", "static"})

    lookback: int = 96
    horizon: int = 24
    targets: Any = None
    past_covariates: Any = None
    future_covariates: Any = None
    static_covariates: Any = None
    sample_weight: Any = None
    time_decay: float | None = None
    calendar: Any = "auto"
    missing: str = "error"
    scaler: str | None = "standard"
    variates: str = "fixed"
    nonnegative: bool = False
    loss: str = "mse"
    quantiles: Sequence[float] = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95)
    dropout: float = 0.1
    learning_rate: float = 1e-4
    learning_rate_schedule: str = "halving"
    weight_decay: float = 0.0
    batch_size: int = 32
    max_epochs: int = 10
    patience: int | None = 3
    validation_fraction: float = 0.1
    refit_on_all: bool = False
    warm_start: bool = False
    random_state: Any = None
    device: Any = "auto"
    precision: str = "float32"
    verbose: int = 0
    checkpoint_dir: str | os.PathLike[str] | None = None
    memory_limit: str | int | None = None
    compile: bool = False
    n_devices: int = 1
    n_nodes: int = 1

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        fill_in(cls)

    @abstractmethod
    def _n_tokens(self, n_columns: int) -> int:
        """Tokens that the network makes of one window."""

    @property
    def _n_outputs(self) -> int:
        """Rows that the network gives for each variate: H Q."""
        return int(self.horizon) * len(self._levels() or (0.5,))

    @property
    def _n_variates(self) -> int:
        """Columns that enter the network in fit."""
        return len(self.input_positions_)

    def _levels(self) -> tuple[float, ...] | None:
        if self.loss != "quantile":
            return None
        return tuple(sorted(float(one) for one in self.quantiles))

    def _parameter_relations(self) -> list[str]:
        problems = super()._parameter_relations()
        levels = [one for one in self.quantiles if not isinstance(one, bool)]
        inside = all(
            isinstance(one, int | float | np.number) and 0 < one < 1 for one in levels
        )
        if not levels or len(set(levels)) != len(self.quantiles) or not inside:
            problems.append(
                f"quantiles={self.quantiles!r} must be different levels between 0 and 1"
            )
        elif self.loss == "quantile" and 0.5 not in levels:
            problems.append(
                f"quantiles={self.quantiles!r} must hold 0.5, which predict returns"
            )
        if self.variates == "any" and self.scaler is not None:
            problems.append(
                f"variates='any' does not go with scaler={self.scaler!r}, whose "
                "statistics belong to the columns of fit: set scaler=None"
            )
        return problems

    def _begin_from(self, before: Mapping[str, Any]) -> None:
        self.__dict__.pop("_start", None)
        if self.warm_start and "network_" in before:
            self._start = before

    def _set_scaler(self, panel: Panel) -> None:
        start = getattr(self, "_start", None)
        if start is None:
            super()._set_scaler(panel)
            return
        # The weights were learnt on values scaled like this.
        if start["n_features_in_"] != self.n_features_in_ or (
            start["columns_"] != self.columns_
        ):
            raise InputError(
                "warm_start=True goes on from a model of other columns: "
                f"{start['columns_'] or start['n_features_in_']}, now "
                f"{self.columns_ or self.n_features_in_}",
                where="X.columns",
                hint="Give the columns of the first fit, or set warm_start=False.",
            )
        for name in ("scaler_", "series_scaler_", "series_ids_"):
            setattr(self, name, start[name])

    def _initial_weights(self) -> Mapping[str, Tensor] | None:
        start = getattr(self, "_start", None)
        return None if start is None else dict(start["network_"].state_dict())

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
        mean_weight = _mean_weight(training)

        columns = self._columns()

        def make_batches(device: torch.device) -> tuple[Batches, Batches | None]:
            held_out = None
            if validation is not None:
                held_out = WindowBatches(validation, device, self._dtype, columns)
            return WindowBatches(training, device, self._dtype, columns), held_out

        arrays = []
        for windows in (training, validation):
            if windows is not None:
                arrays += [windows.values, windows.starts, windows.marks]
                arrays += [windows.future_marks, windows.weights]
        self._train(
            self._make_loss(mean_weight),
            make_batches,
            tokens_per_item=self._n_tokens(self._n_variates),
            # The hash reads all data once; without checkpoints nobody asks for it.
            fingerprint=data_fingerprint(arrays) if self.checkpoint_dir else "",
            epochs=refit_epochs,
            run="" if refit_epochs is None else "refit",
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

    def _columns(self) -> Columns:
        if self._is_all_columns():
            return Columns(None, None, [])
        return Columns(
            self.input_positions_.tolist(),
            self.target_positions_.tolist(),
            self.static_positions_.tolist(),
        )

    def _network_targets(self) -> list[int] | None:
        """Places of the targets among the variates; None when they are the same."""
        if np.array_equal(self.target_positions_, self.input_positions_):
            return None
        place = {int(one): number for number, one in enumerate(self.input_positions_)}
        return [place[int(one)] for one in self.target_positions_]

    def _make_loss(
        self, mean_weight: float = 1.0
    ) -> Callable[[nn.Module, Batch], tuple[Tensor, Tensor]]:
        penalty = self._make_penalty()
        places = self._network_targets()
        targets = None if places is None else OnDevice(places)
        has_gaps = self.missing == "mask"
        n_levels = len(self._levels() or (0.5,))

        def loss(network: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
            forecast = _run(network, batch.inputs, has_gaps)  # (B, H Q, V)
            if targets is not None:
                forecast = forecast[..., targets.beside(forecast)]
            truth = batch.truth.unsqueeze(2)  # (B, H, 1, T)
            shape = (len(truth), -1, n_levels, truth.shape[3])
            forecast = forecast.reshape(shape)  # (B, H, Q, T)
            if not has_gaps and batch.weights is None:
                each = penalty(forecast - truth)
                return each.sum(), torch.full((), each.numel(), device=each.device)
            known = ~truth.isnan()
            each = penalty(forecast - truth.where(known, forecast.detach()))
            each = each * known
            if batch.weights is not None:
                # Divided by the mean of all, not of the batch: a batch of light rows
                # is a small step.
                each = each * (batch.weights / mean_weight)[:, :, None, None]
            return each.sum(), known.expand_as(each).sum()

        return loss

    def _make_penalty(self) -> Callable[[Tensor], Tensor]:
        """Loss of errors (B, H, Q, T), forecast minus truth."""
        levels = self._levels()
        if levels is None:
            return LOSSES[self.loss]

        table = OnDevice(levels)

        def pinball(error: Tensor) -> Tensor:
            tau = table.beside(error, error.dtype)[:, None]
            return torch.maximum((1 - tau) * error, -tau * error)

        return pinball

    def _forecast(self, inputs: WindowInputs) -> FloatArray:
        levels = self._levels()
        place = 0 if levels is None else levels.index(0.5)
        return self._forecast_levels(inputs)[..., place]

    def _forecast_levels(self, inputs: WindowInputs) -> FloatArray:
        device = self._run_device()
        whole = self._network_inputs(inputs)
        set_compiled(self.network_, bool(self.compile))
        joined = run_compiled(self.network_, lambda: self._run_passes(whole, device))
        joined = joined.reshape(len(joined), int(self.horizon), -1, joined.shape[2])
        return np.ascontiguousarray(joined.transpose(2, 3).numpy())  # (n, H, T, Q)

    def _run_passes(self, whole: NetworkInputs, device: torch.device) -> Tensor:
        """Forecasts (n, H Q, T) of some windows, on the CPU in float64."""
        targets = self._network_targets() if self.variates != "any" else None
        has_gaps = self.missing == "mask"

        def run(part: NetworkInputs) -> Tensor:
            forecast = _run(self.network_, part, has_gaps)
            return forecast if targets is None else forecast[..., targets]

        with torch.inference_mode(), self._autocast(device):
            return run_in_passes(
                self.network_,
                run,
                whole,
                device,
                self._n_tokens(whole.x.shape[2]),
                may_grow=not self.compile,
                setting=(self.precision, has_gaps),
            )

    def _network_inputs(self, inputs: WindowInputs) -> NetworkInputs:
        """Tensors that the network reads of some windows, on the CPU."""
        x = inputs.values
        static = None
        if self.variates != "any" and not self._is_all_columns():
            if len(self.static_positions_):
                static = x[:, 0, self.static_positions_]
            x = x[..., self.input_positions_]

        def tensor(array: npt.NDArray[Any] | None) -> Any:
            if array is None:
                return None
            return torch.from_numpy(np.ascontiguousarray(array)).to(self._dtype)

        return NetworkInputs(
            *(tensor(one) for one in (x, inputs.marks, inputs.known, static))
        )


def _mean_weight(windows: WindowSet) -> float:
    """Mean weight of the truths of all windows."""
    weights = windows.target_weights(slice(None))
    mean = 1.0 if weights is None else float(weights.mean())
    return mean if mean > 0 else 1.0


def _run(network: nn.Module, inputs: NetworkInputs, has_gaps: bool) -> Tensor:
    """Run a network on what it may read."""
    forecast: Tensor = network(**network_arguments(inputs, has_gaps))
    return forecast


def network_arguments(inputs: NetworkInputs, has_gaps: bool) -> dict[str, Any]:
    """Arguments of a network's forward, with a mask where values may be missing.

    What is missing of known and static covariates reads as 0: the mean, after scaling.
    """
    filled = {"x": inputs.x, "known": inputs.known, "static": inputs.static}
    given: dict[str, Any] = {
        name: value.nan_to_num() if has_gaps else value
        for name, value in filled.items()
        if value is not None
    }
    observed = ~inputs.x.isnan() if has_gaps else None
    return {**given, "marks": inputs.marks, "observed": observed}
