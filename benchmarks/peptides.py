"""Peptide benchmark: decoders on equal data, on peptides that none of them saw.

Data: the measured HCD spectra of mass_simulator_experimental_hcd, split by peptide (one
seed for all cells), and simulated spectra of tryptic peptides of the proteomes, from
which every peptide of the measured files is excluded. Each cell trains one decoder for
the same number of passes (the hybrid's second stage counted in), chooses its epoch on
peptides of its own training part, and is evaluated on the held-out peptides, one
spectrum for each peptide and charge. Beside them stands a baseline without learning:
the same beam search over the evidence of b and y peaks alone.

The files massivekb_500, pepnet_sample and yeast_qe_small_annotated are test files: this
command only keeps their peptides out of the simulation.

    python benchmarks/peptides.py                # all cells, then the table
    python benchmarks/peptides.py --decoders autoregressive --seeds 0
    python benchmarks/peptides.py --table-only   # from what is cached

Needs ``$SCISEQ_DATA``.
"""

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import Cell, digits, median, parser, report, run_cells, table, write
from torch import Tensor

from sciseq import PeptideSequencer
from sciseq.decoding.beam_search import beam_search
from sciseq.sequencing.evaluation import Evaluation, evaluate
from sciseq.sequencing.ion_evidence import candidate_evidence, candidates_of
from sciseq.sequencing.mass_constraint import MassConstraint
from sciseq.sequencing.mass_table import MassTable
from sciseq.sequencing.masses import neutral_mass
from sciseq.sequencing.peptide_batches import stack_peaks
from sciseq.sequencing.residues import Vocabulary
from sciseq.sequencing.simulator import Simulator
from sciseq.sequencing.spectra import PeakSettings, SkippedSpectrum, preprocess
from sciseq.sequencing.spectrum_files import read_spectra

MEASURED = "mass_simulator_experimental_hcd"
TEST_FILES = ("massivekb_500", "pepnet_sample", "yeast_qe_small_annotated")
PROTEOMES = ("yeast_swissprot_2021_04", "ecoli_k12", "erwinia_carotovora",
             "human_top1k", "mouse_casanovo_subset")  # fmt: skip
HELD_OUT, LONGEST = 0.12, 30
JOINT_EPOCHS, CROSS_EPOCHS = 2, 1
BASELINE = "no learning: beam search over b and y peaks"
VARIANTS: dict[str, dict[str, Any]] = {
    "hybrid": {},
    "autoregressive": {"decoder": "autoregressive"},
    "nonautoregressive": {"decoder": "nonautoregressive"},
    "nonautoregressive, glancing": {
        "decoder": "nonautoregressive",
        "glancing": True,
    },
    "nonautoregressive, spectrum graph": {
        "decoder": "nonautoregressive",
        "spectrum_graph": True,
    },
    "hybrid, spectrum graph": {"spectrum_graph": True},
    "hybrid, path evidence": {"path_evidence": True},
    "hybrid, losses one half each": {"annealing": False},
    "hybrid, no gradient block": {"gradient_block": False},
    "hybrid, no evidence": {"evidence": False},
    "hybrid, two encoders": {"shared_encoder": False},
}


def folder() -> Path:
    """Return where the peptide files are."""
    return Path(os.environ["SCISEQ_DATA"]) / "peptides"


def bare(vocabulary: Vocabulary, peptide: str) -> str:
    """Return the letters of a peptide, without modifications and with I as L."""
    tokens = (vocabulary.tokens[one] for one in vocabulary.encode(peptide))
    return "".join(token[0] for token in tokens if token[0] != "[")


def usable(name: str, vocabulary: Vocabulary) -> Iterator[tuple[Any, str]]:
    """Yield spectra of a file whose peptide the vocabulary holds, and its letters."""
    for record in read_spectra(folder() / f"{name}.mgf.gz"):
        if isinstance(record, SkippedSpectrum) or record.peptide is None:
            continue
        try:
            letters = bare(vocabulary, record.peptide)
        except ValueError:
            continue
        yield record, letters


def read() -> tuple[list[Any], list[Any], set[str]]:
    """Return spectra to train on, spectra to judge by, and peptides to leave out."""
    vocabulary = Vocabulary()
    measured = [
        one
        for one in usable(MEASURED, vocabulary)
        if len(one[1]) <= LONGEST and one[0].charge and one[0].charge <= 4
    ]
    names = sorted({letters for _, letters in measured})
    order = np.random.default_rng(0).permutation(len(names))
    held = {names[one] for one in order[: round(HELD_OUT * len(names))]}
    judged: dict[tuple[str, int], Any] = {}
    for record, letters in measured:
        if letters in held:
            judged.setdefault((record.peptide, record.charge), record)
    excluded = set(names)
    for name in TEST_FILES:
        excluded |= {letters for _, letters in usable(name, vocabulary)}
    training = [record for record, letters in measured if letters not in held]
    return training, list(judged.values()), excluded


def measure(cell: Cell) -> Cell:
    """Train and judge one decoder, or judge the baseline."""
    training, judged, excluded = read()
    truths = [one.peptide for one in judged]
    if cell["decoder"] == BASELINE:
        started = time.perf_counter()
        found = [search_evidence(one) for one in judged]
        seconds = time.perf_counter() - started
        return {**summary(evaluate(truths, found)), "predict_seconds": seconds}
    proteins = [folder() / f"fasta_{name}.fasta.gz" for name in PROTEOMES]
    simulator = Simulator(proteins, exclude=excluded)
    spectra = training + simulator.sample(cell["simulated"], cell["seed"])
    changes = VARIANTS[cell["decoder"]]
    is_hybrid = "decoder" not in changes
    model = PeptideSequencer(
        max_epochs=JOINT_EPOCHS + (0 if is_hybrid else CROSS_EPOCHS),
        cross_epochs=CROSS_EPOCHS,
        learning_rate=1e-3,
        dropout=0.0,
        random_state=cell["seed"],
        device=cell.get("device", "cpu"),
        verbose=1,
        **changes,
    )
    started = time.perf_counter()
    model.fit(spectra)
    fitted = time.perf_counter()
    rows = model.predict_table(judged)
    ended = time.perf_counter()
    evaluation = evaluate(truths, list(rows["peptide"]), list(rows["score"]))
    return {
        **summary(evaluation),
        "fit_seconds": fitted - started,
        "predict_seconds": ended - fitted,
        "spectra": len(spectra),
        "parameters": model.n_parameters_,
        "history": model.history_,
    }


def summary(evaluation: Evaluation) -> Cell:
    """Return what is kept of an evaluation."""
    names = ("aa_precision", "aa_recall", "peptide_recall", "coverage", "n_spectra")
    return {name: float(getattr(evaluation, name)) for name in names}


# -------------------------------------------------------------------- baseline


class EvidenceDecoder:
    """Scores candidates by the peaks at their ions, and learns nothing."""

    def __init__(self, peaks: Any, vocabulary: Vocabulary) -> None:
        masses = torch.from_numpy(np.array(vocabulary.masses))
        self.peaks, self.candidates = peaks, candidates_of(masses)

    def start(self, n_items: int, n_beams: int, max_length: int) -> None:
        """Nothing is kept between steps."""

    def step(self, tokens: Tensor) -> Tensor:
        """Return log-probabilities from the sum of the closenesses of all ions."""
        prefix = self.candidates.masses[tokens].sum(dim=-1)
        found = candidate_evidence(self.peaks, prefix, self.candidates)
        closeness = found[..., 1:14:2].sum(dim=-1) + found[..., 14:].sqrt().sum(dim=-1)
        return torch.nn.functional.pad(2 * closeness, (0, 1)).log_softmax(dim=-1)

    def reorder(self, parents: Tensor) -> None:
        """Nothing is kept between steps."""

    def keep(self, items: Tensor) -> None:
        """Nothing is kept between steps; one spectrum is searched at a time."""


def search_evidence(record: Any) -> str | None:
    """Return the baseline's peptide of one spectrum."""
    vocabulary = Vocabulary()
    peaks = preprocess(record, record.charge, PeakSettings())
    if isinstance(peaks, SkippedSpectrum):
        return None
    mass = np.array([float(neutral_mass(record.precursor_mz, record.charge))])
    stacked = stack_peaks(
        [(peaks.mz, peaks.intensity)], mass, np.array([record.charge]),
        dtype=torch.float64,
    )  # fmt: skip
    constraint = MassConstraint(
        mass_table(vocabulary), mass, stop=len(vocabulary), ppm=20.0, isotopes=(0, 1)
    )
    decoded = beam_search(
        EvidenceDecoder(stacked, vocabulary), n_items=1, beam_size=5, max_length=41,
        stop=len(vocabulary), allowed=constraint,
    )  # fmt: skip
    length = int(decoded.lengths[0, 0])
    if not length:
        return None
    return vocabulary.decode(decoded.tokens[0, 0, :length].numpy()[::-1])


_TABLES: dict[Vocabulary, MassTable] = {}


def mass_table(vocabulary: Vocabulary) -> MassTable:
    """Return which masses can be composed, made once."""
    if vocabulary not in _TABLES:
        _TABLES[vocabulary] = MassTable(
            vocabulary.masses, is_terminal=vocabulary.is_terminal
        )
    return _TABLES[vocabulary]


# ---------------------------------------------------------------------- results


def result_table(results: list[Cell]) -> list[str]:
    """Medians over seeds."""
    head = ["decoder", "seeds", "peptide recall", "AA precision", "AA recall",
            "coverage", "weights", "training spectra", "fit, s",
            "predicted spectra/s"]  # fmt: skip
    rows = []
    for name in dict.fromkeys(one["decoder"] for one in results):
        runs = [one["found"] for one in results if one["decoder"] == name]
        first = runs[0]
        speeds = [one["n_spectra"] / one["predict_seconds"] for one in runs]
        rows.append([
            name,
            "" if name == BASELINE else len(runs),
            *(
                f"{median([one[key] for one in runs]):.3f}"
                for key in ("peptide_recall", "aa_precision", "aa_recall", "coverage")
            ),
            f"{first['parameters']:,}" if "parameters" in first else "",
            f"{first['spectra']:,}" if "spectra" in first else "",
            digits(median([one["fit_seconds"] for one in runs]))
            if "fit_seconds" in first
            else "",
            digits(median(speeds)),
        ])  # fmt: skip
    return table(head, rows)


def page(results: list[Cell]) -> list[str]:
    """Lines of the results page."""
    n = int(results[0]["found"]["n_spectra"])
    return [
        f"Held-out peptides of {MEASURED} ({n} spectra, one for each peptide and "
        f"charge, at most {LONGEST} residues), after {JOINT_EPOCHS} + {CROSS_EPOCHS} "
        "passes over the measured training spectra and simulated ones. d_model 128, 3 "
        "+ 3 layers, beams of 5, 20 ppm, up to one carbon-13. Recall: matched peptides "
        "over all spectra. Nothing was chosen by these spectra.",
        "",
        *result_table(results),
        "",
    ]


def main() -> int:
    """Run the command line."""
    options = parser(__doc__)
    options.add_argument("--decoders", nargs="+", default=[BASELINE, *VARIANTS])
    options.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    options.add_argument("--simulated", type=int, default=10_000)
    options.add_argument("--device", default="cpu")
    chosen = options.parse_args()
    simulated = 64 if chosen.quick else chosen.simulated
    place = {} if chosen.device == "cpu" else {"device": chosen.device}
    wanted: list[Cell] = [
        {"decoder": name, "seed": seed, "simulated": simulated, **place}
        for name in chosen.decoders
        for seed in (chosen.seeds[:1] if name == BASELINE else chosen.seeds)
    ]
    results = run_cells("peptides", wanted, measure, chosen)
    if not results:
        write("peptides: nothing is cached yet\n")
        return 1
    title = "Peptide decoders on equal data"
    report("peptides", title, page(results), verdicts(results), results, chosen)
    return 0


def verdicts(results: list[Cell]) -> list[str]:
    """Say how the hybrid compares, seed by seed."""
    recall = {
        (one["decoder"], one["seed"]): one["found"]["peptide_recall"] for one in results
    }
    lines = []
    for name in (*VARIANTS, BASELINE):
        pairs = [
            (value, recall.get((name, 0 if name == BASELINE else seed)))
            for (decoder, seed), value in recall.items()
            if decoder == "hybrid"
        ]
        gains = [mine - other for mine, other in pairs if other is not None]
        if name != "hybrid" and gains:
            listed = ", ".join(f"{one:+.3f}" for one in gains)
            lines.append(f"peptide recall of the hybrid above {name}: {listed}")
    return lines


if __name__ == "__main__":
    sys.exit(main())
