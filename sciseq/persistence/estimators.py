"""Saving and loading estimators: :func:`save`, :func:`load`, :func:`read_manifest`.

An estimator gives its constructor parameters by ``get_params(deep=False)`` and its
learned state by ``_get_saved_state() -> (attributes, weights)``; it takes the state
back by ``_set_saved_state(attributes, weights)``. Estimators inside parameters or
attributes are stored the same way, to any depth.
"""

import importlib
import os
import platform
import sys
from pathlib import Path
from typing import Any

from sciseq import registry
from sciseq.errors import CapabilityError, CheckpointError, SciSeqError, nearest_name
from sciseq.files import sha256_of
from sciseq.persistence.codec import Decoder, Encoder
from sciseq.persistence.manifest import (
    FORMAT,
    MANIFEST_LIMIT,
    MEMBER_LIMIT,
    member_name,
    render_manifest,
)
from sciseq.persistence.nodes import TAG, exact, refuse_cache, refuse_type, take
from sciseq.persistence.reading import read_manifest_of, read_model
from sciseq.persistence.tensors import DAMAGE_HINT, read_tensors
from sciseq.persistence.writing import write_folder, write_zip

__all__ = ["load", "read_manifest", "save"]

_ZIP_SUFFIXES = (".zip", ".sciseq")


def save(
    estimator: Any, path: str | os.PathLike[str], *, overwrite: bool = False
) -> None:
    """Save an estimator as a folder, or as one file, without pickle.

    Parameters
    ----------
    estimator : estimator
        A sciseq estimator, fitted or not.
    path : path-like
        Folder to make; its parent must exist. A name that ends in ``.zip`` or
        ``.sciseq`` makes one ZIP file instead.
    overwrite : bool, default=False
        Replace a model saved at ``path`` before. Anything else that is there is never
        touched.

    Raises
    ------
    CapabilityError
        When a parameter or learned attribute is of a kind that cannot be saved safely,
        or the class is not one of sciseq's own. Nothing was written.
    InputError
        When ``path`` is taken. Nothing was written.
    OSError
        When the disk is full, or the folder cannot be written. A model that was there
        is intact.

    Notes
    -----
    A folder holds ``manifest.json`` (class, parameters, versions, hashes) and at most
    two safetensors files: the weights of the network, readable by any safetensors
    tool, and the arrays of the remaining state. The same model gives the same bytes.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from sciseq import NaiveForecaster
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(NaiveForecaster(horizon=3), Path(folder, "model.zip"))
    ...     load(Path(folder, "model.zip")).get_params()["horizon"]
    3
    """
    target = Path(path)
    encoder = Encoder(_encode_estimator)
    node = _encode_estimator(encoder, estimator, "")
    contents, members = {}, {}
    for kind, table in (("weights", encoder.weights), ("state", encoder.state)):
        if table.arrays:
            content = table.to_bytes()
            digest = sha256_of(content)
            contents[member_name(kind, digest)] = content
            members[member_name(kind, digest)] = {
                "sha256": digest,
                "bytes": len(content),
            }
            _check_size(f"the {kind}", len(content), MEMBER_LIMIT)
    manifest = render_manifest(
        {
            "format": FORMAT,
            "versions": _versions(encoder),
            "estimator": node,
            "members": members,
        }
    )
    _check_size("the manifest", len(manifest), MANIFEST_LIMIT)
    is_zip = target.suffix.lower() in _ZIP_SUFFIXES
    write = write_zip if is_zip else write_folder
    write(target, contents, manifest, overwrite=overwrite)


def load(path: str | os.PathLike[str]) -> Any:
    """Load an estimator that :func:`save` wrote, executing nothing from the file.

    Parameters
    ----------
    path : path-like
        Folder or ZIP file of a saved model.

    Returns
    -------
    estimator
        An estimator of the same class, parameters and state.

    Raises
    ------
    FileNotFoundError
        When nothing is at ``path``.
    UnsafeFileError
        For pickles and other files that can run code, links, crafted archives, and
        sizes beyond the limits.
    FileFormatError
        For anything else that is not a saved model.
    CheckpointError
        For a model that is damaged, incomplete, of a format that this version cannot
        read, or of a class that it does not know.

    Examples
    --------
    See :func:`save`.
    """
    manifest, contents = read_model(Path(path))
    tables: dict[str, dict[str, Any]] = {"weights": {}, "state": {}}
    for name, content in contents.items():
        tables[name.partition("-")[0]] = read_tensors(content, f"{path}/{name}")

    def decode_object(decoder: Decoder, node: dict[str, Any], path: str) -> Any:
        return _decode_estimator(decoder, node, path, manifest["versions"]["sciseq"])

    decoder = Decoder(tables["state"], tables["weights"], decode_object)
    estimator = decoder.decode(manifest["estimator"], "estimator")
    unused = decoder.unused()
    if unused or manifest["estimator"].get(TAG) != "estimator":
        raise CheckpointError(
            f"{len(unused)} arrays belong to nothing in the manifest: {unused[:5]}"
            if unused
            else "the manifest describes no estimator",
            where=str(path),
            hint=DAMAGE_HINT,
        )
    return estimator


def read_manifest(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read what a saved model says about itself, without loading it.

    Parameters
    ----------
    path : path-like
        Folder or ZIP file of a saved model.

    Returns
    -------
    dict
        ``format``, ``versions`` (of the packages that wrote it), ``estimator``
        (registry name, parameters and attributes in their stored form) and
        ``members`` (size and SHA-256 by name).

    Raises
    ------
    FileNotFoundError, UnsafeFileError, FileFormatError, CheckpointError
        As :func:`load`; the members are not opened.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from sciseq import NaiveForecaster
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(NaiveForecaster(), Path(folder, "model"))
    ...     read_manifest(Path(folder, "model"))["estimator"]["name"]
    'naive'
    """
    return read_manifest_of(Path(path))


def _encode_estimator(encoder: Encoder, value: Any, path: str) -> Any:
    saved_name = _name_of(type(value))
    if saved_name is None:
        if not hasattr(value, "get_params"):
            refuse_type(value, path)
        kind = type(value)
        raise CapabilityError(
            f"cannot save {kind.__module__}.{kind.__qualname__}: it is not one of the "
            "estimators that sciseq registers",
            where=path or "estimator",
            hint=("Save its best_estimator_. " if _is_search(value) else "")
            + "joblib.dump(estimator, path) keeps it, at your own risk: "
            "joblib.load runs code from the file, so load only files that you trust.",
        )
    prefix = f"{path}." if path else ""
    parameters = value.get_params(deep=False)
    refuse_cache(parameters, CapabilityError, f"{prefix}parameters")
    attributes, weights = value._get_saved_state()
    if weights and "torch" in sys.modules:
        encoder.packages.add("torch")
    return {
        TAG: "estimator",
        "name": saved_name,
        "parameters": encoder.encode(parameters, f"{prefix}parameters"),
        "attributes": encoder.encode(attributes, f"{prefix}attributes"),
        "weights": {
            name: encoder.add_weight(
                f"{prefix}{name}", array, f"{prefix}weights.{name}"
            )
            for name, array in weights.items()
        },
    }


def _decode_estimator(
    decoder: Decoder, node: dict[str, Any], path: str, writer: str
) -> Any:
    name, parameters, attributes, weights = take(
        node, path, name=str, parameters=dict, attributes=dict, weights=dict
    )
    cls = _class_named(name, path, writer)
    parameters = exact(decoder.decode(parameters, f"{path}.parameters"), dict, path)
    refuse_cache(parameters, CheckpointError, f"{path}.parameters")
    attributes = exact(decoder.decode(attributes, f"{path}.attributes"), dict, path)
    weights = {
        key: decoder.take_weight(exact(reference, str, path), f"{path}.weights.{key}")
        for key, reference in weights.items()
    }
    try:
        estimator = cls(**parameters)
        if attributes or weights:
            estimator._set_saved_state(attributes, weights)
    except SciSeqError:
        raise
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"the state of {name!r}, written by sciseq {writer}, does not fit "
            f"{cls.__name__} of this version: {error}",
            where=path,
            hint=f"Load it with sciseq {writer}, or fit again.",
        ) from error
    return estimator


def _is_search(value: Any) -> bool:
    """Tell whether a fit leaves a best estimator, as those of scikit-learn do."""
    return {"estimator", "cv", "scoring"} <= set(value.get_params(deep=False))


def _name_of(cls: type) -> str | None:
    """Find the registered name of exactly the class ``cls``."""
    for name, target in registry.savable_estimators().items():
        if target.partition(":")[2] == cls.__name__ and _class_of(target) is cls:
            return name
    return None


def _class_named(name: str, path: str, writer: str) -> Any:
    known = registry.savable_estimators()
    if name not in known:
        from sciseq import __version__

        raise CheckpointError(
            f"the model is a {name!r}, written by sciseq {writer}; this is sciseq "
            f"{__version__}, which knows no such method",
            where=path,
            hint="Upgrade with `pip install --upgrade sciseq`. "
            + nearest_name(name, known),
        )
    return _class_of(known[name])


def _class_of(target: str) -> Any:
    module_name, _, class_name = target.partition(":")
    return getattr(importlib.import_module(module_name), class_name)


def _versions(encoder: Encoder) -> dict[str, str]:
    from sciseq import __version__

    packages = {
        name: str(sys.modules[name].__version__) for name in sorted(encoder.packages)
    }
    return {"python": platform.python_version(), "sciseq": __version__, **packages}


def _check_size(what: str, size: int, limit: int) -> None:
    if size > limit:
        raise CapabilityError(
            f"{what} would have {size} bytes, {limit} are allowed",
            hint="Keep large data in arrays, or fit on fewer series.",
        )
