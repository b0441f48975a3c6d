"""What a saved model is, told from its files alone: nothing of it is built or run."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sciseq.persistence.nodes import TAG
from sciseq.persistence.reading import read_model
from sciseq.registry import method_by_name

__all__ = ["as_text", "describe"]

# Learned facts that users ask for, in the order in which they are told.
_FACTS = (
    "columns_",
    "n_features_in_",
    "n_parameters_",
    "best_epoch_",
    "n_epochs_",
    "stopped_",
    "device_",
    "max_length_",
)
_SHORT = 200


def describe(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Describe a saved model after checking its hashes.

    Parameters
    ----------
    path : path-like
        Folder or ZIP file that ``estimator.save`` wrote.

    Returns
    -------
    dict
        ``method``, ``class``, ``paper``, ``parameters``, ``learned``, ``weights``
        (shapes by name), ``members``, ``bytes``, ``versions``, ``format``, ``sha256``
        of the weights and state; all of it plain values.

    Raises
    ------
    SciSeqError
        As :func:`sciseq.load` does for what is damaged, foreign or unsafe.

    Examples
    --------
    >>> import tempfile
    >>> from sciseq import NaiveForecaster
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     NaiveForecaster(horizon=3).save(Path(folder, "model.zip"))
    ...     describe(Path(folder, "model.zip"))["parameters"]["horizon"]
    3
    """
    manifest, contents = read_model(Path(path))
    node = manifest["estimator"]
    method = method_by_name(node["name"])
    attributes = node.get("attributes") or {}
    return {
        "method": node["name"],
        "class": None if method is None else method.class_name,
        "title": None if method is None else method.title,
        "paper": None if method is None else method.paper,
        "is_fitted": bool(attributes),
        "parameters": {k: _plain(v) for k, v in node["parameters"].items()},
        "learned": {k: _plain(attributes[k]) for k in _FACTS if k in attributes},
        "weights": _shapes(contents),
        "members": {k: v["sha256"] for k, v in manifest["members"].items()},
        "bytes": sum(len(one) for one in contents.values()),
        "versions": dict(manifest["versions"]),
        "format": f"{manifest['format']['major']}.{manifest['format']['minor']}",
    }


def as_text(found: Mapping[str, Any]) -> str:
    """Return a description as lines for a terminal."""
    state = "fitted" if found["is_fitted"] else "not fitted"
    lines = [f"{found['class'] or found['method']} ({state}): {found['title']}"]
    if found["paper"]:
        lines.append(f"paper: {found['paper']}")
    for section in ("parameters", "learned", "versions"):
        if found[section]:
            lines += ["", f"{section}:"]
            lines += [f"  {name} = {one!r}" for name, one in found[section].items()]
    n_values = sum(_size(shape) for shape in found["weights"].values())
    lines += ["", f"weights: {len(found['weights'])} arrays, {n_values:,} values"]
    lines.append(f"size: {found['bytes']:,} bytes in {len(found['members'])} files")
    lines.append(f"format: {found['format']}; all hashes are right")
    return "\n".join(lines)


def _size(shape: list[int]) -> int:
    total = 1
    for one in shape:
        total *= one
    return total


def _shapes(contents: Mapping[str, bytes]) -> dict[str, list[int]]:
    """Read the shapes from the headers of the weights."""
    shapes: dict[str, list[int]] = {}
    for name, content in contents.items():
        if name.startswith("weights-"):
            length = int.from_bytes(content[:8], "little")
            header = json.loads(content[8 : 8 + length])
            header.pop("__metadata__", None)
            shapes |= {key: list(one["shape"]) for key, one in header.items()}
    return shapes


def _plain(value: Any) -> Any:
    """Return a stored value as users wrote it, shortened where it is long."""
    if isinstance(value, dict) and TAG in value:
        kind = value[TAG]
        if "items" in value:
            return [_plain(one) for one in value["items"]]
        if kind == "estimator":
            return f"<{value['name']}>"
        return f"<{kind} {value.get('name') or value.get('dtype') or ''}".rstrip() + ">"
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, str) and len(value) > _SHORT:
        return value[:_SHORT] + " ..."
    return value
