"""Embeddings of series into tokens.

Axes: ``batch``, ``time`` (look-back L), ``variate`` (V), ``token`` (N = V + M with M
time marks), ``d_model`` (D).
"""

import torch
from torch import Tensor, nn

from sciseq.nn.dropout import Dropout

__all__ = ["InvertedEmbedding"]


class InvertedEmbedding(nn.Module):
    r"""Turn each whole series into one token by a shared linear map.

    .. math:: E = \mathrm{Drop}([X, M]^\top W + b)

    Parameters
    ----------
    lookback : int
        Number of time steps L of a series.
    d_model : int
        Width D of a token.
    dropout : float, default 0.1
        Probability of the dropout on the tokens.

    Notes
    -----
    Card: forecasting §0.3 (Liu et al., arXiv:2310.06625). Time marks become extra
    tokens after the variates. The weights do not depend on the number of variates.

    Examples
    --------
    >>> import torch
    >>> embed = InvertedEmbedding(lookback=8, d_model=4, dropout=0.0)
    >>> embed(torch.zeros(2, 8, 3), torch.zeros(2, 8, 1)).shape
    torch.Size([2, 4, 4])
    """

    def __init__(self, lookback: int, d_model: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.linear = nn.Linear(lookback, d_model)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, marks: Tensor | None = None) -> Tensor:
        """Embed windows and their time marks.

        Parameters
        ----------
        x : Tensor, shape (batch, lookback, n_variates)
            Windows.
        marks : Tensor, shape (batch, lookback, n_marks), optional
            Time marks of the same rows.

        Returns
        -------
        Tensor, shape (batch, n_variates + n_marks, d_model)
            Tokens, those of the marks last.
        """
        series = x if marks is None else torch.cat([x, marks.to(x.dtype)], dim=2)
        tokens: Tensor = self.linear(series.transpose(1, 2))  # (batch, token, d_model)
        dropped: Tensor = self.dropout(tokens)
        return dropped
