"""Simulated HCD spectra of peptides, for training, tests and timing.

Fragmentation follows documented rules whose numbers were fitted to measured spectra;
the instrument loses ions, adds noise and errs. By default every spectrum comes from an
instrument of its own, drawn from wide ranges (domain randomisation), so that a network
cannot rely on any one of them.
"""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from sciseq.errors import InputError
from sciseq.sequencing.digestion import Digestion
from sciseq.sequencing.residues import Vocabulary
from sciseq.sequencing.simulator_batches import (
    Drawn,
    SimulatedSpectra,
    simulate_batch,
    stack,
)
from sciseq.sequencing.simulator_chemistry import Chemistry
from sciseq.sequencing.simulator_peptides import (
    Modifications,
    Pool,
    Proteins,
    checked_shares,
)
from sciseq.sequencing.simulator_physics import Physics, PhysicsTable
from sciseq.sequencing.simulator_statistics import statistics
from sciseq.sequencing.spectra import Spectrum

if TYPE_CHECKING:
    from sciseq.sequencing.spectrum_stream import SpectrumStream

__all__ = [
    "Physics",
    "SimulatedSpectra",
    "Simulator",
    "simulate_spectrum",
    "statistics",
]

FloatArray = npt.NDArray[np.float64]
IndexArray = npt.NDArray[np.int64]

# Spectra simulated at once: large enough to forget the cost of calls, small enough for
# the arrays to stay in the processor's cache.
_CHUNK = 64

# Mean charge by number of R, K and H and by length, and its standard deviation: a
# regression over measured spectra.
_CHARGE_BASE, _CHARGE_PER_BASIC, _CHARGE_PER_RESIDUE = 1.08, 0.43, 0.0455
_CHARGE_SPREAD = 0.4
_USUAL_CHARGES = (2, 3, 4)


def simulate_spectrum(
    tokens: Sequence[int] | IndexArray,
    charge: int,
    *,
    vocabulary: Vocabulary,
    physics: Physics,
    rng: np.random.Generator,
) -> Spectrum:
    """Simulate one spectrum.

    Parameters
    ----------
    tokens : sequence of int
        Indices of `vocabulary`, N to C; a token of the N-terminus stands first.
    charge : int
        Charge of the precursor, at least 1.
    vocabulary : Vocabulary
        Tokens and masses.
    physics : Physics
        Instrument and run.
    rng : numpy.random.Generator
        Source of all randomness.

    Returns
    -------
    Spectrum
        With ``peptide`` set; ``precursor_mz`` carries the error of the instrument.

    Raises
    ------
    InputError
        For a peptide of fewer than two residues, a token that is not in the
        vocabulary, or a charge below 1.
    DataQualityError
        When the physics leaves no peak at all.

    Examples
    --------
    >>> vocabulary = Vocabulary()
    >>> spectrum = simulate_spectrum(
    ...     vocabulary.encode("LLGNK"), 2, vocabulary=vocabulary, physics=Physics(),
    ...     rng=np.random.default_rng(0),
    ... )
    >>> spectrum.peptide, spectrum.charge, round(spectrum.precursor_mz, 1)
    ('LLGNK', 2, 272.7)
    """
    peptide = vocabulary.decode(tokens)
    numbers = np.asarray(tokens, np.int64)
    if len(numbers) - int(vocabulary.is_terminal[numbers[:1]].sum()) < 2 or charge < 1:
        raise InputError(
            f"peptide {peptide!r} at charge {charge}; at least two residues and a "
            "charge of at least 1 are needed",
            where="simulate_spectrum",
        )
    drawn = Drawn(numbers[None], np.array([len(numbers)]), np.array([charge], np.int64))
    simulated = simulate_batch(
        drawn, Chemistry(vocabulary), PhysicsTable.of([physics]), rng
    )
    return simulated.spectrum(0, vocabulary)


class Simulator:
    """An endless source of annotated spectra of the peptides of some proteins.

    Parameters
    ----------
    proteins : path-like, sequence of pathlib.Path, or sequence of str
        A FASTA file, several of them, or peptides (ProForma).
    vocabulary : Vocabulary, optional
        Default ``Vocabulary()``.
    enzyme : str, default="trypsin"
        A name of :data:`~sciseq.sequencing.digestion.ENZYMES`.
    missed_cleavages : sequence of float, default=(0.75, 0.2, 0.05)
        Shares of drawn peptides with 0, 1, ... missed cleavages. Not used for
        peptides that are given; these are equally likely.
    lengths : (int, int), default=(6, 30)
        Fewest and most residues of digested peptides.
    modifications : mapping of str to float, optional
        Token to its chance per site (per peptide for the N-terminus). Default: every
        modified token of the vocabulary, oxidation of M at 0.2, others rarer.
    charges : mapping of int to float, optional
        Charge to its share. Default: 2 to 4, by length and basic residues.
    exclude : collection of str, default=()
        Peptides that never appear, whatever their modifications; I counts as L.
    physics : Physics, optional
        One instrument for all. Default: every spectrum draws its own.

    Attributes
    ----------
    vocabulary : Vocabulary
        Of the tokens.

    Raises
    ------
    InputError
        When no peptide is left, a residue or modification is not in the vocabulary, or
        shares are not positive.

    Examples
    --------
    >>> simulator = Simulator(
    ...     ["PEPTIDEK", "GASPVTLK"], modifications={}, exclude={"PEPTLDEK"}
    ... )
    >>> one, two = simulator.sample(2, random_state=0)
    >>> one.peptide, two.peptide, one.charge
    ('GASPVTLK', 'GASPVTLK', 2)
    """

    def __init__(
        self,
        proteins: Proteins,
        *,
        vocabulary: Vocabulary | None = None,
        enzyme: str = "trypsin",
        missed_cleavages: Sequence[float] = (0.75, 0.2, 0.05),
        lengths: tuple[int, int] = (6, 30),
        modifications: Mapping[str, float] | None = None,
        charges: Mapping[int, float] | None = None,
        exclude: Collection[str] = (),
        physics: Physics | None = None,
    ) -> None:
        self.vocabulary = Vocabulary() if vocabulary is None else vocabulary
        self._chemistry = Chemistry(self.vocabulary)
        self._modifications = Modifications(self.vocabulary, modifications)
        self._charges = None if charges is None else _checked_charges(charges)
        self._physics = None if physics is None else PhysicsTable.of([physics])
        shares = checked_shares(missed_cleavages, "missed_cleavages")
        digestion = Digestion(enzyme, len(shares) - 1, *lengths, leucine=True)
        self._pool = Pool.read(proteins, digestion, shares, exclude, self.vocabulary)

    @property
    def n_peptides(self) -> int:
        """Peptides to draw from, modifications not counted."""
        return self._pool.n_peptides

    def stream(
        self, n_per_epoch: int, *, random_state: int = 0, n_workers: int = 1
    ) -> "SpectrumStream":
        """Return training data that never end: other spectra in every epoch.

        Parameters
        ----------
        n_per_epoch : int
            Spectra of an epoch.
        random_state : int, default=0
            Seed.
        n_workers : int, default=1
            Processes that simulate while the network learns.

        Returns
        -------
        SpectrumStream
            For :meth:`PeptideSequencer.fit <sciseq.PeptideSequencer.fit>`.
        """
        from sciseq.sequencing.spectrum_stream import SpectrumStream

        return SpectrumStream(
            self, n_per_epoch, random_state=random_state, n_workers=n_workers
        )

    def fingerprint(self) -> str:
        """Return a hash of all that its spectra depend on."""
        charges = self._charges or (np.zeros(0), np.zeros(0))
        physics = np.zeros(0) if self._physics is None else self._physics.values
        digest = hashlib.sha256(repr(self.vocabulary.to_dict()).encode())
        for one in (*charges, physics, *self._pool.arrays):
            digest.update(np.ascontiguousarray(one).tobytes())
        digest.update(repr(self._modifications.chances).encode())
        return digest.hexdigest()

    def sample(
        self, n: int, random_state: int | np.random.Generator | None = None
    ) -> list[Spectrum]:
        """Draw `n` spectra.

        Parameters
        ----------
        n : int
            How many.
        random_state : int or numpy.random.Generator, optional
            Seed; equal seeds give equal bytes. Default: another result each time.

        Returns
        -------
        list of Spectrum
            With ``peptide`` set.
        """
        simulated = self.sample_arrays(n, np.random.default_rng(random_state))
        return [simulated.spectrum(number, self.vocabulary) for number in range(n)]

    def sample_arrays(self, n: int, rng: np.random.Generator) -> SimulatedSpectra:
        """Draw `n` spectra as arrays, for training on the fly.

        Parameters
        ----------
        n : int
            How many, at least 1.
        rng : numpy.random.Generator
            Source of all randomness.

        Returns
        -------
        SimulatedSpectra
            Padded arrays.

        Raises
        ------
        InputError
            When `n` is below 1.
        """
        if n < 1:
            raise InputError(f"n is {n}, must be at least 1", where="n")
        parts = []
        for start in range(0, n, _CHUNK):
            size = min(_CHUNK, n - start)
            drawn = self._draw(size, rng)
            if self._physics is None:
                physics = PhysicsTable.sample(rng, size)
            else:
                physics = PhysicsTable(np.repeat(self._physics.values, size, axis=0))
            parts.append(simulate_batch(drawn, self._chemistry, physics, rng))
        return parts[0] if len(parts) == 1 else stack(parts)

    def _draw(self, n: int, rng: np.random.Generator) -> Drawn:
        tokens, n_tokens = self._modifications.apply(*self._pool.draw(n, rng), rng)
        return Drawn(tokens, n_tokens, self._draw_charges(tokens, n_tokens, rng))

    def _draw_charges(
        self, tokens: IndexArray, n_tokens: IndexArray, rng: np.random.Generator
    ) -> IndexArray:
        if self._charges is not None:
            values, shares = self._charges
            return np.asarray(rng.choice(values, len(tokens), p=shares))
        inside = np.arange(tokens.shape[1]) < n_tokens[:, None]
        basic = (self._chemistry.sites[0][tokens] * inside).sum(axis=1)
        mean = _CHARGE_BASE + _CHARGE_PER_BASIC * basic + _CHARGE_PER_RESIDUE * n_tokens
        distance = (np.array(_USUAL_CHARGES) - mean[:, None]) / _CHARGE_SPREAD
        # The nearest charge counts 1, so that no row of weights is all zero.
        square = distance**2 - (distance**2).min(axis=1, keepdims=True)
        sums = np.exp(-square / 2).cumsum(axis=1)
        place = (rng.random((len(mean), 1)) * sums[:, -1:] > sums).sum(axis=1)
        return np.asarray(np.array(_USUAL_CHARGES)[place])


def _checked_charges(charges: Mapping[int, float]) -> tuple[IndexArray, FloatArray]:
    values = np.array(sorted(charges), np.int64)
    if not len(values) or values[0] < 1:
        raise InputError(
            f"charges are {list(charges)}; at least one of 1 or more is needed",
            where="charges",
        )
    shares = [charges[charge] for charge in values.tolist()]
    return values, checked_shares(shares, "charges")
