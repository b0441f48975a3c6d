"""ONNX files: the forecasts of the model, from onnxruntime alone."""

import json
import sys

import numpy as np
import pandas as pd
import pytest
import torch

from sciseq import LinearForecaster, NaiveForecaster, SMambaForecaster
from sciseq.data.calendar import calendar_features
from sciseq.errors import (
    CapabilityError,
    FileFormatError,
    InputTypeError,
    MissingDependencyError,
    NotFittedError,
    NumericalError,
)
from sciseq.export import export_onnx
from sciseq.export.linear_maps import LinearCore, affine_core
from sciseq.forecasting.linear import EPSILON
from sciseq.ops.selective_scan.reference import selective_scan_reference
from sciseq.pipeline import ForecastPipeline

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

L, H = 12, 4
LEVELS = (0.1, 0.5, 0.9)
TINY = {"d_model": 8, "n_layers": 1, "max_epochs": 1, "random_state": 0}


def smamba(**parameters) -> SMambaForecaster:
    return SMambaForecaster(lookback=L, horizon=H, **{**TINY, **parameters})


def far_from_zero(frame: pd.DataFrame) -> pd.DataFrame:
    """Large offsets lose their digits in float32: scaling has to be in float64."""
    return frame + 1e7


def run(path, **inputs) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, inputs)


def marks_of(model, frame: pd.DataFrame) -> np.ndarray:
    return calendar_features(frame.index, model.calendar_)[None]


def windows_of(frame: pd.DataFrame, ends) -> list[pd.DataFrame]:
    return [frame.iloc[end - L : end] for end in ends]


# ----------------------------------------------------- one plain model, exported once


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A model with calendar marks, its file, and its frame."""
    from tests_data import daily_season

    frame = far_from_zero(daily_season(n_rows=160, n_variates=3, seed=0))
    model = smamba().fit(frame)
    path = tmp_path_factory.mktemp("export") / "model.onnx"
    export_onnx(model, path, quantiles=LEVELS)
    return model, path, frame
