"""Damaged and crafted generators and sequencers: the faults of the toy, on them."""

import errno
import json
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from crafted import junk_in, mutants, replace_member
from safetensors.numpy import load_file, save
from tiny_kinds import answers, fitted

from sciseq.errors import CheckpointError, InputError, SciSeqError
from sciseq.persistence import load, manifest
from sciseq.torch_base import TorchEstimator

# A network, a network inside a forecaster, counts alone, a network of other parts.
KINDS = ["block-diffusion", "generative", "markov-chain", "peptide-sequencer"]
NETWORKS = [name for name in KINDS if name != "markov-chain"]
every_kind = pytest.mark.parametrize("name", KINDS)
every_network = pytest.mark.parametrize("name", NETWORKS)


@pytest.fixture
def model(tmp_path, name) -> Path:
    fitted(name).save(tmp_path / "model")
    return tmp_path / "model"


def is_whole(path: Path, name: str) -> bool:
    return bool(answers(load(path)) == answers(fitted(name)))


class Canary:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


@every_kind
def test_bad_24_pickles_with_a_valid_hash(model, name, tmp_path):
    canary = Canary(tmp_path / "executed")
    for path in list(model.glob("*.safetensors")):
        kind = path.name.partition("-")[0]
        replace_member(model, kind, pickle.dumps(canary))
        with pytest.raises(CheckpointError, match="safetensors data is not valid"):
            load(model)
    assert not canary.path.exists()


@every_kind
def test_bad_25_mutations_of_every_file(model, name):
    for path in list(model.iterdir()):
        original = path.read_bytes()
        for what, content in mutants(original, 1, n_parts=12, n_flips=40).items():
            path.write_bytes(content)
            with pytest.raises(SciSeqError):
                load(model)
                pytest.fail(f"{path.name}: {what}")
        path.write_bytes(original)
    assert is_whole(model, name)


@every_kind
def test_bad_26_headers_that_lie_with_a_valid_hash(model, name):
    path = next(iter(sorted(model.glob("*.safetensors"), reverse=True)))
    kind, original = path.name.partition("-")[0], path.read_bytes()
    length = int.from_bytes(original[:8], "little")
    header = json.loads(original[8 : 8 + length])
    first = next(iter(header))
    contents = [n.to_bytes(8, "little") + original[8:] for n in (0, length + 1, 2**63)]
    for change in ({"shape": [2**62, 4]}, {"data_offsets": [9, 3]}, {"dtype": "F128"}):
        lying = json.dumps({**header, first: {**header[first], **change}}).encode()
        contents.append(
            len(lying).to_bytes(8, "little") + lying + original[8 + length :]
        )
    for content in contents:
        replace_member(model, kind, content)
        with pytest.raises(CheckpointError, match="safetensors data is not valid"):
            load(model)


@every_kind
def test_bad_28_junk_in_the_manifest_is_loaded_or_refused(model, name):
    path = model / "manifest.json"
    tree = manifest.parse_manifest(path.read_bytes(), "x")
    rng = np.random.default_rng(2)
    refused = 0
    for _ in range(80):
        changed = {**tree, "estimator": junk_in(tree["estimator"], rng)}
        path.write_bytes(manifest.render_manifest(changed))
        try:
            load(model)
        except SciSeqError:
            refused += 1
    assert 20 < refused


# Heads have no weights of their own, so that their number is not among these.
@pytest.mark.parametrize("value", [2**62, 10**6, 24, -8])
@pytest.mark.parametrize("size", ["d_model", "d_ff", "n_layers"])
@pytest.mark.parametrize("name", ["block-diffusion", "peptide-sequencer"])
def test_bad_29_sizes_of_another_network_ask_for_no_memory(model, edit, size, value):
    edit(model, lambda tree: tree["estimator"]["parameters"].update({size: value}))
    with pytest.raises(CheckpointError):
        load(model)


@pytest.mark.parametrize("name", ["block-diffusion"])
def test_a_size_that_is_not_looked_at_first_would_be_seen(model, edit, monkeypatch):
    edit(model, lambda tree: tree["estimator"]["parameters"].update(d_model=2**62))
    monkeypatch.setattr(TorchEstimator, "_check_saved_weights", lambda *_: None)
    with pytest.raises(RuntimeError):
        load(model)


@every_network
def test_bad_29_weights_that_do_not_fit_are_listed(model, name, edit):
    (path,) = model.glob("weights-*")
    weights = load_file(path)
    shape = {key: one.shape for key, one in weights.items() if one.ndim == 2}
    first = next(iter(shape))
    replace_member(model, "weights", save({**weights, first: np.zeros((3, 3))}))
    with pytest.raises(CheckpointError, match=r"in 1 place: .* has shape \(3, 3\)"):
        load(model)

    def forget(tree):
        node = tree["estimator"]
        if not node["weights"]:
            node = node["attributes"]["generator_"]
        node["weights"].pop(next(iter(node["weights"])))

    shutil.rmtree(model)
    fitted(name).save(model)
    edit(model, forget)
    with pytest.raises(CheckpointError, match=r"in 1 place: .* is missing"):
        load(model)


@every_kind
def test_bad_30_what_stops_a_save_leaves_the_old_model(model, name, monkeypatch):
    with pytest.raises(InputError, match="overwrite=True"):
        fitted(name).save(model)
    before = {path.name: path.read_bytes() for path in model.iterdir()}
    other = fitted("naive")
    for function in ("fsync", "replace"):
        with monkeypatch.context() as patch:

            def full(*_: Any, **__: Any) -> None:
                raise OSError(errno.ENOSPC, "No space left on device")

            patch.setattr(os, function, full)
            with pytest.raises(OSError, match="No space"):
                other.save(model, overwrite=True)
        assert {path.name: path.read_bytes() for path in model.iterdir()} == before
    assert is_whole(model, name)
    other.save(model, overwrite=True)
    assert type(load(model)) is type(other)
