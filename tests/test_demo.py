"""The demo: which rows choose, which rows test, and what is written."""

import re

import numpy as np
import pandas as pd
import pytest

import sciseq.demo
from sciseq import LinearForecaster, NaiveForecaster, SMambaForecaster
from sciseq.data.table_files import read_table
from sciseq.model_selection import backtest


def quick_candidates():
    shared = {"horizon": 8}
    small = {"d_model": 4, "max_epochs": 1, "random_state": 0, **shared}
    return {
        "S-Mamba": [SMambaForecaster(lookback=4, **small)],
        "RLinear": [LinearForecaster(lookback=one, **shared) for one in (4, 16)],
        "last value": [NaiveForecaster(**shared)],
    }


@pytest.fixture
def calls(monkeypatch):
    """Every table that was scored, with the model, in order."""
    made = []

    def spy(model, table, **options):
        made.append((model, table, options))
        return backtest(model, table, **options)

    monkeypatch.setattr(sciseq.demo, "backtest", spy)
    monkeypatch.setattr(sciseq.demo, "candidates", quick_candidates)
    return made


def test_the_demo_writes_what_it_says(calls, tmp_path, capsys) -> None:
    sciseq.demo.main(["--out", str(tmp_path / "out")])
    shown = capsys.readouterr().out
    assert "training   1959Q2 to 1989Q3" in shown
    assert "validation 1989Q4 to 1999Q3" in shown
    assert "test       1999Q4 to 2009Q3" in shown
    assert "33 forecasts of 8 quarters" in shown
    assert str(tmp_path / "out" / "forecast.csv") in shown
    assert (tmp_path / "out" / "forecast.png").read_bytes().startswith(b"\x89PNG")

    # The forecast is the one that fit and predict give on the known rows.
    table = sciseq.demo.load_economy()
    model = quick_candidates()["S-Mamba"][0].fit(table[:-40])
    found = read_table(tmp_path / "out" / "forecast.csv")
    pd.testing.assert_frame_equal(found, model.predict(), check_freq=False)

    # The printed error of the last value, computed by hand.
    values, steps = table.to_numpy(), np.arange(1, 9)
    origins = np.arange(len(table) - 41, len(table) - 8)
    error = np.abs(values[origins[:, None] + steps] - values[origins][:, None])
    scale = np.abs(values[4:-40] - values[:-44]).mean(axis=0)
    mase = float((error.mean(axis=(0, 1)) / scale).mean())
    (printed,) = re.findall(r"last value +(\d\.\d+)", shown)
    assert float(printed) == pytest.approx(mase, abs=5e-4)


def test_test_rows_are_seen_once_and_only_after_the_choice(calls, tmp_path) -> None:
    sciseq.demo.main(["--out", str(tmp_path)])
    n_rows = len(sciseq.demo.load_economy())
    lengths = [len(table) for _, table, _ in calls]
    n_choices = 2  # RLinear has two candidates, the others one
    assert lengths == [n_rows - 40] * n_choices + [n_rows] * 3
    assert {options["test_size"] for _, _, options in calls} == {40}
    # All are scored on the same windows.
    assert {options["context"] for _, _, options in calls} == {16}


def test_the_best_on_the_validation_rows_is_taken(calls, tmp_path) -> None:
    sciseq.demo.main(["--out", str(tmp_path)])
    known = sciseq.demo.load_economy()[:-40]
    errors = {
        model.lookback: backtest(
            model, known, test_size=40, context=16, season_length=4, scaled=True
        )
        .metrics["mase"]
        .iloc[0]
        for model in quick_candidates()["RLinear"]
    }
    tested = [model for model, table, _ in calls if len(table) > len(known)]
    assert tested[1].lookback == min(errors, key=errors.__getitem__)


def test_all_methods_get_candidates_of_the_same_horizon() -> None:
    made = sciseq.demo.candidates()
    assert list(made) == [
        "S-Mamba",
        "RLinear",
        "DLinear",
        "last value",
        "seasonal naive",
    ]
    assert {model.horizon for models in made.values() for model in models} == {8}
    assert all(
        (model.lookback or 1) <= sciseq.demo.LONGEST_LOOKBACK
        for models in made.values()
        for model in models
    )
