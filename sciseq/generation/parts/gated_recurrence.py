"""Gated linear recurrences that read a prefix in both directions.

Axes: ``row``, ``token`` (t), ``d_model`` (D), ``d_state`` (n). The layout of a row is
that of :mod:`sciseq.generation.parts.linear_recurrence`.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sciseq.errors import InputError, nearest_name
from sciseq.generation.parts.linear_recurrence import StateCarry, linear_recurrence
from sciseq.nn.dropout import Dropout
from sciseq.nn.feed_forward import FeedForward

__all__ = ["GatedRecurrence", "GatedRecurrenceMixer", "RecurrentState"]

_C = 8.0  # the constant c of the RG-LRU
_DECAY_RANGE = (0.9, 0.999)  # of the first decays


@dataclass(frozen=True)
class RecurrentState:
    """What generation remembers of the tokens so far.

    Attributes
    ----------
    layers : tuple of Tensor, each of shape (row, d_state of the layer)
        Left-to-right states. The right-to-left ones have no memory in the causal area.
    """

    layers: tuple[Tensor, ...]

    def select(self, rows: Tensor) -> "RecurrentState":
        """Return the state of these rows (kept,), which may repeat, in this order."""
        return RecurrentState(tuple(h.index_select(0, rows) for h in self.layers))


class _Terms(NamedTuple):
    log_decay: Tensor  # log a
    update: Tensor  # what enters the state
    gate: Tensor  # o, of the output


class _GatedSSM(nn.Module):
    """Decay, input and output gate of the gated state-space model."""

    def __init__(self, d_model: int, d_state: int) -> None:
        super().__init__()
        self.projection = nn.Linear(d_model, 4 * d_state)  # W_i, W_z, W_o and W_f

    def initialize_parameters(self, generator: torch.Generator) -> None:
        bias = self.projection.bias.chunk(4)[3]
        _draw_decay_logits(bias, generator, power=1.0)

    def forward(self, x: Tensor) -> _Terms:
        i, z, o, f = self.projection(x).chunk(4, dim=-1)
        return _Terms(F.logsigmoid(f), i.sigmoid() * z, F.gelu(o))

    def drive(self, update: Tensor, log_decay: Tensor) -> Tensor:
        return update


class _RGLRU(nn.Module):
    """Decay, input and output gate of the real-gated linear recurrent unit."""

    no_weight_decay = ("Lambda",)

    def __init__(self, d_model: int, d_state: int) -> None:
        super().__init__()
        self.projection = nn.Linear(d_model, 2 * d_state)  # x of the unit, and W_o
        self.gates = nn.Linear(d_state, 2 * d_state)  # W_i and W_r
        self.Lambda = nn.Parameter(torch.empty(d_state))

    def initialize_parameters(self, generator: torch.Generator) -> None:
        _draw_decay_logits(self.Lambda, generator, power=_C)

    def forward(self, x: Tensor) -> _Terms:
        x, o = self.projection(x).chunk(2, dim=-1)
        i, r = self.gates(x).chunk(2, dim=-1)
        log_decay = _C * r.sigmoid() * F.logsigmoid(self.Lambda)
        return _Terms(log_decay, i.sigmoid() * x, F.gelu(o))

    def drive(self, update: Tensor, log_decay: Tensor) -> Tensor:
        # The root of exactly 0 has no finite gradient.
        squared = -torch.expm1(2 * log_decay).clamp_max(-1e-12)
        return squared.sqrt() * update


@torch.no_grad()
def _draw_decay_logits(
    logits: Tensor, generator: torch.Generator, power: float
) -> None:
    # sigmoid(logits) ** power is uniform in _DECAY_RANGE.
    nn.init.uniform_(logits, *_DECAY_RANGE, generator=generator)
    logits.copy_(torch.logit(logits ** (1 / power)))


KINDS: dict[str, type[_GatedSSM] | type[_RGLRU]] = {
    "gated_ssm": _GatedSSM,
    "rg_lru": _RGLRU,
}


class GatedRecurrenceMixer(nn.Module):
    r"""Tokens read others through the state of a gated linear recurrence.

    Gated state-space model:

    .. math::

        i &= \sigma(W_i x), \quad z = W_z x, \quad o = \mathrm{GELU}(W_o x), \quad
        f = \sigma(W_f x) \\
        h_t &= f_t \odot h_{t-1} + i_t \odot z_t, \qquad y = W_{out}(o \odot h)

    Real-gated linear recurrent unit, on :math:`x' = W_x x` and with the same output:

    .. math::

        a = \sigma(\Lambda)^{c r}, \quad r = \sigma(W_r x'), \quad
        h_t = a_t \odot h_{t-1} + \sqrt{1 - a_t^2} \odot (i_t \odot x'_t)

    Parameters
    ----------
    d_model : int
        Width D of a token.
    d_state : int
        Width n of the state; even when ``bidirectional``.
    kind : {"gated_ssm", "rg_lru"}, default "gated_ssm"
        Which recurrence.
    bidirectional : bool, default False
        Let the second half of the state run right to left inside the prefix. In the
        causal area its forget gate is zero, so that :math:`h_t` is the input alone.

    Raises
    ------
    InputError
        When a size is below 1, ``d_state`` is odd with ``bidirectional``, or ``kind``
        is unknown.

    Notes
    -----
    Card: sequences §10 (Birdie, arXiv:2411.01030). The RG-LRU is that of Hawk
    (arXiv:2402.19427), c = 8, without the short convolution before it; where no state
    is taken over, a = 0 in its input factor too, so that this is 1. The first decays
    are uniform in [0.9, 0.999] (at r = 1), which the card leaves open.

    Examples
    --------
    >>> import torch
    >>> from sciseq.generation.parts.linear_recurrence import prefix_carry
    >>> mixer = GatedRecurrenceMixer(4, d_state=6, bidirectional=True)
    >>> y, h = mixer(torch.zeros(2, 5, 4), prefix_carry(torch.tensor([3, 0]), 5))
    >>> y.shape, h.shape
    (torch.Size([2, 5, 4]), torch.Size([2, 5, 6]))
    """

    def __init__(
        self,
        d_model: int,
        d_state: int,
        kind: str = "gated_ssm",
        *,
        bidirectional: bool = False,
    ) -> None:
        super().__init__()
        if min(d_model, d_state) < 1 or (bidirectional and d_state % 2):
            raise InputError(
                f"d_model is {d_model} and d_state {d_state}; both must be at least 1, "
                "and the state of a layer with two directions even",
                where="GatedRecurrenceMixer",
            )
        if kind not in KINDS:
            raise InputError(
                f"kind is {kind!r}, must be one of {list(KINDS)}",
                where="GatedRecurrenceMixer, kind",
                hint=nearest_name(kind, KINDS),
            )
        self.cell = KINDS[kind](d_model, d_state)
        self.out = nn.Linear(d_state, d_model)
        self.n_forward = d_state // 2 if bidirectional else d_state
        self.n_backward = d_state - self.n_forward

    def forward(self, x: Tensor, carry: StateCarry) -> tuple[Tensor, Tensor]:
        """Map tokens (row, token, d_model) to tokens and states (row, token, d_state).

        The first ``n_forward`` entries of a state run left to right, the others right
        to left.
        """
        keep = torch.cat(
            [
                carry.forward[..., None].expand(-1, -1, self.n_forward),
                carry.backward[..., None].expand(-1, -1, self.n_backward),
            ],
            dim=-1,
        )
        decay, drive, gate = self._gated(x, keep)
        n = self.n_forward
        h = linear_recurrence(decay[..., :n], drive[..., :n])
        if self.n_backward:
            back = linear_recurrence(decay[..., n:], drive[..., n:], reverse=True)
            h = torch.cat([h, back], dim=-1)
        return self.out(gate * h.to(gate.dtype)), h

    def step(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """Map the next token (row, d_model) of the causal area, and ``h`` before it.

        ``h`` has shape (row, n_forward); the new one is returned with the token.
        """
        keep = torch.arange(self.n_forward + self.n_backward, device=x.device)
        decay, drive, gate = self._gated(x, keep < self.n_forward)
        first = decay[:, : self.n_forward] * h + drive[:, : self.n_forward]
        whole = torch.cat([first, drive[:, self.n_forward :]], dim=-1)
        return self.out(gate * whole.to(gate.dtype)), first

    def _gated(self, x: Tensor, keep: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        log_decay, update, gate = self.cell(x)
        # States are never held in less than 32 bits, also under autocast.
        dtype = torch.promote_types(log_decay.dtype, torch.float32)
        log_decay = log_decay.to(dtype).masked_fill(~keep, -math.inf)
        drive = self.cell.drive(update.to(dtype), log_decay)
        return log_decay.exp(), drive, gate


class _Layer(nn.Module):
    def __init__(
        self, mixer: GatedRecurrenceMixer, d_model: int, d_ff: int, dropout: float
    ) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(d_model), nn.LayerNorm(d_model)
        self.mixer = mixer
        self.feed_forward = FeedForward(d_model, d_ff, dropout)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, carry: StateCarry) -> tuple[Tensor, Tensor]:
        y, h = self.mixer(self.norm1(x), carry)
        return self._finish(x, y), h[..., : self.mixer.n_forward]

    def step(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        y, h = self.mixer.step(self.norm1(x), h)
        return self._finish(x, y), h

    def _finish(self, x: Tensor, y: Tensor) -> Tensor:
        x = x + self.dropout(y)
        output: Tensor = x + self.feed_forward(self.norm2(x))
        return output


class GatedRecurrence(nn.Module):
    r"""Layers of gated linear recurrences, half of them bidirectional in the prefix.

    .. math::

        u = x + \mathrm{Drop}(\mathrm{Mix}(\mathrm{LN}_1(x))), \quad
        out = u + \mathrm{FFN}(\mathrm{LN}_2(u))

    and a layer norm after the last layer. A token of the causal area depends on its
    whole prefix and on no later token; a token of the prefix depends on the whole
    prefix, on the constant BEGIN, and on no label.

    Parameters
    ----------
    n_layers : int
        Number of layers.
    d_model : int
        Width D of a token.
    d_state : int, optional
        Width n of the states; ``d_model`` when None.
    d_ff : int, optional
        Inner width of the feed-forward networks; ``4 * d_model`` when None.
    kind : {"gated_ssm", "rg_lru"}, default "gated_ssm"
        Which recurrence, see :class:`GatedRecurrenceMixer`.
    prefix_bidirectional : bool, default True
        Let every second layer, from the first on, read prefixes in both directions.
        When False all layers run left to right with their whole state.
    dropout : float, default 0.0
        Probability of every dropout.

    Raises
    ------
    InputError
        When ``n_layers`` is below 1, and as in :class:`GatedRecurrenceMixer`.

    Notes
    -----
    Card: sequences §10 (Birdie, arXiv:2411.01030). Which half of the layers is
    bidirectional, and the residual layers around the mixers, are our choice. There are
    no position ids: the order of the tokens is that of the scan.

    Examples
    --------
    >>> import torch
    >>> from sciseq.generation.parts.linear_recurrence import prefix_carry
    >>> from sciseq.nn import build_network
    >>> backbone = build_network(
    ...     lambda: GatedRecurrence(2, 8), torch.Generator().manual_seed(0)
    ... )
    >>> x, prefix = torch.zeros(3, 6, 8), torch.tensor([4, 0, 2])
    >>> carry = prefix_carry(prefix, 6)
    >>> backbone(x, carry).shape
    torch.Size([3, 6, 8])
    >>> last, state = backbone.prefill(x, carry, prefix)  # up to BEGIN
    >>> token, state = backbone.step(torch.zeros(3, 8), state)
    >>> token.shape
    torch.Size([3, 8])
    """

    def __init__(
        self,
        n_layers: int,
        d_model: int,
        d_state: int | None = None,
        d_ff: int | None = None,
        *,
        kind: str = "gated_ssm",
        prefix_bidirectional: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if n_layers < 1:
            raise InputError(
                f"n_layers is {n_layers}, must be at least 1", where="GatedRecurrence"
            )
        self.layers = nn.ModuleList(
            _Layer(
                GatedRecurrenceMixer(
                    d_model,
                    d_model if d_state is None else d_state,
                    kind,
                    bidirectional=prefix_bidirectional and number % 2 == 0,
                ),
                d_model,
                4 * d_model if d_ff is None else d_ff,
                dropout,
            )
            for number in range(n_layers)
        )
        self.norm = nn.LayerNorm(d_model)

    def forward(self, x: Tensor, carry: StateCarry) -> Tensor:
        """Map tokens (row, token, d_model) to tokens of the same shape."""
        return self._run(x, carry)[0]

    def prefill(
        self, x: Tensor, carry: StateCarry, last: Tensor
    ) -> tuple[Tensor, RecurrentState]:
        """Read the prompts of rows, and remember what their next tokens need.

        Parameters
        ----------
        x : Tensor, shape (row, token, d_model)
            Prompts, with anything behind their last tokens.
        carry : StateCarry
            Where states go on.
        last : Tensor of int64, shape (row,)
            Place of the last token of each prompt, BEGIN or later.

        Returns
        -------
        output : Tensor, shape (row, d_model)
            Output at the last tokens.
        state : RecurrentState
            What :meth:`step` goes on from.
        """
        output, states = self._run(x, carry)
        rows = torch.arange(len(x), device=x.device)
        kept = tuple(h[rows, last] for h in states)
        return output[rows, last], RecurrentState(kept)

    def step(self, x: Tensor, state: RecurrentState) -> tuple[Tensor, RecurrentState]:
        """Map the next token (row, d_model) of the causal area of each row.

        Returns the output of the same shape and the state after the token.
        """
        kept = []
        for layer, h in zip(self._layers(), state.layers, strict=True):
            x, after = layer.step(x, h)
            kept.append(after)
        return self.norm(x), RecurrentState(tuple(kept))

    def _run(self, x: Tensor, carry: StateCarry) -> tuple[Tensor, list[Tensor]]:
        states = []
        for layer in self._layers():
            x, h = layer(x, carry)
            states.append(h)
        return self.norm(x), states

    def _layers(self) -> list[_Layer]:
        return cast(list[_Layer], list(self.layers))
