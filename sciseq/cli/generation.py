"""What ``sciseq generate ...`` does: read, fit or load, generate or score, write."""

import contextlib
import csv
import gzip
import importlib
import io
import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from sciseq.cli.boundary import say
from sciseq.cli.outputs import check_file, check_outputs
from sciseq.cli.settings import parse_settings
from sciseq.errors import InputError, nearest_name
from sciseq.registry import METHODS, Method

__all__ = [
    "FitRequest",
    "SampleRequest",
    "ScoreRequest",
    "run_fit",
    "run_sample",
    "run_score",
]

_OPTIONS = {
    "device": "--device",
    "max_epochs": "--epochs",
    "random_state": "--seed",
    "verbose": "--verbose",
}
_KINDS = {".fa": "fasta", ".fasta": "fasta", ".txt": "text", ".csv": "csv"}


@dataclass(frozen=True, kw_only=True)
class FitRequest:
    """What the user asked for; see the help of the command."""

    data: Path
    out: Path
    method: str = "autoregressive"
    column: str | None = None
    condition: str | None = None
    epochs: int | None = None
    settings: list[str] = field(default_factory=list)
    seed: int = 0
    device: str = "auto"
    quiet: bool = False
    verbose: bool = False


@dataclass(frozen=True, kw_only=True)
class SampleRequest:
    """What the user asked for; see the help of the command."""

    model: Path
    out: Path
    n: int = 10
    condition: str | None = None
    template: str | None = None
    temperature: float = 1.0
    seed: int = 0
    device: str = "auto"
    quiet: bool = False


@dataclass(frozen=True, kw_only=True)
class ScoreRequest:
    """What the user asked for; see the help of the command."""

    model: Path
    data: Path
    out: Path
    column: str | None = None
    condition: str | None = None
    seed: int = 0
    device: str = "auto"
    quiet: bool = False


def run_fit(request: FitRequest) -> None:
    """Fit a generator on the sequences of a file, and save it.

    Parameters
    ----------
    request : FitRequest
        Data, method, output.

    Raises
    ------
    SciSeqError
        Before any work where possible; nothing was written.
    """
    if request.quiet and request.verbose:
        raise InputError("--quiet and --verbose contradict each other", where="options")
    method = _method(request.method)
    settings = parse_settings(request.settings, _OPTIONS)
    try:
        check_outputs(request.data, out=None, plot=None, save_model=request.out)
    except InputError as error:
        error.where = "--out"
        raise
    model = _make_model(method, settings, request)
    found = _read(request.data, request.column, request.condition)
    model.fit(found.sequences, found.labels)
    if model.stopped_ == "interrupted":
        raise KeyboardInterrupt
    model.set_params(verbose=0).save(request.out, overwrite=True)
    if not request.quiet:
        last = model.history_[-1]
        losses = ", ".join(
            f"{name.replace('_', ' ')} {last[name]:.4g}"
            for name in ("train_loss", "validation_loss")
            if name in last
        )
        say(f"sequences: {len(found)}; epochs: {len(model.history_)}, {losses}")
        say(f"model: {request.out}")


def run_sample(request: SampleRequest) -> None:
    """Generate sequences with a saved model.

    Parameters
    ----------
    request : SampleRequest
        Model and output.

    Raises
    ------
    SciSeqError
        Nothing was written.
    """
    kind = _kind(request.out, tuple(_KINDS.values()))
    check_file(request.out, request.model, "--out")
    model = _load(request.model, request.device)
    made = model.sample(
        None if request.template is not None and request.n == 1 else request.n,
        request.condition,
        template=request.template,
        temperature=request.temperature,
        random_state=request.seed,
    )
    rows = [("".join(map(str, one)),) for one in made]
    _write(request.out, kind, ("sequence",), rows)
    if not request.quiet:
        say(f"sequences: {len(rows)}, {len(set(rows))} different: {request.out}")


def run_score(request: ScoreRequest) -> None:
    """Write the log-likelihoods of the sequences of a file.

    Parameters
    ----------
    request : ScoreRequest
        Model, data and output.

    Raises
    ------
    SciSeqError
        Nothing was written.
    """
    kind = _kind(request.out, ("csv",))
    check_file(request.out, request.data, "--out")
    model = _load(request.model, request.device)
    found = _read(request.data, request.column, request.condition)
    values, errors = model.score_samples(
        found.sequences,
        found.labels,
        return_std=True,
        random_state=request.seed,
    )
    bits = [
        -value / (math.log(2) * max(len(one), 1))
        for value, one in zip(values, found.sequences, strict=True)
    ]
    head = ("id", "log_likelihood", "standard_error", "bits_per_token")
    rows = zip(found.ids, values.tolist(), errors.tolist(), bits, strict=True)
    _write(request.out, kind, head, list(rows))
    if not request.quiet:
        n_tokens = sum(map(len, found.sequences))
        mean = -float(values.sum()) / (math.log(2) * max(n_tokens, 1))
        say(f"sequences: {len(found)}, {mean:.4g} bits per token: {request.out}")


def _method(name: str) -> Method:
    # Baselines and recommenders do not take what the command line passes on.
    known = [
        method
        for method in METHODS
        if method.target.startswith("sciseq.generation.sequences.")
    ]
    for method in known:
        if name in (method.name, method.class_name):
            return method
    names = [method.name for method in known]
    raise InputError(
        f"no generator is called {name!r}, there are {', '.join(names)}",
        where="--method",
        hint=nearest_name(name, names) or None,
    )


def _make_model(method: Method, settings: dict[str, Any], request: FitRequest) -> Any:
    model = getattr(importlib.import_module(method.module_name), method.class_name)()
    if not (hasattr(model, "sample") and hasattr(model, "device")):
        raise InputError(
            f"{method.name} is fitted in Python, not on the command line",
            where="--method",
            hint=f"See sciseq.{method.class_name}.",
        )
    known = model.get_params()
    for name in settings:
        if name not in known:
            raise InputError(
                f"{method.name} has no parameter {name!r}, it has {', '.join(known)}",
                where="--set",
                hint=nearest_name(name, known) or None,
            )
    is_watched = request.verbose or (not request.quiet and sys.stderr.isatty())
    model.set_params(
        **settings,
        device=request.device,
        random_state=request.seed,
        verbose=int(is_watched),
    )
    if request.epochs is not None:
        model.set_params(max_epochs=request.epochs)
    return model


def _read(path: Path, column: str | None, condition: str | None) -> Any:
    from sciseq.data.sequence_files import read_sequences

    return read_sequences(path, column=column, label_column=condition)


def _load(path: Path, device: str) -> Any:
    from sciseq.persistence import load

    model = load(path)
    if not hasattr(model, "score_samples"):
        raise InputError(
            f"{path} holds a {type(model).__name__}, which generates no sequences",
            where="MODEL",
            hint="Give a model that `sciseq generate fit` has saved.",
        )
    return model.set_params(device=device)


def _kind(path: Path, allowed: Sequence[str]) -> str:
    name = path.name.removesuffix(".gz")
    kind = _KINDS.get(Path(name).suffix.lower())
    if kind is None or kind not in allowed:
        suffixes = sorted(one for one, value in _KINDS.items() if value in allowed)
        raise InputError(
            f"{path.name} has an unknown suffix",
            where="--out",
            hint=f"Known are {', '.join(suffixes)}, each also with .gz.",
        )
    return kind


def _write(
    path: Path, kind: str, head: Sequence[str], rows: Iterable[Sequence[Any]]
) -> None:
    from sciseq.files import temporary_path

    with temporary_path(path) as place, contextlib.ExitStack() as stack:
        raw: Any = stack.enter_context(place.open("wb"))
        if path.suffix == ".gz":  # without a name and a time: equal bytes each run
            raw = stack.enter_context(gzip.GzipFile("", "wb", 9, raw, 0))
        text = io.TextIOWrapper(raw, "utf-8", newline="")
        _write_rows(stack.enter_context(text), kind, head, rows)


def _write_rows(
    text: TextIO, kind: str, head: Sequence[str], rows: Iterable[Sequence[Any]]
) -> None:
    if kind == "csv":
        csv.writer(text, lineterminator="\n").writerows([head, *rows])
        return
    for number, (sequence, *_) in enumerate(rows, start=1):
        before = f">sample{number}\n" if kind == "fasta" else ""
        text.write(f"{before}{sequence}\n")
