"""The ions that peptides give in the collision cell: where they are, and how high.

Axes: ``spectrum`` (B), ``bond`` (N, from the N-terminus), ``family`` (F, kinds of
ions). From the fragments on, arrays are flat: one entry per ion, with the spectrum that
it belongs to.

Heights are logarithms, relative to a typical y ion. The numbers come from the
regression that :mod:`sciseq.sequencing.simulator_chemistry` describes; the knobs of
:class:`~sciseq.sequencing.simulator_physics.Physics` scale or replace them.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sciseq.sequencing.masses import AMMONIA, C13, CARBON_MONOXIDE, PROTON, WATER
from sciseq.sequencing.simulator_chemistry import (
    AMINE,
    BASIC,
    HYDROXYL,
    PHOSPHATE,
    PHOSPHORIC_ACID,
    Peptides,
)
from sciseq.sequencing.simulator_physics import PhysicsTable

__all__ = [
    "Fragments",
    "backbone_ions",
    "immonium_ions",
    "internal_ions",
    "join",
    "precursor_ions",
    "with_isotopes",
    "with_losses",
]

FloatArray = npt.NDArray[np.float64]
IndexArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

# ln height of a_k over b_k beyond `a_level`, for k = 1, 2, ...: a1 is an immonium ion
# and b1 hardly exists; a3 is weak.
_A_OVER_B = np.array([4.9, 0.0, -3.1, -1.1, -0.8, -1.0, -1.2, -1.3])
_Y_LEVEL = 0.4  # ln height of y8 between neutral residues
_B1 = -4.5  # ln height of b1 over b2
_MORE_A, _MORE_INTERNAL = 0.6, 0.5  # ln, where b ions break further
_Y_WITHOUT_BASE = -2.6  # ln, y ions without R, K and H
_DOUBLE = -4.3  # ln height of 2+ fragments of 2+ precursors
_THIRD = -1.9  # ln height of y 3+ over y 2+
_BASIC_Y2 = np.array([0.0, 0.0, 1.5, 2.1])  # ln gain of y 2+ by its R, K and H

Y, B, INTERNAL = range(3)  # kinds of fragments
_WATER_GAIN = np.array([0.0, 1.5, 1.5])  # ln, by kind
_FIRST_AMMONIA = 1.2  # ln; y1 of lysine and arginine loses ammonia readily
_PHOSPHO = -0.6  # ln, backbone ions where loss of phosphoric acid competes
_NO_SITE = -1.5  # ln, losses from fragments without a residue that loses readily
_MOST_LOSS = 1.5  # ln height over the whole fragment

# Families of backbone ions: kind and charge. The fifth is a.
_FAMILIES = ((Y, 1), (B, 1), (Y, 2), (B, 2), (B, 1), (Y, 3))
_A = 4
_KIND = np.array([kind for kind, _ in _FAMILIES])
_CHARGE = np.array([charge for _, charge in _FAMILIES])
_SPREAD = np.array([1.0, 1.4, 1.4, 1.4, 1.4, 1.4])  # of ln heights, over that of y

_INTERNAL_LENGTHS = (2, 3, 4, 5, 6)
_CARBON_13 = 5.4e-4  # mean number of carbon-13 per Da of peptide


class Fragments(NamedTuple):
    """Ions of all spectra of a batch, one entry each."""

    row: IndexArray  # spectrum
    mz: FloatArray
    ln: FloatArray  # logarithm of the height
    charge: IndexArray
    kind: IndexArray
    sites: FloatArray  # (site, ion): how many residues of each kind are in it


def join(parts: Sequence[Fragments]) -> Fragments:
    """Put several sets of ions together."""
    columns = [np.concatenate(column, axis=-1) for column in zip(*parts, strict=True)]
    row, mz, ln, charge, kind, sites = columns
    return Fragments(row, mz, ln, charge, kind, sites)


def backbone_ions(
    peptides: Peptides,
    physics: PhysicsTable,
    floor: FloatArray,
    rng: np.random.Generator,
) -> Fragments:
    """Return b, y and a ions, 1+ to 3+, that are above `floor` (spectrum, 1), ln.

    All ions of a bond share its strength, and each has a deviation of its own.
    """
    y, b = _strengths(peptides, physics, rng)
    z = peptides.charge[:, None]
    edge = -physics.y_edge * np.exp(-(peptides.k_n - 1) / 1.3)
    ln = np.stack(
        [
            y + _y_position(peptides, physics) + edge,
            b + _b_position(peptides, physics),
            y + _y2_position(peptides, physics) + edge,
            b + _b2_position(peptides, physics),
            b + _b_position(peptides, physics) + _a_over_b(peptides, physics),
            y + _y3_position(peptides, physics) + edge,
        ]
    )
    ln += rng.standard_normal(ln.shape) * physics.ion_spread * _SPREAD[:, None, None]
    # A fragment has no more charges than the precursor.
    possible = z >= _CHARGE[:, None, None]
    shown = (ln > floor) & peptides.is_bond & possible
    family, row, bond = np.nonzero(shown)
    is_y = _KIND[family] == Y
    mass = np.where(is_y, peptides.y[row, bond], peptides.b[row, bond])
    mass -= np.where(family == _A, CARBON_MONOXIDE, 0.0)
    sites = np.where(
        is_y, peptides.y_sites[:, row, bond], peptides.b_sites[:, row, bond]
    )
    charge = _CHARGE[family]
    mz = mass / charge + PROTON
    return Fragments(row, mz, ln[shown], charge, _KIND[family], sites)


def _strengths(
    peptides: Peptides, physics: PhysicsTable, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """Return the ln strengths of bonds for y and for b ions, (spectrum, bond)."""
    table = peptides.chemistry
    before, behind = peptides.residues[:, :-1], peptides.residues[:, 1:]
    immobile = peptides.charge <= peptides.total_sites[BASIC]
    phosphate = np.minimum(peptides.total_sites[PHOSPHATE], 1.0)
    common = (
        _PHOSPHO * phosphate[:, None]
        + physics.bond_spread * rng.standard_normal(before.shape)
        + physics.proline_effect * table.is_proline[behind]
        + physics.acid_effect * (table.is_acid[before] * immobile[:, None])
    )
    y = physics.residue_effect * (table.y_before[before] + table.y_behind[behind])
    b = physics.residue_effect * (table.b_before[before] + table.b_behind[behind])
    return common + y, common + b


def _y_position(peptides: Peptides, physics: PhysicsTable) -> FloatArray:
    k_c, basic_b = peptides.k_c, peptides.b_sites[BASIC]
    start = np.where(k_c > 1, np.exp(-(k_c - 2) / 2.5), -0.1)
    fade = np.clip(k_c - 8, 0, 8)
    bare = _Y_WITHOUT_BASE * (peptides.y_sites[BASIC] < 0.5)
    # Further protons sit on the long ones of the two fragments.
    protons = np.maximum(peptides.charge[:, None] - 2, 0) * np.clip(k_c / 8, 0, 2)
    shared = 0.35 * np.minimum(basic_b, 1.5) * np.clip(k_c / 4, 0, 1) + 0.25 * protons
    position = -physics.y_start * start - physics.y_fade * fade
    ln: FloatArray = _Y_LEVEL + position + bare - shared
    return ln


def _b_position(peptides: Peptides, physics: PhysicsTable) -> FloatArray:
    k_n, k_c = peptides.k_n, peptides.k_c
    beyond = np.maximum(k_n, 2) - 2
    poor = 0.29 * np.minimum(beyond, 5.5)
    rich = 0.7 * (1 - np.exp(-beyond / 2)) + 0.035 * beyond
    decay = np.where(_breaks_further(peptides), poor, rich)
    retreat = 1 / (1 + np.exp((k_c - 8) / 2))
    ln: FloatArray = (
        physics.b_level
        + np.where(k_n > 1, 0.0, _B1)
        - physics.b_decay * decay
        - physics.b_retreat * retreat
        + physics.basic_pull * _pull(peptides)
    )
    return ln


def _breaks_further(peptides: Peptides) -> BoolArray:
    """Tell where b ions break on to a and internal ions, (spectrum, 1).

    The protons of precursors above 2+ keep them from it.
    """
    return np.asarray(peptides.charge[:, None] <= 2)


def _pull(peptides: Peptides) -> FloatArray:
    """Where the protons are: above 0 when b has a basic residue, below when y has."""
    basic_b, basic_y = peptides.b_sites[BASIC], peptides.y_sites[BASIC]
    pull: FloatArray = np.minimum(basic_b, 1.0) - 0.7 * np.clip(basic_y - 1, -1.0, 1.5)
    return pull


def _y2_position(peptides: Peptides, physics: PhysicsTable) -> FloatArray:
    basic = np.clip(peptides.y_sites[BASIC], 0, 3).astype(np.int64)
    short = 0.17 * np.maximum(14 - peptides.k_c, 0)
    ln: FloatArray = _more_protons(peptides, physics) + _BASIC_Y2[basic] - short
    return ln


def _b2_position(peptides: Peptides, physics: PhysicsTable) -> FloatArray:
    basic_b, basic_y = peptides.b_sites[BASIC], peptides.y_sites[BASIC]
    short = 2.3 * np.exp(-(peptides.k_n - 2) / 5) + 0.23 * np.maximum(
        14 - peptides.k_c, 0
    )
    base = 0.8 * np.minimum(basic_b, 3.0) - 0.7 * np.minimum(basic_y - 1, 1.0)
    ln: FloatArray = _more_protons(peptides, physics) + base - short
    return ln


def _y3_position(peptides: Peptides, physics: PhysicsTable) -> FloatArray:
    short = 0.16 * np.maximum(20 - peptides.k_c, 0)
    base = np.minimum(peptides.y_sites[BASIC], 4.0)
    ln: FloatArray = _more_protons(peptides, physics) + _THIRD + base - short
    return ln


def _more_protons(peptides: Peptides, physics: PhysicsTable) -> FloatArray:
    has_more = peptides.charge[:, None] > 2
    ln: FloatArray = _DOUBLE + physics.double_level * has_more
    return ln


def _a_over_b(peptides: Peptides, physics: PhysicsTable) -> FloatArray:
    place = np.minimum(peptides.k_n, len(_A_OVER_B)).astype(np.int64) - 1
    kept = np.where(_breaks_further(peptides), 0.0, -_MORE_A)
    ln: FloatArray = physics.a_level + _A_OVER_B[place] + kept
    return ln


def internal_ions(
    peptides: Peptides,
    physics: PhysicsTable,
    floor: FloatArray,
    rng: np.random.Generator,
) -> Fragments:
    """Return fragments without either terminus, b and a type, of 2 to 6 residues.

    They are likelier the shorter they are, and where they begin with proline.
    """
    table, parts = peptides.chemistry, []
    starts = table.is_proline[peptides.residues[:, 1:]] * 1.2
    level = np.log(np.maximum(physics.internal_level, 1e-9))
    level = level + np.where(_breaks_further(peptides), _MORE_INTERNAL, 0.0)
    for length in _INTERNAL_LENGTHS:
        n_starts = peptides.b.shape[1] - length
        if n_starts < 1:
            break
        ln = level - 0.42 * (length - 2) + starts[:, :n_starts]
        ln = ln + 1.2 * rng.standard_normal(ln.shape)
        shown = (ln > floor) & peptides.is_bond[:, length:]
        row, start = np.nonzero(shown)
        mass = peptides.b[row, start + length] - peptides.b[row, start]
        counts = peptides.b_sites
        sites = counts[:, row, start + length] - counts[:, row, start]
        one = np.ones_like(row)
        parts.append(
            Fragments(row, mass + PROTON, ln[shown], one, INTERNAL * one, sites)
        )
    if not parts:
        return _no_fragments()
    ions = join(parts)
    a_ln = ions.ln - 1.2 + rng.standard_normal(len(ions.ln))
    a_type = ions._replace(mz=ions.mz - CARBON_MONOXIDE, ln=a_ln)
    return join([ions, _select(a_type, a_ln > floor[ions.row, 0])])


def _no_fragments() -> Fragments:
    none, index = np.zeros(0), np.zeros(0, np.int64)
    return Fragments(index, none, none, index, index, np.zeros((4, 0)))


def _select(ions: Fragments, keep: BoolArray) -> Fragments:
    return Fragments(
        ions.row[keep],
        ions.mz[keep],
        ions.ln[keep],
        ions.charge[keep],
        ions.kind[keep],
        ions.sites[:, keep],
    )


def with_losses(
    ions: Fragments,
    physics: PhysicsTable,
    floor: FloatArray,
    rng: np.random.Generator,
) -> Fragments:
    """Add the ions less water, ammonia and phosphoric acid."""
    row, sites = ions.row, ions.sites
    first = (ions.mz < 176.0) & (ions.kind == Y)
    phosphate = np.log(np.maximum(sites[PHOSPHATE], 1e-9))
    losses = (
        (
            WATER,
            np.log(physics.water_loss[row, 0])
            + _WATER_GAIN[ions.kind]
            + np.where(sites[HYDROXYL] > 0, 0.0, _NO_SITE),
        ),
        (
            AMMONIA,
            np.log(physics.ammonia_loss[row, 0])
            + np.where(sites[AMINE] > 0, _FIRST_AMMONIA * first, _NO_SITE),
        ),
        (
            PHOSPHORIC_ACID,
            np.log(physics.phosphoric_loss[row, 0]) + np.minimum(phosphate, 0.0),
        ),
    )
    parts = [ions]
    for mass, ratio in losses:
        spread = physics.loss_spread[row, 0] * rng.standard_normal(len(row))
        ln = ions.ln + np.minimum(ratio + spread, _MOST_LOSS)
        lost = ions._replace(mz=ions.mz - mass / ions.charge, ln=ln)
        parts.append(_select(lost, ln > floor[row, 0]))
    return join(parts)


def with_isotopes(
    ions: Fragments, physics: PhysicsTable, floor: FloatArray
) -> Fragments:
    """Add the peaks with one and two carbon-13, Poisson-distributed over the mass."""
    # The smallest ions cannot lose all that others do.
    ions = _select(ions, ions.mz > PROTON)
    row, parts = ions.row, [ions]
    mean = _CARBON_13 * ions.mz * ions.charge
    passed = np.log(np.maximum(physics.isotopes[row, 0], 1e-9))
    for number, ratio in ((1, mean), (2, mean**2 / 2)):
        ln = ions.ln + np.log(ratio) + passed
        heavy = ions._replace(mz=ions.mz + number * C13 / ions.charge, ln=ln)
        parts.append(_select(heavy, ln > floor[row, 0]))
    return join(parts)


def immonium_ions(
    peptides: Peptides,
    physics: PhysicsTable,
    rng: np.random.Generator,
) -> tuple[IndexArray, FloatArray, FloatArray]:
    """Return spectrum, m/z and ln height of the low-mass ions of single residues.

    Residues that the peptide lacks give some too: other peptides are isolated along.
    """
    table = peptides.chemistry
    n, n_tokens = len(peptides.mass), len(table.masses)
    row, place = np.nonzero(peptides.inside)
    flat = row * n_tokens + peptides.residues[row, place]
    held = np.bincount(flat, minlength=n * n_tokens).reshape(n, n_tokens) > 0
    token = table.immonium_token
    background = physics.immonium_background * table.is_plain[token]
    # (spectrum, low-mass ion)
    share = np.where(held[:, token], 1.0, background)
    ln = np.log(np.maximum(physics.immonium_level * share, 1e-9)) + table.immonium_ln
    ln += 0.7 * rng.standard_normal(ln.shape)
    rows = np.repeat(np.arange(n), len(token))
    return rows, np.tile(table.immonium_mz, n), ln.ravel()


def precursor_ions(
    peptides: Peptides, physics: PhysicsTable, rng: np.random.Generator
) -> Fragments:
    """Return what is left of the precursors, whole and after losses."""
    n = len(peptides.mass)
    lost = np.array([0.0, WATER, AMMONIA, PHOSPHORIC_ACID])
    phosphate = np.minimum(peptides.total_sites[PHOSPHATE], 1.0)
    share = np.tile([1.0, 0.3, 0.3, 0.0], (n, 1))
    share[:, 3] = 3.0 * phosphate
    ln = np.log(np.maximum(physics.precursor_level * share, 1e-9))
    ln += rng.standard_normal(ln.shape)
    mz = (peptides.mass[:, None] - lost) / peptides.charge[:, None] + PROTON
    row = np.repeat(np.arange(n), len(lost))
    sites = np.zeros((4, len(row)))
    return Fragments(
        row, mz.ravel(), ln.ravel(), peptides.charge[row], np.full_like(row, B), sites
    )
