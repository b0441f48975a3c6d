"""The command ``sciseq sequence train``: read, fit, save, score."""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sciseq.cli.boundary import say
from sciseq.cli.sequence_files import check_new_model, check_spectra
from sciseq.cli.settings import parse_settings
from sciseq.errors import InputError, nearest_name

__all__ = ["TrainRequest", "run_train"]

_OPTIONS = {
    "decoder": "--decoder",
    "device": "--device",
    "max_epochs": "--epochs",
    "modifications": "--modifications",
    "random_state": "--seed",
    "verbose": "--verbose",
}


@dataclass(frozen=True)
class TrainRequest:
    """What the user asked for; see the help of the command."""

    spectra: list[Path]
    out: Path
    validation: list[Path] = field(default_factory=list)
    decoder: str | None = None
    modifications: list[str] = field(default_factory=list)
    epochs: int | None = None
    settings: list[str] = field(default_factory=list)
    seed: int = 0
    device: str = "auto"
    quiet: bool = False
    verbose: bool = False


def run_train(request: TrainRequest) -> None:
    """Fit a sequencer on annotated spectra and save it.

    Parameters
    ----------
    request : TrainRequest
        Spectra, model, output.

    Raises
    ------
    SciSeqError
        Before any work where possible; nothing was written.
    """
    if request.quiet and request.verbose:
        raise InputError("--quiet and --verbose contradict each other", where="options")
    settings = parse_settings(request.settings, _OPTIONS)
    check_spectra(request.spectra)
    if request.validation:
        check_spectra([*request.spectra, *request.validation], "--validation")
    check_new_model(request.out, request.spectra[0])
    model = _make_model(settings, request)
    truths = None
    if request.validation:
        from sciseq.cli.sequence_evaluation import read_truths

        truths = read_truths(request.validation, "--validation")
    model.fit(request.spectra)
    if model.stopped_ == "interrupted":
        # A script keeps the best weights so far; a command that was stopped must not
        # look as if it had finished.
        raise KeyboardInterrupt
    model.set_params(verbose=0).save(request.out, overwrite=True)
    if not request.quiet:
        _report(model, request)
    if truths is not None:
        from sciseq.cli.sequence_evaluation import evaluate_model, write_evaluation

        evaluation = evaluate_model(
            model, request.validation, truths, quiet=request.quiet
        )
        write_evaluation(evaluation)


def _make_model(settings: dict[str, Any], request: TrainRequest) -> Any:
    from sciseq.sequencing.sequencer import PeptideSequencer

    model = PeptideSequencer()
    known = model.get_params()
    for name in settings:
        if name not in known:
            raise InputError(
                f"the sequencer has no parameter {name!r}, it has {', '.join(known)}",
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
    if request.decoder is not None:
        model.set_params(decoder=request.decoder)
    if request.epochs is not None:
        model.set_params(max_epochs=request.epochs)
    if request.modifications:
        model.set_params(modifications=request.modifications)
    return model


def _report(model: Any, request: TrainRequest) -> None:
    last = model.history_[-1]
    losses = ", ".join(
        f"{name.replace('_', ' ')} {last[name]:.4g}"
        for name in ("train_loss", "validation_loss")
        if name in last
    )
    say(f"epochs: {len(model.history_)}, in the last one {losses}")
    say(f"weights: {model.n_parameters_}")
    say(f"model: {request.out}")
