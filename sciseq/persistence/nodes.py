"""Tagged JSON objects: how they are marked, checked, and refused."""

from typing import Any, NoReturn

import numpy as np

from sciseq.errors import CapabilityError, CheckpointError, SciSeqError

__all__ = ["TAG", "exact", "refuse_cache", "refuse_type", "take"]

# The key that tells a tagged object from a plain dict.
TAG = "$"


def take(node: dict[str, Any], path: str, **kinds: type | tuple[type, ...]) -> Any:
    """Return the fields of a tagged object after checking their names and types.

    The check is on exact types, so that True is no integer; ``object`` allows any.
    """
    if set(node) != {TAG, *kinds}:
        raise CheckpointError(
            f"a value of kind {node.get(TAG)!r} has the fields {sorted(node)}, "
            f"needs {sorted({TAG, *kinds})}",
            where=path,
        )
    for name, kind in kinds.items():
        allowed = kind if isinstance(kind, tuple) else (kind,)
        if object not in allowed and type(node[name]) not in allowed:
            raise CheckpointError(
                f"field {name!r} is a {type(node[name]).__name__}, must be "
                f"{' or '.join(one.__name__ for one in allowed)}",
                where=path,
            )
    return tuple(node[name] for name in kinds)


def refuse_type(value: Any, path: str) -> NoReturn:
    """Raise the error for a value whose type is not on the list."""
    kind = type(value)
    named = f"{kind.__module__}.{kind.__qualname__}"
    if type(value) is np.ndarray:
        named = f"array of dtype {value.dtype}"
    raise CapabilityError(
        f"cannot save a value of type {named}",
        where=path,
        hint="Model files hold numbers, text, lists, tuples, dicts, NumPy arrays of "
        "numbers, dates or text, and pandas indexes: convert the value to one of "
        "these.",
    )


def refuse_cache(
    parameters: dict[str, Any], error: type[SciSeqError], path: str
) -> None:
    """Refuse the cache of a pipeline: it holds pickles, which the next fit opens."""
    if parameters.get("memory") is not None:
        raise error(
            "a pipeline with a cache is not saved: a loaded one would read it",
            where=f"{path}.memory",
            hint="Set memory=None.",
        )


def exact(value: Any, kind: type, path: str) -> Any:
    """Return ``value`` after checking that its type is exactly ``kind``."""
    if type(value) is not kind:
        raise CheckpointError(
            f"value is a {type(value).__name__}, must be {kind.__name__}", where=path
        )
    return value
