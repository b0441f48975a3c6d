"""The command line: outputs, exit codes, and what is left behind."""

import io
import json
import os
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest

import sciseq
import sciseq.files
from sciseq.cli import main
from sciseq.cli.comparison import compare
from sciseq.cli.forecast import default_lookback
from sciseq.data.table_files import read_table, write_table
from sciseq.training.epochs import Epochs

SUFFIXES = [".csv", ".csv.gz", ".parquet", ".nc"]
LINEAR = ("--model", "linear", "--horizon", "6", "--lookback", "24")


class Result(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def run(capsys):
    """Run the command line in this process, as the console script does."""

    def run(*arguments: object) -> Result:
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main([str(argument) for argument in arguments])
        return Result(int(stopped.value.code or 0), *capsys.readouterr())

    return run


@pytest.fixture
def data(tmp_path, hourly_frame) -> Path:
    write_table(hourly_frame, tmp_path / "data.csv")
    return tmp_path / "data.csv"


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def assert_same(found: pd.DataFrame, expected: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(found, expected, check_freq=False, check_exact=True)


# --- Forecasts -----------------------------------------------------------------------


@pytest.mark.parametrize("output", SUFFIXES)
@pytest.mark.parametrize("given", SUFFIXES)
def test_the_forecast_is_that_of_python(
    run, tmp_path, hourly_frame, given, output
) -> None:
    write_table(hourly_frame, tmp_path / f"data{given}")
    out = tmp_path / f"forecast{output}"
    result = run("forecast", tmp_path / f"data{given}", *LINEAR, "--out", out)
    assert result.code == 0, result.err
    model = sciseq.LinearForecaster(lookback=24, horizon=6).fit(hourly_frame)
    assert_same(read_table(out), model.predict())
    assert result.out == ""
    assert f"forecast (6 rows): {out}" in result.err


def test_a_trained_model_gives_the_same_bits_from_python(
    run, tmp_path, data, hourly_frame
) -> None:
    out, saved = tmp_path / "forecast.parquet", tmp_path / "model"
    result = run(
        "forecast", data, "--horizon", 4, "--lookback", 12, "--seed", 3, "--out", out,
        "--set", "d_model=8", "--set", "max_epochs=2", "--set", "calendar=null",
        "--set", "loss=mae", "--save-model", saved, "--targets", "variate_1,variate_0",
    )  # fmt: skip
    assert result.code == 0, result.err
    model = sciseq.SMambaForecaster(
        horizon=4,
        lookback=12,
        random_state=3,
        d_model=8,
        max_epochs=2,
        calendar=None,
        loss="mae",
        targets=["variate_1", "variate_0"],
    )
    expected = model.fit(hourly_frame).predict()
    assert_same(read_table(out), expected)
    assert_same(sciseq.load(saved).predict(), expected)
    # A scheduled job writes to the same places every day.
    again = run("forecast", data, *LINEAR, "--out", out, "--save-model", saved)
    assert again.code == 0, again.err
    assert type(sciseq.load(saved)).__name__ == "LinearForecaster"


def test_long_format(run, tmp_path, panel) -> None:
    table = panel.reset_index().rename(columns={"series": "site", "time": "when"})
    table.to_csv(tmp_path / "data.csv", index=False)
    out = tmp_path / "forecast.csv"
    options = ("--series-column", "site", "--time-column", "when", "--out", out)
    result = run("forecast", tmp_path / "data.csv", *LINEAR, *options)
    assert result.code == 0, result.err
    assert "480 rows, 2 columns, 3 series, lookback 24, horizon 6" in result.err
    assert "mean absolute scaled error" in result.err
    found = read_table(out, series_column="site")
    model = sciseq.LinearForecaster(lookback=24, horizon=6).fit(panel)
    expected = model.predict()
    assert_same(found, expected.rename_axis(["site", "when"]))


def test_without_out_the_forecast_is_all_of_standard_output(
    run, data, hourly_frame
) -> None:
    result = run("forecast", data, *LINEAR)
    assert result.code == 0
    model = sciseq.LinearForecaster(lookback=24, horizon=6).fit(hourly_frame)
    found = pd.read_csv(io.StringIO(result.out), index_col=0, parse_dates=True)
    np.testing.assert_array_equal(found, model.predict())
    quiet = run("forecast", data, *LINEAR, "--quiet")
    assert quiet == Result(0, result.out, "")


def test_rows_without_times_are_numbered_and_this_is_said(run, tmp_path) -> None:
    file = tmp_path / "ramp.csv"
    pd.DataFrame({"x": np.arange(60.0)}).to_csv(file, index=False)
    result = run("forecast", file, "--model", "naive", "--horizon", 3)
    assert "ramp.csv: no time column was found, rows are numbered" in result.err
    assert result.out == ",x\n60,59.0\n61,59.0\n62,59.0\n"


def test_intervals_stand_beside_their_column(run, tmp_path, data, hourly_frame) -> None:
    out = tmp_path / "forecast.csv"
    result = run("forecast", data, *LINEAR, "--interval", 0.8, "--out", out)
    assert result.code == 0, result.err
    found = read_table(out)
    model = sciseq.LinearForecaster(lookback=24, horizon=6).fit(hourly_frame)
    lower, upper = model.predict_interval(coverage=0.8)
    assert list(found.columns[:3]) == [
        "variate_0",
        "variate_0_lower",
        "variate_0_upper",
    ]
    np.testing.assert_array_equal(found["variate_2_lower"], lower["variate_2"])
    np.testing.assert_array_equal(found["variate_2_upper"], upper["variate_2"])
    taken = hourly_frame.assign(variate_0_lower=1.0)
    write_table(taken, tmp_path / "taken.csv")
    result = run("forecast", tmp_path / "taken.csv", *LINEAR, "--interval", 0.8)
    assert result.code == 2
    assert "column 'variate_0_lower' is in the way" in result.err


def test_pictures(run, tmp_path, data) -> None:
    plot = tmp_path / "forecast.png"
    result = run("forecast", data, *LINEAR, "--plot", plot, "--quiet")
    assert result.code == 0, result.err
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert names(tmp_path) == ["data.csv", "forecast.png"]


def test_units_go_from_file_to_file(run, tmp_path, hourly_frame) -> None:
    hourly_frame.attrs["units"] = {"variate_0": "MW"}
    write_table(hourly_frame, tmp_path / "data.nc")
    out = tmp_path / "forecast.nc"
    options = (*LINEAR, "--interval", 0.9, "--out", out)
    assert run("forecast", tmp_path / "data.nc", *options).code == 0
    units = read_table(out).attrs["units"]
    assert units == dict.fromkeys(
        ["variate_0", "variate_0_lower", "variate_0_upper"], "MW"
    )


def test_columns_are_left_out_only_when_asked(run, tmp_path, hourly_frame) -> None:
    write_table(hourly_frame.assign(note="x"), tmp_path / "data.csv")
    result = run("forecast", tmp_path / "data.csv", *LINEAR)
    assert result.code == 2
    assert "'note' ('x' in row 0)" in result.err
    assert "--drop 'note'" in result.err
    result = run("forecast", tmp_path / "data.csv", *LINEAR, "--drop", "note,variate_1")
    assert result.out.startswith("time,variate_0,variate_2\n")


def test_missing_values_are_a_stated_choice(run, tmp_path, hourly_frame) -> None:
    hourly_frame.iloc[30, 1] = np.nan
    write_table(hourly_frame, tmp_path / "data.csv")
    result = run("forecast", tmp_path / "data.csv", *LINEAR)
    assert result.code == 2
    assert "column 'variate_1', row 30 (2026-01-06 06:00:00)" in result.err
    result = run("forecast", tmp_path / "data.csv", *LINEAR, "--missing", "mask")
    assert result.code == 0, result.err
    assert "seasonal naive" in result.err


# --- The lookback, and the error beside the naive ones -------------------------------


@pytest.mark.parametrize(
    ("n_rows", "horizon", "season", "expected"),
    [
        (5000, 24, 24, 96),  # the method's own number
        (240, 24, 24, 48),  # (240 - 24 - 24) / 3 = 64, in whole days
        (144, 12, 12, 36),
        (40, 4, None, 10),
        (30, 4, 24, 7),  # less than a season stays as it is
        (9, 4, None, 1),
    ],
)
def test_default_lookback(n_rows, horizon, season, expected) -> None:
    assert default_lookback(96, n_rows, horizon, season, 0.1) == expected


def test_a_short_table_gets_a_short_lookback(run, data) -> None:
    result = run("forecast", data, "--model", "linear", "--horizon", 24)
    assert "240 rows, 3 columns, lookback 48, horizon 24" in result.err


def test_errors_of_a_ramp_are_known(run, tmp_path) -> None:
    file = tmp_path / "ramp.csv"
    times = pd.date_range("2024-01-01", periods=100, freq="YS", name="year")
    write_table(pd.DataFrame({"x": 2.0 * np.arange(100)}, index=times), file)
    options = ("--model", "linear", "--horizon", 4, "--set", "alpha=0")
    result = run("forecast", file, *options)
    # The last value is 1, 2, 3, 4 steps behind: 2.5 on average; the line is exact.
    line = next(line for line in result.err.splitlines() if "scaled error" in line)
    head, _, listed = line.partition(": ")
    assert head == "mean absolute scaled error on the last 10 rows (7 forecasts)"
    errors = dict(one.rsplit(" ", 1) for one in listed.split(", "))
    assert list(errors) == ["linear", "last value"]  # years have no season
    assert float(errors["last value"]) == 2.5
    assert float(errors["linear"]) < 0.01


def test_a_model_that_does_not_help_is_told_on(run, tmp_path) -> None:
    file = tmp_path / "walk.csv"
    walk = np.random.default_rng(0).normal(size=200).cumsum()
    pd.DataFrame({"x": walk}).to_csv(file, index=False)
    options = ("--model", "linear", "--horizon", 6, "--lookback", 60)
    result = run("forecast", file, *options, "--set", "alpha=0")
    assert "linear does not beat the last value here" in result.err


def test_the_compared_rows_are_those_held_out(hourly_frame) -> None:
    model = sciseq.LinearForecaster(lookback=24, horizon=6).fit(hourly_frame)
    lengths = np.array([len(hourly_frame)])
    before = compare(model, "linear", hourly_frame, lengths, season=24)
    assert (before.n_rows, before.n_windows) == (24, 19)
    # Everything before these rows trains the model: spoiling them changes it...
    spoilt = hourly_frame.copy()
    spoilt.iloc[-24:] += 1000.0
    held_out = sciseq.LinearForecaster(lookback=24, horizon=6, alpha=model.alpha_)
    np.testing.assert_array_equal(held_out.fit(spoilt).coef_, model.coef_)
    # ... nowhere, while the errors on them grow.
    after = compare(held_out, "linear", spoilt, lengths, season=24)
    assert after.errors["linear"] > 10 * before.errors["linear"]


def test_rows_learnt_from_in_the_end_are_no_test(run, data) -> None:
    result = run("forecast", data, *LINEAR, "--set", "refit_on_all=true")
    assert result.code == 0
    assert "no rows were held out, so the error of this forecast is not" in result.err


def test_warnings_are_single_lines(run, tmp_path, hourly_frame) -> None:
    file = tmp_path / "short.csv"
    write_table(hourly_frame[:33], file)
    result = run("forecast", file, *LINEAR, "--quiet")
    assert result.code == 0
    (line,) = result.err.splitlines()
    assert line.startswith("sciseq: warning: the series are too short to hold out")


# --- Errors --------------------------------------------------------------------------

# Options after the name of the data file, and what the message says.
REFUSED = {
    "model": (["--model", "linear2"], "are s-mamba, .*, naive, .*mean 'linear'"),
    "setting": (["--set", "d_model"], "'d_model' is not a setting"),
    "setting name": (["--set", "dmodel=8"], "no parameter 'dmodel'.*'d_model'"),
    "setting value": ([*LINEAR, "--set", "alpha=-1"], "alpha=-1 is not allowed"),
    "setting with option": (["--set", "horizon=3"], "Use --horizon"),
    "horizon": (["--model", "naive", "--horizon", "0"], "horizon=0 is not allowed"),
    "usage": (["--horizon", "x"], "Invalid value for '--horizon'"),
    "unknown option": (["--horzion", "3"], "No such option"),
    "lookback": ([*LINEAR, "--lookback", "500"], "at least 506 .lookback 500"),
    "targets": ([*LINEAR, "--targets", "variate_9"], "target 'variate_9' is not a"),
    "drop": ([*LINEAR, "--drop", "variat_1"], "to leave out.*mean 'variate_1'"),
    "interval": (["--interval", "90"], "a coverage of 90.0 is not allowed"),
    "missing": ([*LINEAR, "--missing", "mean"], "missing='mean' is not allowed"),
    "device": ([*LINEAR, "--device", "cuda"], "linear has no choice of device"),
    "time": ([*LINEAR, "--time-column", "tim"], "'tim' is missing.*mean 'time'"),
    "series": ([*LINEAR, "--series-column", "a"], "series column 'a' is missing"),
    "quiet and verbose": (["-q", "-v"], "contradict each other"),
    "out suffix": (["--out", "{}/f.xlsx"], "'f.xlsx' ends in '.xlsx', tables end in"),
    "out folder": (["--out", "{}/no/f.csv"], "there is no folder .*no .at: --out"),
    "out is data": (["--out", "{}/data.csv"], "would be replaced .at: --out"),
    "out is a folder": (["--out", "{}/taken.csv"], "taken.csv is a folder"),
    "plot suffix": (["--plot", "{}/f.gif"], "pictures end in .png, .pdf, .svg"),
    "plot folder": (["--plot", "{}/no/f.png"], "there is no folder .*at: --plot"),
    "model folder": (["--save-model", "{}/no/m"], "no folder .*at: --save-model"),
    "model is taken": (["--save-model", "{}/taken.csv"], "and is no saved model"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_errors_are_one_line_code_2_and_leave_nothing(run, data, name) -> None:
    folder = data.parent
    (folder / "taken.csv").mkdir()
    (folder / "taken.csv" / "precious").write_text("not a model")
    options, message = REFUSED[name]
    before = names(folder)
    outputs = ["--out", "{}/new.csv", "--plot", "{}/new.png", "--save-model", "{}/m"]
    result = run(
        "forecast", data, *(one.format(folder) for one in [*outputs, *options])
    )
    assert result.code == 2
    last = result.err.splitlines()[-1]
    assert re.search(message, last), result.err
    assert last.startswith(("sciseq: error: ", "Error: "))
    assert "Traceback" not in result.err
    assert result.out == ""
    assert names(folder) == before


def test_bad_input_files(run, tmp_path) -> None:
    result = run("forecast", tmp_path / "no.csv", *LINEAR)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("sciseq: error: there is no file")
    (tmp_path / "data.csv").write_text("time,x\n")
    result = run("forecast", tmp_path / "data.csv", *LINEAR)
    assert result.code == 2
    assert "holds a header and no rows" in result.err


def test_read_only_folders_are_refused_before_the_work(run, data, monkeypatch) -> None:
    folder = data.parent / "locked"
    folder.mkdir()
    real = os.access
    # The superuser may write everywhere, so the answer of the system is replaced.
    monkeypatch.setattr(
        os, "access", lambda path, mode: path != folder and real(path, mode)
    )
    for option, name in (
        ("--out", "f.csv"),
        ("--plot", "f.png"),
        ("--save-model", "m"),
    ):
        result = run("forecast", data, *LINEAR, option, folder / name)
        assert result.code == 2
        assert f"{folder} is not writable (at: {option})" in result.err
        assert "lookback" not in result.err  # nothing was read yet
    assert names(folder) == []


class FullDisk:
    """A disk on which the first ``n_good`` syncs succeed."""

    def __init__(self, monkeypatch, n_good: int) -> None:
        self.n_calls, self.n_good, self.sync = 0, n_good, os.fsync
        monkeypatch.setattr(sciseq.files.os, "fsync", self)

    def __call__(self, descriptor: int) -> None:
        self.n_calls += 1
        if self.n_calls > self.n_good:
            raise OSError(28, "No space left on device")
        self.sync(descriptor)


def test_bad_30_a_disk_that_fills_up_leaves_the_old_or_the_new(
    run, tmp_path, data, monkeypatch
) -> None:
    out, saved = tmp_path / "f.csv", tmp_path / "m"

    def forecast(n_good: int) -> tuple[Result, int]:
        out.write_text("old")
        shutil.rmtree(saved, ignore_errors=True)
        with monkeypatch.context() as patch:
            disk = FullDisk(patch, n_good)
            result = run("forecast", data, *LINEAR, "--out", out, "--save-model", saved)
        return result, disk.n_calls

    result, n_syncs = forecast(1000)
    assert result.code == 0
    new = out.read_text()
    kept = []
    for n_good in range(n_syncs):
        result, _ = forecast(n_good)
        assert result.code == 2
        assert "sciseq: error: No space left on device" in result.err
        assert set(names(tmp_path)) <= {"data.csv", "f.csv", "m"}, "leftovers"
        if saved.exists():
            sciseq.load(saved)
        kept.append(out.read_text())
    # Only the very last sync, that of the folder, comes after the new name.
    assert kept == ["old"] * (n_syncs - 1) + [new]


def test_bad_30_a_picture_that_fails_takes_the_table_with_it(
    run, data, monkeypatch
) -> None:
    outputs = ("--out", data.parent / "f.csv", "--plot", data.parent / "f.png")
    FullDisk(monkeypatch, n_good=0)
    result = run("forecast", data, *LINEAR, *outputs)
    assert result.code == 2
    assert names(data.parent) == ["data.csv"]


def test_faults_are_one_line_unless_debugging(run, data, monkeypatch) -> None:
    def broken(self, X):
        raise ZeroDivisionError("in the\nmodel")

    monkeypatch.setattr(sciseq.LinearForecaster, "fit", broken)
    result = run("forecast", data, *LINEAR, "-q", "--out", data.parent / "f.csv")
    assert result.code == 1
    assert result.err == (
        "sciseq: error: unexpected ZeroDivisionError: in the model "
        "(`sciseq --debug ...` shows where)\n"
    )
    result = run("--debug", "forecast", data, *LINEAR, "-q")
    assert result.code == 1
    assert "Traceback" in result.err
    assert "in broken" in result.err
    assert names(data.parent) == ["data.csv"]


def test_tracebacks_of_refusals_too_when_debugging(run, tmp_path) -> None:
    result = run("--debug", "forecast", tmp_path / "no.csv")
    assert result.code == 2
    assert "Traceback" in result.err
    assert result.err.splitlines()[-1].startswith("sciseq: error: there is no file")


# --- Interruptions -------------------------------------------------------------------


def test_bad_40_ctrl_c_is_130_and_leaves_nothing(run, data, monkeypatch) -> None:
    def pressed(self, X):
        raise KeyboardInterrupt

    monkeypatch.setattr(sciseq.LinearForecaster, "fit", pressed)
    result = run("forecast", data, *LINEAR, "-q", "--out", data.parent / "f.csv")
    assert result == Result(130, "", "sciseq: interrupted, nothing was written\n")
    assert names(data.parent) == ["data.csv"]


def test_bad_40_ctrl_c_in_training_is_130_too(run, data, monkeypatch) -> None:
    real = Epochs.run

    def pressed_in_the_second(self, epoch, reporter):
        if epoch == 2:
            raise KeyboardInterrupt
        return real(self, epoch, reporter)

    monkeypatch.setattr(Epochs, "run", pressed_in_the_second)
    options = ("--horizon", 4, "--lookback", 12, "--set", "d_model=4", "-q")
    result = run("forecast", data, *options, "--out", data.parent / "f.csv")
    assert result.code == 130
    first, last = result.err.splitlines()
    assert first.startswith("sciseq: warning: Training was interrupted in epoch 2")
    assert last == "sciseq: interrupted, nothing was written"
    assert names(data.parent) == ["data.csv"]


def test_a_broken_pipe_is_quiet(run, data, monkeypatch) -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    for arguments in (("methods",), ("forecast", data, *LINEAR, "-q")):
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", Gone())
            result = run(*arguments)
        assert (result.code, result.err) == (141, "")


# --- The other commands --------------------------------------------------------------


def test_methods(run) -> None:
    result = run("methods")
    assert result.code == 0
    assert [line.split()[0] for line in result.out.splitlines()[1:]] == [
        method.name for method in sciseq.registry.METHODS
    ]
    records = json.loads(run("methods", "--kind", "forecasting", "--json").out)
    assert records[0]["name"] == "s-mamba"
    assert records[0]["class"] == "SMambaForecaster"
    assert {record["data"] for record in records} == {"forecasting"}
    result = run("methods", "--kind", "forecasts")
    assert result.code == 2
    assert "Did you mean 'forecasting'?" in result.err


def test_datasets(run) -> None:
    lines = run("datasets").out.splitlines()
    assert lines[0].split()[0] == "name"
    assert any(line.startswith("nile ") and "100 x 1" in line for line in lines)
    records = json.loads(run("datasets", "--json").out)
    assert {"name", "shape", "licence", "available"} <= records[0].keys()


def test_version_and_help(run) -> None:
    assert run("--version") == Result(0, f"sciseq {sciseq.__version__}\n", "")
    shown = run("--help")
    assert shown.code == 0
    for command in ("forecast", "methods", "datasets"):
        assert command in shown.out
        assert run(command, "--help").code == 0
    result = run("forecasts")
    assert result.code == 2
    assert "forecasts" in result.err


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["forecast", "--help"], ["methods"]]
)
def test_help_imports_nothing_heavy(arguments) -> None:
    code = (
        "import sys\nfrom sciseq.cli import main\n"
        f"try:\n    main({arguments!r})\n"
        "except SystemExit as stopped:\n    assert not stopped.code\n"
        "sys.stderr.write(' '.join({name.split('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    heavy = {"matplotlib", "numpy", "pandas", "scipy", "sklearn", "torch", "xarray"}
    assert "typer" in done.stderr.split()
    assert not heavy & set(done.stderr.split())


def test_commands_leave_global_state_alone(run, data, no_global_side_effects) -> None:
    def command() -> None:
        assert run("forecast", data, *LINEAR, "--plot", data.parent / "f.png").code == 0

    command()  # imports may set what they need once
    shown = warnings.showwarning
    with no_global_side_effects():
        command()
    assert warnings.showwarning is shown
