"""The peptide half of ``python -m sciseq.demo``: read spectra of random peptides."""

import sys
import time
from pathlib import Path

import numpy as np

from sciseq.sequencing.residues import Vocabulary
from sciseq.sequencing.simulator import Simulator
from sciseq.sequencing.spectra import Spectrum

__all__ = ["main", "random_peptides", "random_spectra"]

N_SPECTRA = 50
# Shares of residues in proteins, roughly; I counts as L, and K and R end peptides.
_SHARES = {
    "A": 8.3, "D": 5.5, "E": 6.7, "F": 3.9, "G": 7.1, "H": 2.3, "L": 15.6, "M": 2.4,
    "N": 4.1, "P": 4.7, "Q": 3.9, "S": 6.6, "T": 5.4, "V": 6.9, "W": 1.1, "Y": 2.9,
    "C": 1.4,
}  # fmt: skip


def random_peptides(n: int, seed: int = 0) -> list[str]:
    """Return peptides as trypsin would cut them from proteins that do not exist.

    Parameters
    ----------
    n : int
        How many.
    seed : int, default=0
        Of the draws.

    Examples
    --------
    >>> random_peptides(2)
    ['FAATVNSLVTATASER', 'LGLADPR']
    """
    rng = np.random.default_rng(seed)
    letters = list(_SHARES)
    shares = np.array(list(_SHARES.values()))
    made = []
    for _ in range(n):
        inner = rng.choice(letters, rng.integers(6, 17), p=shares / shares.sum())
        made.append("".join(inner) + str(rng.choice(["K", "R"])))
    return made


def random_spectra(n: int, seed: int = 0) -> list[Spectrum]:
    """Return simulated HCD spectra of :func:`random_peptides`, one of each.

    Parameters
    ----------
    n : int
        How many.
    seed : int, default=0
        Of the draws.
    """
    rng = np.random.default_rng([seed, 1])
    vocabulary = Vocabulary()
    return [
        Simulator([peptide], vocabulary=vocabulary).sample(1, rng)[0]
        for peptide in random_peptides(n, seed)
    ]


def main(folder: Path) -> None:
    """Read the spectra with the model that comes with the package, and say how well.

    Parameters
    ----------
    folder : Path
        Where the table and the picture go.
    """
    from sciseq.plotting import plot_spectrum, save_figure
    from sciseq.sequencing.evaluation import evaluate
    from sciseq.sequencing.sequencer import PeptideSequencer

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
    sure = table["score"].to_numpy(np.float64) >= 0.9
    if sure.any():
        right = float(np.asarray(found.is_match)[sure].mean())
        _say(f"  of {sure.sum()} peptides with a score of 0.9 or more {right:.2f}")
    _say(f"  {len(spectra) / seconds:.0f} spectra/s")
    best = int(np.nanargmax(table["score"].to_numpy(np.float64)))
    axes = plot_spectrum(spectra[best], str(table["peptide"][best]))
    table.to_csv(folder / "peptides.csv", index=False)
    save_figure(axes, folder / "spectrum.png")
    _say(f"Written: {folder / 'peptides.csv'}, {folder / 'spectrum.png'}")


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
