"""Public data sets by name, checked by hash and never shipped with sciseq.

What is known about each data set is data, not code: ``datasets/registry.toml`` lists
its files, hashes, licence and layout, and the few readers below follow that list.
Values are returned as they stand in the file: faults are described in the ``note`` of
a data set and never repaired silently.
"""

import copy
import os
import tomllib
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sciseq.data.dataset_readers import UNREADABLE, Entry, read_embedded, read_files
from sciseq.errors import FileFormatError, InputError, nearest_name
from sciseq.files import sha256_of

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["describe_dataset", "list_datasets", "load_dataset"]

# What the metadata of a loaded frame repeats from the registry.
_ATTRIBUTES = (
    "title",
    "licence",
    "source",
    "sampling",
    "frequency",
    "units",
    "target",
    "note",
)


def list_datasets(*, data_dir: str | os.PathLike[str] | None = None) -> "pd.DataFrame":
    """List the data sets that :func:`load_dataset` knows.

    Parameters
    ----------
    data_dir : path-like, optional
        Folder to look in before the usual places, as for :func:`load_dataset`.

    Returns
    -------
    pandas.DataFrame
        One row per data set: ``name``, ``kind`` (``"series"``, ``"sequences"`` of
        letters or ``"events"``), ``shape`` (rows, columns) of the loaded frame,
        ``n_series`` (1 unless it is a panel), ``sampling``, ``licence``, and
        ``available`` (whether its files are in place on this machine).

    Examples
    --------
    >>> from sciseq.data import list_datasets
    >>> table = list_datasets().set_index("name")
    >>> table.loc["nile", ["shape", "sampling"]].tolist()
    [(100, 1), 'yearly 1871 to 1970']
    """
    import pandas as pd

    folders = _folders(data_dir)
    return pd.DataFrame(
        {
            "name": name,
            "kind": entry.get("kind", "series"),
            "shape": tuple(entry["shape"]),
            "n_series": entry.get("n_series", 1),
            "sampling": entry["sampling"],
            "licence": entry["licence"],
            "available": _is_available(entry, folders),
        }
        for name, entry in _registry().items()
    )


def describe_dataset(name: str) -> dict[str, Any]:
    """Return all that is known about a data set, without reading it.

    Parameters
    ----------
    name : str
        Name as in :func:`list_datasets`.

    Returns
    -------
    dict
        A copy of the entry in the registry: ``title``, ``shape``, ``sampling``,
        ``licence``, ``source``, and where they apply ``units``, ``target``,
        ``split`` (see :func:`sciseq.data.protocol.long_horizon_split`), ``n_series``,
        ``files`` with their SHA-256, and ``note`` on faults and peculiarities.

    Raises
    ------
    InputError
        When no data set has this name.

    Examples
    --------
    >>> from sciseq.data import describe_dataset
    >>> describe_dataset("ETTh1")["split"]
    {'train': 8640, 'validation': 2880, 'test': 2880}
    """
    return {"name": name, **copy.deepcopy(_entry(name))}


def load_dataset(
    name: str, *, data_dir: str | os.PathLike[str] | None = None, verify: bool = True
) -> "pd.DataFrame":
    """Load a data set as a table in time, a panel of series, sequences or events.

    Parameters
    ----------
    name : str
        Name as in :func:`list_datasets`.
    data_dir : path-like, optional
        Data folder to look in first. Then come the folder that the environment
        variable ``SCISEQ_DATA`` names, and ``pooch.os_cache("sciseq")``.
        Data sets from statsmodels need no folder.
    verify : bool, default=True
        Check the SHA-256 of each file. Switch it off for a changed copy of your own.

    Returns
    -------
    pandas.DataFrame
        Columns of float64 in the order of the file. A table has a DatetimeIndex named
        after the time column, with its frequency set where the steps are regular. A
        panel has a two-level index ("series", "time"). Sequences of letters are rows
        with a column ``sequence``; events are rows with ``entity``, ``item`` and, where
        known, ``time``, for :func:`sciseq.data.event_tables.read_events`.
        ``frame.attrs`` holds ``name``,
        ``title``, ``licence``, ``source``, ``sampling``, and where known ``units``,
        ``target``, ``frequency`` and ``note``.

    Raises
    ------
    InputError
        When no data set has this name, or a file is in none of the places.
    FileFormatError
        When a file does not have the expected hash, or cannot be read.

    Notes
    -----
    Nothing is repaired: in "weather", for instance, one time stamp stands twice, nine
    are skipped, and sensor faults read -9999. The ``note`` says so.

    Examples
    --------
    >>> from sciseq.data import load_dataset
    >>> frame = load_dataset("nile")
    >>> frame.index.name, frame.index.freqstr
    ('year', 'YS-JAN')
    >>> frame.attrs["units"]
    '1e8 m3'
    """
    entry = _entry(name)
    if "embedded" in entry:
        frame = read_embedded(entry)
    else:
        folders = _folders(data_dir)
        contents = [
            _read(name, entry, file, folders, verify) for file in entry["files"]
        ]
        frame = _parse(name, entry, contents)
    frame.attrs["name"] = name
    frame.attrs.update((key, entry[key]) for key in _ATTRIBUTES if key in entry)
    return frame


@cache
def _registry() -> dict[str, dict[str, Any]]:
    package = Path(__file__).resolve().parent.parent
    # Built packages carry the registry; a checkout has it beside the package.
    places = [
        package / "_datasets" / "registry.toml",
        package.parent / "datasets" / "registry.toml",
    ]
    for place in places:
        if place.is_file():
            return tomllib.loads(place.read_text(encoding="utf-8"))
    raise FileFormatError(
        "the registry of data sets is missing from this installation",
        where=", ".join(str(place) for place in places),
        hint="Install sciseq again.",
    )


def _entry(name: str) -> dict[str, Any]:
    registry = _registry()
    if not isinstance(name, str) or name not in registry:
        raise InputError(
            f"no data set is called {name!r}. {nearest_name(name, registry)}".rstrip(),
            where="name",
            hint="sciseq.list_datasets() shows all names.",
        )
    return registry[name]


def _folders(data_dir: str | os.PathLike[str] | None) -> list[Path]:
    import pooch

    named = [data_dir, os.environ.get("SCISEQ_DATA"), pooch.os_cache("sciseq")]
    return [Path(folder) for folder in named if folder]


def _is_available(entry: Entry, folders: Sequence[Path]) -> bool:
    if "embedded" in entry:
        return find_spec(entry["embedded"].partition(":")[0]) is not None
    return all(
        any((folder / file["path"]).is_file() for folder in folders)
        for file in entry["files"]
    )


def _read(
    name: str, entry: Entry, file: Entry, folders: Sequence[Path], verify: bool
) -> bytes:
    places = [folder / file["path"] for folder in folders]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        raise InputError(
            f"the file {file['path']} of data set {name!r} was not found",
            where=", ".join(str(place) for place in places),
            hint="Put it in one of these places, or set SCISEQ_DATA to the folder that "
            f"holds {file['path']}. It comes from {entry['source']}.",
        )
    # The bytes that are hashed are the bytes that are parsed.
    content: bytes = path.read_bytes()
    found = sha256_of(content)
    if verify and found != file["sha256"]:
        raise FileFormatError(
            f"data set {name!r} expects a file with SHA-256 {file['sha256']}, "
            f"found {found}",
            where=str(path),
            hint=f"Get it again from {entry['source']}, or pass verify=False for a "
            "changed copy of your own.",
        )
    return content


def _parse(name: str, entry: Entry, contents: Sequence[bytes]) -> "pd.DataFrame":
    try:
        return read_files(contents, entry)
    except UNREADABLE as error:
        raise FileFormatError(
            f"the file of data set {name!r} cannot be read: {error}",
            where=", ".join(file["path"] for file in entry["files"]),
            hint="verify=True tells whether it differs from the published file.",
        ) from error
