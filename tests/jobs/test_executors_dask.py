"""Parts on a Dask cluster, and the same bits wherever parts are forecast."""

import gc
import time

import numpy as np
import pandas as pd
import part_functions as work
import pytest
from test_executors import is_alive, wait_until

from sciseq import LinearForecaster, SMambaForecaster
from sciseq.errors import InputError, InputTypeError, SciSeqError
from sciseq.jobs import executor_dask
from sciseq.jobs.executors import run_parts
from sciseq.jobs.panel_parts import forecast_part, panel_parts

dask = pytest.importorskip("dask")
distributed = pytest.importorskip("distributed")


@pytest.fixture(scope="module")  # its threads would be seen by tests of memory
def scheduler():
    """Address of a cluster whose workers have more threads than are to be used."""
    with distributed.LocalCluster(
        n_workers=2,
        threads_per_worker=2,
        dashboard_address="127.0.0.1:0",
        silence_logs=50,
        scheduler_kwargs={"allowed_failures": 0},
    ) as cluster:
        yield cluster.scheduler_address


def small_panel() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    times = pd.date_range("2026-01-01", periods=40, freq="h")
    index = pd.MultiIndex.from_product(
        [[f"s{number}" for number in range(23)], times], names=["series", "time"]
    )
    return pd.DataFrame(rng.normal(size=(len(index), 2)), index, ["load", "wind"])


def both_forecasts(models, part):
    return [forecast_part(model, part) for model in models]


@pytest.mark.slow
def test_forecasts_are_the_same_bits_wherever_they_are_made(scheduler):
    panel = small_panel()
    small = {"lookback": 8, "horizon": 3}
    models = [
        SMambaForecaster(**small, d_model=8, n_layers=1, max_epochs=1, random_state=0),
        LinearForecaster(**small),
    ]
    for model in models:
        model.fit(panel)
    made = []
    for where in ({}, {"n_jobs": 2}, {"scheduler": scheduler}):
        parts = panel_parts(panel, 5)
        found = dict(run_parts(both_forecasts, models, parts, **where))
        in_order = [found[number] for number in range(5)]
        assert not any(one.failures for both in in_order for one in both)
        made.append(
            [pd.concat([both[place].frame for both in in_order]) for place in (0, 1)]
        )
    for others in made[1:]:
        for other, first in zip(others, made[0], strict=True):
            pd.testing.assert_frame_equal(other, first, check_exact=True)
    for model, first in zip(models, made[0], strict=True):
        pd.testing.assert_frame_equal(model.predict(panel), first, rtol=1e-5)


def test_failures_bounded_reading_and_one_part_at_a_time(scheduler):
    n_read = 0

    def parts():
        nonlocal n_read
        for part in range(30):
            n_read += 1
            yield part

    found = {}
    for index, result in run_parts(work.reciprocal, 6.0, parts(), scheduler=scheduler):
        assert n_read <= len(found) + 1 + 2 * 2
        found[index] = result
    assert found.pop(0).type == "ZeroDivisionError"
    assert found == {number: 6.0 / number for number in range(1, 30)}


def test_threads_on_a_worker(scheduler):
    found = run_parts(work.thread_counts, None, range(3), scheduler=scheduler)
    assert [result for _, result in found] == [(1, {1})] * 3


def test_a_part_that_kills_its_worker_is_blamed_alone(scheduler, tmp_path):
    found = run_parts(work.die_once, tmp_path, range(8), scheduler=scheduler)
    assert dict(found) == {number: number for number in range(8)}
    assert (tmp_path / "killed").exists()
    found = dict(run_parts(work.die_always, None, range(8), local_workers=2, retries=1))
    failure = found.pop(3)
    assert failure.type == "WorkerDied"
    assert found == {number: number for number in range(8) if number != 3}


def test_settings_and_clients_of_the_user_are_left_alone(scheduler):
    before = repr(dask.config.config)
    with distributed.Client(scheduler, set_as_default=False) as client:
        for _ in run_parts(work.double, 2, [1], scheduler=scheduler):
            assert repr(dask.config.config) == before
            with pytest.raises(ValueError, match="No clients"):
                distributed.default_client()
        # What was shared is gone from the workers.
        names = client.run(lambda dask_worker: list(dask_worker.plugins))
        assert names
        assert not [one for some in names.values() for one in some if "sciseq" in one]


def test_what_cannot_be_sent(scheduler):
    found = dict(run_parts(work.unsendable, None, range(3), scheduler=scheduler))
    assert (found[0], found[2], found[1].type) == (0, 2, "TypeError")
    open_generator = (one for one in ())
    with pytest.raises(InputTypeError, match="part 0 cannot be sent"):
        next(run_parts(work.double, 2, [open_generator], scheduler=scheduler))


def test_what_the_workers_do_not_have(scheduler):
    with pytest.raises(InputError, match=r"a worker cannot load.*not here"):
        next(run_parts(work.double, work.OnlyHere(), [1], scheduler=scheduler))


class Client:
    """Stands for a cluster of which a worker is just dying."""

    def __init__(self, n_errors):
        self.n_left = n_errors

    def register_plugin(self, plugin, name):
        self.n_left -= 1
        if self.n_left >= 0:
            raise OSError("closed")


def test_a_worker_that_is_dying_while_the_work_is_sent(monkeypatch):
    monkeypatch.setattr(executor_dask.time, "sleep", lambda seconds: None)
    executor_dask._register(Client(4), None, "name")
    with pytest.raises(SciSeqError, match="connection to the Dask scheduler was lost"):
        executor_dask._register(Client(5), None, "name")


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "no address"])
def test_a_scheduler_that_cannot_be_reached(address, monkeypatch):
    monkeypatch.setattr("sciseq.jobs.executor_dask._CONNECT", 0.3)
    with pytest.raises(InputError, match="no Dask scheduler can be reached") as caught:
        next(run_parts(work.double, 2, [1], scheduler=address))
    # Nothing is left to the garbage collector, which could come at a bad time.
    assert caught.value.__cause__ is not None
    left = [
        one.status
        for one in gc.get_objects()
        if issubclass(type(one), distributed.Client)
        and one.status not in ("closed", "newly-created")
    ]
    assert left == []


def test_a_cluster_of_its_own_ends_with_the_run(tmp_path):
    results = run_parts(work.wait_long, tmp_path, [0, 1, 1], local_workers=1)
    assert next(results) == (0, 0)
    (process,) = [int(path.name) for path in tmp_path.iterdir()]
    assert is_alive(process)
    start = time.monotonic()
    results.close()  # with a part that goes on for a minute
    wait_until(lambda: not is_alive(process))
    assert time.monotonic() - start < 55
