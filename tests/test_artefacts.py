"""Models that earlier versions saved: they must load, and forecast the same."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import sciseq

FOLDERS = sorted(
    path for path in (Path(__file__).parent / "artefacts").iterdir() if path.is_dir()
)


def test_artefacts_of_every_kind_are_kept():
    names = {folder.name.removeprefix("0.1.0.dev0-") for folder in FOLDERS}
    assert names >= {
        "ar-net-sparse",
        "ensemble",
        "gateformer-covariates",
        "itransformer-quantiles",
        "linear-frame",
        "mambamixer-panel",
        "naive-panel",
        "patchtst-frame",
        "s-mamba-dataset",
        "s-mamba-frame",
        "statsmodels-panel",
        "window-ridge",
    }


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_artefact_loads_and_forecasts_the_same(folder):
    (saved,) = [path for path in folder.iterdir() if path.name != "forecast.csv"]
    forecast = sciseq.load(saved).predict()
    table = forecast if isinstance(forecast, pd.DataFrame) else forecast.to_dataframe()
    kept = pd.read_csv(folder / "forecast.csv")

    n_labels = table.index.nlevels
    assert list(kept.columns[n_labels:]) == list(table.columns)
    assert list(kept.columns[:n_labels]) == list(table.index.names)
    times = table.index.get_level_values(-1)
    assert [str(time) for time in times] == kept[kept.columns[n_labels - 1]].tolist()
    # Another machine or version of torch may round float32 products differently.
    np.testing.assert_allclose(table, kept[table.columns], rtol=1e-4, atol=1e-5)


def test_a_changed_weight_would_be_noticed():
    folder = next(one for one in FOLDERS if one.name.endswith("s-mamba-frame"))
    model = sciseq.load(folder / "s-mamba-frame")
    bias = model.network_.projector.bias
    bias.data += 1e-3
    kept = pd.read_csv(folder / "forecast.csv")[["a", "b", "c"]]
    assert not np.allclose(model.predict(), kept, rtol=1e-4, atol=1e-5)
