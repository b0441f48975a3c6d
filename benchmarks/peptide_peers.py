"""Peptide peers benchmark: spectra per second beside Casanovo, at equal size.

Casanovo 5.2.1 with its default network (9 + 9 layers, 512 wide, 8 heads, inner width
1024) against ``PeptideSequencer(decoder="autoregressive", evidence=False)`` of the same
size, both with random weights, one thread, on the same prepared peaks, in batches of at
most 32 spectra. Both decode every peptide to 12 residues: 13 calls of the decoder and
no mass constraint. Runs take turns. Beside them stands how far our results are from
those without a cache, and those with bfloat16 from those without.

A last cell runs both command lines, from the start of the program to the written mzTab.
There ours is held to the precursor's mass as always, so that its peptides have about
12 residues, and Casanovo's have exactly 12.

Rates are per second of processor time, so that other programs on the machine matter
less; seconds on the clock are in the JSON file.

The peer runs in a process and an environment of its own, which this script makes under
``benchmarks/environments`` when it is missing (some minutes); ``--python`` names the
interpreter of another one.

    python benchmarks/peptide_peers.py                # all cells, then the tables
    python benchmarks/peptide_peers.py --table-only   # from what is cached

Needs ``$SCISEQ_DATA``.
"""

import functools
import os
import resource
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable
from pathlib import Path

import numpy as np
from measuring import (
    HERE,
    Cell,
    digits,
    median,
    parser,
    report,
    run_cells,
    table,
    verdict,
    write,
)
from peer_process import PeerProcess
from peptide_peers_ours import (
    BATCH,
    LENGTH,
    SIZE,
    agreement,
    batches_of,
    make_network,
    records,
    run_ours,
    stacked,
    write_spectra,
)

from sciseq import PeptideSequencer

ENVIRONMENT = HERE / "environments" / "casanovo"
TORCH, PEER = "torch==2.13.0", "casanovo==5.2.1"
# Its pins leave it a NumPy that newer pyarrow cannot read.
BESIDE = "pyarrow<22"
HCD, IPRG = "mass_simulator_experimental_hcd", "iprg2013_F13_unannotated"
# The last number is that of the runs at most, so that no cell takes very long.
CELLS: list[Cell] = [
    {"part": "decode", "data": HCD, "beams": 1, "spectra": 32, "repeats": 3},
    {"part": "decode", "data": HCD, "beams": 5, "spectra": 32, "repeats": 2},
    {"part": "decode", "data": IPRG, "beams": 1, "spectra": 64, "repeats": 2},
    {"part": "commands", "data": HCD, "beams": 1, "spectra": 32, "repeats": 2},
]
# Ours over Casanovo in float32. The spectra of IPRG differ in size: padding is cut.
TARGETS = {
    (HCD, 1, "float32"): 3.0,
    (HCD, 5, "float32"): 12.0,
    (HCD, 1, "bfloat16"): 5.0,
    (IPRG, 1, "float32"): 5.0,
}


# ------------------------------------------------------------------------ peer


def environment() -> Path:
    """Return the peer's interpreter, and make its environment when it is missing."""
    python = ENVIRONMENT / ("Scripts" if os.name == "nt" else "bin") / "python"
    stamp, wanted = ENVIRONMENT / ".installed", f"{TORCH} {PEER} {BESIDE}"
    if stamp.exists() and stamp.read_text() == wanted:
        return python
    write(f"making the environment of {PEER}, which takes some minutes\n")
    venv.create(ENVIRONMENT, with_pip=True, symlinks=os.name != "nt")
    # torch first: the same build as ours, whatever the peer would ask for.
    for packages in ([TORCH], [TORCH, PEER, BESIDE]):
        subprocess.run([python, "-m", "pip", "install", "-q", *packages], check=True)
    stamp.write_text(wanted)
    return python


# ------------------------------------------------------------------- measuring


def measure(cell: Cell) -> Cell:
    """Measure one cell."""
    command = [cell["python"], str(HERE / "casanovo_worker.py")]
    worker = PeerProcess(command, "casanovo")
    with tempfile.TemporaryDirectory() as folder:
        if cell["part"] == "commands":
            return measure_commands(cell, worker, command, Path(folder))
        return measure_decoding(cell, worker, Path(folder))


def take_turns(
    tasks: dict[str, Callable[[], Cell]], repeats: int
) -> dict[str, list[Cell]]:
    """Run tasks in turn, every other round in the opposite order."""
    found: dict[str, list[Cell]] = {name: [] for name in tasks}
    for index in range(repeats):
        for name in tasks if index % 2 == 0 else reversed(list(tasks)):
            run = tasks[name]()
            kept = {key: one for key, one in run.items() if np.isscalar(one)}
            found[name].append(kept)
    return found


def measure_decoding(cell: Cell, worker: PeerProcess, folder: Path) -> Cell:
    """Decode in memory, both in turn."""
    chosen, network = records(cell), make_network()
    batches, peaks = batches_of(chosen), stacked(chosen)
    mz = peaks.mz.where(peaks.is_peak, 0.0)
    path = folder / "spectra.npz"
    np.savez(path, mz=mz, intensity=peaks.intensity, mass=peaks.precursor_mass,
             charge=peaks.charge)  # fmt: skip
    tasks: dict[str, Callable[[], Cell]] = {}
    for precision in ("float32", "bfloat16"):
        asked = {"beams": cell["beams"], "precision": precision}
        if precision == "float32" or cell["beams"] == 1:  # to save time
            theirs = {**asked, "spectra": str(path), "batch": BATCH}
            tasks[f"Casanovo, {precision}"] = functools.partial(worker, theirs)
        tasks[f"ours, {precision}"] = functools.partial(
            run_ours, network, batches, asked
        )
    # What is loaded on first use does not count; this comes first for that.
    found = agreement(network, batches, cell)
    runs = take_turns(tasks, cell["repeats"])
    worker.close()
    return {
        "runs": runs,
        "agreement": found,
        "peaks": float(peaks.is_peak.sum(dim=1).double().mean()),
        "parameters": sum(one.numel() for one in network.parameters()),
    }


def measure_commands(
    cell: Cell, worker: PeerProcess, command: list[str], folder: Path
) -> Cell:
    """Run both command lines, from start to written mzTab."""
    chosen = records(cell)
    spectra, checkpoint = folder / "spectra.mgf", folder / "random.ckpt"
    settings, model = folder / "casanovo.yaml", folder / "model"
    write_spectra(spectra, chosen)
    worker({"checkpoint": str(checkpoint), "settings": str(settings),
            "batch": BATCH, "beams": cell["beams"]})  # fmt: skip
    worker.close()
    # An estimator must be fitted; a rate of nothing leaves the weights random.
    ours = PeptideSequencer(
        **SIZE, max_epochs=1, learning_rate=1e-12, random_state=0, device="cpu"
    )
    ours.fit(chosen[:BATCH]).save(model)
    theirs = [*command, "sequence", str(spectra), "-m", str(checkpoint), "-c",
              str(settings), "-d", str(folder), "-o", "theirs", "-f"]  # fmt: skip
    mine = [sys.executable, "-c", "from sciseq.cli import main; main()", "sequence",
            "predict", str(spectra),
            "--model", str(model), "-o", str(folder / "ours.mztab"), "--device", "cpu",
            "--beam-size", str(cell["beams"]), "--quiet"]  # fmt: skip
    results = {"Casanovo": folder / "theirs.mztab", "ours": folder / "ours.mztab"}
    runs = take_turns(
        {
            "Casanovo, float32": functools.partial(
                run_command, theirs, results["Casanovo"]
            ),
            "ours, float32": functools.partial(run_command, mine, results["ours"]),
        },
        cell["repeats"],
    )
    return {"runs": runs}


def run_command(command: list[str], result: Path) -> Cell:
    """Run a command to its end."""
    result.unlink(missing_ok=True)
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wall = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise RuntimeError(f"{command}: {done.stderr[-2000:]}")
    lines = result.read_text().splitlines()
    rows = [line.split("\t") for line in lines if line.startswith("PSM\t")]
    letters = [sum(one.isupper() for one in bare(row[1])) for row in rows]
    return {
        "wall": wall,
        "processor": sum(
            getattr(after, name) - getattr(before, name)
            for name in ("ru_utime", "ru_stime")
        ),
        "found": len(rows),
        "residues": float(np.mean(letters)),
    }


def bare(peptide: str) -> str:
    """Return a peptide without what stands in brackets."""
    while "[" in peptide:
        start, _, rest = peptide.partition("[")
        peptide = start + rest.partition("]")[2]
    return peptide


# --------------------------------------------------------------------- results


def rates(cell: Cell) -> dict[str, float]:
    """Spectra per second of processor time, medians over the runs."""
    return {
        name: cell["spectra"] / median([one["processor"] for one in runs])
        for name, runs in cell["found"]["runs"].items()
    }


WHAT = {
    "decode": "decoding",
    "commands": "command lines, with files and start",
}


def rate_table(results: list[Cell]) -> list[str]:
    """Make the table of all cells."""
    head = ["what", "spectra", "beams", "precision", "runs", "Casanovo, spectra/s",
            "ours, spectra/s", "times", "times its float32"]  # fmt: skip
    rows = []
    for cell in results:
        found = rates(cell)
        for precision in ("float32", "bfloat16"):
            if f"ours, {precision}" not in found:
                continue
            theirs = found.get(f"Casanovo, {precision}")
            ours = found[f"ours, {precision}"]
            name = f"{cell['spectra']} of {cell['data']}"
            rows.append([
                WHAT[cell["part"]], name, cell["beams"], precision, cell["repeats"],
                digits(theirs),
                digits(ours), digits(ours / theirs) if theirs else "",
                digits(ours / found["Casanovo, float32"]),
            ])  # fmt: skip
    return table(head, rows, n_text=2)


def agreement_table(results: list[Cell]) -> list[str]:
    """Make the table of what the results are off."""
    head = ["spectra", "beams", "precision", "median error of log p", "largest",
            "same peptide as float32"]  # fmt: skip
    rows = []
    for cell in results:
        found = cell["found"].get("agreement")
        for precision, (middle, most) in (found["off"] if found else {}).items():
            same = f"{found['same']} of {found['of']}" if precision != "float32" else ""
            rows.append([cell["data"], cell["beams"], precision, f"{middle:.1e}",
                         f"{most:.1e}", same])  # fmt: skip
    return table(head, rows)


def verdicts(results: list[Cell]) -> list[str]:
    """Say what was asked for, and whether it was reached."""
    lines = []
    for cell in results:
        found = rates(cell)
        for (data, beams, precision), bound in TARGETS.items():
            if (cell["part"], cell["data"], cell["beams"]) == ("decode", data, beams):
                ratio = found[f"ours, {precision}"] / found["Casanovo, float32"]
                text = f"ours in {precision} over Casanovo in float32, {data}, {beams} "
                text += "beam" if beams == 1 else "beams"
                lines.append(verdict(text, ratio, bound, at_least=True))
    return lines


def page(results: list[Cell]) -> list[str]:
    """Lines of the results page."""
    decoded = [one["found"] for one in results if one["part"] == "decode"]
    theirs = decoded[0]["runs"]["Casanovo, float32"][0] if decoded else {}
    lines = [
        f"{PEER} with {TORCH}, random weights on both sides, one thread, batches of "
        f"at most {BATCH}, peptides of {LENGTH} residues (every beam is made to stop "
        "there). Medians of runs in turn, per second of processor time.",
        "",
        *rate_table(results),
        "",
    ]
    if theirs:
        lines += [
            f"Casanovo: {theirs['parameters']:,} weights, {theirs['calls']:.0f} calls "
            f"of its decoder per batch. Ours: {decoded[0]['parameters']:,} weights.",
            "",
            "Errors of ours against one plain forward pass in float32 over the same "
            "peptide, without caches:",
            "",
            *agreement_table(results),
            "",
        ]
    for cell in results:
        if cell["part"] == "commands":
            last = {name: runs[-1] for name, runs in cell["found"]["runs"].items()}
            found = ", ".join(
                f"{name.partition(',')[0]} {one['found']} peptides of "
                f"{one['residues']:.1f} residues"
                for name, one in last.items()
            )
            lines += [f"Written by the command lines: {found}.", ""]
    return lines


def main() -> int:
    """Run the command line."""
    options = parser(__doc__)
    options.set_defaults(threads=1, repeats=3)  # at most
    options.add_argument("--python", help="interpreter that has Casanovo")
    options.add_argument("--cells", nargs="+", type=int, default=range(len(CELLS)))
    chosen = options.parse_args()
    wanted = [
        {**CELLS[one], "repeats": min(CELLS[one]["repeats"], chosen.repeats)}
        for one in chosen.cells
    ]
    if chosen.quick:
        wanted = [{**one, "spectra": BATCH, "repeats": 1} for one in wanted]
    python = chosen.python or ("" if chosen.table_only else str(environment()))
    measured = functools.partial(measure_with, python)
    results = run_cells("peptide_peers", wanted, measured, chosen)
    if not results:
        write("peptide_peers: nothing is measured yet\n")
        return 1
    report("peptide_peers", "Peptides per second beside Casanovo",
           page(results), verdicts(results), results, chosen)  # fmt: skip
    return 0


def measure_with(python: str, cell: Cell) -> Cell:
    """Measure one cell with the peer's interpreter, which is not part of the cell."""
    return measure({**cell, "python": python})


if __name__ == "__main__":
    sys.exit(main())
