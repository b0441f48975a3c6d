"""Peptide scale benchmark: 100 000 spectra through ``sciseq sequence predict``.

Spectra of tryptic peptides of two proteomes are simulated (`Simulator`, one seed) into
an MGF file: 10 000 different ones, over and over under new names; one in a thousand is
left with three peaks, which nothing can be read from.
A small network (autoregressive, d_model 64, one layer, 40 peaks, no evidence inputs,
one beam), trained for one epoch on 300 other simulated spectra, is saved. Nearly all
that it reads is wrong; what is measured here does not depend on that.

- whole: the command runs as a process of its own, at several numbers of spectra. Its
  largest resident memory (the kernel's high-water mark), its seconds, and whether every
  spectrum stands in the mzTab once, in order, with its scan number, are read.
- kill: the same with a SIGKILL in the middle, then --resume; the result must have the
  bytes of a run in one go.
- write: the largest memory of writing each format from rows that are there (the true
  peptides with made-up scores), above what the process held before, without a network.

    python benchmarks/peptide_scale.py                # all cells, then the tables
    python benchmarks/peptide_scale.py --spectra 20000
    python benchmarks/peptide_scale.py --table-only   # from what is cached

Needs ``$SCISEQ_DATA``.
"""

import hashlib
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from functools import cache
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
from measuring import (
    MIB,
    Cell,
    PeakMemory,
    digits,
    parser,
    report,
    run_cells,
    table,
    verdict,
    write,
)

from sciseq import PeptideSequencer
from sciseq.cli.partial_rows import PartialRows
from sciseq.cli.sequence_results import RESULT_SUFFIXES, ResultRows, write_result
from sciseq.sequencing.calibration import ScoreCalibration
from sciseq.sequencing.mgf_files import write_mgf
from sciseq.sequencing.prediction import COLUMNS, SPECTRUM_COLUMNS
from sciseq.sequencing.simulator import Simulator
from sciseq.sequencing.spectra import Spectrum
from sciseq.sequencing.spectrum_files import read_spectra

PROTEOMES = ("ecoli_k12", "human_top1k")
NETWORK = {"decoder": "autoregressive", "evidence": False, "d_model": 64, "d_ff": 128,
           "n_layers": 1, "beam_size": 1, "n_peaks": 40, "most_residues": 14,
           "max_epochs": 1, "batch_size": 64}  # fmt: skip
LENGTHS = (7, 12)
DIFFERENT = 10_000
N_TRAINING = 300
KILLED = 10_000
MOST_GB = 2.0
POOR_EVERY, FIRST_SCAN = 1000, 1001
_COMMAND = [sys.executable, "-c", "from sciseq.cli import main; main()"]
_REFERENCE = re.compile(r"ms_run\[1\]:index=(\d+)")


# --------------------------------------------------------------- spectra and model


@cache
def simulator() -> Simulator:
    """Return the source of spectra."""
    folder = Path(os.environ["SCISEQ_DATA"]) / "peptides"
    files = [folder / f"fasta_{name}.fasta.gz" for name in PROTEOMES]
    return Simulator(files, lengths=LENGTHS)


def simulated(n: int, seed: int) -> Iterator[Spectrum]:
    """Yield spectra as an instrument would number them."""
    rng = np.random.default_rng(seed)
    different = simulator().sample(min(n, DIFFERENT), rng)
    for index, one in zip(range(n), cycle(different), strict=False):
        n_kept = 3 if index % POOR_EVERY == POOR_EVERY - 1 else len(one.mz)
        yield replace(
            one,
            # As many digits as instruments mean.
            mz=one.mz[:n_kept].round(5),
            intensity=one.intensity[:n_kept].round(6),
            title=f"simulated {index}",
            scan=FIRST_SCAN + index,
        )


def save_model(folder: Path) -> Path:
    """Train the small network, and save it."""
    model = PeptideSequencer(**NETWORK, random_state=0, device="cpu")
    spectra = [one for one in simulated(N_TRAINING, 1) if len(one.mz) > 3]
    model.fit(spectra).save(folder / "model")
    return folder / "model"


# -------------------------------------------------------------------- the command


def command(spectra: Path, model: Path, out: Path, *more: str) -> list[str]:
    """Return the command line of a prediction."""
    names = ["sequence", "predict", str(spectra), "-m", str(model), "-o", str(out)]
    return [*_COMMAND, *names, "--device", "cpu", *more]


def peak_mib(process: "subprocess.Popen[str]") -> float:
    """Return the largest resident memory of a process so far; 0 when it has ended."""
    with suppress(OSError, StopIteration):
        lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
        entry = next(line for line in lines if line.startswith("VmHWM"))
        return float(entry.split()[1]) / 1024
    return 0.0


def run_watched(arguments: list[str]) -> Cell:
    """Run a command to its end; return seconds, peak memory and its last line."""
    start = time.perf_counter()
    peak = 0.0
    with subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        while process.poll() is None:
            peak = max(peak, peak_mib(process))
            time.sleep(0.02)
        said = process.stderr.read()
    if process.returncode:
        raise RuntimeError(f"the command ended with {process.returncode}: {said}")
    return {
        "seconds": time.perf_counter() - start,
        "resident_mib": peak,
        "said": said.splitlines()[-1].rpartition(".mztab: ")[2],
    }


def kill_in_the_middle(arguments: list[str], partial: Path, n_rows: int) -> int:
    """Start a command, kill it when so many rows are there; return how many were."""
    with subprocess.Popen(arguments, stderr=subprocess.DEVNULL) as process:
        while (n_done := n_lines(partial) - 1) < n_rows:
            if process.poll() is not None:
                raise RuntimeError("the command ended before it could be killed")
            time.sleep(0.1)
        process.kill()
    return n_done


def n_lines(path: Path) -> int:
    """Return how many lines a file has; none when it is not there."""
    try:
        return path.read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0


def account(path: Path, n: int) -> Cell:
    """Look for every spectrum in an mzTab: once, in order, with its scan number."""
    found, skipped, wrong_scans = [], [], 0
    with path.open(encoding="utf-8") as file:
        for line in file:
            kind, *cells = line.rstrip("\n").split("\t")
            if kind == "PSH":
                names = cells
            if kind not in ("PSM", "COM"):
                continue
            match = _REFERENCE.search(line)
            assert match is not None
            index = int(match[1])
            if kind == "COM":
                skipped.append(index)
                continue
            found.append(index)
            row = dict(zip(names, cells, strict=True))
            scan = row["opt_global_cv_MS:1003057_scan_number"]
            wrong_scans += scan != str(FIRST_SCAN + index)
            wrong_scans += row["opt_global_title"] != f"simulated {index}"
    return {
        "peptides": len(found),
        "skipped": len(skipped),
        "lost": n - len({*found, *skipped}),
        "twice": len(found) + len(skipped) - len({*found, *skipped}),
        "in_order": found == sorted(found) and skipped == sorted(skipped),
        "wrong_scans": wrong_scans,
        "poor_ones_skipped": {*range(POOR_EVERY - 1, n, POOR_EVERY)} <= {*skipped},
    }


# --------------------------------------------------------------------- the cells


def measure(cell: Cell) -> Cell:
    """Measure one cell in a folder of its own."""
    parts = {"whole": measure_whole, "kill": measure_kill, "write": measure_write}
    with tempfile.TemporaryDirectory() as folder:
        return parts[cell["part"]](cell, Path(folder))


def measure_whole(cell: Cell, folder: Path) -> Cell:
    """Run the command in one go."""
    spectra, out = folder / "run.mgf", folder / "out.mztab"
    write_mgf(simulated(cell["n"], 0), spectra)
    found = run_watched(command(spectra, save_model(folder), out))
    sizes = {"input_mib": spectra.stat().st_size / MIB}
    sizes["output_mib"] = out.stat().st_size / MIB
    return found | sizes | account(out, cell["n"])


def measure_kill(cell: Cell, folder: Path) -> Cell:
    """Kill a run, let it go on, and compare with a run in one go."""
    spectra, out, whole = (folder / n for n in ("run.mgf", "out.mztab", "whole.mztab"))
    write_mgf(simulated(cell["n"], 0), spectra)
    model = save_model(folder)
    run_watched(command(spectra, model, whole))
    arguments = command(spectra, model, out)
    partial = out.with_name("out.mztab.partial")
    n_done = kill_in_the_middle(arguments, partial, cell["n"] // 2)
    was_there = out.exists()
    found = run_watched([*arguments, "--resume"])
    return found | account(out, cell["n"]) | {
        "rows_at_kill": n_done,
        "output_at_kill": was_there,
        "equal_bytes": sha256(out) == sha256(whole),
        "left_behind": sorted(one.name for one in folder.iterdir()),
    }  # fmt: skip


def sha256(path: Path) -> str:
    """Return the hash of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def measure_write(cell: Cell, folder: Path) -> Cell:
    """Write each format from rows that are there, of a calibrated model."""
    spectra = folder / "run.mgf"
    write_mgf(simulated(cell["n"], 0), spectra)
    model = PeptideSequencer()
    model.vocabulary_ = simulator().vocabulary
    rng = np.random.default_rng(0)
    calibration = ScoreCalibration(np.array([0.0, 1.0]), np.array([0.1, 0.9]))
    found: Cell = {}
    with PartialRows(folder / "rows.partial", {}, chunk=256) as partial:
        partial.start()
        records = read_spectra(spectra)
        while some := list(islice(records, 256)):
            partial.append([made_up(one, float(rng.random())) for one in some])
        for suffix in RESULT_SUFFIXES:
            out = folder / f"out{suffix}"
            with PeakMemory() as peak:
                start = time.perf_counter()
                rows = ResultRows(partial, calibration)
                write_result(rows, out, model, [spectra])
            found[suffix] = {
                "extra_mib": peak.extra_mib,
                "seconds": time.perf_counter() - start,
                "output_mib": out.stat().st_size / MIB,
            }
    return found


def made_up(record: Any, score: float) -> dict[str, Any]:
    """Return a row that names the true peptide."""
    row: dict[str, Any] = dict.fromkeys(COLUMNS)
    row |= {name: getattr(record, name) for name in SPECTRUM_COLUMNS}
    return row | {
        "peptide": record.peptide,
        "score": score,
        "residue_scores": [score] * 12,
        "calculated_mz": record.precursor_mz,
        "error_ppm": 0.0,
        "reason": "",
    }


# ---------------------------------------------------------------------- the page


def page(results: list[Cell]) -> list[str]:
    """Lines of the results page."""
    parts = {
        part: [one for one in results if one["part"] == part]
        for part in ("whole", "kill", "write")
    }
    head = ["spectra", "MGF, MiB", "mzTab, MiB", "peptides", "skipped", "lost",
            "twice", "wrong scans", "in order", "seconds", "spectra/s",
            "resident at most, MiB"]  # fmt: skip
    rows = [
        [
            f"{one['n']:,}",
            digits(found["input_mib"]),
            digits(found["output_mib"]),
            f"{found['peptides']:,}",
            *(found[name] for name in ("skipped", "lost", "twice", "wrong_scans")),
            "yes" if found["in_order"] else "NO",
            digits(found["seconds"]),
            digits(one["n"] / found["seconds"]),
            digits(found["resident_mib"]),
        ]
        for one in parts["whole"]
        for found in [one["found"]]
    ]
    lines = [
        f"PeptideSequencer({', '.join(f'{k}={v!r}' for k, v in NETWORK.items())}) "
        f"trained on {N_TRAINING} spectra; simulated spectra ({DIFFERENT:,} different "
        f"ones) of peptides of {LENGTHS[0]} to {LENGTHS[1]} residues of "
        f"{' and '.join(PROTEOMES)}. Seconds are those of the whole command: start, "
        "reading the file twice, predicting, writing.",
        "",
        *table(head, rows, n_text=0),
        "",
    ]
    for one in parts["kill"]:
        found = one["found"]
        lines += [
            f"Killed (SIGKILL) at {found['rows_at_kill']:,} of {one['n']:,} rows and "
            f"resumed: lost {found['lost']}, twice {found['twice']}, wrong scans "
            f"{found['wrong_scans']}, in order: {found['in_order']}, bytes of a run in "
            f"one go: {found['equal_bytes']}; the command said: {found['said']}",
            "",
        ]
    sizes = [one["n"] for one in parts["write"]]
    head = ["writing, rows there", *(f"extra MiB, {n:,}" for n in sizes),
            *(f"seconds, {n:,}" for n in sizes),
            *(f"file, MiB, {n:,}" for n in sizes)]  # fmt: skip
    rows = [
        [
            suffix,
            *(
                digits(one["found"][suffix][key])
                for key in ("extra_mib", "seconds", "output_mib")
                for one in parts["write"]
            ),
        ]
        for suffix in RESULT_SUFFIXES
        if parts["write"]
    ]
    return [*lines, *table(head, rows), ""]


def verdicts(results: list[Cell]) -> list[str]:
    """Say which bounds are kept."""
    lines = []
    for one in results:
        found, name = one["found"], f"{one['n']:,} spectra"
        if one["part"] == "write":
            continue
        if one["part"] == "whole":
            resident = found["resident_mib"] * MIB / 1e9
            lines.append(verdict(f"{name}: GB resident", resident, MOST_GB))
        name += ", killed and resumed" if one["part"] == "kill" else ""
        wrong = found["lost"] + found["twice"] + found["wrong_scans"]
        wrong += (not found["in_order"]) + (not found["poor_ones_skipped"])
        lines.append(verdict(f"{name}: scans lost, twice or out of place", wrong, 0))
        if one["part"] == "kill":
            unequal = int(not found["equal_bytes"])
            lines.append(verdict(f"{name}: results of other bytes", unequal, 0))
    return lines


def main() -> int:
    """Run the command line."""
    options = parser(__doc__)
    options.set_defaults(threads=1, repeats=1)
    options.add_argument("--spectra", type=int, default=100_000)
    chosen = options.parse_args()
    n = 2000 if chosen.quick else chosen.spectra
    sizes = [max(1, n // 10), n]
    wanted: list[Cell] = [
        *({"part": "whole", "n": size} for size in sizes),
        {"part": "kill", "n": min(n, KILLED)},
        *({"part": "write", "n": size} for size in sizes),
    ]
    results = run_cells("peptide_scale", wanted, measure, chosen)
    if not results:
        write("peptide_scale: nothing is cached yet\n")
        return 1
    title = "Many spectra through the command line"
    report("peptide_scale", title, page(results), verdicts(results), results, chosen)
    return 0


if __name__ == "__main__":
    sys.exit(main())
