"""How a fitted model does on rows it did not learn from, beside the naive forecasts."""

import warnings
from typing import Any, NamedTuple

import numpy as np

from sciseq.errors import SciSeqWarning
from sciseq.forecasting.naive import NaiveForecaster
from sciseq.model_selection import backtest

__all__ = ["Comparison", "compare"]

# Forecasts of each series that are enough for a mean.
MAX_ORIGINS = 500
# Share of the rows that is held out for methods which learn nothing.
FRACTION = 0.1


class Comparison(NamedTuple):
    """Errors on the held-out rows, those of the model first."""

    errors: dict[str, float]
    n_rows: int
    n_windows: int

    def describe(self) -> str:
        """Say in one line how the forecasts compare, and in another if none is won."""
        listed = ", ".join(f"{name} {error:.3g}" for name, error in self.errors.items())
        text = (
            f"mean absolute scaled error on the last {self.n_rows} rows "
            f"({self.n_windows} forecasts): {listed}"
        )
        model, *others = self.errors
        best = min(others, key=self.errors.__getitem__, default=model)
        if self.errors[best] < self.errors[model]:
            text += f"\n{model} does not beat the {best} here"
        return text


def compare(
    model: Any, name: str, frame: Any, lengths: Any, season: int | None
) -> Comparison | None:
    """Compare a fitted model with the naive forecasts on its validation rows.

    The model did not learn from these rows, though it may have chosen an epoch or a
    penalty on them.

    Parameters
    ----------
    model : forecaster
        Fitted on ``frame``.
    name : str
        What to call it.
    frame : pandas.DataFrame
        The whole table.
    lengths : ndarray of int
        Rows of each series.
    season : int or None
        Rows of a season, when it is known.

    Returns
    -------
    Comparison or None
        None when no rows were held out, or all were learnt from in the end. MASE: the
        errors are divided by those of the seasonal naive forecast (of the last value,
        when no season is known) on the rows before.
    """
    n_rows = _held_out(model, lengths)
    if model.refit_on_all or n_rows is None:
        return None
    shared = {name: getattr(model, name) for name in ("horizon", "targets", "missing")}
    contenders = {name: model, "last value": NaiveForecaster(**shared)}
    n_before = int(lengths.min()) - n_rows
    if season is not None and season + model.horizon <= n_before:
        contenders["seasonal naive"] = NaiveForecaster(
            strategy="seasonal", season_length=season, **shared
        )
    else:
        season = 1
    results = {
        label: _backtest(one, frame, n_rows, max(model._context_length, season), season)
        for label, one in contenders.items()
    }
    errors = {
        label: float(result.metrics["mase"].iloc[0])
        for label, result in results.items()
    }
    if not np.isfinite(list(errors.values())).all():
        return None
    return Comparison(errors, n_rows, results[name].n_windows)


def _held_out(model: Any, lengths: Any) -> int | None:
    """Rows at the end that no series was learnt from; None when there are none."""
    fraction = model.validation_fraction or FRACTION
    sizes = np.maximum(np.rint(lengths * fraction), model.horizon).astype(np.int64)
    fits = lengths - sizes >= model._context_length + model.horizon
    return int(sizes[fits].min()) if fits.any() else None


def _backtest(model: Any, frame: Any, n_rows: int, context: int, season: int) -> Any:
    is_naive = isinstance(model, NaiveForecaster)
    with warnings.catch_warnings():
        # That these rows were known to the fit is what the report says.
        warnings.simplefilter("ignore", SciSeqWarning)
        return backtest(
            model,
            frame,
            fit=is_naive,
            test_size=n_rows,
            stride=-(-n_rows // MAX_ORIGINS),
            context=context,
            season_length=season,
            metrics=["mase"],
            keep_forecasts=False,
        )
