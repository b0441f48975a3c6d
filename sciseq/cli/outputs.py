"""Outputs of a command: refused before the work starts, or written all together."""

import contextlib
import os
from pathlib import Path
from typing import Any

from sciseq.errors import (
    CheckpointError,
    FileFormatError,
    InputError,
    UnsafeFileError,
)

__all__ = ["check_file", "check_outputs", "write_outputs"]


def check_outputs(
    data: Path, *, out: Path | None, plot: Path | None, save_model: Path | None
) -> None:
    """Refuse places that could not be written to when the work is done.

    Parameters
    ----------
    data : Path
        The input, which is never overwritten.
    out, plot, save_model : Path or None
        Table, picture and model to write.

    Raises
    ------
    SciSeqError
        For a missing or read-only folder, an unknown suffix, or a place that is taken.
    """
    if out is not None:
        from sciseq.data.table_files import table_kind

        table_kind(out)
        check_file(out, data, "--out")
    if plot is not None:
        from sciseq.plotting import check_figure_path

        check_figure_path(plot)
        check_file(plot, data, "--plot")
    if save_model is not None:
        _check_folder_of(save_model, "--save-model")
        if save_model.exists() and not _is_empty_folder(save_model):
            _check_is_model(save_model)


def write_outputs(
    table: Any,
    picture: Any,
    model: Any,
    *,
    out: Path | None,
    plot: Path | None,
    save_model: Path | None,
) -> None:
    """Write everything; when anything cannot be written, no file gets its name.

    Parameters
    ----------
    table : pandas.DataFrame
        The forecast.
    picture : AxesArray or None
        Its picture.
    model : estimator
        The fitted model.
    out, plot, save_model : Path or None
        Where they go; what has no place is not written.
    """
    from sciseq.files import temporary_path

    with contextlib.ExitStack() as stack:
        # Files get their names on leaving, when everything has been written.
        if plot is not None:
            from sciseq.plotting import save_figure

            save_figure(picture, stack.enter_context(temporary_path(plot)))
        if out is not None:
            from sciseq.data.table_files import write_table

            write_table(table, stack.enter_context(temporary_path(out)))
        if save_model is not None:
            model.save(save_model, overwrite=True)


def check_file(path: Path, data: Path, option: str) -> None:
    """Refuse an output file that cannot be written, or that holds the input.

    Parameters
    ----------
    path : path-like
        Where to write.
    data : path-like
        The input.
    option : str
        Option that named ``path``.

    Raises
    ------
    InputError
        When it is a folder, the input itself, or in a folder that is not there.
    """
    _check_folder_of(path, option)
    if path.is_dir():
        raise InputError(f"{path} is a folder, a file name is needed", where=option)
    if path.exists() and data.exists() and path.samefile(data):
        raise InputError(
            f"{path} holds the data, and would be replaced",
            where=option,
            hint="Give another file name.",
        )


def _check_folder_of(path: Path, option: str) -> None:
    folder = path.absolute().parent
    if not folder.is_dir():
        raise InputError(
            f"there is no folder {folder}", where=option, hint="Make it first."
        )
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(
            f"the folder {folder} is not writable",
            where=option,
            hint="Give a file in a folder of your own.",
        )


def _check_is_model(path: Path) -> None:
    """Refuse to replace anything but a saved model."""
    from sciseq.persistence import read_manifest

    try:
        read_manifest(path)
    except (FileFormatError, UnsafeFileError) as error:
        raise InputError(
            f"{path} is there already and is no saved model",
            where="--save-model",
            hint="Give a new or empty folder.",
        ) from error
    except CheckpointError:
        pass  # damaged, or of another version, but a model


def _is_empty_folder(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())
