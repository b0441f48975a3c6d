"""Simulated spectra without end, as training data.

Axes: n spectra of an epoch, P peaks, L residues of the longest.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sciseq.decoding.ctc import required_length
from sciseq.errors import DataQualityError, InputError
from sciseq.sequencing.ion_evidence import Peaks
from sciseq.sequencing.masses import neutral_mass
from sciseq.sequencing.network import Targets
from sciseq.sequencing.objective import PeptideBatch
from sciseq.sequencing.peptide_batches import PeptideBatches, stack_peaks, stack_targets
from sciseq.sequencing.spectra import PeakSettings, SkippedSpectrum, preprocess

if TYPE_CHECKING:
    from sciseq.sequencing.simulator import Simulator
    from sciseq.sequencing.simulator_batches import SimulatedSpectra

__all__ = ["SpectrumStream", "StreamBatches"]

# Spectra that one worker makes at a time, and how often a part of them may be refused.
_SHARD, _MOST_TRIALS = 4096, 20
_NO_EPOCH = 2**31  # a number that no epoch has


class SpectrumStream:
    """A simulator as training data: every epoch has spectra of its own.

    Parameters
    ----------
    simulator : Simulator
        Source of the spectra.
    n_per_epoch : int
        Spectra of an epoch.
    random_state : int, default=0
        Seed. Epoch q of equal streams is equal, whatever the number of workers.
    n_workers : int, default=1
        Processes that simulate the next epoch while this one is trained on; with 1
        the training process itself does it, in between.

    Raises
    ------
    InputError
        For numbers below 1, or a negative seed.

    Notes
    -----
    Peptides are drawn with repetition, so an epoch may show one again, with another
    spectrum.

    Both counts are of all epochs that this stream has made, each once however often it
    was made; spectra that are held out do not count. Where many are replaced, time is
    lost, and the epochs have other shares of long peptides and high charges than the
    simulator.

    Examples
    --------
    >>> from sciseq.sequencing.simulator import Simulator
    >>> simulator = Simulator(["PEPTLDEK", "GASPVTLK"], modifications={})
    >>> stream = SpectrumStream(simulator, 32)
    >>> peaks, targets = stream.epoch(0, PeakSettings(), most_residues=40)
    >>> len(peaks.mz), sorted(set(targets.lengths.tolist()))
    (32, [8])
    >>> longer = Simulator(["PEPTLDEK", "GASPVTLLK"], modifications={}).stream(32)
    >>> _ = longer.epoch(0, PeakSettings(), most_residues=8)
    >>> list(longer.replaced)
    ['its peptide is longer than 8 residues']
    """

    def __init__(
        self,
        simulator: Simulator,
        n_per_epoch: int,
        *,
        random_state: int = 0,
        n_workers: int = 1,
    ) -> None:
        numbers = {"n_per_epoch": n_per_epoch, "n_workers": n_workers}
        for name, value in numbers.items():
            if value < 1:
                raise InputError(f"{name} is {value}, must be at least 1", where=name)
        if random_state < 0:
            raise InputError(
                f"random_state is {random_state}, must be at least 0",
                where="random_state",
            )
        self.simulator = simulator
        self.n_per_epoch = n_per_epoch
        self.random_state = random_state
        self.n_workers = n_workers
        self._counts: dict[int, _Counts] = {}  # of each epoch

    @property
    def replaced(self) -> dict[str, int]:
        """Spectra that could not be used and were replaced, by reason.

        Counted over the epochs that were made.
        """
        return dict(
            sum(
                (one.replaced for one in self._counts.values()), Counter()
            ).most_common()
        )

    @property
    def n_crowded(self) -> int:
        """Spectra that the nonautoregressive decoder learns nothing from.

        One symbol for each residue and one between equal neighbours are more than it
        has, ``most_residues``. They stay, as the other decoder learns from them.
        """
        return sum(one.crowded for one in self._counts.values())

    def epoch(
        self, number: int, settings: PeakSettings, *, most_residues: int
    ) -> tuple[Peaks, Targets]:
        """Make the spectra of an epoch.

        Parameters
        ----------
        number : int
            Which epoch, from 0.
        settings : PeakSettings
            Of the preprocessing.
        most_residues : int
            Longest peptide; longer ones are left out.

        Returns
        -------
        Peaks, Targets
            ``n_per_epoch`` rows on the CPU.
        """
        sizes = _shard_sizes(self.n_per_epoch)
        jobs = [
            (self.simulator, (self.random_state, number, shard), size, settings,
             most_residues)
            for shard, size in enumerate(sizes)
        ]  # fmt: skip
        if self.n_workers == 1:
            shards = [_make_shard(*job) for job in jobs]
        else:
            from joblib import Parallel, delayed

            workers = Parallel(n_jobs=min(self.n_workers, len(jobs)))
            shards = workers(delayed(_make_shard)(*job) for job in jobs)
        peaks, targets = _joined([shard for shard, _ in shards])
        replaced = sum((one for _, one in shards), Counter())
        crowded = int((required_length(*targets) > most_residues).sum())
        self._counts[number] = _Counts(replaced, crowded)
        return peaks, targets

    def held_out(
        self, n: int, settings: PeakSettings, *, most_residues: int
    ) -> tuple[Peaks, Targets]:
        """Make n spectra that belong to no epoch; their peptides may."""
        other = SpectrumStream(
            self.simulator, n, random_state=self.random_state, n_workers=self.n_workers
        )
        return other.epoch(_NO_EPOCH, settings, most_residues=most_residues)

    def fingerprint(self) -> str:
        """Return a hash of all that the spectra depend on."""
        digest = hashlib.sha256(self.simulator.fingerprint().encode())
        digest.update(f"{self.n_per_epoch} {self.random_state}".encode())
        return digest.hexdigest()


class _Counts(NamedTuple):
    """What became of an epoch's spectra."""

    replaced: Counter[str]
    crowded: int


class _Shard(NamedTuple):
    mz: npt.NDArray[np.float64]
    intensity: npt.NDArray[np.float64]
    mass: npt.NDArray[np.float64]
    charge: npt.NDArray[np.int64]
    tokens: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int64]


class _Usable(NamedTuple):
    """One spectrum, preprocessed."""

    peaks: tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]
    mass: float
    charge: int
    tokens: npt.NDArray[np.int64]


def _shard_sizes(n: int) -> list[int]:
    return [min(_SHARD, n - start) for start in range(0, n, _SHARD)]


def _make_shard(
    simulator: Simulator,
    seed: tuple[int, ...],
    n: int,
    settings: PeakSettings,
    most_residues: int,
) -> tuple[_Shard, Counter[str]]:
    """Simulate until there are n spectra that can be used; count the others."""
    rng = np.random.default_rng(seed)
    kept: list[_Usable] = []
    refused: Counter[str] = Counter()
    for _ in range(_MOST_TRIALS):
        made = simulator.sample_arrays(n - len(kept), rng)
        for row in range(len(made.charge)):
            found = _usable(made, row, settings, most_residues)
            if isinstance(found, str):
                refused[found] += 1
            else:
                kept.append(found)
        if len(kept) == n:
            break
    else:
        raise DataQualityError(
            f"of {_MOST_TRIALS * n} simulated spectra {len(kept)} can be used",
            where="simulator",
            hint="Its spectra have too few peaks, or too many charges or residues.",
        )
    peaks, masses, charges, peptides = zip(*kept, strict=True)
    stacked = stack_peaks(
        peaks, np.array(masses), np.array(charges), dtype=torch.float64
    )
    columns = (*stacked, *stack_targets(peptides))
    return _Shard(*(one.numpy() for one in columns)), refused


def _usable(
    made: SimulatedSpectra, row: int, settings: PeakSettings, most_residues: int
) -> _Usable | str:
    """Return what the training needs of one spectrum, or why it is of no use."""
    tokens = made.tokens[row, : made.n_tokens[row]]
    if len(tokens) > most_residues:
        return f"its peptide is longer than {most_residues} residues"
    spectrum, charge = made.bare_spectrum(row), int(made.charge[row])
    found = preprocess(spectrum, charge, settings)
    if isinstance(found, SkippedSpectrum):
        return found.reason
    mass = float(neutral_mass(found.precursor_mz, charge))
    return _Usable((found.mz, found.intensity), mass, charge, tokens)


def _joined(shards: list[_Shard]) -> tuple[Peaks, Targets]:
    """Put shards of different widths below each other."""
    columns = []
    for name, parts in zip(_Shard._fields, zip(*shards, strict=True), strict=True):
        if parts[0].ndim == 2:
            width = max(one.shape[1] for one in parts)
            fill = np.inf if name == "mz" else 0
            parts = tuple(
                np.pad(one, ((0, 0), (0, width - one.shape[1])), constant_values=fill)
                for one in parts
            )
        columns.append(torch.from_numpy(np.concatenate(parts)))
    return Peaks(*columns[:4]), Targets(*columns[4:])


class StreamBatches:
    """The epochs of a stream, as the training loop wants its items.

    Parameters
    ----------
    stream : SpectrumStream
        Source of the epochs.
    settings : PeakSettings
        Of the preprocessing.
    most_residues : int
        Longest peptide.
    device : torch.device
        Where to keep the epoch at hand.
    dtype : torch.dtype
        Of the intensities.

    Notes
    -----
    The loop says with :meth:`begin` which epoch comes; with more than one worker the
    next one is then simulated in the background.
    """

    def __init__(
        self,
        stream: SpectrumStream,
        settings: PeakSettings,
        most_residues: int,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self._stream, self._settings = stream, settings
        self._most_residues = most_residues
        self._device, self._dtype = device, dtype
        self._number: int | None = None
        self._items: PeptideBatches | None = None
        self._next: tuple[int, Future[Any]] | None = None

    @property
    def n_items(self) -> int:
        """Spectra of an epoch."""
        return self._stream.n_per_epoch

    def begin(self, number: int, n_epochs: int) -> None:
        """Let epoch `number` of `n_epochs` (counted from 0) be what is gathered."""
        if number == self._number:
            return
        self._items = None  # two epochs need not fit the device
        peaks, targets = self._made(number)
        peaks = peaks._replace(intensity=peaks.intensity.to(self._dtype))
        self._items = PeptideBatches(peaks, targets, self._device)
        self._number = number
        if self._stream.n_workers > 1 and number + 1 < n_epochs:
            pool = ThreadPoolExecutor(1)
            self._next = number + 1, pool.submit(self._make, number + 1)
            pool.shutdown(wait=False)

    def gather(self, indices: Tensor) -> PeptideBatch:
        """Return some spectra of the epoch, and their peptides."""
        if self._items is None:
            self.begin(0, 1)
        assert self._items is not None
        return self._items.gather(indices)

    def _made(self, number: int) -> tuple[Peaks, Targets]:
        waiting, self._next = self._next, None
        if waiting is not None and waiting[0] == number:
            made: tuple[Peaks, Targets] = waiting[1].result()
            return made
        return self._make(number)

    def _make(self, number: int) -> tuple[Peaks, Targets]:
        return self._stream.epoch(
            number, self._settings, most_residues=self._most_residues
        )
