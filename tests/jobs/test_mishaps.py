"""Damaged state, unusual dates and labels, and jobs that get in each other's way."""

import types
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import typer
from workshop import panel

from sciseq.cli.run import _run_dates
from sciseq.errors import DataQualityError, InputError
from sciseq.jobs import read_job, run_job
from sciseq.jobs.error_table import read_errors
from sciseq.jobs.state import JobState

QUICK = {
    "model__method": "naive",
    "model__settings": None,
    "log__report": False,
    "destination__path": "out-{as_of}.csv",
}


def command(path: Path, first: str | None = None, last: str | None = None) -> int:
    """The exit code of ``sciseq run``."""
    context = types.SimpleNamespace(obj=False)
    options = {"dry_run": False, "scheduler": None}
    try:
        return _run_dates(
            context, path, (first, last, "1D"), options, json_log=False, quiet=True
        )
    except typer.Exit as stopped:
        return stopped.exit_code


# ----------------------------------------------------------------- damaged state


def damage_model(state: Path) -> None:
    next(state.glob("models/*/manifest.json")).write_text("{")


def damage_card(state: Path) -> None:
    next(state.glob("models/*.json")).write_text("[]")


def damage_record(state: Path) -> None:
    next(state.glob("runs/*/record.json")).write_text("{}")


def damage_forecast(state: Path) -> None:
    next(state.glob("runs/*/output.parquet")).write_bytes(b"x")


def lose_forecast(state: Path) -> None:
    next(state.glob("runs/*/output.parquet")).unlink()


def damage_errors(state: Path) -> None:
    (state / "errors.parquet").write_bytes(b"x")


def lose_errors(state: Path) -> None:
    (state / "errors.parquet").unlink()


def add_stray_file(state: Path) -> None:
    (state / "runs" / ".DS_Store").write_bytes(b"x")


@pytest.mark.parametrize(
    "damage",
    [
        damage_model,
        damage_card,
        damage_record,
        damage_forecast,
        lose_forecast,
        add_stray_file,
    ],
)
def test_damage_stops_no_later_run(workshop, damage):
    run_job(workshop.job(**QUICK), "2024-01-09")
    damage(workshop.job().state)
    assert run_job(workshop.job(**QUICK), "2024-01-10").exit_code == 0
    expected = (workshop.folder / "out-2024-01-10.csv").read_bytes()
    run_job(workshop.job(**QUICK, state="whole"), "2024-01-09")
    run_job(workshop.job(**QUICK, state="whole"), "2024-01-10")
    assert (workshop.folder / "out-2024-01-10.csv").read_bytes() == expected


@pytest.mark.parametrize("damage", [damage_errors, lose_errors])
def test_the_table_of_errors_is_made_anew(workshop, damage):
    dates = ["2024-01-07", "2024-01-08", "2024-01-09", "2024-01-10"]
    for date in dates[:3]:
        run_job(workshop.job(**QUICK), date)
    damage(workshop.job().state)
    for state in ("load.state", "whole"):
        for date in dates:
            run_job(workshop.job(**QUICK, state=state), date)
    mended, whole = (
        read_errors(workshop.folder / state / "errors.parquet")
        for state in ("load.state", "whole")
    )
    # Runs have names by their jobs, and the two jobs differ in their state folder.
    columns = [name for name in whole if name != "run_id"]
    assert len(whole) == 7 * 24 * 3
    pd.testing.assert_frame_equal(mended[columns], whole[columns])


def test_a_fitted_model_that_is_lost_is_fitted_again(workshop):
    job = workshop.job(**QUICK | {"task": "fit", "destination__path": None})
    run_job(job)
    assert run_job(job).is_repeated
    damage_model(job.state)
    again = run_job(job)
    assert not again.is_repeated
    state = JobState(job.state)
    assert [state.holds(one) for one in state.models()] == [True]


def test_a_log_that_cannot_be_written_stops_no_run(workshop, capsys):
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full here")
    job = workshop.job(**QUICK)
    job.state.mkdir()
    (job.state / "log.txt").symlink_to("/dev/full")
    assert command(workshop.folder / "job.toml", "2024-01-10") == 0
    assert "the log is not written any more" in capsys.readouterr().err


def test_the_log_says_where_a_fault_came_from(workshop, monkeypatch):
    path = workshop.job_file(**QUICK)

    def broken(*args):
        raise ZeroDivisionError("a fault of ours")

    monkeypatch.setattr("sciseq.jobs.execution.fit_candidate", broken)
    assert command(path, "2024-01-10") == 1
    log = (read_job(path).state / "log.txt").read_text()
    assert "Traceback" in log and "in broken" in log


def test_a_file_in_place_of_the_state_folder(workshop, capsys):
    path = workshop.job_file(**QUICK)
    (workshop.folder / "load.state").write_text("")
    assert command(path) == 2
    assert "load.state" in capsys.readouterr().err


def test_a_job_file_that_is_not_there(tmp_path, capsys):
    assert command(tmp_path / "job.toml") == 2
    assert "no such job file" in capsys.readouterr().err


def test_the_worst_exit_code_of_a_range(workshop, monkeypatch):
    codes = iter((3, 4, 0))
    monkeypatch.setattr(
        "sciseq.jobs.run.run_job",
        lambda *args, **options: types.SimpleNamespace(exit_code=next(codes)),
    )
    assert command(workshop.job_file(), "2024-01-08", "2024-01-10") == 4


# ------------------------------------------------------------------- in the way


def test_two_jobs_do_not_share_a_state_folder(workshop):
    run_job(workshop.job(**QUICK, state="shared"), "2024-01-09")
    with pytest.raises(InputError, match="that of the job 'load'"):
        run_job(workshop.job(**QUICK, state="shared", name="other"), "2024-01-10")


def test_the_source_is_not_replaced(workshop):
    before = (workshop.folder / "load.csv").read_bytes()
    job = workshop.job(**QUICK | {"destination__path": "./load.csv"})
    with pytest.raises(InputError, match="is the source"):
        run_job(job)
    assert (workshop.folder / "load.csv").read_bytes() == before


# ------------------------------------------------------------------ logical dates


def test_an_instant_has_one_name(workshop):
    job = workshop.job(**QUICK, source__time_zone="Europe/Berlin")
    first = run_job(job, "2024-01-09")
    again = run_job(job, "2024-01-08T23:00Z")
    assert again.is_repeated and again.record == first.record


@pytest.mark.parametrize("date", ["2024-10-27 02:30", "2024-03-31 02:30", "", "soon"])
def test_a_date_that_is_no_instant(workshop, date):
    job = workshop.job(**QUICK, source__time_zone="Europe/Berlin")
    with pytest.raises(InputError, match=r"which instant|is no date"):
        run_job(job, date)


def test_dates_with_a_zone_after_dates_without(workshop):
    run_job(workshop.job(**QUICK), "2024-01-09")
    job = workshop.job(**QUICK, source__time_zone="Europe/Berlin")
    for dry_run in (True, False):
        with pytest.raises(InputError, match="cannot be compared"):
            run_job(job, "2024-01-10", dry_run=dry_run)


@pytest.mark.parametrize(
    "times",
    [np.arange(0.0, 50.0, 0.5), pd.period_range("2024-01-01", periods=100, freq="h")],
)
def test_times_that_a_job_cannot_follow(workshop, times):
    index = pd.Index(times, name="ds")
    frame = pd.DataFrame({"y": np.arange(100.0)}, index)
    frame.to_parquet(workshop.folder / "load.parquet")
    job = workshop.job(**QUICK, source__path="load.parquet", source__series_column=None)
    with pytest.raises(InputError, match="must be by dates or whole numbers"):
        run_job(job)


def test_files_without_times_on_two_dates(workshop):
    (workshop.folder / "seqs.txt").write_text("ACGT\nACGA\nACCT\n" * 8)
    job = workshop.job(
        task="generate",
        source__path="seqs.txt",
        source__series_column=None,
        source__time_column=None,
        model__method="markov-chain",
        model__settings=None,
        destination__path="made-{as_of}.fasta",
        generate__n=2,
    )
    assert run_job(job, "2024-01-09").exit_code == 0
    (workshop.folder / "seqs.txt").write_text("ACGT\nACGA\nACCA\n" * 8)
    assert run_job(job, "2024-01-10").record["source"]["late_rows"] is None
    with pytest.raises(InputError, match="cannot be compared"):
        run_job(job)


# ------------------------------------------------------------------ broken series


def with_repeated_time(table: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([table, table.iloc[[5]]])


def with_gap(table: pd.DataFrame) -> pd.DataFrame:
    return table.drop(index=5)


def with_other_step(table: pd.DataFrame) -> pd.DataFrame:
    first = table["unique_id"] == "s0"
    return pd.concat([table[first].iloc[::2], table[~first]])


@pytest.mark.parametrize("change", [with_repeated_time, with_gap, with_other_step])
@pytest.mark.parametrize("task", ["forecast", "backtest"])
def test_a_series_with_wrong_times_stops_nobody_else(workshop, change, task):
    table = panel(n_series=3)
    workshop.write(table[table["unique_id"] != "s0"])
    run_job(workshop.job(**QUICK, task=task, state="without"), "2024-01-10")
    name = workshop.folder / "out-2024-01-10.csv"
    expected = pd.read_csv(name)
    workshop.write(change(table))
    result = run_job(workshop.job(**QUICK, task=task), "2024-01-10")
    found = pd.read_csv(name)
    if task == "forecast":
        assert any("s0 was left out" in one for one in result.record["notes"])
        found = found[found["unique_id"] != "s0"].reset_index(drop=True)
    else:
        assert result.exit_code == 3
        assert [one["series"] for one in result.record["failed_series"]] == ["s0"]
    pd.testing.assert_frame_equal(found, expected)


def test_rows_of_no_series(workshop):
    table = panel(n_series=2)
    table.loc[3, "unique_id"] = None
    workshop.write(table)
    with pytest.raises(DataQualityError, match="rows without a series: 1"):
        run_job(workshop.job(**QUICK))


# -------------------------------------------------------------------- job files


def test_settings_are_checked_before_a_run(workshop):
    for settings in ("{lookback = -3}", "{lookbak = 3}"):
        job = workshop.job(model__settings=settings)
        with pytest.raises(InputError, match=r"lookback=-3|lookbak"):
            run_job(job, dry_run=True)


def test_a_job_file_that_windows_marked(workshop):
    path = workshop.job_file()
    path.write_text(path.read_text(), encoding="utf-8-sig")
    assert read_job(path).name == "load"


def test_a_date_among_the_settings_has_a_digest(workshop):
    one = workshop.job(model__settings="{lookback = 2024-05-01}")
    other = workshop.job(model__settings="{lookback = 2024-05-02}")
    assert one.digest != other.digest


def test_columns_that_came_or_went_since_the_fit(workshop):
    run_job(workshop.job(**QUICK), "2024-01-09")
    table = panel()
    workshop.write(table.assign(temp=1.0))
    with pytest.raises(InputError, match=r"'temp'. came since.*source.drop = ..temp"):
        run_job(workshop.job(**QUICK), "2024-01-10")
    dropped = workshop.job(**QUICK, source__drop=["temp"])
    assert run_job(dropped, "2024-01-10").exit_code == 0
    workshop.write(table.rename(columns={"y": "z"}))
    with pytest.raises(InputError, match=r"'z'. came since; .'y'. are gone"):
        run_job(workshop.job(**QUICK), "2024-01-10")
    anew = workshop.job(**QUICK, retrain__when="always")
    assert run_job(anew, "2024-01-10").record["retrain"]["decision"] == "fitted"
