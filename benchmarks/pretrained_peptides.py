"""The model that comes with the package, on measured spectra that it never saw.

It learned from simulated spectra alone, and the peptides of all files here were kept
out of the simulation. What is tuned, is tuned on
mass_simulator_experimental_hcd, one spectrum for each peptide and charge, and on the
two ProteomeTools files. The files massivekb_500, pepnet_sample and
yeast_qe_small_annotated are test files: they are read with --test only, once for every
recorded result, and every such run is written down in
results/pretrained_peptides_test_runs.json. Beside the model stands the same beam search
over the evidence of b and y peaks alone, without learning.

    python benchmarks/pretrained_peptides.py          # validation files
    python benchmarks/pretrained_peptides.py --test   # test files too, logged
    python benchmarks/pretrained_peptides.py --model FOLDER --again

Needs ``$SCISEQ_DATA``.
"""

import json
import sys
import time
from typing import Any

import numpy as np
from measuring import RESULTS, Cell, digits, parser, report, run_cells, table, write
from peptides import (
    BASELINE,
    MEASURED,
    TEST_FILES,
    measured_spectra,
    one_each,
    search_evidence,
    usable,
)

import sciseq
from sciseq.files import sha256_of
from sciseq.persistence import read_manifest
from sciseq.sequencing.evaluation import evaluate
from sciseq.sequencing.pretrained_model import PRETRAINED, PRETRAINED_NAME
from sciseq.sequencing.residues import Vocabulary
from sciseq.sequencing.simulator_statistics import ladder_peaks, merged_masses

VALIDATION_FILES = (
    MEASURED,
    "proteometools_pool1_small_annotated",
    "proteometools_pxd004732_hcd",
)
LOG = RESULTS / "pretrained_peptides_test_runs.json"
LENGTHS, MISSING = (8, 11, 15, 20, 99), (0, 1, 2, 4, 99)
PRECISION = 0.9


def spectra_of(name: str) -> list[Any]:
    """Return the annotated spectra of a file."""
    vocabulary = Vocabulary()
    if name == MEASURED:
        return one_each(record for record, _ in measured_spectra(vocabulary))
    return [record for record, _ in usable(name, vocabulary)]


def digest_of(model: str) -> str:
    """Return what tells models apart."""
    return sha256_of(json.dumps(read_manifest(model), sort_keys=True).encode())[:12]


def place_of(model: str) -> str:
    """Return where a model is."""
    return str(PRETRAINED) if model == PRETRAINED_NAME else model


def measure(cell: Cell) -> Cell:
    """Read a file's peptides by the model, or by the baseline."""
    records = spectra_of(cell["file"])
    truths = [one.peptide for one in records]
    started = time.perf_counter()
    if cell["method"] == BASELINE:
        peptides: list[Any] = [search_evidence(one) for one in records]
        scores = None
    else:
        log_run(cell)
        model = sciseq.load(place_of(cell["model"]))
        model.set_params(beam_size=cell["beam_size"], device="cpu")
        if not cell["reranked"] and hasattr(model, "reranker_"):
            del model.reranker_
        rows = model.predict_table(records)
        peptides, scores = list(rows["peptide"]), list(rows["score"])
    seconds = time.perf_counter() - started
    found = evaluate(truths, peptides, scores)
    return {
        "spectra": len(records),
        "peptide_recall": float(found.peptide_recall),
        "aa_precision": float(found.aa_precision),
        "aa_recall": float(found.aa_recall),
        "coverage_at_precision": covered(found) if scores is not None else None,
        "seconds": seconds,
        "by_length": shares(found.is_match, [length(one) for one in records], LENGTHS),
        "by_missing": shares(found.is_match, [missing(o) for o in records], MISSING),
        "by_charge": shares(found.is_match, [one.charge for one in records], (2, 3, 9)),
    }


def log_run(cell: Cell) -> None:
    """Write a run on a test file down, before it begins."""
    if cell["file"] not in TEST_FILES:
        return
    runs = json.loads(LOG.read_text()) if LOG.exists() else []
    runs.append({**cell, "model": cell["digest"], "date": time.strftime("%Y-%m-%d")})
    LOG.write_text(json.dumps(runs, indent=1) + "\n")


def covered(found: Any) -> float:
    """Return the largest share of spectra that is right in nine of ten."""
    curve = found.precision_coverage
    good = np.asarray(curve.precision) >= PRECISION
    return float(np.asarray(curve.coverage)[good].max(initial=0.0))


def length(record: Any) -> int:
    """Return the number of residues."""
    return len(merged_masses(Vocabulary(), record.peptide))


def missing(record: Any) -> int:
    """Return how many bonds have neither a b nor a y ion."""
    ions = ladder_peaks(record, merged_masses(Vocabulary(), record.peptide))
    kinds = ["b", "y"] + (["b2+", "y2+"] if record.charge > 2 else [])
    return int((np.stack([ions[one] for one in kinds]) < 0).all(axis=0).sum())


def shares(is_match: Any, values: list[int], bounds: tuple[int, ...]) -> list[Any]:
    """Return, up to each bound, how many spectra there are and the share matched."""
    values_, flags = np.asarray(values), np.asarray(is_match)
    rows, low = [], -1
    for bound in bounds:
        inside = (values_ > low) & (values_ <= bound)
        n = int(inside.sum())
        rows.append([bound, n, float(flags[inside].mean()) if n else None])
        low = bound
    return rows


def page(results: list[Cell]) -> list[str]:
    """Lines of the results page."""
    head = ["file", "method", "beams", "spectra", "peptide recall", "AA precision",
            "AA recall", "coverage at precision 0.9", "spectra/s"]  # fmt: skip
    rows = []
    for one in results:
        found = one["found"]
        name = one["method"] + (", reranked" if one.get("reranked") else "")
        rows.append([
            one["file"], name, one.get("beam_size", 5), found["spectra"],
            *(f"{found[key]:.3f}" for key in ("peptide_recall", "aa_precision",
                                              "aa_recall")),
            "" if found["coverage_at_precision"] is None
            else f"{found['coverage_at_precision']:.3f}",
            digits(found["spectra"] / found["seconds"]),
        ])  # fmt: skip
    lines = [*table(head, rows, 2), ""]
    for title, key, bounds in (
        ("bonds without a b or y ion", "by_missing", MISSING),
        ("length", "by_length", LENGTHS),
        ("charge", "by_charge", (2, 3, 9)),
    ):
        lines += [f"Peptide recall by {title} (up to; spectra in brackets):", ""]
        rows = [
            [one["file"], one["method"] + (", reranked" if one["reranked"] else ""),
             *(f"{share:.2f} ({n})" if n else "" for _, n, share in one["found"][key])]
            for one in results if one["method"] != BASELINE
        ]  # fmt: skip
        lines += [*table(["file", "method", *map(str, bounds)], rows, 2), ""]
    return lines


def main() -> int:
    """Run the command line."""
    options = parser(__doc__)
    options.add_argument("--model", default=PRETRAINED_NAME)
    options.add_argument("--beams", nargs="+", type=int)
    options.add_argument("--test", action="store_true", help="test files too, logged")
    chosen = options.parse_args()
    place = place_of(chosen.model)
    digest = digest_of(place)
    shipped = chosen.model == PRETRAINED_NAME
    beams = chosen.beams or [sciseq.load(place).beam_size]
    files = [*VALIDATION_FILES, *(TEST_FILES if chosen.test else ())]
    wanted: list[Cell] = []
    for file in files[:1] if chosen.quick else files:
        wanted.append({"file": file, "method": BASELINE})
        for beam in beams:
            wanted += [
                {"file": file, "method": "pretrained", "model": chosen.model,
                 "digest": digest, "beam_size": beam, "reranked": reranked}
                for reranked in ((True,) if file in TEST_FILES else (False, True))
            ]  # fmt: skip
    if not shipped:
        chosen.quick = True  # measured anew each time, and not kept
    results = run_cells("pretrained_peptides", wanted, measure, chosen)
    if not results:
        write("pretrained_peptides: nothing is cached yet\n")
        return 1
    title = "Pretrained peptide sequencer on measured spectra"
    report("pretrained_peptides", title, page(results), [], results, chosen)
    return 0


if __name__ == "__main__":
    sys.exit(main())
