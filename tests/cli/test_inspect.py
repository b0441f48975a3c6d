"""``sciseq inspect``: what it says, as text and as JSON, and what it refuses."""

import json
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from sciseq import LinearForecaster, MarkovChain
from sciseq.cli import main
from sciseq.persistence.description import describe


class Result(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def run(capsys):
    """Run the command line in this process, as the console script does."""

    def run(*arguments: object) -> Result:
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main([str(argument) for argument in arguments])
        return Result(int(stopped.value.code or 0), *capsys.readouterr())

    return run


@pytest.fixture(params=["model", "model.zip", "model.sciseq"])
def model(request, tmp_path) -> Path:
    """A fitted model."""
    rows = np.sin(np.arange(80.0)).reshape(-1, 2)
    fitted = LinearForecaster(lookback=6, horizon=3).fit(rows)
    fitted.save(tmp_path / request.param)
    return tmp_path / request.param


def test_text(run, model):
    result = run("inspect", model)
    assert (result.code, result.err) == (0, "")
    lines = result.out.splitlines()
    assert lines[0].startswith("LinearForecaster (fitted): One linear map")
    assert "paper: Zeng et al." in result.out
    for line in ("  horizon = 3", "  lookback = 6", "  n_features_in_ = 2"):
        assert line in lines
    assert lines[-1] == "format: 1.0; all hashes are right"


def test_json_is_what_describe_returns_and_always_the_same(run, model):
    result = run("inspect", model, "--json")
    assert (result.code, result.err) == (0, "")
    assert json.loads(result.out, parse_constant=pytest.fail) == describe(model)
    assert run("inspect", "--json", model) == result


def test_models_before_fit(run, tmp_path):
    MarkovChain(3).save(tmp_path / "model")
    result = run("inspect", tmp_path / "model")
    assert result.code == 0
    assert result.out.startswith("MarkovChain (not fitted): ")
    assert "  order = 3" in result.out.splitlines()
    assert not json.loads(run("inspect", tmp_path / "model", "--json").out)["learned"]


# ------------------------------------------------------------------ what is refused


class Canary:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def saved(folder: Path) -> Path:
    rows = np.sin(np.arange(80.0)).reshape(-1, 2)
    LinearForecaster(lookback=6, horizon=3).fit(rows).save(folder / "model")
    return folder / "model"


def damaged(folder: Path, canary: Canary) -> Path:
    (path,) = saved(folder).glob("state-*")
    path.write_bytes(path.read_bytes()[:-1] + b"\xff")
    return folder / "model"


def cut(folder: Path, canary: Canary) -> Path:
    (path,) = saved(folder).glob("state-*")
    path.write_bytes(path.read_bytes()[:-9])
    return folder / "model"


def edited(folder: Path, canary: Canary) -> Path:
    path = saved(folder) / "manifest.json"
    path.write_bytes(path.read_bytes().replace(b'"horizon": 3', b'"horizon": 4'))
    return folder / "model"


def empty(folder: Path, canary: Canary) -> Path:
    (folder / "model.zip").touch()
    return folder / "model.zip"


def foreign(folder: Path, canary: Canary) -> Path:
    (folder / "thesis.txt").write_text("text")
    return folder


def pickled(folder: Path, canary: Canary) -> Path:
    (folder / "model.sciseq").write_bytes(pickle.dumps(canary))
    return folder / "model.sciseq"


def archived(folder: Path, canary: Canary) -> Path:
    with zipfile.ZipFile(folder / "model.zip", "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(canary))
    return folder / "model.zip"


def pickled_manifest(folder: Path, canary: Canary) -> Path:
    path = saved(folder) / "manifest.json"
    path.write_bytes(pickle.dumps(canary))
    return folder / "model"


def missing(folder: Path, canary: Canary) -> Path:
    return folder / "nowhere"


REFUSED = {
    damaged: "damaged",
    cut: "truncated",
    edited: "was edited",
    empty: "empty",
    foreign: "not a model saved by sciseq",
    pickled: "Nothing was run",
    archived: "Nothing was run",
    pickled_manifest: "not a model saved by sciseq",
    missing: "No such file",
}


@pytest.mark.parametrize("make", REFUSED, ids=lambda make: make.__name__)
def test_other_files_get_one_line_and_code_2_and_run_nothing(run, tmp_path, make):
    canary = Canary(tmp_path / "executed")
    folder = tmp_path / "folder"
    folder.mkdir()
    path = make(folder, canary)
    for options in ((), ("--json",)):
        result = run("inspect", path, *options)
        assert (result.code, result.out) == (2, "")
        assert result.err.startswith("sciseq: error: ") and result.err.count("\n") == 1
        assert REFUSED[make] in result.err
    assert not canary.path.exists()


def test_the_canary_would_sing(tmp_path):
    canary = Canary(tmp_path / "executed")
    pickle.loads(pickle.dumps(canary))
    assert canary.path.exists()


def test_the_command_imports_neither_torch_nor_the_class(tmp_path):
    code = "\n".join(
        [
            "import atexit, sys",
            "atexit.register(lambda: print(*sys.modules, file=sys.stderr))",
            "from sciseq.cli import main",
            "main()",
        ]
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "inspect", str(saved(tmp_path))],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0 and done.stdout.startswith("LinearForecaster"), done
    loaded = set(done.stderr.split())
    assert not loaded & {"torch", "pandas", "sklearn", "sciseq.forecasting.linear"}
    assert "sciseq.persistence.description" in loaded
