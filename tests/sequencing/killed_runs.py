"""Runs of `sciseq sequence predict` in processes of their own, killed at any sync.

Run as a program: everything heavy is imported once, and each run is a fork of that.
Arguments: spectra, model, folder to write to, suffixes of results. Writes JSON, one
entry for each run.
"""

import json
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch

import sciseq.cli.sequence_prediction
import sciseq.sequencing.sequencer
from sciseq.cli import main
from sciseq.cli.partial_rows import PartialRows
from sciseq.cli.sequence_files import load_sequencer

CHUNK = 8
# The header, four chunks of 31 spectra, the result, and its folder.
N_SYNCS = 7
TORN = 30


def run(arguments: list[str], prepare: Callable[[], None] = lambda: None) -> int:
    """Run the command in a fork; return its exit code, negative for a signal."""
    child = os.fork()
    if not child:
        code = 99
        try:
            prepare()
            main(["sequence", "predict", *arguments, "--quiet"])
        except SystemExit as stopped:
            code = int(stopped.code or 0)
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def killing(moment: int, torn: int) -> Callable[[], None]:
    """Return what makes a process die at a sync, with so many bytes not written."""

    def prepare() -> None:
        real, n_calls = os.fsync, 0

        def fsync(descriptor: int) -> None:
            nonlocal n_calls
            n_calls += 1
            if n_calls < moment:
                return real(descriptor)
            with suppress(OSError):  # the result is only open for reading
                size = os.fstat(descriptor).st_size
                os.ftruncate(descriptor, max(size - torn, 0))
            os.kill(os.getpid(), signal.SIGKILL)

        os.fsync = fsync

    return prepare


def keep_the_torn_end() -> None:
    """Make resuming wrong: what a kill has torn stays in the file."""

    def resume(self: PartialRows) -> None:
        self.n_rows = max(self.path.read_bytes().count(b"\n") - 1, 0)
        self._file = self.path.open("ab")

    PartialRows.resume = resume


def killed(suffix: str, moment: int, torn: int, folder: Path, given: list[str]) -> dict:
    """Kill a run at a sync and let it go on; say what was there, and what came out."""
    out = folder / f"out{suffix}"
    code = run([*given, "-o", str(out)], killing(moment, torn))
    there = sorted(one.name for one in folder.iterdir())
    resume = [*given, "-o", str(out), "--resume"]
    return {
        "moment": moment,
        "suffix": suffix,
        "killed": code,
        "had_output": out.name in there,
        "had_partial": f"{out.name}.partial" in there,
        "had_leftover": any(one.endswith(f".part{suffix}") for one in there),
        "resumed": run(resume),
        "result": out.read_bytes().hex() if out.exists() else "",
        "left": sorted(one.name for one in folder.iterdir()),
        "removed": out.unlink(missing_ok=True),
    }


def program(spectra: str, model: str, place: str, *suffixes: str) -> list[dict]:
    torch.set_num_threads(1)
    sciseq.cli.sequence_prediction._CHUNK = CHUNK
    given = [spectra, "-m", model]
    # What is imported and tabulated here, the forks need not.
    list(load_sequencer(Path(model), "cpu").iter_rows(spectra))
    found = []
    for number, suffix in enumerate(suffixes):
        folder = Path(place) / suffix[1:]
        folder.mkdir()
        out = folder / f"out{suffix}"
        code = run([*given, "-o", str(out)])
        whole = {"moment": 0, "suffix": suffix, "code": code}
        found.append(whole | {"result": out.read_bytes().hex()})
        out.unlink()
        moments = [N_SYNCS - 1] if number else range(1, N_SYNCS + 1)
        for moment in moments:
            torn = TORN * (moment % 2)
            found.append(killed(suffix, moment, torn, folder, given))
    # The same with a fault.
    out = Path(place) / "wrong.csv"
    run([*given, "-o", str(out)], killing(3, TORN))
    code = run([*given, "-o", str(out), "--resume"], keep_the_torn_end)
    return [*found, {"moment": -1, "suffix": ".csv", "code": code}]


if __name__ == "__main__":
    sys.stdout.write(json.dumps(program(*sys.argv[1:])))
