"""Realised errors of earlier forecasts, their table, and drift."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sciseq.errors import FileFormatError, InputError, InputTypeError
from sciseq.jobs.drift import (
    ERROR_COLUMNS,
    drift_of,
    realised_errors,
    update_errors,
)

ZONE = "Europe/Berlin"


def table(n_rows: int, start: str = "2026-03-01", **columns: object) -> pd.DataFrame:
    index = pd.date_range(start, periods=n_rows, freq="h", tz=ZONE, name="time")
    return pd.DataFrame(columns or {"load": np.arange(float(n_rows))}, index)


def panel(**series: pd.DataFrame) -> pd.DataFrame:
    return pd.concat(series, names=["series", "time"])


def errors_of(forecast: pd.DataFrame, observed: pd.DataFrame) -> pd.DataFrame:
    return realised_errors(forecast, observed, as_of=as_of(forecast), run_id="run")


def as_of(forecast: pd.DataFrame) -> pd.Timestamp:
    return forecast.index.get_level_values(-1).min()


# --- Errors of one run ---------------------------------------------------------------


def test_only_observed_rows_count() -> None:
    forecast = table(4, load=[1.0, 2.0, 3.0, 4.0])
    observed = table(6, "2026-02-28 22:00", load=[9.0, 9.0, 1.5, np.nan, 2.0, 9.0])[:-1]
    errors = errors_of(forecast, observed)
    assert list(errors.columns) == list(ERROR_COLUMNS)
    assert errors["lead"].tolist() == [1, 3]
    assert errors["error"].tolist() == [-0.5, 1.0]
    assert errors["observed"].tolist() == [1.5, 2.0]
    assert errors["time"].tolist() == [forecast.index[0], forecast.index[2]]
    assert errors["series"].tolist() == ["", ""]
    assert str(errors["time"].dt.tz) == ZONE


def test_panels_are_joined_by_series_and_time_in_any_order() -> None:
    forecast = panel(
        south=table(2, load=[1.0, 2.0], flow=[5.0, 6.0]),
        north=table(2, "2026-03-02", load=[3.0, 4.0], flow=[7.0, 8.0]),
    )
    observed = panel(
        north=table(48, load=100.0, flow=200.0),
        west=table(48, load=-1.0, flow=-1.0),
        south=table(1, load=10.0, flow=20.0),
    ).sample(frac=1.0, random_state=0)
    errors = errors_of(forecast, observed)
    found = {
        (series, target): group["error"].tolist()
        for (series, target), group in errors.groupby(["series", "target"])
    }
    assert found == {
        ("south", "load"): [-9.0],
        ("south", "flow"): [-15.0],
        ("north", "load"): [-97.0, -96.0],
        ("north", "flow"): [-193.0, -192.0],
    }
    assert errors.loc[errors["series"] == "north", "lead"].tolist() == [1, 1, 2, 2]


def test_leads_follow_time_and_not_the_order_of_rows() -> None:
    forecast = table(3)
    errors = errors_of(forecast.iloc[[2, 0, 1]], forecast)
    assert errors["lead"].tolist() == [3, 1, 2]
    assert errors["error"].tolist() == [0.0, 0.0, 0.0]


def test_zones_compare_as_instants_over_the_change_of_clocks() -> None:
    # At 03:00 on 25 October 2026 clocks go back: 02:00 to 03:00 comes twice.
    forecast = table(6, "2026-10-25 00:00")
    errors = errors_of(forecast, forecast.tz_convert("UTC"))
    assert errors["lead"].tolist() == [1, 2, 3, 4, 5, 6]
    assert (errors["error"] == 0).all()
    # By the clock alone two rows share a time: what a join without zones would lose.
    assert forecast.index.tz_localize(None).duplicated().sum() == 1


def test_the_last_of_several_observations_counts() -> None:
    observed = pd.concat([table(2, load=5.0), table(1, load=7.0)])
    assert errors_of(table(2, load=0.0), observed)["observed"].tolist() == [7.0, 5.0]


def test_interval_ends_are_no_targets_unless_they_are_observed() -> None:
    forecast = table(1, load=[1.0], load_lower=[0.0], load_upper=[2.0])
    errors = errors_of(forecast, table(1, load=[1.0], load_upper=[3.0]))
    assert errors["target"].tolist() == ["load", "load_upper"]


def test_row_numbers_are_times_too() -> None:
    forecast = pd.DataFrame({"load": [1.0, 2.0]}, [10, 11])
    observed = pd.DataFrame({"load": np.zeros(11)})
    errors = realised_errors(forecast, observed, as_of=10, run_id="run")
    assert errors[["as_of", "time", "lead", "error"]].values.tolist() == [
        [10, 10, 1, 1.0]
    ]


def test_nothing_forecast_or_nothing_observed_gives_no_row(tmp_path: Path) -> None:
    assert len(errors_of(table(2), table(2, "2027-01-01"))) == 0
    assert len(errors_of(table(2, load=np.nan), table(2))) == 0
    empty = realised_errors(table(0), table(2), as_of=as_of(table(2)), run_id="run")
    assert list(empty.columns) == list(ERROR_COLUMNS)
    assert len(update_errors(tmp_path / "errors.parquet", empty)) == 0


@pytest.mark.parametrize(
    ("observed", "error", "named"),
    [
        (table(2, flow=1.0), InputError, "no column 'load'"),
        (panel(north=table(2)), InputError, "several series"),
        (table(2).tz_localize(None), InputError, "without a zone"),
        (table(2).reset_index(drop=True), InputError, "whole numbers"),
        (table(2).set_axis(["a", "b"]), InputTypeError, "labelled by"),
    ],
)
def test_tables_that_do_not_fit_are_refused(observed, error, named) -> None:
    with pytest.raises(error, match=named):
        errors_of(table(2), observed)


@settings(max_examples=20)
@given(
    n_ahead=st.integers(1, 5),
    n_series=st.integers(1, 4),
    seed=st.integers(0, 2**32 - 1),
)
def test_errors_equal_a_plain_join(n_ahead: int, n_series: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    names = [f"s{number}" for number in range(n_series)]
    forecast = panel(**{one: table(n_ahead) for one in names})
    forecast["load"] = rng.normal(size=len(forecast))
    observed = panel(**{one: table(n_ahead + 2, "2026-02-28 23:00") for one in names})
    observed["load"] = rng.normal(size=len(observed))
    observed = observed[rng.random(len(observed)) < 0.7]
    joined = forecast.join(observed.add_prefix("true_"), how="inner")
    expected = (joined["load"] - joined["true_load"]).sort_index()
    errors = errors_of(forecast, observed).sort_values(["series", "time"])
    assert errors["error"].tolist() == expected.tolist()
    assert errors["series"].tolist() == [name for name, _ in expected.index]


# --- The table of all runs -----------------------------------------------------------


def run_errors(run: int, n_rows: int = 3, error: float = 1.0) -> pd.DataFrame:
    truth = table(n_rows, f"2026-03-{run:02d}", load=0.0)
    ahead = panel(north=truth + error, south=truth - error)
    known = panel(north=truth, south=truth)
    return realised_errors(ahead, known, as_of=as_of(ahead), run_id=f"run{run}")


def test_the_same_rows_give_the_same_bytes_however_they_came(tmp_path: Path) -> None:
    once, other = tmp_path / "once.parquet", tmp_path / "other.parquet"
    for run in (1, 2, 3):
        update_errors(once, run_errors(run))
    first = once.read_bytes()
    for run in (3, 1):  # a repeated run, and one that is filled in later
        update_errors(once, run_errors(run))
    shuffled = pd.concat([run_errors(run) for run in (3, 1)])
    update_errors(other, shuffled.sample(frac=1.0, random_state=0))
    update_errors(other, run_errors(2))
    assert once.read_bytes() == first
    assert other.read_bytes() == first
    assert set(tmp_path.iterdir()) == {once, other}


def test_rows_are_sorted_and_replaced(tmp_path: Path) -> None:
    file = tmp_path / "errors.parquet"
    update_errors(file, run_errors(2, n_rows=2))
    update_errors(file, run_errors(1))
    corrected = update_errors(file, run_errors(2, n_rows=3, error=5.0))
    assert corrected["run_id"].tolist() == ["run1"] * 6 + ["run2"] * 6
    assert corrected["error"].abs().tolist() == [1.0] * 6 + [5.0] * 6
    names = ["as_of", "run_id", "series", "target", "time"]
    assert corrected.equals(corrected.sort_values(names, ignore_index=True))
    assert not corrected.duplicated(names).any()
    pd.testing.assert_frame_equal(pd.read_parquet(file), corrected, check_dtype=False)


def test_units_of_times_do_not_change_the_bytes(tmp_path: Path) -> None:
    files = [tmp_path / "s.parquet", tmp_path / "ns.parquet"]
    for file, unit in zip(files, ["s", "ns"], strict=True):
        forecast = table(3)
        forecast.index = forecast.index.as_unit(unit)
        date = as_of(forecast)
        update_errors(
            file, realised_errors(forecast, forecast, as_of=date, run_id="run")
        )
    assert files[0].read_bytes() == files[1].read_bytes()


def test_old_runs_can_be_forgotten(tmp_path: Path) -> None:
    file = tmp_path / "errors.parquet"
    update_errors(file, run_errors(1))
    date = pd.Timestamp("2026-03-02", tz=ZONE)
    kept = update_errors(file, run_errors(2), forget_before=date)
    assert kept["run_id"].unique().tolist() == ["run2"]


def test_a_change_of_zone_keeps_instants(tmp_path: Path) -> None:
    file = tmp_path / "errors.parquet"
    update_errors(file, run_errors(1))
    later = run_errors(2)
    for name in ("as_of", "time"):
        later[name] = later[name].dt.tz_convert("UTC")
    found = update_errors(file, later)
    assert str(found["time"].dt.tz) == "UTC"
    assert found["time"].iloc[0] == pd.Timestamp("2026-03-01", tz=ZONE)
    for name in ("as_of", "time"):
        later[name] = later[name].dt.tz_localize(None)
    before = file.read_bytes()
    with pytest.raises(InputError, match="without a zone"):
        update_errors(file, later)
    assert file.read_bytes() == before


def test_what_is_no_table_of_errors_is_refused_and_kept(tmp_path: Path) -> None:
    file = tmp_path / "errors.parquet"
    file.write_bytes(b"not a table")
    with pytest.raises(FileFormatError, match="no table of realised errors"):
        update_errors(file, run_errors(1))
    assert file.read_bytes() == b"not a table"
    table(2).to_parquet(file)
    with pytest.raises(FileFormatError, match=r"run_id.* is missing"):
        update_errors(file, run_errors(1))
    with pytest.raises(InputError, match="lead is missing"):
        update_errors(tmp_path / "new.parquet", run_errors(1).drop(columns="lead"))


def test_a_failed_write_leaves_the_old_table(tmp_path: Path, monkeypatch) -> None:
    file = tmp_path / "errors.parquet"
    update_errors(file, run_errors(1))
    before = file.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        update_errors(file, run_errors(2))
    assert file.read_bytes() == before
    assert list(tmp_path.iterdir()) == [file]


# --- Drift ---------------------------------------------------------------------------


def history_of(*sizes: float, n_rows: int = 10, **targets: float) -> pd.DataFrame:
    """Runs, a day apart, whose errors have these sizes, times one factor a target."""
    targets = targets or {"load": 1.0}
    runs = []
    for day, size in enumerate(sizes, start=1):
        signs = np.where(np.arange(n_rows) % 2, -1.0, 1.0)
        truth = table(n_rows, f"2026-03-{day:02d}", **dict.fromkeys(targets, 0.0))
        ahead = truth + size * signs[:, None] * np.array([*targets.values()])
        date = as_of(ahead)
        runs.append(realised_errors(ahead, truth, as_of=date, run_id=f"run{day}"))
    return pd.concat(runs, ignore_index=True)


def test_only_the_last_runs_count() -> None:
    errors = history_of(100.0, 1.0, 3.0)
    assert drift_of(errors, {"load": 1.0}, last_runs=2) == {"ratio": 2.0, "runs": 2}
    assert drift_of(errors[::-1], {"load": 1.0}, last_runs=2)["ratio"] == 2.0
    assert drift_of(errors, {"load": 4.0}, last_runs=9)["runs"] == 3
    with pytest.raises(InputError, match="last_runs is 0"):
        drift_of(errors, {"load": 1.0}, last_runs=0)


def test_targets_count_by_ratio_and_not_by_size() -> None:
    errors = history_of(1.0, load=4.0, pressure=4e6)
    ratio = drift_of(errors, {"load": 1.0, "pressure": 1e6}, last_runs=1)["ratio"]
    assert ratio == pytest.approx(4.0, rel=1e-12)
    # Twice as bad and half as bad balance; the mean of ratios would tell 1.25.
    ratio = drift_of(errors, {"load": 2.0, "pressure": 8e6}, last_runs=1)["ratio"]
    assert ratio == pytest.approx(1.0, rel=1e-12)


def test_units_do_not_matter() -> None:
    errors = history_of(1.0, 2.0, load=3.0, flow=0.1)
    expected = {"load": 2.0, "flow": 0.2}
    scaled = errors.assign(error=errors["error"] * 1000)
    assert drift_of(
        scaled, {name: 1000 * one for name, one in expected.items()}, last_runs=2
    )["ratio"] == pytest.approx(
        drift_of(errors, expected, last_runs=2)["ratio"], rel=1e-12
    )


def test_leads_count_alike_while_the_last_run_is_under_way() -> None:
    growing = history_of(1.0, 1.0, n_rows=20)
    growing["error"] *= growing["lead"]  # mean over leads: 10.5
    known = growing[(growing["run_id"] == "run1") | (growing["lead"] <= 5)]
    assert drift_of(known, {"load": 10.5}, last_runs=1)["ratio"] == pytest.approx(1.0)
    # A plain mean over the last run would call the forecast far better than it is.
    last = known[known["run_id"] == "run2"]
    assert last["error"].abs().mean() / 10.5 < 0.3


def test_what_cannot_be_judged_is_passed_over() -> None:
    errors = history_of(2.0, n_rows=10, load=1.0, flow=1.0)
    for expected in (
        {},
        {"other": 1.0},
        {"load": np.nan, "flow": 0.0},
        {"load": np.inf},
    ):
        assert drift_of(errors, expected, last_runs=1) is None
    expected = {"load": 1.0, "flow": np.nan}
    assert drift_of(errors, expected, last_runs=1)["ratio"] == 2.0
    assert drift_of(errors[errors["lead"] < 10], expected, last_runs=1) is None
    assert drift_of(errors[:0], expected, last_runs=1) is None
    errors.loc[errors["target"] == "load", "error"] = np.nan
    assert drift_of(errors, expected, last_runs=1) is None


def test_one_stuck_target_does_not_hide_the_others() -> None:
    errors = history_of(4.0, load=1.0, stuck=0.0)
    found = drift_of(errors, {"load": 1.0, "stuck": 1.0}, last_runs=1)
    assert found["ratio"] == pytest.approx(np.sqrt(4.0 / 100))  # and not zero
    errors.loc[errors["target"] == "stuck", "error"] = np.inf
    found = drift_of(errors, {"load": 1.0, "stuck": 1.0}, last_runs=1)
    assert found["ratio"] == pytest.approx(np.sqrt(4.0 * 100))  # and not infinite
