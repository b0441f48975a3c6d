"""HTML of a report: everything that comes from data is escaped, in one place.

:func:`markup` fills a template, and escapes whatever is not :class:`Html` already. No
other function here writes a text into a page.
"""

import math
import re
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from sciseq.jobs.report_style import STYLE

__all__ = [
    "Html",
    "Row",
    "bullets",
    "facts",
    "join",
    "markup",
    "page",
    "section",
    "shorten",
    "shown",
    "table",
]

Row = Sequence[Any]

LONGEST_TEXT = 500  # characters; an error may carry a whole table
MOST_ROWS = 50

# Characters that no HTML may hold, and halves of characters that no file may hold.
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


def markup(template: str, *values: Any) -> Html:
    """Fill the places ``{}`` of a template with values, escaped unless they are HTML.

    Parameters
    ----------
    template : str
        HTML that this package wrote.
    *values : Any
        Anything; numbers are written as :func:`shown` does.

    Examples
    --------
    >>> print(markup("<b>{}</b> {}", "<script>", markup("<i>{}</i>", 25)))
    <b>&lt;script&gt;</b> <i>25</i>
    """
    return Html(template.format(*map(_escaped, values)))


def _escaped(value: Any) -> str:
    if isinstance(value, Html):
        return value
    return escape(_FORBIDDEN.sub("\ufffd", shown(value)))


def shown(value: Any) -> str:
    """Write a value for a reader.

    Examples
    --------
    >>> [shown(one) for one in (240000, 0.123456, None, True, float("nan"), "text")]
    ['240\u202f000', '0.1235', '–', 'yes', '–', 'text']
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}".replace(",", "\u202f")
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)


def shorten(value: Any, longest: int = LONGEST_TEXT) -> str:
    """Cut a long text, and say how much is missing.

    Examples
    --------
    >>> shorten("abcdefgh", longest=5)
    'abcde … (3 more characters)'
    """
    text = str(value)
    if len(text) <= longest:
        return text
    return f"{text[:longest]} … ({shown(len(text) - longest)} more characters)"


def join(parts: Iterable[Html]) -> Html:
    """Put pieces of HTML after one another."""
    return Html("".join(parts))


# ------------------------------------------------------------------- parts of a page


def section(title: str, *body: Html) -> Html:
    """Return a section with a heading."""
    return markup("<section>\n<h2>{}</h2>\n{}</section>\n", title, join(body))


def bullets(items: Sequence[Any]) -> Html:
    """Return a list with a point for each item, of which long lists show a part."""
    points = [markup("<li>{}</li>\n", shorten(one)) for one in items[:MOST_ROWS]]
    if len(items) > MOST_ROWS:
        points.append(markup("<li>{}</li>\n", _rest(len(items))))
    return markup("<ul>\n{}</ul>\n", join(points))


def facts(caption: str, pairs: Sequence[tuple[str, Any]]) -> Html:
    """Return a table of names and values; values that are not known are left out."""
    rows = [
        markup('<tr><th scope="row">{}</th><td>{}</td></tr>\n', name, _cell(value))
        for name, value in pairs
        if value is not None
    ]
    return markup(
        '<table class="facts"><caption class="unseen">{}</caption>\n'
        "<tbody>\n{}</tbody></table>\n",
        caption,
        join(rows),
    )


def table(
    caption: str, head: Sequence[str], rows: Sequence[Row], n_rows: int | None = None
) -> Html:
    """Return a table with a heading on each column and each row.

    Parameters
    ----------
    caption : str
        What the table shows.
    head : sequence of str
        Headings; the first column names the rows.
    rows : sequence of sequences
        Cells: numbers stand at the right. Long tables show their first rows.
    n_rows : int, optional
        How many rows there are, when the caller gives fewer.

    Examples
    --------
    >>> print(table("Errors", ["name", "size"], [("load", 1.5)]))
    <div class="wide" role="region" aria-label="Errors" tabindex="0">
    <table><caption>Errors</caption>
    <thead><tr><th scope="col">name</th><th scope="col" class="n">size</th></tr></thead>
    <tbody>
    <tr><th scope="row">load</th><td class="n">1.5</td></tr>
    </tbody></table></div>
    <BLANKLINE>
    """
    n_rows = len(rows) if n_rows is None else n_rows
    rows = rows[:MOST_ROWS]
    if n_rows > len(rows):
        caption = f"{caption} ({_rest(n_rows, len(rows))})"
    is_number = [
        bool(rows) and isinstance(one, int | float) and not isinstance(one, bool)
        for one in (rows[0] if rows else head)
    ]
    mark = [Html(' class="n"') if one else Html("") for one in is_number]
    heads = [
        markup('<th scope="col"{}>{}</th>', one, name)
        for one, name in zip(mark, head, strict=True)
    ]
    return markup(
        '<div class="wide" role="region" aria-label="{}" tabindex="0">\n'
        "<table><caption>{}</caption>\n<thead><tr>{}</tr></thead>\n"
        "<tbody>\n{}</tbody></table></div>\n",
        caption,
        caption,
        join(heads),
        join(_table_row(row, mark) for row in rows),
    )


def _table_row(row: Row, mark: Sequence[Html]) -> Html:
    cells = [markup('<th scope="row">{}</th>', _cell(row[0]))]
    cells += [
        markup("<td{}>{}</td>", one, _cell(value))
        for one, value in zip(mark[1:], row[1:], strict=True)
    ]
    return markup("<tr>{}</tr>\n", join(cells))


def _cell(value: Any) -> Any:
    return (
        shorten(value)
        if isinstance(value, str) and not isinstance(value, Html)
        else value
    )


def _rest(n_all: int, n_shown: int = MOST_ROWS) -> str:
    return f"the first {shown(n_shown)} of {shown(n_all)}"


def page(title: str, body: Html) -> Html:
    """Return a whole page that needs nothing from outside itself.

    Its policy forbids scripts and every request, whatever might slip into it.
    """
    return markup(
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "img-src data:; style-src 'unsafe-inline'\">\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        "<title>{}</title>\n<style>\n{}</style>\n</head>\n<body>\n{}</body>\n</html>\n",
        title,
        Html(STYLE),
        body,
    )
