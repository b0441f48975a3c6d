"""Checks that every spectrum that goes in comes out, from whatever source it came."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from sciseq.errors import SciSeqError
from sciseq.testing.spectra import (
    as_dicts,
    as_frame,
    close_rows,
    fit,
    same_rows,
    spectra,
    unusable,
    write_mgf,
)
from sciseq.testing.tables import refuses, same

__all__ = [
    "check_bad_sources",
    "check_fit_a_data_frame",
    "check_fit_a_list_of_paths",
    "check_fit_a_path",
    "check_fit_an_iterator",
    "check_fit_dictionaries",
    "check_fit_no_spectra",
    "check_identifiers_are_kept",
    "check_intensity_unit",
    "check_missing_charge_is_tried",
    "check_order_of_peaks",
    "check_order_of_spectra",
    "check_precursor_is_kept",
    "check_predict_every_source",
    "check_predict_gives_objects",
    "check_predict_no_spectra",
    "check_spectra_alone_equal_together",
    "check_table_equals_predict",
    "check_unusable_spectra_are_kept",
    "check_unusable_spectra_disturb_no_other",
]


@contextmanager
def _files() -> Iterator[list[Path]]:
    """Give two MGF files that hold the spectra together, and one that has them all."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        yield [
            write_mgf(folder / "first.mgf", spectra()[:1]),
            write_mgf(folder / "second.mgf", spectra()[1:]),
            write_mgf(folder / "all.mgf", spectra()),
        ]


def _expect_same_fit(estimator: Any, source: Any) -> None:
    model = fit(estimator, source)
    same_rows(model.predict_table(spectra()), fit(estimator).predict_table(spectra()))


# --------------------------------------------------------------------------- sources


def check_fit_dictionaries(estimator: Any) -> None:
    """Dictionaries of pyteomics teach what Spectrum objects teach."""
    _expect_same_fit(estimator, as_dicts(spectra()))


def check_fit_a_data_frame(estimator: Any) -> None:
    """A data frame teaches what Spectrum objects teach."""
    _expect_same_fit(estimator, as_frame(spectra()))


def check_fit_an_iterator(estimator: Any) -> None:
    """Spectra that come one by one teach what a list of them teaches."""
    _expect_same_fit(estimator, iter(spectra()))


def check_fit_a_path(estimator: Any) -> None:
    """An MGF file teaches what its spectra teach."""
    with _files() as (_, _, whole):
        _expect_same_fit(estimator, whole)


def check_fit_a_list_of_paths(estimator: Any) -> None:
    """Several files teach what their spectra together teach."""
    with _files() as (first, second, _):
        _expect_same_fit(estimator, [first, second])


def check_predict_every_source(estimator: Any) -> None:
    """Predictions are equal wherever the spectra come from."""
    model = fit(estimator)
    expected = model.predict_table(spectra())
    with _files() as (first, second, whole):
        sources = {
            "an iterator": iter(spectra()),
            "dictionaries": as_dicts(spectra()),
            "a data frame": as_frame(spectra()),
            "the name of a file": str(whole),
            "a list of paths": [first, second],
        }
        for name, source in sources.items():
            try:
                same_rows(model.predict_table(source), expected, names=False)
            except AssertionError as error:
                raise AssertionError(f"from {name}: {error}") from error


def check_bad_sources(estimator: Any) -> None:
    """What holds no spectra is refused by a sciseq error with a place or a hint."""
    calls: list[Callable[[Any], Any]] = [estimator.fit, fit(estimator).predict]
    with _files() as (first, *_):
        sources: list[Any] = [
            first.with_name("absent.mgf"),
            [first, first.with_name("absent.mgf")],
            first.with_name("spectra.txt"),
            17,
            [17],
            [{"m/z array": [100.0]}],
            as_frame(spectra()).drop(columns="precursor_mz"),
        ]
        for call in calls:
            for source in sources:
                try:
                    call(source)
                except SciSeqError as error:
                    assert error.where or error.hint, f"no place, no hint: {error}"
                else:
                    raise AssertionError(f"{source!r} was not refused")


def check_fit_no_spectra(estimator: Any) -> None:
    """``fit`` on nothing, and on nothing of use, is refused."""
    for source in ([], unusable(), [replace(one, peptide=None) for one in spectra()]):
        with refuses("no spectrum"):
            fit(estimator, source)


# ------------------------------------------------------------------ one row for each


def check_predict_gives_objects(estimator: Any) -> None:
    """``predict`` gives an array of str or None, one entry per spectrum."""
    found = fit(estimator).predict([*spectra(), *unusable()])
    assert type(found) is np.ndarray and found.dtype == object
    assert found.shape == (9,)
    assert all(one is None or type(one) is str for one in found), found


def check_table_equals_predict(estimator: Any) -> None:
    """The table holds the peptides of ``predict``, and reasons where there are none."""
    model = fit(estimator)
    records = [*spectra(), *unusable()]
    table = model.predict_table(records)
    found = model.predict(records)
    assert list(table.index) == list(range(9))
    has_peptide = table["peptide"].notna()
    same(found != None, has_peptide)  # noqa: E711 - of every entry
    same(found[has_peptide], table["peptide"][has_peptide])
    assert (table["reason"].astype(str)[has_peptide] == "").all()
    for name in ("score", "residue_scores", "calculated_mz", "error_ppm"):
        same(table[name].notna(), has_peptide)


def check_unusable_spectra_are_kept(estimator: Any) -> None:
    """Spectra that cannot be used stay in place, without peptide, with a reason."""
    first, *others = spectra()
    records = [unusable()[0], first, *unusable()[1:], *others]
    table = fit(estimator).predict_table(records)
    assert len(table) == 9
    lost = table.iloc[[0, 2, 3, 4, 5]]
    assert lost["peptide"].isna().all()
    for row in lost.itertuples():
        assert isinstance(row.reason, str) and row.reason, row
    assert lost["reason"].nunique() >= 4, list(lost["reason"])


def check_unusable_spectra_disturb_no_other(estimator: Any) -> None:
    """Spectra that cannot be used change nothing for the others."""
    model = fit(estimator)
    first, *others = spectra()
    mixed = model.predict_table([unusable()[1], first, *unusable()[2:], *others])
    usable = mixed.iloc[[1, 5, 6, 7]].reset_index(drop=True)
    close_rows(usable, model.predict_table(spectra()))


def check_predict_no_spectra(estimator: Any) -> None:
    """No spectra give no predictions, in the usual form."""
    model = fit(estimator)
    found, table = model.predict([]), model.predict_table([])
    assert found.shape == (0,) and found.dtype == object
    assert len(table) == 0
    assert list(table.columns) == list(model.predict_table(spectra()).columns)


def check_identifiers_are_kept(estimator: Any) -> None:
    """Identifiers, titles, places and files come back in the order of the spectra."""
    model = fit(estimator)
    records = [replace(one, title=f"no. {one.index}") for one in reversed(spectra())]
    table = model.predict_table(records)
    assert list(table["identifier"]) == ["scan=26", "scan=23", "scan=20", "scan=17"]
    assert list(table["title"]) == ["no. 3", "no. 2", "no. 1", "no. 0"]
    assert list(table["index"]) == [3, 2, 1, 0]
    with _files() as (first, second, _):
        table = model.predict_table([first, second])
        assert list(table["source"]) == [str(first)] + [str(second)] * 3
        assert list(table["identifier"]) == [f"index={n}" for n in (0, 0, 1, 2)]
        assert list(table["title"]) == [one.identifier for one in spectra()]


def check_precursor_is_kept(estimator: Any) -> None:
    """Charge, m/z and time of a spectrum come back as they were given."""
    records = [replace(one, retention_time=60.5 + one.index) for one in spectra()[1:]]
    table = fit(estimator).predict_table(records)
    assert list(table["charge"]) == [one.charge for one in records]
    same(table["precursor_mz"], [one.precursor_mz for one in records])
    same(table["retention_time"], [61.5, 62.5, 63.5])


def check_missing_charge_is_tried(estimator: Any) -> None:
    """Without a charge the usual ones are tried, and the best peptide is taken."""
    model = fit(estimator)
    charges = getattr(model, "charges", (2, 3, 4))
    n_found = 0
    for one in spectra():
        tried = model.predict_table([replace(one, charge=z) for z in charges])
        tried = tried[tried["peptide"].notna()]
        row = model.predict_table([replace(one, charge=None)])
        n_found += len(tried)
        if len(tried):
            best = tried.loc[[tried["score"].astype(float).idxmax()]]
            close_rows(row, best)
        else:
            assert row["peptide"].isna().all() and row["reason"][0]
    assert n_found, "no peptide was predicted, there is nothing to check"


# --------------------------------------------------------------- what does not matter


def check_order_of_spectra(estimator: Any) -> None:
    """Another order of the spectra gives the same peptides in that order."""
    model = fit(estimator)
    turned = model.predict_table(spectra()[::-1])
    close_rows(turned[::-1], model.predict_table(spectra()))


def check_spectra_alone_equal_together(estimator: Any) -> None:
    """A prediction does not depend on what it is computed together with."""
    model = fit(estimator)
    together = model.predict_table(spectra())
    for place, one in enumerate(spectra()):
        close_rows(model.predict_table([one]), together.iloc[[place]])


def check_intensity_unit(estimator: Any) -> None:
    """Intensities in another unit change nothing."""
    model = fit(estimator)
    scaled = [replace(one, intensity=one.intensity * 1e6) for one in spectra()]
    expected = model.predict_table(spectra())
    close_rows(model.predict_table(scaled), expected)
    close_rows(fit(estimator, scaled).predict_table(spectra()), expected)


def check_order_of_peaks(estimator: Any) -> None:
    """Another order of the peaks changes nothing."""
    model = fit(estimator)
    rng = np.random.default_rng(3)
    mixed = as_dicts(spectra())
    for one in mixed:
        order = rng.permutation(len(one["m/z array"]))
        for name in ("m/z array", "intensity array"):
            one[name] = one[name][order]
    expected = model.predict_table(spectra())
    same_rows(model.predict_table(mixed), expected, names=False)
    same_rows(fit(estimator, mixed).predict_table(spectra()), expected)
