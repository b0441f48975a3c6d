"""The report of a run: one HTML file that opens anywhere, without a network.

It holds its pictures and its style, has no script, and forbids requests. The same
inputs give the same bytes. Whatever the size of the panel, it shows a few series, and
the first rows of long tables; the whole is in ``record.json`` and in the destination.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from sciseq.files import write_atomic
from sciseq.jobs.exit_codes import EXIT_CODES
from sciseq.jobs.report_errors import drift_section, error_section
from sciseq.jobs.report_html import (
    Html,
    bullets,
    facts,
    join,
    markup,
    page,
    section,
    shown,
    table,
)
from sciseq.jobs.report_pictures import time_text
from sciseq.jobs.report_series import (
    MOST_TARGETS,
    Shown,
    forecast_pictures,
    label_of,
    some_series,
)
from sciseq.jobs.report_verdict import verdict_of

__all__ = ["report_html", "write_report"]

MOST_PICTURES = 12  # of forecasts: each takes a tenth of a second
MOST_NUMBERS = 48  # rows of the table of a forecast


def write_report(
    path: str | os.PathLike[str],
    record: Mapping[str, Any],
    *,
    history: pd.DataFrame | None,
    forecast: pd.DataFrame | None,
    errors: pd.DataFrame | None = None,
    n_series: int = 6,
) -> None:
    """Write the report of a run.

    Parameters
    ----------
    path : path-like
        HTML file; its folder must exist.
    record : mapping
        Record of the run; what it lacks is left out.
    history : DataFrame or None
        Rows that the run knew, over time or over (series, time).
    forecast : DataFrame or None
        What it forecast, with the same kind of index. Columns ``NAME_lower`` and
        ``NAME_upper`` are drawn as an interval around ``NAME``. None or empty when
        nothing was forecast.
    errors : DataFrame, optional
        Realised errors of all runs, as :func:`sciseq.jobs.drift.update_errors` returns
        them.
    n_series : int, default=6
        Most series whose forecasts are shown, evenly spread over all of them.

    Raises
    ------
    OSError
        When the folder is missing, full or not writable; the file is unchanged.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> days = pd.date_range("2026-03-01", periods=5)
    >>> table = pd.DataFrame({"load": [3.0, 4.0, 3.5, 4.5, 4.0]}, days)
    >>> record = {"job": "load", "as_of": "2026-03-04", "status": "done"}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder, "report.html")
    ...     write_report(file, record, history=table[:3], forecast=table[3:])
    ...     file.read_text().count("<img")
    1
    """
    text = report_html(
        record, history=history, forecast=forecast, errors=errors, n_series=n_series
    )
    write_atomic(path, text.encode())


def report_html(
    record: Mapping[str, Any],
    *,
    history: pd.DataFrame | None,
    forecast: pd.DataFrame | None,
    errors: pd.DataFrame | None = None,
    n_series: int = 6,
) -> str:
    """Return the report of a run as a text; see :func:`write_report`."""
    name, date = record.get("job"), record.get("as_of")
    verdict = verdict_of(record)
    body = [
        markup(
            '<p class="faint">Job report, sciseq</p>\n<h1>{}, {}</h1>\n', name, date
        ),
        verdict.html(),
        _run_section(record),
        _source_section(record),
        _failed_section(record.get("failed_series") or ()),
        _gate_section(record.get("gates") or ()),
    ]
    if forecast is not None and len(forecast):
        body.append(_forecast_section(history, forecast, n_series))
    if errors is not None:
        body.append(error_section(errors))
        body.append(drift_section(record.get("drift")))
    if record.get("notes"):
        body.append(section("Notes", bullets(record["notes"])))
    title = f"{name}, {date}: {verdict.title}"
    return page(title, markup("<main>\n{}</main>\n", join(body)))


# ------------------------------------------------------------------------- sections


def _run_section(record: Mapping[str, Any]) -> Html:
    retrain = record.get("retrain") or {}
    reason = f": {retrain['reason']}" if retrain.get("reason") else ""
    code = record.get("exit_code")
    pairs = [
        ("Task", record.get("task")),
        ("Logical date", record.get("as_of")),
        ("Run", record.get("run_id")),
        ("Exit code", None if code is None else f"{code}: {EXIT_CODES.get(code, '?')}"),
        ("Model", record.get("model_version")),
        ("Trained as of", record.get("trained_as_of")),
        ("Model was", f"{retrain['decision']}{reason}" if retrain else None),
        ("Parts of the work", _parts_text(record.get("parts") or {})),
    ]
    return section("This run", facts("This run", pairs))


def _parts_text(parts: Mapping[str, Any]) -> str | None:
    if not parts.get("total"):
        return None
    total = shown(parts["total"])
    if not parts.get("reused"):
        return total
    return f"{total}, of which {shown(parts['reused'])} were finished before a stop"


def _source_section(record: Mapping[str, Any]) -> Html:
    source, target = record.get("source") or {}, record.get("destination") or {}
    pairs = [
        ("Read from", source.get("where")),
        ("Rows", source.get("rows")),
        ("Series", source.get("series")),
        ("First", source.get("first")),
        ("Last", source.get("last")),
        ("Late rows", source.get("late_rows")),
        ("Digest", source.get("digest")),
        ("Written to", target.get("where")),
        ("Rows written", target.get("rows")),
        ("Digest written", target.get("digest")),
    ]
    if all(value is None for _, value in pairs):
        return Html("")
    return section("Source and destination", facts("Source and destination", pairs))


def _failed_section(failed: Sequence[Mapping[str, Any]]) -> Html:
    if not failed:
        return Html("")
    rows = [(str(one.get("series")), str(one.get("error"))) for one in failed]
    caption = "No forecast was written for these"
    return section("Series that failed", table(caption, ("Series", "Error"), rows))


def _gate_section(gates: Sequence[Mapping[str, Any]]) -> Html:
    if not gates:
        return Html("")
    rows = [
        (
            str(one.get("against")),
            _passed(bool(one.get("passed"))),
            str(one.get("metric")).upper(),
            one.get("new"),
            one.get("other"),
        )
        for one in gates
    ]
    head = ("Against", "Passed", "Error", "New model", "Other")
    caption = "Errors on rows that the new model had not seen; smaller is better"
    return section("Quality gates", table(caption, head, rows))


def _passed(is_passed: bool) -> Html:
    return markup(
        '<b class="{}">{}</b>',
        "good" if is_passed else "bad",
        "yes" if is_passed else "no",
    )


def _forecast_section(
    history: pd.DataFrame | None, forecast: pd.DataFrame, n_series: int
) -> Html:
    ends = {f"{one}_{end}" for one in forecast for end in ("lower", "upper")}
    targets = [one for one in forecast if one not in ends]
    chosen = some_series(forecast, n_series)
    few = targets[: max(1, min(MOST_TARGETS, MOST_PICTURES // len(chosen)))]
    pictures = [
        picture.html()
        for one in chosen
        for picture in forecast_pictures(one, history, few)
    ]
    return section(
        "Forecasts",
        _choice_text(forecast, len(chosen), len(few), len(targets)),
        markup(
            '<p class="keys"><span><i class="key history"></i>history</span>'
            '<span><i class="key forecast"></i>forecast{}</span></p>\n',
            ", shaded: its interval" if len(ends & set(forecast)) else "",
        ),
        markup('<div class="pictures">\n{}</div>\n', join(pictures)),
        join(_numbers(one, few) for one in chosen),
    )


def _choice_text(
    forecast: pd.DataFrame, n_shown: int, n_few: int, n_targets: int
) -> Html:
    parts = []
    if isinstance(forecast.index, pd.MultiIndex):
        n_all = len(pd.unique(forecast.index.codes[0]))
        if n_shown < n_all:
            parts.append(f"{shown(n_shown)} of {shown(n_all)} series")
    if n_few < n_targets:
        parts.append(f"{n_few} of {shown(n_targets)} targets")
    if not parts:
        return Html("")
    return markup('<p class="faint">Shown: {}.</p>\n', ", ".join(parts))


def _numbers(one: Shown, targets: Sequence[Any]) -> Html:
    """Return the numbers of a picture, for who does not see it."""
    rows = [
        (time_text(time), *map(float, values))
        for time, values in zip(
            one.forecast.index[:MOST_NUMBERS],
            one.forecast[list(targets)].to_numpy()[:MOST_NUMBERS],
            strict=True,
        )
    ]
    name = "Forecast" if one.label is None else f"Forecast of {label_of(one.label)}"
    head = ("Time", *(label_of(target) for target in targets))
    return markup(
        "<details><summary>{} in numbers</summary>\n{}</details>\n",
        name,
        table(name, head, rows, n_rows=len(one.forecast)),
    )
