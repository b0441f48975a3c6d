"""Why the pretrained sequencer's peptides are wrong, on measured spectra.

The files that settings are chosen by, as in pretrained_peptides.py; no test file is
read. For each spectrum the search keeps 20 candidates, and three questions are asked:

- How often is the true peptide among the first 1, 5, 10, 20 of them? No way of
  choosing finds more.
- How much would choosing gain, had it been learned on measured spectra of this very
  file? Five folds, no peptide in two of them.
- Where the true peptide is there but another one was chosen: what tells them apart?

    python benchmarks/peptide_errors.py --threads 1

Needs ``$SCISEQ_DATA``.
"""

import re
import sys
from collections import Counter
from typing import Any

import numpy as np
from measuring import Cell, parser, report, run_cells, table, write
from pretrained_peptides import VALIDATION_FILES, spectra_of
from sklearn.model_selection import GroupKFold

from sciseq import PeptideSequencer
from sciseq.errors import DataQualityError
from sciseq.sequencing.candidate_features import FEATURES
from sciseq.sequencing.reranking import Reranker

N_CANDIDATES, FIRST = 20, (1, 5, 10, 20)
FOLDS = 5
MISSING = FEATURES.index("missing")
KINDS = ("first two swapped", "other neighbours swapped", "same residues, other order",
         "other residues")  # fmt: skip


def measure(cell: Cell) -> Cell:
    """Search a file's spectra, and look at the candidates."""
    records = spectra_of(cell["file"])
    model = PeptideSequencer.pretrained()
    model.set_params(beam_size=N_CANDIDATES, device="cpu")
    truths = [one.peptide for one in records]
    known = model._known_candidates(records, truths)
    right = model._right_ones(known)
    shipped = [model.reranker_.log_probability(one) for one in known.features]
    own = learned_here(known, right)
    return {
        "spectra": len(known.truths),
        "among": {str(k): share([one[:k].any() for one in right]) for k in FIRST},
        "chosen": {
            "by the search": share([one[:1].any() for one in right]),
            "as shipped": share(best_is_right(shipped, right)),
            "learned on this file": None
            if own is None
            else share(best_is_right(own, right)),
        },
        "kinds": kinds_of_errors(known, right, shipped),
    }  # fmt: skip


def share(flags: list[Any]) -> float:
    """Share of spectra."""
    return float(np.mean(flags))


def best_is_right(scores: list[Any], right: list[Any]) -> list[bool]:
    """Say of each spectrum whether its best candidate is right."""
    return [
        bool(len(one) and flags[one.argmax()])
        for one, flags in zip(scores, right, strict=True)
    ]


def learned_here(known: Any, right: list[Any]) -> list[Any] | None:
    """Scores by rerankers of the other folds; None where they are too few."""
    peptide = [bare(one) for one in known.truths]
    scores: list[Any] = [np.zeros(len(one)) for one in right]
    if len(set(peptide)) < FOLDS:
        return None
    folds = GroupKFold(FOLDS, shuffle=True, random_state=0)
    for train, held_out in folds.split(peptide, groups=peptide):
        try:
            reranker = Reranker.fit(
                [known.features[row] for row in train], [right[row] for row in train]
            )
        except DataQualityError:
            return None
        for row in held_out:
            scores[row] = reranker.log_probability(known.features[row])
    return scores


def bare(peptide: str) -> str:
    """Letters of a peptide, with I as L."""
    return re.sub(r"\[[^\]]*\]|[^A-Z]", "", peptide).replace("I", "L")


def kinds_of_errors(known: Any, right: list[Any], scores: list[Any]) -> Cell:
    """Compare the chosen candidate with the true one, where it was there."""
    kinds: Counter[str] = Counter()
    for row, flags in enumerate(right):
        if not flags.any() or flags[scores[row].argmax()]:
            continue
        true, chosen = int(flags.argmax()), int(scores[row].argmax())
        tokens = [known.found[row][one].tokens for one in (true, chosen)]
        missing = known.features[row][:, MISSING]
        kinds[kind_of_error(*tokens)] += 1
        kinds["all"] += 1
        kinds["as many bonds seen"] += bool(missing[true] == missing[chosen])
        kinds["more bonds seen in the true one"] += bool(
            missing[true] < missing[chosen]
        )
    return dict(kinds)


def kind_of_error(true: Any, chosen: Any) -> str:
    """Name what differs between two peptides, given as tokens."""
    if sorted(true) != sorted(chosen):
        return KINDS[3]
    differ = np.flatnonzero(np.asarray(true) != np.asarray(chosen))
    if len(differ) > 2 or differ[1] - differ[0] > 1:
        return KINDS[2]
    return KINDS[1] if differ[0] else KINDS[0]


def page(results: list[Cell]) -> list[str]:
    """Lines of the results page."""
    among, chosen, kinds = [], [], []
    for one in results:
        found, counts = one["found"], Counter(one["found"]["kinds"])
        among.append([one["file"], found["spectra"],
                      *(f"{found['among'][str(k)]:.3f}" for k in FIRST)])  # fmt: skip
        shares = found["chosen"].values()
        chosen.append([one["file"], *("" if x is None else f"{x:.3f}" for x in shares)])
        kinds.append([one["file"], counts["all"], *(counts[kind] for kind in KINDS),
                      counts["as many bonds seen"],
                      counts["more bonds seen in the true one"]])  # fmt: skip
    return [
        "Share of spectra whose true peptide is among the first candidates of a search "
        f"with {N_CANDIDATES} beams, as the search ranks them:", "",
        *table(["file", "spectra searched", *map(str, FIRST)], among), "",
        "Peptide recall by who chooses among them. Learned on this file: the features "
        f"and network of `fit_reranker`, {FOLDS} folds, split by peptide:", "",
        *table(["file", *results[0]["found"]["chosen"]], chosen), "",
        "Spectra whose true peptide was among the candidates while another one was "
        "chosen (as shipped), by what differs, and by bonds that a b or y ion shows:",
        "",
        *table(["file", "spectra", *KINDS, "as many bonds seen in both",
                "more in the true one"], kinds), "",
    ]  # fmt: skip


def main() -> int:
    """Run the command line."""
    chosen = parser(__doc__).parse_args()
    files = VALIDATION_FILES[1:2] if chosen.quick else VALIDATION_FILES
    wanted: list[Cell] = [{"file": file} for file in files]
    results = run_cells("peptide_errors", wanted, measure, chosen)
    if not results:
        write("peptide_errors: nothing is cached yet\n")
        return 1
    title = "Errors of the pretrained peptide sequencer"
    report("peptide_errors", title, page(results), [], results, chosen)
    return 0


if __name__ == "__main__":
    sys.exit(main())
