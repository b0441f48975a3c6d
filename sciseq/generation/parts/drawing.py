"""Drawing tokens from scores, each request with noise of its own.

Axes: ``batch`` (B), ``row``, ``token`` (V).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from sciseq.generation.parts.noise import gumbel

__all__ = ["Drawing", "log_probabilities"]


@dataclass(frozen=True)
class Drawing:
    """How tokens are drawn.

    Parameters
    ----------
    temperature : float, default=1.0
        Divides the scores; 0 takes the most probable token.
    top_k : int, optional
        Only so many of the most probable tokens.
    top_p : float, default=1.0
        Only the most probable tokens that have this probability together.

    Examples
    --------
    >>> import torch
    >>> scores = torch.tensor([[[0.0, 3.0, 1.0]]])
    >>> seeds, place = torch.tensor([0]), torch.tensor([[5]])
    >>> Drawing(temperature=0)(scores, seeds, place)
    tensor([[1]])
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0

    def __call__(
        self,
        scores: Tensor,
        seeds: Tensor,
        position: Tensor,
        allowed: Tensor | None = None,
        purpose: int | Tensor = 0,
    ) -> Tensor:
        """Draw one token for each row.

        Parameters
        ----------
        scores : Tensor, shape (batch, row, token)
            Scores, up to a constant for each row.
        seeds : Tensor of int64, shape (batch,)
            Seeds of the requests.
        position : Tensor of int64, shape (batch, row)
            Where the tokens stand.
        allowed : Tensor of bool, broadcastable to the scores, optional
            Tokens that are legal.
        purpose : int or Tensor of int64, shape (batch,), default=0
            Tells apart what is drawn for the same position more than once.

        Returns
        -------
        Tensor of int64, shape (batch, row)
        """
        if allowed is not None:
            scores = scores.masked_fill(~allowed, -torch.inf)
        if self.temperature == 0:
            return scores.argmax(dim=-1)
        logs = self.law(scores)
        token = torch.arange(scores.shape[-1], device=scores.device).view(1, 1, -1)
        if isinstance(purpose, Tensor):
            purpose = purpose.view(-1, 1, 1)
        noise = gumbel(seeds, purpose, position.unsqueeze(2), token)
        return (logs + noise).argmax(dim=-1)

    def law(self, scores: Tensor, allowed: Tensor | None = None) -> Tensor:
        """Return the logarithms of the probabilities that are drawn from (float64)."""
        if allowed is not None:
            scores = scores.masked_fill(~allowed, -torch.inf)
        # In float32 the truncated tail of the noise acts as a lower temperature.
        logs = scores.double()
        if self.temperature == 0:
            best = logs.argmax(dim=-1, keepdim=True)
            none = torch.full_like(logs, -torch.inf)
            return none.scatter(-1, best, 0.0)
        logs = (logs / self.temperature).log_softmax(dim=-1)
        if self.top_k is not None and self.top_k < logs.shape[-1]:
            least = logs.topk(self.top_k, dim=-1).values[..., -1:]
            logs = logs.masked_fill(logs < least, -torch.inf)
        if self.top_p < 1:
            ordered, order = logs.softmax(dim=-1).sort(dim=-1, descending=True)
            is_beyond = ordered.cumsum(dim=-1) - ordered >= self.top_p
            beyond = is_beyond.scatter(-1, order, is_beyond)
            logs = logs.masked_fill(beyond, -torch.inf)
        return logs.log_softmax(dim=-1)


def log_probabilities(scores: Tensor, tokens: Tensor) -> Tensor:
    """Return the log-probability of each token (batch, row), from scores.

    Parameters
    ----------
    scores : Tensor, shape (batch, row, token)
        Scores, up to a constant for each row.
    tokens : Tensor of int64, shape (batch, row)
        Tokens.

    Examples
    --------
    >>> import torch
    >>> log_probabilities(torch.zeros(1, 1, 2), torch.tensor([[1]])).exp()
    tensor([[0.5000]])
    """
    logs = scores.log_softmax(dim=-1)
    return logs.gather(-1, tokens.unsqueeze(-1)).squeeze(-1)
