"""Damaged and crafted models for the tests: other bytes, valid hashes or not."""

import copy
from pathlib import Path
from typing import Any

import numpy as np

from sciseq.files import sha256_of
from sciseq.persistence import manifest

JUNK = [
    *(None, True, -1, 0, 2**62, 1e308, "", "C", "$", "ns", "datetime64[ns]", [], {}),
    *([[]], [1, 2], {"$": "tuple"}, {"$": "pandas.nat"}, "toy", "float64", "1"),
    {"$": "tuple", "items": []},
    {"$": "numpy.scalar", "dtype": "int64", "value": 1},
]


def mutants(
    content: bytes, seed: int, *, n_parts: int = 64, n_flips: int = 200
) -> dict[str, bytes]:
    """Cut short, one byte changed, or longer."""
    rng = np.random.default_rng(seed)
    cuts = {
        f"cut {part}/{n_parts}": content[: len(content) * part // n_parts]
        for part in range(n_parts)
    }
    flips = {}
    for place in rng.integers(len(content), size=n_flips):
        changed = bytearray(content)
        changed[place] ^= int(rng.integers(1, 256))
        flips[f"flip at {place}"] = bytes(changed)
    longer = {"longer": content + b"\0", "twice": content * 2}
    return {**cuts, **flips, **longer}


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


def junk_in(tree: Any, rng: np.random.Generator) -> Any:
    """Return a copy with something else, another name or nothing in a random place."""
    changed = copy.deepcopy(tree)
    everywhere = [at for at in places(tree) if at]
    *front, last = everywhere[rng.integers(len(everywhere))]
    node = changed
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
    return changed
