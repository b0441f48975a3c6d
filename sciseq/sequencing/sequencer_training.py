"""Training of a sequencer: on annotated spectra or on streams, in two stages.

Axes: n spectra.
"""

import contextlib
import functools
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from sciseq.errors import InputError
from sciseq.sequencing.diffusion import DiffusionTraining
from sciseq.sequencing.network import grown_weights
from sciseq.sequencing.objective import CrossTraining, JointTraining
from sciseq.sequencing.peptide_batches import PeptideBatches
from sciseq.sequencing.residues import Vocabulary
from sciseq.sequencing.spectra import PeakSettings
from sciseq.sequencing.spectrum_stream import SpectrumStream, StreamBatches
from sciseq.sequencing.training_spectra import (
    TrainingSpectra,
    read_annotated,
    split_by_peptide,
)
from sciseq.torch_base import TorchEstimator, data_fingerprint
from sciseq.training import Batches, TrainingOptions, resolve_seed

__all__ = ["SequenceTraining"]

# The rate rises over this share of the steps, then falls along a cosine.
_WARM_UP = 0.05
_GRADIENT_CLIP = 1.0

MakeBatches = Callable[[torch.device], tuple[Batches, Batches | None]]


def _begin_nothing(epoch: int, n_epochs: int) -> None:
    """Epochs of annotated spectra need no preparation."""


class SequenceTraining(TorchEstimator):
    """Fitting the network of a sequencer."""

    decoder: str
    modifications: Any
    n_peaks: int
    most_residues: int
    annealing: bool
    min_nar_weight: float
    cross_epochs: int
    validation_fraction: float
    warm_start: bool
    vocabulary_: Vocabulary
    skipped_: list[tuple[str, str]]
    is_crossed_: bool

    @abstractmethod
    def _peak_settings(self) -> PeakSettings:
        """Return how peaks are prepared."""

    def fit(
        self,
        X: Any,
        y: Iterable[str] | None = None,
        *,
        validation_data: Any = None,
    ) -> Self:
        """Learn from spectra with known peptides.

        Parameters
        ----------
        X : path, list of paths, spectra, or SpectrumStream
            Files (MGF, mzML, mzXML, MSP, also gzipped), :class:`Spectrum` objects,
            dictionaries of pyteomics, a data frame, or simulated spectra without end
            (:meth:`Simulator.stream <sciseq.sequencing.simulator.Simulator.stream>`),
            of which every epoch has its own.
        y : iterable of str, optional
            Peptides in ProForma, one per spectrum. By default those of the files.
        validation_data : same kinds as X but a stream, optional
            Annotated spectra that epochs are chosen by, instead of a share of X.

        Returns
        -------
        self
        """
        self._check_parameters()
        vocabulary = Vocabulary().with_modifications(self.modifications or ())
        read = self._reader(vocabulary)
        is_stream = isinstance(X, SpectrumStream)
        if is_stream:
            _check_stream(X, y, vocabulary)
        data: Any = X if is_stream else read(X, y)
        held = None if validation_data is None else read(validation_data, None)
        with self._fitted_or_as_before():
            self.vocabulary_ = vocabulary
            self.skipped_ = [] if is_stream else data.skipped
            if is_stream:
                self._fit_stream(data, held)
            else:
                self._fit_annotated(data, held)
        self.n_features_in_ = 1  # a spectrum is one thing
        return self

    def _reader(self, vocabulary: Vocabulary) -> Callable[..., TrainingSpectra]:
        """Return what reads annotated spectra; its warnings point behind its caller."""
        return functools.partial(
            read_annotated,
            vocabulary=vocabulary,
            settings=self._peak_settings(),
            most_residues=int(self.most_residues),
            n_slots=self.most_residues if self._has_slots() else None,
        )

    @contextlib.contextmanager
    def _fitted_or_as_before(self) -> Iterator[None]:
        """Forget the last fit but for its weights; a failure brings it all back."""
        before = self._fitted_attributes()
        self._forget()
        self._start: Mapping[str, Tensor] | None = None
        if self.warm_start and "network_" in before:
            self._start = dict(before["network_"].state_dict())
        try:
            yield
        except BaseException:
            self._forget()
            for name, value in before.items():
                setattr(self, name, value)
            raise
        finally:
            del self._start

    # ------------------------------------------------------------- kinds of spectra

    def _fit_annotated(
        self, data: TrainingSpectra, held: TrainingSpectra | None
    ) -> None:
        if held is None:
            rng = np.random.default_rng([resolve_seed(self.random_state), 0])
            rows = split_by_peptide(
                data.peptides, self.vocabulary_, self.validation_fraction, rng
            )
            data, held = (data.subset(one) for one in rows)
        stacked = [one.stacked(self._dtype) for one in (data, held) if len(one)]

        def make_batches(device: torch.device) -> tuple[Batches, Batches | None]:
            made = [PeptideBatches(*one, device) for one in stacked]
            return made[0], made[1] if len(made) > 1 else None

        arrays = [tensor.numpy() for pair in stacked for one in pair for tensor in one]
        self._fit_batches(
            make_batches, data_fingerprint(arrays) if self.checkpoint_dir else ""
        )

    def _fit_stream(self, stream: SpectrumStream, held: TrainingSpectra | None) -> None:
        settings, most_residues = self._peak_settings(), int(self.most_residues)
        if held is not None:
            validation: Any = held.stacked(self._dtype)
        else:
            n_held = max(round(self.validation_fraction * stream.n_per_epoch), 1)
            peaks, targets = stream.held_out(
                n_held, settings, most_residues=most_residues
            )
            peaks = peaks._replace(intensity=peaks.intensity.to(self._dtype))
            validation = peaks, targets
        running: list[StreamBatches] = []  # those of the device at hand

        def make_batches(device: torch.device) -> tuple[Batches, Batches | None]:
            made = StreamBatches(stream, settings, most_residues, device, self._dtype)
            running[:] = [made]
            peaks, targets = validation
            return made, PeptideBatches(peaks, targets, device)

        def begin(epoch: int, n_epochs: int) -> None:
            running[0].begin(epoch, n_epochs)

        self._fit_batches(make_batches, stream.fingerprint(), begin)

    # ------------------------------------------------------------------- two stages

    def _has_slots(self) -> bool:
        """Whether a decoder learns from paths of symbols, which may be too few."""
        return self.decoder in ("hybrid", "nonautoregressive")

    def _has_cross_stage(self) -> bool:
        """Whether the network at hand is, or is about to be, trained crosswise."""
        return getattr(self, "is_crossed_", False)

    def _n_epochs(self) -> tuple[int, int]:
        """Return the numbers of epochs of the joint and of the cross stage."""
        is_hybrid = self.decoder == "hybrid"
        return int(self.max_epochs), int(self.cross_epochs) if is_hybrid else 0

    def _fit_batches(
        self,
        make_batches: MakeBatches,
        fingerprint: str,
        begin_epoch: Callable[[int, int], None] = _begin_nothing,
    ) -> None:
        """Run both stages of the training.

        ``begin_epoch`` is told which epoch of how many begins, of both stages.
        """
        sizes: dict[str, Any] = {
            "tokens_per_item": int(self.n_peaks) + 2 * int(self.most_residues),
            "fingerprint": fingerprint,
        }
        n_joint, n_cross = self._n_epochs()
        joint = self._first_loss(n_joint)

        def on_step(step: int, n_steps: int) -> None:
            joint.on_step(step, n_steps)
            begin_epoch(step * n_joint // n_steps, n_joint + n_cross)

        self._on_step: Callable[[int, int], None] = on_step
        try:
            self._train(joint, make_batches, **sizes)
            if n_cross and self.stopped_ != "interrupted":
                self._train_crosswise(make_batches, sizes, begin_epoch)
        finally:
            del self._on_step

    def _first_loss(self, n_epochs: int) -> JointTraining | DiffusionTraining:
        """Return the loss of the first stage, of so many epochs."""
        if self.decoder == "diffusion":
            return DiffusionTraining(resolve_seed(self.random_state) % 2**63)
        return JointTraining(
            annealing=bool(self.annealing),
            least_other=float(self.min_nar_weight),
            n_epochs=n_epochs,
        )

    def _train_crosswise(
        self,
        make_batches: MakeBatches,
        sizes: dict[str, Any],
        begin_epoch: Callable[[int, int], None],
    ) -> None:
        n_joint, n_cross = self._n_epochs()

        def on_step(step: int, n_steps: int) -> None:
            begin_epoch(n_joint + step * n_cross // n_steps, n_joint + n_cross)

        self._on_step = on_step
        history, self.is_crossed_ = self.history_, True
        self._start = dict(self.network_.state_dict())
        loss = CrossTraining()
        self._train(loss, make_batches, epochs=n_cross, run="cross", **sizes)
        for one in self.history_:
            one["epoch"] += len(history)
        self.best_epoch_ += len(history)
        self.n_epochs_ += len(history)
        self.history_ = history + self.history_

    def _initial_weights(self) -> Mapping[str, Tensor] | None:
        return getattr(self, "_start", None)

    def _load_initial_weights(self, network: nn.Module) -> None:
        weights = self._initial_weights()
        if weights is not None:
            self._start = grown_weights(weights, network.state_dict())
        super()._load_initial_weights(network)

    def _training_options(self, *args: Any, **kwargs: Any) -> TrainingOptions:
        options = super()._training_options(*args, **kwargs)
        falls = self.learning_rate_schedule == "cosine"

        def factor(progress: float) -> float:
            rise = min(progress / _WARM_UP, 1.0)
            fall = 0.5 * (1 + float(np.cos(np.pi * progress))) if falls else 1.0
            return max(rise, 0.01) * fall

        return replace(
            options,
            schedule=lambda epoch: 1.0,
            step_schedule=factor,
            on_step=self._on_step,
            gradient_clip=_GRADIENT_CLIP,
        )


def _check_stream(
    stream: SpectrumStream, y: Iterable[str] | None, vocabulary: Vocabulary
) -> None:
    if y is not None:
        raise InputError("a stream of simulated spectra has peptides of its own",
                         where="y", hint="Leave y out.")  # fmt: skip
    if stream.simulator.vocabulary != vocabulary:
        own, wanted = (set(one.tokens) for one in (stream.simulator.vocabulary,
                                                   vocabulary))  # fmt: skip
        raise InputError(
            f"the simulator writes peptides with other tokens than the sequencer: "
            f"{', '.join(sorted(own ^ wanted)) or 'in another order'}",
            where="X",
            hint="Give both the same modifications.",
        )
