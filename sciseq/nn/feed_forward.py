"""Position-wise feed-forward networks."""

import torch.nn.functional as F
from torch import Tensor, nn

from sciseq.nn.dropout import Dropout

__all__ = ["FeedForward"]


class FeedForward(nn.Module):
    r"""Two linear maps with a GELU between, applied to each token alone.

    .. math:: \mathrm{FFN}(x) = \mathrm{Drop}(W_2\,\mathrm{Drop}(\mathrm{GELU}(W_1 x)))

    Parameters
    ----------
    d_model : int
        Width D of a token.
    d_ff : int
        Inner width F.
    dropout : float, default 0.1
        Probability of both dropouts.

    Notes
    -----
    Card: forecasting §2.1; the GELU is the exact one. Both maps have a bias.

    Examples
    --------
    >>> import torch
    >>> FeedForward(4, 8, dropout=0.0)(torch.zeros(2, 3, 4)).shape
    torch.Size([2, 3, 4])
    """

    def __init__(self, d_model: int, d_ff: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.W1 = nn.Linear(d_model, d_ff)
        self.W2 = nn.Linear(d_ff, d_model)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens of shape (..., d_model) to tokens of the same shape."""
        hidden = self.dropout(F.gelu(self.W1(x)))
        output: Tensor = self.dropout(self.W2(hidden))
        return output
