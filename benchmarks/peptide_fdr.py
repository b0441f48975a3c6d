"""False discovery rates of predicted peptides: estimates against the truth.

One model is trained on measured HCD spectra of mass_simulator_experimental_hcd and on
simulated ones. Other peptides of the same file, and of the simulator, are split by
peptide into two halves: one calibrates the model, the other is judged, with its true
peptides known. So the q-values of both ways, calibrated and from decoys, stand beside
the true share of wrong peptides. Other ways of making decoys than the package's are
measured too, and a calibration with the wrong kind of spectra.

    python benchmarks/peptide_fdr.py --threads 1
    python benchmarks/peptide_fdr.py --threads 1 --table-only   # from what is cached
    python benchmarks/peptide_fdr.py --threads 1 --quick        # does all of it run?

Needs ``$SCISEQ_DATA``. A model is trained for every seed, about a quarter of an hour on
one core, and kept under ``benchmarks/cache/peptide_fdr``. With ``--quick`` the network
has seen 100 spectra and reads nothing right: those figures mean nothing.
"""

import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from measuring import HERE, RESULTS, Cell, parser, report, run_cells, table, write
from peptides import LONGEST, MEASURED, PROTEOMES, TEST_FILES, bare, folder, usable

import sciseq
from sciseq import PeptideSequencer
from sciseq.plotting.canvas import SERIES_COLORS, save_figure, tidy
from sciseq.sequencing.calibration import ScoreCalibration, q_values
from sciseq.sequencing.decoys import decoy_q_values, decoy_spectra
from sciseq.sequencing.evaluation import evaluate
from sciseq.sequencing.residues import Vocabulary
from sciseq.sequencing.simulator import Simulator
from sciseq.sequencing.spectra import Spectrum

HELD_OUT = 0.4
SIMULATED, SIMULATED_HELD = 12_000, 3_000
QUICK = 100  # simulated spectra to train on, and twice as many to hold out
PICTURE = "peptide_fdr.png"
SHOWN = ("package", "every peak moved", "half of the peaks moved")
MOST = 400  # of a half: prediction takes most of the time
BOUNDS = (0.01, 0.05, 0.1, 0.2, 0.3, 0.5)
SETTINGS: dict[str, Any] = {
    "d_model": 96,
    "d_ff": 384,
    "n_layers": 2,
    "max_epochs": 3,
    "cross_epochs": 1,
    "learning_rate": 1e-3,
    "dropout": 0.0,
    "device": "cpu",
}
FloatArray = npt.NDArray[np.float64]
Records = list[Any]
Parts = dict[str, tuple[Records, Records]]


# ------------------------------------------------------------------------- spectra


def read(seed: int, *, quick: bool) -> tuple[Records, Parts]:
    """Return spectra to train on, and pairs to calibrate with and to judge by."""
    vocabulary = Vocabulary()
    measured = [
        one
        for one in usable(MEASURED, vocabulary)
        if len(one[1]) <= LONGEST and one[0].charge and one[0].charge <= 4
    ]
    excluded = {letters for _, letters in measured}
    for name in TEST_FILES:
        excluded |= {letters for _, letters in usable(name, vocabulary)}
    proteins = [folder() / f"fasta_{name}.fasta.gz" for name in PROTEOMES]
    n_held, n_new = (2 * QUICK, QUICK) if quick else (SIMULATED_HELD, SIMULATED)
    held = Simulator(proteins, exclude=excluded).sample(n_held, seed)
    simulated = [(one, bare(vocabulary, str(one.peptide))) for one in held]
    excluded |= {letters for _, letters in simulated}
    training, *halves = split(measured, HELD_OUT, seed)
    _, *simulated_halves = split(simulated, 1.0, seed)
    parts = {
        name: (first[:MOST], second[:MOST])
        for name, (first, second) in (
            ("measured", halves),
            ("simulated", simulated_halves),
        )
    }
    new = Simulator(proteins, exclude=excluded).sample(n_new, seed)
    return training + new, parts


def split(pairs: list[tuple[Any, str]], share: float, seed: int) -> list[Records]:
    """Split by peptide: the rest, and twice half of the share that is held out."""
    names = sorted({letters for _, letters in pairs})
    order = np.random.default_rng([seed, 1]).permutation(len(names))
    n_half = round(share * len(names) / 2)
    part_of = {names[one]: 0 for one in order}
    part_of |= {names[one]: 1 for one in order[:n_half]}
    part_of |= {names[one]: 2 for one in order[n_half : 2 * n_half]}
    parts: list[Records] = [[], [], []]
    for record, letters in pairs:
        parts[part_of[letters]].append(record)
    return parts


def trained(seed: int, *, quick: bool) -> tuple[PeptideSequencer, Parts]:
    """Return the model of a seed, trained now or before, and what it never saw."""
    path = HERE / "cache" / "peptide_fdr" / str(seed)
    training, parts = read(seed, quick=quick)
    model = PeptideSequencer(**SETTINGS, random_state=seed, verbose=1)
    if quick:
        parts = {name: (one[:30], other[:30]) for name, (one, other) in parts.items()}
        return model.set_params(max_epochs=1).fit(training[-QUICK:]), parts
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        model.fit(training).save(path)
    return sciseq.load(path), parts


# -------------------------------------------------------------------------- decoys


def moved_ends(spectrum: Spectrum, rng: np.random.Generator) -> Spectrum:
    """Make both ends of the peptide heavier by a mass that no residue has."""
    shift = rng.uniform(2, 12) * rng.choice([-1, 1])
    return replace(
        spectrum,
        mz=spectrum.mz + shift,
        precursor_mz=spectrum.precursor_mz + 2 * shift / spectrum.charge,
    )


def moved_peaks(spectrum: Spectrum, rng: np.random.Generator) -> Spectrum:
    """Move every peak by a distance of its own: nothing of the peptide is left."""
    shift = rng.uniform(5, 50, len(spectrum.mz)) * rng.choice([-1, 1], len(spectrum.mz))
    return replace(spectrum, mz=np.maximum(spectrum.mz + shift, 50.0))


def moved_half(spectrum: Spectrum, rng: np.random.Generator) -> Spectrum:
    """Move half of the peaks: the rest still belongs to the peptide."""
    shift = rng.uniform(5, 50, len(spectrum.mz)) * rng.choice([-1, 1], len(spectrum.mz))
    shift *= rng.random(len(shift)) < 0.5
    return replace(spectrum, mz=np.maximum(spectrum.mz + shift, 50.0))


OTHERS: dict[str, Callable[[Spectrum, np.random.Generator], Spectrum]] = {
    "every peak moved": moved_peaks,
    "both ends heavier": moved_ends,
    "half of the peaks moved": moved_half,
}


def decoys_of(name: str, records: Records) -> Records:
    """Return decoys of one kind."""
    if name == "package":
        return decoy_spectra(records)
    rng = np.random.default_rng(0)
    return [OTHERS[name](one, rng) for one in records]


# ----------------------------------------------------------------------- measuring


def measure(cell: Cell) -> Cell:
    """Train the model of a seed, and compare estimates with the truth."""
    model, parts = trained(cell["seed"], quick=cell.get("quick", False))
    scored = {
        (name, half): scores_of(model, records)
        for name, halves in parts.items()
        for half, records in enumerate(halves)
    }
    found: Cell = {}
    for name, (_, judged) in parts.items():
        scores, is_right = scored[name, 1]
        ways = {
            f"calibrated on {other}": calibrated(*scored[other, 0], scores)
            for other in parts
        }
        ways["scores as probabilities"] = q_values(scores)
        for kind in ("package", *OTHERS):
            rows = model.predict_table(decoys_of(kind, judged))
            decoys = rows["score"].to_numpy(np.float64)
            ways[f"decoys: {kind}"] = decoy_q_values(scores, decoys)
            if kind == "package":
                ways["decoys: package, in competition"] = competing(scores, decoys)
        found[name] = {
            "n": len(judged),
            "recall": float(is_right.mean()),
            "ways": {way: compared(q, is_right) for way, q in ways.items()},
        }
    return found


def scores_of(
    model: PeptideSequencer, records: Records
) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
    """Return scores, and whether the peptides are right."""
    rows = model.predict_table(records)
    truths = [one.peptide for one in records]
    return rows["score"].to_numpy(np.float64), evaluate(
        truths, rows["peptide"]
    ).is_match


def calibrated(
    known: FloatArray, is_right: npt.NDArray[np.bool_], scores: FloatArray
) -> FloatArray:
    """Return q-values of scores from peptides of known truth."""
    has_peptide = ~np.isnan(known)
    calibration = ScoreCalibration.fit(known[has_peptide], is_right[has_peptide])
    return q_values(calibration.probability(scores))


def competing(scores: FloatArray, decoys: FloatArray) -> FloatArray:
    """Return q-values where only decoys count that score above their own spectrum."""
    own, other = np.nan_to_num(scores), np.nan_to_num(decoys)
    wins = own > other
    q = np.where(np.isnan(scores), np.nan, 1.0)
    lost = np.full(int(wins.sum()), np.nan)
    counted = np.append(lost, other[~wins])
    padded = np.append(own[wins], np.full(len(counted) - len(lost), np.nan))
    q[wins] = decoy_q_values(padded, counted)[: len(lost)]
    return q


def compared(q: FloatArray, is_right: npt.NDArray[np.bool_]) -> Cell:
    """Return what is accepted at each bound, and the share that is wrong."""
    rows = []
    for bound in BOUNDS:
        accepted = q <= bound
        n = int(accepted.sum())
        wrong = float(1 - is_right[accepted].mean()) if n else None
        rows.append({"bound": bound, "accepted": n, "wrong": wrong})
    return {"bounds": rows, "curve": curve_of(q, is_right)}


def curve_of(q: FloatArray, is_right: npt.NDArray[np.bool_]) -> list[list[float]]:
    """Return pairs of estimated and true share of wrong ones, best peptides first."""
    known = np.flatnonzero(~np.isnan(q))
    order = known[np.argsort(q[known], kind="stable")]
    estimated, wrong = q[order], np.cumsum(~is_right[order])
    # Equal estimates are accepted together, and fewer than twenty tell little.
    last = np.flatnonzero(np.append(np.diff(estimated) > 0, True))
    last = last[last >= 19]
    return [
        [round(float(estimated[one]), 4), round(float(wrong[one] / (one + 1)), 4)]
        for one in last
    ]


# ------------------------------------------------------------------------- results


def page(results: list[Cell], *, quick: bool = False) -> list[str]:
    """Lines of the results page."""
    learned = f"a part of {MEASURED} and on {SIMULATED:,} simulated spectra"
    if quick:
        learned = f"{QUICK} simulated spectra, far too few"
    lines = [
        f"A model of {SETTINGS['n_layers']} + {SETTINGS['n_layers']} layers and width "
        f"{SETTINGS['d_model']}, trained on {learned}. Calibrated and judged "
        "on halves of other peptides: spectra of one peptide are in one part only. "
        "Cells: peptides accepted at an estimated rate up to the bound, and the true "
        "share of wrong ones among them. Isoleucine is leucine; a peptide with one "
        "wrong residue is wrong.",
        "",
    ]
    for cell in results:
        for name, part in cell["found"].items():
            lines += [
                f"## {name}, seed {cell['seed']}: {part['n']} spectra, recall "
                f"{part['recall']:.3f}",
                "",
                *table(
                    ["estimate", *(f"{bound:g}" for bound in BOUNDS)],
                    [
                        [way, *(_text(one) for one in result["bounds"])]
                        for way, result in part["ways"].items()
                    ],
                ),
                "",
            ]
    return [*lines, f"![Estimated and true rates]({PICTURE})", ""]


def _text(row: Cell) -> str:
    return f"{row['accepted']}: {row['wrong']:.3f}" if row["accepted"] else "0"


def verdicts(results: list[Cell]) -> list[str]:
    """Say by how much estimates err where they say one in ten."""
    place = BOUNDS.index(0.1)
    lines = []
    for name in results[0]["found"]:
        for way in results[0]["found"][name]["ways"]:
            rows = [
                cell["found"][name]["ways"][way]["bounds"][place] for cell in results
            ]
            shares = ", ".join(
                f"{one['wrong']:.3f} of {one['accepted']}"
                if one["accepted"]
                else "none"
                for one in rows
            )
            lines.append(f"{name}, {way}: wrong where the estimate is 0.1: {shares}")
    return lines


def draw(cell: Cell) -> Any:
    """Draw the curves of one seed, and return the first axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.6), layout="constrained")
    axes = figure.subplots(1, len(cell["found"]), sharey=True)
    for axis, (name, part) in zip(axes, cell["found"].items(), strict=True):
        axis.plot([0, 1], [0, 1], color="0.6", linewidth=1.0, linestyle="--")
        drawn = {
            f"calibrated on {name}",
            "scores as probabilities",
            *(f"decoys: {one}" for one in SHOWN),
        }
        ways = [way for way in part["ways"] if way in drawn]
        for color, way in zip(SERIES_COLORS, ways, strict=False):
            label = "calibrated" if way.startswith("calibrated") else way
            curve = np.array(part["ways"][way]["curve"]).reshape(-1, 2)
            axis.plot(*curve.T, color=color, label=label)
        axis.set_title(
            f"{name}, recall {part['recall']:.2f}", loc="left", size="medium"
        )
        axis.set_xlim(0, 1)
        axis.set_ylim(0, 1)
        axis.set_xlabel("estimated share of wrong peptides")
        tidy(axis)
    axes[0].set_ylabel("true share of wrong peptides")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    return axes[0]


def main() -> int:
    """Run the command line."""
    options = parser(__doc__)
    options.add_argument("--seeds", nargs="+", type=int, default=[0])
    chosen = options.parse_args()
    more = {"quick": True} if chosen.quick else {}
    wanted: list[Cell] = [{"seed": seed, **more} for seed in chosen.seeds]
    results = run_cells("peptide_fdr", wanted, measure, chosen)
    if not results:
        write("peptide_fdr: nothing is cached yet\n")
        return 1
    title = "False discovery rates of predicted peptides"
    lines = page(results, quick=chosen.quick)
    report("peptide_fdr", title, lines, verdicts(results), results, chosen)
    drawn = draw(results[0])
    if not chosen.quick:
        save_figure(drawn, RESULTS / PICTURE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
