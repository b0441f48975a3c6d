"""Write the models that every later version must load (run once per format version).

    python tests/artefacts/write_artefacts.py

Each folder ``<sciseq version>-<name>`` holds a saved model, the rows it was fitted on
and the forecasts it made. What is already there is never written again.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.linear_model import Ridge

import sciseq

HERE = Path(__file__).parent


def rows(n_rows: int = 60) -> pd.DataFrame:
    """Seeded hourly rows of three series."""
    generator = np.random.default_rng(0)
    time = pd.date_range("2024-03-30", periods=n_rows, freq="h", tz="Europe/Berlin")
    phase = np.arange(3)
    season = np.sin(2 * np.pi * np.arange(n_rows)[:, None] / 12 + phase)
    noise = generator.normal(scale=0.1, size=(n_rows, 3))
    frame = pd.DataFrame(season + noise, index=time, columns=["a", "b", "c"])
    return frame.rename_axis("time").round(6)


def panel() -> pd.DataFrame:
    """Two series of unequal length."""
    return pd.concat({"north": rows(60), "south": rows(50)}, names=["site"])


def known_ahead() -> pd.DataFrame:
    """Rows with a site, and four more in which only column c is known."""
    frame = rows(64).assign(site=1.0)
    frame.loc[frame.index[60:], ["a", "b"]] = np.nan
    return frame


SMALL: dict[str, Any] = {
    "lookback": 12,
    "horizon": 4,
    "d_model": 8,
    "max_epochs": 1,
    "random_state": 0,
}

MODELS: dict[str, tuple[Any, Any]] = {
    "naive-panel": (sciseq.NaiveForecaster(strategy="seasonal", horizon=4), panel()),
    "linear-frame": (sciseq.LinearForecaster(lookback=12, horizon=4), rows()),
    "s-mamba-frame": (
        sciseq.SMambaForecaster(
            lookback=12, horizon=4, d_model=8, max_epochs=2, random_state=0
        ),
        rows(),
    ),
    "s-mamba-dataset.sciseq": (
        sciseq.SMambaForecaster(
            lookback=12,
            horizon=4,
            d_model=8,
            max_epochs=1,
            random_state=0,
            targets=["b"],
            calendar=None,
        ),
        rows().tz_convert("UTC").tz_localize(None).to_xarray(),
    ),
    "gateformer-covariates": (
        sciseq.GateformerForecaster(
            future_covariates=["c", "hour"], static_covariates="site", **SMALL
        ),
        known_ahead(),
    ),
    "mambamixer-panel": (
        sciseq.MambaMixerForecaster(scaler="series", patch_length=4, stride=4, **SMALL),
        panel(),
    ),
    "itransformer-quantiles": (
        sciseq.ITransformerForecaster(gated=True, loss="quantile", **SMALL),
        rows(),
    ),
    "patchtst-frame": (sciseq.PatchTSTForecaster(**SMALL), rows()),
    "ar-net-sparse": (
        sciseq.ARNetForecaster(
            lookback=12, horizon=4, strategy="recursive", sparsity=0.3
        ),
        rows(),
    ),
    "statsmodels-panel": (
        sciseq.StatsmodelsForecaster(
            model="autoreg", lags=2, lookback=12, horizon=4, season_length=1
        ),
        panel(),
    ),
    "window-ridge": (
        sciseq.WindowForecaster(regressor=Ridge(), lookback=12, horizon=4),
        rows(),
    ),
    "ensemble": (
        sciseq.ForecastEnsemble(
            forecasters=[
                ("line", sciseq.LinearForecaster(lookback=12)),
                ("last", sciseq.NaiveForecaster()),
            ],
            horizon=4,
        ),
        rows(),
    ),
}


def as_frame(forecast: Any) -> pd.DataFrame:
    """Forecast as a table, whatever its container."""
    return forecast if isinstance(forecast, pd.DataFrame) else forecast.to_dataframe()


def main() -> int:
    """Fit, save and forecast."""
    for name, (model, data) in MODELS.items():
        folder = HERE / f"{sciseq.__version__}-{name.partition('.')[0]}"
        if folder.exists():
            continue
        folder.mkdir()
        model.fit(data).save(folder / name)
        as_frame(model.predict()).to_csv(folder / "forecast.csv", float_format="%.17g")
        sys.stdout.write(f"wrote {folder}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
