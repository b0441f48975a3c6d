"""Make the pictures of docs/peptides.md.

Spectra, proteins and their licences are those of the data folder: 82 FTMS spectra of
synthetic peptides and a library of bovine serum albumin, both under Apache-2.0.

    python docs/pictures/make_peptide_pictures.py --model benchmarks/cache/peptide_fdr/0

The model is any fitted sequencer, by default the one that ``benchmarks/peptide_fdr.py``
keeps. Needs ``$SCISEQ_DATA``.
"""

import argparse
import os
import shutil
from pathlib import Path

import sciseq
from sciseq.plotting import (
    plot_mirror,
    plot_precision_coverage,
    plot_protein_coverage,
    plot_residue_confidence,
    plot_spectrum,
    save_figure,
)
from sciseq.sequencing.evaluation import evaluate
from sciseq.sequencing.protein_matches import match_proteins
from sciseq.sequencing.spectrum_files import read_spectra

HERE = Path(__file__).parent
BENCHMARKS = HERE.parents[1] / "benchmarks"
MODEL = BENCHMARKS / "cache/peptide_fdr/0"
SHOWN, MIRRORED = "LTDELLSEYYK/2", "VSSIFFDTFDK/2"
EVERY = 12  # of the peptides of the library, for a picture of few rows


def main() -> None:
    """Run the command line."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--model", type=Path, default=MODEL)
    model = sciseq.load(options.parse_args().model)
    data = Path(os.environ["SCISEQ_DATA"]) / "peptides"
    spectra = [
        one
        for one in read_spectra(data / "ftms_hcd20_annotated_82.msp.gz")
        if (one.charge or 0) > 1
    ]
    titles = [one.title for one in spectra]
    shown, mirrored = spectra[titles.index(SHOWN)], spectra[titles.index(MIRRORED)]
    save_figure(plot_spectrum(shown), HERE / "spectrum.png")
    save_figure(plot_mirror(mirrored, str(mirrored.peptide)), HERE / "mirror.png")
    table = model.predict_table(spectra)
    row = table.iloc[titles.index(SHOWN)]
    save_figure(plot_residue_confidence(row), HERE / "residue-confidence.png")
    truths = [str(one.peptide) for one in spectra]
    evaluation = evaluate(truths, table["peptide"], table["score"])
    axis = plot_precision_coverage({"small network": evaluation})
    save_figure(axis, HERE / "precision-coverage.png")
    library = read_spectra(data / "nist_bsa_consensus_iontrap.msp.gz")
    peptides = sorted({str(one.peptide) for one in library})[::EVERY]
    matches = match_proteins(peptides, data / "fasta_contaminants_crap.fasta.gz")
    save_figure(plot_protein_coverage(matches), HERE / "protein-coverage.png")
    rates = BENCHMARKS / "results/peptide_fdr.png"
    shutil.copyfile(rates, HERE / "false-discovery-rates.png")


if __name__ == "__main__":
    main()
