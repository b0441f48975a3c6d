r"""BERT4Rec: recommend the next event with a bidirectional transformer.

Axes: ``batch`` (B), ``position`` (L, at most N), ``item`` (V), ``d_model`` (D).

Events are hidden and told from those on both sides; the next event is a hidden one
behind all others. Card: sequences §11.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sciseq.generation.context_counts import FloatArray, IntArray
from sciseq.generation.method_card import MethodCard
from sciseq.generation.parts.backbone import TokenTransformer
from sciseq.generation.parts.batches import NoisyLoss, SequenceBatch
from sciseq.generation.parts.cloze_rows import (
    ClozeBatches,
    cloze_mask,
    history_windows,
)
from sciseq.generation.parts.competitors import Competitors
from sciseq.generation.parts.layout import Layout
from sciseq.generation.parts.masks import Rule, full
from sciseq.generation.recommendation import BaseRecommender
from sciseq.parameters import AnyOf, Boolean, Integer, Nothing, Real
from sciseq.parameters import Rule as ParameterRule
from sciseq.torch_base import TRAINING_RULES, TorchEstimator, data_fingerprint
from sciseq.training import Batches, TrainingOptions, resolve_seed

__all__ = [
    "ClozeLoss",
    "ClozeNetwork",
    "ClozeRecommender",
]

_WARM_UP = 0.05  # share of the steps over which the rate rises
_GRADIENT_CLIP = 1.0
_TOGETHER = 256  # histories that are scored together


class ClozeNetwork(TokenTransformer):
    r"""A bidirectional transformer whose output shares the embeddings of the items.

    .. math:: scores_i = \mathrm{GELU}(h_i W + b) E^\top + b_{out}

    Parameters
    ----------
    n_tokens : int
        Items V. Symbol V is the padding, V + 1 the mask.
    n_positions, d_model, d_ff, n_layers, n_heads, dropout
        As in :class:`~sciseq.generation.parts.backbone.TokenTransformer`.
    """

    def __init__(
        self,
        n_tokens: int,
        n_positions: int,
        d_model: int,
        d_ff: int,
        n_layers: int,
        n_heads: int,
        dropout: float,
    ) -> None:
        super().__init__(
            n_tokens, n_positions, d_model, d_ff, n_layers, n_heads, dropout
        )
        self.head = nn.Linear(d_model, d_model)
        self.item_bias = nn.Parameter(torch.empty(n_tokens))

    @property
    def rule(self) -> Rule:
        """Who reads whom: all events read all."""
        return full

    @property
    def padding(self) -> int:
        """Symbol before the first event."""
        return self.begin

    def initialize_parameters(self, generator: torch.Generator) -> None:
        """Draw the embeddings; the bias of the items starts at 0.

        Parameters
        ----------
        generator : torch.Generator
            Source of all numbers.
        """
        super().initialize_parameters(generator)
        nn.init.zeros_(self.item_bias)

    def states(self, tokens: Tensor) -> Tensor:
        """Return the states (batch, position, d_model) of left-padded symbols.

        Parameters
        ----------
        tokens : Tensor of int64, shape (batch, position)
            Items, masks and padding; no event reads the padding.
        """
        position = torch.arange(tokens.shape[1], device=tokens.device)
        layout = Layout.at(position.expand_as(tokens), is_row=tokens != self.padding)
        states: Tensor = self(self.embed(tokens, layout), layout, self.rule)
        return states

    def asked(self, tokens: Tensor) -> Tensor:
        """Return the state (batch, d_model) of the mask behind the last events.

        Parameters
        ----------
        tokens : Tensor of int64, shape (batch, position)
            Left-padded rows that end with a mask.
        """
        return self.states(tokens)[:, -1]

    def scores(self, states: Tensor) -> Tensor:
        """Return the scores of all items (..., item)."""
        return F.linear(
            self.queries(states), self.symbols[: self.n_tokens], self.item_bias
        )

    def queries(self, states: Tensor) -> Tensor:
        """Return what the embeddings of items are compared with (..., d_model)."""
        return F.gelu(self.head(states))


class ClozeLoss(NoisyLoss):
    r"""Cross-entropy of the hidden events over all items.

    .. math:: \frac{1}{|S|} \sum_{i \in S} -\log \mathrm{softmax}(scores_i)[x_i]

    Parameters
    ----------
    seed : int
        Seed of the masks, which are others at each step.
    rate : float
        Share of the events that is hidden.
    max_predictions : int or None
        Largest number of them.
    first_last : int
        Rows from this number on hide the last event alone.
    competitors : Competitors, optional
        Items that stand for all others; None compares with all.
    """

    def __init__(
        self,
        seed: int,
        rate: float,
        max_predictions: int | None,
        first_last: int,
        competitors: Competitors | None = None,
    ) -> None:
        super().__init__(seed)
        self.rate, self.max_predictions = rate, max_predictions
        self.first_last = first_last
        self.competitors = competitors

    def mask(self, network: nn.Module, batch: SequenceBatch) -> Tensor:
        """Return which events are hidden (batch, position)."""
        assert isinstance(network, ClozeNetwork)
        tokens = batch.tokens
        u = self.noise(network, batch, 0, tokens.shape[1])
        is_event = tokens != network.padding
        mask = cloze_mask(is_event, u, self.rate, self.max_predictions)
        last = torch.zeros_like(mask)
        last[:, -1] = True  # rows are padded on the left
        return torch.where((batch.number >= self.first_last).unsqueeze(1), last, mask)

    def __call__(
        self, network: nn.Module, batch: SequenceBatch
    ) -> tuple[Tensor, Tensor]:
        """Return the sum of losses, and the number of hidden events."""
        assert isinstance(network, ClozeNetwork)
        mask = self.mask(network, batch)
        states = network.states(batch.tokens.masked_fill(mask, network.mask))
        # Scores of items are dear: only where something is hidden.
        return self.compared(network, states[mask], batch.tokens[mask])

    def compared(
        self, network: ClozeNetwork, hidden: Tensor, targets: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the sum of losses of states (event, d_model), and their number."""
        if self.competitors is None:
            scores, wanted = network.scores(hidden), targets
        else:
            scores = self._sampled_scores(network, hidden, targets, self.competitors)
            wanted = torch.zeros_like(targets)
        total = F.cross_entropy(scores, wanted, reduction="sum")
        return total, torch.full((), len(targets), device=total.device)

    def _sampled_scores(
        self,
        network: ClozeNetwork,
        hidden: Tensor,
        targets: Tensor,
        competitors: Competitors,
    ) -> Tensor:
        """Scores (event, 1 + draw): of the target, and of what was drawn, weighted."""
        items = competitors.draw(self.seed, self._step)
        corrections = competitors.corrections(items).to(hidden)
        items = items.to(hidden.device)
        # One gather of both: its gradient is as large as all embeddings.
        both, sizes = torch.cat([targets, items]), [len(targets), len(items)]
        target_rows, item_rows = torch.split(network.symbols[both], sizes)
        target_bias, item_bias = torch.split(network.item_bias[both], sizes)
        queries = network.queries(hidden)
        own = (queries * target_rows).sum(1) + target_bias
        others = F.linear(queries, item_rows, item_bias - corrections)
        is_own = items == targets.unsqueeze(1)
        return torch.cat([own.unsqueeze(1), others.masked_fill(is_own, -torch.inf)], 1)


@dataclass(kw_only=True, eq=False, repr=False)
class ClozeRecommender(TorchEstimator, BaseRecommender):
    r"""Recommend the next item from the last events, read in both directions.

    Parameters
    ----------
    max_length : int, default=50
        Events N that are read, with the one to tell. Of longer histories training
        reads windows, and recommending the last N - 1 events.
    mask_rate : float, default=0.2
        Share of the events of a row that training hides.
    max_predictions : int, optional
        Largest number of them.
    last_item_rows : bool, default=True
        Also train on rows that hide the last event alone, as recommending does.
    n_duplicates : int, default=10
        How often an epoch shows each window, with other masks.
    n_competitors : int, optional
        Items that training compares the hidden ones with, drawn anew at each step; by
        default all. With many thousands of items, all of them are most of the time.
    window_step : float, default=0.5
        Step between windows of a long history, as a share of N.
    d_model, d_ff, n_layers, n_heads, dropout
        Sizes of the transformer, and probability of its dropout.
    learning_rate : float, default=1e-3
        It rises over the first 5 % of the steps and then falls linearly to 0.
    weight_decay, batch_size, max_epochs
        Training.
    random_state : int, optional
        Seed of weights, masks and dropout.
    device, precision, verbose, checkpoint_dir, memory_limit, n_devices, n_nodes
        As in the other estimators with a network.

    Attributes
    ----------
    vocabulary_ : ndarray of shape (V,)
        Items.
    network_ : ClozeNetwork
        The trained network.
    history_ : list
        Losses of the epochs.

    Notes
    -----
    Layers normalise before each part, and queries are rotated by position besides the
    learned positions, as in all sequence models here; the paper normalises behind each
    part. The order of methods can turn with sampled negatives: look at the full rank
    as well.

    Card: sequences §11.

    References
    ----------
    Sun et al., BERT4Rec: sequential recommendation with bidirectional encoder
    representations from transformer, CIKM 2019.

    Examples
    --------
    >>> model = ClozeRecommender(
    ...     max_length=4, d_model=8, d_ff=8, n_layers=1, n_heads=2, max_epochs=1,
    ...     random_state=0, device="cpu",
    ... )
    >>> model = model.fit([["tea", "milk", "cake"], ["tea", "milk"]])
    >>> model.score_items([["tea"], []]).shape
    (2, 3)
    """

    method_card: ClassVar[MethodCard] = MethodCard(
        idea="The next event of a history is a hidden one behind all others, told by "
        "a transformer that reads both directions.",
        order="No order: one hidden event behind the history.",
        mask="Every event of a history reads every other.",
        corruption="A fixed share of the events; in some rows the last one alone.",
        objective="Cross-entropy of hidden events over all items.",
        decoder="Ranks all items for the last place.",
        cache="none",
        score="none",
        good_for="What comes next in histories of events, from many users and some "
        "thousand items. On MovieLens-small it ranked new items better than counts of "
        "transitions did, and all items no better.",
        not_for="Sparse purchases: on Amazon Beauty counts of transitions were better. "
        "Writing whole sequences, or items that fit has not seen. Look at "
        "ranks among all items: sampled negatives can turn the order of methods.",
        picture=None,
    )

    max_length: int = 50
    mask_rate: float = 0.2
    max_predictions: int | None = None
    last_item_rows: bool = True
    n_duplicates: int = 10
    n_competitors: int | None = None
    window_step: float = 0.5
    d_model: int = 64
    d_ff: int = 256
    n_layers: int = 2
    n_heads: int = 2
    dropout: float = 0.2
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    batch_size: int = 256
    max_epochs: int = 20
    random_state: Any = None
    device: Any = "auto"
    precision: str = "float32"
    verbose: int = 0
    checkpoint_dir: str | os.PathLike[str] | None = None
    memory_limit: str | int | None = None
    n_devices: int = 1
    n_nodes: int = 1

    _needs_float64: ClassVar[bool] = True  # noise, and the rotation by positions
    _network_type: ClassVar[type[ClozeNetwork]] = ClozeNetwork
    _loss_type: ClassVar[type[ClozeLoss]] = ClozeLoss
    # All histories train; the schedule is that of the class.
    learning_rate_schedule = "constant"
    patience = None

    _parameter_rules: ClassVar[dict[str, ParameterRule]] = {
        **{
            name: rule
            for name, rule in TRAINING_RULES.items()
            if name not in ("compile", "learning_rate_schedule", "patience")
        },
        "max_length": Integer(2),
        "mask_rate": Real(0.0, 1.0, open_low=True),
        "max_predictions": AnyOf(Nothing(), Integer(1)),
        "last_item_rows": Boolean(),
        "n_duplicates": Integer(1),
        "n_competitors": AnyOf(Nothing(), Integer(1)),
        "window_step": Real(0.0, 1.0, open_low=True),
        "d_model": Integer(2),
        "d_ff": Integer(1),
        "n_layers": Integer(1),
        "n_heads": Integer(1),
    }

    def _fit(self, histories: Sequence[IntArray], n_items: int) -> None:
        self.n_items_ = n_items
        length = int(self.max_length)
        step = max(1, round(float(self.window_step) * length))
        windows = history_windows(histories, length, step, padding=n_items)
        n_masked, has_last = int(self.n_duplicates), bool(self.last_item_rows)

        def make_batches(device: torch.device) -> tuple[Batches, Batches | None]:
            return ClozeBatches(windows, n_masked + has_last, device), None

        limit, n_draws = self.max_predictions, self.n_competitors
        counts = torch.from_numpy(
            np.bincount(np.concatenate(histories), minlength=n_items)
        )
        loss = self._loss_type(
            resolve_seed(self.random_state),
            float(self.mask_rate),
            None if limit is None else int(limit),
            first_last=n_masked * len(windows),
            competitors=None if n_draws is None else Competitors(counts, int(n_draws)),
        )
        self._on_step = loss.on_step
        try:
            self._train(
                loss,
                make_batches,
                tokens_per_item=length,
                # What a step does depends on how many there are.
                fingerprint=f"{data_fingerprint([windows.numpy()])} {self.max_epochs}"
                if self.checkpoint_dir
                else "",
            )
        finally:
            del self._on_step

    def _make_network(self) -> nn.Module:
        return self._network_type(
            int(self.n_items_),
            int(self.max_length),
            int(self.d_model),
            int(self.d_ff),
            int(self.n_layers),
            int(self.n_heads),
            float(self.dropout),
        )

    def _training_options(self, *args: Any, **kwargs: Any) -> TrainingOptions:
        def factor(progress: float) -> float:
            rise = max(progress / _WARM_UP, 0.01)
            return min(rise, (1 - progress) / (1 - _WARM_UP))

        return replace(
            super()._training_options(*args, **kwargs),
            step_schedule=factor,
            on_step=self._on_step,
            gradient_clip=_GRADIENT_CLIP,
        )

    def _score(self, histories: Sequence[IntArray]) -> FloatArray:
        network, device = self.network_.eval(), self._run_device()
        assert isinstance(network, ClozeNetwork)
        rows = self._asked(histories, network)
        made = [np.empty((0, int(self.n_items_)))]
        with torch.no_grad(), self._autocast(device):
            for first in range(0, len(rows), _TOGETHER):
                part = rows[first : first + _TOGETHER]
                states = network.asked(part.to(device))
                made.append(network.scores(states).double().cpu().numpy())
        return np.concatenate(made)

    def _asked(self, histories: Sequence[IntArray], network: ClozeNetwork) -> Tensor:
        """Rows (n, N) that ask for the next event: a mask behind the last ones."""
        before = int(self.max_length) - 1
        rows = torch.full((len(histories), before + 1), network.padding)
        rows[:, -1] = network.mask
        for row, history in zip(rows, histories, strict=True):
            events = np.asarray(history[-before:], dtype=np.int64)
            row[before - len(events) : before] = torch.from_numpy(events)
        return rows
