"""Gates that mix two views of the same tokens."""

import torch
from torch import Tensor, nn

__all__ = ["ElementwiseGate"]


class ElementwiseGate(nn.Module):
    r"""Mix two tokens, channel by channel, in proportions that both of them decide.

    .. math::

        s = \sigma(W_1 g + b_1 + W_2 p + b_2), \qquad
        v = s \odot g + (1 - s) \odot p

    Parameters
    ----------
    d_model : int
        Width D of the tokens.

    Notes
    -----
    Card: forecasting §3.1 (arXiv:2505.00307). A gate value of one keeps the first
    token, zero the second.

    Examples
    --------
    >>> import torch
    >>> gate = ElementwiseGate(4)
    >>> gate(torch.ones(2, 3, 4), torch.ones(2, 3, 4)).unique().tolist()
    [1.0]
    """

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.W1 = nn.Linear(d_model, d_model)
        self.W2 = nn.Linear(d_model, d_model)

    def values(self, g: Tensor, p: Tensor) -> Tensor:
        """Return the gate values.

        Parameters
        ----------
        g, p : Tensor, shape (..., d_model)
            First and second view of the tokens.

        Returns
        -------
        Tensor, shape (..., d_model)
            Share of ``g`` in the mix, between 0 and 1.
        """
        return torch.sigmoid(self.W1(g) + self.W2(p))

    def forward(self, g: Tensor, p: Tensor) -> Tensor:
        """Mix ``g`` and ``p``, both of shape (..., d_model)."""
        return torch.lerp(p, g, self.values(g, p))
