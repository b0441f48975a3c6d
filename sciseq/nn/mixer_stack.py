"""Mixers in layers, joined by weighted averages instead of residuals.

Symbols: ``y_T`` and ``y_C`` are outputs of token mixers and of channel mixers, E the
number of layers.
"""

import math
from collections.abc import Iterable, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from sciseq.errors import InputError

__all__ = ["MixerStack", "WeightedAverage"]


class WeightedAverage(nn.Module):
    r"""Sum of the outputs of earlier mixers, with learnable scalar weights.

    .. math:: x = \sum_i \alpha_i\,y_T^{(i)} + \sum_i \beta_i\,y_C^{(i)}

    Parameters
    ----------
    n_token_outputs, n_channel_outputs : int
        Numbers of outputs of token mixers and of channel mixers. The first of either
        kind is the input of the stack.

    Notes
    -----
    Card: forecasting §4.1. The weights are free: neither normalised nor decayed. They
    start at 1, except that the input of the stack, which both kinds hold, starts at 1
    and 0, so that it counts once: the sum of a residual stack.

    Examples
    --------
    >>> import torch
    >>> from sciseq.nn import build_network
    >>> average = build_network(lambda: WeightedAverage(2, 2), torch.Generator())
    >>> x, y_T, y_C = (torch.full((1,), value) for value in (1.0, 10.0, 100.0))
    >>> average([x, y_T], [x, y_C]).item()
    111.0
    """

    no_weight_decay: ClassVar[tuple[str, ...]] = ("token_weights", "channel_weights")

    def __init__(self, n_token_outputs: int, n_channel_outputs: int) -> None:
        super().__init__()
        self.token_weights = nn.Parameter(torch.full((n_token_outputs,), math.nan))
        self.channel_weights = nn.Parameter(torch.full((n_channel_outputs,), math.nan))

    @torch.no_grad()
    def initialize_parameters(self, generator: torch.Generator) -> None:
        """Set every weight to 1, and the second one of the stack's input to 0.

        Parameters
        ----------
        generator : torch.Generator
            Not used: nothing is drawn.
        """
        self.token_weights.fill_(1.0)
        self.channel_weights.fill_(1.0)
        self.channel_weights[0] = 0.0

    def forward(
        self, token_outputs: Sequence[Tensor], channel_outputs: Sequence[Tensor]
    ) -> Tensor:
        """Add up tensors of one shape.

        Parameters
        ----------
        token_outputs, channel_outputs : sequence of Tensor
            As many as there are weights of their kind.

        Returns
        -------
        Tensor
            Their weighted sum.
        """
        weights = [*self.token_weights.unbind(), *self.channel_weights.unbind()]
        outputs = [*token_outputs, *channel_outputs]
        total = weights[0] * outputs[0]
        for weight, y in zip(weights[1:], outputs[1:], strict=True):
            total = torch.addcmul(total, y, weight)
        return total


class MixerStack(nn.Module):
    r"""Token and channel mixers in turn, joined by weighted averages of all before.

    .. math::

        y_T^{(l)} &= T_l\Bigl(\sum_{i<l} \alpha_{l,i}\,y_T^{(i)}
        + \sum_{i<l} \beta_{l,i}\,y_C^{(i)}\Bigr), \qquad y_T^{(0)} = y_C^{(0)} = x \\
        y_C^{(l)} &= C_l\Bigl(\sum_{i\le l} \theta_{l,i}\,y_T^{(i)}
        + \sum_{i<l} \gamma_{l,i}\,y_C^{(i)}\Bigr)

    Parameters
    ----------
    token_mixers, channel_mixers : iterable of nn.Module
        The E modules T_l and the E modules C_l; each keeps the shape of its input.

    Notes
    -----
    Card: forecasting §4.1. The E layers have E(2E + 3) weights. Which features leave
    the last layer is not said in the paper: here it is what a further token mixer would
    read, so that 2E + 2 weights more are learned.

    Examples
    --------
    >>> import torch
    >>> from sciseq.nn import (
    ...     SelectiveChannelMixer, SelectiveTokenMixer, build_network)
    >>> stack = build_network(
    ...     lambda: MixerStack([SelectiveTokenMixer(8)], [SelectiveChannelMixer(5)]),
    ...     torch.Generator().manual_seed(0),
    ... )
    >>> stack(torch.zeros(2, 5, 8)).shape
    torch.Size([2, 5, 8])
    """

    def __init__(
        self, token_mixers: Iterable[nn.Module], channel_mixers: Iterable[nn.Module]
    ) -> None:
        super().__init__()
        self.token_mixers = nn.ModuleList(token_mixers)
        self.channel_mixers = nn.ModuleList(channel_mixers)
        n_layers = len(self.token_mixers)
        if len(self.channel_mixers) != n_layers:
            raise InputError(
                f"{n_layers} token mixers and {len(self.channel_mixers)} channel "
                "mixers were given, must be as many of either",
                where="MixerStack",
            )
        # The average before layer l = 1..E sees the outputs 0..l-1 of either kind, that
        # between its two mixers also the output l of the token mixer.
        self.token_averages = nn.ModuleList(
            WeightedAverage(layer, layer) for layer in range(1, n_layers + 1)
        )
        self.channel_averages = nn.ModuleList(
            WeightedAverage(layer + 1, layer) for layer in range(1, n_layers + 1)
        )
        self.output_average = WeightedAverage(n_layers + 1, n_layers + 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``x`` to a tensor of the same shape."""
        y_T, y_C = [x], [x]
        for token_average, token_mixer, channel_average, channel_mixer in zip(
            self.token_averages,
            self.token_mixers,
            self.channel_averages,
            self.channel_mixers,
            strict=True,
        ):
            y_T.append(token_mixer(token_average(y_T, y_C)))
            y_C.append(channel_mixer(channel_average(y_T, y_C)))
        output: Tensor = self.output_average(y_T, y_C)
        return output
