"""The command ``sciseq sequence calibrate``: read, predict, compare, save."""

from dataclasses import dataclass
from pathlib import Path

from sciseq.cli.boundary import say
from sciseq.cli.sequence_evaluation import read_truths
from sciseq.cli.sequence_files import check_new_model, check_spectra, load_sequencer
from sciseq.sequencing.spectrum_files import read_spectra

__all__ = ["CalibrateRequest", "run_calibrate"]


@dataclass(frozen=True)
class CalibrateRequest:
    """What the user asked for; see the help of the command."""

    spectra: list[Path]
    model: Path
    out: Path
    beam_size: int | None = None
    device: str = "auto"
    quiet: bool = False


def run_calibrate(request: CalibrateRequest) -> None:
    """Calibrate a saved model on annotated spectra, and save the result.

    Parameters
    ----------
    request : CalibrateRequest
        Spectra, model, output.

    Raises
    ------
    SciSeqError
        Nothing was written.
    """
    check_spectra(request.spectra)
    check_new_model(request.out, request.spectra[0])
    model = load_sequencer(request.model, request.device)
    if request.beam_size is not None:
        model.set_params(beam_size=request.beam_size)
    read_truths(request.spectra)  # refuses spectra without peptides, or warns of some
    known = [one for one in read_spectra(request.spectra) if one.peptide is not None]
    if not request.quiet:
        say(f"reading {len(known)} annotated spectra")
    model.calibrate(known)
    # As `train` saves it: whoever reads it computes where they can.
    model.set_params(device=request.device).save(request.out, overwrite=True)
    if not request.quiet:
        least, most = (model.calibration_.probabilities[one] for one in (0, -1))
        say(f"probabilities: {least:.3f} to {most:.3f}")
        say(f"model: {request.out}")
