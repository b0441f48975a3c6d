"""Peak lists as text: one peak a line, m/z, intensity, and what else there is."""

import numpy as np
import numpy.typing as npt

__all__ = ["parse_peaks"]

FloatArray = npt.NDArray[np.float64]


def parse_peaks(text: bytes) -> tuple[FloatArray, FloatArray]:
    r"""Return m/z and intensity of the peaks of a text.

    Parameters
    ----------
    text : bytes
        Lines of at least two numbers, separated by blanks; further columns are
        left alone.

    Returns
    -------
    mz, intensity : ndarray of shape (n_peaks,)
        As they stand, unsorted and unchecked.

    Raises
    ------
    ValueError
        When a line has one column, or a column is no number.

    Examples
    --------
    >>> parse_peaks(b"100.5 7\n200.25 8 2+\n")
    (array([100.5 , 200.25]), array([7., 8.]))
    """
    if not text.strip():
        return np.empty(0), np.empty(0)
    if b"_" in text:  # Python reads 1_000 as a number
        text = _without_further_columns(text)
    # A mark instead of each end of line: one split of the whole text is much faster
    # than one per line, and the marks then show whether each line has two columns.
    tokens = (text.rstrip() + b"\n").replace(b"\n", b" ; ").split()
    n_lines = len(tokens) // 3
    if len(tokens) != 3 * n_lines or tokens[2::3].count(b";") != n_lines:
        return parse_peaks(_without_further_columns(text))
    mz = np.fromiter(map(float, tokens[0::3]), np.float64, n_lines)
    intensity = np.fromiter(map(float, tokens[1::3]), np.float64, n_lines)
    return mz, intensity


def _without_further_columns(text: bytes) -> bytes:
    """Return the first two columns of the lines that are not empty."""
    kept = []
    for number, line in enumerate(text.split(b"\n"), start=1):
        columns = line.split(None, 2)
        if len(columns) == 1 or b";" in columns[:2] or b"_" in b"".join(columns[:2]):
            raise ValueError(f"line {number} is {line.decode(errors='replace')!r}")
        if columns:
            kept.append(b" ".join(columns[:2]))
    return b"\n".join(kept)
