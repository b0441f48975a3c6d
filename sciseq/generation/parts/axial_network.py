r"""Axial autoregressive network: every cell of an array from all cells before it.

Axes: ``batch`` (B), ``row`` (R), ``column`` (C), ``line`` (rows or columns of all
arrays, each a sequence of its own), ``cell`` (of a line), ``d_model`` (D), ``feature``
(of a condition), ``token`` (V).
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sciseq.errors import InputError
from sciseq.nn.decoder import KeysAndValues, MultiHeadAttention
from sciseq.nn.dropout import Dropout
from sciseq.nn.feed_forward import FeedForward

__all__ = ["AxialNetwork"]

_SCALE = 0.02  # of embeddings at the start

Draw = Callable[[Tensor, int], Tensor]
MakeLayer = Callable[[], nn.Module]


class AxialNetwork(nn.Module):
    r"""Probabilities of the cells of an array in raster order, by axial attention.

    .. math::

        u &= \mathrm{ShiftDown}\bigl((\mathrm{Column}_{\le i} \circ \mathrm{Row})^{n}
            (e_{x} + r_i + c_j + z)\bigr) \\
        h &= \mathrm{Row}_{\le j}^{m}\bigl(\mathrm{ShiftRight}(e_x) + u + r'_i + c'_j
            + z\bigr), \quad p(x_{ij} \mid x_{<ij}) = \mathrm{softmax}(W h_{ij} + b)

    Row and Column are pre-norm transformer layers whose tokens read their own row or
    column only; an index tells that they read no later cell of it.

    Parameters
    ----------
    n_rows, n_columns : int
        Largest array; smaller ones are its upper left corner.
    n_tokens : int
        Number of values V of a cell.
    d_model : int
        Width D of a cell; a multiple of ``n_heads``.
    d_ff : int
        Inner width of the feed-forward networks.
    n_outer_layers : int
        Pairs of row and column layers above (n); at least 1.
    n_inner_layers : int
        Row layers below (m); at least 1.
    n_heads : int
        Number of heads.
    dropout : float, default 0.0
        Probability of every dropout. Attention weights are not dropped.
    n_features : int, default 0
        Length of the condition vector; 0 for none.

    Raises
    ------
    InputError
        When a number is out of range.

    Notes
    -----
    Card: sequences §14 (Ho et al., arXiv:1912.12180). The first row has a context of
    zeros, the first column an embedding of zeros, and each stack positions of its own.
    The condition z, a linear map of the vector, is added to all cells. One channel; the
    card's encoder for earlier channels or frames is not here.

    A pair of outer layers costs :math:`2 D R C (R + C)` multiplications of attention
    and an inner layer :math:`2 D R C^2`, not :math:`2 D (R C)^2`.

    Examples
    --------
    >>> import torch
    >>> from sciseq.nn import build_network
    >>> network = build_network(
    ...     lambda: AxialNetwork(4, 5, 3, 8, 16, 1, 1, 2),
    ...     torch.Generator().manual_seed(0),
    ... )
    >>> array = torch.zeros(2, 4, 5, dtype=torch.int64)
    >>> network(array).shape, network.log_prob(array).shape
    (torch.Size([2, 4, 5, 3]), torch.Size([2]))
    >>> network.sample(lambda scores, cell: scores.argmax(1), n_arrays=2).shape
    torch.Size([2, 4, 5])
    """

    def __init__(
        self,
        n_rows: int,
        n_columns: int,
        n_tokens: int,
        d_model: int,
        d_ff: int,
        n_outer_layers: int,
        n_inner_layers: int,
        n_heads: int,
        dropout: float = 0.0,
        n_features: int = 0,
    ) -> None:
        super().__init__()
        _check_sizes(
            n_rows=n_rows,
            n_columns=n_columns,
            n_tokens=n_tokens,
            n_outer_layers=n_outer_layers,
            n_inner_layers=n_inner_layers,
        )
        self.n_tokens, self.n_features = n_tokens, n_features
        make_layer = partial(_AxisLayer, d_model, d_ff, n_heads, dropout)
        self.symbols = nn.Embedding(n_tokens, d_model)
        self.outer_places = AxialPositions(n_rows, n_columns, d_model)
        self.inner_places = AxialPositions(n_rows, n_columns, d_model)
        self.condition = nn.Linear(n_features, d_model) if n_features else None
        self.outer = _OuterEncoder(n_outer_layers, d_model, make_layer)
        self.inner = _InnerDecoder(n_inner_layers, d_model, make_layer)
        self.head = nn.Linear(d_model, n_tokens)
        self.dropout = Dropout(dropout)

    def initialize_parameters(self, generator: torch.Generator) -> None:
        """Draw the embeddings of the values.

        Parameters
        ----------
        generator : torch.Generator
            Source of all numbers.
        """
        nn.init.normal_(self.symbols.weight, std=_SCALE, generator=generator)

    def forward(self, tokens: Tensor, condition: Tensor | None = None) -> Tensor:
        """Return the scores of all cells at once.

        Parameters
        ----------
        tokens : Tensor of int64, shape (batch, row, column)
            Arrays.
        condition : Tensor, shape (batch, feature), optional
            What they are conditioned on.

        Returns
        -------
        Tensor, shape (batch, row, column, token)
            Logarithms of the probabilities, up to a constant for each cell.
        """
        scores: Tensor = self.head(self.states(self.symbols(tokens), condition))
        return scores

    def states(self, embedded: Tensor, condition: Tensor | None = None) -> Tensor:
        """Return what the scores of all cells are made from.

        Parameters
        ----------
        embedded : Tensor, shape (batch, row, column, d_model)
            Embedded values of the cells.
        condition : Tensor, shape (batch, feature), optional
            As in :meth:`forward`.

        Returns
        -------
        Tensor, shape (batch, row, column, d_model)
            That of a cell rests on the cells before it.
        """
        self._check_shape(*embedded.shape[1:3])
        told = self._told(condition)
        cells = self.outer_places(embedded) + told
        context, _ = self.outer(self.dropout(cells))
        cells = _shift_right(embedded) + _shift_down(context)
        cells = self.dropout(self.inner_places(cells) + told)
        states: Tensor = self.inner(cells.flatten(0, 1))[0]  # (line, cell, d_model)
        return states.view(cells.shape)

    def log_prob(self, tokens: Tensor, condition: Tensor | None = None) -> Tensor:
        r"""Return the logarithm of the probability of whole arrays.

        .. math:: \sum_{ij} \log p(x_{ij} \mid x_{<ij})

        Parameters
        ----------
        tokens, condition
            As in :meth:`forward`.

        Returns
        -------
        Tensor, shape (batch,)
            Natural logarithms.
        """
        logs: Tensor = self(tokens, condition).log_softmax(-1)
        return logs.gather(-1, tokens.unsqueeze(-1)).sum((1, 2, 3))

    @torch.no_grad()
    def sample(
        self,
        draw: Draw,
        n_arrays: int,
        shape: tuple[int, int] | None = None,
        condition: Tensor | None = None,
    ) -> Tensor:
        """Draw arrays cell by cell.

        The outer stack reads each row once, when it is complete, and the inner stack
        each cell once; both keep the keys and values of what they have read.

        Parameters
        ----------
        draw : callable
            From scores (batch, token) and the number of the cell in raster order to
            tokens (batch,). It may fix cells, or forbid values.
        n_arrays : int
            Number of arrays.
        shape : tuple of int, optional
            Rows and columns; the largest array by default.
        condition : Tensor, shape (n_arrays, feature), optional
            What they are conditioned on.

        Returns
        -------
        Tensor of int64, shape (batch, row, column)
            Arrays.
        """
        n_rows, n_columns = shape or self.inner_places.shape
        self._check_shape(n_rows, n_columns)
        told = self._told(condition)
        weight = self.head.weight
        context = weight.new_zeros(n_arrays, 1, n_columns, weight.shape[1])
        tokens = weight.new_zeros(n_arrays, n_rows, n_columns, dtype=torch.int64)
        columns: Memory = None
        for i in range(n_rows):
            cells = self.inner_places(context, first_row=i) + told
            self._sample_row(draw, tokens[:, i], cells[:, 0], i * n_columns)
            if i + 1 < n_rows:
                cells = self.symbols(tokens[:, i : i + 1])
                cells = self.outer_places(cells, first_row=i) + told
                context, columns = self.outer(cells, columns)
        return tokens

    def _sample_row(self, draw: Draw, row: Tensor, cells: Tensor, first: int) -> None:
        """Fill a row (batch, column), from its cells (batch, column, d_model)."""
        before: Memory = None
        last = torch.zeros_like(cells[:, :1])
        for j in range(row.shape[1]):
            states, before = self.inner(last + cells[:, j : j + 1], before)
            row[:, j] = draw(self.head(states[:, 0]), first + j)
            last = self.symbols(row[:, j : j + 1])

    def _told(self, condition: Tensor | None) -> Tensor | float:
        """Return what the condition adds to every cell, (batch, 1, 1, d_model)."""
        given = 0 if condition is None else condition.shape[-1]
        if given != self.n_features:
            raise InputError(
                f"the condition has {given} numbers, the network was built for "
                f"{self.n_features}",
                where="condition",
            )
        if self.condition is None or condition is None:
            return 0.0
        told: Tensor = self.condition(condition)
        return told[:, None, None]

    def _check_shape(self, n_rows: int, n_columns: int) -> None:
        most = self.inner_places.shape
        if not (0 < n_rows <= most[0] and 0 < n_columns <= most[1]):
            raise InputError(
                f"arrays have {n_rows} rows and {n_columns} columns, must have 1 to "
                f"{most[0]} rows and 1 to {most[1]} columns",
                where="AxialNetwork",
            )


class AxialPositions(nn.Module):
    r"""Add one learned vector per row and one per column, :math:`x_{ij} + r_i + c_j`.

    Parameters
    ----------
    n_rows, n_columns : int
        Largest array.
    d_model : int
        Width D of a cell.
    """

    def __init__(self, n_rows: int, n_columns: int, d_model: int) -> None:
        super().__init__()
        self.shape = n_rows, n_columns
        self.rows = nn.Parameter(torch.empty(n_rows, 1, d_model))
        self.columns = nn.Parameter(torch.empty(n_columns, d_model))

    def initialize_parameters(self, generator: torch.Generator) -> None:
        """Draw the vectors.

        Parameters
        ----------
        generator : torch.Generator
            Source of all numbers.
        """
        for one in (self.rows, self.columns):
            nn.init.normal_(one, std=_SCALE, generator=generator)

    def forward(self, x: Tensor, first_row: int = 0) -> Tensor:
        """Add them to cells (batch, row, column, d_model), from a row on."""
        n_rows, n_columns = x.shape[1:3]
        rows = self.rows[first_row : first_row + n_rows]
        return x + rows + self.columns[:n_columns]


# --- Stacks --------------------------------------------------------------------------

Memory = Sequence[KeysAndValues] | None
"""What the causal layers of a stack have read before, one entry a layer."""


class _OuterEncoder(nn.Module):
    """Pairs of unmasked row layers and column layers that read no later row."""

    def __init__(self, n_layers: int, d_model: int, make_layer: MakeLayer) -> None:
        super().__init__()
        self.row_layers = nn.ModuleList(make_layer() for _ in range(n_layers))
        self.column_layers = nn.ModuleList(make_layer() for _ in range(n_layers))
        self.norm = nn.LayerNorm(d_model)

    def forward(
        self, x: Tensor, before: Memory = None
    ) -> tuple[Tensor, list[KeysAndValues]]:
        """Map cells (batch, row, column, d_model), which may follow rows before."""
        read = []
        pairs = zip(self.row_layers, self.column_layers, strict=True)
        for number, (row_layer, column_layer) in enumerate(pairs):
            lines, _ = row_layer(x.flatten(0, 1), causal=False)
            columns = lines.view(x.shape).transpose(1, 2)
            lines, memory = column_layer(
                columns.flatten(0, 1), causal=True, before=before and before[number]
            )
            x = lines.view(columns.shape).transpose(1, 2)
            read.append(memory)
        return self.norm(x), read


class _InnerDecoder(nn.Module):
    """Layers along rows that read no later column."""

    def __init__(self, n_layers: int, d_model: int, make_layer: MakeLayer) -> None:
        super().__init__()
        self.layers = nn.ModuleList(make_layer() for _ in range(n_layers))
        self.norm = nn.LayerNorm(d_model)

    def forward(
        self, x: Tensor, before: Memory = None
    ) -> tuple[Tensor, list[KeysAndValues]]:
        """Map lines (line, cell, d_model), which may follow cells before."""
        read = []
        for number, layer in enumerate(self.layers):
            x, memory = layer(x, causal=True, before=before and before[number])
            read.append(memory)
        return self.norm(x), read


class _AxisLayer(nn.Module):
    """A pre-norm transformer layer on lines, which may follow cells before."""

    def __init__(self, d_model: int, d_ff: int, n_heads: int, dropout: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(d_model), nn.LayerNorm(d_model)
        self.attention = MultiHeadAttention(d_model, n_heads)
        self.feed_forward = FeedForward(d_model, d_ff, dropout)
        self.dropout = Dropout(dropout)

    def forward(
        self, x: Tensor, *, causal: bool, before: KeysAndValues | None = None
    ) -> tuple[Tensor, KeysAndValues]:
        own = self.norm1(x)
        read = self.attention.project(own)
        if before is not None:
            pairs = zip(before, read, strict=True)
            read = KeysAndValues(*(torch.cat(pair, dim=2) for pair in pairs))
        mask = None
        if causal:
            n_new, n_all = x.shape[1], read.keys.shape[2]
            every = torch.ones(n_new, n_all, dtype=torch.bool, device=x.device)
            mask = every.tril(n_all - n_new)
        a = x + self.dropout(self.attention(own, read, mask))
        return a + self.feed_forward(self.norm2(a)), read


def _shift_down(x: Tensor) -> Tensor:
    """Give each row what the row above holds, and the first one zeros."""
    return F.pad(x[:, :-1], (0, 0, 0, 0, 1, 0))


def _shift_right(x: Tensor) -> Tensor:
    """Give each column what the column before holds, and the first one zeros."""
    return F.pad(x[:, :, :-1], (0, 0, 1, 0))


def _check_sizes(**sizes: int) -> None:
    wrong = {name: size for name, size in sizes.items() if size < 1}
    if wrong:
        raise InputError(
            f"{', '.join(f'{name} is {size}' for name, size in wrong.items())}; must "
            "be at least 1",
            where="AxialNetwork",
        )
