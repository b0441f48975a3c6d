"""What a saved model is, told from its files alone: nothing of it is built or run."""

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sciseq.errors import CheckpointError
from sciseq.persistence.codec import MAX_DEPTH
from sciseq.persistence.nodes import TAG, take
from sciseq.persistence.reading import read_model
from sciseq.persistence.tensors import DAMAGE_HINT, read_shapes
from sciseq.registry import method_by_name, savable_estimators

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
# More than this of a text or a list is not told.
_SHORT, _FEW = 200, 50


def describe(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Describe a saved model after checking its hashes.

    Parameters
    ----------
    path : path-like
        Folder or ZIP file that ``estimator.save`` wrote.

    Returns
    -------
    dict
        ``method``, ``class``, ``title``, ``paper``, ``is_fitted``, ``parameters``,
        ``learned``, ``weights`` (shapes by name), ``members`` (SHA-256 by name),
        ``bytes``, ``versions`` and ``format``; all of it plain values. Long texts and
        lists are cut, arrays and objects are told by their kind.

    Raises
    ------
    SciSeqError
        As :func:`sciseq.load` does for what is damaged, foreign or unsafe. A method
        that this version does not know is described all the same.

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
    if node.get(TAG) != "estimator":
        raise CheckpointError(
            "the manifest describes no estimator", where=str(path), hint=DAMAGE_HINT
        )
    kinds = {"name": str, "parameters": dict, "attributes": dict, "weights": dict}
    name, parameters, attributes, _ = take(node, str(path), **kinds)
    shapes = {key: read_shapes(one, f"{path}/{key}") for key, one in contents.items()}
    method = method_by_name(name)
    return {
        "method": name,
        "class": savable_estimators().get(name, "").partition(":")[2] or None,
        "title": None if method is None else method.title,
        "paper": None if method is None else method.paper,
        "is_fitted": any(key.endswith("_") for key in attributes),
        "parameters": _plain(parameters),
        "learned": {
            key: _plain(attributes[key]) for key in _FACTS if key in attributes
        },
        "weights": {
            key: shape
            for member, found in shapes.items()
            if member.startswith("weights-")
            for key, shape in found.items()
        },
        "members": {key: one["sha256"] for key, one in manifest["members"].items()},
        "bytes": sum(len(one) for one in contents.values()),
        "versions": dict(manifest["versions"]),
        "format": f"{manifest['format']['major']}.{manifest['format']['minor']}",
    }


def as_text(found: Mapping[str, Any]) -> str:
    """Return a description as lines for a terminal.

    Parameters
    ----------
    found : mapping
        What :func:`describe` returned.

    Returns
    -------
    str
        Lines, of printable characters whatever the file says.
    """
    state = "fitted" if found["is_fitted"] else "not fitted"
    title = f": {found['title']}" if found["title"] else ""
    lines = [f"{_printable(found['class'] or found['method'])} ({state}){title}"]
    if found["class"] is None:
        lines.append("This version of sciseq does not know the method.")
    if found["paper"]:
        lines.append(f"paper: {found['paper']}")
    for section in ("parameters", "learned", "versions"):
        if found[section]:
            lines += ["", f"{section}:"]
            lines += [
                f"  {_printable(name)} = {one!r}"
                for name, one in found[section].items()
            ]
    n_values = sum(math.prod(shape) for shape in found["weights"].values())
    lines += ["", f"weights: {len(found['weights'])} arrays, {n_values:,} values"]
    n_files = 1 + len(found["members"])
    lines.append(f"size: {found['bytes']:,} bytes of arrays; {n_files} files")
    lines.append(f"format: {found['format']}; all hashes are right")
    return "\n".join(lines)


def _printable(text: str) -> str:
    """Keep what could steer a terminal out of a text."""
    return text if text.isprintable() else repr(text)


def _plain(value: Any, depth: int = 0) -> Any:
    """Return a stored value as users wrote it, shortened where it is long."""
    if depth > MAX_DEPTH:
        return "..."
    if isinstance(value, dict):
        if TAG in value:
            return _untagged(value, depth)
        return {key: _plain(one, depth + 1) for key, one in value.items()}
    if isinstance(value, list):
        cut = [] if len(value) <= _FEW else [f"... {len(value)} in all"]
        return [_plain(one, depth + 1) for one in value[:_FEW]] + cut
    if isinstance(value, str) and len(value) > _SHORT:
        return value[:_SHORT] + " ..."
    return value


def _untagged(value: Mapping[str, Any], depth: int) -> Any:
    kind = value[TAG]
    # Containers, numbers that JSON has no form for, paths.
    for key in ("items", "value", "hex"):
        if key in value:
            return _plain(value[key], depth + 1)
    name = value.get("name", "" if kind == "estimator" else value.get("dtype", ""))
    words = [str(name)] if kind == "estimator" else [str(kind), str(name)]
    return _plain(f"<{' '.join(words).rstrip()}>")
