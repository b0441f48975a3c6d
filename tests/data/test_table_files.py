"""Tables in files: what is read, what is refused and how, what comes back."""

import errno
import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import sciseq.files
from sciseq.data.table_files import read_table, table_kind, write_table
from sciseq.errors import (
    FileFormatError,
    InputError,
    SciSeqWarning,
    UnsafeFileError,
)

KINDS = [
    "table.csv",
    "table.tsv",
    "table.csv.gz",
    "table.parquet",
    "table.nc",
]


def table(n_rows: int = 30, **index) -> pd.DataFrame:
    """Values that only an exact text form brings back, over time."""
    values = np.random.default_rng(0).normal(size=(n_rows, 2)) / 3
    options = {"start": "2024-03-30", "freq": "h", "name": "when", **index}
    times = pd.date_range(periods=n_rows, **options)
    return pd.DataFrame(values, index=times, columns=["load", "temperature"])


def assert_same(found: pd.DataFrame, expected: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(found, expected, check_freq=False, check_exact=True)


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


# --- There and back ------------------------------------------------------------------


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize(
    "index",
    [
        {},
        {"freq": "MS"},
        {"tz": "UTC"},
        {"start": "2024-03-30 10:17:03.000250", "freq": "7s"},
    ],
    ids=["hours", "months", "utc", "microseconds"],
)
def test_tables_come_back_equal(tmp_path, name, index) -> None:
    frame = table(**index)
    write_table(frame, tmp_path / name)
    assert_same(read_table(tmp_path / name), frame)


@pytest.mark.parametrize("name", ["table.parquet", "table.nc"])
def test_time_zones_keep_their_name(tmp_path, name) -> None:
    # 2024-03-31: the night in which Berlin skips an hour.
    frame = table(48, tz="Europe/Berlin")
    write_table(frame, tmp_path / name)
    found = read_table(tmp_path / name)
    assert_same(found, frame)
    assert str(found.index.tz) == "Europe/Berlin"


def test_csv_keeps_the_offset_from_utc(tmp_path) -> None:
    winter = table(5, start="2024-01-30", tz="Europe/Berlin")
    write_table(winter, tmp_path / "winter.csv")
    found = read_table(tmp_path / "winter.csv")
    assert str(found.index[0]) == "2024-01-30 00:00:00+01:00"
    assert (found.index == winter.index).all()


def test_csv_with_several_offsets_is_read_as_utc_and_says_so(tmp_path) -> None:
    frame = table(48, tz="Europe/Berlin")
    write_table(frame, tmp_path / "night.csv")
    with pytest.warns(SciSeqWarning, match="'when' mixes offsets from UTC"):
        found = read_table(tmp_path / "night.csv")
    assert str(found.index.tz) == "UTC"
    assert (found.index == frame.index).all()


@pytest.mark.parametrize("name", KINDS[:4])
def test_unnamed_labels_and_row_numbers_come_back(tmp_path, name) -> None:
    frame = table(name=None)
    write_table(frame, tmp_path / name)
    assert_same(read_table(tmp_path / name), frame)
    numbered = frame.reset_index(drop=True)
    numbered.index = pd.RangeIndex(7, 37)
    write_table(numbered, tmp_path / name)
    found = read_table(tmp_path / name)
    pd.testing.assert_frame_equal(found, numbered, check_index_type="equiv")


@pytest.mark.parametrize("name", KINDS)
def test_panels_come_back_equal(tmp_path, name) -> None:
    frame = pd.concat({"north": table(9), "south": table(6)}, names=["site"])
    write_table(frame, tmp_path / name)
    found = read_table(tmp_path / name, series_column="site")
    assert found.index.names == ["site", "when"]
    assert_same(found, frame)


def test_gaps_inside_a_series_stay_when_netcdf_padding_goes(tmp_path) -> None:
    frame = pd.concat({"a": table(9), "b": table(6)}, names=["site"])
    frame.loc[("b", frame.index[2][1]), :] = np.nan
    write_table(frame, tmp_path / "panel.nc")
    assert_same(read_table(tmp_path / "panel.nc", series_column="site"), frame)


def test_units_and_version_3(tmp_path) -> None:
    frame = table()
    frame.attrs["units"] = {"load": "MW"}
    write_table(frame, tmp_path / "new.nc")
    assert read_table(tmp_path / "new.nc").attrs == {"units": {"load": "MW"}}
    with xr.open_dataset(tmp_path / "new.nc", engine="h5netcdf") as data:
        assert data["load"].attrs["units"] == "MW"


def test_the_same_table_gives_the_same_bytes(tmp_path) -> None:
    for name in ("a.csv.gz", "b.csv.gz"):
        write_table(table(), tmp_path / name)
    one, other = ((tmp_path / name).read_bytes() for name in ("a.csv.gz", "b.csv.gz"))
    assert one == other
    assert gzip.decompress(one).startswith(b"when,load,temperature\n2024-03-30")


def test_periods_are_written_as_their_start(tmp_path) -> None:
    frame = table(4, freq="MS")
    frame.index = frame.index.to_period("M")
    write_table(frame, tmp_path / "p.csv")
    found = read_table(tmp_path / "p.csv")
    assert found.index.equals(frame.index.to_timestamp())
    write_table(frame, tmp_path / "p.parquet")
    assert_same(read_table(tmp_path / "p.parquet"), frame)


# --- Writing whole or not at all -----------------------------------------------------


@pytest.mark.parametrize("name", KINDS)
def test_a_failing_disk_leaves_the_old_file(tmp_path, name, monkeypatch) -> None:
    write_table(table(), tmp_path / name)
    before = (tmp_path / name).read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sciseq.files.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_table(table() * 2, tmp_path / name)
    assert [file.name for file in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_bytes() == before


def test_writing_refuses_unknown_suffixes(tmp_path) -> None:
    with pytest.raises(FileFormatError, match=r"'.xlsx', tables end in .csv, .tsv"):
        write_table(table(), tmp_path / "table.xlsx")
    assert table_kind("a.CSV") == "CSV"
    with pytest.raises(FileFormatError, match="has no suffix"):
        table_kind("forecast")


@pytest.mark.parametrize("name", ["a/b", "when", ""])
def test_names_that_netcdf_cannot_hold(tmp_path, name) -> None:
    frame = table().rename(columns={"load": name})
    with pytest.raises(InputError, match="cannot be a NetCDF variable"):
        write_table(frame, tmp_path / "table.nc")
    assert not list(tmp_path.iterdir())


# --- Finding the time ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("2024-01-31", "2024-02-01", "2024-02-01"),
        ("2024-01", "2024-02", "2024-02-01"),
        ("2024-01-31T23:00:00Z", "2024-02-01T00:00:00Z", "2024-02-01T00:00Z"),
        ("2024/1/31", "2024/2/1", "2024-02-01"),
        ("31/1/2024", "1/2/2024", "2024-02-01"),
        ("1/31/2024 11:00 PM", "2/1/2024 12:30 AM", "2024-02-01 00:30"),
        ("1/2/2024 10:00", "1/13/2024 11:00", "2024-01-13 11:00"),
        ("1.2.2024 10:00:05", "2.2.2024 10:00:05", "2024-02-02 10:00:05"),
        ("20240131", "20240201", "2024-02-01"),
    ],
)
def test_forms_of_dates(tmp_path, first, second, expected) -> None:
    file = write(tmp_path / "t.csv", f"x,when\n1,{first}\n2,{second}\n")
    found = read_table(file)
    assert found.index[1] == pd.Timestamp(expected)
    assert found.index.name == "when"
    assert list(found.columns) == ["x"]


def test_days_and_months_that_cannot_be_told_apart_are_refused(tmp_path) -> None:
    file = write(tmp_path / "t.csv", "when,x\n1/1/2024,1\n2/1/2024,2\n3/1/2024,3\n")
    with pytest.raises(InputError, match=r"no row tells whether the day or the month"):
        read_table(file)
    # The first of January is the same day either way round.
    assert read_table(write(file, "when,x\n1/1/2024,1\n")).index[0].month == 1


@pytest.mark.parametrize("usual", ["Time", "date", "datetime", "timestamp", "ds"])
def test_usual_names_decide_between_columns_of_dates(tmp_path, usual) -> None:
    text = f"made,{usual},x\n2020-01-01,2024-01-01,1\n2020-01-02,2024-01-02,2\n"
    file = write(tmp_path / "t.csv", text)
    with pytest.raises(InputError, match=r"1 of 2 columns hold no numbers: 'made'"):
        read_table(file)
    assert read_table(file, drop=["made"]).index.name == usual


def test_several_columns_of_dates_are_listed(tmp_path) -> None:
    file = write(tmp_path / "t.csv", "from,to,x\n2020-01-01,2020-01-02,1\n")
    with pytest.raises(InputError, match=r"2 columns hold dates: 'from', 'to'"):
        read_table(file)
    assert read_table(file, time_column="to", drop=["from"]).index[0].day == 2


def test_named_time_columns(tmp_path) -> None:
    file = write(tmp_path / "t.csv", "year,x\n1990,1\n1991,2\n")
    assert read_table(file, time_column="year").index.tolist() == [1990, 1991]
    with pytest.raises(InputError, match=r"'years' is missing.*Did you mean 'year'"):
        read_table(file, time_column="years")
    file = write(tmp_path / "u.csv", "when,x\n2024-01-01,1\nsoon,2\n2024-01-03,3\n")
    with pytest.raises(InputError, match=r"1 of 3 values.*not dates, first 'soon'"):
        read_table(file, time_column="when")


def test_a_spoilt_time_column_is_not_taken_for_text(tmp_path) -> None:
    file = write(tmp_path / "t.csv", "time,x\n2024-01-01,1\n2024-01-99,2\n")
    with pytest.raises(InputError, match=r"'2024-01-99' \(at: time column, row 1\)"):
        read_table(file)
    file = write(tmp_path / "t.csv", "time,x\n10:00,1\n11:00,2\n")
    with pytest.raises(InputError, match="2 of 2 values in column 'time' are not"):
        read_table(file)


def test_without_dates_rows_are_numbered(tmp_path) -> None:
    found = read_table(write(tmp_path / "t.csv", "x,y\n1,2\n3,4\n"))
    assert isinstance(found.index, pd.RangeIndex)
    assert found["y"].tolist() == [2, 4]


def test_row_numbers_beside_dates_are_no_variate(tmp_path) -> None:
    frame = table().reset_index()
    frame.to_csv(tmp_path / "t.csv")
    assert_same(read_table(tmp_path / "t.csv"), table())
    frame.to_parquet(tmp_path / "t.parquet")
    assert_same(read_table(tmp_path / "t.parquet"), table())


def test_long_format_only_when_asked(tmp_path) -> None:
    text = "unique_id,ds,y\nb,2024-01-01,1\n007,2024-01-02,3\n007,2024-01-01,2\n"
    file = write(tmp_path / "t.csv", text)
    with pytest.raises(InputError, match=r"'unique_id' \('b' in row 0\).*--series-col"):
        read_table(file)
    found = read_table(file, series_column="unique_id")
    assert found.index.get_level_values(0).tolist() == ["007", "007", "b"]
    assert found["y"].tolist() == [2, 3, 1]
    with pytest.raises(InputError, match=r"'unique' is missing.*'unique_id'"):
        read_table(file, series_column="unique")
    file = write(tmp_path / "u.csv", "id,y\na,1\n")
    with pytest.raises(InputError, match="needs a column with the time of each row"):
        read_table(file, series_column="id")


# --- Text files as people have them --------------------------------------------------


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_separators_are_recognised(tmp_path, separator) -> None:
    rows = [["time", "a b", "c"], ["2024-01-01", "1", "2"], ["2024-01-02", "3", "4"]]
    text = "\r\n".join(separator.join(row) for row in rows)
    found = read_table(write(tmp_path / "t.csv", text))
    assert found["a b"].tolist() == [1, 3]
    assert found["c"].tolist() == [2, 4]


def test_byte_order_mark_spaces_and_trailing_separators(tmp_path) -> None:
    text = "time, x, y,\n2024-01-01, 1, 2,\n2024-01-02, 3, 4,\n"
    found = read_table(write(tmp_path / "t.csv", b"\xef\xbb\xbf" + text.encode()))
    assert found.index.name == "time"
    assert list(found.columns) == ["x", "y"]


def test_a_character_cut_by_the_sample_is_whole_in_the_table(tmp_path) -> None:
    rows = "".join(f"2024-01-01,é{number:06d}é\n" for number in range(20000))
    with pytest.raises(InputError, match=r"'name' \('é000000é' in row 0\)"):
        read_table(write(tmp_path / "t.csv", "time,name\n" + rows))


BAD_FILES = {
    "empty": (b"", FileFormatError, "is empty"),
    "header only": (b"time,x\n", FileFormatError, "holds a header and no rows"),
    "blank": (b"\n \n", FileFormatError, "holds no text"),
    "repeated names": (b"time,x,x\n2024-01-01,1,2\n", InputError, r"\['x'\] appear"),
    "value without name": (b"time,,x\n2024-01-01,1,2\n", InputError, "column 2 of"),
    "no header": (b"2024-01-01,1\n2024-01-02,2\n", InputError, "not the names"),
    "no header, numbers": (b"0.5,1\n0.7,2\n", InputError, "not the names"),
    "only time": (b"time\n2024-01-01\n", InputError, "no column besides the time"),
    "surplus field": (b"time,x\n2024-01-01,1,2\n", FileFormatError, "row 2 .* 3 fie"),
    "decimal commas": (
        b"time;x\n2024-01-01;1,5\n2024-01-02;2,5\n",
        InputError,
        "decimal commas",
    ),
    "text": (b"time,x,y\n2024-01-01,1,2\n2024-01-02,1,lost\n", InputError, "'lost'"),
    "truth values": (b"time,x\n2024-01-01,True\n", InputError, "'x' .'True' in row 0"),
    "latin-1": ("time,x\n2024-01-01,é".encode("latin-1"), FileFormatError, "not UTF-8"),
    "UTF-16": ("time,x\n".encode("utf-16"), FileFormatError, "holds UTF-16 text"),
    "Excel": (b"PK\x03\x04....", FileFormatError, "holds a ZIP archive .Excel"),
    "gzip": (gzip.compress(b"time,x\n"), FileFormatError, r"end in \.csv\.gz"),
    "parquet": (b"PAR1....", FileFormatError, r"holds Parquet.*end in \.parquet"),
    "netcdf 3": (b"CDF\x01....", FileFormatError, r"holds NetCDF.*end in \.nc"),
    "binary": (b"\x00\x01\x02", FileFormatError, "binary data of an unknown kind"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_34_text_files_are_refused(tmp_path, name) -> None:
    content, kind, message = BAD_FILES[name]
    with pytest.raises(kind, match=message):
        read_table(write(tmp_path / "t.csv", content))


def test_bad_34_a_surplus_field_far_below_is_found(tmp_path) -> None:
    rows = ["time,x"] + [f"2024-01-01,{row}" for row in range(300)] + ["2024-01-01,1,2"]
    with pytest.raises(FileFormatError, match="line 302"):
        read_table(write(tmp_path / "t.csv", "\n".join(rows)))


@pytest.mark.parametrize("name", ["t.parquet", "t.nc", "t.csv.gz"])
def test_bad_34_text_under_another_name(tmp_path, name) -> None:
    with pytest.raises(FileFormatError, match=r"holds plain text.*end in \.csv"):
        read_table(write(tmp_path / name, "time,x\n2024-01-01,1\n"))


@pytest.mark.parametrize("name", ["t.parquet", "t.csv.gz"])
def test_bad_34_truncated_files(tmp_path, name) -> None:
    write_table(table(), tmp_path / name)
    content = (tmp_path / name).read_bytes()
    for end in (20, len(content) // 2, len(content) - 1):
        with pytest.raises(FileFormatError, match="damaged or cut off"):
            read_table(write(tmp_path / name, content[:end]))


def test_bad_34_truncated_netcdf(tmp_path) -> None:
    table().to_xarray().to_netcdf(tmp_path / "t.nc", engine="scipy")
    content = (tmp_path / "t.nc").read_bytes()
    for end in range(4, 400, 12):
        with pytest.raises(FileFormatError, match="cannot be read as NetCDF"):
            read_table(write(tmp_path / "t.nc", content[:end]))


def test_bad_33_compressed_bombs_are_refused_unread(tmp_path) -> None:
    bomb = gzip.compress(b"time,x\n" + b"0" * 2**25)
    assert len(bomb) < 2**17
    with pytest.raises(UnsafeFileError, match="more than 200-fold"):
        read_table(write(tmp_path / "t.csv.gz", bomb))


def test_missing_files_and_folders(tmp_path) -> None:
    write_table(table(), tmp_path / "load.csv")
    with pytest.raises(
        InputError, match=r"no file .*loads.csv.*Did you mean 'load.csv'"
    ):
        read_table(tmp_path / "loads.csv")
    with pytest.raises(InputError, match="there is no file"):
        read_table(tmp_path / "nowhere" / "loads.csv")
    with pytest.raises(InputError, match="is a folder"):
        read_table(tmp_path)


def test_columns_to_drop_must_exist(tmp_path) -> None:
    write_table(table(), tmp_path / "t.csv")
    with pytest.raises(InputError, match=r"'loads' to leave out.*Did you mean 'load'"):
        read_table(tmp_path / "t.csv", drop=["loads"])
    found = read_table(tmp_path / "t.csv", drop=["load"])
    assert list(found.columns) == ["temperature"]


# --- NetCDF as it comes --------------------------------------------------------------


def netcdf(path: Path, data: xr.Dataset | xr.DataArray) -> Path:
    data.to_netcdf(path, engine="scipy")  # version 3
    return path


def test_variables_over_time_become_columns(tmp_path) -> None:
    data = table().to_xarray()
    data["load"].attrs["units"] = "MW"
    data["crs"] = 0
    data["area"] = ("site", [1.0, 2.0])
    found = read_table(netcdf(tmp_path / "t.nc", data))
    assert_same(found, table())
    assert found.attrs == {"units": {"load": "MW"}}


def test_a_data_array_becomes_one_column_per_cell(tmp_path) -> None:
    times = pd.date_range("2024-01-01", periods=3, name="time")
    grid = xr.DataArray(
        np.arange(12.0).reshape(3, 2, 2),
        dims=["time", "lat", "lon"],
        coords={"time": times, "lat": [50, 51], "lon": [7, 8]},
        name="t2m",
        attrs={"units": "K"},
    )
    found = read_table(netcdf(tmp_path / "grid.nc", grid))
    assert list(found.columns) == ["50, 7", "50, 8", "51, 7", "51, 8"]
    assert found["51, 7"].tolist() == [2.0, 6.0, 10.0]
    assert found.index.equals(times.as_unit("us"))
    assert set(found.attrs["units"].values()) == {"K"}
    wide = read_table(netcdf(tmp_path / "wide.nc", grid[:, 0]))
    assert list(wide.columns) == ["7", "8"]
    assert wide["8"].tolist() == [1.0, 5.0, 9.0]


def test_a_dimension_of_series(tmp_path) -> None:
    data = pd.concat({"a": table(5), "b": table(5)}, names=["site"]).to_xarray()
    file = netcdf(tmp_path / "t.nc", data)
    assert_same(
        read_table(file, series_column="site"),
        pd.concat({"a": table(5), "b": table(5)}, names=["site"]),
    )
    with pytest.raises(InputError, match=r"'sites' is not a dimension.*'site'"):
        read_table(file, series_column="sites")
    with pytest.raises(InputError, match=r"\['load', 'temperature'\] have dimensions"):
        read_table(file)


def test_netcdf_without_dates(tmp_path) -> None:
    data = xr.Dataset({"x": ("row", [1.0, 2.0])})
    assert read_table(netcdf(tmp_path / "t.nc", data)).index.equals(pd.RangeIndex(2))
    data["y"] = ("cell", [1.0, 2.0])
    file = netcdf(tmp_path / "u.nc", data)
    with pytest.raises(InputError, match="time dimension is not clear"):
        read_table(file)
    assert list(read_table(file, time_column="row").columns) == ["x"]
    with pytest.raises(InputError, match="no variable 'z' to leave out"):
        read_table(file, drop=["z"])
    timeless = data[["y"]].assign_coords(time=[0, 1])
    with pytest.raises(InputError, match=r"no variable depends on 'time'.*\['y'\]"):
        read_table(netcdf(tmp_path / "v.nc", timeless))


def test_trouble_of_the_disk_is_no_damage_of_a_parquet_file(tmp_path, monkeypatch):
    path = tmp_path / "a.parquet"
    pd.DataFrame({"y": range(1000)}).to_parquet(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:100] + bytes(200) + whole[300:])
    with pytest.raises(FileFormatError, match="cannot be read as Parquet"):
        read_table(path)

    def fails(*_, **__):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(pd, "read_parquet", fails)
    with pytest.raises(OSError, match="Input/output"):
        read_table(path)
