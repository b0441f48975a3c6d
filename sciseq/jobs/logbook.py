"""The log of a job: readable lines or JSON, on standard error and in a file.

Only here does the time of the clock appear: what a run writes depends on its inputs
and its logical date.
"""

import datetime
import json
import sys
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

    def _write(self, level: str, message: str, facts: dict[str, Any]) -> None:
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        # A line stays a line, whatever the names of series hold.
        message = " ".join(message.split())
        if self.as_json:
            entry = {"time": now, "level": level, "message": message, **facts}
            line = json.dumps(entry, default=str, ensure_ascii=False)
        else:
            told = " ".join(f"{key}={_shown(value)}" for key, value in facts.items())
            line = f"{now} {level:7} {message}" + (f" ({told})" if told else "")
        if not (self.quiet and level == "info"):
            self.stream.write(line + "\n")
            self.stream.flush()
        if self.file is not None:
            with self.file.open("a", encoding="utf-8") as file:
                file.write(line + "\n")


def _shown(value: Any) -> str:
    text = " ".join(str(value).split())
    return json.dumps(text, ensure_ascii=False) if " " in text or not text else text
