"""Causal depthwise convolution with its SiLU, as it stands before a selective scan.

Axes: ``batch``, ``token`` (N), ``channel``.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from sciseq.ops.selective_scan import is_fused

__all__ = ["causal_convolution_silu", "causal_depthwise_convolution"]


def causal_depthwise_convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    reverse: bool = False,
) -> Tensor:
    r"""Convolve each channel with its own kernel over the present and past tokens.

    .. math:: y_t = b + \sum_{j=0}^{k-1} w_{k-1-j} \odot x_{t-j}, \qquad x_s = 0, s < 0

    Parameters
    ----------
    x : Tensor, shape (batch, token, channel)
        Tokens.
    weight : Tensor, shape (channel, 1, k)
        Kernels in the layout of ``nn.Conv1d``; the last tap meets the present token.
    bias : Tensor, shape (channel,), optional
        Offsets.
    reverse : bool, default False
        Whether the past of a token are those after it: x_{t+j} in place of x_{t-j}.

    Returns
    -------
    Tensor, shape (batch, token, channel)
        Output ``t`` depends on tokens ``t-k+1`` to ``t``.

    Examples
    --------
    >>> import torch
    >>> x = torch.tensor([[[1.0], [2.0], [3.0]]])
    >>> y = causal_depthwise_convolution(x, torch.tensor([[[10.0, 1.0]]]))
    >>> y.flatten().tolist()
    [1.0, 12.0, 23.0]
    """
    n_tokens, k = x.shape[1], weight.shape[-1]
    taps = weight[:, 0].T.contiguous()  # (k, channel)
    y = x * taps[-1] if bias is None else torch.addcmul(bias, x, taps[-1])
    # Taps that reach back further than the first token meet only zeros.
    for j in range(1, min(k, n_tokens)):
        x_before = F.pad(x, (0, 0, -j, j) if reverse else (0, 0, j, -j))  # x_{t-j}
        y = torch.addcmul(y, x_before, taps[k - 1 - j])
    return y


def causal_convolution_silu(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    reverse: bool = False,
) -> Tensor:
    r"""Apply :func:`causal_depthwise_convolution`, then SiLU.

    One pass over the tokens where the scan's backend ``"c"`` is taken.

    Parameters
    ----------
    x, weight, bias, reverse
        As in :func:`causal_depthwise_convolution`.

    Returns
    -------
    Tensor, shape (batch, token, channel)
        :math:`y \odot \sigma(y)` of the convolution y.

    Examples
    --------
    >>> import torch
    >>> x = torch.tensor([[[1.0], [2.0], [3.0]]])
    >>> y = causal_convolution_silu(x, torch.tensor([[[0.0, 1.0]]]))
    >>> [round(value, 3) for value in y.flatten().tolist()]
    [0.731, 1.762, 2.858]
    """
    if not is_fused(x):
        return F.silu(causal_depthwise_convolution(x, weight, bias, reverse=reverse))
    from sciseq.ops.selective_scan.c_backend import convolution_silu

    return convolution_silu(x.mT, weight[:, 0], bias, reverse).mT
