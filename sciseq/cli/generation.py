"""What ``sciseq generate ...`` does: read, fit or load, generate or score, write."""

import json
import math
import sys
from dataclasses import dataclass, field
from inspect import signature
from pathlib import Path
from typing import Any

from sciseq.cli.boundary import say
from sciseq.cli.generation_files import (
    output_kind,
    read_found,
    write_sequences,
    write_table,
)
from sciseq.cli.generation_models import (
    as_conditions,
    find_method,
    load_generator,
    method_class,
    options_for,
    told_by_options,
)
from sciseq.cli.outputs import check_file, check_outputs
from sciseq.cli.settings import parse_settings
from sciseq.errors import InputError, nearest_name
from sciseq.registry import Method

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
    method = find_method(request.method)
    settings = parse_settings(request.settings, _OPTIONS)
    try:
        check_outputs(request.data, out=None, plot=None, save_model=request.out)
    except InputError as error:
        error.where = "--out"
        raise
    model = _make_model(method, settings, request)
    found = read_found(request.data, request.column, request.condition)
    with told_by_options(str(request.data)):
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
    kind = output_kind(request.out)
    check_file(request.out, request.model, "--out")
    model = load_generator(request.model, request.device)
    words = None if request.condition is None else [request.condition]
    given = {
        "condition": as_conditions(model, words),
        "template": request.template,
        "temperature": request.temperature if request.temperature != 1 else None,
    }
    options = options_for(model.sample, given)
    n = None if request.template is not None and request.n == 1 else request.n
    with told_by_options("--template"):
        made = model.sample(n, random_state=request.seed, **options)
    rows = made.tolist() if hasattr(made, "tolist") else made
    write_sequences(request.out, kind, rows)
    if not request.quiet:
        n_different = len(set(map(json.dumps, rows)))
        say(f"sequences: {len(rows)}, {n_different} different: {request.out}")


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
    output_kind(request.out, (".csv",))
    check_file(request.out, request.data, "--out")
    model = load_generator(request.model, request.device)
    found = read_found(request.data, request.column, request.condition)
    values, errors = _scores(model, found, request)
    sizes = [_n_tokens(one) for one in found.sequences]
    bits = [
        -value / (math.log(2) * max(size, 1))
        for value, size in zip(values, sizes, strict=True)
    ]
    head = ("id", "log_likelihood", "standard_error", "bits_per_token")
    rows = zip(found.ids, values.tolist(), errors.tolist(), bits, strict=True)
    write_table(request.out, head, rows)
    if not request.quiet:
        mean = -float(values.sum()) / (math.log(2) * max(sum(sizes), 1))
        say(f"sequences: {len(found)}, {mean:.4g} bits per token: {request.out}")


def _scores(model: Any, found: Any, request: ScoreRequest) -> Any:
    """Return log-likelihoods and their standard errors, 0 where they are exact."""
    given = {"condition": as_conditions(model, found.labels)}
    options = options_for(model.score_samples, given)
    taken = signature(model.score_samples).parameters
    for name, value in (("return_std", True), ("random_state", request.seed)):
        if name in taken:
            options[name] = value
    with told_by_options(str(request.data)):
        scores = model.score_samples(found.sequences, **options)
    return scores if "return_std" in taken else (scores, 0 * scores)


def _make_model(method: Method, settings: dict[str, Any], request: FitRequest) -> Any:
    model = method_class(method)()
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


def _n_tokens(sequence: Any) -> int:
    """Count tokens: of a string, a list, or a list of rows."""
    is_rows = bool(sequence) and isinstance(sequence[0], list)
    return sum(map(len, sequence)) if is_rows else len(sequence)
