"""The peptide sequencer: an estimator around the hybrid network.

Its training and its predictions have modules of their own; this one says what it is:
parameters, network, and what is saved.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from torch import nn

from sciseq.errors import InputError
from sciseq.parameters import AnyOf, Boolean, Instance, Integer, Nothing, Option, Real
from sciseq.parameters import Rule as ParameterRule
from sciseq.sequencing.calibration import ScoreCalibration
from sciseq.sequencing.network import PeptideNetwork
from sciseq.sequencing.pretrained_model import PRETRAINED
from sciseq.sequencing.reranking import Reranker
from sciseq.sequencing.residues import Vocabulary
from sciseq.sequencing.sequencer_refinement import SequenceRefinement
from sciseq.sequencing.sequencer_training import SequenceTraining
from sciseq.sequencing.spectra import PeakSettings
from sciseq.torch_base import TRAINING_RULES

__all__ = ["PeptideSequencer"]

DECODERS = ("hybrid", "autoregressive", "nonautoregressive", "diffusion")

# What a trained network does not depend on.
_CHANGEABLE = frozenset({
    "beam_size", "charges", "device", "fewest_residues", "isotope_errors",
    "largest_charge", "maximum_mz", "memory_limit", "minimum_mz", "n_devices",
    "n_nodes", "n_steps", "precision", "precursor_tolerance", "profile", "random_state",
    "verbose",
})  # fmt: skip


@dataclass(kw_only=True, eq=False, repr=False)
class PeptideSequencer(SequenceTraining, SequenceRefinement):
    r"""Read peptides from tandem mass spectra, without a database.

    A transformer reads the peaks. One decoder writes residue after residue, told the
    masses before and behind it; the other one writes all at once, as a path that CTC
    collapses. Both are trained together, the weight moving from the second to the first
    (importance annealing), then the first alone, reading the states of the second
    behind a gradient block:

    .. math::

        L = \lambda L_{AT} + (1 - \lambda) L_{NAT}, \quad \lambda = i / N; \qquad
        h' = \mathrm{softmax}(Q K^\top / \sqrt{d})\, V_{all}, \quad
        V_{all} = [GB(V_{NAT}); E]

    Parameters
    ----------
    decoder : {"hybrid", "autoregressive", "nonautoregressive", "diffusion"}
        Both decoders (the default), one of them alone, or the one of conditional masked
        diffusion (LaViDa): it starts with all places hidden and shows those it is
        surest of, pass by pass. Two stages, annealing, glancing and beams are not for
        it.
    modifications : list of str, optional
        Modifications beside the usual ones, as ``"Phospho@STY"``,
        ``"TMT6plex@N-term"`` or ``"+79.966331@S"``.
    evidence : bool, default=True
        Tell the network for every candidate residue whether peaks stand where its ions
        would be. An addition to the published method; without it a small network
        learns little.
    d_model : int, default=128
        Width of a token; a multiple of 8 and of ``n_heads``.
    d_ff : int, default=512
        Width of the feed-forward networks.
    n_layers : int, default=3
        Layers of the encoder and of each decoder.
    n_heads : int, default=4
        Heads of the attention.
    dropout : float, default=0.1
        Probability of every dropout.
    most_residues : int, default=40
        Longest peptide; the nonautoregressive decoder has as many symbols.
    fewest_residues : int, default=6
        Shortest peptide that is predicted.
    n_peaks : int, default=150
        Peaks kept of a spectrum, the strongest.
    minimum_mz, maximum_mz : float, default=50, 2500
        Range of m/z that is read.
    beam_size : int, default=5
        Beams of the search; 1 is greedy.
    n_steps : int, default=16
        Passes of the diffusion decoder over a peptide; fewer are faster, and show more
        residues at once.
    precursor_tolerance : float, default=20.0
        Largest difference between the masses of peptide and precursor, in ppm.
    isotope_errors : tuple of int, default=(0, 1)
        Numbers of carbon-13 that the precursor may have been picked with.
    charges : tuple of int, default=(2, 3, 4)
        Charges to try where a file gives none.
    largest_charge : int, default=4
        Spectra of a higher charge are skipped; at most 10.
    profile : {"skip", "centroid"}, default="skip"
        What to do with spectra that were not centroided.
    annealing : bool, default=True
        Move the weight of the losses in joint training; else both weigh one half.
    gradient_block : bool, default=True
        Keep the autoregressive loss from training the other decoder.
    min_nar_weight : float, default=0.0
        Smallest weight of the nonautoregressive loss in joint training; above 0 its
        decoder goes on following the encoder until the end.
    shared_encoder : bool, default=True
        Let both decoders of the hybrid read one encoder. With False, an ablation, the
        nonautoregressive one has an encoder of its own, of the same size.
    glancing : bool, default=False
        Let the nonautoregressive decoder work in three passes, told in each what it
        found in the one before, and in training parts of the truth (the curriculum of
        RefineNovo).
    spectrum_graph : bool, default=False
        Tell the nonautoregressive decoder, or that of diffusion, which residues paths
        through the peaks have in each place. An addition to the published method.
    path_evidence : bool, default=False
        Tell the autoregressive decoder, or that of diffusion, for every candidate
        residue how paths through the peaks lead on from there to the end; only with
        ``evidence``. An addition to the published method.
    cross_epochs : int, default=3
        Epochs of the second stage, after ``max_epochs`` of joint training.
    learning_rate : float, default=5e-4
        Largest rate of AdamW; it rises over the first twentieth of the steps.
    learning_rate_schedule : {"cosine", "constant"}, default="cosine"
        What follows the rise.
    weight_decay : float, default=1e-5
        Decoupled weight decay.
    batch_size : int, default=32
        Spectra per step.
    max_epochs : int, default=10
        Epochs of the joint training, or of all training with one decoder.
    patience : int, optional
        Stop after so many epochs without a better validation loss.
    validation_fraction : float, default=0.1
        Share of the peptides that is held out. No peptide is on both sides.
    warm_start : bool, default=False
        Go on from the weights of the last fit. ``modifications`` may name more than
        then: what is new starts with the code of its mass.
    random_state : int, optional
        Seed of weights, shuffling, dropout and the split.
    device : str, default="auto"
        Where to compute.
    precision : {"float32", "bfloat16", "float64"}, default="float32"
        Of the network. Masses are always float64.
    verbose : int, default=0
        1 shows progress.
    checkpoint_dir : path-like, optional
        Folder for checkpoints; a run found there is continued.
    memory_limit : str or int, optional
        Bytes that training may take.
    n_devices, n_nodes : int, default=1
        Devices of each node, and nodes, that train together.

    Attributes
    ----------
    network_ : PeptideNetwork
        The trained network.
    vocabulary_ : Vocabulary
        Tokens and their masses.
    skipped_ : list of (identifier, reason)
        Training spectra that were left out.
    history_ : list of dict
        Epochs of both stages.
    n_parameters_ : int
        Number of weights.

    Raises
    ------
    InputError
        For parameters out of range.
    DataQualityError
        When no spectrum can be used.

    Notes
    -----
    Card: peptide §3 to §12; diffusion: sequences §16. The evidence inputs and pre-norm
    layers are additions.

    References
    ----------
    CrossNovo, arXiv:2510.08169; ContraNovo; PrimeNovo; RefineNovo;
    LaViDa, arXiv:2505.16839.
    """

    _parameter_rules: ClassVar[dict[str, ParameterRule]] = {
        **{name: rule for name, rule in TRAINING_RULES.items() if name != "compile"},
        "decoder": Option(*DECODERS),
        "modifications": AnyOf(Nothing(), Instance("a list of names", list, tuple)),
        "evidence": Boolean(),
        "d_model": Integer(8),
        "d_ff": Integer(1),
        "n_layers": Integer(1),
        "n_heads": Integer(1),
        "most_residues": Integer(1),
        "fewest_residues": Integer(1),
        "n_peaks": Integer(1),
        "minimum_mz": Real(0.0),
        "maximum_mz": Real(0.0, open_low=True),
        "beam_size": Integer(1),
        "n_steps": Integer(1),
        "precursor_tolerance": Real(0.0, open_low=True),
        "isotope_errors": Instance("whole numbers", tuple, list),
        "charges": Instance("whole numbers", tuple, list),
        "largest_charge": Integer(1),
        "profile": Option("skip", "centroid"),
        "annealing": Boolean(),
        "gradient_block": Boolean(),
        "min_nar_weight": Real(0.0, 1.0),
        "shared_encoder": Boolean(),
        "glancing": Boolean(),
        "spectrum_graph": Boolean(),
        "path_evidence": Boolean(),
        "cross_epochs": Integer(0),
        "learning_rate_schedule": Option("cosine", "constant"),
        "validation_fraction": Real(0.0, 1.0, open_high=True),
        "warm_start": Boolean(),
    }

    decoder: str = "hybrid"
    modifications: Any = None
    evidence: bool = True
    d_model: int = 128
    d_ff: int = 512
    n_layers: int = 3
    n_heads: int = 4
    dropout: float = 0.1
    most_residues: int = 40
    fewest_residues: int = 6
    n_peaks: int = 150
    minimum_mz: float = 50.0
    maximum_mz: float = 2500.0
    beam_size: int = 5
    n_steps: int = 16
    precursor_tolerance: float = 20.0
    isotope_errors: Any = (0, 1)
    charges: Any = (2, 3, 4)
    largest_charge: int = 4
    profile: str = "skip"
    annealing: bool = True
    gradient_block: bool = True
    min_nar_weight: float = 0.0
    shared_encoder: bool = True
    glancing: bool = False
    spectrum_graph: bool = False
    path_evidence: bool = False
    cross_epochs: int = 3
    learning_rate: float = 5e-4
    learning_rate_schedule: str = "cosine"
    weight_decay: float = 1e-5
    batch_size: int = 32
    max_epochs: int = 10
    patience: int | None = None
    validation_fraction: float = 0.1
    warm_start: bool = False
    random_state: Any = None
    device: Any = "auto"
    precision: str = "float32"
    verbose: int = 0
    checkpoint_dir: str | os.PathLike[str] | None = None
    memory_limit: str | int | None = None
    n_devices: int = 1
    n_nodes: int = 1

    @classmethod
    def pretrained(cls, **changes: Any) -> Self:
        """Return the model that comes with the package; nothing is downloaded.

        It has learned from simulated spectra of tryptic peptides (see its card in the
        docs) and reads high-resolution HCD spectra.

        Parameters
        ----------
        **changes
            Parameters of the search and of the run, as ``beam_size``, ``device`` and
            ``precursor_tolerance``; those of the network are what they are.

        Returns
        -------
        PeptideSequencer
            Fitted.

        Raises
        ------
        InputError
            For a parameter that the trained network depends on.

        Examples
        --------
        >>> model = PeptideSequencer.pretrained(beam_size=1)
        >>> model.decoder, model.beam_size
        ('hybrid', 1)
        """
        from sciseq.persistence import load

        fixed = sorted(changes.keys() - _CHANGEABLE)
        if fixed:
            raise InputError(
                f"{', '.join(fixed)} cannot be changed: the trained network depends "
                "on it",
                where="PeptideSequencer.pretrained",
                hint=f"What can be: {', '.join(sorted(_CHANGEABLE))}.",
            )
        model: Self = load(PRETRAINED)
        return model.set_params(**changes)

    def _parameter_relations(self) -> list[str]:
        problems = super()._parameter_relations()
        if self.d_model % 8 or self.d_model % self.n_heads:
            problems.append(
                f"d_model={self.d_model!r} must be a multiple of 8 and of "
                f"n_heads={self.n_heads!r}"
            )
        elif self.d_model < 16 and self.decoder in ("autoregressive", "hybrid"):
            # A quarter of it tells the mass before a residue, in waves.
            problems.append(
                f"d_model={self.d_model!r} must be at least 16 with "
                f"decoder={self.decoder!r}"
            )
        if self.minimum_mz >= self.maximum_mz:
            problems.append(
                f"minimum_mz={self.minimum_mz!r} must be below "
                f"maximum_mz={self.maximum_mz!r}"
            )
        if self.path_evidence and not self.evidence:
            problems.append(
                f"path_evidence={self.path_evidence!r} needs evidence=True, not "
                f"evidence={self.evidence!r}"
            )
        for name in ("charges", "isotope_errors"):
            values = getattr(self, name)
            if not values or any(isinstance(one, bool) for one in values):
                problems.append(f"{name}={values!r} must be whole numbers")
            elif not all(isinstance(one, int | np.integer) for one in values):
                problems.append(f"{name}={values!r} must be whole numbers")
        return problems

    def _peak_settings(self) -> PeakSettings:
        return PeakSettings(
            minimum_mz=float(self.minimum_mz),
            maximum_mz=float(self.maximum_mz),
            n_peaks=int(self.n_peaks),
            fewest_peaks=min(PeakSettings.fewest_peaks, int(self.n_peaks)),
            largest_charge=int(self.largest_charge),
            profile=self.profile,
        )

    def _make_network(self) -> nn.Module:
        network = PeptideNetwork(
            self.vocabulary_,
            int(self.d_model),
            int(self.d_ff),
            int(self.n_layers),
            int(self.n_heads),
            float(self.dropout),
            decoder=self.decoder,
            evidence=bool(self.evidence),
            n_slots=int(self.most_residues),
            most_residues=int(self.most_residues),
            gradient_block=bool(self.gradient_block),
            shared_encoder=bool(self.shared_encoder),
            glancing=bool(self.glancing),
            spectrum_graph=bool(self.spectrum_graph),
            path_evidence=bool(self.path_evidence),
        )
        if self._has_cross_stage():
            network.begin_cross_training()
        return network

    # ------------------------------------------------- pickling and saving

    def _get_saved_state(self) -> tuple[dict[str, Any], dict[str, Any]]:
        attributes, weights = super()._get_saved_state()
        if "vocabulary_" in attributes:
            attributes["vocabulary_"] = attributes["vocabulary_"].to_dict()
        for name in ("calibration_", "reranker_"):
            if name in attributes:
                attributes[name] = attributes[name].to_dict()
        return attributes, weights

    def _set_saved_state(
        self, attributes: Mapping[str, Any], weights: Mapping[str, Any]
    ) -> None:
        made = dict(attributes)
        if "vocabulary_" in made:
            made["vocabulary_"] = Vocabulary.from_dict(made["vocabulary_"])
        if "calibration_" in made:
            made["calibration_"] = ScoreCalibration.from_dict(made["calibration_"])
        if "reranker_" in made:
            made["reranker_"] = Reranker.from_dict(made["reranker_"])
        super()._set_saved_state(made, weights)
