"""Damaged and crafted models: the same content, or an error of our own."""

import copy
import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from crafted import junk_in, mutants, replace_member

from sciseq.errors import SciSeqError
from sciseq.persistence import load, manifest
from sciseq.persistence.tensors import TensorTable


def outcome(path: Path, model: Any, same: Any) -> str:
    """Load; anything but success or a SciSeqError fails the test by itself."""
    try:
        result = load(path)
    except SciSeqError as error:
        assert len(str(error)) > 20
        return "refused"
    assert same(result, model), "loaded with other content"
    return "equal"


@pytest.mark.parametrize("kind", ["manifest", "state", "weights"])
def test_bad_25_mutations_of_a_folder(saved, fitted, same, kind):
    (path,) = saved.glob(f"{kind}*")
    original = path.read_bytes()
    for name, content in mutants(original, seed=1).items():
        path.write_bytes(content)
        assert outcome(saved, fitted(), same) == "refused", name
    path.write_bytes(original)
    assert outcome(saved, fitted(), same) == "equal"


def test_bad_25_mutations_of_an_archive(saved_zip, fitted, same):
    original = saved_zip.read_bytes()
    seen = []
    for content in mutants(original, seed=2).values():
        saved_zip.write_bytes(content)
        seen.append(outcome(saved_zip, fitted(), same))
    # Dates and system numbers of the archive's own directory carry no content.
    assert seen.count("refused") > 0.8 * len(seen)


def test_bad_25_directory_of_an_archive_byte_by_byte(saved_zip, fitted, same):
    original = saved_zip.read_bytes()
    rng = np.random.default_rng(3)
    for place in range(original.find(b"PK\x01\x02"), len(original)):
        changed = bytearray(original)
        changed[place] = int(rng.integers(256))
        saved_zip.write_bytes(changed)
        outcome(saved_zip, fitted(), same)


def test_bad_26_crafted_members_with_valid_hashes(saved, fitted, same, tmp_path):
    """Here the hash does not help: only the checks of the header do."""
    (path,) = saved.glob("state-*")
    original = path.read_bytes()
    length = int.from_bytes(original[:8], "little")
    header = json.loads(original[8 : 8 + length])
    crafted = {}
    for claimed in (0, 1, length - 1, length + 1, 2**31, 2**63, 2**64 - 1):
        crafted[f"length {claimed}"] = claimed.to_bytes(8, "little") + original[8:]
    names = list(header)
    for one, other in itertools.pairwise(names):
        swapped = copy.deepcopy(header)
        swapped[one]["data_offsets"], swapped[other]["data_offsets"] = (
            header[other]["data_offsets"],
            header[one]["data_offsets"],
        )
        text = json.dumps(swapped).encode()
        crafted[f"swap {one}"] = (
            len(text).to_bytes(8, "little") + text + original[8 + length :]
        )
    for name, content in crafted.items():
        folder = tmp_path / "crafted"
        shutil.copytree(saved, folder)
        replace_member(folder, "state", content)
        assert outcome(folder, fitted(), same) == "refused", name
        shutil.rmtree(folder)


def test_bad_28_crafted_manifests_with_valid_hashes(saved, tmp_path):
    """Random values in any place of the description: loaded, or refused cleanly."""
    path = saved / "manifest.json"
    tree = manifest.parse_manifest(path.read_bytes(), "x")
    rng = np.random.default_rng(4)
    refused = 0
    for _ in range(1500):
        changed = {**tree, "estimator": junk_in(tree["estimator"], rng)}
        path.write_bytes(manifest.render_manifest(changed))
        try:
            load(saved)
        except SciSeqError:
            refused += 1
    assert 1000 < refused < 1500


def test_mutations_of_nothing_are_equal(saved, saved_zip, fitted, same):
    assert outcome(saved, fitted(), same) == "equal"
    assert outcome(saved_zip, fitted(), same) == "equal"
    table = TensorTable()
    table.add("a", np.zeros(1))
    replace_member(saved, "weights", table.to_bytes())
    assert outcome(saved, fitted(), same) == "refused"
