"""What a report says first: how the run ended, why, and what to do."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sciseq.jobs.exit_codes import EXIT_CODES, FAULT, LOCKED, REFUSED, TEMPORARY
from sciseq.jobs.report_html import Html, bullets, join, markup, shown

__all__ = ["Verdict", "gate_text", "verdict_of"]


@dataclass(frozen=True)
class Verdict:
    """How a run ended.

    Parameters
    ----------
    tone : {"good", "warn", "bad"}
        Colour; the title says the same in words.
    title : str
        In a few words.
    reasons : sequence of str
        What led to it.
    advice : sequence of str
        What a person can do, the likeliest first.
    """

    tone: str
    title: str
    reasons: Sequence[str]
    advice: Sequence[str] = ()

    def html(self) -> Html:
        """Return the box at the top of the report."""
        reasons = join(markup("<p>{}</p>\n", one) for one in self.reasons)
        advice = (
            markup("<h3>What to do</h3>\n{}", bullets(self.advice))
            if self.advice
            else Html("")
        )
        return markup(
            '<section class="verdict {}" aria-label="Verdict">\n<h2>{}</h2>\n{}{}'
            "</section>\n",
            self.tone,
            self.title,
            reasons,
            advice,
        )


_NEXT_RUN = "Run the job again: it goes on where this run stopped."
_SEE_LOG = "Read the end of the log in the state folder of the job."
_FAILURE_ADVICE: dict[int, tuple[str, ...]] = {
    FAULT: (_SEE_LOG, _NEXT_RUN),
    REFUSED: ("Mend what the error names; running it again alone will not help.",),
    LOCKED: ("Wait for the other run of this job, or look why it takes so long.",),
    TEMPORARY: (_NEXT_RUN, "If it fails again, look at the disk, the rights of the "
                "destination, and whether the source is still being written."),
}  # fmt: skip


def verdict_of(record: Mapping[str, Any]) -> Verdict:
    """Return the verdict on a run.

    Parameters
    ----------
    record : mapping
        The record of the run.

    Examples
    --------
    >>> verdict_of({"status": "done", "exit_code": 0}).title
    'Done'
    """
    status = record.get("status")
    failed = record.get("failed_series") or ()
    if status == "done":
        return Verdict("good", "Done", [_done_text(record)])
    if status == "done with failures":
        return _done_with_failures(record, failed)
    if status == "stopped by a gate":
        return _stopped(record)
    code = record.get("exit_code")
    reasons = [f"Exit code {code}: {EXIT_CODES[code]}."] if code in EXIT_CODES else []
    # An error, where there is one, says more than its kind.
    reasons = [str(one) for one in (record.get("error"),) if one] + reasons
    advice = _FAILURE_ADVICE.get(code or 0, (_SEE_LOG, _NEXT_RUN))
    return Verdict("bad", "Failed", reasons, advice)


def _done_text(record: Mapping[str, Any]) -> str:
    destination = record.get("destination") or {}
    if destination.get("rows") is None:
        return "Nothing had to be written to a destination."
    where = destination.get("where")
    return f"{shown(destination['rows'])} rows were written to {where}."


def _done_with_failures(record: Mapping[str, Any], failed: Sequence[Any]) -> Verdict:
    n_all = (record.get("source") or {}).get("series")
    share = shown(len(failed)) + (f" of {shown(n_all)}" if n_all else "")
    return Verdict(
        "warn",
        f"Done, but {share} series failed",
        [_done_text(record), "Series that failed are not among them."],
        [
            "Look at the errors of these series below, and mend their rows in the "
            "source.",
            "Then run the job again for the same logical date: changed rows make a "
            "new run.",
        ],
    )


def _stopped(record: Mapping[str, Any]) -> Verdict:
    failed = [one for one in record.get("gates") or () if not one.get("passed")]
    return Verdict(
        "bad",
        "Stopped by a quality gate: nothing was written",
        [gate_text(one) for one in failed]
        + ["The destination still holds what earlier runs wrote."],
        [
            "Look at the latest rows of the source first: gaps, late or wrong values.",
            "If the rows are right, try other settings or another method, or keep the "
            'model there was with gates.on_failure = "keep".',
            "If the new model is wanted all the same, loosen gates.tolerance or take "
            "the gate out, and run this logical date again.",
        ],
    )


def gate_text(gate: Mapping[str, Any]) -> str:
    """Write a gate as a sentence.

    Examples
    --------
    >>> gate_text({"against": "previous", "metric": "mae", "new": 1.5, "other": 1.2,
    ...            "passed": False})
    "The new model's MAE is 1.5, that of the previous model is 1.2."
    """
    against = _AGAINST.get(str(gate.get("against")), gate.get("against"))
    metric = str(gate.get("metric", "error")).upper()
    new, other = shown(gate.get("new")), shown(gate.get("other"))
    return f"The new model's {metric} is {new}, that of {against} is {other}."


_AGAINST = {
    "previous": "the previous model",
    "seasonal-naive": "the seasonal naive forecast",
    "last-value": "repeating the last value",
}
