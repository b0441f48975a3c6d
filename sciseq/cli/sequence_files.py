"""Models, spectra and tables that ``sciseq sequence`` reads."""

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sciseq.cli.outputs import check_outputs
from sciseq.errors import FileFormatError, InputError, InputTypeError, nearest_name
from sciseq.files import sha256_of

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "check_new_model",
    "check_spectra",
    "input_fingerprint",
    "load_sequencer",
    "model_fingerprint",
    "read_predictions",
]

# ----------------------------------------------------------------------------- inputs


def check_spectra(paths: Sequence[Path], where: str = "SPECTRA") -> None:
    """Refuse files that are not there, are given twice, or hold no spectra by name.

    Parameters
    ----------
    paths : sequence of Path
        Files of spectra.
    where : str, default="SPECTRA"
        Argument or option that they come from.
    """
    from sciseq.sequencing.spectrum_files import read_spectra

    read_spectra(list(paths))
    places: dict[Path, Path] = {}
    for path in paths:
        first = places.setdefault(path.resolve(), path)
        if first is not path:
            raise InputError(f"{path} is given twice", where=where)


def check_new_model(path: Path, data: Path) -> None:
    """Refuse a place of ``--out`` where no model could be saved.

    Parameters
    ----------
    path : Path
        Where it is to be saved.
    data : Path
        An input, which is never overwritten.
    """
    try:
        check_outputs(data, out=None, plot=None, save_model=path)
    except InputError as error:
        error.where = "--out"
        raise


def load_sequencer(path: Path, device: str) -> Any:
    """Load a fitted sequencer.

    Parameters
    ----------
    path : Path
        Folder or ZIP file that ``model.save`` wrote.
    device : str
        Where it will compute.

    Raises
    ------
    SciSeqError
        When it is no saved model, or one of another kind, or not fitted, or there is no
        such device.
    """
    from sciseq.persistence import load
    from sciseq.training import resolve_device

    model = load(path)
    if not hasattr(model, "iter_rows"):
        raise InputTypeError(
            f"{path} holds a {type(model).__name__}, which reads no spectra",
            where="--model",
            hint="`sciseq sequence train` makes a model that does.",
        )
    if not hasattr(model, "network_"):
        raise InputError(f"the model in {path} is not fitted", where="--model")
    # A model goes on where it is when a device is not there; who asks for one on the
    # command line is told.
    found = resolve_device(device, precision=model.precision)
    return model.set_params(device=str(found))


def model_fingerprint(path: Path) -> str:
    """Return a hash of a saved model, weights included."""
    from sciseq.persistence import read_manifest

    # The manifest holds the hashes of all other members.
    return sha256_of(json.dumps(read_manifest(path), sort_keys=True).encode())


def input_fingerprint(paths: Sequence[Path]) -> list[list[str]]:
    """Return name and content hash of files."""
    found = []
    for path in paths:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        found.append([os.fspath(path), digest])
    return found


# ------------------------------------------------------------------------ predictions


def read_predictions(path: Path) -> "pd.DataFrame":
    """Read a table of predictions.

    Parameters
    ----------
    path : Path
        ``.csv``, ``.tsv`` or ``.parquet`` with the columns source, identifier, peptide
        and, if there is one, score.

    Returns
    -------
    DataFrame
        These columns; peptide is None where there is none.

    Raises
    ------
    InputError
        When a column is missing or a score is no number.
    FileFormatError
        When the file cannot be read as what its name says.
    """
    import pandas as pd

    suffix = path.suffix.lower()
    if suffix not in (".csv", ".tsv", ".parquet"):
        ending = f"ends in {path.suffix!r}" if path.suffix else "has no suffix"
        raise FileFormatError(
            f"{path.name!r} {ending}, predictions end in .csv, .tsv or .parquet",
            where="--predictions",
        )
    try:
        if suffix == ".parquet":
            table = pd.read_parquet(path)
        else:
            # Asn-Ala is "NA" and Asn-Ala-Asn "NAN": only an empty cell is no peptide.
            table = pd.read_csv(
                path,
                sep="\t" if suffix == ".tsv" else ",",
                dtype=str,
                keep_default_na=False,
            )
    except ValueError as error:  # those of pandas and pyarrow are such
        raise FileFormatError(
            f"this is no table: {error}", where=os.fspath(path)
        ) from error
    for name in ("source", "identifier", "peptide"):
        if name not in table.columns:
            raise InputError(
                f"there is no column {name!r}, there are {', '.join(table.columns)}",
                where=os.fspath(path),
                hint=nearest_name(name, table.columns) or None,
            )
    kept = table[["source", "identifier"]].astype(str)
    kept["peptide"] = [
        one if isinstance(one, str) and one else None for one in table["peptide"]
    ]
    if "score" in table.columns:
        try:
            kept["score"] = pd.to_numeric(table["score"].replace("", None))
        except ValueError as error:
            raise InputError(
                f"a score is no number: {error}", where=os.fspath(path)
            ) from error
    return kept
