"""The log of a job: readable lines or JSON, on standard error and in a file.

Only here does the time of the clock appear: what a run writes depends on its inputs
and its logical date.
"""

import datetime
import json
import sys
import traceback
from pathlib import Path
from typing import Any, TextIO

__all__ = ["Logbook"]


class Logbook:
    """Writes what happens, with the time.

    Parameters
    ----------
    as_json : bool, default=False
        One JSON object a line, instead of text.
    stream : file, optional
        By default standard error.
    quiet : bool, default=False
        Only warnings and errors on the stream; the file gets everything.

    Examples
    --------
    >>> import io
    >>> stream = io.StringIO()
    >>> Logbook(as_json=True, stream=stream).info("read", rows=24)
    >>> json.loads(stream.getvalue())["rows"]
    24
    """

    def __init__(
        self,
        *,
        as_json: bool = False,
        stream: TextIO | None = None,
        quiet: bool = False,
    ) -> None:
        self.as_json = as_json
        self.stream = sys.stderr if stream is None else stream
        self.quiet = quiet
        self.file: Path | None = None

    def write_to(self, folder: Path) -> None:
        """Write to a file in ``folder`` too."""
        self.file = folder / ("log.jsonl" if self.as_json else "log.txt")

    def info(self, message: str, **facts: Any) -> None:
        """Note what was done."""
        self._write("info", message, facts)

    def warning(self, message: str, **facts: Any) -> None:
        """Note what a person should know."""
        self._write("warning", message, facts)

    def error(self, message: str, **facts: Any) -> None:
        """Note what went wrong."""
        self._write("error", message, facts)

    def fault(self, error: BaseException) -> None:
        """Note where an error came from, in the file alone."""
        trace = "".join(traceback.format_exception(error))
        self._keep(self._line("error", repr(error), {"traceback": trace}))

    def _write(self, level: str, message: str, facts: dict[str, Any]) -> None:
        line = self._line(level, message, facts)
        if not (self.quiet and level == "info"):
            self._tell(line)
        self._keep(line)

    def _tell(self, line: str) -> None:
        self.stream.write(line + "\n")
        self.stream.flush()

    def _keep(self, line: str) -> None:
        """Write a line to the file. A log that cannot be written stops no run."""
        if self.file is None:
            return
        try:
            with self.file.open("a", encoding="utf-8", errors="replace") as file:
                file.write(line + "\n")
        except OSError as error:
            self.file = None
            self.warning(f"the log is not written any more: {error}")

    def _line(self, level: str, message: str, facts: dict[str, Any]) -> str:
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        # A line stays a line, whatever the names of series hold.
        message = " ".join(message.split())
        if self.as_json:
            entry = {"time": now, "level": level, "message": message, **facts}
            return json.dumps(entry, default=str, ensure_ascii=False)
        told = " ".join(f"{key}={_shown(value)}" for key, value in facts.items())
        return f"{now} {level:7} {message}" + (f" ({told})" if told else "")


def _shown(value: Any) -> str:
    text = " ".join(str(value).split())
    return json.dumps(text, ensure_ascii=False) if " " in text or not text else text
