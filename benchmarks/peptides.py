"""Peptide benchmark: decoders on equal data, on peptides that none of them saw.

Data: the measured HCD spectra of mass_simulator_experimental_hcd, split by peptide (one
seed for all cells), and simulated spectra of tryptic peptides of the proteomes, from
which every peptide of the measured files is excluded. Each cell trains one decoder for
the same number of passes (the hybrid's second stage counted in), with the inputs that
the model has which comes with the package, chooses its epoch on peptides of its own
training part, and is evaluated on held-out peptides: measured ones, one spectrum for
each peptide and charge, and simulated ones of a proteome that is not trained on. Beside
them stands a baseline without learning: the same beam search over the evidence of b and
y peaks alone.

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
from collections.abc import Callable, Iterable, Iterator, Sequence
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
TRAINED_PROTEOMES, UNSEEN_PROTEOME, N_UNSEEN = PROTEOMES[:3], "human_top1k", 150
HELD_OUT, LONGEST = 0.25, 30
JOINT_EPOCHS, CROSS_EPOCHS = 2, 1
PASSES = (2, 4, 8, 32)  # of the diffusion decoder, beside the default
BASELINE = "no learning: beam search over b and y peaks"
INPUTS = {"evidence": True, "path_evidence": True, "spectrum_graph": True}
VARIANTS: dict[str, dict[str, Any]] = {
    "hybrid": {},
    "autoregressive": {"decoder": "autoregressive"},
    "nonautoregressive": {"decoder": "nonautoregressive"},
    "diffusion": {"decoder": "diffusion"},
    "hybrid, losses one half each": {"annealing": False},
    "hybrid, no gradient block": {"gradient_block": False},
    "hybrid, two encoders": {"shared_encoder": False},
    "hybrid, no path evidence": {"path_evidence": False},
    "hybrid, no spectrum graph": {"spectrum_graph": False},
    "hybrid, no evidence at all": dict.fromkeys(INPUTS, False),
    "nonautoregressive, glancing": {
        "decoder": "nonautoregressive",
        "glancing": True,
    },
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


def proteins_of(names: Sequence[str]) -> list[Path]:
    """Return the files of proteomes."""
    return [folder() / f"fasta_{name}.fasta.gz" for name in names]


def one_each(records: Iterable[Any]) -> list[Any]:
    """Return the first spectrum of every peptide and charge."""
    first: dict[tuple[str, int], Any] = {}
    for record in records:
        first.setdefault((record.peptide, record.charge), record)
    return list(first.values())


def measured_spectra(vocabulary: Vocabulary) -> list[tuple[Any, str]]:
    """Return the usable measured spectra, and the letters of their peptides."""
    return [
        one
        for one in usable(MEASURED, vocabulary)
        if len(one[1]) <= LONGEST and one[0].charge and one[0].charge <= 4
    ]


def read() -> tuple[list[Any], dict[str, list[Any]], set[str]]:
    """Return spectra to train on, spectra to judge by, and peptides to leave out."""
    vocabulary = Vocabulary()
    measured = measured_spectra(vocabulary)
    names = sorted({letters for _, letters in measured})
    order = np.random.default_rng(0).permutation(len(names))
    held = {names[one] for one in order[: round(HELD_OUT * len(names))]}
    excluded = set(names)
    for name in TEST_FILES:
        excluded |= {letters for _, letters in usable(name, vocabulary)}
    unseen = Simulator(proteins_of([UNSEEN_PROTEOME]), exclude=excluded)
    judged = {
        "measured": one_each(one for one, letters in measured if letters in held),
        "simulated": one_each(unseen.sample(N_UNSEEN, 0)),
    }
    excluded |= {bare(vocabulary, one.peptide) for one in judged["simulated"]}
    training = [record for record, letters in measured if letters not in held]
    return training, judged, excluded


def measure(cell: Cell) -> Cell:
    """Train and judge one decoder, or judge the baseline."""
    training, judged, excluded = read()
    if cell["decoder"] == BASELINE:
        return judge(judged, lambda records: ([search_evidence(o) for o in records],))
    simulator = Simulator(proteins_of(TRAINED_PROTEOMES), exclude=excluded)
    spectra = training + simulator.sample(cell["simulated"], cell["seed"])
    changes = {**INPUTS, **VARIANTS[cell["decoder"]]}
    is_hybrid = "decoder" not in changes
    model = PeptideSequencer(
        max_epochs=JOINT_EPOCHS + (0 if is_hybrid else CROSS_EPOCHS),
        cross_epochs=CROSS_EPOCHS,
        learning_rate=1e-3,
        dropout=0.0,
        precision="bfloat16",
        random_state=cell["seed"],
        device=cell.get("device", "cpu"),
        verbose=1,
        **changes,
    )
    started = time.perf_counter()
    model.fit(spectra)
    fitted = time.perf_counter()
    model.set_params(precision="float32")

    def predict(records: list[Any]) -> tuple[Any, Any]:
        rows = model.predict_table(records)
        return list(rows["peptide"]), list(rows["score"])

    found = judge(judged, predict)
    if model.decoder == "diffusion":
        passes = {str(model.n_steps): found}
        for n_steps in PASSES:
            model.set_params(n_steps=n_steps)
            passes[str(n_steps)] = judge(judged, predict)
        found = {**found, "by_passes": passes}
    return {
        **found,
        "fit_seconds": fitted - started,
        "spectra": len(spectra),
        "parameters": model.n_parameters_,
        "history": model.history_,
    }


def judge(judged: dict[str, list[Any]], predict: Callable[[list[Any]], Any]) -> Cell:
    """Return what is kept of the evaluations, and how long the predictions took."""
    found: Cell = {}
    started = time.perf_counter()
    for kind, records in judged.items():
        truths = [one.peptide for one in records]
        found[kind] = summary(evaluate(truths, *predict(records)))
    return {**found, "predict_seconds": time.perf_counter() - started}


KEPT = ("peptide_recall", "aa_precision", "aa_recall", "coverage", "n_spectra")


def summary(evaluation: Evaluation) -> Cell:
    """Return what is kept of an evaluation."""
    return {name: float(getattr(evaluation, name)) for name in KEPT}


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
    head = ["decoder", "seeds", "measured: peptide recall", "AA precision",
            "AA recall", "simulated: peptide recall", "AA precision", "weights",
            "fit, s", "predicted spectra/s"]  # fmt: skip
    rows = []
    for name in dict.fromkeys(one["decoder"] for one in results):
        runs = [one["found"] for one in results if one["decoder"] == name]
        first = runs[0]
        speeds = [n_judged(one) / one["predict_seconds"] for one in runs]
        shown = [("measured", key) for key in KEPT[:3]]
        shown += [("simulated", key) for key in KEPT[:2]]
        rows.append([
            name,
            "" if name == BASELINE else len(runs),
            *(f"{median([one[kind][key] for one in runs]):.3f}" for kind, key in shown),
            f"{first['parameters']:,}" if "parameters" in first else "",
            digits(median([one["fit_seconds"] for one in runs]))
            if "fit_seconds" in first
            else "",
            digits(median(speeds)),
        ])  # fmt: skip
    return table(head, rows)


def passes_table(results: list[Cell]) -> list[str]:
    """Medians over seeds of the diffusion decoder, by its passes."""
    runs = [one["found"]["by_passes"] for one in results if "by_passes" in one["found"]]
    if not runs:
        return []
    head = ["passes of the diffusion decoder", "measured: peptide recall",
            "AA precision", "simulated: peptide recall", "AA precision",
            "predicted spectra/s"]  # fmt: skip
    rows = []
    for n_steps in sorted(runs[0], key=int):
        own = [one[n_steps] for one in runs]
        rows.append([
            n_steps,
            *(f"{median([one[kind][key] for one in own]):.3f}"
              for kind in ("measured", "simulated") for key in KEPT[:2]),
            digits(median([n_judged(one) / one["predict_seconds"] for one in own])),
        ])  # fmt: skip
    return [*table(head, rows), ""]


def n_judged(found: Cell) -> float:
    """Return how many spectra were predicted."""
    return float(found["measured"]["n_spectra"] + found["simulated"]["n_spectra"])


def page(results: list[Cell]) -> list[str]:
    """Lines of the results page."""
    found = results[0]["found"]
    spectra = next((o["found"]["spectra"] for o in results if o["decoder"] != BASELINE),
                   0)  # fmt: skip
    return [
        f"Held-out peptides: {found['measured']['n_spectra']:.0f} measured spectra of "
        f"{MEASURED}, one for each peptide and charge, at most {LONGEST} residues, and "
        f"{found['simulated']['n_spectra']:.0f} simulated ones of {UNSEEN_PROTEOME}; "
        f"after {JOINT_EPOCHS} + {CROSS_EPOCHS} passes over {spectra:,} spectra, "
        "measured and simulated. d_model 128, 3 + 3 layers, beams of 5, 20 ppm, up to "
        "one carbon-13. Recall: matched peptides over all spectra. Medians over seeds. "
        "Nothing was chosen by these spectra.",
        "",
        *result_table(results),
        "",
        *passes_table(results),
    ]


def main() -> int:
    """Run the command line."""
    options = parser(__doc__)
    options.add_argument("--decoders", nargs="+", default=[BASELINE, *VARIANTS])
    options.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    options.add_argument("--simulated", type=int, default=4_000)
    options.add_argument("--device", default="cpu")
    chosen = options.parse_args()
    simulated = 64 if chosen.quick else chosen.simulated
    place = {} if chosen.device == "cpu" else {"device": chosen.device}
    wanted: list[Cell] = [
        {"decoder": name, "seed": seed, "simulated": simulated, **place}
        for seed in chosen.seeds
        for name in chosen.decoders
        if name != BASELINE or seed == chosen.seeds[0]
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
    found = {(one["decoder"], one["seed"]): one["found"] for one in results}
    seeds = sorted(seed for decoder, seed in found if decoder == "hybrid")
    lines = []
    for name in (*VARIANTS, BASELINE):
        pairs = [
            (found["hybrid", seed], found[name, 0 if name == BASELINE else seed])
            for seed in seeds
            if name != "hybrid" and (name, 0 if name == BASELINE else seed) in found
        ]
        for kind in ("measured", "simulated") if pairs else ():
            gains = [
                ", ".join(f"{mine[kind][key] - other[kind][key]:+.3f}"
                          for mine, other in pairs)
                for key in KEPT[:2]
            ]  # fmt: skip
            lines.append(
                f"hybrid above {name}, {kind}: peptide recall {gains[0]}; "
                f"AA precision {gains[1]}"
            )
    return lines


if __name__ == "__main__":
    sys.exit(main())
