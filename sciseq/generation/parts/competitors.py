r"""Some items instead of all in a cross-entropy, drawn anew at every step.

Axes: ``event`` (what is to be told), ``item`` (V), ``draw`` (K).
"""

import math

import torch
from torch import Tensor

from sciseq.generation.parts.noise import uniform

__all__ = ["Competitors"]

_PURPOSE = 1  # tells these draws from the others of a step


class Competitors:
    r"""Items that a softmax is estimated with: half by frequency, half evenly.

    .. math::

        q_j = \tfrac12 \frac{n_j}{n} + \tfrac12 \frac1V, \qquad
        \sum_{j \ne x} e^{s_j} \approx
            \frac1K \sum_{k: j_k \ne x} \frac{e^{s_{j_k}}}{q_{j_k}}

    The estimate of the sum over all items but the target x has no bias.

    Parameters
    ----------
    counts : Tensor of int64, shape (item,)
        Training events :math:`n_j` of each item.
    n_draws : int
        Number K of draws, with replacement; the same for all events of a step.

    References
    ----------
    Bengio and Senécal, Adaptive importance sampling to accelerate training of a neural
    probabilistic language model, IEEE Transactions on Neural Networks 19 (2008).

    Examples
    --------
    >>> import torch
    >>> some = Competitors(torch.tensor([3, 1]), n_draws=4)
    >>> some.share.tolist(), some.draw(seed=0, step=0).shape
    ([0.625, 0.375], torch.Size([4]))
    """

    def __init__(self, counts: Tensor, n_draws: int) -> None:
        self.n_draws = n_draws
        self.share = counts.double() / (2 * counts.sum()) + 0.5 / len(counts)
        self._rising = self.share.cumsum(0)

    def draw(self, seed: int, step: int) -> Tensor:
        """Return the items (draw,) of a step.

        Parameters
        ----------
        seed, step : int
            On which they depend, and on nothing else.
        """
        place = torch.arange(self.n_draws).unsqueeze(0)
        u = uniform(torch.tensor([seed]), step, _PURPOSE, place)[0]
        # Rounding may leave the last sum below 1.
        return torch.searchsorted(self._rising, u).clamp_max(len(self.share) - 1)

    def corrections(self, items: Tensor) -> Tensor:
        """Return what is taken from the scores of drawn items (draw,), log K q.

        Parameters
        ----------
        items : Tensor of int64, shape (draw,)
            From :meth:`draw`.
        """
        return (self.share[items].log() + math.log(self.n_draws)).float()
