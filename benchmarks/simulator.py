"""Simulated against measured HCD spectra of the same peptides and charges.

Reads an annotated MGF (by default the measured Orbitrap HCD spectra that the ranges of
the simulator were fitted to), simulates one spectrum for each, and prints how complete
both are. "default" is one instrument, ``Physics()``; "ranges" draws another for every
spectrum, as `Simulator` does in training. At last the speed of `Simulator`.

    python benchmarks/simulator.py                  # of $SCISEQ_DATA/peptides
    python benchmarks/simulator.py other.mgf.gz --every 4
"""

import argparse
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from sciseq.errors import InputError
from sciseq.sequencing.residues import Vocabulary
from sciseq.sequencing.simulator import (
    Physics,
    Simulator,
    simulate_spectrum,
    statistics,
)
from sciseq.sequencing.simulator_statistics import ladder_peaks, merged_masses
from sciseq.sequencing.spectra import Spectrum
from sciseq.sequencing.spectrum_files import read_spectra

ROWS = {
    "evidence": "bonds with evidence",
    "b": "b hit rate",
    "y": "y hit rate",
    "signal": "share of signal in b/y",
    "complete": "every bond seen",
    "no_long_gap": "no gap above one bond",
    "peaks": "peaks",
    "n_spectra": "spectra",
}
GROUPS: dict[str, Callable[[Spectrum], bool]] = {
    "all": lambda one: True,
    "2+": lambda one: one.charge == 2 and not is_phospho(one),
    "3+": lambda one: one.charge == 3 and not is_phospho(one),
    "4+ and above": lambda one: (one.charge or 0) > 3 and not is_phospho(one),
    "phospho": lambda one: is_phospho(one),
}
SERIES = (("y", 14), ("b", 14), ("a", 6), ("y2+", 16), ("b2+", 16))
VOCABULARY = Vocabulary().with_modifications(["Phospho@STY"])


def is_phospho(spectrum: Spectrum) -> bool:
    """Whether some residue of the peptide is phosphorylated."""
    tokens = VOCABULARY.encode(spectrum.peptide or "")
    return any("Phospho" in VOCABULARY.tokens[token] for token in tokens)


def measured_spectra(path: Path, every: int) -> list[Spectrum]:
    """Return every so many annotated spectra that the vocabulary can express."""
    usable = []
    for number, spectrum in enumerate(read_spectra(path)):
        if number % every or not isinstance(spectrum, Spectrum):
            continue
        if spectrum.peptide is None or spectrum.charge is None:
            continue
        try:
            VOCABULARY.encode(spectrum.peptide)
        except InputError:
            continue
        usable.append(spectrum)
    return usable


def simulated(
    spectra: Sequence[Spectrum], physics: Physics | None, seed: int
) -> list[Spectrum]:
    """Simulate the peptides of `spectra` at their charges."""
    rng = np.random.default_rng(seed)
    return [
        simulate_spectrum(
            VOCABULARY.encode(one.peptide or ""),
            one.charge or 2,
            vocabulary=VOCABULARY,
            physics=physics or Physics.sample(rng),
            rng=rng,
        )
        for one in spectra
    ]


def presence(spectra: Sequence[Spectrum], series: str, most: int) -> list[float]:
    """Return in which share of spectra the ion of each number is there."""
    seen, counted = np.zeros(most), np.zeros(most)
    for spectrum in spectra:
        masses = merged_masses(VOCABULARY, spectrum.peptide or "")
        found = ladder_peaks(spectrum, masses)[series] >= 0
        # Numbers count from the terminus that is in the ion.
        found = (found[::-1] if series[0] == "y" else found)[:most]
        seen[: len(found)] += found
        counted[: len(found)] += 1
    return (seen / np.maximum(counted, 1)).tolist()


def print_statistics(sets: dict[str, list[Spectrum]]) -> None:
    """Print the statistics of each group of peptides."""
    for group, belongs in GROUPS.items():
        chosen = {name: [s for s in sets[name] if belongs(s)] for name in sets}
        if not chosen["measured"]:
            continue
        found = {name: statistics(chosen[name]) for name in chosen}
        print(f"\n{group:26s}" + "".join(f"{name:>10s}" for name in sets))
        for key, words in ROWS.items():
            digits = 0 if key in ("peaks", "n_spectra") else 3
            cells = (f"{found[name][key]:10.{digits}f}" for name in sets)
            print(f"  {words:24s}" + "".join(cells))


def print_positions(sets: dict[str, list[Spectrum]]) -> None:
    """Print how often the ion of each number is there, in percent."""
    for group in ("2+", "3+"):
        print(f"\n{group}: ions present, % of spectra, by number")
        for series, most in SERIES:
            for name, spectra in sets.items():
                chosen = [one for one in spectra if GROUPS[group](one)]
                shares = presence(chosen, series, most)
                cells = " ".join(f"{100 * share:3.0f}" for share in shares)
                print(f"  {series:4s}{name:10s}{cells}")


def print_speed(proteins: Path) -> None:
    """Print how fast spectra come for training on the fly."""
    start = time.process_time()
    simulator = Simulator(proteins)
    seconds = time.process_time() - start
    print(f"\n{simulator.n_peptides} peptides of {proteins.name} in {seconds:.1f} s")
    rng = np.random.default_rng(0)
    for size in (32, 1024):
        simulator.sample_arrays(size, rng)
        rounds = max(1, 2048 // size)
        start = time.process_time()
        for _ in range(rounds):
            simulator.sample_arrays(size, rng)
        rate = rounds * size / (time.process_time() - start)
        print(f"  {rate:6.0f} spectra per processor second in batches of {size}")


def main() -> None:
    """Print all tables."""
    folder = Path(os.environ.get("SCISEQ_DATA", "data")) / "peptides"
    parser = argparse.ArgumentParser(description=__doc__)
    usual = folder / "mass_simulator_experimental_hcd.mgf.gz"
    parser.add_argument("mgf", nargs="?", type=Path, default=usual)
    parser.add_argument("--every", type=int, default=1, help="take each n-th spectrum")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    measured = measured_spectra(arguments.mgf, arguments.every)
    sets = {
        "measured": measured,
        "default": simulated(measured, Physics(), arguments.seed),
        "ranges": simulated(measured, None, arguments.seed),
    }
    print_statistics(sets)
    print_positions(sets)
    print_speed(folder / "fasta_yeast_swissprot_2021_04.fasta.gz")


if __name__ == "__main__":
    main()
