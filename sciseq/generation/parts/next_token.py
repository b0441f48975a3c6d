r"""What a causal network says of each token, given those before it.

Axes: ``batch`` (B), ``position`` (L), ``token`` (V).

The autoregressive stream of every method that has one: scores, and exact likelihoods.
Card: sequences §19.2.
"""

import torch
from torch import Tensor

from sciseq.generation.parts.drawing import log_probabilities
from sciseq.generation.parts.layout import Layout
from sciseq.generation.parts.masks import causal
from sciseq.generation.parts.network import Condition, SequenceNetwork
from sciseq.generation.parts.requests import is_counted

__all__ = ["next_token_log_likelihood", "next_token_scores"]


def next_token_scores(
    network: SequenceNetwork, tokens: Tensor, condition: Condition | None
) -> Tensor:
    """Return the scores (batch, position, token) of each token given those before.

    Parameters
    ----------
    network : SequenceNetwork
        Causal network.
    tokens : Tensor of int64, shape (batch, position)
        Symbols.
    condition : Condition or None
        Of the sequences.
    """
    layout = Layout.of(tokens.shape[1] - 1, device=tokens.device)
    states = network.read(tokens[:, :-1], layout, causal, condition)
    return network.scores(states)


def next_token_log_likelihood(
    network: SequenceNetwork,
    tokens: Tensor,
    condition: Condition | None,
    end: int | None,
) -> tuple[Tensor, Tensor]:
    r"""Return exact log-likelihoods (batch,), and their standard errors, which are 0.

    .. math:: \sum_i \log p(x_i \mid x_{<i})

    Parameters
    ----------
    network : SequenceNetwork
        Causal network.
    tokens : Tensor of int64, shape (batch, position)
        Sequences.
    condition : Condition or None
        Of them.
    end : int or None
        Behind the first end nothing counts.
    """
    logs = log_probabilities(next_token_scores(network, tokens, condition), tokens)
    found = logs.where(is_counted(tokens, end), 0.0).sum(dim=1)
    return found, torch.zeros_like(found)
