"""Small spectra of known peptides for the checks, and helpers to compare results."""

import math
import pickle
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import clone

from sciseq.sequencing.fragments import fragment_ladder, residue_masses
from sciseq.sequencing.masses import mz_of
from sciseq.sequencing.residues import Vocabulary
from sciseq.sequencing.spectra import SkippedSpectrum, Spectrum
from sciseq.testing.samples import Samples
from sciseq.testing.tables import quiet, same

__all__ = [
    "SAMPLES",
    "as_dicts",
    "as_frame",
    "close_rows",
    "fit",
    "one_spectrum",
    "same_rows",
    "spectra",
    "unusable",
    "write_mgf",
]

# At least 7 residues each, so that the fragments alone make spectra of enough peaks.
PEPTIDES = {
    "PEPTLDEK": 2,
    "AAGLLEVK": 3,
    "[Acetyl]-SSM[Oxidation]TARK": 2,
    "LDKGGFWYK": 2,
}
N_NOISE = 12
# What a row says of where its spectrum came from.
_NAMES = ["source", "identifier", "index", "title"]


def one_spectrum(peptide: str, charge: int, **changes: Any) -> Spectrum:
    """Return all b and y ions of a peptide, and some peaks that mean nothing."""
    vocabulary = Vocabulary()
    rng = np.random.default_rng(sum(map(ord, peptide)))
    ions = fragment_ladder(residue_masses(peptide, vocabulary)).mz
    mz = np.append(ions, rng.uniform(120.0, 900.0, N_NOISE))
    mass = vocabulary.mass(vocabulary.encode(peptide))
    fields = {
        "precursor_mz": float(mz_of(mass, charge)),
        "charge": charge,
        "identifier": f"scan={len(peptide)}",
        "peptide": peptide,
        **changes,
    }
    return Spectrum(mz, rng.uniform(0.1, 1.0, len(mz)), **fields)


def spectra() -> list[Spectrum]:
    """Return one spectrum of each peptide."""
    return [
        one_spectrum(peptide, charge, identifier=f"scan={17 + 3 * place}", index=place)
        for place, (peptide, charge) in enumerate(PEPTIDES.items())
    ]


def unusable() -> list[Any]:
    """Return spectra that nobody can read a peptide from, each for another reason."""
    good = spectra()[0]
    empty, lost, broken = as_dicts([good] * 3)
    empty["m/z array"] = empty["intensity array"] = np.array([])
    del lost["params"]["pepmass"]
    broken["intensity array"][3] = math.nan
    return [
        SkippedSpectrum("malformed_header", "PEPMASS is 'x'", identifier="scan=2"),
        replace(good, mz=good.mz[:3], intensity=good.intensity[:3], identifier="few"),
        empty,
        lost,
        broken,
    ]


def as_dicts(records: Sequence[Spectrum]) -> list[dict[str, Any]]:
    """Return spectra as pyteomics reads them from MGF."""
    return [
        {
            "m/z array": one.mz.copy(),
            "intensity array": one.intensity.copy(),
            "params": {
                "title": one.identifier,
                "pepmass": (one.precursor_mz, None),
                "charge": [one.charge],
                "seq": one.peptide,
            },
        }
        for one in records
    ]


def as_frame(records: Sequence[Spectrum]) -> pd.DataFrame:
    """Return spectra as a data frame with an array in each cell."""
    names = ["mz", "intensity", "precursor_mz", "charge", "identifier", "peptide"]
    return pd.DataFrame(
        {name: [getattr(one, name) for one in records] for name in names}
    )


def write_mgf(path: Path, records: Sequence[Spectrum]) -> Path:
    """Write spectra as MGF, every digit of them."""
    lines: list[str] = []
    for one in records:
        lines += [
            "BEGIN IONS",
            f"TITLE={one.identifier}",
            f"PEPMASS={float(one.precursor_mz)!r}",
            f"CHARGE={one.charge}+",
            f"SEQ={one.peptide}",
        ]
        lines += [
            f"{float(mz)!r} {float(height)!r}"
            for mz, height in zip(one.mz, one.intensity, strict=True)
        ]
        lines += ["END IONS", ""]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def fit(estimator: Any, source: Any = None, y: Any = None) -> Any:
    """Return a fitted clone, by default of all spectra."""
    with quiet():
        return clone(estimator).fit(spectra() if source is None else source, y)


def same_rows(first: pd.DataFrame, second: pd.DataFrame, *, names: bool = True) -> None:
    """Expect equal rows, bit for bit; without ``names`` wherever they came from."""
    texts = [
        [repr(row) for row in _without_names(table, names).to_dict("records")]
        for table in (first, second)
    ]
    assert len(texts[0]) == len(texts[1]), f"{len(texts[0])} and {len(texts[1])} rows"
    same(*texts)


def close_rows(first: pd.DataFrame, second: pd.DataFrame) -> None:
    """Expect equal peptides, and scores equal up to the rounding of float32."""
    for name in ("identifier", "peptide", "charge"):
        same(first[name].astype(str), second[name].astype(str))
    # Scores are products of many probabilities, which multiplies the rounding.
    np.testing.assert_allclose(
        first["score"].astype(float), second["score"].astype(float), rtol=1e-3
    )


def _without_names(table: pd.DataFrame, names: bool) -> pd.DataFrame:
    return table if names else table.drop(columns=_NAMES)


def _locked() -> list[Spectrum]:
    records = spectra()
    for one in records:
        one.mz.setflags(write=False)
        one.intensity.setflags(write=False)
    return records


def _predict(model: Any, source: Any = None) -> pd.DataFrame:
    table = model.predict_table(spectra() if source is None else source)
    assert isinstance(table, pd.DataFrame), "predict_table gives no data frame"
    return table


SAMPLES = Samples(
    training=spectra,
    locked=_locked,
    others=lambda: [one_spectrum("PEPTLDEKAR", 2), one_spectrum("GGFLLEVK", 2)],
    empty=list,
    broken=lambda: [replace(one, peptide="W[Phospho]LDEK") for one in spectra()],
    fault="no spectrum",
    predict=_predict,
    same=same_rows,
    contents=pickle.dumps,
)
"""Spectra for the checks that every kind of estimator shares."""
