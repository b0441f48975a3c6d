"""What all generators of sequences share: sampling, gaps and scores.

Axes: n sequences, L positions, V tokens.
"""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from sciseq.errors import InputError
from sciseq.generation.calls import (
    check_counts,
    make_drawing,
    no_conditions,
    request_parts,
    request_seeds,
)
from sciseq.generation.constraints import (
    check_given,
    legal_in_gaps,
    legal_tokens,
    template_rows,
    without_early_ends,
)
from sciseq.generation.fitting import SequenceLearner
from sciseq.generation.parts.drawing import Drawing
from sciseq.generation.parts.network import Condition, SequenceNetwork
from sciseq.generation.parts.requests import Decoder, Requests, Work, generate
from sciseq.training import resolve_seed

__all__ = ["SequenceGenerator", "make_drawing", "request_seeds"]


@dataclass(kw_only=True, eq=False, repr=False)
class SequenceGenerator(SequenceLearner):
    """Base of generators of discrete sequences: fit, sample, score_samples, infill.

    A method says how its loss, its decoder and its score come out of the shared parts.
    """

    # ------------------------------------------------------- what a method says

    @abstractmethod
    def _decoder(self, drawing: Drawing) -> Decoder:
        """Return how samples are made."""

    @abstractmethod
    def _log_likelihood(
        self, tokens: Tensor, condition: Condition | None, seed: int
    ) -> tuple[Tensor, Tensor]:
        """Return log-likelihoods of encoded sequences, and their standard errors."""

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
        n, rows, told, legal = self._asked(n, condition, template, allowed)
        seed = resolve_seed(random_state)
        made = [
            self._generate_some(some, of, legal, drawing, request_seeds(seed, numbers))
            for numbers, some, of in request_parts(n, rows, told)
        ]
        tokens = torch.cat([one for one, _ in made]).cpu()
        fields = zip(*(vars(one).values() for _, one in made), strict=True)
        return tokens, Work(*(torch.cat(one).cpu() for one in fields))

    def _asked(
        self, n: int | None, condition: Any, template: Any, allowed: Any
    ) -> tuple[int, Tensor, Condition | None, Tensor | None]:
        """How many are asked for, with templates and conditions, and what is legal."""
        rows = self._template_rows(template)
        told = self._condition_rows(condition)
        if rows is None:
            rows = torch.full((1, self.alphabet_.n_positions), -1)
        n_told = 1 if told is None else len(told.rows)
        n = max(len(rows), n_told) if n is None else n
        check_counts(n, templates=len(rows), conditions=n_told)
        legal = self._legal(allowed)
        check_given(self.alphabet_, rows, legal)
        return n, rows, told, legal

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
        legal = without_early_ends(self.alphabet_, tokens, legal)
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

    def _network(self) -> SequenceNetwork:
        """Return the fitted network, ready to predict."""
        return cast(SequenceNetwork, self.network_.eval())

    def _template_rows(self, template: Any) -> Tensor | None:
        """Return encoded templates, -1 at gaps."""
        return template_rows(self.alphabet_, template)

    def _condition_rows(self, condition: Any) -> Condition | None:
        coding = self.condition_coding_
        if coding is None:
            if condition is not None:
                raise no_conditions()
            return None
        if condition is None:
            raise InputError(
                "this generator was fitted with conditions and needs some",
                where="condition",
                hint="Give one condition for all sequences, or one for each.",
            )
        return coding.encode(condition, self._dtype)

    def _encoded_rows(self, X: Any, gap: int | None = None) -> Tensor:
        """Return sequences as rows of tokens, at least one."""
        rows = torch.from_numpy(self.alphabet_.encode(X, gap=gap))
        if not len(rows):
            raise InputError("there are no sequences", where="X")
        return rows

    def _completed(self, rows: Tensor) -> Tensor:
        """Return rows (batch, position) with what the estimator itself fixes."""
        return rows

    def _legal(self, allowed: Any) -> Tensor | None:
        """Legal tokens, bool of shape (position, token)."""
        return legal_tokens(self.alphabet_, allowed)

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
        diffusion), or all by weighing candidates (autoregressive, draft and verify).

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
        rows = self._completed(self._encoded_rows(X, gap=-1))
        legal = self._legal(None)
        check_given(self.alphabet_, rows, legal)
        legal = legal_in_gaps(self.alphabet_, rows, legal)
        told = self._condition_rows(condition)
        check_counts(len(rows), conditions=1 if told is None else len(told.rows))
        seed, drawing = resolve_seed(random_state), make_drawing(temperature, None, 1.0)
        made = [
            self._infill_some(some, of, legal, drawing, seed, numbers)
            for numbers, some, of in request_parts(len(rows), rows, told)
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
        random_state: Any = 0,
    ) -> Any:
        """Return the log-likelihood of each sequence, in nats.

        Whether it is exact or a bound is said in the notes of the method.

        Parameters
        ----------
        X : sequences
            As in fit.
        condition : array-like, optional
            One condition for each sequence, or one for all, as in fit.
        return_std : bool, default=False
            Also return the standard errors of an estimate; 0 where it is exact, and
            not a number where there is but one draw.
        random_state : int, RandomState or None, default=0
            Seed of an estimate.

        Returns
        -------
        ndarray of shape (n,), or two of them
        """
        seed = resolve_seed(random_state)
        values, errors = self._score_parts(
            X,
            condition,
            lambda tokens, told: self._log_likelihood(tokens, told, seed),
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
        tokens = self._encoded_rows(X)
        told = self._condition_rows(condition)
        check_counts(len(tokens), conditions=1 if told is None else len(told.rows))
        device, made = self._run_device(), []
        self._network()
        for _, some, of in request_parts(len(tokens), tokens, told):
            here = of and Condition(*(one.to(device) for one in of))
            with torch.no_grad(), self._autocast(device):
                found = score(some.to(device), here)
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
