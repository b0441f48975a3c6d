r"""Generation by a state-space model that reads a prefix in both directions (Birdie).

Axes: ``batch`` (B), ``position`` (L), ``token`` (V), ``configuration`` (k of K).

A gated linear recurrence instead of a transformer, and training that demands recall: a
mixture of objectives, steered by how fast their losses fall. Card: sequences §10.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from sciseq.errors import CapabilityError, InputError
from sciseq.generation.base import SequenceGenerator
from sciseq.generation.method_card import MethodCard
from sciseq.generation.parts.batches import NoisyLoss, SequenceBatch
from sciseq.generation.parts.drawing import Drawing, log_probabilities
from sciseq.generation.parts.gated_recurrence import KINDS
from sciseq.generation.parts.label_generation import generate_labels
from sciseq.generation.parts.mixture_loss import MixtureLoss
from sciseq.generation.parts.network import Condition, SequenceNetwork
from sciseq.generation.parts.objective_mixture import (
    BanditMixture,
    MixtureController,
    evaluation_steps,
    uniform_mixture,
)
from sciseq.generation.parts.prefix_network import PrefixNetwork, PrefixRecurrence
from sciseq.generation.parts.recall_objectives import default_configurations
from sciseq.generation.parts.requests import Decoder, Requests, Work, is_counted
from sciseq.generation.parts.reward_model import RewardModelMixture
from sciseq.generation.sequences.autoregressive import AutoregressiveSequence
from sciseq.parameters import AnyOf, Boolean, Integer, Nothing, Option
from sciseq.parameters import Rule as ParameterRule

__all__ = ["PrefixStateSpace"]

_N_HELD = 32  # sequences that the loss of every configuration is evaluated on
_STEERED = ("bandit", "reward_model")


@dataclass(kw_only=True, eq=False, repr=False)
class PrefixStateSpace(AutoregressiveSequence):
    r"""Generate sequences from the state of a recurrence, after training that recalls.

    .. math::

        h_t = f_t \odot h_{t-1} + i_t \odot z_t, \qquad
        p(x) = \prod_i p(x_i \mid x_{<i}, c)

    Half of the layers also read the *prefix* from right to left: conditions, and what
    is given of a sequence. Training asks for next tokens, or draws each time one of
    several objectives: prefix language modelling, infilling, autoencoding, copying,
    deshuffling, and selective copying of spans named by what stands around them, see
    :mod:`~sciseq.generation.parts.recall_objectives`.

    Parameters
    ----------
    prefix_bidirectional : bool, default=True
        Let every second layer run half of its state right to left, inside the prefix.
        Otherwise all layers run left to right with their whole state.
    objectives : str, default="uniform"
        ``"next_token"``: plain autoregression. ``"uniform"``: all objectives, each of
        their settings as often as any other. ``"bandit"``: those whose losses fall more
        often. ``"reward_model"``: as a learned model of these rewards says, the
        controller of the paper, which starts after 250 steps.
    recurrence : {"gated_ssm", "rg_lru"}, default="gated_ssm"
        The gated state-space model above, or the unit of Hawk.
    d_model : int, default=64
        Width of a token.
    d_state : int, optional
        Width of the states, ``d_model`` by default; even when ``prefix_bidirectional``.
    n_heads : int, default=4
        Not used: there is no attention.
    n_candidates : int, default=16
        As in :class:`AutoregressiveSequence`, with ``objectives="next_token"`` only.
    **others
        As in :class:`AutoregressiveSequence`.

    Attributes
    ----------
    mixture_history_ : list of dict
        Step, loss of every configuration and the probabilities chosen by them, of each
        evaluation (``"bandit"`` and ``"reward_model"``).

    Notes
    -----
    A template whose gaps are all at its end is a prefix, read in both directions; one
    with other gaps is read whole, as infilling is trained, and the gaps are written one
    after the other. So are those of :meth:`infill`: everything given is read, and
    nothing is weighed. With ``objectives="next_token"`` what is given is read from left
    to right, and :meth:`infill` weighs candidates as in
    :class:`AutoregressiveSequence`.

    :meth:`score_samples` is exact for the law of :meth:`sample` without template; with
    ``prefix_length`` it is that of what follows a given prefix. Laws of prefixes of
    other lengths are trained, but not bound, to agree with each other.

    Validation asks for next tokens, or draws from the uniform mixture. Each pass of
    generation costs the same, however much came before. A state counts as one row read
    in ``last_work``.

    Rows of a condition are read in the order in which they are given.

    Card: sequences §10 (Birdie, arXiv:2411.01030). The objectives are scaled down to
    sequences of about 128 tokens. The bandit is our own.

    Examples
    --------
    >>> model = PrefixStateSpace(max_epochs=2, random_state=0, device="cpu")
    >>> model = model.fit(["ACGTACGT", "ACGGACGG"] * 20)
    >>> model.sample(2, template="ACGTAC??", random_state=0)[0][:6]
    'ACGTAC'
    """

    prefix_bidirectional: bool = True
    objectives: str = "uniform"
    recurrence: str = "gated_ssm"
    d_state: int | None = None

    _parameter_rules: ClassVar[dict[str, ParameterRule]] = {
        **AutoregressiveSequence._parameter_rules,
        "prefix_bidirectional": Boolean(),
        "objectives": Option("next_token", "uniform", *_STEERED),
        "recurrence": Option(*KINDS),
        "d_state": AnyOf(Nothing(), Integer(1)),
    }

    method_card: ClassVar[MethodCard] = MethodCard(
        idea="A gated recurrence keeps a state of fixed size; half of the layers also "
        "read the prefix backwards. Training draws tasks that demand recall.",
        order="From left to right, one token in a pass.",
        mask="The state of what came before; inside the prefix everything.",
        corruption="By objective, drawn anew for each sequence: spans, order, copies, "
        "or nothing.",
        objective="Cross-entropy of the labels of each objective; their shares are "
        "fixed, or steered by how fast their losses fall.",
        decoder="Draws the token behind the last one.",
        cache="exact",
        score="exact",
        good_for="Long sequences on a small budget of memory: a step costs the same "
        "wherever it is. Gaps, when it was trained on a mixture.",
        not_for="Looking up one thing among many: of lists of 4 pairs small models "
        "answered 29 to 32 % right whatever their objectives and directions, a "
        "transformer 61 %.",
        picture=None,
    )

    def _parameter_relations(self) -> list[str]:
        problems = super()._parameter_relations()
        width = self.d_model if self.d_state is None else self.d_state
        if self.prefix_bidirectional and Integer(1).allows(width) and width % 2:
            problems.append(
                f"the states are {width} wide; halves that run in both directions need "
                "an even d_state (d_model by default)"
            )
        return problems

    @property
    def _is_mixed(self) -> bool:
        return self.objectives != "next_token"

    # ------------------------------------------------------------------ fitting

    def _fit_parts(self, parts: list[tuple[Tensor, Condition | None]]) -> None:
        n_steps = -(-len(parts[0][0]) // int(self.batch_size)) * int(self.max_epochs)
        # The network remembers so many evaluations.
        is_steered = self.objectives in _STEERED
        self.n_evaluations_ = len(evaluation_steps(n_steps)) if is_steered else 0
        self._held, self._n_steps = _first(parts[-1], _N_HELD), n_steps
        self.mixture_history_: list[dict[str, Any]] = []
        self._mixture_loss: MixtureLoss | None = None
        try:
            super()._fit_parts(parts)
            if self._mixture_loss is not None:
                # A run that was complete in its checkpoint has computed no loss.
                self._mixture_loss.inform(cast(PrefixNetwork, self.network_))
                self.mixture_history_ = self._mixture_loss.history
        finally:
            del self._held, self._n_steps, self._mixture_loss

    def _make_network(self) -> nn.Module:
        coding = self.condition_coding_
        return PrefixNetwork(
            self._make_backbone(),
            int(self.d_model),
            0 if coding is None else coding.n_features,
            (self.n_evaluations_, len(default_configurations())),
        )

    def _make_backbone(self) -> PrefixRecurrence:
        return PrefixRecurrence(
            self.alphabet_.n_tokens,
            int(self.d_model),
            int(self.d_ff),
            int(self.n_layers),
            float(self.dropout),
            d_state=None if self.d_state is None else int(self.d_state),
            kind=self.recurrence,
            prefix_bidirectional=bool(self.prefix_bidirectional),
        )

    def _loss(self, seed: int) -> NoisyLoss:
        if not self._is_mixed:
            return super()._loss(seed)
        configurations = default_configurations()
        self._mixture_loss = MixtureLoss(
            seed,
            self.alphabet_.end,
            configurations,
            self._controller([one.objective for one in configurations], seed),
            self._held if self.n_evaluations_ else None,
            self._n_steps,
        )
        return self._mixture_loss

    def _controller(self, classes: list[str], seed: int) -> MixtureController:
        if self.objectives == "bandit":
            return BanditMixture(len(classes))
        if self.objectives == "reward_model":
            return RewardModelMixture(classes, np.random.default_rng([seed, 1]))
        return uniform_mixture(len(classes))

    # ----------------------------------------------------------------- sampling

    def _decoder(self, drawing: Drawing) -> Decoder:
        raise CapabilityError(
            "a recurrence keeps states, which a decoder of rows cannot store",
            where="PrefixStateSpace",
            hint="Call sample; ContinuousBatcher needs AutoregressiveSequence.",
        )

    def _run_requests(
        self, network: SequenceNetwork, drawing: Drawing, requests: Requests
    ) -> tuple[Tensor, Work]:
        made = cast(PrefixNetwork, network)
        return generate_labels(made, drawing, requests, by_objectives=self._is_mixed)

    def _infill_some(
        self,
        rows: Tensor,
        condition: Condition | None,
        legal: Tensor | None,
        drawing: Drawing,
        seed: int,
        numbers: Tensor,
    ) -> Tensor:
        # Where everything given is read first, there is nothing to weigh.
        method = SequenceGenerator if self._is_mixed else AutoregressiveSequence
        return method._infill_some(self, rows, condition, legal, drawing, seed, numbers)

    # ------------------------------------------------------------------- scores

    def score_samples(
        self,
        X: Any,
        condition: Any = None,
        *,
        prefix_length: int = 0,
        return_std: bool = False,
        random_state: int = 0,
    ) -> Any:
        r"""Return the exact log-likelihood of each sequence, given its beginning.

        .. math:: \sum_{i \ge P} \log p(x_i \mid x_{<i}, c)

        Parameters
        ----------
        X : sequences
            As in fit.
        condition : array-like, optional
            One condition for each sequence, or one for all, as in fit.
        prefix_length : int, default=0
            Tokens P of each sequence that are given, and read as a template's beginning
            is. Without any it is the likelihood of the whole sequence.
        return_std : bool, default=False
            Also return standard errors, which are 0.
        random_state : int, default=0
            Not used.

        Returns
        -------
        ndarray of shape (n,), or two of them

        Raises
        ------
        InputError
            When a sequence is shorter than the prefix.
        """
        del random_state
        self._check_is_fitted()
        if not Integer(0).allows(prefix_length):
            raise InputError(
                f"prefix_length is {prefix_length!r}, must be an integer of at least 0",
                where="score_samples",
            )
        values, errors = self._score_parts(
            X,
            condition,
            lambda tokens, told: self._log_likelihood_behind(
                int(prefix_length), tokens, told
            ),
        )
        return (values, errors) if return_std else values

    def _log_likelihood(
        self, tokens: Tensor, condition: Condition | None, seed: int
    ) -> tuple[Tensor, Tensor]:
        return self._log_likelihood_behind(0, tokens, condition)

    def _log_likelihood_behind(
        self, n_given: int, tokens: Tensor, condition: Condition | None
    ) -> tuple[Tensor, Tensor]:
        """Return log-likelihoods of what follows given tokens, and errors of 0."""
        end = self.alphabet_.end
        is_label = is_counted(tokens, end)
        is_token = is_label if end is None else is_label & (tokens != end)
        least = int(is_token.sum(dim=1).min())
        if n_given > least:
            raise InputError(
                f"a sequence has {least} tokens, prefix_length is {n_given}",
                where="X",
                hint="Score sequences that are longer than the prefix.",
            )
        network = cast(PrefixNetwork, self._network())
        words = network.recurrent.vocabulary
        n_inputs = n_given if self._is_mixed else 0
        paradigm = words.paradigm("prefix_lm" if n_inputs else "next_token")
        mark = torch.full_like(tokens[:, :1], paradigm)
        rows = torch.cat(
            [mark, tokens[:, :n_inputs], torch.full_like(mark, words.begin),
             tokens[:, n_inputs:-1]],
            dim=1,
        )  # fmt: skip
        in_prefix = torch.arange(rows.shape[1], device=rows.device) <= n_inputs
        states = network.label_states(rows, in_prefix.unsqueeze(0), condition)
        scores = network.scores(states[:, n_inputs + 1 :])
        logs = log_probabilities(scores, tokens[:, n_inputs:])
        is_label[:, :n_given] = False
        found = logs.where(is_label[:, n_inputs:], 0.0).sum(dim=1)
        return found, torch.zeros_like(found)


def _first(part: tuple[Tensor, Condition | None], n: int) -> SequenceBatch:
    """Return the first sequences of a part."""
    tokens, condition = part[0][:n], part[1]
    number: npt.NDArray[np.int64] = np.arange(len(tokens))
    told = condition and condition.take(torch.from_numpy(number))
    return SequenceBatch(tokens, torch.from_numpy(number), told)
