"""Peptide recall against the number of spectra learned from.

The recipe of the model that comes with the package (``sciseq sequence train-default``)
with fewer simulated spectra, beside the model itself, which had 300 000. Judged on the
measured spectra that settings are chosen by, one for each peptide and charge, and on
the two ProteomeTools files; no test file is read. One seed for each size. Smaller sizes
make the same schedule shorter.

    python benchmarks/peptide_training_size.py --threads 1     # hours
    python benchmarks/peptide_training_size.py --sizes 22500
    python benchmarks/peptide_training_size.py --table-only    # from what is cached

Needs ``$SCISEQ_DATA``.
"""

import sys
import time
from typing import Any

from measuring import Cell, parser, report, run_cells, table, write
from peptides import PROTEOMES, TEST_FILES, folder, proteins_of
from pretrained_peptides import VALIDATION_FILES, spectra_of

from sciseq import PeptideSequencer
from sciseq.sequencing.default_model import default_training
from sciseq.sequencing.evaluation import evaluate

WHOLE = 300_000
SIZES = (22_500, 45_000, 90_000, WHOLE)


def fitted(n_spectra: int) -> PeptideSequencer:
    """Return the model of a size; the largest is the one that is shipped."""
    if n_spectra == WHOLE:
        return PeptideSequencer.pretrained()
    known = [folder() / f"{one}.mgf.gz" for one in (*VALIDATION_FILES, *TEST_FILES)]
    return default_training(
        proteins_of(PROTEOMES),
        known,  # their peptides are left out
        n_spectra=n_spectra,
        n_candidate_spectra=min(2_000, n_spectra),
        device="cpu",
        verbose=1,
    )


def measure(cell: Cell) -> Cell:
    """Train, and read the validation files."""
    started = time.perf_counter()
    model = fitted(cell["spectra"])
    seconds = time.perf_counter() - started
    history = getattr(model, "history_", None) or [{}]
    found: Cell = {"seconds": seconds, "loss": history[-1].get("validation_loss")}
    for name in VALIDATION_FILES:
        records = spectra_of(name)
        rows = model.predict_table(records)
        result = evaluate(
            [one.peptide for one in records], list(rows["peptide"]), list(rows["score"])
        )
        found[name] = {
            "spectra": len(records),
            "peptide_recall": float(result.peptide_recall),
            "aa_precision": float(result.aa_precision),
        }
    return found


def page(results: list[Cell]) -> list[str]:
    """Lines of the results page."""
    rows: list[list[Any]] = []
    for one in results:
        found = one["found"]
        rows.append(
            [
                f"{one['spectra']:,}",
                *(
                    f"{found[name]['peptide_recall']:.3f}, "
                    f"{found[name]['aa_precision']:.3f}"
                    for name in VALIDATION_FILES
                ),
                "" if one["spectra"] == WHOLE else f"{found['seconds'] / 60:.0f}",
            ]
        )
    names = [f"{one}: recall, AA precision" for one in VALIDATION_FILES]
    return [*table(["spectra learned from", *names, "minutes"], rows, 1), ""]


def main() -> int:
    """Run the command line."""
    options = parser(__doc__)
    options.add_argument("--sizes", nargs="+", type=int, default=list(SIZES))
    chosen = options.parse_args()
    sizes = [640] if chosen.quick else chosen.sizes
    wanted: list[Cell] = [{"spectra": size, "seed": 0} for size in sizes]
    results = run_cells("peptide_training_size", wanted, measure, chosen)
    if not results:
        write("peptide_training_size: nothing is cached yet\n")
        return 1
    title = "Peptide recall against training size"
    report("peptide_training_size", title, page(results), [], results, chosen,
           ("torch",))  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
