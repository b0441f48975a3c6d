"""Linear forecasters as modules for the export."""

import numpy as np
import onnxruntime
import pandas as pd
import pytest
import torch

from sciseq import ARNetForecaster, LinearForecaster
from sciseq.errors import CapabilityError
from sciseq.export import export_onnx
from sciseq.export.linear_maps import LinearCore, affine_core
from sciseq.forecasting.linear import EPSILON

L, H = 12, 4
RNG = np.random.default_rng(0)
INDEX = pd.date_range("2026-01-05", periods=160, freq="h", name="time")
FRAME = pd.DataFrame(
    10.0 + RNG.normal(size=(160, 4)).cumsum(axis=0), index=INDEX, columns=list("abcd")
)


def rlinear_core(model: LinearForecaster) -> LinearCore:
    return LinearCore(
        model.coef_,
        model.intercept_,
        model.target_positions_,
        epsilon=EPSILON,
        has_gaps=model.missing == "mask",
    )


def check_is_forecast(core, model, windows: np.ndarray, known=None) -> None:
    from sciseq.data.windows import WindowInputs

    series = np.zeros(len(windows), dtype=np.int64)
    expected = model._forecast(WindowInputs(windows, None, known, series))
    tensors = [
        None if one is None else torch.from_numpy(one) for one in (windows, known)
    ]
    forecast = core(tensors[0], None, tensors[1]).numpy()[..., 0]
    np.testing.assert_allclose(forecast, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("individual", [False, True])
def test_centred_maps(individual: bool) -> None:
    model = LinearForecaster(
        lookback=L, horizon=H, individual=individual, targets=["d", "b"], missing="mask"
    ).fit(FRAME)
    windows = RNG.normal(size=(5, L, 4))
    windows[0, 2:5] = np.nan
    windows[1] = np.nan
    core = rlinear_core(model)
    check_is_forecast(core, model, windows)
    core.epsilon = None
    with pytest.raises(AssertionError):
        check_is_forecast(core, model, windows)


@pytest.mark.parametrize("individual", [False, True])
def test_maps_are_read_off_unit_windows(individual: bool) -> None:
    model = LinearForecaster(
        kind="dlinear", lookback=L, horizon=H, individual=individual, targets=["c", "a"]
    ).fit(FRAME)
    core = affine_core(model)
    np.testing.assert_allclose(
        core.coef.mT, np.broadcast_to(model.coef_, (2, H, L)), atol=1e-12
    )
    check_is_forecast(core, model, RNG.normal(size=(5, L, 4)))
    # A map that is not affine is not what its unit windows say.
    centred = LinearForecaster(lookback=L, horizon=H, targets=["c", "a"]).fit(FRAME)
    with pytest.raises(AssertionError):
        check_is_forecast(affine_core(centred), centred, RNG.normal(size=(5, L, 4)))


@pytest.mark.parametrize("strategy", ["direct", "recursive"])
def test_autoregressions_with_covariates(strategy: str) -> None:
    model = ARNetForecaster(
        lookback=L,
        horizon=H,
        strategy=strategy,
        targets=["a", "b"],
        future_covariates=["d"],
        static_covariates=["s"],
    )
    panel = pd.concat(
        {"north": FRAME.assign(s=1.0), "south": (FRAME * 2).assign(s=3.0)}
    ).drop(columns="c")
    model.fit(panel)
    core = affine_core(model)
    windows = RNG.normal(size=(5, L, 4))
    windows[..., 3] = windows[:, :1, 3]
    known = RNG.normal(size=(5, H, model._n_known))
    check_is_forecast(core, model, windows, known)
    core.static_coef[:] += 0.01
    with pytest.raises(AssertionError):
        check_is_forecast(core, model, windows, known)


def test_filled_gaps_are_no_linear_map() -> None:
    model = ARNetForecaster(lookback=L, horizon=H, missing="mask").fit(FRAME)
    with pytest.raises(CapabilityError, match="ARNetForecaster fills gaps"):
        affine_core(model)


def test_a_linear_map_as_a_file(tmp_path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")

    class Exportable(LinearForecaster):
        def _make_export_core(self) -> LinearCore:
            return rlinear_core(self)

    model = Exportable(lookback=L, horizon=H, targets=["d", "b"]).fit(FRAME + 1e7)
    path = tmp_path / "linear.onnx"
    export_onnx(model, path, quantiles=[0.5, 0.9])
    session = onnxruntime.InferenceSession(path)
    x = (FRAME + 1e7).to_numpy()[None, -L:]
    forecast, quantiles = session.run(None, {"x": x})
    np.testing.assert_allclose(forecast[0], model.predict(), rtol=0, atol=1e-6)
    expected = model.predict_quantiles(quantiles=[0.9])[0.9]
    np.testing.assert_allclose(quantiles[0, ..., 1], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "model",
    [
        LinearForecaster(lookback=6, horizon=3),
        LinearForecaster(kind="dlinear", lookback=6, horizon=3, individual=True),
        ARNetForecaster(lookback=6, horizon=3, centre="mean", alpha=1e-3),
        ARNetForecaster(lookback=6, horizon=3, strategy="recursive", sparsity=0.5),
    ],
    ids=["rlinear", "dlinear", "ar-net", "ar-net-sparse"],
)
def test_linear_methods_are_exported_as_they_are(model, tmp_path):
    rows = np.sin(np.arange(90.0)[:, None] / [2.0, 3.0]) * 40 + 7
    model.fit(rows)
    export_onnx(model, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    (forecast,) = session.run(["forecast"], {"x": rows[None, -6:]})
    np.testing.assert_allclose(forecast[0], model.predict(), rtol=1e-4, atol=1e-3)
    (other,) = session.run(["forecast"], {"x": rows[None, -7:-1]})
    assert abs(other - forecast).max() > 1.0
