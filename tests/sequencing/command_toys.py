"""Small spectra and models for the tests of ``sciseq sequence``."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from sciseq.sequencing.fragments import fragment_ladder, residue_masses
from sciseq.sequencing.masses import WATER, mz_of
from sciseq.sequencing.mgf_files import write_mgf
from sciseq.sequencing.prediction import COLUMNS, SPECTRUM_COLUMNS
from sciseq.sequencing.residues import Vocabulary
from sciseq.sequencing.sequencer import PeptideSequencer
from sciseq.sequencing.spectra import Spectrum
from sciseq.sequencing.spectrum_files import read_spectra

TINY = {
    "d_model": 16,
    "d_ff": 16,
    "n_layers": 1,
    "n_heads": 2,
    "cross_epochs": 0,
    "n_peaks": 30,
    "most_residues": 15,
    "beam_size": 2,
}
SETTINGS = [part for name in TINY for part in ("--set", f"{name}={TINY[name]}")]


class Result(NamedTuple):
    code: int
    out: str
    err: str


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def make_spectrum(peptide: str, index: int, rng: np.random.Generator) -> Spectrum:
    """All a, b and y ions of a peptide, with random heights."""
    masses = residue_masses(peptide, Vocabulary())
    ions = fragment_ladder(masses, "aby")
    return Spectrum(
        ions.mz,
        rng.uniform(0.2, 1.0, len(ions)),
        precursor_mz=float(mz_of(masses.sum() + WATER, 2)),
        charge=2,
        identifier=f"index={index}",
        index=index,
        title=f"spectrum {index}",
        peptide=peptide,
        scan=1000 + index,
    )


def write_spectra(path: Path, n: int = 30, seed: int = 0) -> Path:
    """Write `n` spectra, and one more of two peaks that nothing can be made of."""
    rng = np.random.default_rng(seed)
    letters = list("GASPVTLNDQKEMHFRYW")
    peptides = ["".join(rng.choice(letters, rng.integers(10, 14))) for _ in range(n)]
    spectra = [make_spectrum(one, place, rng) for place, one in enumerate(peptides)]
    poor = Spectrum([200.0, 300.0], [1.0, 2.0], 450.2, 2, title="poor", peptide="GAVK")
    write_mgf([*spectra, poor], path)
    return path


class Stub:
    """Finds the peptide that the file names; stops after so many spectra."""

    def __init__(self, n_good: int = 10**9, error: type[BaseException] = OSError):
        self.n_good, self.error, self.n_done = n_good, error, 0
        self.vocabulary_ = Vocabulary()
        self.parameters = PeptideSequencer().get_params()

    def get_params(self):
        return self.parameters

    def set_params(self, **parameters):
        self.parameters = self.parameters | parameters
        return self

    def iter_rows(self, X):
        for record in read_spectra(X):
            if self.n_done == self.n_good:
                raise self.error("stopped")
            self.n_done += 1
            row = dict.fromkeys(COLUMNS)
            row |= {name: getattr(record, name) for name in SPECTRUM_COLUMNS}
            row["reason"] = ""
            if len(record.mz) < 5:
                row["reason"] = f"{len(record.mz)} peaks are left, 5 are needed"
            else:
                mass = float(residue_masses(record.peptide, self.vocabulary_).sum())
                row |= {
                    "peptide": record.peptide,
                    "score": 1 / (3 + record.index),
                    "residue_scores": [0.1 + 0.2] * len(record.peptide),
                    "calculated_mz": float(mz_of(mass + WATER, 2)),
                    "error_ppm": 0.0,
                }
            yield row
