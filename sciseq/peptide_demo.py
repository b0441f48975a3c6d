"""The peptide half of ``python -m sciseq.demo``: read spectra of random peptides."""

import sys
import time
from pathlib import Path

import numpy as np

from sciseq.plotting import plot_spectrum, save_figure
from sciseq.sequencing.demo import random_spectra
from sciseq.sequencing.evaluation import evaluate
from sciseq.sequencing.sequencer import PeptideSequencer

__all__ = ["read_peptides"]

N_SPECTRA = 50


def read_peptides(folder: Path) -> None:
    """Read the spectra with the model that comes with the package, and say how well.

    Parameters
    ----------
    folder : Path
        Where the table and the picture go.
    """
    spectra = random_spectra(N_SPECTRA)
    model = PeptideSequencer.pretrained(device="cpu")
    started = time.perf_counter()
    table = model.predict_table(spectra)
    seconds = time.perf_counter() - started
    truths = [str(one.peptide) for one in spectra]
    found = evaluate(truths, list(table["peptide"]), list(table["score"]))
    _say(
        f"\nPeptides of {N_SPECTRA} simulated spectra of random tryptic peptides, read "
        f"by the pretrained model ({model.beam_size} beams):"
    )
    _say(f"  peptide recall {found.peptide_recall:.2f}, all spectra counted")
    _say(f"  residues right {found.aa_precision:.2f} of those written")
    order = np.argsort(-table["score"].to_numpy(np.float64))[: N_SPECTRA // 5]
    right = float(np.asarray(found.is_match)[order].mean())
    _say(f"  of the {len(order)} with the highest scores {right:.2f} are right")
    _say(f"  {len(spectra) / seconds:.0f} spectra/s")
    best = int(np.nanargmax(table["score"].to_numpy(np.float64)))
    axes = plot_spectrum(spectra[best], str(table["peptide"][best]))
    table.to_csv(folder / "peptides.csv", index=False)
    save_figure(axes, folder / "spectrum.png")
    _say(f"Written: {folder / 'peptides.csv'}, {folder / 'spectrum.png'}")


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
