"""The job file: TOML in, a checked :class:`Job` out, with every error told at once."""

import hashlib
import json
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from sciseq.errors import FileFormatError, InputError, nearest_name
from sciseq.parameters import Boolean, Instance, Integer, Option, Real
from sciseq.parameters import Rule as ParameterRule
from sciseq.registry import METHODS, method_by_name

__all__ = ["SCHEMA", "TASKS", "Field", "Job", "read_job"]

TASKS = ("fit", "forecast", "backtest", "sequence", "generate")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_PLACE = re.compile(r"\{(\w+)\}")
PLACES = ("as_of", "name", "run_id")

TEXT = Instance("a text", str)
TEXTS = Instance("a list of texts", list)
TABLE = Instance("a table", dict)
WAIT = Instance('a time span such as "1h" or "7D"', str)


class Field(NamedTuple):
    """One key of the job file.

    Parameters
    ----------
    rule : Rule
        What its value may be.
    default : object
        Its value when it is not given.
    meaning : str
        What it does, in a line.
    """

    rule: ParameterRule
    default: Any
    meaning: str


SCHEMA: dict[str, dict[str, Field]] = {
    "": {
        "name": Field(TEXT, None, "Name of the job: letters, digits, '.', '_', '-'."),
        "task": Field(Option(*TASKS), "forecast", "What to do."),
        "state": Field(TEXT, None, "Folder of models, records and logs; by default "
                       "NAME.state beside the job file."),
    },
    "source": {
        "path": Field(TEXT, None, "Table (.csv, .csv.gz, .tsv, .parquet, .nc, .zarr), "
                      "or spectra (.mgf, .mzML, .mzXML) for the task sequence."),
        "url_env": Field(TEXT, None, "Environment variable with the URL of a "
                         "database."),
        "table": Field(TEXT, None, "Table of the database."),
        "query": Field(TEXT, None, "Query of the database, instead of a table."),
        "field": Field(TEXT, None, "Variable of a NetCDF file or Zarr store whose "
                       "cells are the series, read by their chunks."),
        "time_column": Field(TEXT, None, "Column of times."),
        "series_column": Field(TEXT, None, "Column that names the series."),
        "drop": Field(TEXTS, [], "Columns to leave out."),
        "time_zone": Field(TEXT, None, "Time zone of times that carry none."),
        "daylight_saving": Field(
            Option("infer", "drop", "error"), "infer",
            "Local times that the change of clocks skips or repeats: tell repeated "
            "ones apart by their order, drop those that cannot be, or refuse."),
        "late_rows": Field(Option("use", "refuse"), "use", "Rows that came, or "
                           "changed, after an earlier run had read that time."),
    },
    "model": {
        "method": Field(TEXT, None, "Method to fit; see `sciseq methods`."),
        "path": Field(TEXT, None, "Saved model, instead of a method."),
        "settings": Field(TABLE, {}, "Parameters of the method."),
    },
    "forecast": {
        "coverage": Field(Real(0, 1, open_low=True, open_high=True), None,
                          "Adds the ends of an interval of this coverage."),
    },
    "backtest": {
        "origins": Field(Integer(1), 10, "Origins to forecast from."),
        "stride": Field(Integer(1), 1, "Rows between origins."),
        "metrics": Field(TEXTS, ["mae", "rmse", "mase"], "Metrics to report."),
    },
    "generate": {
        "n": Field(Integer(1), 100, "Sequences to draw."),
    },
    "destination": {
        "path": Field(TEXT, None, "File to write; {as_of}, {name} and {run_id} in it "
                      "are filled in."),
        "url_env": Field(TEXT, None, "Environment variable with the URL of a "
                         "database."),
        "table": Field(TEXT, None, "Table of the database."),
    },
    "retrain": {
        "when": Field(Option("missing", "always", "never"), "missing",
                      "Fit when there is no model, at every run, or never."),
        "every": Field(WAIT, None, "Fit when the model is older than this."),
        "drift": Field(Real(0, open_low=True), None, "Fit when realised errors are "
                       "this many times those of the quality gate."),
        "drift_runs": Field(Integer(1), 5, "Latest runs that drift looks at."),
    },
    "gates": {
        "against": Field(TEXTS, [], "Stop when a new model is worse than: "
                         "'previous', 'seasonal-naive', 'last-value'."),
        "metric": Field(Option("mae", "rmse", "mase"), "mae", "Error to compare."),
        "origins": Field(Integer(1), 10, "Origins, at the end, to forecast from."),
        "tolerance": Field(Real(0), 0.0, "Share by which it may be worse."),
        "on_failure": Field(Option("stop", "keep"), "stop", "Stop, or go on with the "
                            "model there was."),
    },
    "work": {
        "series_per_part": Field(Integer(1), 500, "Series in a part."),
        "spectra_per_part": Field(Integer(1), 1000, "Spectra in a part."),
        "sequences_per_part": Field(Integer(1), 1000, "Sequences in a part."),
        "n_jobs": Field(Integer(1), 1, "Processes on this machine."),
        "threads": Field(Integer(1), 1, "Threads of each process."),
        "scheduler": Field(TEXT, None, "Address of a Dask scheduler, or 'local'."),
    },
    "keep": {
        "runs": Field(Integer(1), 1000, "Runs whose records and forecasts are kept."),
    },
    "log": {
        "format": Field(Option("lines", "json"), "lines", "Form of the log."),
        "report": Field(Boolean(), True, "Write a report of each run, one HTML file."),
    },
}  # fmt: skip
"""Every key of a job file by section."""

_GATES = ("previous", "seasonal-naive", "last-value")


@dataclass(frozen=True)
class Job:
    """A checked job.

    Parameters
    ----------
    name, task : str
        From the top of the file.
    folder : Path
        Folder of the job file: other paths start there.
    state : Path
        Folder of models, records and logs.
    sections : mapping
        Values by section and key, defaults filled in.
    """

    name: str
    task: str
    folder: Path
    state: Path
    sections: Mapping[str, Mapping[str, Any]]

    def __getitem__(self, section: str) -> Mapping[str, Any]:
        return self.sections[section]

    @property
    def digest(self) -> str:
        """Hash of all that determines results; not of how the work is spread."""
        free = ("work", "log", "keep")
        content = {key: one for key, one in self.sections.items() if key not in free}
        # Dates of TOML are told by their text.
        text = json.dumps([self.name, self.task, content], sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()

    def path(self, text: str) -> Path:
        """Return a path of the job file, which starts at its folder."""
        return self.folder / Path(text).expanduser()


def read_job(path: str | os.PathLike[str]) -> Job:
    """Read and check a job file.

    Parameters
    ----------
    path : path-like
        TOML file; :data:`SCHEMA` lists its keys.

    Returns
    -------
    Job
        With the defaults filled in.

    Raises
    ------
    FileFormatError
        When it is no TOML.
    InputError
        When it is not there; or with everything that is wrong in it.

    Examples
    --------
    >>> import tempfile
    >>> text = '''name = "load"
    ... source.path = "load.csv"
    ... model.method = "naive"
    ... destination.path = "{as_of}.csv"'''
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "job.toml").write_text(text)
    ...     read_job(Path(folder, "job.toml"))["gates"]["metric"]
    'mae'
    """
    file = Path(path)
    try:
        content = tomllib.loads(file.read_text("utf-8-sig"))  # Windows marks it
    except FileNotFoundError as error:
        raise InputError("there is no such job file", where=str(file)) from error
    except ValueError as error:  # wrong encodings are such, too
        raise FileFormatError(
            f"this is no TOML: {error}", where=str(file), hint='Write name = "value".'
        ) from error
    problems: list[str] = []
    sections = _sections(content, problems)
    top = sections.pop("")
    _check_top(top, problems)
    _check_relations(top["task"], sections, problems)
    if problems:
        raise InputError(
            _numbered(problems),
            where=str(file),
            hint="`sciseq run --keys` lists all keys.",
        )
    folder = file.absolute().parent
    state = folder / Path(top["state"] or f"{top['name']}.state").expanduser()
    return Job(top["name"], top["task"], folder, state, sections)


def _numbered(problems: list[str]) -> str:
    if len(problems) == 1:
        return problems[0]
    listed = "; ".join(f"({n}) {one}" for n, one in enumerate(problems, 1))
    return f"{len(problems)} problems: {listed}"


def _sections(content: dict[str, Any], problems: list[str]) -> dict[str, Any]:
    """Fill in defaults; note keys that are unknown and values that are not allowed."""
    given: dict[str, Any] = {"": {}}
    for name, value in content.items():
        if name in SCHEMA and name:
            given[name] = value if isinstance(value, dict) else {}
            if not isinstance(value, dict):
                problems.append(f"{name} must be a section: write [{name}]")
        elif name in SCHEMA[""]:
            given[""][name] = value
        else:
            known = [*SCHEMA[""], *filter(None, SCHEMA)]
            problems.append(_unknown(name, known))
    return {
        section: _values(section, given.get(section, {}), problems)
        for section in SCHEMA
    }


def _values(section: str, given: dict[str, Any], problems: list[str]) -> dict[str, Any]:
    fields = SCHEMA[section]
    place = f"{section}." if section else ""
    for key, value in given.items():
        if key not in fields:
            problems.append(_unknown(f"{place}{key}", [place + one for one in fields]))
        elif not _allows(fields[key].rule, value):
            rule = fields[key].rule
            guess = nearest_name(str(value), getattr(rule, "names", ()))
            problems.append(
                f"{place}{key} = {value!r} is not allowed: must be {rule.describe()}"
                + (f". {guess}" if guess else "")
            )
    return {key: given.get(key, field.default) for key, field in fields.items()}


def _allows(rule: ParameterRule, value: Any) -> bool:
    if rule is TEXTS:
        return isinstance(value, list) and all(isinstance(one, str) for one in value)
    return rule.allows(value)


def _unknown(name: str, known: list[str]) -> str:
    guess = nearest_name(name, known)
    return f"there is no key {name!r}" + (f". {guess}" if guess else "")


def _check_top(top: dict[str, Any], problems: list[str]) -> None:
    if top["name"] is None:
        problems.append("name is missing")
    elif not isinstance(top["name"], str) or not _NAME.fullmatch(top["name"]):
        problems.append(
            f"name = {top['name']!r} is not allowed: letters, digits, '.', '_' and '-'"
        )


def _check_relations(
    task: Any, sections: dict[str, dict[str, Any]], problems: list[str]
) -> None:
    """Note what does not fit together."""
    source, model = sections["source"], sections["model"]
    if task in TASKS:
        _check_source(task, source, model, problems)
        _check_model(task, model, problems)
    _check_destination(task, sections["destination"], problems)
    _check_spans(sections, problems)
    if task == "backtest":
        _check_metrics(sections["backtest"]["metrics"], problems)
    gates = sections["gates"]["against"]
    _check_names("gates.against", gates, _GATES, problems)
    if gates and task not in ("fit", "forecast"):
        problems.append(f"gates judge forecasters; task = {task!r} has none to fit")


def _check_source(
    task: str, source: dict[str, Any], model: dict[str, Any], problems: list[str]
) -> None:
    given = [key for key in ("path", "url_env") if source[key] is not None]
    is_needed = task != "generate" or model["path"] is None
    if len(given) != 1 and (given or is_needed):
        problems.append("source needs either path or url_env")
    if source["field"] is not None and not str(source["path"]).endswith(
        (".nc", ".nc4", ".zarr")
    ):
        problems.append("source.field needs a source.path that ends in .nc or .zarr")
    if source["field"] is not None:
        problems.extend(
            f"source.{key} does not go with source.field: the times and cells of a "
            "field are taken as they are"
            for key in ("time_zone", "time_column", "series_column", "drop")
            if source[key]
        )
    if source["url_env"] is not None:
        if (source["table"] is None) == (source["query"] is None):
            problems.append("source.url_env needs either source.table or source.query")
        if source["time_column"] is None:
            problems.append("source.url_env needs source.time_column")
        if task == "sequence":
            problems.append("spectra are read from files: give source.path")
    elif source["table"] is not None or source["query"] is not None:
        problems.append("source.table and source.query need source.url_env")


def _check_model(task: str, model: dict[str, Any], problems: list[str]) -> None:
    if task == "sequence" and model["method"] is None and model["path"] is None:
        return  # the pretrained one
    if (model["method"] is None) == (model["path"] is None):
        problems.append("model needs either method or path")
        return
    if model["path"] is not None:
        if task == "fit":
            problems.append("task = 'fit' needs model.method")
        if model["settings"]:
            problems.append("model.settings need model.method: a saved model has its "
                            "own")  # fmt: skip
        return
    kind = {"sequence": "sequencing", "generate": "generation"}.get(task, "forecasting")
    method = method_by_name(str(model["method"]))
    if task == "fit" and method is not None and method.data == "sequencing":
        problems.append("a job learns from no spectra: `sciseq sequence train` does")
    elif method is None or (method.data != kind and task != "fit"):
        names = [one.name for one in METHODS if one.data == kind]
        guess = nearest_name(str(model["method"]), names)
        problems.append(
            f"model.method = {model['method']!r} is no method for {kind}"
            + (f". {guess}" if guess else "; `sciseq methods` lists them")
        )
    elif task == "sequence":
        problems.append("spectra are sequenced with a saved model: give model.path, or "
                        "neither for the pretrained one")  # fmt: skip


def _check_destination(task: Any, place: dict[str, Any], problems: list[str]) -> None:
    given = [key for key in ("path", "url_env") if place[key] is not None]
    if task == "fit":
        if given:
            problems.append("task = 'fit' writes its model into the state folder: "
                            "leave the destination out")  # fmt: skip
        return
    if len(given) != 1:
        problems.append("destination needs either path or url_env")
    if (place["url_env"] is None) != (place["table"] is None):
        problems.append("destination.url_env and destination.table go together")
    if task in ("sequence", "generate", "backtest") and place["url_env"] is not None:
        problems.append(f"a database takes forecasts: task = {task!r} writes files")
    if isinstance(place["path"], str):
        allowed = ", ".join(f"{{{one}}}" for one in PLACES)
        problems.extend(
            f"destination.path holds {{{name}}}, allowed are {allowed}"
            for name in _PLACE.findall(place["path"])
            if name not in PLACES
        )


def _check_metrics(names: Any, problems: list[str]) -> None:
    from sciseq.metrics import METRICS

    known = [name for name, one in METRICS.items() if one.judges == "forecast"]
    _check_names("backtest.metrics", names, known, problems)


def _check_names(
    key: str, names: Any, allowed: Sequence[str], problems: list[str]
) -> None:
    for name in names if isinstance(names, list) else ():
        if name not in allowed:
            guess = nearest_name(str(name), allowed)
            problems.append(
                f"{key} holds {name!r}, allowed are {', '.join(allowed)}"
                + (f". {guess}" if guess else "")
            )


def _check_spans(sections: dict[str, dict[str, Any]], problems: list[str]) -> None:
    every = sections["retrain"]["every"]
    if isinstance(every, str):
        import pandas as pd

        try:
            is_positive = pd.Timedelta(every) > pd.Timedelta(0)
        except ValueError:
            is_positive = False
        if not is_positive:
            problems.append(
                f"retrain.every = {every!r} is not allowed: must be {WAIT.describe()}"
            )


def fill_places(text: str, values: Mapping[str, str]) -> str:
    """Fill {as_of}, {name} and {run_id} into a path.

    Examples
    --------
    >>> fill_places("out/{name}-{as_of}.csv", {"name": "load", "as_of": "2024-05-01"})
    'out/load-2024-05-01.csv'
    """
    return _PLACE.sub(lambda found: values[found.group(1)], text)


def key_list() -> str:
    """Return all keys with their meanings, for the command line and the docs."""
    lines = []
    for section, fields in SCHEMA.items():
        if section:
            lines += ["", f"[{section}]"]
        for key, field in fields.items():
            default = "" if field.default in (None, [], {}) else f" ({field.default})"
            lines.append(f"{key:18} {field.meaning}{default}")
    return "\n".join(lines)
