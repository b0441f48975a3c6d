"""Reading what is known at a logical date."""

import os

import numpy as np
import pandas as pd
import pytest
from workshop import panel

from sciseq.errors import DataQualityError, InputError
from sciseq.jobs.exit_codes import TemporaryError
from sciseq.jobs.frames import digest_of_rows
from sciseq.jobs.sources import read_history, read_unchanged


def test_only_rows_before_the_logical_date(workshop):
    history = read_history(workshop.job(), "2024-01-03")
    times = history.frame.index.get_level_values(-1)
    assert times.max() == pd.Timestamp("2024-01-02 23:00")
    assert history.facts()["rows"] == 7 * 48
    assert history.facts()["series"] == 7


def test_the_default_date_is_one_step_after_the_last_row(workshop):
    assert read_history(workshop.job()).as_of == pd.Timestamp("2024-01-11")


def test_later_rows_do_not_change_the_digest(workshop):
    before = read_history(workshop.job(), "2024-01-03").facts()["digest"]
    workshop.write(panel(n_rows=500))
    table = read_history(workshop.job(), "2024-01-03")
    # The random part of later series begins elsewhere: only the first is the same.
    workshop.write(panel().query("ds < '2024-01-03'"))
    assert read_history(workshop.job(), "2024-01-03").facts()["digest"] == before
    assert table.facts()["digest"] != before


def test_no_row_before_the_date(workshop):
    with pytest.raises(DataQualityError, match="no row is before"):
        read_history(workshop.job(), "2020-01-01")
    with pytest.raises(InputError, match="is no date"):
        read_history(workshop.job(), "yesterday-ish")


@pytest.mark.parametrize(
    "change",
    [
        lambda table: table.rename(columns={"y": "z"}),
        lambda table: table.set_index(table.index[::-1]),
        lambda table: table + 1e-12,
        lambda table: table.astype("float32"),
    ],
)
def test_the_digest_sees_every_change(change):
    table = pd.DataFrame({"y": np.arange(5.0) + 1}, index=pd.RangeIndex(5) * 2)
    assert digest_of_rows(change(table)) != digest_of_rows(table)


# ----------------------------------------------------------------- changing sources


def test_a_source_that_changes_while_it_is_read(tmp_path):
    path = tmp_path / "table"
    path.write_text("1")
    reads = []

    def read() -> str:
        reads.append(path.read_text())
        if len(reads) < 3:
            path.write_text("1" * (len(reads) + 1))
        return reads[-1]

    assert read_unchanged(path, read) == "111"

    def always() -> str:
        path.write_text("x" + path.read_text())
        return ""

    with pytest.raises(TemporaryError, match="changed while it was read, 3 times"):
        read_unchanged(path, always)


def test_an_error_of_half_a_file_is_not_the_files_fault(tmp_path):
    path = tmp_path / "table"
    path.write_text("half")
    os.utime(path, (1, 1))

    def read() -> str:
        if path.read_text() == "half":
            path.write_text("whole")
            raise ValueError("truncated")
        return path.read_text()

    assert read_unchanged(path, read) == "whole"
    with pytest.raises(TemporaryError, match="not there"):
        read_unchanged(tmp_path / "nothing", read)


# ------------------------------------------------------------------ changes of clocks

ZONE = "Europe/Berlin"


def local_hours(start: str, n: int) -> pd.DatetimeIndex:
    return pd.date_range(start, periods=n, freq="h", tz=ZONE)


def write_local(workshop, index: pd.DatetimeIndex) -> None:
    naive = index.tz_localize(None)
    table = pd.DataFrame({"ds": naive, "y": np.arange(len(index), dtype=float)})
    workshop.write(table)


def zone_job(workshop, **changes):
    return workshop.job(source__series_column=None, source__time_zone=ZONE, **changes)


@pytest.mark.parametrize("start", ["2024-10-26", "2024-03-30"])
def test_days_of_23_and_25_hours(workshop, start):
    index = local_hours(start, 72)
    write_local(workshop, index)
    history = read_history(zone_job(workshop))
    assert list(history.frame.index) == list(index)
    assert history.as_of == index[-1] + pd.Timedelta("1h")
    assert len(history.notes) == (1 if start.startswith("2024-10") else 0)


def test_times_that_the_clocks_skipped(workshop):
    index = pd.date_range("2024-03-30", periods=72, freq="h")
    table = pd.DataFrame({"ds": index, "y": np.arange(72.0)})
    workshop.write(table)
    with pytest.raises(DataQualityError, match="1 local times do not say which"):
        read_history(zone_job(workshop))
    dropped = read_history(zone_job(workshop, source__daylight_saving="drop"))
    assert len(dropped.frame) == 71
    assert "dropped 1 rows" in dropped.notes[0]


def test_repeated_hours_can_be_refused(workshop):
    write_local(workshop, local_hours("2024-10-26", 72))
    with pytest.raises(DataQualityError, match="2 local times"):
        read_history(zone_job(workshop, source__daylight_saving="error"))


def test_a_zone_that_is_not_there(workshop):
    with pytest.raises(InputError, match="no time zone"):
        read_history(workshop.job(source__time_zone="Europe/Berln"))


def test_zarr_and_netcdf_sources_are_the_same(workshop):
    pytest.importorskip("zarr")
    from sciseq.data.table_files import read_table, write_table
    from sciseq.jobs.zarr_stores import write_zarr

    frame = read_table(
        workshop.folder / "load.csv", time_column="ds", series_column="unique_id"
    )
    write_table(frame, workshop.folder / "load.nc")
    write_zarr(frame, workshop.folder / "load.zarr")
    digests = {
        read_history(workshop.job(source__path=f"load.{kind}")).facts()["digest"]
        for kind in ("csv", "nc", "zarr")
    }
    assert len(digests) == 1
    write_zarr(frame * 2, workshop.folder / "load.zarr")  # replaced whole
    again = read_history(workshop.job(source__path="load.zarr")).facts()["digest"]
    assert again not in digests
    names = [one.name for one in workshop.folder.glob(".load*")]
    assert names == []
