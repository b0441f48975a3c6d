"""The command ``sciseq sequence train-default``: the recipe of the shipped model."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sciseq.cli.boundary import say
from sciseq.cli.sequence_files import check_new_model, check_spectra
from sciseq.errors import InputError

__all__ = ["TrainDefaultRequest", "run_train_default"]

_FEWEST = 100


@dataclass(frozen=True)
class TrainDefaultRequest:
    """What the user asked for; see the help of the command."""

    proteins: list[Path]
    out: Path
    exclude: list[Path] = field(default_factory=list)
    spectra: int | None = None
    workers: int = 1
    checkpoints: Path | None = None
    seed: int = 0
    device: str = "auto"
    quiet: bool = False
    verbose: bool = False


def run_train_default(request: TrainDefaultRequest) -> None:
    """Train the model that comes with the package, and save it.

    Parameters
    ----------
    request : TrainDefaultRequest
        Proteins, output, amount.
    """
    if request.quiet and request.verbose:
        raise InputError("--quiet and --verbose contradict each other", where="options")
    if request.spectra is not None and request.spectra < _FEWEST:
        raise InputError(
            f"--spectra is {request.spectra}, must be at least {_FEWEST}",
            where="--spectra",
        )
    for path in request.proteins:
        if not path.is_file():
            raise InputError(f"there is no file {path}", where="PROTEINS")
    if request.exclude:
        check_spectra(request.exclude, "--exclude")
    check_new_model(request.out, request.proteins[0])
    from sciseq.sequencing.default_model import default_training, save_default

    amounts: dict[str, Any] = {}
    if request.spectra is not None:
        amounts = {"n_spectra": request.spectra}
        amounts["n_candidate_spectra"] = min(2_000, request.spectra)
    model = default_training(
        request.proteins,
        request.exclude,
        random_state=request.seed,
        n_workers=request.workers,
        device=request.device,
        checkpoint_dir=request.checkpoints,
        verbose=int(request.verbose),
        **amounts,
    )
    if model.stopped_ == "interrupted":
        raise KeyboardInterrupt
    save_default(model, request.out, overwrite=True)
    if not request.quiet:
        say(f"model: {request.out}")
