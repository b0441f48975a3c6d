"""The manifest of a saved model: one JSON text with one canonical form.

The text is written in exactly one way (order, spacing, number format), so reading
checks it by writing it again: any changed byte shows. No clock time stands in it; the
same model saved twice gives the same bytes.
"""

import json
import re
from typing import Any

from sciseq.errors import CheckpointError, FileFormatError, UnsafeFileError
from sciseq.files import sha256_of
from sciseq.persistence.tensors import DAMAGE_HINT

__all__ = [
    "FORMAT",
    "MANIFEST_LIMIT",
    "MANIFEST_NAME",
    "MEMBER_LIMIT",
    "is_member_name",
    "member_name",
    "parse_manifest",
    "render_manifest",
]

MANIFEST_NAME = "manifest.json"
MANIFEST_LIMIT = 16 * 2**20
MEMBER_LIMIT = 16 * 2**30

# Another major number cannot be read; a newer minor number may use kinds of values
# that this version does not know.
FORMAT = {"name": "sciseq-estimator", "major": 1, "minor": 0}

_MEMBER = re.compile(r"(weights|state)-([0-9a-f]{8})\.safetensors")
_FIELDS = ("format", "versions", "estimator", "members")


def member_name(kind: str, sha256: str) -> str:
    """Name of the member of ``kind`` ("weights" or "state") with this hash."""
    return f"{kind}-{sha256[:8]}.safetensors"


def is_member_name(name: str) -> bool:
    """Tell whether ``name`` is exactly a member name, without any path."""
    return _MEMBER.fullmatch(name) is not None


def render_manifest(content: dict[str, Any]) -> bytes:
    r"""Return the canonical text of a manifest, ending in its own SHA-256.

    Examples
    --------
    >>> render_manifest({"format": {"major": 1}})
    b'{\n"format": {"major": 1},\n"sha256": "..."\n}\n'
    """
    lines = [f"{json.dumps(name)}: {_text(value)}" for name, value in content.items()]
    body = "{\n" + ",\n".join(lines)
    digest = sha256_of(_bytes(body))
    return _bytes(f'{body},\n"sha256": "{digest}"\n}}\n')


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _bytes(text: str) -> bytes:
    # Python text may hold lone surrogates (file names do); they must survive.
    return text.encode("utf-8", "surrogatepass")


def parse_manifest(raw: bytes, where: str) -> dict[str, Any]:
    """Check a manifest and return its content without the hash.

    Parameters
    ----------
    raw : bytes
        Content of ``manifest.json``.
    where : str
        Its path, for messages.

    Raises
    ------
    FileFormatError
        When it is the manifest of something else.
    CheckpointError
        When it is damaged, or of a format that this version cannot read.
    UnsafeFileError
        When it asks for more than the limits allow.
    """
    content = _parse_json(raw, where)
    _check_version(content, where)
    sha256 = content.pop("sha256", None)
    try:
        intact = render_manifest(content) == raw
    except (ValueError, RecursionError):
        intact = False
    if not intact:
        raise CheckpointError(
            f"the manifest is damaged or was edited: its hash is not {sha256!r}",
            where=where,
            hint=DAMAGE_HINT,
        )
    _check_schema(content, where)
    return content


def _parse_json(raw: bytes, where: str) -> dict[str, Any]:
    try:
        content = json.loads(raw.decode("utf-8", "surrogatepass"))
    except (ValueError, RecursionError) as error:
        if raw and str(FORMAT["name"]).encode() not in raw[:64]:
            raise _not_ours(where) from error
        state = "damaged" if raw else "empty (0 bytes)"
        raise CheckpointError(
            f"the manifest is {state}", where=where, hint=DAMAGE_HINT
        ) from error
    form = content.get("format") if isinstance(content, dict) else None
    if not isinstance(form, dict) or form.get("name") != FORMAT["name"]:
        raise _not_ours(where)
    return dict(content)


def _not_ours(where: str) -> FileFormatError:
    return FileFormatError(
        "this is not a model saved by sciseq: the manifest does not say "
        f"{FORMAT['name']!r}",
        where=where,
        hint="Give the folder or file that estimator.save(path) wrote.",
    )


def _check_version(content: dict[str, Any], where: str) -> None:
    form = content["format"]
    major, minor = form.get("major"), form.get("minor")
    _require(
        set(form) == set(FORMAT) and type(major) is int and type(minor) is int,
        "format",
        "name, major and minor version",
        where,
    )
    if major != FORMAT["major"] or minor > FORMAT["minor"]:
        from sciseq import __version__

        versions = content.get("versions")
        writer = versions.get("sciseq") if isinstance(versions, dict) else None
        is_newer = (major, minor) > (FORMAT["major"], FORMAT["minor"])
        raise CheckpointError(
            f"the model is stored in format {major}.{minor}, written by sciseq "
            f"{writer}; this is sciseq {__version__}, which reads format "
            f"{FORMAT['major']}.0 to {FORMAT['major']}.{FORMAT['minor']}",
            where=where,
            hint="Upgrade with `pip install --upgrade sciseq`."
            if is_newer
            else f"Load it with sciseq {writer} and save it again from there, or fit "
            "again.",
        )


def _check_schema(content: dict[str, Any], where: str) -> None:
    _require(
        tuple(content) == _FIELDS, "manifest", f"the fields {', '.join(_FIELDS)}", where
    )
    versions = content["versions"]
    _require(
        isinstance(versions, dict)
        and all(isinstance(version, str) for version in versions.values())
        and {"python", "sciseq"} <= set(versions),
        "versions",
        "package names and version texts",
        where,
    )
    _require(isinstance(content["estimator"], dict), "estimator", "an object", where)
    members = content["members"]
    _require(isinstance(members, dict), "members", "an object", where)
    for name, member in members.items():
        _check_member(name, member, where)
    kinds = [name.partition("-")[0] for name in members]
    _require(len(set(kinds)) == len(kinds), "members", "one member of a kind", where)


def _check_member(name: str, member: Any, where: str) -> None:
    if not is_member_name(name):
        raise UnsafeFileError(
            f"the manifest names the member {name!r}, which is no name of a model file",
            where=where,
            hint="Do not use this file: sciseq does not write such names.",
        )
    place = f"members.{name}"
    _require(
        isinstance(member, dict) and set(member) == {"sha256", "bytes"},
        place,
        "sha256 and bytes",
        where,
    )
    digest, size = member["sha256"], member["bytes"]
    _require(
        isinstance(digest, str)
        and re.fullmatch("[0-9a-f]{64}", digest) is not None
        and name == member_name(name.partition("-")[0], digest),
        f"{place}.sha256",
        "the SHA-256 that the name begins with",
        where,
    )
    _require(type(size) is int and size >= 0, f"{place}.bytes", "a size", where)
    if size > MEMBER_LIMIT:
        raise UnsafeFileError(
            f"member {name} has {size} bytes, {MEMBER_LIMIT} are allowed", where=where
        )


def _require(condition: bool, field: str, needed: str, where: str) -> None:
    if not condition:
        raise CheckpointError(
            f"field {field!r} of the manifest is not as it must be: {needed}",
            where=where,
            hint=DAMAGE_HINT,
        )
