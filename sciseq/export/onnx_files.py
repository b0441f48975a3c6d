"""ONNX files of fitted forecasters, checked against PyTorch before they are written."""

import importlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.utils.validation import check_is_fitted
from torch import nn

from sciseq import __version__
from sciseq.base import SequenceEstimator
from sciseq.data.panel import FloatArray
from sciseq.data.windows import WindowInputs
from sciseq.errors import (
    CapabilityError,
    FileFormatError,
    InputError,
    InputTypeError,
    MissingDependencyError,
    NumericalError,
)
from sciseq.export.modules import ForecastModule, NetworkCore
from sciseq.files import write_atomic
from sciseq.parameters import Real
from sciseq.torch_base import TorchEstimator

__all__ = ["export_onnx"]

_PACKAGES = ("onnx", "onnxruntime", "onnxscript")
_TOLERANCE = 1e-4
_CHECKED_BATCHES = (1, 5)

Arrays = dict[str, npt.NDArray[Any]]


def export_onnx(
    model: Any,
    path: str | os.PathLike[str],
    *,
    quantiles: Sequence[float] = (),
) -> None:
    """Write a fitted forecaster to an ONNX file: data units in, data units out.

    The file computes what ``predict`` computes, scaling included, for any number of
    windows at once, and needs neither sciseq nor PyTorch to run. Before it is written
    it is run with onnxruntime on random windows, one and five at once, and compared
    with the forecaster.

    Parameters
    ----------
    model : forecaster
        A fitted forecaster with a network.
    path : path-like
        File to write, ending in ``.onnx``. One that is there already is replaced when
        the new one is complete.
    quantiles : sequence of float, default=()
        Levels of the quantiles to forecast too, as in ``predict_quantiles``; they
        come in ascending order.

    Raises
    ------
    NotFittedError
        Before fit.
    CapabilityError
        When the forecaster has no network, scales each series by itself, has a network
        that the exporter cannot write, or nothing to calibrate quantiles on.
    MissingDependencyError
        When onnx, onnxruntime or onnxscript is not installed.
    NumericalError
        When the file and the forecaster differ by more than 1e-4, relative to the
        largest scaled forecast. Nothing is written.
    FileFormatError
        For another suffix.

    Notes
    -----
    Inputs of the file: ``x`` (batch, lookback, n_columns), float64, all columns of the
    training data in their order; ``marks`` (batch, lookback, n_marks), float32, the
    calendar features of these rows, where the model uses them; ``known`` (batch,
    horizon, n_known), float64, future covariates and then calendar features of the
    rows to forecast, where the model uses them. Outputs: ``forecast`` (batch, horizon,
    n_targets), float64, and ``quantiles`` (batch, horizon, n_targets, n_quantiles).
    Names of columns, targets and calendar features stand in the metadata of the file.

    NaN marks a missing value for a model with ``missing="mask"``. With any other model
    NaN in ``x`` gives NaN, never a forecast.

    The network computes in float32, whatever the ``precision`` of the model.

    Examples
    --------
    >>> from sciseq import NaiveForecaster
    >>> model = NaiveForecaster(horizon=2).fit(np.arange(9.0).reshape(-1, 1))
    >>> export_onnx(model, "last-value.onnx")
    Traceback (most recent call last):
        ...
    sciseq.errors.CapabilityError: NaiveForecaster has no network to export ...
    """
    if Path(path).suffix.lower() != ".onnx":
        raise FileFormatError(
            f"{Path(path).name!r} must end in '.onnx'",
            where=str(path),
            hint="The suffix tells the format.",
        )
    _check_model(model)
    check_is_fitted(model)
    _check_settings(model, quantiles)
    _check_packages()
    quantiles = sorted(float(level) for level in quantiles)
    module = ForecastModule(model, _core_of(model), quantiles).eval()
    data = _onnx_bytes(module, model, quantiles)
    _compare(data, model, module)
    write_atomic(path, data)


# -------------------------------------------------------------------------- what goes


def _core_of(model: Any) -> nn.Module:
    """Make the module between scaled windows and scaled forecasts."""
    if hasattr(model, "_make_export_core"):
        # Methods without a network may bring a module of their own.
        core: nn.Module = model._make_export_core()
        return core
    return NetworkCore(model)


def _check_model(model: Any) -> None:
    if isinstance(model, SequenceEstimator) and (
        hasattr(model, "_make_export_core") or isinstance(model, TorchEstimator)
    ):
        return
    if not hasattr(model, "predict"):
        raise InputTypeError(
            f"a {type(model).__name__} was given, must be a fitted forecaster",
            where="model",
        )
    raise CapabilityError(
        f"{type(model).__name__} has no network to export",
        where="export_onnx",
        hint="Of a pipeline export the last step, which forecasts the transformed "
        "values; other methods are saved with model.save(path).",
    )


def _check_settings(model: Any, quantiles: Sequence[float]) -> None:
    if model.series_scaler_ is not None:
        raise CapabilityError(
            "scaler='series' scales each series by itself, and a window alone does not "
            "tell which series it is from",
            where=type(model).__name__,
            hint="Fit with scaler='standard' or scaler=None.",
        )
    is_level = Real(0.0, 1.0, open_low=True, open_high=True).allows
    if not all(is_level(level) for level in quantiles):
        raise InputError(
            f"quantiles={quantiles!r} are not allowed: must lie between 0 and 1",
            where="quantiles",
            hint="Give levels such as [0.1, 0.5, 0.9].",
        )
    if len(quantiles) and model.calibration_residuals_ is None:
        raise CapabilityError(
            "nothing was held out in fit, so there are no errors to calibrate on",
            where="quantiles",
            hint="Fit with validation_data= or a larger validation_fraction.",
        )


def _check_packages() -> None:
    missing = []
    for name in _PACKAGES:
        try:
            importlib.import_module(name)
        except ImportError:
            missing.append(name)
    if missing:
        raise MissingDependencyError(
            f"export to ONNX needs {', '.join(missing)}",
            where="export_onnx",
            hint="Install the extra: pip install 'sciseq[onnx]'.",
        )


def _labels(model: Any, positions: Any) -> list[Any]:
    columns = model.columns_ or range(model.n_features_in_)
    return [columns[int(one)] for one in positions]


def _metadata(model: Any, quantiles: Sequence[float]) -> dict[str, str]:
    """Return what a reader of the file needs to know, as JSON texts by name."""
    parts = {
        "sciseq_version": __version__,
        "method": type(model).__name__,
        "lookback": model._context_length,
        "horizon": int(model.horizon),
        "columns": _labels(model, range(model.n_features_in_)),
        "targets": _labels(model, model.target_positions_),
        "static_covariates": _labels(model, model.static_positions_),
        "marks": list(model.calendar_),
        "known": _labels(model, model.future_positions_) + list(model.future_calendar_),
        "quantiles": [float(level) for level in quantiles],
        "missing": model.missing,
        "step": None if model.step_ is None else str(model.step_),
    }
    return {name: json.dumps(value, default=str) for name, value in parts.items()}


# ------------------------------------------------------------------------- the graph


def _onnx_bytes(
    module: ForecastModule, model: Any, quantiles: Sequence[float]
) -> bytes:
    import onnx_ir
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass

    from sciseq.export.scan import onnx_selective_scan

    inputs = {
        name: torch.from_numpy(values)
        for name, values in _random_windows(model, 2, seed=0).items()
    }
    batch = torch.export.Dim("batch")
    sizes = {name: {0: batch} for name in inputs}
    try:
        # In strict mode sizes that Python code looks at stay symbolic.
        traced = torch.export.export(
            module,
            (),
            inputs,
            dynamic_shapes=sizes,
            strict=True,
        )
        program = torch.onnx.export(
            traced,
            dynamo=True,
            input_names=list(inputs),
            output_names=["forecast", "quantiles"][: 1 + bool(len(quantiles))],
            custom_translation_table={
                torch.ops.sciseq.selective_scan.default: onnx_selective_scan
            },
            # What is given here names the axis; once is enough.
            dynamic_shapes={**dict.fromkeys(inputs), "x": {0: batch}},
            verbose=False,
        )
    except Exception as error:
        # The exporter has no common class of errors.
        raise CapabilityError(
            f"the network of {type(model).__name__} cannot be written as ONNX: "
            f"{_first_cause(error)}",
            where="export_onnx",
        ) from error
    assert program is not None
    graph = program.model
    # The exporter notes files and lines of this machine at every node.
    ClearMetadataAndDocStringPass()(graph)
    graph.producer_name, graph.producer_version = "sciseq", __version__
    graph.metadata_props.clear()
    graph.metadata_props.update(_metadata(model, quantiles))
    data: bytes = onnx_ir.to_proto(graph).SerializeToString()
    return data


def _first_cause(error: BaseException) -> str:
    """First line of the error that others were raised from."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = str(error).strip() or repr(error)
    return f"{type(error).__name__}: {text.splitlines()[0]}"


# ------------------------------------------------------------------------- the check


def _random_windows(model: Any, n_windows: int, *, seed: int) -> Arrays:
    """Draw inputs of the file around the training data."""
    generator = np.random.default_rng(seed)
    L, H, C = model._context_length, int(model.horizon), model.n_features_in_
    mean, scale = model.scaler_.mean, model.scaler_.scale
    x = mean + scale * generator.normal(size=(n_windows, L, C))
    # Static covariates stay the same from row to row.
    x[..., model.static_positions_] = x[:, :1, model.static_positions_]
    if model.missing == "mask":
        gaps = generator.random(x.shape) < 0.1
        gaps[..., model.static_positions_] = False
        x[gaps] = np.nan
    inputs: Arrays = {"x": x}
    if model.calendar_:
        shape = (n_windows, L, len(model.calendar_))
        inputs["marks"] = generator.uniform(-0.5, 0.5, shape).astype(np.float32)
    if model._n_known:
        known = model.future_positions_
        ahead = mean[known] + scale[known] * generator.normal(
            size=(n_windows, H, len(known))
        )
        shape = (n_windows, H, len(model.future_calendar_))
        marks = generator.uniform(-0.5, 0.5, shape)
        inputs["known"] = np.concatenate([ahead, marks], axis=2)
    return inputs


def _expected(model: Any, inputs: Arrays) -> FloatArray:
    """Scaled forecasts (n, H, T) of the forecaster itself, from inputs of the file."""
    scaler, n_ahead = model.scaler_, len(model.future_positions_)
    known = inputs.get("known")
    if known is not None:
        ahead = scaler.select(model.future_positions_.tolist())
        known = np.concatenate(
            [ahead.transform(known[..., :n_ahead]), known[..., n_ahead:]], axis=2
        )
    windows = WindowInputs(
        scaler.transform(inputs["x"]),
        inputs.get("marks"),
        known,
        np.zeros(len(inputs["x"]), dtype=np.int64),
    )
    forecast: FloatArray = model._forecast(windows)
    return forecast


def _compare(data: bytes, model: Any, module: ForecastModule) -> None:
    """Run the file beside the module it was made from, and beside the forecaster."""
    import onnxruntime

    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    scaler = model._target_scaler()
    # Under autocast a forecaster is nowhere near as exact as its file.
    is_exact = getattr(model, "precision", None) != "bfloat16"
    own_tolerance = _TOLERANCE if is_exact else 0.1
    for n_windows in _CHECKED_BATCHES:
        inputs = _random_windows(model, n_windows, seed=n_windows)
        outputs = session.run(None, inputs)
        with torch.inference_mode():
            tensors = {name: torch.from_numpy(one) for name, one in inputs.items()}
            computed = [one.numpy() for one in module(**tensors)]
        own = model._clip(scaler.inverse_transform(_expected(model, inputs)))
        checks = [(outputs[0], own, own_tolerance)]
        checks += [
            (np.moveaxis(one, 2, -1), np.moveaxis(other, 2, -1), _TOLERANCE)
            for one, other in zip(outputs, computed, strict=True)
        ]
        for one, other, tolerance in checks:
            difference = _relative_difference(one, other, scaler.mean, scaler.scale)
            if not difference <= tolerance:
                raise NumericalError(
                    f"the file gives other forecasts than the model, by "
                    f"{difference:.2g} of the largest, {tolerance:g} is allowed",
                    where=f"export_onnx, {n_windows} random windows",
                    hint="Nothing was written. Please report the model's parameters "
                    "and the versions of torch and onnxruntime.",
                )


def _relative_difference(
    one: FloatArray, other: FloatArray, mean: FloatArray, scale: FloatArray
) -> float:
    """Largest difference over the largest value, both scaled; targets are last."""
    largest = np.max(np.abs((other - mean) / scale))
    return float(np.max(np.abs((one - other) / scale)) / max(largest, 1e-30))
