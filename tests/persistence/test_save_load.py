"""A saved estimator comes back the same, from a folder and from one file."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import sciseq
from sciseq.errors import CapabilityError, InputError
from sciseq.forecasting.linear import LinearForecaster
from sciseq.forecasting.naive import NaiveForecaster
from sciseq.persistence import load, read_manifest, save
from sciseq.persistence.manifest import parse_manifest, render_manifest

NAMES = ["model", "model.zip", "model.sciseq"]


def contents(path: Path) -> dict[str, bytes]:
    if path.is_file():
        return {path.name: path.read_bytes()}
    return {item.name: item.read_bytes() for item in path.iterdir()}


@pytest.mark.parametrize("name", NAMES)
def test_fitted_estimator_comes_back(tmp_path, fitted, same, name):
    save(fitted(), tmp_path / name)
    result = load(str(tmp_path / name))
    assert same(result, fitted())
    assert not same(result, fitted(scale=1.0 + 1e-15))
    assert (tmp_path / name).is_file() == (name != "model")


@pytest.mark.parametrize("name", NAMES)
def test_the_same_model_gives_the_same_bytes(tmp_path, fitted, name):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    save(fitted(), tmp_path / "a" / name)
    save(fitted(), tmp_path / "b" / name)
    save(load(tmp_path / "a" / name), tmp_path / "b" / name, overwrite=True)
    first = contents(tmp_path / "a" / name)
    assert first == contents(tmp_path / "b" / name)
    save(fitted(2.0), tmp_path / "b" / name, overwrite=True)
    assert first != contents(tmp_path / "b" / name)


def test_not_fitted_estimator_is_a_manifest_alone(tmp_path, toy_class, same):
    save(toy_class(horizon=9), tmp_path / "model")
    assert list(contents(tmp_path / "model")) == ["manifest.json"]
    assert same(load(tmp_path / "model"), toy_class(horizon=9))


def test_estimators_inside_parameters_and_state(tmp_path, toy_class, fitted, same):
    outer = toy_class(inner=[("first", fitted()), ("second", fitted(2.0))])
    outer.best_ = {"model": toy_class(inner=fitted(3.0))}
    outer.weights_ = {"encoder.bias": np.ones(2)}
    save(outer, tmp_path / "model")
    assert same(load(tmp_path / "model"), outer)


@pytest.mark.parametrize(
    "text", ["süd", "\ud800", "\ud83d\ude00", "a\n\0\"'\\", "../x", "__metadata__"]
)
def test_any_text_survives(tmp_path, toy_class, same, text):
    toy = toy_class(horizon={text: text})
    toy.arrays_ = {text: np.arange(3), "b": {text: np.ones(1)}}
    toy.weights_ = {text: np.zeros(2)}
    save(toy, tmp_path / "model")
    assert same(load(tmp_path / "model"), toy)


def test_names_of_arrays_that_would_collide(tmp_path, toy_class, same):
    toy = toy_class()
    toy.a_ = {"b": {"c": np.array(1)}, "b.c": np.array(2), "b.c#2": np.array(3)}
    save(toy, tmp_path / "model")
    assert same(load(tmp_path / "model"), toy)


def test_read_manifest(saved, saved_zip):
    manifest = read_manifest(saved)
    assert manifest == read_manifest(str(saved_zip))
    assert list(manifest) == ["format", "versions", "estimator", "members"]
    assert manifest["format"] == {"name": "sciseq-estimator", "major": 1, "minor": 0}
    assert manifest["versions"]["sciseq"] == sciseq.__version__
    assert manifest["versions"]["pandas"] == pd.__version__
    assert manifest["estimator"]["name"] == "toy"
    assert manifest["estimator"]["parameters"] == {"horizon": 5, "inner": None}
    on_disk = {item.name for item in saved.iterdir()}
    assert on_disk == {"manifest.json", *manifest["members"]}
    for name, member in manifest["members"].items():
        assert (saved / name).stat().st_size == member["bytes"]


def test_manifest_is_plain_json_and_weights_are_plain_safetensors(saved):
    from safetensors.numpy import load_file

    manifest = json.loads((saved / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["estimator"]["name"] == "toy"
    (weights,) = saved.glob("weights-*.safetensors")
    assert set(load_file(weights)) == {"encoder.weight", "encoder.bias", "steps"}


def test_zip_members_are_stored_without_dates(saved_zip):
    with zipfile.ZipFile(saved_zip) as archive:
        assert archive.testzip() is None
        for entry in archive.infolist():
            assert entry.compress_type == zipfile.ZIP_STORED
            assert entry.date_time == (1980, 1, 1, 0, 0, 0)


def test_manifest_text_is_canonical(saved):
    raw = (saved / "manifest.json").read_bytes()
    assert render_manifest(parse_manifest(raw, "x")) == raw


# What may be replaced.


@pytest.mark.parametrize("name", NAMES)
def test_bad_30_existing_model_needs_overwrite(tmp_path, fitted, same, name):
    path = tmp_path / name
    save(fitted(), path)
    before = contents(path)
    with pytest.raises(InputError, match="overwrite=True to replace"):
        save(fitted(2.0), path)
    assert contents(path) == before
    save(fitted(2.0), path, overwrite=True)
    assert same(load(path), fitted(2.0))


@pytest.mark.parametrize("file", ["thesis.txt", "manifest.json"])
def test_bad_30_other_folders_are_never_touched(tmp_path, fitted, file):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / file).write_text('{"name": "a web page"}')
    for overwrite in (False, True):
        with pytest.raises(InputError, match="not a model saved by sciseq") as caught:
            save(fitted(), folder, overwrite=overwrite)
        assert "Give a new or empty folder" in caught.value.hint
    assert contents(folder) == {file: b'{"name": "a web page"}'}


def test_bad_30_other_files_are_never_touched(tmp_path, fitted):
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
        archive.writestr("thesis.txt", "text")
    (tmp_path / "plain").write_text("text")
    (tmp_path / "folder.zip").mkdir()
    before = (tmp_path / "data.zip").read_bytes()
    for name in ("data.zip", "plain", "folder.zip"):
        with pytest.raises(InputError):
            save(fitted(), tmp_path / name, overwrite=True)
    assert (tmp_path / "data.zip").read_bytes() == before
    assert (tmp_path / "plain").read_text() == "text"


def test_other_files_in_a_model_folder_stay(tmp_path, fitted, same):
    save(fitted(), tmp_path / "model")
    notes = tmp_path / "model" / "notes.txt"
    notes.write_text("mine")
    save(fitted(2.0), tmp_path / "model", overwrite=True)
    assert notes.read_text() == "mine"
    assert same(load(tmp_path / "model"), fitted(2.0))
    assert len(contents(tmp_path / "model")) == 4


def test_empty_folder_is_taken(tmp_path, fitted, same):
    save(fitted(), tmp_path)
    assert same(load(tmp_path), fitted())


@pytest.mark.parametrize("name", NAMES)
def test_damaged_model_may_be_replaced(tmp_path, fitted, same, name):
    path = tmp_path / name
    save(fitted(), path)
    broken = path if path.is_file() else path / "manifest.json"
    broken.write_bytes(broken.read_bytes()[:100])
    save(fitted(2.0), path, overwrite=True)
    assert same(load(path), fitted(2.0))


def test_links_given_by_the_caller_are_followed(tmp_path, fitted, same):
    for name in ("model", "model.zip"):
        save(fitted(), tmp_path / name)
        link = tmp_path / f"latest-{name}"
        link.symlink_to(tmp_path / name)
        save(fitted(2.0), link, overwrite=True)
        assert link.is_symlink()
        assert same(load(tmp_path / name), fitted(2.0))
        assert same(load(link), fitted(2.0))


# What cannot be saved.


def test_unregistered_class_is_refused_before_writing(tmp_path, stranger_class):
    with pytest.raises(CapabilityError) as caught:
        save(stranger_class(), tmp_path / "model")
    message = str(caught.value)
    assert "Stranger" in message
    assert "joblib.dump" in message
    assert "at your own risk" in message
    assert not (tmp_path / "model").exists()


def test_class_of_a_registered_name_is_not_enough(tmp_path):
    impostor = type("NaiveForecaster", (NaiveForecaster,), {})
    with pytest.raises(CapabilityError, match="not one of the estimators"):
        save(impostor(), tmp_path / "model")


def test_parameter_that_cannot_be_saved_is_named(tmp_path, toy_class):
    toy = toy_class(inner=toy_class(horizon={"a": len}))
    with pytest.raises(CapabilityError) as caught:
        save(toy, tmp_path / "model")
    assert caught.value.where == "parameters.inner.parameters.horizon.a"
    assert not (tmp_path / "model").exists()


def test_weights_must_be_plain_arrays(tmp_path, toy_class):
    toy = toy_class()
    toy.weights_ = {"a": np.zeros(2, dtype=complex)}
    with pytest.raises(CapabilityError, match="complex128") as caught:
        save(toy, tmp_path / "model")
    assert caught.value.where == "weights.a"


def test_manifest_beyond_the_limit_is_refused(tmp_path, toy_class, monkeypatch):
    from sciseq.persistence import estimators

    monkeypatch.setattr(estimators, "MANIFEST_LIMIT", 1000)
    with pytest.raises(CapabilityError, match="1000 are allowed"):
        save(toy_class(horizon=list(range(1000))), tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_missing_parent_folder(tmp_path, fitted):
    for name in NAMES:
        with pytest.raises(FileNotFoundError):
            save(fitted(), tmp_path / "missing" / name)


def test_saving_and_loading_leave_global_state_alone(
    tmp_path, fitted, no_global_side_effects
):
    with no_global_side_effects():
        save(fitted(), tmp_path / "model")
        load(tmp_path / "model")


# The real estimators.


@pytest.mark.parametrize("name", ["model", "model.zip"])
@pytest.mark.parametrize("data", ["frame", "panel", "array", "xarray", "list"])
@pytest.mark.parametrize("cls", [NaiveForecaster, LinearForecaster])
def test_forecasts_are_equal_after_loading(
    tmp_path, hourly_frame, panel, cls, data, name
):
    table = {
        "frame": hourly_frame,
        "panel": panel,
        "array": hourly_frame.to_numpy(),
        "xarray": hourly_frame.to_xarray().to_array("variate"),
        "list": [hourly_frame, hourly_frame.iloc[20:]],
    }[data]
    if data == "xarray":
        table = table.transpose("time", "variate").assign_attrs(units="K")
    model = cls(lookback=24, horizon=6).fit(table)
    model.save(tmp_path / name)
    loaded = sciseq.load(tmp_path / name)
    assert loaded.get_params() == model.get_params()
    expected, given = model.predict(), loaded.predict()
    if data == "array":
        np.testing.assert_array_equal(given, expected, strict=True)
    elif data == "xarray":
        assert given.identical(expected)
    elif data == "list":
        for one, other in zip(given, expected, strict=True):
            pd.testing.assert_frame_equal(one, other, check_exact=True)
    else:
        pd.testing.assert_frame_equal(given, expected, check_exact=True)
