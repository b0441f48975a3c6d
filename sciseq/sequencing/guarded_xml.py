"""XML from strangers: no document type, no entities, no network, bounded sizes.

Entities (which may name other files or grow without end) exist only in a document type
declaration, and that stands before the root element. So the start of the file is looked
at by a parser that only waits for either, and no declaration comes any further.
"""

import contextlib
import os
from collections.abc import Collection, Iterator
from typing import Any
from xml.parsers import expat

from lxml import etree

from sciseq.errors import FileFormatError, UnsafeFileError
from sciseq.sequencing.byte_streams import ByteStream, open_stream

__all__ = ["iterate_elements", "local_name"]

_PROLOG = 2**16


class _RootFound(Exception):  # noqa: N818  # it stops the parser, nothing failed
    pass


@contextlib.contextmanager
def iterate_elements(
    path: str | os.PathLike[str], roots: Collection[str], names: Collection[str]
) -> Iterator[Iterator[tuple[str, Any]]]:
    """Open an XML file and give the events of some of its elements.

    Parameters
    ----------
    path : path-like
        File, plain or compressed with gzip.
    roots : collection of str
        Names that the root element may have.
    names : collection of str
        Elements of interest, without namespaces.

    Yields
    ------
    iterator of (event, element)
        ``"start"`` and ``"end"`` of each. After each, the limit on sizes counts anew.

    Raises
    ------
    UnsafeFileError
        For a document type declaration, elements nested too deep, and for a file in
        which one element takes more than 64 MiB.
    FileFormatError
        When it is no XML, is cut short, or has another root.
    """
    with open_stream(path) as stream:
        _check_prolog(stream, roots)
        yield _events(stream, names)


def _events(stream: ByteStream, names: Collection[str]) -> Iterator[tuple[str, Any]]:
    events = etree.iterparse(
        stream,
        events=("start", "end"),
        tag=[f"{{*}}{name}" for name in names],
        load_dtd=False,
        resolve_entities=False,
        no_network=True,
        remove_comments=True,
        remove_pis=True,
        # Only lifts the limit of 10 MB on one text, which long profiles break: what
        # that limit is for, entities, is gone, and the stream has its own.
        huge_tree=True,
    )
    try:
        for event, element in events:
            yield event, element
            stream.mark()
    except etree.XMLSyntaxError as error:
        if "depth" in str(error).lower():
            raise UnsafeFileError(
                f"elements are nested too deep: {error}", where=stream.name
            ) from error
        raise FileFormatError(
            f"the XML is damaged or cut short: {error}", where=stream.name
        ) from error


def _check_prolog(stream: ByteStream, roots: Collection[str]) -> None:
    start = stream.peek(_PROLOG)
    parser = expat.ParserCreate()
    found: list[str] = []

    def refuse(*_: object) -> None:
        raise UnsafeFileError(
            "the file declares a document type, which can make a reader open other "
            "files or fill the memory",
            where=stream.name,
            hint="Spectrum files have none: remove the line '<!DOCTYPE ...>' if you "
            "trust the file.",
        )

    def keep_root(name: str, _: object) -> None:
        found.append(name.rpartition(":")[2])
        raise _RootFound

    parser.StartDoctypeDeclHandler = refuse
    parser.StartElementHandler = keep_root
    try:
        parser.Parse(start, len(start) < _PROLOG)
    except _RootFound:
        pass
    except (expat.ExpatError, LookupError, ValueError) as error:
        if isinstance(error, UnsafeFileError):
            raise
        raise FileFormatError(f"this is no XML: {error}", where=stream.name) from error
    if not found or found[0] not in roots:
        what = f"<{found[0]}>" if found else "nothing"
        raise FileFormatError(
            f"the root is {what}, must be {' or '.join(f'<{r}>' for r in roots)}",
            where=stream.name,
        )


def local_name(element: Any) -> str:
    """Return the name of an element without its namespace."""
    return str(element.tag).rpartition("}")[2]
