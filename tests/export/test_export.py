"""ONNX files: the forecasts of the model, from onnxruntime alone."""

import functools
import json
import sys

import numpy as np
import pandas as pd
import pytest
import torch

import sciseq
from sciseq import NaiveForecaster, SMambaForecaster
from sciseq.data.calendar import calendar_features
from sciseq.errors import (
    CapabilityError,
    FileFormatError,
    InputError,
    InputTypeError,
    MissingDependencyError,
    NotFittedError,
    NumericalError,
)
from sciseq.export import export_onnx
from sciseq.export.modules import ForecastModule, NetworkCore
from sciseq.ops.selective_scan import selective_scan
from sciseq.ops.selective_scan.reference import selective_scan_reference
from sciseq.pipeline import ForecastPipeline

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

L, H = 12, 4
LEVELS = (0.1, 0.5, 0.9)
TINY = {"lookback": L, "horizon": H, "d_model": 8, "max_epochs": 1, "random_state": 0}
ROLES = {
    "targets": ["c", "a"],
    "past_covariates": ["b"],
    "future_covariates": ["d"],
    "static_covariates": ["s"],
}


def table(n_rows: int = 160, offset: float = 1e7) -> pd.DataFrame:
    """Hourly columns far from zero: in float32 they would lose their digits."""
    rng = np.random.default_rng(0)
    index = pd.date_range("2026-01-05", periods=n_rows, freq="h", name="time")
    hour = np.arange(n_rows)[:, None] + 3 * np.arange(4)
    values = np.sin(2 * np.pi * hour / 24) + 0.1 * rng.normal(size=hour.shape)
    frame = pd.DataFrame(values + offset, index=index, columns=list("abcd"))
    return frame.assign(s=2.0)


def run(path, inputs: dict) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, inputs)


def inputs_of(model, frame: pd.DataFrame, ends) -> dict[str, np.ndarray]:
    """Inputs of the file for the windows before some rows of a table."""
    past = [frame.iloc[end - L : end] for end in ends]
    ahead = [frame.iloc[end : end + H] for end in ends]
    inputs = {"x": np.stack([rows.to_numpy() for rows in past])}
    if model.calendar_:
        marks = [calendar_features(rows.index, model.calendar_) for rows in past]
        inputs["marks"] = np.stack(marks)
    if model.future_covariates is not None:
        known = np.stack([rows[model.future_covariates].to_numpy() for rows in ahead])
        marks = [
            calendar_features(rows.index, model.future_calendar_) for rows in ahead
        ]
        inputs["known"] = np.concatenate([known, np.stack(marks)], axis=2)
    return inputs


def forecast_of(model, frame: pd.DataFrame, end: int, ask="predict", **options):
    """What the model forecasts from the rows before ``end``."""
    rows = frame.iloc[:end]
    if model.future_covariates is not None:
        known = frame.iloc[end : end + H].copy()
        known.loc[:, [one for one in frame if one not in ("d", "s")]] = np.nan
        rows = pd.concat([rows, known])
    return getattr(model, ask)(rows, **options)


# ----------------------------------------------------- one plain model, exported once


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A model with calendar marks, its file, and its table."""
    frame = table().drop(columns="s")
    model = SMambaForecaster(n_layers=1, **TINY).fit(frame)
    path = tmp_path_factory.mktemp("export") / "model.onnx"
    export_onnx(model, path, quantiles=LEVELS[::-1])
    return model, path, frame


def check_forecasts(model, frame, ends, outputs) -> None:
    expected = np.stack([forecast_of(model, frame, end) for end in ends])
    # A spread of one around 1e7: nine digits are needed to see a ten-thousandth.
    np.testing.assert_allclose(outputs[0], expected, rtol=0, atol=1e-4)


def test_the_file_forecasts_in_data_units_for_any_number_of_windows(plain) -> None:
    model, path, frame = plain
    for ends in ([100], [60, 90, 120], range(40, 80)):
        outputs = run(path, inputs_of(model, frame, ends))
        check_forecasts(model, frame, ends, outputs)
    # The check sees other windows, marks of other hours, and windows in float32.
    for spoil in (
        lambda inputs: {**inputs, "x": inputs["x"][::-1].copy()},
        lambda inputs: {**inputs, "marks": inputs["marks"][:, ::-1].copy()},
        lambda inputs: {**inputs, "x": inputs["x"].astype("f4").astype("f8")},
    ):
        outputs = run(path, spoil(inputs_of(model, frame, [60, 90])))
        with pytest.raises(AssertionError):
            check_forecasts(model, frame, [60, 90], outputs)


def test_quantiles_are_those_of_predict_quantiles(plain) -> None:
    model, path, frame = plain
    _, quantiles = run(path, inputs_of(model, frame, [100]))
    expected = forecast_of(model, frame, 100, "predict_quantiles", quantiles=LEVELS)
    for place, level in enumerate(LEVELS):
        np.testing.assert_allclose(quantiles[0, ..., place], expected[level], atol=1e-4)


def test_the_file_says_what_it_is(plain) -> None:
    model, path, _ = plain
    session = onnxruntime.InferenceSession(path)
    described = session.get_modelmeta().custom_metadata_map
    values = {name: json.loads(text) for name, text in described.items()}
    assert values == {
        "sciseq_version": sciseq.__version__,
        "method": "SMambaForecaster",
        "lookback": L,
        "horizon": H,
        "columns": ["a", "b", "c", "d"],
        "targets": ["a", "b", "c", "d"],
        "static_covariates": [],
        "marks": list(model.calendar_),
        "known": [],
        "quantiles": list(LEVELS),
        "missing": "error",
        "step": "h",
    }
    sizes = {one.name: one.shape for one in session.get_inputs()}
    n_marks = len(model.calendar_)
    assert sizes == {"x": ["batch", L, 4], "marks": ["batch", L, n_marks]}
    sizes = {one.name: one.shape for one in session.get_outputs()}
    assert sizes == {"forecast": ["batch", H, 4], "quantiles": ["batch", H, 4, 3]}


def test_nothing_of_this_machine_is_in_the_file(plain) -> None:
    _, path, _ = plain
    data = path.read_bytes()
    for place in (sciseq.__path__[0], torch.__path__[0], "site-packages", ".py"):
        assert place.encode() not in data
    onnx.checker.check_model(onnx.load(path), full_check=True)


def test_missing_values_never_become_a_forecast(plain) -> None:
    model, path, frame = plain
    inputs = inputs_of(model, frame, [60, 90])
    inputs["x"][1, 3, 2] = np.nan
    forecast, quantiles = run(path, inputs)
    assert np.isfinite(forecast[0]).all()
    assert np.isnan(forecast[1, :, 2]).all()
    assert np.isnan(quantiles[1, :, 2]).all()


def test_each_scan_is_one_node(plain) -> None:
    _, path, _ = plain
    nodes = [node.op_type for node in onnx.load(path).graph.node]
    # One block in each direction, however many tokens there are.
    assert nodes.count("Scan") == 2
    assert not {node.domain for node in onnx.load(path).graph.node} - {"", "ai.onnx"}


def test_the_model_stays_as_it_was(plain) -> None:
    model, _, frame = plain
    before = forecast_of(model, frame, 100)
    module = ForecastModule(model, NetworkCore(model), LEVELS)
    module.core.network.double()
    pd.testing.assert_frame_equal(forecast_of(model, frame, 100), before)
    assert next(model.network_.parameters()).requires_grad


# ------------------------------------------------------------------- a failing export


@pytest.mark.parametrize(("error", "is_seen"), [(1e-5, False), (1e-3, True)])
def test_a_file_that_differs_is_not_written(
    plain, tmp_path, monkeypatch, error, is_seen
) -> None:
    model, path, _ = plain
    from sciseq.export import onnx_files

    data = path.read_bytes()
    monkeypatch.setattr(onnx_files, "_onnx_bytes", lambda *arguments: data)
    own = onnxruntime.InferenceSession

    class Skewed:
        """A session whose forecasts are wrong by a share of their spread."""

        def __init__(self, *arguments, **options) -> None:
            self.session = own(*arguments, **options)

        def run(self, names, inputs):
            return [one + error for one in self.session.run(names, inputs)]

    monkeypatch.setattr(onnxruntime, "InferenceSession", Skewed)
    target = tmp_path / "model.onnx"
    target.write_text("old")
    if not is_seen:
        export_onnx(model, target, quantiles=LEVELS)
        assert target.read_bytes() == data
        return
    with pytest.raises(NumericalError, match="other forecasts than the model"):
        export_onnx(model, target, quantiles=LEVELS)
    assert target.read_text() == "old"
    assert [one.name for one in tmp_path.iterdir()] == ["model.onnx"]


@pytest.mark.slow
def test_a_network_that_cannot_be_written_is_refused(plain, tmp_path) -> None:
    class Opaque(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def forward(self, x, marks=None, observed=None):
            return x[:, :H] * torch.linalg.eigvals(x @ x.mT).abs().sum()

    _, _, frame = plain
    model = SMambaForecaster(n_layers=1, **TINY).fit(frame)
    model.network_ = Opaque()
    with pytest.raises(CapabilityError, match="SMambaForecaster cannot be written"):
        export_onnx(model, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_exported_is_refused(tmp_path, plain, monkeypatch) -> None:
    model, _, frame = plain
    path = tmp_path / "model.onnx"
    naive = NaiveForecaster(horizon=H).fit(frame)
    with pytest.raises(CapabilityError, match="NaiveForecaster has no network"):
        export_onnx(naive, path)
    with pytest.raises(CapabilityError, match="ForecastPipeline has no network"):
        export_onnx(ForecastPipeline([("model", model)]), path)
    with pytest.raises(InputTypeError, match="a dict was given"):
        export_onnx({}, path)
    with pytest.raises(NotFittedError):
        export_onnx(SMambaForecaster(), path)
    with pytest.raises(FileFormatError, match=r"'model.pt' must end in '.onnx'"):
        export_onnx(model, tmp_path / "model.pt")
    by_series = SMambaForecaster(n_layers=1, scaler="series", **TINY).fit(frame)
    with pytest.raises(CapabilityError, match="scales each series by itself"):
        export_onnx(by_series, path)
    with pytest.raises(InputError, match=r"quantiles=\[1.5\].*between 0 and 1"):
        export_onnx(model, path, quantiles=[1.5])
    whole = SMambaForecaster(n_layers=1, validation_fraction=0.0, **TINY).fit(frame)
    with pytest.raises(CapabilityError, match="nothing was held out"):
        export_onnx(whole, path, quantiles=LEVELS)
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(MissingDependencyError, match=r"onnxscript.*sciseq\[onnx\]"):
        export_onnx(model, path)
    assert not list(tmp_path.iterdir())


# ----------------------------------------------------------------- roles, every method


def check_roles(model, forecast_windows) -> None:
    """Compare with predict where values are missing, clipped, known and static."""
    frame = table(offset=5.0)
    model.set_params(missing="mask", nonnegative=True)
    model.fit(frame)
    gaps = frame.copy()
    gaps.iloc[70:75, 0] = np.nan
    gaps.iloc[80:110, 1] = np.nan  # a column that is missing throughout the window
    gaps.iloc[60:90, 2] -= 100.0  # far below zero
    for ends in ([78], [90, 110]):
        forecast = forecast_windows(inputs_of(model, gaps, ends))
        expected = np.stack([forecast_of(model, gaps, end) for end in ends])
        np.testing.assert_allclose(forecast, expected, rtol=1e-4, atol=1e-4)
        assert (forecast >= 0).all()


def test_modules_know_roles_and_gaps() -> None:
    # Attention mixes tokens strongly, and unscaled values are far from zero: every
    # input counts.
    model = sciseq.ITransformerForecaster(scaler=None, **ROLES, **TINY)

    def forecast_windows(inputs, changes=None):
        module = ForecastModule(model, NetworkCore(model), ())
        for name, positions in (changes or {}).items():
            setattr(module.core, name, torch.tensor(positions))
        tensors = {name: torch.from_numpy(one) for name, one in inputs.items()}
        return module(**tensors)[0].numpy()

    check_roles(model, forecast_windows)
    for changes in ({"targets": [1, 0]}, {"static": [0]}, {"inputs": [0, 1, 2, 2]}):
        with pytest.raises(AssertionError):
            check_roles(model, functools.partial(forecast_windows, changes=changes))


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "GateformerForecaster",
        "ITransformerForecaster",
        "MambaMixerForecaster",
        "SMambaForecaster",
    ],
)
def test_files_know_roles_and_gaps(name: str, tmp_path) -> None:
    model = getattr(sciseq, name)(**ROLES, **TINY)
    path = tmp_path / "model.onnx"

    def forecast_windows(inputs):
        if not path.exists():
            export_onnx(model, path)
        return run(path, inputs)[0]

    check_roles(model, forecast_windows)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float64", "bfloat16"])
def test_quantile_networks_of_any_precision(precision: str, tmp_path) -> None:
    frame = table().drop(columns="s")
    model = sciseq.PatchTSTForecaster(
        loss="quantile", quantiles=LEVELS, precision=precision, **TINY
    ).fit(frame)
    path = tmp_path / "model.onnx"
    export_onnx(model, path, quantiles=LEVELS)
    forecast, quantiles = run(path, inputs_of(model, frame, [100]))
    expected = forecast_of(model, frame, 100, "predict_quantiles", quantiles=LEVELS)
    tolerance = 0.05 if precision == "bfloat16" else 1e-4
    for place, level in enumerate(LEVELS):
        np.testing.assert_allclose(
            quantiles[0, ..., place], expected[level], rtol=0, atol=tolerance
        )
    expected = forecast_of(model, frame, 100)
    np.testing.assert_allclose(forecast[0], expected, rtol=0, atol=tolerance)


# ------------------------------------------------------------------------- the scan


def test_the_loop_in_onnx_is_the_reference() -> None:
    from onnxscript import FLOAT

    from sciseq.export.scan import onnx_selective_scan

    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    tensors = {
        "u": draw(3, 5, 7),
        "dt": draw(3, 5, 7).exp(),
        "A": -draw(5, 2).exp(),
        "B": draw(3, 2, 7),
        "C": draw(3, 2, 7),
        "D": draw(5),
    }
    sizes = [("b", "c", "l"), ("b", "c", "l"), ("c", "n")]
    sizes += [("b", "n", "l"), ("b", "n", "l"), ("c",)]
    model = onnx_selective_scan.to_model_proto(
        input_types=[FLOAT[one] for one in sizes],
        output_types=[FLOAT["b", "c", "l"]],
        ir_version=10,
    )
    session = onnxruntime.InferenceSession(model.SerializeToString())
    (y,) = session.run(None, {name: one.numpy() for name, one in tensors.items()})
    np.testing.assert_allclose(
        y, selective_scan_reference(**tensors), rtol=1e-5, atol=1e-5
    )
    wrong = selective_scan_reference(**{**tensors, "A": tensors["A"] * 1.01})
    assert np.abs(y - wrong.numpy()).max() > 1e-3


def test_exported_programs_hold_one_operator(monkeypatch) -> None:
    class Scan(torch.nn.Module):
        def forward(self, u, dt, A, B, C):
            return selective_scan(u, dt, A, B, C)

    tensors = (
        torch.rand(2, 3, 50),
        torch.rand(2, 3, 50),
        -torch.rand(3, 4),
        torch.rand(2, 4, 50),
        torch.rand(2, 4, 50),
    )
    # The backend that the environment asks for is for computing here.
    monkeypatch.setenv("SCISEQ_SCAN", "no such backend")
    program = torch.export.export(Scan(), tensors)
    calls = [str(node.target) for node in program.graph.nodes]
    assert calls.count("sciseq.selective_scan.default") == 1
    torch.testing.assert_close(
        program.module()(*tensors), selective_scan_reference(*tensors)
    )
