"""Data sets: the registry, where files are looked for, and what is returned."""

import gzip
import io
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sciseq.data import datasets, describe_dataset, list_datasets, load_dataset
from sciseq.data.dataset_readers import read_files
from sciseq.data.event_tables import read_events
from sciseq.data.protocol import SplitRule
from sciseq.data.sequence_files import read_sequences
from sciseq.errors import FileFormatError, InputError

ENTRIES = {name: describe_dataset(name) for name in list_datasets()["name"]}
KINDS = {name: entry.get("kind", "series") for name, entry in ENTRIES.items()}
EMBEDDED = sorted(name for name, entry in ENTRIES.items() if "embedded" in entry)
WITH_FILES = sorted(name for name, entry in ENTRIES.items() if "files" in entry)
OF_SERIES = [name for name in WITH_FILES if KINDS[name] == "series"]
OF_ROWS = [name for name in WITH_FILES if KINDS[name] != "series"]

AIRLINE = b"Date,Passengers\n1949-01,112\n1949-02,118\n1949-03,132\n"


@pytest.fixture
def empty_places(tmp_path, monkeypatch):
    """No data folder and an empty cache."""
    monkeypatch.delenv("SCISEQ_DATA", raising=False)
    monkeypatch.setattr("pooch.os_cache", lambda name: tmp_path / "cache" / name)
    return tmp_path


def put_airline(folder, content=AIRLINE):
    path = folder / "series" / "airline.csv"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    return path


# ------------------------------------------------------------------------ registry


def test_registry_entries_are_complete():
    common = {"name", "title", "reader", "sampling", "shape", "licence", "source"}
    optional = {"files", "embedded", "time_column", "time_format", "time_parts"}
    optional |= {"time_start", "frequency", "drop", "rename", "value_name", "note"}
    optional |= {"n_series", "units", "target", "split"}
    rows = {"kind", "columns", "header", "separator"}
    for name, entry in ENTRIES.items():
        required = common | ({"time"} if KINDS[name] == "series" else {"kind"})
        optional = optional | rows if KINDS[name] != "series" else optional - rows
        assert KINDS[name] in {"series", "sequences", "events"}
        assert required <= set(entry) <= required | optional, name
        assert ("files" in entry) != ("embedded" in entry), name
        for file in entry.get("files", ()):
            assert re.fullmatch("[0-9a-f]{64}", file["sha256"]), name
            assert not Path(file["path"]).is_absolute(), name
        if "split" in entry:
            SplitRule(**entry["split"])


def test_registry_names_the_promised_sets():
    promised = (
        "ETTh1 ETTh2 ETTm1 exchange_rate weather m4_hourly m4_weekly airline lynx"
    )
    promised += " co2_mauna_loa_weekly sunspots_yearly us_macro_quarterly soi_long oni"
    promised += " elnino_monthly beijing_pm25 ecl_first1000h metr_la_week_speed"
    assert set(promised.split()) <= set(OF_SERIES)
    assert len(OF_ROWS) == 12
    assert sum(name.startswith("monash_") for name in WITH_FILES) == 11
    assert EMBEDDED == sorted(
        "macrodata sunspots co2 elnino nile elec_equip danish_data interest_inflation"
        "".split()
    )


def test_description_is_a_copy():
    describe_dataset("ETTh1")["split"]["train"] = 1
    assert describe_dataset("ETTh1")["split"]["train"] == 8640


@pytest.mark.parametrize("place", ["sciseq/_datasets", "datasets"])
def test_registry_is_found_in_a_wheel_and_in_a_checkout(tmp_path, monkeypatch, place):
    folder = tmp_path / place
    folder.mkdir(parents=True)
    (folder / "registry.toml").write_text('[toy]\ntitle = "T"\n', encoding="utf-8")
    module = tmp_path / "sciseq" / "data" / "datasets.py"
    monkeypatch.setattr(datasets, "__file__", str(module))
    assert datasets._registry.__wrapped__() == {"toy": {"title": "T"}}


def test_missing_registry_says_where_it_should_be(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "__file__", str(tmp_path / "a" / "b" / "c.py"))
    with pytest.raises(FileFormatError, match="_datasets"):
        datasets._registry.__wrapped__()


def test_importing_the_loader_imports_no_pandas():
    code = "import sys, sciseq.data.datasets; sys.exit('pandas' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# ------------------------------------------------------------------------ places


def test_availability_follows_the_files(empty_places):
    before = list_datasets(data_dir=empty_places).set_index("name")["available"]
    assert not before[WITH_FILES].any()
    assert before[EMBEDDED].all()
    put_airline(empty_places)
    after = list_datasets(data_dir=empty_places).set_index("name")["available"]
    assert after.index[after != before].tolist() == ["airline"]


def test_places_are_searched_in_order(empty_places, monkeypatch):
    argument, variable = empty_places / "argument", empty_places / "variable"
    cache = empty_places / "cache" / "sciseq"
    monkeypatch.setenv("SCISEQ_DATA", str(variable))
    for value, folder in ((3, cache), (2, variable), (1, argument)):
        put_airline(folder, b"Date,Passengers\n1949-01,%d\n" % value)
        frame = load_dataset("airline", data_dir=argument, verify=False)
        assert frame["Passengers"].tolist() == [value]


def test_missing_file_lists_places_and_source(empty_places, monkeypatch):
    monkeypatch.setenv("SCISEQ_DATA", str(empty_places / "variable"))
    with pytest.raises(InputError) as caught:
        load_dataset("ETTh1", data_dir=empty_places / "argument")
    message = str(caught.value)
    for folder in ("argument", "variable", "cache/sciseq"):
        assert str(empty_places / folder / "series" / "ETTh1.csv.gz") in message
    assert "https://github.com/zhouhaoyi/ETDataset" in message


@pytest.mark.parametrize("function", [load_dataset, describe_dataset])
def test_unknown_name_suggests_the_nearest(function):
    with pytest.raises(InputError, match=r"'ETTh11'.*Did you mean 'ETTh1'\?"):
        function("ETTh11")
    with pytest.raises(InputError, match="list_datasets"):
        function(None)


# ------------------------------------------------------------------------ files


def test_changed_file_is_refused_with_both_hashes(empty_places):
    path = put_airline(empty_places)
    with pytest.raises(FileFormatError) as caught:
        load_dataset("airline", data_dir=empty_places)
    message = str(caught.value)
    assert str(path) in message
    assert ENTRIES["airline"]["files"][0]["sha256"] in message
    assert datasets.sha256_of(AIRLINE) in message


def test_changed_file_loads_on_request(empty_places):
    path = put_airline(empty_places)
    frame = load_dataset("airline", data_dir=empty_places, verify=False)
    expected = pd.DataFrame(
        {"Passengers": [112.0, 118.0, 132.0]},
        index=pd.date_range("1949-01", periods=3, freq="MS", name="Date"),
    )
    pd.testing.assert_frame_equal(frame, expected)
    assert frame.attrs["name"] == "airline"
    assert path.read_bytes() == AIRLINE


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"When,Passengers\n1949-01,1\n",
        b"Date,Passengers\n1949-01,many\n",
        b"Date,Passengers\n1949-13,1\n",
        b"Date,Passengers\n1949-01,1\n1949-03,2\n",
        b"\x1f\x8b\x08\x00broken",
        gzip.compress(AIRLINE, mtime=0)[:-9],
        b"\xff\xfe\x00Date",
        bytes(range(256)),
    ],
)
def test_unreadable_file_is_our_error(empty_places, content):
    put_airline(empty_places, content)
    with pytest.raises(FileFormatError, match="airline"):
        load_dataset("airline", data_dir=empty_places, verify=False)


@pytest.mark.parametrize(
    "name",
    [
        "m4_hourly",
        "monash_hospital",
        "beijing_multisite_air",
        "elnino_monthly",
        "dna_ecoli_promoters",
        "ml_small_ratings",
        "stackoverflow_badges",
    ],
)
@pytest.mark.parametrize("content", [b"", b"a,b\n1,x\n", b"PK\x03\x04", b"\x93NUMPY"])
def test_other_layouts_refuse_foreign_bytes(empty_places, name, content):
    for file in ENTRIES[name]["files"]:
        path = empty_places / file["path"]
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    with pytest.raises(FileFormatError, match=name):
        load_dataset(name, data_dir=empty_places, verify=False)


# ------------------------------------------------------------------------ readers


def test_table_from_quarters_and_renamed_columns():
    entry = {"reader": "table", "time": "time", "frequency": "QS", "drop": ["text"]}
    entry |= {"time_parts": {"year": "y", "quarter": "q"}, "rename": {"0": "value"}}
    content = b"y,q,0,text\n1999,4,1,a\n2000,1,NA,b\n,,,\n"
    frame = read_files([content], entry)
    index = pd.DatetimeIndex(["1999-10-01", "2000-01-01"], freq="QS", name="time")
    expected = pd.DataFrame({"value": [1.0, np.nan]}, index=index)
    pd.testing.assert_frame_equal(frame, expected, check_index_type=False)


def test_months_of_a_year_follow_each_other():
    months = ",".join(f"m{number}" for number in range(12))
    rows = [
        f"{year},{','.join(str(12 * k + j) for j in range(12))}"
        for k, year in enumerate((1950, 1951))
    ]
    entry = {"reader": "months", "time": "time", "frequency": "MS"}
    entry |= {"time_parts": {"year": "YEAR"}, "value_name": "x"}
    frame = read_files(["\n".join([f"YEAR,{months}", *rows]).encode()], entry)
    assert frame["x"].tolist() == list(range(24))
    assert frame.index[13] == pd.Timestamp("1951-02-01")


def test_rows_of_two_files_continue_each_other():
    entry = {"reader": "rows", "time": "time", "frequency": "h", "value_name": "x"}
    entry |= {"time_start": "2000-01-01"}
    train = b'"V1","V2","V3","V4"\n"B","1","2","3"\n"A","7",,\n'
    test = b'"V1","V2"\n"A","8"\n"B","4"\n'
    frame = read_files([train, test], entry)
    assert frame.index.names == ["series", "time"]
    assert frame.index.get_level_values(0).unique().tolist() == ["B", "A"]
    assert frame.loc["B", "x"].tolist() == [1, 2, 3, 4]
    assert frame.loc["A", "x"].tolist() == [7, 8]
    assert frame.loc["A"].index[-1] == pd.Timestamp("2000-01-01 01:00")


TSF = (
    "# caf\u00e9 \u0085 note\n@relation toy\n@attribute series_name string\n"
    "@attribute kind string\n@attribute start_timestamp date\n@missing true\n@data\n"
)


def test_tsf_panel_with_unequal_series():
    entry = {"reader": "tsf", "time": "time", "frequency": "7D", "value_name": "x"}
    body = "T1:a b:2015-01-01 00-00-00:1,?,3\nT2:c:2016-02-03 00-00-00:4\n"
    frame = read_files([gzip.compress((TSF + body).encode("latin-1"))], entry)
    np.testing.assert_array_equal(frame["x"], [1, np.nan, 3, 4])
    assert frame.index[2] == ("T1", pd.Timestamp("2015-01-15"))
    assert frame.index[3] == ("T2", pd.Timestamp("2016-02-03"))


def test_tsf_of_one_series_is_a_table():
    entry = {"reader": "tsf", "time": "time", "frequency": "D", "value_name": "flow"}
    content = (TSF + "T1:a:2015-01-01 00-00-00:1,2\n").encode("latin-1")
    frame = read_files([content], entry)
    assert frame.index.freqstr == "D"
    assert frame["flow"].tolist() == [1.0, 2.0]


def test_start_between_two_steps_is_refused_not_moved():
    entry = {"reader": "tsf", "time": "time", "frequency": "MS", "value_name": "x"}
    content = (TSF + "T1:a:2015-01-02 00-00-00:1,2\n").encode("latin-1")
    with pytest.raises(ValueError, match="2015-01-02"):
        read_files([content], entry)


def test_npz_rows_run_through_time_within_each_station():
    values = np.arange(2 * 3 * 4, dtype=np.float32).reshape(2, 3, 4)
    time = np.array(["2013-03-01T00", "2013-03-01T01"], dtype="datetime64[h]")
    buffer = io.BytesIO()
    labels = {"station": np.array(list("xyz")), "variable": np.array(list("abcd"))}
    np.savez(buffer, values=values, time=time, **labels)
    entry = {"reader": "npz", "time": "time", "frequency": "h"}
    frame = read_files([buffer.getvalue()], entry)
    assert frame.dtypes.unique().tolist() == [np.dtype(np.float64)]
    for t, s, v in np.ndindex(values.shape):
        found = frame.loc[("xyz"[s], pd.Timestamp(time[t])), "abcd"[v]]
        assert found == values[t, s, v]


# ------------------------------------------------------------------------ embedded


@pytest.mark.parametrize("name", EMBEDDED)
def test_embedded_sets_need_no_files(empty_places, name, no_global_side_effects):
    with no_global_side_effects():
        frame = load_dataset(name)
    check_frame(name, frame)


def test_embedded_values():
    macro = load_dataset("macrodata")
    assert macro.loc["1959-04-01", "realgdp"] == 2778.801
    assert macro.index[-1] == pd.Timestamp("2009-07-01")
    assert load_dataset("elnino").loc["1951-02-01", "temperature"] == 25.28
    assert load_dataset("co2")["co2"].isna().sum() == 59
    assert load_dataset("co2").index.freqstr == "W-SAT"
    assert load_dataset("sunspots").index[0] == pd.Timestamp("1700-01-01")
    assert load_dataset("interest_inflation").index[0] == pd.Timestamp("1972-04-01")


def test_loaded_frames_are_independent():
    first = load_dataset("nile")
    first.iloc[:] = 0.0
    first.attrs["name"] = "changed"
    second = load_dataset("nile")
    assert second["volume"].iloc[0] == 1120.0
    assert second.attrs["name"] == "nile"


def check_frame(name, frame):
    entry = ENTRIES[name]
    assert frame.shape == tuple(entry["shape"])
    assert (frame.dtypes == np.float64).all()
    assert not np.isinf(frame.to_numpy()).any()
    assert frame.columns.is_unique
    assert entry.get("target", frame.columns[0]) in frame.columns
    assert frame.attrs["licence"] == entry["licence"]
    if isinstance(entry.get("units"), dict):
        assert set(entry["units"]) <= set(frame.columns)
    if "n_series" in entry:
        assert frame.index.names == ["series", "time"]
        assert frame.index.levshape[0] == entry["n_series"]
        assert frame.index.is_unique
    else:
        assert frame.index.name == entry["time"]
        assert frame.index.is_monotonic_increasing
        assert (frame.index.freq is None) == ("frequency" not in entry)


# ------------------------------------------------------------------------ real files


@pytest.mark.parametrize("name", OF_SERIES)
def test_real_set_is_as_registered(data_dir, name):
    check_frame(name, load_dataset(name, data_dir=data_dir))


@pytest.mark.parametrize("name", OF_ROWS)
def test_real_set_of_rows_is_as_registered(data_dir, name):
    frame, entry = load_dataset(name, data_dir=data_dir), ENTRIES[name]
    assert frame.shape == tuple(entry["shape"])
    needed = {"sequences": {"sequence"}, "events": {"entity", "item"}}[entry["kind"]]
    assert needed <= set(frame.columns)
    assert set(entry.get("units", {})) <= set(frame.columns)
    assert not frame.isna().to_numpy().any()
    assert frame.attrs["licence"] == entry["licence"]


def test_sets_of_rows_agree_with_the_readers_of_files(data_dir):
    folder = data_dir / "sequences"
    promoters = load_dataset("dna_ecoli_promoters", data_dir=data_dir)
    read = read_sequences(folder / "dna_ecoli_prom.fa.gz")
    assert (promoters["id"].tolist(), promoters["sequence"].tolist()) == (
        read.ids,
        read.sequences,
    )
    peptides = load_dataset("peptides_amp_uniprot", data_dir=data_dir)
    read = read_sequences(folder / "peptide_ampvsuniprot.csv", column=0, label_column=1)
    assert peptides["sequence"].tolist() == read.sequences
    assert peptides["label"].astype(str).tolist() == read.labels
    events = read_events(load_dataset("ml_small_ratings", data_dir=data_dir))
    assert (len(events), len(events.items), len(events.vocabulary)) == (
        671,
        100_004,
        9066,
    )


def test_badges_keep_their_entities_and_folds(data_dir):
    frame = load_dataset("stackoverflow_badges", data_dir=data_dir)
    events = read_events(frame)
    with np.load(data_dir / "events" / "stackoverflow_badges.npz") as raw:
        np.testing.assert_array_equal(events.offsets, raw["offsets"])
        np.testing.assert_array_equal(events.times, raw["time"])
        folds = frame.groupby("entity")["fold"]
        np.testing.assert_array_equal(folds.first(), raw["fold"])
    assert (folds.nunique() == 1).all()
    assert len(events.vocabulary) == 22


def test_every_series_file_is_registered_or_left_out_on_purpose(data_dir):
    left_out = {
        "README.md",
        "metr_la_week_adj.csv.gz",
        "england_covid.json.gz",
        "edc3deuttemp2007.csv",
        "epica_dome_c_co2.csv",
        "gisp2_d18o.csv",
        "lr04.csv",
    }
    present = {path.name for path in (data_dir / "series").iterdir()}
    files = [file for name in OF_SERIES for file in ENTRIES[name]["files"]]
    assert present == left_out | {Path(file["path"]).name for file in files}


@pytest.mark.parametrize(
    ("name", "embedded"),
    [
        ("us_macro_quarterly", "macrodata"),
        ("sunspots_yearly", "sunspots"),
        ("co2_mauna_loa_weekly", "co2"),
        ("elnino_monthly", "elnino"),
    ],
)
def test_files_equal_their_embedded_twins(data_dir, name, embedded):
    frame, twin = load_dataset(name, data_dir=data_dir), load_dataset(embedded)
    pd.testing.assert_frame_equal(frame, twin, check_index_type=False)


def test_faults_of_weather_are_left_alone(data_dir):
    frame = load_dataset("weather", data_dir=data_dir)
    assert (frame == -9999).to_numpy().sum() == 81
    assert frame.index[frame.index.duplicated()].tolist() == [
        pd.Timestamp("2020-05-12 06:00")
    ]
    assert frame.index.to_series().diff().max() == pd.Timedelta(minutes=100)


def test_gefcom_times_agree_with_the_stamps_of_the_file(data_dir):
    frame = load_dataset("gefcom2014_load", data_dir=data_dir)
    raw = pd.read_csv(data_dir / "series" / "gefcom2014_load.csv.gz")
    stamps = [f"{t.month}{t.day}{t.year} {t.hour}:00" for t in frame.index]
    assert stamps == raw["TIMESTAMP"].tolist()
    assert frame["LOAD"].iloc[-1] == 154.9
    assert frame.loc[raw["task"].to_numpy() == 1].index[-1] == pd.Timestamp(
        "2010-10-01"
    )


def test_m4_ends_with_the_official_test_values(data_dir):
    frame = load_dataset("m4_hourly", data_dir=data_dir)
    lengths = frame.groupby(level="series").size()
    assert (lengths.min(), lengths.max()) == (748, 1008)
    assert frame.loc["H1", "value"].iloc[0] == 605
    assert frame.loc["H1", "value"].iloc[-48:-45].tolist() == [619, 565, 532]


def test_stations_of_beijing_keep_their_gaps(data_dir):
    frame = load_dataset("beijing_multisite_air", data_dir=data_dir)
    with np.load(data_dir / "series" / "beijing_multisite_air.npz") as raw:
        expected = raw["values"][1000, 3]
    np.testing.assert_array_equal(frame.loc["Dongsi"].iloc[1000], expected)
    assert frame.isna().to_numpy().sum() == 72205
