"""The recipe of the model that comes with the package.

It learns from simulated spectra alone: of the peptides of proteins that are given, by
instruments that are drawn anew for every spectrum.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sciseq.errors import InputError
from sciseq.sequencing.residues import Vocabulary
from sciseq.sequencing.sequencer import PeptideSequencer
from sciseq.sequencing.simulator import Simulator
from sciseq.sequencing.spectra import SkippedSpectrum
from sciseq.sequencing.spectrum_files import read_spectra

__all__ = [
    "default_sequencer",
    "default_simulator",
    "default_training",
    "peptides_of",
    "save_default",
]

# Shares of peptides with 0, 1 and 2 missed cleavages. More of them than a digestion
# leaves, because long peptides are hard.
_MISSED_CLEAVAGES = (0.6, 0.28, 0.12)
_LENGTHS = (6, 32)
_PER_EPOCH = 12_000
# Part of all spectra that both decoders are trained on; the rest trains crosswise.
_JOINT = 0.75
# What names the draws of the spectra with candidates beside those of the training.
_CANDIDATES = 2**32 - 1

_SETTINGS: dict[str, Any] = {
    "dropout": 0.0,
    "spectrum_graph": True,
    "path_evidence": True,
    "min_nar_weight": 0.1,
    "learning_rate": 1.2e-3,
    "weight_decay": 0.01,
    "batch_size": 64,
    "precision": "bfloat16",
    "validation_fraction": 0.1,
}


def default_sequencer(n_spectra: int, **changes: Any) -> PeptideSequencer:
    """Return the sequencer of the recipe, not trained.

    Parameters
    ----------
    n_spectra : int
        Spectra that it will see.
    **changes
        Other parameters, as ``device`` and ``checkpoint_dir``.

    Examples
    --------
    >>> model = default_sequencer(300_000)
    >>> model.max_epochs, model.cross_epochs
    (19, 6)
    """
    n_epochs = max(round(n_spectra / _PER_EPOCH), 2)
    n_joint = min(max(round(_JOINT * n_epochs), 1), n_epochs - 1)
    settings = {
        **_SETTINGS, "max_epochs": n_joint, "cross_epochs": n_epochs - n_joint,
        **changes,
    }  # fmt: skip
    return PeptideSequencer(**settings)


def default_simulator(
    proteins: Sequence[str | os.PathLike[str]],
    exclude: Sequence[str | os.PathLike[str]] = (),
) -> Simulator:
    """Return the simulator of the recipe.

    Parameters
    ----------
    proteins : sequence of path-like
        FASTA files.
    exclude : sequence of path-like, default=()
        Annotated spectra whose peptides are never simulated.
    """
    unwanted = {peptide for path in exclude for peptide in peptides_of(path)}
    return Simulator(
        [Path(one) for one in proteins],
        missed_cleavages=_MISSED_CLEAVAGES,
        lengths=_LENGTHS,
        exclude=unwanted,
    )


def peptides_of(path: str | os.PathLike[str]) -> set[str]:
    """Return the peptides of annotated spectra, as letters, with I as L.

    Peptides that are not written with the usual tokens are left out: the simulator
    does not draw them.
    """
    vocabulary, found = Vocabulary(), set()
    for record in read_spectra(path):
        if isinstance(record, SkippedSpectrum) or record.peptide is None:
            continue
        try:
            tokens = vocabulary.encode(record.peptide)
        except InputError:
            continue
        names = (vocabulary.tokens[one] for one in tokens)
        found.add("".join(name[0] for name in names if name[0] != "["))
    return found


def default_training(
    proteins: Sequence[str | os.PathLike[str]],
    exclude: Sequence[str | os.PathLike[str]] = (),
    *,
    n_spectra: int = 300_000,
    n_candidate_spectra: int = 2_000,
    random_state: int = 0,
    n_workers: int = 1,
    **changes: Any,
) -> PeptideSequencer:
    """Train the model that comes with the package.

    Parameters
    ----------
    proteins, exclude : sequence of path-like
        As in :func:`default_simulator`.
    n_spectra : int, default=300_000
        Simulated spectra, all different, that the network learns from.
    n_candidate_spectra : int, default=2_000
        Further ones, that choosing among candidates is learned from; 0 leaves that
        out.
    random_state : int, default=0
        Seed of everything.
    n_workers : int, default=1
        Processes that simulate.
    **changes
        Other parameters of the sequencer, as ``device`` and ``checkpoint_dir``.

    Returns
    -------
    PeptideSequencer
        Fitted.
    """
    simulator = default_simulator(proteins, exclude)
    model = default_sequencer(n_spectra, random_state=random_state, **changes)
    n_epochs = model.max_epochs + model.cross_epochs
    per_epoch = max(n_spectra // n_epochs, 1)
    stream = simulator.stream(per_epoch, random_state=random_state, n_workers=n_workers)
    model.fit(stream)
    if n_candidate_spectra and model.stopped_ != "interrupted":
        model.set_params(precision="float32")  # as it will predict
        seed = np.random.default_rng([random_state, _CANDIDATES])
        model.fit_reranker(simulator.sample(n_candidate_spectra, seed))
    return model


def save_default(
    model: PeptideSequencer, path: str | os.PathLike[str], *, overwrite: bool = False
) -> None:
    """Save a model as the package ships it: weights in 16 bits, ready to predict.

    Parameters
    ----------
    model : PeptideSequencer
        Fitted. Its weights are rounded in place.
    path : path-like
        Folder or ZIP file.
    overwrite : bool, default=False
        Replace a model that is there.
    """
    model.set_params(precision="float32", device="auto", checkpoint_dir=None, verbose=0)
    parameters = list(model.network_.cpu().parameters())
    for one in parameters:  # not the masses, which stay float64
        one.data = one.data.half()
    try:
        model.save(path, overwrite=overwrite)
    finally:
        for one in parameters:
            one.data = one.data.float()
