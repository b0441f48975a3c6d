"""What ``describe`` tells of every kind, without torch, class or trust in the file."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from crafted import junk_in, replace_member
from tiny_kinds import NAMES, fitted, unfitted

from sciseq import registry
from sciseq.errors import CheckpointError, SciSeqError
from sciseq.persistence import manifest, save
from sciseq.persistence.description import as_text, describe
from sciseq.registry import method_by_name

# Describes every model of a folder, and says what was imported for it.
DESCRIBE_ALL = """
import json, pathlib, sys
from sciseq.persistence.description import as_text, describe
from sciseq.registry import METHODS

found = {}
for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):
    found[path.name] = [describe(path), as_text(describe(path))]
heavy = {"pandas", "sklearn", "torch"} & set(sys.modules)
classes = {method.module_name for method in METHODS} & set(sys.modules)
print(json.dumps([found, sorted(heavy | classes)]))
"""


def test_every_kind_is_described_without_torch_or_the_class(tmp_path):
    for name in NAMES:
        fitted(name).save(tmp_path / name)
    done = subprocess.run(
        [sys.executable, "-c", DESCRIBE_ALL, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found, imported = json.loads(done.stdout)
    assert imported == []
    assert sorted(found) == sorted(NAMES)
    for name, (one, text) in found.items():
        method = method_by_name(name)
        model = fitted(name)
        assert one == describe(tmp_path / name)  # whatever the process
        assert (one["method"], one["class"]) == (name, method.class_name)
        assert (one["title"], one["paper"]) == (method.title, method.paper)
        assert one["is_fitted"]
        assert one["parameters"].keys() == model.get_params(deep=False).keys()
        for key in ("d_model", "horizon", "lookback", "max_epochs"):
            if key in one["parameters"]:
                assert one["parameters"][key] == getattr(model, key)
        assert method.paper in text and "(fitted)" in text
        weights = model._get_saved_state()[1]
        own = {key: list(value.shape) for key, value in weights.items()}
        assert own.items() <= one["weights"].items()
        if "n_parameters_" in one["learned"]:
            values = sum(parameter.numel() for parameter in model.network_.parameters())
            assert one["learned"]["n_parameters_"] == values
            assert f"n_parameters_ = {values}" in text


def test_folder_and_zip_are_described_alike(saved, saved_zip):
    assert describe(saved) == describe(str(saved_zip))
    assert describe(saved)["bytes"] == sum(
        path.stat().st_size for path in saved.glob("*.safetensors")
    )


def test_not_fitted(tmp_path):
    unfitted("block-diffusion").save(tmp_path / "model")
    found = describe(tmp_path / "model")
    assert not found["is_fitted"]
    assert found["weights"] == found["learned"] == found["members"] == {}
    text = as_text(found)
    assert "BlockDiffusionSequence (not fitted)" in text
    assert "0 arrays, 0 values" in text
    # What it starts from is no fit.
    cls = type(fitted("block-diffusion"))
    cls.from_autoregressive(fitted("autoregressive")).save(tmp_path / "start")
    found = describe(tmp_path / "start")
    assert not found["is_fitted"] and found["weights"]


def test_values_are_told_as_they_were_written(tmp_path, toy_class):
    values = {
        "none": None,
        "nan": float("nan"),
        "endless": float("-inf"),
        "large": 2**70,
        "numpy": np.float32(0.5),
        "path": Path("some/where"),
        "pair": (1, "a"),
        "keys": {1: "a"},
        "array": np.zeros((2, 3)),
        "day": np.datetime64("2026-11-27"),
        "inner": toy_class(),
        "steps": [("linear", unfitted("linear"))],
        "long": list(range(1000)),
        "text": "x" * 1000,
    }
    save(toy_class(horizon=values), tmp_path / "model")
    found = describe(tmp_path / "model")["parameters"]["horizon"]
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found.pop("day") == np.datetime64("2026-11-27").astype(int)
    assert found.pop("long") == [*range(50), "... 1000 in all"]
    assert found.pop("text") == "x" * 200 + " ..."
    assert found == {
        "none": None,
        "nan": "nan",
        "endless": "-inf",
        "large": hex(2**70),
        "numpy": 0.5,
        "path": "some/where",
        "pair": [1, "a"],
        "keys": [[1, "a"]],
        "array": "<numpy.array float64>",
        "inner": "<toy>",
        "steps": [["linear", "<linear>"]],
    }


def test_an_unknown_method_is_described_all_the_same(saved, monkeypatch):
    monkeypatch.setattr(registry, "METHODS", registry.METHODS[:-1])
    found = describe(saved)
    assert found["method"] == "toy" and found["class"] is found["title"] is None
    assert "does not know the method" in as_text(found)


def test_nothing_in_a_file_steers_the_terminal(saved, edit):
    steer = "\x1b[2J\r\u202e"

    def change(tree):
        tree["estimator"]["name"] = steer
        tree["estimator"]["parameters"] = {steer: steer, "horizon": [steer]}
        tree["versions"][steer] = steer

    edit(saved, change)
    text = as_text(describe(saved))
    assert all(one.isprintable() for one in text.split("\n"))
    assert r"\x1b[2J" in text


# --------------------------------------------------------------- damaged and crafted

CHANGES = {
    "no name": lambda node: node.pop("name"),
    "name of another type": lambda node: node.update(name=["toy"]),
    "list of parameters": lambda node: node.update(parameters=[]),
    "no attributes": lambda node: node.update(attributes=None),
    "another kind": lambda node: node.update({"$": "tuple"}),
    "no kind": lambda node: node.pop("$"),
    "more fields": lambda node: node.update(hook="os.system"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_bad_28_manifests_of_another_form(saved, edit, name):
    edit(saved, lambda tree: CHANGES[name](tree["estimator"]))
    with pytest.raises(CheckpointError):
        describe(saved)


@pytest.mark.parametrize("kind", ["state", "weights"])
def test_bad_26_headers_that_lie(saved, kind):
    (path,) = saved.glob(f"{kind}-*")
    original = path.read_bytes()
    length = int.from_bytes(original[:8], "little")
    header = json.loads(original[8 : 8 + length])
    first = next(iter(header))
    for change in ({"shape": [2**62, 4]}, {"shape": "many"}, {"data_offsets": [9, 3]}):
        lying = json.dumps({**header, first: {**header[first], **change}}).encode()
        content = len(lying).to_bytes(8, "little") + lying + original[8 + length :]
        replace_member(saved, kind, content)
        with pytest.raises(CheckpointError, match="safetensors data is not valid"):
            describe(saved)
    for content in (b"", b"\xff" * 64, b"\x80\x04canary."):
        replace_member(saved, kind, content)
        with pytest.raises(CheckpointError, match="safetensors data is not valid"):
            describe(saved)


def test_bad_25_a_changed_byte_is_no_description(saved):
    (path,) = saved.glob("weights-*")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="damaged"):
        describe(saved)


def test_bad_28_deep_values(saved, edit):
    def change(tree):
        node = []
        for _ in range(300):
            node = [node]
        tree["estimator"]["parameters"]["horizon"] = node

    edit(saved, change)
    assert "..." in str(describe(saved)["parameters"]["horizon"])


def test_bad_28_junk_anywhere_gives_plain_values_or_an_error_of_ours(tmp_path):
    fitted("generative").save(tmp_path / "model")
    path = tmp_path / "model" / "manifest.json"
    tree = manifest.parse_manifest(path.read_bytes(), "x")
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        changed = {**tree, "estimator": junk_in(tree["estimator"], rng)}
        path.write_bytes(manifest.render_manifest(changed))
        try:
            found = describe(tmp_path / "model")
        except SciSeqError:
            refused += 1
            continue
        assert json.loads(json.dumps(found, allow_nan=False)) == found
        assert as_text(found)
    # What is nested is only shown, not built: little of it can be wrong.
    assert refused < 100
