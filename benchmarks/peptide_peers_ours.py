"""Our side of peptide_peers.py: spectra, the network, how far its results are off."""

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import Cell
from torch import Tensor

from sciseq.decoding.beam_search import State, beam_search
from sciseq.nn import build_network
from sciseq.sequencing.ion_evidence import Peaks
from sciseq.sequencing.masses import neutral_mass
from sciseq.sequencing.network import PeptideNetwork, Targets
from sciseq.sequencing.peptide_batches import stack_peaks
from sciseq.sequencing.peptide_search import CachedDecoder
from sciseq.sequencing.residues import Vocabulary
from sciseq.sequencing.spectra import PeakSettings, SkippedSpectrum, preprocess
from sciseq.sequencing.spectrum_files import read_spectra

SIZE: dict[str, Any] = {
    "decoder": "autoregressive",
    "evidence": False,
    "d_model": 512,
    "d_ff": 1024,
    "n_heads": 8,
    "n_layers": 9,
}
LENGTH, BATCH = 12, 32


# --------------------------------------------------------------------- spectra


def records(cell: Cell) -> list[Any]:
    """Return a file's first spectra, with 11 to 13 residues where these are known."""
    path = Path(os.environ["SCISEQ_DATA"]) / "peptides" / f"{cell['data']}.mgf.gz"
    vocabulary, found = Vocabulary(), []
    for one in read_spectra(path):
        if isinstance(one, SkippedSpectrum) or not one.charge or one.charge > 4:
            continue
        if one.peptide is not None:
            try:
                length = len(vocabulary.encode(one.peptide))
            except ValueError:
                continue
            if abs(length - LENGTH) > 1:
                continue
        if not isinstance(preprocess(one, one.charge, PeakSettings()), SkippedSpectrum):
            found.append(one)
        if len(found) == cell["spectra"]:
            return found
    raise ValueError(f"{path} has {len(found)} such spectra")


def stacked(chosen: list[Any]) -> Peaks:
    """Return the prepared peaks of some spectra, padded to the longest of them."""
    prepared = [preprocess(one, one.charge, PeakSettings()) for one in chosen]
    return stack_peaks(
        [(one.mz, one.intensity) for one in prepared],  # type: ignore[union-attr]
        np.array([float(neutral_mass(o.precursor_mz, o.charge)) for o in chosen]),
        np.array([one.charge for one in chosen]),
    )


def write_spectra(path: Path, chosen: list[Any]) -> None:
    """Write an MGF file, as plain as both programs read it."""
    lines = []
    for number, one in enumerate(chosen):
        lines += ["BEGIN IONS", f"TITLE=spectrum {number}", f"SCANS={number}",
                  f"PEPMASS={one.precursor_mz}", f"CHARGE={one.charge}+"]  # fmt: skip
        lines += [f"{x} {y}" for x, y in zip(one.mz, one.intensity, strict=True)]
        lines.append("END IONS")
    path.write_text("\n".join(lines) + "\n")


# ------------------------------------------------------------------------ ours


class FixedLength:
    """A constraint of a beam search: residues alone, then the end."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.is_residue = torch.from_numpy(~np.append(vocabulary.is_terminal, True))

    def start(self, n_items: int, n_beams: int, device: torch.device) -> State:
        """No residue yet."""
        return (torch.zeros(n_items, n_beams, dtype=torch.int64),)

    def mask(self, state: State) -> Tensor:
        """Residues until there are enough, then everything but them."""
        return self.is_residue ^ (state[0] == LENGTH).unsqueeze(-1)

    def advance(self, state: State, tokens: Tensor) -> State:
        """Count one residue more."""
        return (state[0] + 1,)


def make_network() -> PeptideNetwork:
    """Build our network of the same size, with random weights."""
    made = build_network(
        lambda: PeptideNetwork(Vocabulary(), **SIZE), torch.Generator().manual_seed(0)
    )
    return made.eval()


def batches_of(chosen: list[Any]) -> list[Peaks]:
    """Stack spectra, those of one size together, as the estimator does."""
    settings = PeakSettings()
    ordered = sorted(
        chosen, key=lambda one: len(preprocess(one, one.charge, settings).mz)
    )
    parts = range(0, len(ordered), BATCH)
    return [stacked(ordered[first : first + BATCH]) for first in parts]


def run_ours(
    network: PeptideNetwork, batches: list[Peaks], request: dict[str, Any]
) -> Cell:
    """Decode all spectra once."""
    vocabulary = network.vocabulary
    is_half = request["precision"] == "bfloat16"
    tokens, log_probs = [], []
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, is_half):
        begun = time.perf_counter(), time.process_time()
        for peaks in batches:
            decoded = beam_search(
                CachedDecoder(network, peaks),
                n_items=len(peaks.mz),
                beam_size=request["beams"],
                max_length=LENGTH,
                stop=len(vocabulary),
                allowed=FixedLength(vocabulary),
            )
            tokens.append(decoded.tokens[:, 0, :LENGTH])
            log_probs.append(decoded.log_probs[:, 0])
        ended = time.perf_counter(), time.process_time()
    return {
        "wall": ended[0] - begun[0],
        "processor": ended[1] - begun[1],
        "tokens": tokens,
        "log_probs": log_probs,
    }


def uncached(network: PeptideNetwork, peaks: Peaks, tokens: Tensor) -> Tensor:
    """Log-probabilities (item, place) of given peptides, by one plain forward pass."""
    targets = Targets(tokens, torch.full((len(tokens),), LENGTH))
    with torch.inference_mode():
        read = network.cross_memory(network.encode(peaks), None)
        logs = network.forced_scores(peaks, read, targets).log_softmax(-1)
    path = torch.nn.functional.pad(tokens, (0, 1), value=len(network.vocabulary))
    return logs.gather(2, path.unsqueeze(-1)).squeeze(-1)


def agreement(network: PeptideNetwork, batches: list[Peaks], cell: Cell) -> Cell:
    """Compare ours with the plain forward pass, and bfloat16 with float32."""
    runs = {
        precision: run_ours(network, batches, {**cell, "precision": precision})
        for precision in ("float32", "bfloat16")
    }
    off: dict[str, list[float]] = {}
    for precision, run in runs.items():
        parts = zip(batches, run["tokens"], run["log_probs"], strict=True)
        errors = [
            (logs - uncached(network, peaks, tokens)).abs().flatten()
            for peaks, tokens, logs in parts
        ]
        joined = torch.cat(errors)
        off[precision] = [float(joined.median()), float(joined.max())]
    pairs = zip(runs["float32"]["tokens"], runs["bfloat16"]["tokens"], strict=True)
    same = torch.cat([(one == two).all(dim=1) for one, two in pairs])
    return {"off": off, "same": int(same.sum()), "of": len(same)}
