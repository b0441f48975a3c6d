"""Generation of all positions together, where most rows come from a cache (dKV-Cache).

Axes: ``batch`` (B), ``position`` (L), ``row`` (of a pass), ``token`` (V).

Everybody reads everybody, so that keys and values move as tokens are uncovered. They
jump when a token is decoded, and settle afterwards: a token that is decoded in a pass
is computed as itself in the next one, and read from the cache from then on. Card:
sequences §2.
"""

import torch
from torch import Tensor

from sciseq.generation.parts.drawing import Drawing
from sciseq.generation.parts.layout import NOISY, NOTHING, Layout
from sciseq.generation.parts.noise import uniform
from sciseq.generation.parts.requests import Requests, Rows
from sciseq.generation.parts.reveal import Reveal
from sciseq.generation.parts.whole_decoder import WholeDecoder

__all__ = ["VARIANTS", "DelayedDecoder"]

VARIANTS = ("decode", "greedy", "prefill", "prefill_decode")

# Passes at the start that compute everything: before them no token has settled.
_N_FIRST = 2
_ORDER = -3  # tells the noise of the fixed order from all other


class FixedOrder(Reveal):
    """Keep tokens in a random order that is fixed beforehand, whatever was drawn."""

    def next(self, is_hidden: Tensor, step: Tensor, seeds: Tensor) -> Tensor:
        """Tell which hidden tokens are next, bool of shape (batch, position)."""
        place = torch.arange(is_hidden.shape[1], device=is_hidden.device)
        order = uniform(seeds, _ORDER, place.unsqueeze(0)).where(is_hidden, torch.inf)
        n = self.amount(is_hidden.sum(dim=1), step).clamp_min(1)
        return _first(order, n, is_hidden)

    def __call__(
        self, logs: Tensor, tokens: Tensor, is_hidden: Tensor, step: Tensor,
        seeds: Tensor, position: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """Tell which tokens are kept, bool of shape (batch, position)."""
        return self.next(is_hidden, step, seeds)


class DelayedDecoder(WholeDecoder):
    r"""Compute what is hidden and what was decoded last; read the rest from a cache.

    A pass over the rows :math:`R_t` of all positions :math:`I` has

    .. math::

        R_t = M_{t-1} = M_t \cup D_{t-1} \quad \text{(decode)}, \qquad
        R_t = D_t \cup D_{t-1} \cup W_t \quad \text{(greedy)}

    with the hidden positions :math:`M_t`, those decoded in pass t :math:`D_t`, and the
    window :math:`W_t` of hidden positions next to :math:`D_{t-1}`. Keys and values of
    :math:`I \setminus R_t` are those that were computed last.

    Parameters
    ----------
    drawing : Drawing
        How tokens are drawn.
    reveal : Reveal
        Which of them are kept. The greedy variant takes only the amount from it: its
        order is random, and fixed beforehand.
    variant : {"decode", "greedy", "prefill", "prefill_decode"}, default="decode"
        What is cached. ``"prefill"``: conditions and given tokens, computed in the
        first pass and never again; generated tokens are always computed.
        ``"prefill_decode"``: the same, and decoded tokens as in ``"decode"``.
    refresh : int, default=8
        Passes 0, N, 2 N ... compute everything, and pass 1, as nothing has settled.
    window : int, default=4
        Hidden positions w that the greedy variant computes besides.
    n_layers : int, default=2
        Of the network.

    Attributes
    ----------
    is_exact : bool
        What is cached equals what would be computed with one layer, where keys and
        values depend on nothing but their own token and position; and with ``refresh``
        1, unless given tokens are frozen. Otherwise it is an approximation.

    References
    ----------
    dKV-Cache: the cache for diffusion language models, arXiv:2505.15781, 2025. Its code
    centres the window of the greedy variant on what is decoded next; here it lies
    around what was decoded last, which the paper finds better.
    """

    def __init__(
        self,
        drawing: Drawing,
        reveal: Reveal,
        *,
        variant: str = "decode",
        refresh: int = 8,
        window: int = 4,
        n_layers: int = 2,
    ) -> None:
        if variant == "greedy":
            reveal = FixedOrder(amount=reveal.amount)
        super().__init__(drawing, reveal)
        self.is_frozen = variant in ("prefill", "prefill_decode")
        # What is generated is always computed anew: as if each pass were a refresh.
        self.refresh = 1 if variant == "prefill" else refresh
        self.window = window
        self.is_exact = n_layers == 1 or (self.refresh == 1 and not self.is_frozen)

    def start(self, requests: Requests) -> None:
        """Nothing has been computed; what is given is known."""
        super().start(requests)
        requests.memory["is_given"] = requests.is_filled.clone()
        # Positions that were computed as the tokens they are.
        requests.memory["is_settled"] = torch.zeros_like(requests.is_filled)

    def is_full(self, requests: Requests) -> Tensor:
        """Tell for whom the next pass computes all that is not frozen, (batch,)."""
        number = requests.memory["n_steps"]
        return (number < _N_FIRST) | (number % self.refresh == 0)

    def computes_prefix(self, requests: Requests) -> Tensor:
        """Tell for whom the next pass computes conditions and begin, (batch,)."""
        if self.is_frozen:
            return requests.memory["n_steps"] == 0
        return self.is_full(requests)

    def rows(self, requests: Requests) -> Rows:
        """Compute the rows that the cache does not have as they are."""
        needed = self._needed(requests)
        # Needed positions first, in order; the rest is padding, at a place that is
        # computed anyway, so that it hides nothing that is stored.
        order = needed.to(torch.int8).argsort(dim=1, descending=True, stable=True)
        width = int(needed.sum(dim=1).max())
        order = order[:, :width]
        is_row = needed.gather(1, order)
        position = order.where(is_row, order[:, :1])
        layout = Layout.at(
            position, group=torch.zeros_like(position), copy=NOISY, is_row=is_row
        )
        return Rows(requests.tokens.gather(1, position), layout)

    def _needed(self, requests: Requests) -> Tensor:
        memory = requests.memory
        if isinstance(self.reveal, FixedOrder):
            last, is_hidden = (
                requests.is_filled & ~memory["is_settled"],
                ~requests.is_filled,
            )
            coming = self.reveal.next(is_hidden, memory["n_steps"], requests.seeds)
            needed = last | coming | self._near(last, is_hidden & ~coming)
        else:
            needed = ~memory["is_settled"]
        needed = needed | self.is_full(requests).unsqueeze(1)
        if self.is_frozen:
            is_later = memory["n_steps"].unsqueeze(1) > 0
            needed = needed & ~(memory["is_given"] & is_later)
        return needed

    def _near(self, last: Tensor, free: Tensor) -> Tensor:
        """Choose the free positions that are nearest to those decoded last."""
        place = torch.arange(last.shape[1], device=last.device).double()
        # The last decoded position before each place, and the next one from it on.
        before = place.where(last, -torch.inf).cummax(dim=1).values
        behind = place.where(last, torch.inf).flip(1).cummin(dim=1).values.flip(1)
        distance = torch.minimum(place - before, behind - place)
        distance = distance.clamp_max(last.shape[1])  # where nothing was decoded last
        distance = distance.where(free, torch.inf)
        return _first(distance, distance.new_full((len(last),), self.window), free)

    def commit(self, requests: Requests, rows: Rows, scores: Tensor) -> None:
        """Store the rows, and keep some of the drawn tokens."""
        is_row = rows.layout.segment != NOTHING
        position, length = rows.layout.position, requests.n_positions
        self._store(requests, is_row)
        memory, settled = requests.memory, torch.zeros_like(requests.is_filled)
        is_known = is_row & (rows.tokens != requests.mask)
        # Padding goes behind all positions.
        place = position.where(is_row, length)
        settled = torch.nn.functional.pad(settled, (0, 1)).scatter(1, place, is_known)
        memory["is_settled"] = memory["is_settled"] | settled[:, :length]
        everywhere = super().rows(requests)
        table = scores.new_zeros(len(scores), length + 1, scores.shape[2])
        table.scatter_(1, place.unsqueeze(2).expand_as(scores), scores)
        super().commit(requests, everywhere, table[:, :length])

    def _store(self, requests: Requests, is_row: Tensor) -> None:
        computes_prefix = self.computes_prefix(requests)
        if bool(computes_prefix.any()):
            before = computes_prefix.unsqueeze(1).expand(-1, requests.cache.n_prefix)
            is_row = torch.cat([before, is_row], dim=1)
        requests.cache.store(is_row)


def _first(values: Tensor, n: Tensor, which: Tensor) -> Tensor:
    """Choose the n lowest values of each row, where ``which``."""
    rank = values.argsort(dim=1, stable=True).argsort(dim=1)
    return (rank < n[:, None]) & which
