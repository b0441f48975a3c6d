"""Estimators inside estimators, described in a job file."""

import pandas as pd
import pytest

from sciseq.errors import InputError
from sciseq.jobs import read_job, run_job
from sciseq.jobs.model_settings import build_model


def described(**settings):
    return {"method": "ensemble", "settings": settings}


def test_the_members_of_an_ensemble():
    made = build_model(
        described(
            weights="inverse_error",
            forecasters=[
                {"method": "linear", "settings": {"lookback": 12}},
                {"method": "naive", "name": "last"},
                {"method": "window", "settings": {"regressor": {
                    "method": "sklearn.ensemble.HistGradientBoostingRegressor",
                    "settings": {"max_iter": 5}}}},
            ],
        )
    )  # fmt: skip
    assert [name for name, _ in made.forecasters] == ["linear", "last", "window"]
    line, last, window = (one for _, one in made.forecasters)
    assert line.lookback == 12
    assert type(last).__name__ == "NaiveForecaster"
    assert window.regressor.max_iter == 5
    # The same bytes each time, all the way down.
    assert window.regressor.random_state == 0


@pytest.mark.parametrize(
    ("model", "where", "message"),
    [
        (
            described(forecasters=[{"method": "liinear"}]),
            "model.settings.forecasters[0].method",
            "Did you mean 'linear'?",
        ),
        (
            described(forecasters=[{"method": "linear", "settings": {"lookbak": 3}}]),
            "model.settings.forecasters[0].settings",
            "Did you mean 'lookback'?",
        ),
        (
            described(forecasters=[{"method": "naive"}, {"method": "naive"}]),
            "model.settings.forecasters",
            "Tell them apart",
        ),
        (
            {"method": "window", "settings": {"regressor": {"method": "os.system"}}},
            "model.settings.regressor.method",
            "no class of scikit-learn",
        ),
        (
            {
                "method": "window",
                "settings": {"regressor": {"method": "sklearn.linear_model.NoRidge"}},
            },
            "model.settings.regressor.method",
            "no class of scikit-learn",
        ),
        (
            {
                "method": "window",
                "settings": {"regressor": {"method": "sklearn.utils.check_array"}},
            },
            "model.settings.regressor.method",
            "no class of scikit-learn",
        ),
    ],
)
def test_what_describes_no_estimator(model, where, message):
    with pytest.raises(InputError) as caught:
        build_model(model)
    assert caught.value.where == where
    assert message in str(caught.value)


def test_a_job_with_an_ensemble(workshop):
    path = workshop.job_file(model__method="ensemble", model__settings=None)
    path.write_text(
        path.read_text()
        + """
[[model.settings.forecasters]]
method = "linear"
settings = {lookback = 24}
[[model.settings.forecasters]]
method = "window"
settings.lookback = 24
settings.regressor = {method = "sklearn.linear_model.Ridge", settings = {alpha = 2.0}}
"""
    )
    run_job(read_job(path), "2024-01-09")
    first = (workshop.folder / "out-2024-01-09.parquet").read_bytes()
    assert len(pd.read_parquet(workshop.folder / "out-2024-01-09.parquet")) == 7 * 24
    assert run_job(read_job(path), "2024-01-09").is_repeated
    (workshop.folder / "again").mkdir()
    again = type(workshop)(workshop.folder / "again")
    (again.folder / "job.toml").write_text(path.read_text())
    run_job(read_job(again.folder / "job.toml"), "2024-01-09")
    assert (again.folder / "out-2024-01-09.parquet").read_bytes() == first
