"""Job files: defaults, and every error at once."""

import pytest

from sciseq.errors import FileFormatError, InputError
from sciseq.jobs import read_job
from sciseq.jobs.job_file import SCHEMA, key_list


def test_defaults_are_filled_in(workshop):
    job = workshop.job()
    assert (job.name, job.task) == ("load", "forecast")
    assert job.state == workshop.folder / "load.state"
    assert job["work"]["n_jobs"] == 1
    assert job["work"]["series_per_part"] == 3
    assert job["gates"]["against"] == []


def test_all_problems_are_told_together(workshop):
    path = workshop.job_file(
        name="a b",
        source__time_colum="ds",
        model__method="dlinear",
        gates__metric="mea",
        gates__against=["previouss"],
        retrain__every="soon",
        destination__path="out-{date}.csv",
        work__n_jobs=0,
    )
    with pytest.raises(InputError) as caught:
        read_job(path)
    text = str(caught.value)
    assert "8 problems" in text
    for part in (
        "name = 'a b'",
        "no key 'source.time_colum'. Did you mean 'source.time_column'?",
        "model.method = 'dlinear' is no method",
        "gates.metric = 'mea' is not allowed: must be one of 'mae', 'rmse', 'mase'. "
        "Did you mean 'mae'?",
        "'previouss'",
        "retrain.every = 'soon'",
        "{date}",
        "work.n_jobs = 0 is not allowed: must be an integer of at least 1",
    ):
        assert part in text
    assert caught.value.where == str(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source__path": None}, "source needs either path or url_env"),
        ({"source__url_env": "DB"}, "source needs either"),
        ({"destination__path": None}, "destination needs either path or url_env"),
        ({"destination__url_env": "DB"}, "destination.url_env and destination.table"),
        ({"model__path": "model"}, "model needs either method or path"),
        ({"task": "fit"}, "leave the destination out"),
        ({"task": "forecasts"}, "Did you mean 'forecast'"),
        (
            {"task": "backtest", "backtest__metrics": ["maee"]},
            "backtest.metrics holds 'maee', allowed are mse, mae",
        ),
        (
            {"task": "backtest", "backtest__metrics": ["coverage"]},
            "backtest.metrics holds 'coverage'",
        ),
        (
            {"source__field": "sst", "source__path": "a.nc"},
            "source.series_column does not go with source.field",
        ),
        (
            {
                "task": "fit",
                "destination__path": None,
                "model__method": "peptide-sequencer",
            },
            "sciseq sequence train",
        ),
        ({"task": "sequence"}, "no method for sequencing"),
        ({"name": None}, "name is missing"),
        ({"source__drop": "y"}, "a list of texts"),
        ({"gates": 3}, "gates must be a section"),
        ({"sources": 3}, "Did you mean 'source'"),
    ],
)
def test_what_does_not_fit_together(workshop, changes, message):
    with pytest.raises(InputError) as caught:
        workshop.job(**changes)
    assert message in str(caught.value)


def test_a_file_that_is_no_toml(tmp_path):
    path = tmp_path / "job.toml"
    path.write_text("name: load")
    with pytest.raises(FileFormatError, match="no TOML"):
        read_job(path)


def test_how_the_work_is_spread_does_not_change_the_run(workshop):
    first = workshop.job().digest
    assert workshop.job(work__n_jobs=2, log__format="json").digest == first
    assert workshop.job(model__method="naive", model__settings=None).digest != first


def test_every_key_is_listed():
    listed = key_list()
    for section, fields in SCHEMA.items():
        assert not section or f"[{section}]" in listed
        for key in fields:
            assert key in listed
