"""Models that earlier versions saved: they must load, and answer the same."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from questions import ask

import sciseq

FOLDERS = sorted(
    path for path in (Path(__file__).parent / "artefacts").iterdir() if path.is_dir()
)


def test_artefacts_of_every_kind_are_kept():
    names = {folder.name.removeprefix("0.1.0.dev0-") for folder in FOLDERS}
    assert names >= {
        "ar-net-sparse",
        "autoregressive-labels",
        "bert4rec",
        "block-diffusion",
        "document-summarizer",
        "ensemble",
        "gateformer-covariates",
        "generative-frame",
        "itransformer-quantiles",
        "linear-frame",
        "mambamixer-panel",
        "markov-chain",
        "naive-panel",
        "patchtst-frame",
        "peptide-sequencer",
        "pipeline-frame",
        "prefix-state-space",
        "s-mamba-dataset",
        "s-mamba-frame",
        "statsmodels-panel",
        "transition-recommender",
        "window-ridge",
    }


def with_file(name: str) -> Any:
    folders = [folder for folder in FOLDERS if (folder / name).exists()]
    return pytest.mark.parametrize("folder", folders, ids=lambda folder: folder.name)


def test_artefacts_are_small_and_none_is_left_out():
    for folder in FOLDERS:
        files = [path for path in folder.rglob("*") if path.is_file()]
        assert sum(path.stat().st_size for path in files) < 60_000, folder.name
        names = {"forecast.csv", "answers.json"} & {path.name for path in files}
        assert len(names) == 1, folder.name


def same_texts_and_close_numbers(found: Any, kept: Any) -> bool:
    if isinstance(kept, float):
        return bool(np.isclose(found, kept, rtol=1e-6, atol=0, equal_nan=True))
    if isinstance(kept, list):
        return len(found) == len(kept) and all(
            map(same_texts_and_close_numbers, found, kept)
        )
    return bool(found == kept)


@with_file("answers.json")
def test_artefact_loads_and_answers_the_same(folder):
    (saved,) = [path for path in folder.iterdir() if path.name != "answers.json"]
    found = json.loads(json.dumps(ask(sciseq.load(saved))))
    kept = json.loads((folder / "answers.json").read_text(encoding="utf-8"))
    assert found.keys() == kept.keys()
    for name, answer in kept.items():
        assert same_texts_and_close_numbers(found[name], answer), (found[name], answer)


def test_another_draw_or_score_would_be_noticed():
    assert not same_texts_and_close_numbers(["ACG"], ["ACC"])
    assert not same_texts_and_close_numbers([[1e-12, 2.001e-12]], [[1e-12, 2e-12]])
    assert not same_texts_and_close_numbers([1.0], [1.0, 2.0])


@with_file("forecast.csv")
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
