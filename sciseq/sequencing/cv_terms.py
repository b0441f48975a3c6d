"""Terms of the PSI-MS vocabulary by which result files name formats of spectra."""

from pathlib import Path
from typing import NamedTuple

__all__ = ["Term", "file_uri", "format_terms"]


class Term(NamedTuple):
    """One term.

    Parameters
    ----------
    accession : str
        Such as ``"MS:1000584"``.
    name : str
        Its name.
    """

    accession: str
    name: str


_PEAK_LIST = Term("MS:1000774", "multiple peak list nativeID format")
_FORMATS = {
    ".mgf": (Term("MS:1001062", "Mascot MGF format"), _PEAK_LIST),
    ".msp": (Term("MS:1002751", "NIST MSP format"), _PEAK_LIST),
    ".mzml": (
        Term("MS:1000584", "mzML format"),
        Term("MS:1001530", "mzML unique identifier"),
    ),
    ".mzxml": (
        Term("MS:1000566", "ISB mzXML format"),
        Term("MS:1000776", "scan number only nativeID format"),
    ),
}
# For spectra that come from no file.
_OTHER = (Term("MS:1000560", "mass spectrometer file format"), _PEAK_LIST)


def format_terms(source: str) -> tuple[Term, Term]:
    """Return the terms for the format of a file and for the identifiers in it.

    Examples
    --------
    >>> format_terms("run.mzML.gz")[0].name
    'mzML format'
    """
    suffix = Path(source.lower().removesuffix(".gz")).suffix
    return _FORMATS.get(suffix, _OTHER)


def file_uri(source: str) -> str:
    """Return the location of a file as a URI, an empty text for no file."""
    return Path(source).absolute().as_uri() if source else ""
