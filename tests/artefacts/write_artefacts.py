"""Write the models that every later version must load (run once per format version).

    python tests/artefacts/write_artefacts.py

Each folder ``<sciseq version>-<name>`` holds a saved model and the forecasts it made
(``forecast.csv``) or what else it answered (``answers.json``, see ``questions.py``).
What is already there is never written again.
"""

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from questions import DOCUMENTS, HISTORIES, WORDS, ask
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler

import sciseq
from sciseq.testing.spectra import spectra

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


# In float64, so that no rounding of another machine draws another token.
TINY: dict[str, Any] = {
    "d_model": 8,
    "d_ff": 8,
    "n_layers": 1,
    "n_heads": 2,
    "max_epochs": 1,
    "batch_size": 8,
    "precision": "float64",
    "random_state": 0,
    "device": "cpu",
}
RECURRENCE = {key: one for key, one in TINY.items() if key != "n_heads"}
LABELS = ["on", "off"] * 6

MODELS |= {
    "generative-frame": (
        sciseq.GenerativeForecaster(
            generator=sciseq.AutoregressiveSequence(**TINY),
            n_bins=6,
            n_samples=5,
            lookback=8,
            horizon=4,
            random_state=0,
        ),
        rows(),
    ),
    "pipeline-frame": (
        sciseq.ForecastPipeline(
            [
                ("scale", StandardScaler()),
                ("forecast", sciseq.LinearForecaster(lookback=12, horizon=4)),
            ]
        ),
        rows(),
    ),
}

# Model, and what fit is given.
OTHERS: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "autoregressive-labels": (
        sciseq.AutoregressiveSequence(**TINY),
        (WORDS, LABELS),
    ),
    "block-diffusion": (sciseq.BlockDiffusionSequence(**TINY, n_steps=2), (WORDS,)),
    "prefix-state-space": (sciseq.PrefixStateSpace(**RECURRENCE), (WORDS,)),
    "markov-chain.zip": (sciseq.MarkovChain(2), (WORDS,)),
    "bert4rec": (sciseq.ClozeRecommender(**TINY), (HISTORIES,)),
    "transition-recommender": (sciseq.TransitionRecommender(), (HISTORIES,)),
    "document-summarizer": (
        sciseq.DocumentSummarizer(max_sentences=1),
        (DOCUMENTS,),
    ),
    "peptide-sequencer": (
        sciseq.PeptideSequencer(
            **TINY, decoder="nonautoregressive", n_peaks=20, most_residues=12
        ),
        (spectra(),),
    ),
}


def as_frame(forecast: Any) -> pd.DataFrame:
    """Forecast as a table, whatever its container."""
    return forecast if isinstance(forecast, pd.DataFrame) else forecast.to_dataframe()


def new_folder(name: str) -> Path | None:
    """Make the folder of a model; None where it is already."""
    folder = HERE / f"{sciseq.__version__}-{name.partition('.')[0]}"
    if folder.exists():
        return None
    folder.mkdir()
    sys.stdout.write(f"writing {folder.name}\n")
    return folder


def main() -> int:
    """Fit, save and forecast."""
    warnings.simplefilter("ignore")
    for name, (model, data) in MODELS.items():
        if (folder := new_folder(name)) is None:
            continue
        model.fit(data).save(folder / name)
        as_frame(model.predict()).to_csv(folder / "forecast.csv", float_format="%.17g")
    for name, (model, given) in OTHERS.items():
        if (folder := new_folder(name)) is None:
            continue
        model.fit(*given).save(folder / name)
        text = json.dumps(ask(model), indent=1)
        (folder / "answers.json").write_text(f"{text}\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
