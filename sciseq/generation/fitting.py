"""How all generators of sequences learn: data in, split, training, saving.

Axes: n sequences, L positions, V tokens.
"""

import os
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn

from sciseq.errors import DataQualityError, InputError
from sciseq.generation.alphabet import Alphabet
from sciseq.generation.calls import no_conditions
from sciseq.generation.conditions import ConditionCoding
from sciseq.generation.parts.backbone import TokenTransformer
from sciseq.generation.parts.batches import NoisyLoss, SequenceBatches
from sciseq.generation.parts.network import Backbone, Condition, SequenceNetwork
from sciseq.generation.parts.requests import Work
from sciseq.parameters import AnyOf, Integer, Nothing, Real
from sciseq.parameters import Rule as ParameterRule
from sciseq.torch_base import TRAINING_RULES, TorchEstimator, data_fingerprint
from sciseq.training import Batches, TrainingOptions, resolve_seed

__all__ = ["SequenceLearner"]

# The rate rises over this share of the steps, then falls along a cosine.
_WARM_UP = 0.05
_GRADIENT_CLIP = 1.0


@dataclass(kw_only=True, eq=False, repr=False)
class SequenceLearner(TorchEstimator):
    """The half of :class:`SequenceGenerator` that learns."""

    d_model: int = 64
    d_ff: int = 256
    n_layers: int = 2
    n_heads: int = 4
    dropout: float = 0.1
    max_length: int | None = None
    learning_rate: float = 1e-3
    learning_rate_schedule: str = "cosine"
    weight_decay: float = 0.01
    batch_size: int = 64
    max_epochs: int = 30
    patience: int | None = None
    validation_fraction: float = 0.1
    random_state: Any = None
    device: Any = "auto"
    precision: str = "float32"
    verbose: int = 0
    checkpoint_dir: str | os.PathLike[str] | None = None
    memory_limit: str | int | None = None
    n_devices: int = 1
    n_nodes: int = 1

    _parameter_rules: ClassVar[dict[str, ParameterRule]] = {
        **{name: rule for name, rule in TRAINING_RULES.items() if name != "compile"},
        "d_model": Integer(2),
        "d_ff": Integer(1),
        "n_layers": Integer(1),
        "n_heads": Integer(1),
        "max_length": AnyOf(Nothing(), Integer(1)),
        "validation_fraction": Real(0.0, 1.0, open_high=True),
    }

    # Noise and the rotation by positions are.
    _needs_float64: ClassVar[bool] = True
    # How data become tokens.
    alphabet_type: ClassVar[type[Alphabet]] = Alphabet

    @abstractmethod
    def _loss(self, seed: int) -> NoisyLoss:
        """Return what training minimises."""

    def fit(self, X: Any, y: Any = None, *, validation_data: Any = None) -> Self:
        """Learn from sequences.

        Parameters
        ----------
        X : sequence of str or of lists of tokens, array of integers, or path
            Sequences; a path to a FASTA, SMILES or text file (also ``.gz``) stands for
            those in it.
        y : array-like, optional
            Condition of each sequence: labels of classes, rows of numbers (n, feature),
            or a list of arrays (row, feature) of any length, such as peaks.
        validation_data : sequences, or tuple of sequences and conditions, optional
            What the best epoch is chosen by, instead of a part of `X`.

        Returns
        -------
        self

        Raises
        ------
        InputError, InputTypeError
            For parameters out of range, or sequences of a wrong kind.
        DataQualityError
            When there is too little to learn from.
        """
        self._check_parameters()
        alphabet, coding = self._codings(X, y)
        data = self._encoded(alphabet, coding, X, y)
        before = self._fitted_attributes()
        self._forget()
        self.alphabet_, self.condition_coding_ = alphabet, coding
        try:
            if validation_data is None:
                parts = self._split(data)
            else:
                held = _pair(validation_data)
                parts = [data, self._encoded(alphabet, coding, *held)]
            self._fit_parts(parts)
        except BaseException:
            self._forget()
            for name, value in before.items():
                setattr(self, name, value)
            raise
        self.n_features_in_ = 1  # a sequence is one thing
        self.last_work: Work | None = None
        return self

    def _codings(self, X: Any, y: Any) -> tuple[Alphabet, ConditionCoding | None]:
        """Learn how sequences and conditions become numbers."""
        alphabet = self.alphabet_type.of(X, self.max_length)
        return alphabet, None if y is None else ConditionCoding.of(y)

    def _encoded(
        self, alphabet: Alphabet, coding: ConditionCoding | None, X: Any, y: Any
    ) -> tuple[Tensor, Condition | None]:
        tokens = torch.from_numpy(alphabet.encode(X))
        if coding is None:
            if y is not None:
                raise no_conditions()
            return tokens, None
        if y is None:
            raise InputError("sequences come without their conditions", where="y")
        condition = coding.encode(y, self._dtype)
        if len(condition.rows) != len(tokens):
            raise InputError(
                f"{len(tokens)} sequences and {len(condition.rows)} conditions",
                where="y",
                hint="Give one condition for each sequence.",
            )
        return tokens, condition

    def _split(
        self, data: tuple[Tensor, Condition | None]
    ) -> list[tuple[Tensor, Condition | None]]:
        """Split by sequence: equal ones stay together."""
        tokens, condition = data
        if not self.validation_fraction:
            return [data]
        different, which = torch.unique(tokens, dim=0, return_inverse=True)
        n_held = round(self.validation_fraction * len(different))
        if n_held < 1 or len(different) - n_held < 1:
            return [data]
        rng = np.random.default_rng([resolve_seed(self.random_state), 0])
        held = torch.zeros(len(different), dtype=torch.bool)
        held[torch.from_numpy(rng.permutation(len(different))[:n_held])] = True
        is_held = held[which]
        return [
            (tokens[rows], None if condition is None else condition.take(rows))
            for rows in (~is_held, is_held)
        ]

    def _fit_parts(self, parts: list[tuple[Tensor, Condition | None]]) -> None:
        def make_batches(device: torch.device) -> tuple[Batches, Batches | None]:
            made = [SequenceBatches(*one, device) for one in parts]
            return made[0], made[1] if len(made) > 1 else None

        if not len(parts[0][0]):
            raise DataQualityError("no sequence to learn from", where="X")
        arrays = [one[0].numpy() for one in parts]
        arrays += [x.numpy() for _, one in parts if one is not None for x in one]
        loss = self._loss(resolve_seed(self.random_state))
        self._on_step = loss.on_step
        try:
            self._train(
                loss,
                make_batches,
                tokens_per_item=self.alphabet_.n_positions,
                # What a step does depends on how many there are.
                fingerprint=f"{data_fingerprint(arrays)} {self.max_epochs}"
                if self.checkpoint_dir
                else "",
            )
        finally:
            del self._on_step

    def _make_network(self) -> nn.Module:
        coding = self.condition_coding_
        return SequenceNetwork(
            self._make_backbone(),
            int(self.d_model),
            0 if coding is None else coding.n_features,
        )

    def _make_backbone(self) -> Backbone:
        return TokenTransformer(
            self.alphabet_.n_tokens,
            self.alphabet_.n_positions,
            int(self.d_model),
            int(self.d_ff),
            int(self.n_layers),
            int(self.n_heads),
            float(self.dropout),
        )

    def _training_options(self, *args: Any, **kwargs: Any) -> TrainingOptions:
        options = super()._training_options(*args, **kwargs)
        falls = self.learning_rate_schedule == "cosine"

        def factor(progress: float) -> float:
            rise = min(progress / _WARM_UP, 1.0)
            fall = 0.5 * (1 + float(np.cos(np.pi * progress))) if falls else 1.0
            return max(rise, 0.01) * fall

        return replace(
            options,
            schedule=(lambda epoch: 1.0) if falls else options.schedule,
            step_schedule=factor,
            on_step=self._on_step,
            gradient_clip=_GRADIENT_CLIP,
        )

    # ------------------------------------------------- pickling and saving

    def _get_saved_state(self) -> tuple[dict[str, Any], dict[str, Any]]:
        attributes, weights = super()._get_saved_state()
        for name in ("alphabet_", "condition_coding_"):
            if attributes.get(name) is not None:
                attributes[name] = attributes[name].to_dict()
        return attributes, weights

    def _set_saved_state(
        self, attributes: Mapping[str, Any], weights: Mapping[str, Any]
    ) -> None:
        made = dict(attributes)
        if made.get("alphabet_") is not None:
            made["alphabet_"] = self.alphabet_type.from_dict(made["alphabet_"])
        if made.get("condition_coding_") is not None:
            coding = ConditionCoding.from_dict(made["condition_coding_"])
            made["condition_coding_"] = coding
        super()._set_saved_state(made, weights)


def _pair(data: Any) -> tuple[Any, Any]:
    return data if isinstance(data, tuple) else (data, None)
