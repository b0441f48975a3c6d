r"""Generation of arrays of two axes, cell by cell, with axial attention.

Axes: n arrays, R rows, C columns, V tokens; ``cell`` in raster order.

Card: sequences §14.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sciseq.errors import CapabilityError, InputError, InputTypeError
from sciseq.generation.alphabet import Alphabet
from sciseq.generation.method_card import MethodCard
from sciseq.generation.parts.axial_backbone import AxialBackbone
from sciseq.generation.parts.drawing import Drawing
from sciseq.generation.parts.network import Backbone, SequenceNetwork
from sciseq.generation.parts.requests import Decoder, Requests, Work
from sciseq.generation.sequences.autoregressive import AutoregressiveSequence
from sciseq.parameters import Integer, Nothing
from sciseq.parameters import Rule as ParameterRule

__all__ = ["ArrayAlphabet", "AxialAutoregressor"]


@dataclass(frozen=True)
class ArrayAlphabet(Alphabet):
    """The values of arrays of one shape; an encoded array is one row of cells.

    Parameters
    ----------
    tokens, kind, max_length, is_fixed
        As of :class:`Alphabet`.
    shape : tuple of int
        Rows and columns.

    Examples
    --------
    >>> alphabet = ArrayAlphabet.of([[[5, 7], [7, 7]]])
    >>> alphabet.encode([[[7, 7], [5, 5]]])
    array([[1, 1, 0, 0]])
    >>> alphabet.decode(np.array([[1, 1, 0, 0]])).shape
    (1, 2, 2)
    """

    shape: tuple[int, int] = (1, 1)

    @classmethod
    def of(cls, X: Any, max_length: int | None = None) -> "ArrayAlphabet":
        """Learn the values and the shape of arrays.

        Parameters
        ----------
        X : array of integers of shape (n, row, column), or list of such arrays
            Arrays.
        max_length : None
            Not used.

        Raises
        ------
        InputTypeError
            When they are no integers, or of unequal shapes.
        """
        arrays = _arrays(X)
        flat = Alphabet.of(arrays.reshape(len(arrays), -1))
        shape = (int(arrays.shape[1]), int(arrays.shape[2]))
        return cls(**vars(flat), shape=shape)

    def encode(self, X: Any, *, gap: int | None = None) -> npt.NDArray[np.int64]:
        """Return arrays as numbers (n, cell).

        Parameters
        ----------
        X : arrays
            As in :meth:`of`; a single one as well.
        gap : int, optional
            What stands for gaps, -1 in arrays. By default they are refused.

        Raises
        ------
        InputError
            For an unknown value, or another shape.
        """
        arrays = _arrays(X)
        if arrays.shape[1:] != self.shape:
            raise InputError(
                f"arrays have shape {arrays.shape[1:]}, in fit it was {self.shape}",
                where="X",
                hint="Cut arrays, or fill them up, to one shape before fit.",
            )
        return super().encode(arrays.reshape(len(arrays), -1), gap=gap)

    def decode(self, table: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return arrays of the values of fit (n, row, column)."""
        flat: npt.NDArray[np.int64] = super().decode(table)
        return flat.reshape(len(table), *self.shape)

    def to_dict(self) -> dict[str, Any]:
        """Return what :meth:`from_dict` takes, for saving."""
        return {**super().to_dict(), "shape": list(self.shape)}

    @classmethod
    def from_dict(cls, saved: dict[str, Any]) -> "ArrayAlphabet":
        """Return one that was saved."""
        tokens, shape = tuple(saved["tokens"]), tuple(saved["shape"])
        return cls(**{**saved, "tokens": tokens, "shape": shape})


def _arrays(X: Any) -> npt.NDArray[np.int64]:
    """Return arrays (n, row, column)."""
    try:
        arrays = np.asarray(X)
    except ValueError:
        shapes = sorted({np.shape(one) for one in X})
        raise InputTypeError(
            f"arrays have several shapes: {shapes[:5]}",
            where="X",
            hint="Cut arrays, or fill them up with a value of its own, to one shape.",
        ) from None
    if arrays.ndim == 2:
        arrays = arrays[None]
    if arrays.ndim != 3 or not np.issubdtype(arrays.dtype, np.integer):
        raise InputTypeError(
            f"X is an array of {arrays.dtype} and shape {arrays.shape}; integers of "
            "shape (n, row, column) are needed",
            where="X",
            hint="Quantise numbers first.",
        )
    return arrays


@dataclass(kw_only=True, eq=False, repr=False)
class AxialAutoregressor(AutoregressiveSequence):
    r"""Generate arrays of integers cell by cell, in raster order.

    .. math:: p(x) = \prod_{ij} p(x_{ij} \mid x_{<i}, x_{i, <j}, c)

    Rows above are read by attention along rows and columns, the row itself by attention
    along it, see :class:`~sciseq.generation.parts.axial_network.AxialNetwork`.

    Parameters
    ----------
    n_layers : int, default=2
        Pairs of row and column layers that read the rows above.
    n_inner_layers : int, default=1
        Layers that read the row itself.
    max_length : None
        Arrays have the shape of those of fit.
    **others
        As in :class:`AutoregressiveSequence`.

    Notes
    -----
    `X` is an array of integers of shape (n, row, column), or a list of arrays of one
    shape, in :meth:`fit`, :meth:`sample` (as a template), :meth:`infill` and
    :meth:`score_samples`; -1 is a gap. Legal tokens by position count cells by lines.

    :meth:`score_samples` is exact. :meth:`infill` weighs candidates as
    :class:`AutoregressiveSequence` does, exactly where all gaps are at the end.
    Sampling runs the layers above once for each row.

    A condition of several rows, such as peaks, is told as their mean.

    Card: sequences §14 (Ho et al., arXiv:1912.12180).

    Examples
    --------
    >>> arrays = np.arange(60).reshape(10, 2, 3) % 4
    >>> model = AxialAutoregressor(max_epochs=2, random_state=0, device="cpu")
    >>> model = model.fit(arrays)
    >>> model.sample(3, random_state=0).shape
    (3, 2, 3)
    """

    method_card: ClassVar[MethodCard] = MethodCard(
        idea="Tables of integers cell by cell. Rows above are read by attention along "
        "rows and columns, the row itself by attention along it.",
        order="Raster order: rows from above, each from left to right, one cell in a "
        "pass.",
        mask="All cells before: those of the own row directly, those above through "
        "layers that run once for each row.",
        corruption="Nothing.",
        objective="Cross-entropy of the next cell (shifted by construction).",
        decoder="Draws the next cell; layers above run again after each row.",
        cache="exact",
        score="exact",
        good_for="Tables, small images and alignments of one shape.",
        not_for="Sequences without a second axis, or tables of different shapes.",
    )

    n_inner_layers: int = 1

    alphabet_type: ClassVar[type[Alphabet]] = ArrayAlphabet
    _parameter_rules: ClassVar[dict[str, ParameterRule]] = {
        **AutoregressiveSequence._parameter_rules,
        "n_inner_layers": Integer(1),
        "max_length": Nothing(),
    }

    def _make_backbone(self) -> Backbone:
        alphabet = cast(ArrayAlphabet, self.alphabet_)
        return AxialBackbone(
            alphabet.shape,
            alphabet.n_tokens,
            int(self.d_model),
            int(self.d_ff),
            int(self.n_layers),
            int(self.n_inner_layers),
            int(self.n_heads),
            float(self.dropout),
            has_condition=self.condition_coding_ is not None,
        )

    def _decoder(self, drawing: Drawing) -> Decoder:
        raise CapabilityError(
            "arrays are generated row by row, not by a decoder of sequences",
            where="AxialAutoregressor",
            hint="Call sample, or flatten arrays for AutoregressiveSequence.",
        )

    def _run_requests(
        self, network: SequenceNetwork, drawing: Drawing, requests: Requests
    ) -> tuple[Tensor, Work]:
        backbone = cast(AxialBackbone, network.backbone)

        def draw(scores: Tensor, cell: int) -> Tensor:
            position = torch.full_like(requests.seeds, cell).unsqueeze(1)
            tokens = drawing(
                scores.unsqueeze(1),
                requests.seeds,
                position,
                requests.allowed_at(position),
            )
            is_given = requests.is_filled[:, cell]
            return requests.tokens[:, cell].where(is_given, tokens.squeeze(1))

        with torch.no_grad():
            told = backbone.condition(
                *network.prefix(len(requests), requests.condition)
            )
            arrays = backbone.cells.sample(draw, len(requests), condition=told)
        return arrays.flatten(1), _work(backbone.shape, requests)


def _work(shape: Sequence[int], requests: Requests) -> Work:
    """One pass for each cell, and one for each row that others are below."""
    n_rows, n_columns = shape
    n_above, n_cells = n_rows - 1, n_rows * n_columns
    n_read = n_rows * n_columns * (n_columns - 1) // 2  # cells before, in the row
    n_read += n_columns * n_above * (n_above - 1) // 2  # rows above, in the column
    passes, rows, read = (
        torch.full_like(requests.seeds, one)
        for one in (n_cells + n_above, n_cells + n_above * n_columns, n_read)
    )
    return Work(passes, rows, read, (~requests.is_filled).sum(dim=1))
