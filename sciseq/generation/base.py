"""What all generators of sequences share: data in and out, training, sampling, scores.

Axes: n sequences, L positions, V tokens.
"""

import os
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self, cast

import numpy as np
import torch
from torch import Tensor, nn

from sciseq.errors import CapabilityError, DataQualityError, InputError
from sciseq.generation.alphabet import Alphabet
from sciseq.generation.conditions import ConditionCoding
from sciseq.generation.parts.backbone import TokenTransformer
from sciseq.generation.parts.batches import NoisyLoss, SequenceBatches
from sciseq.generation.parts.drawing import Drawing
from sciseq.generation.parts.network import Backbone, Condition, SequenceNetwork
from sciseq.generation.parts.requests import Decoder, Requests, Work, generate
from sciseq.parameters import AnyOf, Integer, Nothing, Real
from sciseq.parameters import Rule as ParameterRule
from sciseq.torch_base import TRAINING_RULES, TorchEstimator, data_fingerprint
from sciseq.training import Batches, TrainingOptions, resolve_seed

__all__ = ["TOGETHER", "SequenceGenerator", "make_drawing", "request_seeds"]

# The rate rises over this share of the steps, then falls along a cosine.
_WARM_UP = 0.05
_GRADIENT_CLIP = 1.0
# Requests that are generated together, and sequences that are scored together.
TOGETHER = 256
# What a sequence of tokens may be, where a token may be a string.
_SEQUENCES = (list, tuple, np.ndarray)


@dataclass(kw_only=True, eq=False, repr=False)
class SequenceGenerator(TorchEstimator):
    """Base of generators of discrete sequences: fit, sample, score_samples, infill.

    A method says how its loss, its decoder and its score come out of the shared parts.
    """

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

    _parameter_rules: ClassVar[dict[str, ParameterRule]] = {
        **{name: rule for name, rule in TRAINING_RULES.items() if name != "compile"},
        "d_model": Integer(2),
        "d_ff": Integer(1),
        "n_layers": Integer(1),
        "n_heads": Integer(1),
        "max_length": AnyOf(Nothing(), Integer(1)),
        "validation_fraction": Real(0.0, 1.0, open_high=True),
    }

    # How data become tokens.
    alphabet_type: ClassVar[type[Alphabet]] = Alphabet

    # ------------------------------------------------------- what a method says

    @abstractmethod
    def _loss(self, seed: int) -> NoisyLoss:
        """Return what training minimises."""

    @abstractmethod
    def _decoder(self, drawing: Drawing) -> Decoder:
        """Return how samples are made."""

    @abstractmethod
    def _log_likelihood(
        self, tokens: Tensor, condition: Condition | None, seed: int
    ) -> tuple[Tensor, Tensor]:
        """Return log-likelihoods of encoded sequences, and their standard errors."""

    # ------------------------------------------------------------------ fitting

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
                raise _no_conditions()
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

    # ----------------------------------------------------------------- sampling

    def sample(
        self,
        n: int | None = None,
        condition: Any = None,
        *,
        template: Any = None,
        allowed: Any = None,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float = 1.0,
        random_state: Any = None,
    ) -> Any:
        """Generate sequences.

        Parameters
        ----------
        n : int, optional
            How many; by default as many as there are conditions or templates, or one.
        condition : array-like, optional
            One condition for each sequence, or one for all, as in fit.
        template : sequence with gaps, or a list of them, optional
            What is given: ``"?"`` in strings and None in lists may be anything. A
            template that is shorter than the longest sequence is open at its end, when
            sequences have an end.
        allowed : sequence of tokens, or dict of int to tokens, optional
            Legal tokens everywhere, or at some positions.
        temperature : float, default=1.0
            Below 1 more probable tokens are preferred; 0 takes the best.
        top_k, top_p : int and float, optional
            Draw from so many of the most probable tokens only, or from those that have
            this probability together.
        random_state : int, optional
            Seed. A sequence depends on it and on its own place, not on how many are
            drawn. Default: other sequences each time.

        Returns
        -------
        list of str, list of lists, or array of int, as in fit
        """
        self._check_is_fitted()
        drawing = make_drawing(temperature, top_k, top_p)
        tokens, work = self._generate(n, condition, template, allowed, drawing,
                                      random_state)  # fmt: skip
        self.last_work = work
        return self.alphabet_.decode(tokens.numpy())

    def _generate(
        self,
        n: int | None,
        condition: Any,
        template: Any,
        allowed: Any,
        drawing: Drawing,
        random_state: Any,
    ) -> tuple[Tensor, Work]:
        n, rows, told = self._asked(n, condition, template)
        legal = self._legal(allowed)
        seed = resolve_seed(random_state)
        made = [
            self._generate_some(some, of, legal, drawing, request_seeds(seed, numbers))
            for numbers, some, of in _parts(n, rows, told)
        ]
        tokens = torch.cat([one for one, _ in made]).cpu()
        fields = zip(*(vars(one).values() for _, one in made), strict=True)
        return tokens, Work(*(torch.cat(one).cpu() for one in fields))

    def _asked(
        self, n: int | None, condition: Any, template: Any
    ) -> tuple[int, Tensor, Condition | None]:
        """How many are asked for, with templates and conditions, one or n of each."""
        rows = self._template_rows(template)
        told = self._condition_rows(condition)
        if rows is None:
            rows = torch.full((1, self.alphabet_.n_positions), -1)
        n_told = 1 if told is None else len(told.rows)
        n = max(len(rows), n_told) if n is None else n
        _check_counts(n, templates=len(rows), conditions=n_told)
        return n, rows, told

    def _generate_some(
        self,
        rows: Tensor,
        condition: Condition | None,
        legal: Tensor | None,
        drawing: Drawing,
        seeds: Tensor,
    ) -> tuple[Tensor, Work]:
        """Fill the gaps (-1) of rows (batch, position), each with a seed of its own."""
        device = self._run_device()
        network = self._network()
        tokens = rows.to(device)
        if condition is not None:
            condition = Condition(*(one.to(device) for one in condition))
        is_filled = tokens >= 0
        legal = self._without_early_ends(tokens, legal)
        requests = Requests(
            tokens=tokens.where(is_filled, network.mask),
            is_filled=is_filled,
            seeds=seeds.to(device),
            mask=network.mask,
            condition=condition,
            allowed=None if legal is None else legal.to(device),
            end=self.alphabet_.end,
        )
        with self._autocast(device):
            return self._run_requests(network, drawing, requests)

    def _run_requests(
        self, network: SequenceNetwork, drawing: Drawing, requests: Requests
    ) -> tuple[Tensor, Work]:
        return generate(network, self._decoder(drawing), requests)

    def _without_early_ends(
        self, tokens: Tensor, legal: Tensor | None
    ) -> Tensor | None:
        """Legal tokens (batch or 1, position, token): an end cuts off nothing given."""
        end = self.alphabet_.end
        is_given = (tokens >= 0) & (tokens != (-1 if end is None else end))
        if end is None or not bool(is_given.any()):
            return None if legal is None else legal.unsqueeze(0)
        if legal is None:
            legal = torch.ones(tokens.shape[1], self.alphabet_.n_tokens).bool()
        last = is_given.flip(1).cumsum(dim=1).flip(1) > 0  # given here, or behind
        legal = legal.to(tokens.device).repeat(len(tokens), 1, 1)
        legal[:, :, end] &= ~last
        return legal

    def _network(self) -> SequenceNetwork:
        """Return the fitted network, ready to predict."""
        return cast(SequenceNetwork, self.network_.eval())

    def _template_rows(self, template: Any) -> Tensor | None:
        """Return encoded templates, -1 at gaps."""
        if template is None:
            return None
        alphabet = self.alphabet_
        templates: Any
        if alphabet.kind == "array":
            templates = np.atleast_2d(np.asarray(template))
        else:
            is_one = isinstance(template, str) or (
                alphabet.kind == "list"
                and hasattr(template, "__iter__")
                and not any(isinstance(one, _SEQUENCES) for one in template)
            )
            templates = [template] if is_one else template
        rows = alphabet.encode(templates, gap=-1)
        if alphabet.end is not None:  # what follows the template is open
            for row, one in zip(rows, templates, strict=True):
                row[len(one) :] = -1
        return torch.from_numpy(rows)

    def _condition_rows(self, condition: Any) -> Condition | None:
        coding = self.condition_coding_
        if coding is None:
            if condition is not None:
                raise _no_conditions()
            return None
        if condition is None:
            raise InputError(
                "this generator was fitted with conditions and needs some",
                where="condition",
                hint="Give one condition for all sequences, or one for each.",
            )
        return coding.encode(condition, self._dtype)

    def _legal(self, allowed: Any) -> Tensor | None:
        """Legal tokens, bool of shape (position, token)."""
        if allowed is None:
            return None
        alphabet = self.alphabet_
        if isinstance(allowed, Mapping):
            for place in allowed:
                if not (Integer(0).allows(place) and place < alphabet.n_positions):
                    raise InputError(
                        f"position {place!r} is none of the {alphabet.n_positions}",
                        where="allowed",
                        hint="Positions are counted from 0.",
                    )
        everywhere = allowed if not isinstance(allowed, Mapping) else None
        by_position = allowed if isinstance(allowed, Mapping) else {}
        legal = torch.ones(alphabet.n_positions, alphabet.n_tokens, dtype=torch.bool)
        numbers = {one: i for i, one in enumerate(alphabet.tokens)}
        for place in range(alphabet.n_positions):
            tokens = by_position.get(place, everywhere)
            if tokens is None:
                continue
            unknown = [one for one in tokens if one not in numbers]
            if unknown or not len(tokens):
                raise InputError(
                    f"allowed tokens {list(tokens)!r} are unknown or none",
                    where=f"allowed, position {place}",
                    hint=f"Tokens of fit: {list(alphabet.tokens)[:20]!r}.",
                )
            legal[place] = False
            legal[place, [numbers[one] for one in tokens]] = True
            if alphabet.end is not None:  # sequences may end, unless told otherwise
                legal[place, alphabet.end] = everywhere is not None
        return legal

    def infill(
        self,
        X: Any,
        condition: Any = None,
        *,
        temperature: float = 1.0,
        random_state: Any = None,
    ) -> Any:
        """Fill the gaps of sequences; what is given stays.

        What is read besides the tokens left of a gap depends on the method: all others
        (masked diffusion, mixtures of objectives), those of its block (block
        diffusion), all by weighing candidates (autoregressive), or none (draft and
        verify).

        Parameters
        ----------
        X : sequences with gaps
            ``"?"`` in strings, None in lists, -1 in arrays. Their lengths are kept.
        condition : array-like, optional
            As in :meth:`sample`.
        temperature : float, default=1.0
            0 takes the most probable tokens.
        random_state : int, optional
            Seed.

        Returns
        -------
        Sequences of the same kind.
        """
        self._check_is_fitted()
        rows = torch.from_numpy(self.alphabet_.encode(X, gap=-1))
        legal = None
        if self.alphabet_.end is not None:  # a gap is a token, not the end
            legal = torch.ones(rows.shape[1], self.alphabet_.n_tokens, dtype=torch.bool)
            legal[:, self.alphabet_.end] = False
        told = self._condition_rows(condition)
        _check_counts(len(rows), conditions=1 if told is None else len(told.rows))
        seed, drawing = resolve_seed(random_state), make_drawing(temperature, None, 1.0)
        made = [
            self._infill_some(some, of, legal, drawing, seed, numbers)
            for numbers, some, of in _parts(len(rows), rows, told)
        ]
        return self.alphabet_.decode(torch.cat(made).cpu().numpy())

    def _infill_some(
        self,
        rows: Tensor,
        condition: Condition | None,
        legal: Tensor | None,
        drawing: Drawing,
        seed: int,
        numbers: Tensor,
    ) -> Tensor:
        """Fill the gaps of rows (batch, position), which have numbers (batch,)."""
        seeds = request_seeds(seed, numbers)
        return self._generate_some(rows, condition, legal, drawing, seeds)[0]

    # ------------------------------------------------------------------- scores

    def score_samples(
        self,
        X: Any,
        condition: Any = None,
        *,
        return_std: bool = False,
        random_state: int = 0,
    ) -> Any:
        """Return the log-likelihood of each sequence, in nats.

        Whether it is exact or a bound is said in the notes of the method.

        Parameters
        ----------
        X : sequences
            As in fit.
        condition : array-like, optional
            Condition of each sequence.
        return_std : bool, default=False
            Also return the standard errors of an estimate; 0 where it is exact.
        random_state : int, default=0
            Seed of an estimate.

        Returns
        -------
        ndarray of shape (n,), or two of them
        """
        values, errors = self._score_parts(
            X,
            condition,
            lambda tokens, told: self._log_likelihood(tokens, told, random_state),
        )
        return (values, errors) if return_std else values

    def _score_parts(
        self,
        X: Any,
        condition: Any,
        score: Callable[[Tensor, Condition | None], tuple[Tensor, Tensor]],
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return what ``score`` finds for encoded sequences and their conditions."""
        self._check_is_fitted()
        coding = self.condition_coding_
        data = self._encoded(self.alphabet_, coding, X, condition)
        device, made = self._run_device(), []
        self._network()
        for first in range(0, len(data[0]), TOGETHER):
            rows = slice(first, first + TOGETHER)
            told = data[1] and Condition(*(one[rows].to(device) for one in data[1]))
            with torch.no_grad(), self._autocast(device):
                found = score(data[0][rows].to(device), told)
            made.append(tuple(one.double().cpu().numpy() for one in found))
        values, errors = (np.concatenate(one) for one in zip(*made, strict=True))
        return values, errors

    def score(self, X: Any, y: Any = None) -> float:
        """Return the mean log-likelihood of sequences, in nats.

        Parameters
        ----------
        X : sequences
            As in fit.
        y : array-like, optional
            Condition of each sequence.
        """
        return float(np.mean(self.score_samples(X, y)))

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


def request_seeds(seed: int, numbers: Tensor) -> Tensor:
    """Return seeds of requests: of their number, whatever else is generated.

    Parameters
    ----------
    seed : int
        Seed of the call.
    numbers : Tensor of int64, shape (batch,)
        Numbers of the requests, from 0 to below 2^31.
    """
    return numbers + (seed % 2**31) * 2**31


def _parts(
    n: int, rows: Tensor, condition: Condition | None
) -> Iterator[tuple[Tensor, Tensor, Condition | None]]:
    """Numbers of n requests in parts, with the rows and conditions of each."""
    for first in range(0, n, TOGETHER):
        numbers = torch.arange(first, min(first + TOGETHER, n))
        of = None
        if condition is not None:
            of = condition.take(numbers % len(condition.rows))
        yield numbers, rows[numbers % len(rows)], of


def _no_conditions() -> CapabilityError:
    return CapabilityError(
        "this generator was fitted without conditions",
        where="condition",
        hint="Fit with y.",
    )


def _check_counts(n: Any, **sizes: int) -> None:
    """Raise unless there is one of each for all n sequences, or one for each."""
    if not Integer(1).allows(n) or any(size not in (1, n) for size in sizes.values()):
        given = " and ".join(f"{size} {name}" for name, size in sizes.items())
        raise InputError(
            f"{n!r} sequences, with {given}",
            where="n",
            hint="Give one for all, or one for each sequence.",
        )


def _pair(data: Any) -> tuple[Any, Any]:
    return data if isinstance(data, tuple) else (data, None)


def make_drawing(temperature: float, top_k: int | None, top_p: float) -> Drawing:
    """Return how tokens are drawn, or raise what is wrong with it."""
    problems = []
    if not temperature >= 0 or np.isinf(temperature):
        problems.append(f"temperature={temperature!r} must be at least 0")
    if top_k is not None and top_k < 1:
        problems.append(f"top_k={top_k!r} must be at least 1")
    if not 0 < top_p <= 1:
        problems.append(f"top_p={top_p!r} must be above 0 and at most 1")
    if problems:
        raise InputError("; ".join(problems), where="sample")
    return Drawing(temperature, top_k, top_p)
