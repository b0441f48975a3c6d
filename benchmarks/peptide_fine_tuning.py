"""The pretrained sequencer, going on with measured spectra.

``model.set_params(warm_start=True).fit(known)`` with spectra of one source, judged on
peptides of that source that were left out, and on other sources. The spectra are those
of mass_simulator_experimental_hcd that peptides.py trains on; their licence is not
stated, so that such a model is measured here and not shipped. One row for each number
of passes over them; nothing else was tried, and no test file is read.

    python benchmarks/peptide_fine_tuning.py --threads 1

Needs ``$SCISEQ_DATA``.
"""

import sys
import time

from measuring import Cell, median, parser, report, run_cells, table, write
from peptides import KEPT, judge, read
from pretrained_peptides import VALIDATION_FILES, spectra_of

from sciseq import PeptideSequencer

# Passes for both decoders, and for the second stage.
PASSES = ((0, 0), (1, 1), (3, 1))
RATE = 3e-4
OTHERS = VALIDATION_FILES[1:]
HELD_OUT = "HCD file, peptides left out"


def measure(cell: Cell) -> Cell:
    """Go on training, and judge."""
    training, judged, _ = read()
    model = PeptideSequencer.pretrained()
    # What chooses among candidates learned from another network.
    del model.reranker_
    model.set_params(device="cpu")
    started = time.perf_counter()
    joint, crossed = cell["passes"]
    if joint:
        model.set_params(
            warm_start=True,
            max_epochs=joint,
            cross_epochs=crossed,
            learning_rate=RATE,
            precision="bfloat16",
            random_state=cell["seed"],
        )
        model.fit(training).set_params(precision="float32")
    seconds = time.perf_counter() - started
    files = {HELD_OUT: judged["measured"]}
    files |= {name: spectra_of(name) for name in OTHERS}

    def predict(records: list) -> tuple[list, list]:
        rows = model.predict_table(records)
        return list(rows["peptide"]), list(rows["score"])

    return {**judge(files, predict), "fit_seconds": seconds, "spectra": len(training)}


def page(results: list[Cell]) -> list[str]:
    """Medians over seeds."""
    names = (HELD_OUT, *OTHERS)
    rows = []
    for passes in dict.fromkeys(tuple(one["passes"]) for one in results):
        runs = [one["found"] for one in results if tuple(one["passes"]) == passes]
        rows.append([
            " + ".join(map(str, passes)), len(runs),
            *(", ".join(f"{median([one[name][key] for one in runs]):.3f}"
                        for key in KEPT[:2]) for name in names),
            f"{median([one['fit_seconds'] for one in runs]):.0f}",
        ])  # fmt: skip
    counts = [f"{results[0]['found'][name]['n_spectra']:.0f}" for name in names]
    head = ["passes", "seeds", *(f"{one} ({n}): recall, AA precision"
                                 for one, n in zip(names, counts, strict=True)),
            "fit, s"]  # fmt: skip
    return [
        f"Passes over {results[0]['found']['spectra']:,} measured spectra, for both "
        f"decoders + for the second stage, at a rate of {RATE:g}; 0 + 0 is the model "
        "that is shipped. All without choosing among candidates. Medians over seeds.",
        "",
        *table(head, rows),
        "",
    ]  # fmt: skip


def main() -> int:
    """Run the command line."""
    options = parser(__doc__)
    options.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    chosen = options.parse_args()
    wanted: list[Cell] = [
        {"passes": list(passes), "seed": seed}
        for passes in PASSES
        for seed in (chosen.seeds if passes[0] else chosen.seeds[:1])
    ]
    results = run_cells(
        "peptide_fine_tuning", wanted[:1] if chosen.quick else wanted, measure, chosen
    )
    if not results:
        write("peptide_fine_tuning: nothing is cached yet\n")
        return 1
    title = "The pretrained peptide sequencer, fine-tuned on measured spectra"
    report("peptide_fine_tuning", title, page(results), [], results, chosen)
    return 0


if __name__ == "__main__":
    sys.exit(main())
