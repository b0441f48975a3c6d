"""Sections of a report on the errors of earlier forecasts, and on drift."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from sciseq.jobs.drift import recent_sums
from sciseq.jobs.report_html import Html, join, markup, section, shown, table
from sciseq.jobs.report_pictures import draw_errors
from sciseq.jobs.report_series import MOST_TARGETS, label_of

__all__ = ["drift_section", "error_section"]

# Latest runs in the pictures: more points would hide one another.
MOST_RUNS = 200


def error_section(errors: pd.DataFrame) -> Html:
    """Return the errors by target, over runs and by lead.

    Parameters
    ----------
    errors : DataFrame
        Realised errors of all runs.
    """
    title = "Errors of earlier forecasts"
    sums = recent_sums(errors)
    if sums.empty:
        return section(
            title, markup("<p>No earlier forecast can be compared with rows yet.</p>\n")
        )
    by_target = errors.groupby("target", observed=True)["error"]
    sizes = sums.groupby("target", observed=True)[["size", "count"]].sum()
    rows = [
        (str(name), int(one["count"]), one["size"] / one["count"], mean)
        for (name, one), mean in zip(
            sizes.iterrows(), by_target.mean()[sizes.index], strict=True
        )
    ]
    caption = "All stored runs; error is forecast minus observed"
    head = ("Target", "Values", "Mean absolute error", "Mean error")
    pictures = [
        picture
        for name in sizes.index[:MOST_TARGETS]
        for picture in _pictures(sums[sums["target"] == name], str(name))
    ]
    return section(
        title, table(caption, head, rows), _others(len(sizes)), _grid(pictures)
    )


def _pictures(sums: pd.DataFrame, target: str) -> list[Html]:
    runs = _mean_error(sums, ["as_of", "run_id"]).iloc[-MOST_RUNS:]
    leads = _mean_error(sums, ["lead"])
    name = label_of(target)
    by_run = draw_errors(
        f"{name}: mean absolute error by run",
        runs.index.get_level_values("as_of"),
        runs.to_numpy(),
        "logical date",
    )
    by_lead = draw_errors(
        f"{name}: mean absolute error by lead",
        pd.Index(leads.index),
        leads.to_numpy(),
        "lead (rows ahead)",
    )
    return [by_run.html(), by_lead.html()]


def _mean_error(sums: pd.DataFrame, keys: list[str]) -> Any:
    total = sums.groupby(keys, observed=True)[["size", "count"]].sum()
    return total["size"] / total["count"]


def _others(n_targets: int) -> Html:
    if n_targets <= MOST_TARGETS:
        return Html("")
    return markup(
        '<p class="faint">Pictures of the first {} of {} targets.</p>\n',
        MOST_TARGETS,
        n_targets,
    )


def _grid(pictures: list[Html]) -> Html:
    return markup('<div class="pictures">\n{}</div>\n', join(pictures))


def drift_section(drift: Mapping[str, Any] | None) -> Html:
    """Return how far errors have grown, against the threshold.

    Parameters
    ----------
    drift : mapping or None
        ``ratio``, ``threshold`` (or None) and ``runs``, as the record has them.
    """
    if drift is None:
        text = (
            "Not measured: too few errors are known of the model in use, or it was not "
            "judged when it was fitted."
        )
        return section("Drift", markup("<p>{}</p>\n", text))
    ratio, threshold = drift.get("ratio"), drift.get("threshold")
    text = markup(
        "<p>Over the last {} runs, errors were <strong>{} times</strong> those that "
        "the model showed when it was fitted.</p>\n",
        drift.get("runs"),
        ratio,
    )
    if ratio is None or threshold is None:
        return section("Drift", text)
    is_over = ratio > threshold
    judged = markup(
        '<p><b class="{}">{}</b> the threshold of {}{}</p>\n',
        "bad" if is_over else "good",
        "Above" if is_over else "Not above",
        threshold,
        ", at which the model is fitted again." if is_over else ".",
    )
    meter = markup(
        '<p><meter min="0" max="{}" low="{}" high="{}" optimum="0" value="{}" '
        'aria-label="Drift: {} of a threshold of {}">{} of {}</meter></p>\n',
        *(f"{one:.4g}" for one in (2 * max(threshold, 0.5 * ratio), threshold)),
        f"{threshold:.4g}",
        f"{np.float64(ratio):.4g}",
        *(shown(one) for one in (ratio, threshold, ratio, threshold)),
    )
    return section("Drift", text, judged, meter)
