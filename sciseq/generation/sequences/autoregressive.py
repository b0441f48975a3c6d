r"""Autoregressive generation: each token given those before it.

Axes: ``batch`` (B), ``position`` (L), ``token`` (V).

The baseline of all others, and what several start from. A causal transformer reads the
begin and the tokens; the state at position i - 1 predicts token i. Card: sequences §3
(loss), §19.2.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sciseq.generation.candidates import WeighedCandidates
from sciseq.generation.method_card import MethodCard
from sciseq.generation.parts.backbone import TokenTransformer
from sciseq.generation.parts.batches import NoisyLoss, SequenceBatch
from sciseq.generation.parts.drawing import Drawing
from sciseq.generation.parts.layout import NOTHING, Layout
from sciseq.generation.parts.lockstep import generate_in_step
from sciseq.generation.parts.masks import causal
from sciseq.generation.parts.network import Condition, SequenceNetwork
from sciseq.generation.parts.next_token import (
    next_token_log_likelihood,
    next_token_scores,
)
from sciseq.generation.parts.requests import Decoder, Requests, Rows, Work, is_counted

__all__ = [
    "AutoregressiveDecoder",
    "AutoregressiveSequence",
    "NextTokenLoss",
    "next_token_log_likelihood",
    "next_token_scores",
]


class NextTokenLoss(NoisyLoss):
    r"""Cross-entropy of each token given those before it.

    .. math:: -\sum_i \log p(x_i \mid x_{<i})

    Parameters
    ----------
    seed : int
        Seed of the noise, of which there is none here.
    end : int or None
        Behind the first end nothing counts.
    """

    def __init__(self, seed: int, end: int | None) -> None:
        super().__init__(seed)
        self.end = end

    def shown(self, network: nn.Module, batch: SequenceBatch) -> Tensor:
        """Return the symbols that the network reads."""
        return batch.tokens

    def __call__(
        self, network: nn.Module, batch: SequenceBatch
    ) -> tuple[Tensor, Tensor]:
        """Return the sum of losses, and the number of tokens."""
        assert isinstance(network, SequenceNetwork)
        shown = self.shown(network, batch)
        scores = next_token_scores(network, shown, batch.condition)
        counted = is_counted(batch.tokens, self.end)
        wanted = batch.tokens.where(counted, -100)
        total = F.cross_entropy(scores.flatten(0, 1), wanted.flatten(), reduction="sum")
        return total, counted.sum()


class AutoregressiveDecoder(Decoder):
    """One token after the other, keys and values appended.

    Given tokens are read as they come.

    Parameters
    ----------
    drawing : Drawing
        How tokens are drawn.
    """

    def __init__(self, drawing: Drawing) -> None:
        self.drawing, self.rule = drawing, causal

    def start(self, requests: Requests) -> None:
        """Draw the first token, where it is not given."""
        requests.memory["at"] = torch.zeros_like(requests.seeds)
        self._draw(requests)

    def rows(self, requests: Requests) -> Rows:
        """Compute what is filled and not yet stored, as a rule one token."""
        at, gap = requests.memory["at"], requests.first_gap()
        width = int((gap - at).max())
        place = torch.arange(width, device=at.device)
        position = at[:, None] + place
        is_row = position < gap[:, None]
        last = requests.n_positions - 1
        tokens = requests.tokens.gather(1, position.clamp_max(last))
        return Rows(tokens, Layout.at(position, is_row=is_row))

    def commit(self, requests: Requests, rows: Rows, scores: Tensor) -> None:
        """Store the rows, and draw the token behind them."""
        is_row = rows.layout.segment != NOTHING
        requests.cache.store(None if bool(is_row.all()) else is_row)
        n_rows = is_row.sum(dim=1)
        requests.memory["at"] = requests.memory["at"] + n_rows
        every = torch.arange(len(scores), device=scores.device)
        requests.memory["next"] = scores[every, n_rows - 1]
        self._draw(requests)

    def _draw(self, requests: Requests) -> None:
        position = requests.memory["at"].unsqueeze(1)
        tokens = self.drawing(
            requests.memory["next"].unsqueeze(1),
            requests.seeds,
            position,
            requests.allowed_at(position),
        )
        requests.fill(position, tokens, torch.ones_like(tokens, dtype=torch.bool))


@dataclass(kw_only=True, eq=False, repr=False)
class AutoregressiveSequence(WeighedCandidates):
    r"""Generate sequences token by token, from left to right.

    .. math:: p(x) = \prod_i p(x_i \mid x_{<i}, c)

    Parameters
    ----------
    d_model : int, default=64
        Width of a token; a multiple of twice ``n_heads``.
    d_ff : int, default=256
        Width of the feed-forward networks.
    n_layers : int, default=2
        Layers of the transformer.
    n_heads : int, default=4
        Heads of the attention.
    dropout : float, default=0.1
        Probability of every dropout.
    max_length : int, optional
        Longest sequence; by default the longest of the training data. When all are of
        one length, sequences are of this length; else they end with an end token.
    n_candidates : int, default=16
        Sequences drawn for each one that :meth:`infill` returns.
    learning_rate : float, default=1e-3
        Largest rate of AdamW.
    learning_rate_schedule : {"cosine", "constant", "halving"}, default="cosine"
        How the rate falls after its rise over the first twentieth of the steps.
    weight_decay : float, default=0.01
        Decoupled weight decay.
    batch_size : int, default=64
        Sequences in a step.
    max_epochs : int, default=30
        Passes over the data.
    patience : int, optional
        Stop after so many epochs in a row without a better validation loss.
    validation_fraction : float, default=0.1
        Part of the different sequences that the best epoch is chosen by.
    random_state : int, optional
        Seed of everything.
    device : str, default="auto"
        ``"cpu"``, ``"cuda"``, or what pays; ``"mps"`` lacks the float64 of the noise.
    precision : {"float32", "bfloat16", "float64"}, default="float32"
        Of the computation.
    verbose : int, default=0
        1 shows the progress.
    checkpoint_dir : path-like, optional
        Folder for checkpoints; a run found there is continued.
    memory_limit : str or int, optional
        Memory that training may take, as ``"2 GB"``.
    n_devices, n_nodes : int, default=1
        Devices of each node, and nodes, that train together.

    Attributes
    ----------
    alphabet_ : Alphabet
        Tokens and lengths.
    network_ : nn.Module
        The network.
    history_ : list of dict
        Losses and rates of the epochs.
    last_work : Work
        What the last call of :meth:`sample` took.

    Notes
    -----
    :meth:`score_samples` is exact. :meth:`infill` weighs candidates, which were drawn
    from left to right with given tokens forced, by the probability of the given tokens,
    and draws one (importance resampling): exact for many candidates. It needs no
    candidates where all gaps are at the end.

    Card: sequences §19.2.

    Examples
    --------
    >>> model = AutoregressiveSequence(max_epochs=2, random_state=0, device="cpu")
    >>> model = model.fit(["ACGT", "ACGG"] * 20)
    >>> len(model.sample(3, random_state=0))
    3
    """

    method_card: ClassVar[MethodCard] = MethodCard(
        idea="One token after the other, each drawn given those before it. The "
        "baseline of all others, and what several of them start from.",
        order="From left to right, one token in a pass.",
        mask="A token reads itself and those before it (causal).",
        corruption="Nothing.",
        objective="Cross-entropy of the next token, at every position (shifted).",
        decoder="Draws the token behind the last one.",
        cache="exact",
        score="exact",
        good_for="The first network to try: exact likelihoods, ends of any length, "
        "and the lowest processor time for a sample in our benchmark.",
        not_for="Gaps in the middle (candidates have to be weighed), and models that "
        "must look at both sides of a token. Compare with a Markov chain first: on E. "
        "coli promoters it was not better.",
    )

    def _loss(self, seed: int) -> NoisyLoss:
        return NextTokenLoss(seed, self.alphabet_.end)

    def _decoder(self, drawing: Drawing) -> Decoder:
        return AutoregressiveDecoder(drawing)

    def _run_requests(
        self, network: SequenceNetwork, drawing: Drawing, requests: Requests
    ) -> tuple[Tensor, Work]:
        if not isinstance(network.backbone, TokenTransformer):
            return super()._run_requests(network, drawing, requests)
        return generate_in_step(network, drawing, requests)

    def _log_likelihood(
        self, tokens: Tensor, condition: Condition | None, seed: int
    ) -> tuple[Tensor, Tensor]:
        end = self.alphabet_.end
        return next_token_log_likelihood(self._network(), tokens, condition, end)
