"""What tells right candidates of a spectrum from wrong ones.

Axes: ``candidate`` (C, peptides that a search found for one spectrum), ``bond`` (of
the longest, from the N-terminus), ``ion`` (kinds of ions).
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from sciseq.sequencing.ion_evidence import Peaks
from sciseq.sequencing.masses import AMMONIA, C13, CARBON_MONOXIDE, PROTON, WATER
from sciseq.sequencing.network import PeptideNetwork
from sciseq.sequencing.peptide_search import Found

__all__ = ["FEATURES", "candidate_features"]

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

FEATURES = (
    "log_score", "log_score_per_residue", "least_residue", "margin", "rank",
    "path_score", "path_score_per_residue", "path_margin",
    "residues", "charge", "error_ppm", "isotope",
    "bonds", "y_bonds", "b_bonds", "missing", "longest_gap",
    "signal", "root_signal", "highest_peaks", "fragment_error",
)  # fmt: skip
"""Names of the features, in order."""

# Nothing is less probable than e to this.
_FLOOR = -60.0
_TOLERANCE, _LEAST = 20e-6, 0.006  # parts of m/z, Da
_HIGHEST = 30

# Kinds of ions: counted from the N-terminus (1) or not, charge, what is lost.
_KINDS = (
    (0, 1, 0.0), (1, 1, 0.0), (0, 2, 0.0), (1, 2, 0.0),
    (1, 1, CARBON_MONOXIDE), (0, 1, AMMONIA), (0, 1, WATER), (1, 1, AMMONIA),
    (1, 1, WATER),
)  # fmt: skip
_Y, _B, _Y2, _B2 = range(4)


def candidate_features(
    network: PeptideNetwork, peaks: Peaks, found: Sequence[Sequence[Found]]
) -> list[FloatArray]:
    """Describe the candidates of some spectra.

    Parameters
    ----------
    network : PeptideNetwork
        In evaluation mode. Without a nonautoregressive decoder the features of paths
        are 0.
    peaks : Peaks
        Spectra.
    found : sequence of sequences of Found
        Candidates of each, best first.

    Returns
    -------
    list of ndarray, shape (n_candidates, len(FEATURES))
        Features of each spectrum's candidates.
    """
    paths = _path_scores(network, peaks, found)
    mz, intensity = peaks.mz.cpu().numpy(), peaks.intensity.double().cpu().numpy()
    masses = network.masses.cpu().numpy()
    is_terminal = np.asarray(network.vocabulary.is_terminal)
    described = []
    for item, candidates in enumerate(found):
        if not candidates:
            described.append(np.zeros((0, len(FEATURES))))
            continue
        mass, charge = float(peaks.precursor_mass[item]), int(peaks.charge[item])
        is_peak = np.isfinite(mz[item])
        residues = [_residues(one, masses, is_terminal) for one in candidates]
        columns = [
            *_score_columns(candidates, paths[item]),
            np.array([float(len(one)) for one in residues]),
            np.full(len(candidates), float(charge)),
            *_mass_columns(residues, mass),
            *_ion_columns(
                residues, mass, charge, mz[item, is_peak], intensity[item, is_peak]
            ),
        ]
        described.append(np.stack(columns, axis=1))
    return described


def _residues(found: Found, masses: FloatArray, is_terminal: BoolArray) -> FloatArray:
    """Masses N to C; that of a terminal modification is in the first one."""
    own = masses[found.tokens]
    if is_terminal[found.tokens[0]] and len(own) > 1:
        own = np.append(own[0] + own[1], own[2:])
    return own


def _path_scores(
    network: PeptideNetwork, peaks: Peaks, found: Sequence[Sequence[Found]]
) -> list[FloatArray]:
    """Log-probabilities of the candidates by the nonautoregressive decoder."""
    counts = [len(one) for one in found]
    if network.nonautoregressive is None or not sum(counts):
        return [np.zeros(count) for count in counts]
    states = network.slot_states(peaks, network.encode(peaks))
    logs = network.symbol_scores(states).float().log_softmax(dim=-1)
    tokens = [one.tokens[::-1].copy() for many in found for one in many]
    lengths = torch.tensor([len(one) for one in tokens])
    targets = _padded([torch.from_numpy(one) for one in tokens])
    item = torch.repeat_interleave(torch.arange(len(found)), torch.tensor(counts))
    rows = logs.cpu()[item].transpose(0, 1)  # (slot, candidate, symbol)
    losses = F.ctc_loss(
        rows, targets, torch.full_like(lengths, rows.shape[0]), lengths,
        blank=rows.shape[-1] - 1, reduction="none",
    )  # fmt: skip
    scores = (-losses).clamp_min(_FLOOR).nan_to_num(nan=_FLOOR, neginf=_FLOOR)
    return np.split(scores.double().numpy(), np.cumsum(counts)[:-1])


def _padded(rows: list[Tensor]) -> Tensor:
    """Put rows of different lengths below each other, 0 behind their ends."""
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)


def _score_columns(candidates: Sequence[Found], paths: FloatArray) -> list[FloatArray]:
    scores = np.maximum([one.log_score for one in candidates], _FLOOR)
    lengths = np.array([len(one.tokens) for one in candidates], float)
    least = [np.log(max(one.probabilities.min(), 1e-9)) for one in candidates]
    rank = np.arange(len(candidates), dtype=float)
    return [
        scores, scores / lengths, np.array(least), _margin(scores), np.log1p(rank),
        paths, paths / lengths, _margin(paths),
    ]  # fmt: skip


def _margin(scores: FloatArray) -> FloatArray:
    """How far each is above the best of the others."""
    if len(scores) == 1:
        return np.array([-_FLOOR / 2])
    order = np.sort(scores)
    others = np.where(scores == order[-1], order[-2], order[-1])
    return np.asarray(np.clip(scores - others, _FLOOR / 2, -_FLOOR / 2))


def _mass_columns(residues: Sequence[FloatArray], mass: float) -> list[FloatArray]:
    own = np.array([one.sum() + WATER for one in residues])
    isotopes = np.arange(-1, 3)
    errors = np.abs(mass - isotopes * C13 - own[:, None])
    nearest = errors.argmin(axis=1)
    return [
        errors.min(axis=1) / mass * 1e6,
        (isotopes[nearest] != 0).astype(float),
    ]


def _ion_columns(
    residues: Sequence[FloatArray],
    mass: float,
    charge: int,
    mz: FloatArray,
    intensity: FloatArray,
) -> list[FloatArray]:
    """Describe how much of the peptides and of the peaks the ions explain."""
    most = max(len(one) for one in residues)
    table = np.zeros((len(residues), most))
    for row, one in enumerate(residues):
        table[row, : len(one)] = one
    lengths = np.array([len(one) for one in residues])
    b = table.cumsum(axis=1)[:, :-1]  # (candidate, bond)
    total = table.sum(axis=1, keepdims=True)
    is_bond = np.arange(most - 1) < lengths[:, None] - 1
    y = total - b + WATER
    ions = np.stack(
        [((b if n else y) - lost) / z + PROTON for n, z, lost in _KINDS], axis=1
    )  # (candidate, ion, bond)
    place, distance = _nearest(mz, ions)
    hit = distance <= np.maximum(_TOLERANCE * ions, _LEAST)
    hit &= is_bond[:, None] & (np.array([z for _, z, _ in _KINDS]) <= charge)[:, None]
    has_y, has_b = hit[:, _Y] | hit[:, _Y2], hit[:, _B] | hit[:, _B2]
    has = has_y | has_b
    n_bonds = np.maximum(lengths - 1, 1)
    missing = is_bond & ~has
    backbone = _explained(hit[:, :4], place[:, :4], len(mz))
    anything = _explained(hit, place, len(mz))
    highest = np.argsort(-intensity, kind="stable")[:_HIGHEST]
    error = np.where(hit[:, :4], distance[:, :4] / ions[:, :4] * 1e6, 0.0)
    n_hits = hit[:, :4].sum(axis=(1, 2))
    return [
        has.sum(axis=1) / n_bonds,
        has_y.sum(axis=1) / n_bonds,
        has_b.sum(axis=1) / n_bonds,
        missing.sum(axis=1).astype(float),
        _longest_run(missing).astype(float),
        backbone @ intensity**2 / max(float((intensity**2).sum()), 1e-30),
        backbone @ intensity / max(float(intensity.sum()), 1e-30),
        anything[:, highest].mean(axis=1),
        np.where(n_hits, error.sum(axis=(1, 2)) / np.maximum(n_hits, 1), 20.0),
    ]


def _nearest(
    mz: FloatArray, ions: FloatArray
) -> tuple[npt.NDArray[np.int64], FloatArray]:
    right = np.minimum(np.searchsorted(mz, ions), len(mz) - 1)
    left = np.maximum(right - 1, 0)
    to_left, to_right = np.abs(mz[left] - ions), np.abs(mz[right] - ions)
    return np.where(to_left <= to_right, left, right), np.minimum(to_left, to_right)


def _explained(
    hit: BoolArray, place: npt.NDArray[np.int64], n_peaks: int
) -> FloatArray:
    """Which peaks are an ion of each candidate, 0 or 1 (candidate, peak)."""
    shown = np.zeros((len(hit), n_peaks))
    row, *rest = np.nonzero(hit)
    shown[row, place[(row, *rest)]] = 1.0
    return shown


def _longest_run(flags: BoolArray) -> npt.NDArray[np.int64]:
    """Length of the longest run of true flags in each row."""
    run = longest = np.zeros(len(flags), np.int64)
    for column in flags.T:
        run = (run + 1) * column
        longest = np.maximum(longest, run)
    return longest
