"""Damaged and crafted models: the same content, or an error of our own."""

import copy
import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sciseq.errors import SciSeqError
from sciseq.files import sha256_of
from sciseq.persistence import load, manifest
from sciseq.persistence.tensors import TensorTable

N_PARTS = 64
N_FLIPS = 200


def outcome(path: Path, model: Any, same: Any) -> str:
    """Load; anything but success or a SciSeqError fails the test by itself."""
    try:
        result = load(path)
    except SciSeqError as error:
        assert len(str(error)) > 20
        return "refused"
    assert same(result, model), "loaded with other content"
    return "equal"


def mutants(content: bytes, seed: int) -> dict[str, bytes]:
    rng = np.random.default_rng(seed)
    cuts = {
        f"cut {part}/{N_PARTS}": content[: len(content) * part // N_PARTS]
        for part in range(N_PARTS)
    }
    flips = {}
    for place in rng.integers(len(content), size=N_FLIPS):
        changed = bytearray(content)
        changed[place] ^= int(rng.integers(1, 256))
        flips[f"flip at {place}"] = bytes(changed)
    longer = {"longer": content + b"\0", "twice": content * 2}
    return {**cuts, **flips, **longer}


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


def replace_member(folder: Path, kind: str, content: bytes) -> None:
    """Put other bytes in place of a member, with a valid hash everywhere."""
    (old,) = folder.glob(f"{kind}-*")
    tree = manifest.parse_manifest((folder / "manifest.json").read_bytes(), "x")
    digest = sha256_of(content)
    name = manifest.member_name(kind, digest)
    del tree["members"][old.name]
    tree["members"][name] = {"sha256": digest, "bytes": len(content)}
    old.unlink()
    (folder / name).write_bytes(content)
    (folder / "manifest.json").write_bytes(manifest.render_manifest(tree))


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


def places(tree: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a JSON tree."""
    found = [at]
    items: Any = ()
    if isinstance(tree, dict):
        items = tree.items()
    elif isinstance(tree, list):
        items = enumerate(tree)
    for key, item in items:
        found += places(item, (*at, key))
    return found


JUNK = [
    *(None, True, -1, 0, 2**62, 1e308, "", "C", "$", "ns", "datetime64[ns]", [], {}),
    *([[]], [1, 2], {"$": "tuple"}, {"$": "pandas.nat"}, "toy", "float64", "1"),
    {"$": "tuple", "items": []},
    {"$": "numpy.scalar", "dtype": "int64", "value": 1},
]


def test_bad_28_crafted_manifests_with_valid_hashes(saved, tmp_path):
    """Random values in any place of the description: loaded, or refused cleanly."""
    path = saved / "manifest.json"
    tree = manifest.parse_manifest(path.read_bytes(), "x")
    rng = np.random.default_rng(4)
    everywhere = [at for at in places(tree["estimator"]) if at]
    refused = 0
    for _ in range(1500):
        changed = copy.deepcopy(tree)
        *front, last = everywhere[rng.integers(len(everywhere))]
        node = changed["estimator"]
        for key in front:
            node = node[key]
        junk = copy.deepcopy(JUNK[rng.integers(len(JUNK))])
        match rng.integers(3):
            case 0:
                node[last] = junk
            case 1 if isinstance(node, dict):
                node[str(last) + "x"] = node.pop(last)
            case _:
                del node[last]
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
