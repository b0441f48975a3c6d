"""Position-wise feed-forward networks."""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from sciseq.errors import InputError, nearest_name
from sciseq.nn.dropout import Dropout

__all__ = ["FeedForward"]

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"gelu": F.gelu, "relu": F.relu}


class FeedForward(nn.Module):
    r"""Two linear maps with an activation between, applied to each token alone.

    .. math:: \mathrm{FFN}(x) = \mathrm{Drop}(W_2\,\mathrm{Drop}(\phi(W_1 x)))

    Parameters
    ----------
    d_model : int
        Width D of a token.
    d_ff : int
        Inner width F.
    dropout : float, default 0.1
        Probability of both dropouts.
    activation : {"gelu", "relu"}, default "gelu"
        The function :math:`\phi`; the GELU is the exact one.

    Raises
    ------
    InputError
        When the activation is unknown.

    Notes
    -----
    Card: forecasting §0.4 and §2.1 (GELU), §3.1 (ReLU). Both maps have a bias.

    Examples
    --------
    >>> import torch
    >>> FeedForward(4, 8, dropout=0.0)(torch.zeros(2, 3, 4)).shape
    torch.Size([2, 3, 4])
    """

    def __init__(
        self, d_model: int, d_ff: int, dropout: float = 0.1, activation: str = "gelu"
    ) -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise InputError(
                f"activation is {activation!r}, must be one of {list(ACTIVATIONS)}",
                where="FeedForward, activation",
                hint=nearest_name(activation, ACTIVATIONS),
            )
        self.W1 = nn.Linear(d_model, d_ff)
        self.W2 = nn.Linear(d_ff, d_model)
        self.dropout = Dropout(dropout)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens of shape (..., d_model) to tokens of the same shape."""
        hidden = self.dropout(ACTIVATIONS[self.activation](self.W1(x)))
        output: Tensor = self.dropout(self.W2(hidden))
        return output
