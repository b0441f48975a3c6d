"""Dropout whose mask comes from an explicit generator, never from global state."""

from typing import Any

import torch
from torch import Tensor, nn

from sciseq.errors import InputError

__all__ = ["Dropout", "set_dropout_generator"]

_LEVELS = 2**16


class Dropout(nn.Module):
    r"""Zero each entry with probability ``p`` while training and rescale the rest.

    .. math:: y = x \odot k / (1 - p), \qquad k \sim \mathrm{Bernoulli}(1 - p)

    Parameters
    ----------
    p : float
        Probability of zeroing, in [0, 1).

    Attributes
    ----------
    generator : torch.Generator or None
        Source of the masks, on the device of the input. It is the caller's, not the
        model's: it is no part of the state dict, and copies and pickles start without.

    Raises
    ------
    InputError
        When ``p`` is out of range, or on a training pass without a generator.

    Notes
    -----
    On a CPU the probability is rounded to a multiple of 2**-16, because four 16-bit
    draws from one 64-bit word cost a fifth of one floating-point draw each.

    Examples
    --------
    >>> import torch
    >>> dropout = Dropout(0.5)
    >>> dropout.generator = torch.Generator().manual_seed(0)
    >>> sorted(set(dropout(torch.ones(100)).tolist()))
    [0.0, 2.0]
    >>> dropout.eval()(torch.ones(3)).tolist()
    [1.0, 1.0, 1.0]
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise InputError(f"dropout is {p}, must be in [0, 1)", where="dropout")
        self.p = p
        self.generator: torch.Generator | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` masked and rescaled when training, ``x`` itself otherwise."""
        if not self.training or self.p == 0:
            return x
        if self.generator is None:
            raise InputError(
                "dropout in training mode has no random generator",
                where="Dropout.generator",
                hint="Call set_dropout_generator(network, generator) before training, "
                "or network.eval() before predicting.",
            )
        return x * _scaled_mask(x, self.p, self.generator)

    def extra_repr(self) -> str:
        """Show the probability in the module's repr."""
        return f"p={self.p}"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "generator": None}


def set_dropout_generator(
    network: nn.Module, generator: torch.Generator | None
) -> None:
    """Let every :class:`Dropout` inside a network draw from one generator.

    Parameters
    ----------
    network : nn.Module
        Network to walk through.
    generator : torch.Generator or None
        Generator on the device of the network; None takes it away again.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> network = nn.Sequential(nn.Linear(2, 2), Dropout(0.1))
    >>> set_dropout_generator(network, torch.Generator().manual_seed(0))
    >>> network(torch.zeros(1, 2)).shape
    torch.Size([1, 2])
    """
    for module in network.modules():
        if isinstance(module, Dropout):
            module.generator = generator


def _scaled_mask(x: Tensor, p: float, generator: torch.Generator) -> Tensor:
    if x.device.type != "cpu":
        keep = torch.empty_like(x).bernoulli_(1 - p, generator=generator)
        return keep.div_(1 - p)
    n_dropped = min(round(p * _LEVELS), _LEVELS - 1)
    words = torch.empty(-(-x.numel() // 4), dtype=torch.int64)
    words.random_(-(2**63), None, generator=generator)
    draws = words.view(torch.int16)[: x.numel()].view(x.shape)
    keep, scale = draws >= n_dropped - _LEVELS // 2, _LEVELS / (_LEVELS - n_dropped)
    if x.dtype == torch.float32 == torch.get_default_dtype():  # one pass for both
        return keep * scale
    return keep.to(x.dtype).mul_(scale)
