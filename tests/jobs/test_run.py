"""Runs: what is written, what a second run does, and what stops one."""

import json

import numpy as np
import pandas as pd
import pytest
from workshop import panel

import sciseq
from sciseq.errors import DataQualityError, InputError, ProcessError
from sciseq.jobs import run_job
from sciseq.jobs.exit_codes import GATE, LockedError, TemporaryError, exit_code_of
from sciseq.jobs.run import dates_of
from sciseq.jobs.state import JobState


def out(workshop, name="out-2024-01-11.parquet"):
    return pd.read_parquet(workshop.folder / name)


def test_a_forecast_is_what_the_estimator_gives(workshop):
    result = run_job(workshop.job())
    assert result.exit_code == 0
    frame = panel().set_index(["unique_id", "ds"])
    model = sciseq.LinearForecaster(lookback=48, horizon=24).fit(frame)
    pd.testing.assert_frame_equal(out(workshop), model.predict(), check_freq=False)
    record = result.record
    assert record["as_of"] == "2024-01-11 00:00:00"
    assert record["source"]["rows"] == 7 * 240
    assert record["parts"] == {"total": 3}
    assert record["retrain"]["decision"] == "fitted"
    assert record["destination"]["rows"] == 7 * 24


def test_the_second_run_does_nothing(workshop, monkeypatch):
    first = run_job(workshop.job())
    before = workshop.files()

    def never(*args, **kwargs):
        raise AssertionError("this was done already")

    for name in ("fit_candidate", "run_parts", "judge"):
        monkeypatch.setattr(f"sciseq.jobs.execution.{name}", never)
    second = run_job(workshop.job(work__series_per_part=2))
    assert second.is_repeated and second.record == first.record
    job_file = {"job.toml"}
    after = workshop.files()
    assert {k: v for k, v in after.items() if k not in job_file} == {
        k: v for k, v in before.items() if k not in job_file
    }


def test_a_repeated_run_does_not_load_its_model(workshop, monkeypatch):
    model = sciseq.LinearForecaster(lookback=48, horizon=24)
    model.fit(panel().set_index(["unique_id", "ds"])).save(workshop.folder / "m")
    job = workshop.job(model__method=None, model__settings=None, model__path="m")
    run_job(job)
    monkeypatch.setattr("sciseq.jobs.models.load", None)
    assert run_job(job).is_repeated


def test_the_same_run_elsewhere_writes_the_same_bytes(workshop, tmp_path_factory):
    run_job(workshop.job(log__report=True))
    other = type(workshop)(tmp_path_factory.mktemp("other"))
    run_job(other.job(log__report=True))
    assert workshop.files() == other.files()


def test_parts_do_not_change_results(workshop):
    run_job(workshop.job())
    expected = workshop.files()["out-2024-01-11.parquet"]
    run_job(workshop.job(state="other", work__series_per_part=2))
    assert workshop.files()["out-2024-01-11.parquet"] == expected


def test_a_lost_or_changed_result_is_written_again(workshop, monkeypatch):
    run_job(workshop.job())
    path = workshop.folder / "out-2024-01-11.parquet"
    content = path.read_bytes()
    monkeypatch.setattr("sciseq.jobs.execution.fit_candidate", None)
    for damage in (path.unlink, lambda: path.write_bytes(content[:-1] + b"x")):
        damage()
        assert run_job(workshop.job()).is_repeated
        assert path.read_bytes() == content


def test_a_dry_run_writes_nothing(workshop):
    workshop.job_file()
    before = workshop.files()
    result = run_job(workshop.job(), dry_run=True)
    assert result.exit_code == 0
    assert workshop.files() == before
    assert not (workshop.folder / "load.state").exists()


def test_other_inputs_are_another_run(workshop):
    run_job(workshop.job(), "2024-01-09")
    table = panel()
    table.loc[5, "y"] += 1
    workshop.write(table)
    again = run_job(workshop.job(), "2024-01-09")
    assert not again.is_repeated
    assert len(JobState(workshop.job().state).records()) == 2


# -------------------------------------------------------------------- broken series


def test_a_broken_series_is_told_and_the_rest_go_on(workshop):
    whole = run_job(workshop.job(state="whole"), "2024-01-11").record
    expected = out(workshop)
    table = panel()
    rows = table["unique_id"] == "s3"
    table.loc[table.index[rows][-5], "y"] = np.nan
    workshop.write(table)
    result = run_job(workshop.job(model__settings="{lookback = 48, horizon = 24, "
                                  "missing = 'error'}"), "2024-01-11")  # fmt: skip
    assert result.exit_code == 3
    (failed,) = result.record["failed_series"]
    assert failed["series"] == "s3"
    assert "NaN" in failed["error"]
    assert "s3 was left out of the fit" in " ".join(result.record["notes"])
    assert whole["failed_series"] == []
    found = out(workshop)
    assert set(found.index.unique(level=0)) == set(expected.index.unique(level=0)) - {
        "s3"
    }


def test_a_broken_neighbour_changes_no_bit(workshop):
    model = sciseq.LinearForecaster(lookback=48, horizon=24)
    model.fit(panel().set_index(["unique_id", "ds"])).save(workshop.folder / "m")
    job = {"model__method": None, "model__settings": None, "model__path": "m"}
    run_job(workshop.job(state="a", **job), "2024-01-11")
    whole = out(workshop)
    table = panel()
    table.loc[(table["unique_id"] == "s4") & (table["ds"] >= "2024-01-10"), "y"] = (
        np.inf
    )
    workshop.write(table)
    assert run_job(workshop.job(state="b", **job), "2024-01-11").exit_code == 3
    pd.testing.assert_frame_equal(
        out(workshop), whole.drop("s4"), check_exact=True, check_freq=False
    )


def test_nothing_but_broken_series(workshop):
    table = panel(n_series=2)
    table.loc[table["ds"] == "2024-01-10", "y"] = np.nan
    workshop.write(table)
    with pytest.raises(DataQualityError, match="NaN"):
        run_job(workshop.job())
    assert not list(workshop.folder.glob("out*"))


# ------------------------------------------------------------- gates and retraining


def test_a_gate_stops_before_anything_is_written(workshop):
    job = workshop.job(
        model__method="naive",
        model__settings=None,
        gates__against=["seasonal-naive"],
    )
    result = run_job(job)
    assert result.exit_code == GATE
    (gate,) = result.record["gates"]
    assert gate["new"] > gate["other"] and gate["passed"] is False
    assert not list(workshop.folder.glob("out*"))
    assert list((job.state / "models").iterdir()) == []
    assert run_job(job).is_repeated and run_job(job).exit_code == GATE


def test_a_tolerance_lets_it_pass(workshop):
    result = run_job(
        workshop.job(
            model__method="naive",
            model__settings=None,
            gates__against=["seasonal-naive"],
            gates__tolerance=50.0,
        )
    )
    assert result.exit_code == 0
    assert result.record["gates"][0]["passed"]


def test_a_gate_may_keep_the_model_there_was(workshop):
    first = run_job(workshop.job(), "2024-01-08").record
    changed = workshop.job(
        model__method="naive",
        model__settings=None,
        gates__against=["previous"],
        gates__on_failure="keep",
    )
    second = run_job(changed, "2024-01-09").record
    assert second["model_version"] == first["model_version"]
    assert second["gates"][0]["against"] == "previous"
    assert not second["gates"][0]["passed"]
    assert second["status"] == "done"


@pytest.mark.parametrize(
    ("policy", "fits"),
    [
        ({}, [True, False, False]),
        ({"retrain__when": "always"}, [True, True, True]),
        ({"retrain__every": "2D"}, [True, False, True]),
    ],
)
def test_when_a_model_is_fitted(workshop, policy, fits):
    job = workshop.job(**policy)
    decisions = [
        run_job(job, date).record["retrain"]["decision"] == "fitted"
        for date in ("2024-01-08", "2024-01-09", "2024-01-10")
    ]
    assert decisions == fits


def test_a_backfill_uses_no_later_model(workshop):
    late = run_job(workshop.job(), "2024-01-10").record
    early = run_job(workshop.job(), "2024-01-08").record
    assert early["retrain"]["decision"] == "fitted"
    assert early["model_version"] != late["model_version"]
    assert early["trained_as_of"] == "2024-01-08 00:00:00"


def test_never_fitting_needs_a_model(workshop):
    with pytest.raises(InputError, match="none may be fitted"):
        run_job(workshop.job(retrain__when="never"))


def test_late_rows_are_told_or_refused(workshop):
    table = panel()
    workshop.write(table[table.index != 30])  # an hour of the first series is missing
    mask = "{lookback = 48, horizon = 24, missing = 'mask'}"
    workshop.write(table)
    job = workshop.job(model__settings=mask)
    run_job(job, "2024-01-08")
    table.loc[30, "y"] += 1.0
    workshop.write(table)
    late = run_job(job, "2024-01-09").record["source"]["late_rows"]
    assert late == 0
    log = (job.state / "log.txt").read_text()
    assert "rows were changed" in log
    refusing = workshop.job(model__settings=mask, source__late_rows="refuse")
    run_job(refusing, "2024-01-08")
    table.loc[31, "y"] += 1.0
    workshop.write(table)
    with pytest.raises(DataQualityError, match="rows were changed"):
        run_job(refusing, "2024-01-09")


# ------------------------------------------------------------------ the other tasks


def test_intervals(workshop):
    run_job(workshop.job(forecast__coverage=0.8))
    found = out(workshop)
    assert list(found.columns) == ["y", "y_lower", "y_upper"]
    assert (found["y_lower"] <= found["y"]).all()


def test_fit_only(workshop):
    job = workshop.job(task="fit", destination__path=None)
    record = run_job(job).record
    assert record["destination"] is None
    model = sciseq.load(job.state / "models" / record["model_version"])
    assert model.horizon == 24


def test_backtest(workshop):
    job = workshop.job(task="backtest", destination__path="errors.csv")
    run_job(job)
    table = pd.read_csv(workshop.folder / "errors.csv")
    assert list(table["target"]) == ["all", "y"]
    assert (table["mase"] < 1).all()


def test_generate(workshop):
    pytest.importorskip("torch")
    text = "\n".join(["ACGTACGT", "ACGTTCGT", "ACGAACGT"] * 8)
    (workshop.folder / "seqs.txt").write_text(text)
    job = workshop.job(
        task="generate",
        source__path="seqs.txt",
        source__series_column=None,
        source__time_column=None,
        model__method="markov-chain",
        model__settings=None,
        destination__path="made.fasta",
        generate__n=25,
        work__sequences_per_part=10,
    )
    record = run_job(job).record
    lines = (workshop.folder / "made.fasta").read_text().splitlines()
    assert len(lines) == 50 and lines[0] == ">sample1"
    assert record["parts"]["total"] == 3
    assert run_job(job).is_repeated


def test_sequence(workshop, data_dir):
    spectra = data_dir / "peptides" / "proteometools_pool1_small_annotated.mgf.gz"
    job = workshop.job(
        task="sequence",
        source__path=str(spectra),
        source__series_column=None,
        source__time_column=None,
        model__method=None,
        model__settings=None,
        destination__path="psms.csv",
        work__spectra_per_part=16,
    )
    # A part of the file keeps the test short.
    import gzip

    with gzip.open(spectra, "rt") as file:
        text = "END IONS\n".join(file.read().split("END IONS\n")[:40]) + "END IONS\n"
    (workshop.folder / "some.mgf").write_text(text)
    job = workshop.job(**{**_dotted(job), "source__path": "some.mgf"})
    record = run_job(job).record
    table = pd.read_csv(workshop.folder / "psms.csv")
    assert len(table) == 40
    assert record["parts"]["total"] == 3
    model = sciseq.PeptideSequencer.pretrained()
    expected = model.predict(workshop.folder / "some.mgf")
    assert [str(one) for one in table["peptide"]] == [str(one) for one in expected]


def _dotted(job):
    return {
        "task": job.task,
        "source__series_column": None,
        "source__time_column": None,
        "model__method": None,
        "model__settings": None,
        "destination__path": "psms.csv",
        "work__spectra_per_part": 16,
    }


# ------------------------------------------------------------------ state and faults


def test_two_runs_of_one_job(workshop):
    job = workshop.job()
    state = JobState(job.state)
    state.prepare()
    with state.lock(), pytest.raises(LockedError, match="another run"):
        run_job(job)
    assert run_job(job).exit_code == 0  # the lock is free again


def test_old_runs_are_forgotten(workshop):
    job = workshop.job(keep__runs=2, retrain__when="always")
    for date in ("2024-01-07", "2024-01-08", "2024-01-09"):
        run_job(job, date)
    run_job(job, "2024-01-06")  # filled in later: forgotten with the next new one only
    assert run_job(job, "2024-01-06").is_repeated
    run_job(job, "2024-01-09 01:00")
    run_job(job, "2024-01-09")
    kept = [one["as_of"] for one in JobState(job.state).records()]
    assert kept == ["2024-01-09 00:00:00", "2024-01-09 01:00:00"]
    # That of the eighth too, which the older of the two started from.
    assert len(JobState(job.state).models()) == 3


def test_a_destination_that_is_not_there(workshop):
    with pytest.raises(TemporaryError, match="is not there"):
        run_job(workshop.job(destination__path="nowhere/out.csv"))
    job = workshop.job()
    assert not list((job.state / "runs").iterdir())  # refused before any work


def test_a_log_of_json(workshop):
    run_job(workshop.job(log__format="json"))
    lines = (workshop.folder / "load.state" / "log.jsonl").read_text().splitlines()
    entries = [json.loads(one) for one in lines]
    assert entries[-1]["message"] == "done"
    assert all({"time", "level"} <= set(one) for one in entries)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (LockedError("x"), 5),
        (TemporaryError("x"), 6),
        (InputError("x"), 2),
        (OSError(28, "full"), 6),
        (ProcessError("a process was killed"), 6),
        (KeyboardInterrupt(), 130),
        (RuntimeError("x"), 1),
    ],
)
def test_exit_codes(error, code):
    assert exit_code_of(error) == code


def test_ranges_of_dates():
    assert dates_of(None, None, "1D") == [None]
    assert len(dates_of("2024-01-01", "2024-01-03", "1D")) == 3
    assert dates_of("5", "9", "2") == [5, 7, 9]
    for wrong in (("2024-01-03", "2024-01-01", "1D"), (None, "2024-01-01", "1D"),
                  ("2024-01-01", "2024-01-03", "soon")):  # fmt: skip
        with pytest.raises(InputError):
            dates_of(*wrong)


# ---------------------------------------------------------------------------- drift


def test_realised_errors_and_drift(workshop):
    table = panel()
    workshop.write(table)
    job = workshop.job(retrain__drift=3.0, retrain__drift_runs=2, log__report=True)
    first = run_job(job, "2024-01-08").record
    assert first["drift"] is None
    quiet = run_job(job, "2024-01-09").record
    assert quiet["drift"]["ratio"] < 3 and quiet["retrain"]["decision"] == "kept"
    errors = pd.read_parquet(job.state / "errors.parquet")
    assert len(errors) == 7 * 24
    truth = table.set_index(["unique_id", "ds"])["y"]
    row = errors.iloc[50]
    assert row["observed"] == truth[(row["series"], row["time"])]
    assert row["error"] == row["forecast"] - row["observed"]
    # The world changes: from the ninth day on every series is another one.
    table.loc[table["ds"] >= "2024-01-09", "y"] += 5.0
    workshop.write(table)
    changed = run_job(job, "2024-01-10").record
    assert changed["drift"]["ratio"] > 3
    assert changed["retrain"] == {
        "decision": "fitted",
        "reason": f"errors are {changed['drift']['ratio']:.3g} times those expected",
    }
    assert (
        "<img" in (job.state / "runs" / changed["run_id"] / "report.html").read_text()
    )


# ------------------------------------------------------------------------- databases


def test_from_a_database_to_a_database(workshop, url, monkeypatch):
    import sqlalchemy

    monkeypatch.setenv("SCISEQ_TEST_DB", url)
    engine = sqlalchemy.create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    panel().to_sql("load", engine, index=False)
    places = {
        "source__path": None,
        "source__url_env": "SCISEQ_TEST_DB",
        "source__table": "load",
        "destination__path": None,
        "destination__url_env": "SCISEQ_TEST_DB",
        "destination__table": "forecasts",
    }
    result = run_job(workshop.job(**places), "2024-01-10")
    assert run_job(workshop.job(**places), "2024-01-10").is_repeated
    stored = pd.read_sql(sqlalchemy.text("select * from forecasts"), engine)
    engine.dispose()
    assert len(stored) == 7 * 24
    assert set(stored["run_id"]) == {result.record["run_id"]}
    # The same as from a file to a file.
    run_job(workshop.job(), "2024-01-10")
    expected = out(workshop, "out-2024-01-10.parquet")["y"].to_numpy()
    found = stored.sort_values(["series", "time"])["y"].to_numpy()
    np.testing.assert_array_equal(found, expected)
