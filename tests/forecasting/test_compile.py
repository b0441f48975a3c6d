"""``compile=True``: the same forecasts, through torch's compiler."""

import copy
import pickle
import shutil

import numpy as np
import pytest
import torch

import sciseq
from sciseq import ITransformerForecaster, SMambaForecaster
from sciseq.errors import SciSeqWarning
from sciseq.training import compilation
from sciseq.training.compilation import is_compiled

RNG = np.random.default_rng(0)
TABLE = np.sin(np.arange(90)[:, None] * [0.3, 0.5, 0.7]) + RNG.normal(size=(90, 3)) / 3


def make(cls=SMambaForecaster, **changes):
    settings = {"lookback": 8, "horizon": 3, "d_model": 8, "n_layers": 1}
    settings |= {"max_epochs": 2, "random_state": 0, "device": "cpu"}
    return cls(**(settings | changes))


@pytest.fixture(autouse=True)
def _forget_compilations():
    yield
    torch.compiler.reset()


@pytest.mark.slow
@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="C++")
@pytest.mark.parametrize(
    ("cls", "changes"),
    [
        # With dropout there are many graphs: here for one number of windows only.
        (SMambaForecaster, {"validation_fraction": 0.0, "batch_size": 200}),
        (ITransformerForecaster, {"n_heads": 2, "dropout": 0.0}),
    ],
)
def test_a_compiled_fit_forecasts_the_same(cls, changes, tmp_path):
    plain = make(cls, **changes).fit(TABLE)
    compiled = make(cls, compile=True, **changes).fit(TABLE)
    assert is_compiled(compiled.network_)
    forecast = plain.predict()
    np.testing.assert_allclose(compiled.predict(), forecast, rtol=1e-4, atol=1e-5)
    assert is_compiled(compiled.network_)
    state = plain.network_.state_dict()
    assert list(compiled.network_.state_dict()) == list(state)
    compiled.save(tmp_path / "model")
    for other in (
        sciseq.load(tmp_path / "model"),
        pickle.loads(pickle.dumps(compiled)),
    ):
        assert not is_compiled(other.network_)
        assert other.compile
        other.set_params(compile=False)
        np.testing.assert_allclose(other.predict(), forecast, rtol=1e-4, atol=1e-5)


def test_without_a_compiler_a_fit_is_the_plain_one(monkeypatch):
    def fails(graph, examples):
        raise RuntimeError("no compiler here")

    monkeypatch.setattr(compilation, "BACKEND", fails)
    plain = make().fit(TABLE)
    with pytest.warns(SciSeqWarning, match="no compiler here") as caught:
        model = make(compile=True).fit(TABLE)
    assert len(caught) == 1
    np.testing.assert_array_equal(model.predict(), plain.predict())
    with pytest.warns(SciSeqWarning, match="no compiler here"):
        copied = copy.deepcopy(model).predict()
    np.testing.assert_array_equal(copied, plain.predict())
