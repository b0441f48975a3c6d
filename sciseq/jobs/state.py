"""What a job keeps between runs: a lock, models, records, and finished parts.

Everything is verified by its SHA-256 when it is used again, not by its name.
"""

import contextlib
import hashlib
import io
import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from sciseq.errors import CheckpointError, FileFormatError
from sciseq.files import remove_all_leftovers, sha256_of, write_atomic
from sciseq.jobs.exit_codes import LockedError

if sys.platform != "win32":
    import fcntl

__all__ = ["JobState", "RunFolder", "file_digest", "short_hash", "write_json"]


def short_hash(*things: Any) -> str:
    """Return 16 hexadecimal digits that stand for some JSON-like things."""
    text = json.dumps(things, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file, or of all files in a folder with their names."""
    if path.is_dir():
        names = sorted(one for one in path.rglob("*") if one.is_file())
        listed = [(str(one.relative_to(path)), file_digest(one)) for one in names]
        return sha256_of(json.dumps(listed).encode())
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: Path, content: Any) -> None:
    """Write JSON atomically; the same content gives the same bytes."""
    text = json.dumps(content, indent=1, ensure_ascii=False, default=str)
    write_atomic(path, (text + "\n").encode("utf-8", "surrogatepass"))


# Without these keys it is no record, or no card of a model, but something damaged.
_RECORD = ("job", "run_id", "as_of", "source", "model_version", "destination",
           "exit_code", "status")  # fmt: skip
_CARD = ("version", "digest", "settings", "trained_as_of")


def _read_dict(path: Path, keys: tuple[str, ...]) -> dict[str, Any] | None:
    found = read_json(path)
    is_whole = isinstance(found, dict) and all(key in found for key in keys)
    return dict(found) if is_whole else None


def read_json(path: Path) -> Any:
    """Return the content of a JSON file, or None when it is missing or damaged."""
    try:
        return json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None


class JobState:
    """The state folder of a job.

    Parameters
    ----------
    root : Path
        Made when it is needed.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.errors_file = root / "errors.parquet"

    def prepare(self) -> None:
        """Make the folder and its rooms."""
        for name in ("runs", "models"):
            (self.root / name).mkdir(parents=True, exist_ok=True)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the lock of the job; the system frees it when the process ends.

        Raises
        ------
        LockedError
            When another run holds it.
        """
        with (self.root / "lock").open("a+") as file:
            if sys.platform != "win32":
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError as error:
                    file.seek(0)
                    raise LockedError(
                        f"another run of this job is under way ({file.read().strip()})",
                        where=str(self.root / "lock"),
                        hint="Wait for it; a run that was killed holds no lock.",
                    ) from error
            file.truncate(0)
            file.write(f"process {os.getpid()}\n")
            file.flush()
            yield

    def clean(self, run: "RunFolder") -> None:
        """Remove what a killed run has left; for the holder of the lock."""
        for folder in (self.root, self.root / "models", run.path, run.parts):
            remove_all_leftovers(folder)
        for folder in (self.root / "models").glob(".*.part"):
            shutil.rmtree(folder)

    def run(self, run_id: str) -> "RunFolder":
        """Return the folder of a run."""
        return RunFolder(self.root / "runs" / run_id)

    def records(self) -> list[dict[str, Any]]:
        """Return the records of finished runs, by logical date."""
        found = [
            _read_dict(one / "record.json", _RECORD)
            for one in sorted((self.root / "runs").glob("*"))
        ]
        return sorted(
            (one for one in found if one is not None),
            key=lambda one: (moment(one["as_of"]), one["run_id"]),
        )

    # ------------------------------------------------------------------------ models

    def models(self) -> list[dict[str, Any]]:
        """Return the cards of the models, oldest first."""
        files = (self.root / "models").glob("*.json")
        cards = [_read_dict(one, _CARD) for one in files]
        return sorted(
            (one for one in cards if one is not None),
            key=lambda one: (moment(one["trained_as_of"]), one["version"]),
        )

    def models_before(self, as_of: Any) -> list[dict[str, Any]]:
        """Return the cards of the models of earlier logical dates, newest first."""
        seen = [one for one in self.models() if moment(one["trained_as_of"]) < as_of]
        return seen[::-1]

    def holds(self, card: dict[str, Any]) -> bool:
        """Tell whether the model of a card is there, and whole."""
        path = self.model_path(card["version"])
        return path.is_dir() and file_digest(path) == card["digest"]

    def model_path(self, version: str) -> Path:
        """Return where a model is."""
        return self.root / "models" / version

    def add_model(self, card: dict[str, Any], folder: Path) -> None:
        """Take a fitted model over; its card comes last, and makes it count."""
        target = self.model_path(card["version"])
        if not self.holds(card):
            shutil.rmtree(target, ignore_errors=True)
            part = target.with_name(f".{target.name}.part")
            shutil.rmtree(part, ignore_errors=True)
            shutil.copytree(folder, part)
            part.rename(target)
        write_json(target.with_name(f"{card['version']}.json"), card)

    def keep_runs(self, number: int) -> list[str]:
        """Remove all but the latest runs, and models that none of those needs."""
        records = self.records()
        dropped = [one["run_id"] for one in records[:-number]]
        for run_id in dropped:
            shutil.rmtree(self.run(run_id).path)
        kept = records[-number:]
        used = {one["model_version"] for one in kept}
        if kept:  # the name of the oldest one depends on the model before it
            before = self.models_before(moment(kept[0]["as_of"]))
            used |= {one["version"] for one in before[:1]}
        for card in self.models()[:-1]:
            if dropped and card["version"] not in used:
                path = self.model_path(card["version"])
                path.with_name(f"{card['version']}.json").unlink()
                shutil.rmtree(path, ignore_errors=True)
        return dropped


class RunFolder:
    """Parts and record of one run.

    Parameters
    ----------
    path : Path
        Folder of the run.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.parts = path / "parts"
        self.candidate = path / "candidate"
        self.checkpoints = path / "checkpoints"
        self.output = path / "output.parquet"
        self.report = path / "report.html"

    def prepare(self) -> None:
        """Make the folder."""
        self.parts.mkdir(parents=True, exist_ok=True)

    def record(self) -> dict[str, Any] | None:
        """Return the record, when the run had finished."""
        return _read_dict(self.path / "record.json", _RECORD)

    def has_output(self, record: Mapping[str, Any]) -> bool:
        """Tell whether the copy of the result is there, and whole."""
        digest = record.get("output")
        return self.output.is_file() and file_digest(self.output) == digest

    def finish(self, record: dict[str, Any]) -> None:
        """Write the record, which makes the run finished, and drop what it replaces."""
        write_json(self.path / "record.json", record)
        self.clean()

    def clean(self) -> None:
        """Remove what only an unfinished run needs."""
        for folder in (self.parts, self.candidate, self.checkpoints):
            shutil.rmtree(folder, ignore_errors=True)

    def store_part(self, number: int, frame: Any, facts: dict[str, Any]) -> None:
        """Write a finished part; its hash comes last, and makes it count."""
        buffer = io.BytesIO()
        frame.to_parquet(buffer)
        content = buffer.getvalue()
        path = self._part(number)
        write_atomic(path, content)
        facts = {**facts, "sha256": sha256_of(content)}
        write_json(path.with_suffix(".json"), facts)

    def keep_parts_of(self, plan: dict[str, Any]) -> list[int]:
        """Return the finished parts of a plan; those of another one are dropped."""
        note = self.parts / "plan"
        if read_json(note) != plan:
            shutil.rmtree(self.parts)
            self.parts.mkdir()
            write_json(note, plan)
        return self.finished_parts()

    def finished_parts(self) -> list[int]:
        """Return the numbers of the parts that are there and whole."""
        numbers = []
        for note in sorted(self.parts.glob("*.json")):
            facts, path = read_json(note), note.with_suffix(".parquet")
            is_whole = (
                facts is not None
                and path.exists()
                and file_digest(path) == facts.get("sha256")
            )
            if is_whole:
                numbers.append(int(note.stem))
        return numbers

    def read_part(self, number: int) -> tuple[Any, dict[str, Any]]:
        """Return a finished part and its facts.

        Raises
        ------
        CheckpointError
            When it has been damaged since.
        """
        path = self._part(number)
        facts = read_json(path.with_suffix(".json"))
        content = path.read_bytes()
        if facts is None or sha256_of(content) != facts["sha256"]:
            raise CheckpointError(
                f"part {number} was damaged after it had been written",
                where=str(path),
                hint="Run the job again: the part is made anew.",
            )
        return pd.read_parquet(io.BytesIO(content)), facts

    def _part(self, number: int) -> Path:
        return self.parts / f"{number:06d}.parquet"


def moment(text: str) -> Any:
    """Return a logical date as it stands in a record: a time, or a number of a row."""
    if text.lstrip("-").isdigit():
        return int(text)
    try:
        return pd.Timestamp(text)
    except ValueError as error:
        raise FileFormatError(f"{text!r} is no logical date", where="record") from error
